"""Live profiles: a person's names, what each workspace knows of them, what they are worth.

Aliases are followed as they are read: what a source did within the window of an alias counts for
its destination, late events included, and no longer once the alias is undone.
"""

from __future__ import annotations

import msgspec

from onymous.flows.arrivals import device_number
from onymous.flows.identity import MOST_MERGES, Mpids
from onymous.rules.identifiers import BY_CODE, BY_NAME
from onymous.rules.profiles import Person, combine, counted_twice
from onymous.rules.records import ERASED, KNOWN, ORPHANED, Record
from onymous.rules.sessions import within
from onymous.store import history_sql, sql
from onymous.store.packing import unpack_record
from onymous.store.port import Row, Session, Store

#: profiles and windows one profile is made of
MOST_SIDES = 200

_person = msgspec.msgpack.Decoder(Person)


class Named(msgspec.Struct, frozen=True):
    """One identity value of a person; `updated_ms` is when it was last given or changed."""

    type: str
    value: str
    first_ms: int
    updated_ms: int
    workspace: int
    input: int


class Counts(msgspec.Struct):
    """What counts for a person in one workspace and on one platform."""

    workspace: int
    platform: str
    #: millionths of the currency unit
    worth: int
    sessions: int


class AliasView(msgspec.Struct, frozen=True):
    """An alias in force that touches a profile; `other` is the MPID at its other end."""

    id: int
    other: str
    start_ms: int
    end_ms: int
    scope: str
    stamp: str | None
    at_ms: int


class ProfileView(msgspec.Struct, kw_only=True):
    """A profile as it stands now."""

    mpid: str
    pid: int
    pool: int
    created_ms: int
    known: bool
    orphaned: bool
    #: first and last seen over all workspaces, windows of aliases included; 0 where never
    first_seen_ms: int = 0
    last_seen_ms: int = 0
    #: time of the last change over all workspaces, or of creation
    stored_ms: int
    opted_out: bool = False
    limit_ad_tracking: bool | None = None
    user_identities: list[Named] = []
    device_identities: list[Named] = []
    #: what each workspace knows, by its number
    workspaces: dict[int, Person] = {}
    counts: list[Counts] = []
    attributions: list[tuple[str, str, str]] = []
    #: the same by workspace
    attributed: dict[int, list[tuple[str, str, str]]] = {}
    #: profiles whose history also belongs to this one, and the other way round
    aliases_in: list[AliasView] = []
    aliases_out: list[AliasView] = []
    #: numbers of the profiles merged into this one
    merged: list[int] = []
    #: the rows it was made of, where nothing else was needed: equal rows make an equal view
    made_of: list[Row] | None = None

    @property
    def lifetime_value(self) -> float:
        """Return what the person is worth over all workspaces and platforms."""
        return sum(c.worth for c in self.counts) / 1_000_000

    @property
    def sessions(self) -> int:
        """Return the number of sessions over all workspaces and platforms."""
        return sum(c.sessions for c in self.counts)


class Profiles:
    """Reads profiles."""

    def __init__(self, store: Store, mpids: Mpids) -> None:
        self._store, self._mpids = store, mpids

    def parse(self, mpid: object) -> int | None:
        """Return the number of an MPID, or None for one that was never made."""
        return self._mpids.parse(mpid)

    async def profile(self, pool: int, pid: int, now_ms: int = 1 << 62) -> ProfileView | None:
        """Return a profile, or None for one that is unknown in the pool or erased."""
        async with self._store.read() as session:
            return await read_profile(session, self._mpids, pool, pid, now_ms)

    async def shown(self, scope: int, pid: int, now_ms: int) -> ProfileView | None:
        """Return a profile of either environment of a scope, without `aliases_out`; or None.

        Nearly every profile is neither merged nor aliased: those take one round. Never waits
        where the store has `rows_now`.
        """
        rows = self.rows_now(pid)
        if rows is None:
            async with self._store.read() as session:
                rows = await session.rows(history_sql.PERSON_PLAIN, pid, pid, pid, pid, pid)
        if all(row[0] < 2 for row in rows):
            return _plain(rows, scope, self._mpids)
        for pool in (scope * 2, scope * 2 + 1):
            view = await self.profile(pool, pid, now_ms)
            if view is not None:
                return view
        return None

    def rows_now(self, pid: int) -> list[Row] | None:
        """Return the rows a profile is made of at once, or None where the store would wait."""
        now = self._store.rows_now
        return None if now is None else now(history_sql.PERSON_PLAIN, pid, pid, pid, pid, pid)


