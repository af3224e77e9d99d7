"""Is a database whole? Every record against its ledger and lookup rows, and what else must hold.

Read in pieces from one snapshot, so it may run beside the traffic and on any size. Findings name
profile numbers and types, never values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import msgspec

from onymous.crypto import MOST, KeyProblem, MasterKey
from onymous.flows import tenancy
from onymous.flows.jobs import MOST_TRIES
from onymous.flows.journal import noted
from onymous.flows.tombstones import ERASED as ERASED_LINE
from onymous.flows.tombstones import Line as Told
from onymous.rules.identity import is_person
from onymous.rules.ledger import Entry, Line, as_of
from onymous.rules.profiles import Person
from onymous.rules.records import ERASED, ORPHANED, Record, mask_of
from onymous.rules.strategies import Plan, compile_plan
from onymous.store import backup_sql as statements
from onymous.store import history_sql, sql
from onymous.store.packing import SLOTS, slot, unpack_record
from onymous.store.port import CROWDED, Row, Session

#: rows of one piece, findings told at most
PIECE, MOST_TOLD = 2_000, 50
RESTORE = "restore the latest backup into a new folder (onymous restore) and keep this one"
REPORT = "answers may be wrong for this person: restore a backup, and report it with this line"
_entries = msgspec.msgpack.Decoder(Entry)
_person = msgspec.msgpack.Decoder(Person)


class Finding(msgspec.Struct, frozen=True):
    """Something that is wrong, and what to do."""

    what: str
    todo: str

    def __str__(self) -> str:
        return f"{self.what}; {self.todo}"


Progress = Callable[[int], None]


def _quiet(_: int) -> None:
    """Report to nobody."""


class Verifier:
    """Verifies one snapshot of a database."""

    def __init__(
        self, session: Session, engine: str, plans: Mapping[int, Plan] | None = None
    ) -> None:
        self._session, self._engine = session, engine
        self._plans: dict[int, Plan] = dict(plans or {})
        self.found: list[Finding] = []
        #: what was looked at, by name
        self.counts: dict[str, int] = {}

    def _add(self, what: str, todo: str = REPORT) -> None:
        if len(self.found) < MOST_TOLD:
            self.found.append(Finding(what, todo))

    async def run(self, progress: Progress = _quiet) -> list[Finding]:
        """Do every check that needs nothing but the database."""
        for number, config in await self._session.rows(statements.SCOPES):
            self._plans.setdefault(number, compile_plan(tenancy.decode_scope(bytes(config))))
        await self.records(progress)
        await self.lookups(progress)
        await self.numbers()
        await self.rows()
        return self.found

    # -- records ------------------------------------------------------------------------------

    async def records(self, progress: Progress = _quiet) -> None:
        """Compare every record with its ledger and its lookup rows."""
        after = done = 0
        while rows := await self._session.rows(sql.PROFILES_AFTER, after, PIECE):
            after = rows[-1][0]
            records = [r for r in map(self._record, rows) if r is not None]
            ledgers = await self._session.each(statements.LEDGER_WHOLE, [(r.pid,) for r in records])
            for record, lines in zip(records, ledgers, strict=True):
                self._ledger(record, lines)
            await self._have_lookups(records)
            done += len(rows)
            progress(len(rows))
        self.counts["profiles"] = done

    def _record(self, row: Row) -> Record | None:
        try:
            return unpack_record(row)
        except (msgspec.DecodeError, ValueError):
            self._add(f"profile {row[0]} cannot be read", RESTORE)
            return None

    def _ledger(self, record: Record, rows: list[Row]) -> None:
        """Records that were loaded past the rules have no ledger: there is nothing to compare."""
        pid = record.pid
        if not rows:
            return
        try:
            lines = [Line(seq, at, _entries.decode(bytes(body))) for seq, at, body in rows]
        except (msgspec.DecodeError, ValueError):
            self._add(f"profile {pid}: its ledger cannot be read", RESTORE)
            return
        held = {(v.code, v.key) for v in record.values}
        told = {(code, key) for code, key, *_ in as_of(lines, 1 << 62)}
        erased = bool(record.flags & ERASED)
        if held != told and not erased:
            self._add(f"profile {pid}: its ledger tells {len(told)} values, it holds {len(held)}")
        if erased and record.values:
            self._add(f"profile {pid} is erased and holds values", "erase it again")
        if erased and any(c.key or c.shown for line in lines for c in line.entry.changes):
            self._add(f"profile {pid} is erased and its ledger holds values", "erase it again")
        if bool(record.flags & ORPHANED) != (not record.values) and not erased:
            self._add(f"profile {pid}: the flag orphaned is wrong")

    async def _have_lookups(self, records: list[Record]) -> None:
        keys, whose = [], []
        for record in records:
            for v in record.values:
                keys.append((slot(record.pool, v.code), v.key, record.pid, record.pid))
                whose.append((record.pid, v.code))
        for (pid, code), rows in zip(
            whose, await self._session.each(statements.LOOKUP_OF, keys), strict=True
        ):
            if not rows:
                self._add(f"profile {pid} has no lookup row of type {code}")

    # -- lookup rows --------------------------------------------------------------------------

    async def lookups(self, progress: Progress = _quiet) -> None:
        """Check that lookup rows name who holds the value, that unique values have one owner, and
        that crowded values count their people."""
        after: tuple[int, str, int] = (-1, "", -(1 << 62))
        crowd = _Crowd()
        done = 0
        while rows := await self._session.rows(statements.LOOKUPS_AFTER, *after, PIECE):
            after = rows[-1][0], rows[-1][1], rows[-1][2]
            pids = sorted({row[3] for row in rows if row[2] != CROWDED})
            found = await self._session.each(sql.PROFILE_BY_PID, [(pid,) for pid in pids])
            records = {
                pid: record
                for pid, some in zip(pids, found, strict=True)
                for record in map(self._record, some)
                if record is not None
            }
            for row in rows:
                if crowd.place != (row[0], row[1]):
                    self._count(crowd)
                    crowd = _Crowd((row[0], row[1]))
                self._lookup(row, records, crowd)
            done += len(rows)
        self._count(crowd)
        self.counts["lookup rows"] = done

    def _lookup(self, row: Row, records: dict[int, Record], crowd: _Crowd) -> None:
        number, value, holder, pid = row
        if holder == CROWDED:
            crowd.counted = pid
            return
        code, record, plan = number % SLOTS, records.get(pid), self._plans.get(number // 128)
        if record is None or not record.holds(code, value) or record.pool != number // SLOTS:
            self._add(f"a lookup row of type {code} names profile {pid}, which lacks it")
            return
        crowd.holders.append(pid)
        if plan is None:
            return
        if (holder == 0) != bool(plan.unique >> code & 1):
            self._add(f"a lookup row of type {code} of profile {pid} has the wrong holder")
        crowd.people += is_person(mask_of(record), plan)

    def _count(self, crowd: _Crowd) -> None:
        """A value has been read to its end."""
        code, plan = crowd.place[0] % SLOTS, self._plans.get(crowd.place[0] // 128)
        if plan is None:
            return
        if plan.unique >> code & 1 and len(set(crowd.holders)) > 1:
            some = ", ".join(map(str, sorted(set(crowd.holders))[:5]))
            self._add(f"a unique value of type {code} is on several profiles: {some}")
        if crowd.counted is not None and crowd.counted != crowd.people:
            self._add(
                f"a crowded value of type {code} counts {crowd.counted} people, {crowd.people}"
                " hold it"
            )

    # -- numbers and other tables -------------------------------------------------------------

    async def numbers(self) -> None:
        """Check that the next numbers are new ones: an MPID is never given twice."""
        for name, newest in (
            ("pid", statements.PIDS_NEWEST),
            ("ledger", statements.LEDGER_NEWEST),
        ):
            highest = (await self._session.rows(newest))[0][0] or 0
            following = (await self._session.rows(statements.NEXT[self._engine][name]))[0][0]
            if following <= highest or following >= MOST:
                self._add(
                    f"the next {name} number {following} is not above {highest}, the highest given",
                    "stop every server and run `onymous restore --new-epoch`",
                )

    async def rows(self) -> None:
        """Check what must hold between tables, and promised work."""
        for what, statement in statements.NOTHING:
            count = (await self._session.rows(statement))[0][0]
            if count:
                self._add(f"{count} {what}")
        if self._engine == "postgresql" and (await self._session.rows(statements.CLAIMS))[0][0]:
            self._add("claims were left behind", "they hold nobody up; restart the servers")
        for kind, error, count in await self._session.rows(statements.JOBS_GIVEN_UP, MOST_TRIES):
            self._add(
                f"{count} promised jobs ({kind}) were given up: {error or 'unknown'}",
                "mend the cause (onymous doctor), then `onymous verify --retry`",
            )
        self.counts["journal"] = await self._journal()
        self.counts["attributes"] = await self._persons()

    async def _journal(self) -> int:
        after = done = 0
        while rows := await self._session.rows(history_sql.JOURNAL_AFTER, after, PIECE):
            after = rows[-1][0]
            for row in rows:
                try:
                    noted(row)
                except (msgspec.DecodeError, ValueError):
                    self._add(f"request {row[0]} of the journal cannot be read", RESTORE)
            done += len(rows)
        return done

    async def _persons(self) -> int:
        done, after = 0, (0, -1)
        while rows := await self._session.rows(statements.PERSONS_AFTER, *after, PIECE):
            after = rows[-1][0], rows[-1][1]
            for pid, workspace, body in rows:
                try:
                    _person.decode(bytes(body))
                except (msgspec.DecodeError, ValueError):
                    self._add(
                        f"profile {pid}: a profile of workspace {workspace} is damaged", RESTORE
                    )
            done += len(rows)
        return done

    # -- beside the database ------------------------------------------------------------------

    async def secrets(self, key: MasterKey) -> None:
        """Check that the master key opens every secret."""
        todo = "put the key they were sealed with first or second into the master key file"
        for number, source, sealed in await self._session.rows(statements.SEALED_ALL):
            try:
                tenancy.unseal(key, source, sealed)
            except KeyProblem:
                self._add(f"secret {number} does not open with the master key {key.id}", todo)
                return

    async def remembered(self, lines: Iterable[Told]) -> None:
        """Check that everybody whose erasure is remembered outside is erased here."""
        numbers = sorted({line.number for line in lines if line.kind == ERASED_LINE})
        todo = "stop every server and run `onymous restore --new-epoch`"
        for start in range(0, len(numbers), PIECE):
            some = numbers[start : start + PIECE]
            rows = await self._session.each(statements.IS_ERASED, [(n,) for n in some])
            for number, row in zip(some, rows, strict=True):
                if row and not row[0][0]:
                    self._add(f"profile {number} was erased, and is here again", todo)


class _Crowd:
    """The holders of one value, read one after the other."""

    def __init__(self, place: tuple[int, str] = (-1, "")) -> None:
        self.place = place
        self.counted: int | None = None
        self.people = 0
        self.holders: list[int] = []
