"""Live profiles: a person's names, what each workspace knows of them, what they are worth.

Aliases are followed as they are read: what a source did within the window of an alias counts for
its destination, late events included, and no longer once the alias is undone.
"""

from __future__ import annotations

import msgspec

from onymous.flows.arrivals import device_number
from onymous.flows.identity import Mpids
from onymous.rules.identifiers import BY_CODE
from onymous.rules.profiles import Person
from onymous.rules.records import ERASED, KNOWN, ORPHANED, Record
from onymous.store import history_sql, sql
from onymous.store.packing import unpack_record
from onymous.store.port import Session, Store

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
    first_seen_ms: int
    last_seen_ms: int
    #: receive time of the last batch over all workspaces, or the time of creation
    stored_ms: int
    opted_out: bool
    limit_ad_tracking: bool | None
    user_identities: list[Named]
    device_identities: list[Named]
    #: what each workspace knows, by its number
    workspaces: dict[int, Person]
    counts: list[Counts]
    attributions: list[tuple[str, str, str]]
    #: profiles whose history also belongs to this one, and the other way round
    aliases_in: list[AliasView]
    aliases_out: list[AliasView]

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

    async def profile(self, pool: int, pid: int, now_ms: int = 1 << 62) -> ProfileView | None:
        """Return a profile, or None for one that is unknown in the pool or erased."""
        async with self._store.read() as session:
            return await read_profile(session, self._mpids, pool, pid, now_ms)


async def read_profile(
    session: Session, mpids: Mpids, pool: int, pid: int, now_ms: int = 1 << 62
) -> ProfileView | None:
    """Read a profile in an open session; `now_ms` decides which delayed aliases are in force."""
    rows = await session.rows(sql.PROFILE_BY_PID, pid)
    record = unpack_record(rows[0]) if rows else None
    if record is None or record.pool != pool or record.flags & ERASED:
        return None
    persons = await persons_of(session, pid)
    view = _view(record, persons, mpids.text(pid))
    into = await session.rows(history_sql.ALIASES_INTO, pid, now_ms)
    out = await session.rows(history_sql.ALIASES_OUT, pid)
    view.aliases_in = [_alias(row, mpids) for row in into]
    view.aliases_out = [_alias(row, mpids) for row in out]
    for row in into:
        await _follow(session, view, row[1], row[2], row[3], row[4], row[5])
    return view


async def persons_of(session: Session, pid: int) -> dict[int, Person]:
    """Return what each workspace knows of a person."""
    rows = await session.rows(history_sql.PERSONS_OF, pid)
    return {row[0]: _person.decode(bytes(row[2])) for row in rows}


def _alias(row: tuple[int, int, int, int, str, str | None, int], mpids: Mpids) -> AliasView:
    return AliasView(row[0], mpids.text(row[1]), *row[2:])


async def _follow(
    session: Session,
    view: ProfileView,
    source: int,
    start_ms: int,
    end_ms: int,
    scope: str,
    stamp: str | None,
) -> None:
    """Add what belongs to a profile through an alias: counts, first seen, install attribution."""
    device = device_number(stamp) if scope == "device" else 0
    rows = await session.rows(history_sql.TALLY_SUM, source, start_ms, end_ms, device, device)
    for workspace, platform, worth, sessions in rows:
        add_counts(view.counts, Counts(workspace, platform, worth, sessions))
    persons = await persons_of(session, source)
    for person in persons.values():
        view.first_seen_ms = min(view.first_seen_ms or person.first_ms, person.first_ms)
        view.attributions += [a for a in person.attributions if a not in view.attributions]


def add_counts(counts: list[Counts], more: Counts) -> None:
    """Add to the counts of the same workspace and platform."""
    for old in counts:
        if (old.workspace, old.platform) == (more.workspace, more.platform):
            old.worth += more.worth
            old.sessions += more.sessions
            return
    counts.append(more)


def _view(record: Record, persons: dict[int, Person], mpid: str) -> ProfileView:
    users, devices = _named(record)
    opted = [p.opted_out for p in persons.values() if p.opted_out is not None]
    limited = [p.limit_ad_tracking for p in persons.values() if p.limit_ad_tracking is not None]
    counts: list[Counts] = []
    for workspace, person in persons.items():
        for platform in sorted({*person.worth, *person.sessions}):
            worth, sessions = person.worth.get(platform, 0), person.sessions.get(platform, 0)
            counts.append(Counts(workspace, platform, worth, sessions))
    attributions = [a for p in persons.values() for a in p.attributions]
    return ProfileView(
        mpid=mpid,
        pid=record.pid,
        pool=record.pool,
        created_ms=record.created_ms,
        known=bool(record.flags & KNOWN),
        orphaned=bool(record.flags & ORPHANED),
        first_seen_ms=min((p.first_ms for p in persons.values()), default=0),
        last_seen_ms=max((p.last_ms for p in persons.values()), default=0),
        stored_ms=max((p.stored_ms for p in persons.values()), default=record.created_ms),
        opted_out=max(opted, key=lambda o: o[1])[0] if opted else False,
        limit_ad_tracking=max(limited, key=lambda o: o[1])[0] if limited else None,
        user_identities=users,
        device_identities=devices,
        workspaces=persons,
        counts=counts,
        attributions=list(dict.fromkeys(attributions)),
        aliases_in=[],
        aliases_out=[],
    )


def _named(record: Record) -> tuple[list[Named], list[Named]]:
    """Return user identities in the order of types, and device identities newest first."""
    users: list[tuple[int, Named]] = []
    devices: list[tuple[int, Named]] = []
    for v in record.values:
        kind = BY_CODE[v.code]
        named = Named(kind.name, v.text, v.first_ms, v.last_ms, v.workspace, v.input)
        (devices if v.code >= 40 else users).append((v.code, named))
    users.sort(key=lambda n: (n[0], -n[1].updated_ms))
    devices.sort(key=lambda n: -n[1].updated_ms)
    return [n for _, n in users], [n for _, n in devices]