def _plain(rows: list[Row], scope: int, mpids: Mpids) -> ProfileView | None:
    """Return the profile of rows of `PERSON_PLAIN` that need nothing more."""
    view: ProfileView | None = None
    persons: dict[int, Person] = {}
    for row in rows:
        if row[0]:
            persons[row[1]] = _person.decode(bytes(row[7]))
        else:
            record = unpack_record(row[1:])
            if record.pool // 2 == scope and not record.flags & ERASED:
                view = _empty(record, mpids)
    if view is not None:
        for workspace in sorted(persons):
            _take(view, workspace, persons[workspace])
        _seen(view, persons)
        _conclude(view)
        view.made_of = rows
    return view


class Side(msgspec.Struct, frozen=True):
    """A part of history that belongs to a profile: all of a record, or the window of an alias."""

    pid: int
    start_ms: int = 0
    end_ms: int = 1 << 62
    #: only what this device did (aliases of scope device)
    stamp: str | None = None
    whole: bool = True


async def read_profile(
    session: Session, mpids: Mpids, pool: int, pid: int, now_ms: int = 1 << 62
) -> ProfileView | None:
    """Read a profile in an open session; `now_ms` decides which delayed aliases are in force.

    The MPID of a profile that was merged into another one reads that one.
    """
    record = await _record(session, pool, await canonical(session, pid))
    if record is None:
        return None
    view = _empty(record, mpids)
    for side in await sides(session, record.pid, now_ms):
        await _add(session, view, side)
    into = await session.rows(history_sql.ALIASES_INTO, record.pid, now_ms)
    out = await session.rows(history_sql.ALIASES_OUT, record.pid)
    view.aliases_in = [_alias(row, mpids) for row in into]
    view.aliases_out = [_alias(row, mpids) for row in out]
    for alias in view.aliases_in:
        view.stored_ms = max(view.stored_ms, alias.at_ms)
    _conclude(view)
    return view


async def canonical(session: Session, pid: int) -> int:
    """Return the number of the profile that stands for this one after merges."""
    for _ in range(MOST_MERGES):
        rows = await session.rows(history_sql.MERGE_OF, pid)
        if not rows:
            break
        pid = rows[0][3]
    return pid


async def sides(session: Session, pid: int, now_ms: int = 1 << 62) -> list[Side]:
    """Return every part of history that belongs to a profile, its own record first.

    What belongs to it whole, by a merge, does not belong to it once more by an alias.
    """
    whole = [pid]
    for number in whole:
        for row in await session.rows(history_sql.MERGES_INTO, number):
            if len(whole) < MOST_SIDES and row[2] not in whole:
                whole.append(row[2])
    out = [Side(number) for number in whole]
    for number in whole:
        for row in await session.rows(history_sql.ALIASES_INTO, number, now_ms):
            if row[1] not in whole and len(out) < MOST_SIDES:
                stamp = row[5] if row[4] == "device" else None
                out.append(Side(row[1], row[2], row[3], stamp, False))
    return out


async def _record(session: Session, pool: int, pid: int) -> Record | None:
    rows = await session.rows(sql.PROFILE_BY_PID, pid)
    record = unpack_record(rows[0]) if rows else None
    if record is None or record.pool != pool or record.flags & ERASED:
        return None
    return record


async def persons_of(session: Session, pid: int) -> dict[int, Person]:
    """Return what each workspace knows of a person, merges and aliases left aside."""
    rows = await session.rows(history_sql.PERSONS_OF, pid)
    return {row[0]: _person.decode(bytes(row[2])) for row in rows}


def _alias(row: Row, mpids: Mpids) -> AliasView:
    return AliasView(row[0], mpids.text(row[1]), *row[2:])


