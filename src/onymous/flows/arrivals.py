"""What a group of accepted batches writes: history, profiles, what counts; once per batch.

All of it happens in the transaction that resolves whose the batches are, under the lock of their
records, so that a batch is applied exactly once or not at all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import msgspec

from onymous.rules.events import Batch
from onymous.rules.profiles import Context, Person, absorb, fresh
from onymous.store import history_sql as sql
from onymous.store.port import Transaction

Key = tuple[int, bytes]
#: person, time, workspace, platform, device
_Counter = tuple[int, int, int, str, int]
_encode = msgspec.msgpack.Encoder().encode
_person = msgspec.msgpack.Decoder(Person)


class Arrival:
    """A work at the desk that brings a batch: a repeat of one of its keys has no second effect."""

    keys: tuple[Key, ...]


class Arrived(msgspec.Struct):
    """A batch whose person is known."""

    pid: int
    workspace: int
    batch: Batch
    context: Context
    #: what tells it from other batches of its input
    keys: tuple[Key, ...]
    dictionary: int
    body: bytes
    #: what its device is filed under
    device: int = 0


def once_keys(input_id: int, development: bool, names: Iterable[str]) -> tuple[Key, ...]:
    """Return the keys a batch is remembered under, so that a repeat has no effect."""
    pool, out = "d" if development else "p", []
    for name in names:
        text = f"{pool}:{name}".encode("utf-8", "replace")
        out.append((input_id, hashlib.blake2b(text, digest_size=12).digest()))
    return tuple(out)


def device_number(stamp: str | None) -> int:
    """Return the number a device is filed under in history; 0 without a stamp."""
    if not stamp:
        return 0
    digest = hashlib.blake2b(stamp.encode("utf-8", "replace"), digest_size=4).digest()
    return int.from_bytes(digest, "big") or 1


async def accepted_before(tx: Transaction, keys: Iterable[Key]) -> set[Key]:
    """Return which of these keys were accepted before."""
    wanted = sorted(set(keys))
    if not wanted:
        return set()
    found = await tx.each(sql.ONCE_GET, wanted)
    return {key for key, rows in zip(wanted, found, strict=True) if rows}


async def keep_batches(tx: Transaction, arrived: list[Arrived]) -> None:
    """Write history and profiles of batches, those of each person in the order they arrived."""
    theirs: dict[tuple[int, int], list[Arrived]] = {}
    for a in arrived:
        theirs.setdefault((a.pid, a.workspace), []).append(a)
    keys = sorted(theirs)
    found = await tx.each(sql.PERSON_GET, keys)
    tally: dict[_Counter, list[int]] = {}
    persons = []
    for key, rows in zip(keys, found, strict=True):
        some = theirs[key]
        person = _person.decode(rows[0][0]) if rows else fresh(some[0].batch)
        for a in some:
            _apply(person, a, tally)
        persons.append((*key, person.stored_ms, _encode(person)))
    await tx.many(sql.BATCH_ADD, map(_row, arrived))
    await tx.many(sql.PERSON_PUT, persons)
    if tally:
        await tx.many(sql.TALLY_ADD, [(*key, *sums) for key, sums in sorted(tally.items())])
    once = [(*key, a.batch.received_ms) for a in arrived for key in a.keys]
    await tx.many(sql.ONCE_ADD, sorted(once))


def _apply(person: Person, a: Arrived, tally: dict[_Counter, list[int]]) -> None:
    """Apply a batch to its person, and add up what counts."""
    device = a.batch.device
    a.device = device_number(device.stamp if device is not None else None)
    for counted in absorb(person, a.batch, a.context):
        counter = (a.pid, counted.at_ms, a.workspace, counted.platform, a.device)
        sums = tally.setdefault(counter, [0, 0])
        sums[0] += counted.worth
        sums[1] += counted.sessions


def _row(a: Arrived) -> tuple[object, ...]:
    b = a.batch
    return (
        a.pid,
        b.last_ms,
        b.last_ms - b.first_ms,
        b.received_ms - b.last_ms,
        b.received_ms,
        a.workspace,
        a.context.input,
        a.device or None,
        a.dictionary,
        a.body,
    )
