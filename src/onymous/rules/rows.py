"""Rows of files that only say who somebody is and what they are like: the person they make.

The same as reading a batch and applying it to somebody new, for the rows most files are made of.
Whatever else a row says is left to the ordinary way (rules/events.py, rules/profiles.py).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import msgspec

from onymous.rules.attributes import (
    MOST_ATTRIBUTES,
    MOST_VALUE,
    attribute_value,
    known_name,
)
from onymous.rules.profiles import Person

_PLAIN = frozenset({"user_identities", "user_attributes", "environment"})
#: a person of whom nothing is known, field by field: filling in a copy costs less than making one
_NOBODY: list[Any] = list(msgspec.structs.astuple(Person(0, 0, 0, batches=1)))
_ATTRIBUTES, _INPUTS = map(Person.__struct_fields__.index, ("attributes", "inputs"))
_encode = msgspec.msgpack.Encoder().encode


def plain_person(raw: Mapping[str, Any], input_id: int, now_ms: int, at_ms: int) -> bytes | None:
    """Return the person a row makes of somebody new, packed; None where it says more than that."""
    given = raw.get("user_attributes") or {}
    if not raw.keys() <= _PLAIN or at_ms < 0 or type(given) is not dict:
        return None
    if len(given) > MOST_ATTRIBUTES:
        return None
    attributes: dict[str, tuple[str | list[str] | None, int]] = {}
    for key, value in given.items():
        name = known_name(key)
        if type(value) is not str or len(value) > MOST_VALUE or not value.isprintable():
            value, why = attribute_value(value)
            if why:
                return None
        if name is None or name in attributes:
            return None
        attributes[name] = (value, at_ms)
    if at_ms == now_ms:
        before, after = _around(now_ms, input_id)
        return b"".join((before, _encode(attributes), after))
    person = _NOBODY.copy()
    person[:3] = at_ms, at_ms, now_ms
    person[_ATTRIBUTES] = attributes
    person[_INPUTS] = {input_id: (at_ms, at_ms)}
    return _encode(person)


@functools.lru_cache(16)
def _around(now_ms: int, input_id: int) -> tuple[bytes, bytes]:
    """Return what stands around the attributes of a person that is of now, packed."""
    person = _NOBODY.copy()
    person[:3] = now_ms, now_ms, now_ms
    person[_INPUTS] = {input_id: (now_ms, now_ms)}
    parts = [_encode(field) for field in person]
    # an array of 16 to 65,535 things
    start = b"\xdc" + len(parts).to_bytes(2, "big")
    return start + b"".join(parts[:_ATTRIBUTES]), b"".join(parts[_ATTRIBUTES + 1 :])
