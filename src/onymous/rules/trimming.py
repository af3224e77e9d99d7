"""What is over the documented limits of an event is cut, so that nothing unbounded is kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onymous.rules.attributes import MOST_VALUE

#: characters of an event's name and of an attribute's; attributes of one event
MOST_NAME, MOST_ATTRIBUTES = 256, 100
#: characters of what a person chose on a push message
MOST_ACTION = 100
_NAMES = ("event_name", "screen_name")
_MOST = {**dict.fromkeys(_NAMES, MOST_NAME), "action_identifier": MOST_ACTION}


def trimmed(raw: Mapping[str, Any], size: int, notes: list[str]) -> Mapping[str, Any]:
    """Return a batch of `size` bytes within the limits, the batch itself where it was so.

    Each kind of cut is noted. What is no event is left for the reader of batches to refuse.
    """
    events = raw.get("events")
    if not isinstance(events, list):
        return raw
    long = size > MOST_VALUE
    for event in events:
        if not _fits(event, long):
            return {**raw, "events": [_event(event, size, notes) for event in events]}
    return raw


def _fits(event: Any, long: bool) -> bool:
    """Whether nothing of an event is over a limit; `long`: a value of it may be."""
    data = event.get("data") if isinstance(event, dict) else None
    if not isinstance(data, dict):
        return True
    for field, most in _MOST.items():
        text = data.get(field)
        if text is not None and isinstance(text, str) and len(text) > most:
            return False
    given = data.get("custom_attributes")
    if not given or not isinstance(given, dict):
        return True
    if len(given) > MOST_ATTRIBUTES or max(map(len, given)) > MOST_NAME:
        return False
    return not long or all(len(v) <= MOST_VALUE for v in given.values() if isinstance(v, str))


def _event(event: Any, size: int, notes: list[str]) -> Any:
    data = event.get("data") if isinstance(event, dict) else None
    if not isinstance(data, dict):
        return event
    more: dict[str, Any] = {}
    for field in _NAMES:
        name = data.get(field)
        if isinstance(name, str) and len(name) > MOST_NAME:
            more[field] = name[:MOST_NAME]
            notes.append("event_name_truncated")
    action = data.get("action_identifier")
    if isinstance(action, str) and len(action) > MOST_ACTION:
        more["action_identifier"] = action[:MOST_ACTION]
        notes.append("action_identifier_truncated")
    given = data.get("custom_attributes")
    if isinstance(given, dict) and given:
        kept = _attributes(given, size, notes)
        if kept is not given:
            more["custom_attributes"] = kept
    return {**event, "data": {**data, **more}} if more else event


def _attributes(given: dict[str, Any], size: int, notes: list[str]) -> dict[str, Any]:
    """Keep the first attributes, their names and values cut where they are too long."""
    many = len(given) > MOST_ATTRIBUTES
    names = max(map(len, given)) > MOST_NAME
    values = size > MOST_VALUE and any(
        isinstance(v, str) and len(v) > MOST_VALUE for v in given.values()
    )
    if not (many or names or values):
        return given
    for wrong, note in (
        (many, "too_many_event_attributes"),
        (names, "event_attribute_name_truncated"),
        (values, "event_attribute_value_truncated"),
    ):
        if wrong:
            notes.append(note)
    return {
        name[:MOST_NAME]: value[:MOST_VALUE] if isinstance(value, str) else value
        for name, value in list(given.items())[:MOST_ATTRIBUTES]
    }