async def _add(session: Session, view: ProfileView, side: Side) -> None:
    """Add one side of a profile to its view."""
    persons = await persons_of(session, side.pid)
    if side.whole:
        if side.pid != view.pid:
            record = await _record(session, view.pool, side.pid)
            if record is None:
                return
            _names(view, record)
            view.merged.append(record.pid)
        for workspace, person in persons.items():
            _take(view, workspace, person)
    else:
        device = device_number(side.stamp)
        rows = await session.rows(
            history_sql.TALLY_SUM, side.pid, side.start_ms, side.end_ms, device, device
        )
        for counts in _of_window(view, persons, [Counts(*row) for row in rows]):
            add_counts(view.counts, counts)
    _seen(view, persons)


def _of_window(view: ProfileView, persons: dict[int, Person], counts: list[Counts]) -> list[Counts]:
    """Return what a window brings: without sessions this profile surely counts itself."""
    for workspace, person in persons.items():
        known = {*person.started} & {*getattr(view.workspaces.get(workspace), "started", ())}
        if not known:
            continue
        here = [c for c in counts if c.workspace == workspace]
        inside = sum(c.sessions for c in here)
        left = within(len(known), sum(person.sessions.values()), inside)
        for count in here:
            some = min(left, count.sessions)
            count.sessions, left = count.sessions - some, left - some
    return counts


def _take(view: ProfileView, workspace: int, person: Person) -> None:
    """Add what a workspace knows of a whole record."""
    old = view.workspaces.get(workspace)
    twice = {} if old is None else counted_twice(old, person)
    view.workspaces[workspace] = person if old is None else combine(old, person)
    for platform in sorted({*person.worth, *person.sessions}):
        worth, sessions = person.worth.get(platform, 0), person.sessions.get(platform, 0)
        sessions -= twice.get(platform, 0)
        add_counts(view.counts, Counts(workspace, platform, worth, sessions))


def _seen(view: ProfileView, persons: dict[int, Person]) -> None:
    """Add what holds for a window as well: first seen, and where installs came from."""
    for workspace, person in persons.items():
        view.first_seen_ms = min(view.first_seen_ms or person.first_ms, person.first_ms)
        if person.attributions:
            here = view.attributed.setdefault(workspace, [])
            here += [a for a in person.attributions if a not in here]
            view.attributions += [a for a in person.attributions if a not in view.attributions]


def add_counts(counts: list[Counts], more: Counts) -> None:
    """Add to the counts of the same workspace and platform."""
    for old in counts:
        if (old.workspace, old.platform) == (more.workspace, more.platform):
            old.worth += more.worth
            old.sessions += more.sessions
            return
    counts.append(more)


def _empty(record: Record, mpids: Mpids) -> ProfileView:
    view = ProfileView(
        mpid=mpids.text(record.pid),
        pid=record.pid,
        pool=record.pool,
        created_ms=record.created_ms,
        known=bool(record.flags & KNOWN),
        orphaned=bool(record.flags & ORPHANED),
        stored_ms=record.created_ms,
    )
    _names(view, record)
    return view


def _names(view: ProfileView, record: Record) -> None:
    """Add a record's identities: user ones in the order of types, device ones newest first."""
    for v in record.values:
        kind = BY_CODE[v.code]
        named = Named(kind.name, v.text, v.first_ms, v.last_ms, v.workspace, v.input)
        device = kind.klass != "user"
        (view.device_identities if device else view.user_identities).append(named)
    view.known = view.known or bool(record.flags & KNOWN)
    if len(view.user_identities) > 1:
        view.user_identities.sort(key=lambda n: (BY_NAME[n.type].code, -n.updated_ms))
    if len(view.device_identities) > 1:
        view.device_identities.sort(key=lambda n: -n.updated_ms)


def _conclude(view: ProfileView) -> None:
    """Set what follows from all workspaces together."""
    persons = view.workspaces.values()
    opted = [p.opted_out for p in persons if p.opted_out is not None]
    limited = [p.limit_ad_tracking for p in persons if p.limit_ad_tracking is not None]
    view.opted_out = max(opted, key=lambda o: o[1])[0] if opted else False
    view.limit_ad_tracking = max(limited, key=lambda o: o[1])[0] if limited else None
    view.last_seen_ms = max((p.last_ms for p in persons), default=0)
    view.stored_ms = max([view.stored_ms, *(p.stored_ms for p in persons)])
