"""Rows of files that meet nobody: each makes a new person, many are written at once.

Such a row has nothing to decide. What makes it one is checked in the transaction that writes it:
nobody holds any of its lookup values, and no other row of the same piece has one of them. All
other rows are decided one after the other, as requests are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from onymous.flows.identity import CODE_OF, NAME_OF, lookup_keys
from onymous.flows.journal import fresh_rows
from onymous.flows.tenants import Caller
from onymous.rules.identifiers import clean, ordinary
from onymous.rules.identity import is_person
from onymous.rules.ledger import ATTACHED, CREATED, Change, Entry
from onymous.rules.records import KNOWN
from onymous.rules.rows import plain_person
from onymous.store import history_sql, sql
from onymous.store.packing import SLOTS
from onymous.store.port import Transaction

_encode = msgspec.msgpack.Encoder().encode
#: ledger entries named by one job
MOST_NAMED = 512
#: a new record begins with this change, packed as all are: a `Change` as a tuple
_MADE = msgspec.structs.astuple(Change(CREATED))
#: spellings of values that are compared as they came
_AS_GIVEN: dict[str, str] = {}
#: what follows the changes of an `Entry` that says no more
_REST = msgspec.structs.astuple(Entry("feed", 0, 0, None, []))[5:]


#: (slot, value) of what a row is looked up by
Looked = Sequence[tuple[int, str]]


class Place(msgspec.Struct, frozen=True):
    """Where the rows of a file go."""

    caller: Caller
    pool: int
    now_ms: int
    max_values: int


class Newcomer(msgspec.Struct, gc=False):
    """A row that makes a new person, unless somebody has one of its values."""

    #: type code -> comparison key, in type order
    keys: dict[int, str]
    #: type name -> received spelling where it differs
    spelling: dict[str, str]
    looked: Looked
    #: what is kept of it, packed
    person: bytes
    at_ms: int
    #: number of the dictionary and the row itself, compressed
    packed: tuple[int, bytes] = (0, b"")


def newcomer(place: Place, raw: Mapping[str, Any], at_ms: int) -> Newcomer | None:
    """Return a row as a newcomer, or None where it must be decided like a request."""
    caller = place.caller
    given = raw.get("user_identities")
    person = plain_person(raw, caller.input, place.now_ms, at_ms)
    if person is None or type(given) is not dict or caller.strict_uac:
        return None
    plan = caller.plan
    keys, spelling = ordinary(given, plan.folding, plan.blocked), _AS_GIVEN
    # values that are compared as they came, in type order: what most rows of most files say
    if keys is None or [*keys.values()] != [*given.values()]:
        cleaned = clean(given, strict=False, folding=plan.folding, blocked=plan.blocked)
        if cleaned.skipped:
            return None
        keys = {CODE_OF[name]: key for name, key in cleaned.keys.items()}
        spelling = cleaned.spelling
    if not keys or len(keys) > place.max_values:
        return None
    base = place.pool * SLOTS
    looked = [(base + code, key) for code, key in lookup_keys(keys, plan).items()]
    return Newcomer(keys, spelling, looked, person, at_ms) if looked else None


async def strangers(tx: Transaction, looked: Sequence[Looked]) -> list[bool]:
    """Claim what rows are looked up by; return which of them meet nobody, nor another row."""
    values = [pair for some in looked for pair in some]
    once: set[tuple[int, str]] = set()
    twice = await tx.held(values)
    if len(set(values)) < len(values):
        for pair in values:
            (twice if pair in once else once).add(pair)
    meets_nobody = twice.isdisjoint
    return [bool(some) and meets_nobody(some) for some in looked]


async def welcome(tx: Transaction, place: Place, some: Sequence[Newcomer], journal: bool) -> None:
    """Write newcomers that meet nobody, into the journal too."""
    if not some:
        return
    pids = await tx.numbers("pid", len(some))
    numbers = await tx.numbers("ledger", len(some))
    profiles, identities, entries = _made(place, some, pids, numbers)
    await tx.append(sql.PROFILE_ADD, profiles)
    await tx.append(sql.IDENTITY_ADD, identities)
    await tx.append(sql.LEDGER_ADD, entries)
    await tx.append(history_sql.BATCH_ADD, _batches(place, some, pids))
    workspace = place.caller.workspace
    persons = [(pid, workspace, place.now_ms, n.person) for pid, n in zip(pids, some, strict=True)]
    await tx.append(history_sql.PERSON_NEW, persons)
    if journal:
        people = [(n.keys, pid) for n, pid in zip(some, pids, strict=True)]
        where = (workspace, place.caller.input)
        noted = fresh_rows(place.pool, where, place.now_ms, people)
        await tx.append(history_sql.JOURNAL_NEW, noted)
    for start in range(0, len(numbers), MOST_NAMED):
        named = _encode(numbers[start : start + MOST_NAMED])
        await tx.run(sql.JOB_ADD, "identity_changed", place.now_ms, named)


_Rows = list[tuple[Any, ...]]


def _made(
    place: Place, some: Sequence[Newcomer], pids: list[int], numbers: list[int]
) -> tuple[_Rows, _Rows, _Rows]:
    """Return the rows of records, of what they are looked up by, and of the ledger."""
    now, caller, plan = place.now_ms, place.caller, place.caller.plan
    workspace, source, unique, pool = caller.workspace, caller.input, plan.unique, place.pool
    base, profiles, identities, entries = pool * SLOTS, _Rows(), _Rows(), _Rows()
    flags: dict[int, int] = {}
    for pid, seq, n in zip(pids, numbers, some, strict=True):
        shown, mask, values, changes = n.spelling, 0, [], [_MADE]
        for code, key in n.keys.items():
            text = shown.get(NAME_OF[code]) if shown else None
            bit = 1 << code
            mask |= bit
            # a `Value` and a `Change`, as they are packed
            values.append((code, key, text, now, now, workspace, source))
            changes.append((ATTACHED, code, key, text, None))
            identities.append((base + code, key, 0 if unique & bit else pid, pid, None))
        flag = flags.get(mask)
        if flag is None:
            flag = flags[mask] = KNOWN if is_person(mask, plan) else 0
        profiles.append((pid, pool, now, now, flag, None, _encode(values)))
        entry = ("feed", workspace, source, None, changes, *_REST)
        entries.append((seq, pid, now, _encode(entry)))
    # in the order of their key they are written the faster
    identities.sort()
    return profiles, identities, entries


def _batches(place: Place, some: Sequence[Newcomer], pids: list[int]) -> list[tuple[Any, ...]]:
    now, where = place.now_ms, (place.caller.workspace, place.caller.input)
    return [
        (pid, n.at_ms, 0, now - n.at_ms, now, *where, None, *n.packed)
        for pid, n in zip(pids, some, strict=True)
    ]
