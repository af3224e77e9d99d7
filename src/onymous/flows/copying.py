"""What an alias copies beside history when asked to: attributes and consent (rulings 21).

Copied consent never replaces a newer or a negative answer. What was copied is remembered, so that
undoing the alias takes exactly that away, and leaves alone what changed since.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from onymous.rules.consent import Consent
from onymous.rules.profiles import Attribute, Person, set_consent
from onymous.store import history_sql as sql
from onymous.store.port import Transaction

COPIES = ("attributes", "consent")
_T = TypeVar("_T")

_encode = msgspec.msgpack.Encoder().encode
_person = msgspec.msgpack.Decoder(Person)


class Copied(msgspec.Struct, array_like=True):
    """What was copied into one workspace's profile: name -> (before, copied)."""

    attributes: dict[str, tuple[Attribute | None, Attribute]] = {}
    consent: dict[str, tuple[Consent | None, Consent]] = {}


_copied = msgspec.msgpack.Decoder(Copied)


async def copy_over(
    tx: Transaction, alias: int, source: int, destination: int, what: list[str]
) -> None:
    """Copy what was asked for from one profile to the other, in every workspace."""
    theirs = await _persons(tx, source)
    ours = await _persons(tx, destination)
    for workspace, person in theirs.items():
        own = ours.get(workspace)
        if own is None:
            own = Person(person.first_ms, person.last_ms, person.stored_ms)
            own.first_ms, own.last_ms = person.last_ms, person.first_ms
        copied = Copied()
        if "attributes" in what:
            _copy_attributes(person, own, copied)
        if "consent" in what:
            _copy_consent(person, own, copied)
        if copied.attributes or copied.consent:
            body = _encode(own)
            await tx.run(sql.PERSON_PUT, destination, workspace, own.stored_ms, body)
            await tx.run(sql.COPY_ADD, alias, workspace, _encode(copied))


async def take_back(tx: Transaction, alias: int, destination: int) -> None:
    """Undo what an alias copied, where it still stands; and where another alias would bring it
    back when that one is undone.
    """
    persons = await _persons(tx, destination)
    others = await tx.rows(sql.COPIES_INTO, destination, alias)
    for workspace, body in await tx.rows(sql.COPIES_OF, alias):
        copied = _copied.decode(bytes(body))
        for number, place, later in others:
            if place == workspace:
                await _forget(tx, (number, workspace), _copied.decode(bytes(later)), copied)
        person = persons.get(workspace)
        if person is None:
            continue
        for name, (before, given) in copied.attributes.items():
            if person.attributes.get(name) == given:
                _restore(person.attributes, name, before)
        for name, (earlier, answer) in copied.consent.items():
            if person.consent.get(name) == answer:
                _restore(person.consent, name, earlier)
            person.consents = [c for c in person.consents if c != (name, answer)]
        await tx.run(sql.PERSON_PUT, destination, workspace, person.stored_ms, _encode(person))
    await tx.run(sql.COPIES_DROP, alias)


async def _forget(tx: Transaction, key: tuple[int, int], other: Copied, gone: Copied) -> None:
    """Let another alias restore what stood before the one that is undone, not what that brought."""
    attributes = _past(other.attributes, gone.attributes)
    consent = _past(other.consent, gone.consent)
    if (attributes, consent) != (other.attributes, other.consent):
        await tx.run(sql.COPY_SET, _encode(Copied(attributes, consent)), *key)


def _past(
    other: dict[str, tuple[_T | None, _T]], gone: dict[str, tuple[_T | None, _T]]
) -> dict[str, tuple[_T | None, _T]]:
    return {
        name: (gone[name][0], given)
        if name in gone and before == gone[name][1]
        else (before, given)
        for name, (before, given) in other.items()
    }


def _restore(held: dict[str, _T], name: str, before: _T | None) -> None:
    if before is None:
        held.pop(name, None)
    else:
        held[name] = before


def _copy_attributes(source: Person, destination: Person, copied: Copied) -> None:
    for name, attribute in source.attributes.items():
        own = destination.attributes.get(name)
        forgotten = destination.gone.get(name, -1)
        if (own is None or attribute.at_ms > own.at_ms) and attribute.at_ms > forgotten:
            destination.attributes[name] = attribute
            copied.attributes[name] = (own, attribute)


def _copy_consent(source: Person, destination: Person, copied: Copied) -> None:
    for name, consent in source.consent.items():
        regulation, _, purpose = name.partition("/")
        own = destination.consent.get(name)
        negative = own is not None and own.consented == (regulation == "ccpa")
        if not negative and set_consent(destination, regulation, purpose, consent):
            copied.consent[name] = (own, consent)


async def _persons(tx: Transaction, pid: int) -> dict[int, Person]:
    rows = await tx.rows(sql.PERSONS_OF, pid)
    return {row[0]: _person.decode(bytes(row[2])) for row in rows}
