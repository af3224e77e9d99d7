"""Columns of a file and what they mean: identities, attributes, or nothing.

A column is an identity where its name is one of its spellings (any case), or where the mapping
says so; `mpid`, `environment` and `timestamp` mean themselves; every other column is a user
attribute of its own name. Empty cells say nothing and delete nothing.

Columns below `events.data.` make an event of each row; of which kind, the file's name says, or the
columns do.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from onymous.rules.attributes import attribute_name
from onymous.rules.errors import MappingInvalid
from onymous.rules.identity_types import type_of

MOST_COLUMNS = 500
#: floats below this are exact
_EXACT = 2.0**53
_OWN = {
    "mpid": "mpid",
    "environment": "environment",
    "timestamp": "timestamp",
    "events.data.timestamp_unixtime_ms": "timestamp",
}
_PREFIXES = ("user_identities.", "device_info.", "user_attributes.")
_EVENT = "events.data."
#: how names of files end that say what their rows are
EVENT_FILES = {
    "-custom_event": "custom_event",
    "-commerce_event": "commerce_event",
    "-screen_view": "screen_view",
    "-eventless": "",
}
#: columns that say which kind of event they belong to
_TELLING = {
    "product_action": "commerce_event",
    "promotion_action": "commerce_event",
    "screen_name": "screen_view",
    "event_name": "custom_event",
}
_PRODUCTS = ["product_action", "products"]


class Column(msgspec.Struct, frozen=True):
    """One column: `kind` is identity, attribute, event, mpid, environment, timestamp or ignore."""

    header: str
    kind: str
    name: str


def map_columns(headers: Iterable[str], given: Mapping[str, str] | None = None) -> list[Column]:
    """Return what each column means; `given` says it for some of them.

    Words of `given`: an identity type, `@name` for an attribute, `-` to leave it out, `mpid`,
    `environment`, `timestamp`, or `events.data.` and a field of an event. Raises `MappingInvalid`
    for what makes no sense.
    """
    names = [h.strip() for h in headers]
    if len(names) > MOST_COLUMNS:
        raise MappingInvalid(what=f"more than {MOST_COLUMNS} columns")
    if len(set(names)) < len(names):
        twice = next(n for n in names if names.count(n) > 1)
        raise MappingInvalid(what=f"the column {twice} stands there twice")
    given = given or {}
    for header in given:
        if header not in names:
            raise MappingInvalid(what=f"there is no column {header}")
    columns = [_stated(n, given[n]) if n in given else _guessed(n) for n in names]
    taken: set[tuple[str, str]] = set()
    for column in columns:
        key = (column.kind, column.name)
        if column.kind != "ignore" and key in taken:
            raise MappingInvalid(what=f"two columns mean {column.name}")
        taken.add(key)
    if not any(c.kind in ("identity", "mpid") for c in columns):
        raise MappingInvalid(what="no column is an identity")
    return columns


def _stated(header: str, word: str) -> Column:
    word = word.strip()
    if word == "-":
        return Column(header, "ignore", header)
    if word.startswith("@"):
        name = attribute_name(word[1:])
        if name is None:
            raise MappingInvalid(what=f"{header}: an attribute needs a name")
        return Column(header, "attribute", name)
    if word in ("mpid", "environment", "timestamp"):
        return Column(header, word, word)
    if word.startswith(_EVENT):
        return Column(header, "event", word.removeprefix(_EVENT))
    kind = type_of(word, any_case=True)
    if kind is None:
        raise MappingInvalid(what=f"{header}: {word} is not an identity type; write @{word}?")
    return Column(header, "identity", kind.name)


def _guessed(header: str) -> Column:
    folded = header.lower()
    if folded in _OWN:
        return Column(header, _OWN[folded], _OWN[folded])
    if header.startswith(_EVENT):
        return Column(header, "event", header.removeprefix(_EVENT))
    for prefix in _PREFIXES[:2]:
        if folded.startswith(prefix):
            kind = type_of(folded.removeprefix(prefix), any_case=True)
            return Column(header, "identity" if kind else "ignore", kind.name if kind else header)
    if folded.startswith(_PREFIXES[2]):
        name = attribute_name(header[len(_PREFIXES[2]) :])
    else:
        kind = type_of(folded, any_case=True)
        if kind is not None:
            return Column(header, "identity", kind.name)
        name = attribute_name(header)
    return Column(header, "attribute" if name else "ignore", name or header)


def time_of(value: object) -> int | None:
    """Return a time in milliseconds: milliseconds, or a date and time as ISO 8601; else None."""
    text = str(value).strip()
    if text.isascii() and text.isdigit():
        return int(text) if 10 <= len(text) <= 14 else None
    try:
        at = datetime.datetime.fromisoformat(text)
    except ValueError:
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=datetime.UTC)
    stamp = int(at.timestamp() * 1000)
    return stamp if stamp > 0 else None


def _whole(value: object) -> object:
    """Return a number that a column with gaps turned into a float as the whole number it was."""
    exact = isinstance(value, float) and value.is_integer() and abs(value) < _EXACT
    return int(value) if exact and isinstance(value, float) else value


def event_type_of(file: str, columns: Iterable[Column]) -> str:
    """Return which event each row of a file is; empty: none. Raises `MappingInvalid`."""
    fields = [c.name.split(".")[0] for c in columns if c.kind == "event"]
    if not fields:
        return ""
    for end, kind in EVENT_FILES.items():
        if file.split(".")[0].endswith(end):
            return kind
    for field, kind in _TELLING.items():
        if field in fields:
            return kind
    ends = ", ".join(EVENT_FILES)
    raise MappingInvalid(what=f"which events are these? End the name of the file in one of {ends}")


def _set(data: dict[str, Any], path: list[str], value: Any) -> None:
    """Set a field of an event; of products a row has one."""
    if path[:2] == _PRODUCTS and len(path) > 2:
        products = data.setdefault("product_action", {}).setdefault("products", [{}])
        _set(products[0], path[2:], value)
        return
    # attributes have names with dots in them
    keep = 2 if path[0] in ("custom_attributes", "custom_flags") else len(path)
    path = [*path[: keep - 1], ".".join(path[keep - 1 :])]
    for name in path[:-1]:
        data = data.setdefault(name, {})
    data[path[-1]] = value


def _event(columns: list[Column], row: Mapping[str, Any], kind: str) -> dict[str, Any] | None:
    """Return the event a row is, or None where it says nothing of one."""
    data: dict[str, Any] = {}
    at = None
    for column in columns:
        value = row.get(column.header)
        if value is None or value == "":
            continue
        if column.kind == "event":
            _set(data, column.name.split("."), value)
        elif column.kind == "timestamp":
            at = time_of(value)
    if not data:
        return None
    if at is not None:
        data["timestamp_unixtime_ms"] = at
    return {"event_type": kind, "data": data}


def batch_of(columns: list[Column], row: Mapping[str, Any], event_type: str = "") -> dict[str, Any]:
    """Return a row as a batch, with an event where the rows of its file are events."""
    identities: dict[str, Any] = {}
    attributes: dict[str, Any] = {}
    out: dict[str, Any] = {"user_identities": identities, "user_attributes": attributes}
    for column in columns:
        value = row.get(column.header)
        if value is None or value == "" or value == []:
            continue
        if column.kind == "identity":
            identities[column.name] = _whole(value)
        elif column.kind == "attribute":
            attributes[column.name] = value
        elif column.kind not in ("ignore", "event"):
            out[column.name] = value.strip() if isinstance(value, str) else value
    event = _event(columns, row, event_type) if event_type else None
    if event is not None:
        out["events"] = [event]
    return out
