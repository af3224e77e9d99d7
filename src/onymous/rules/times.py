"""When something happened, as senders state it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: a time further ahead than this is the sender's clock, not the event's time
AHEAD_MS = 86_400_000
#: years before 1970 or after 9999 are no times
LAST_MS = 253_402_300_799_000


def read_time(value: object) -> int | None:
    """Return a time in milliseconds; text and whole floats are taken, anything else is none."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 16:
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and 0 < value <= LAST_MS else None


def event_time(data: Mapping[str, Any], now_ms: int) -> int:
    """Return when an event happened: as stated, unless missing or far ahead of the receive time."""
    stated = read_time(data.get("timestamp_unixtime_ms"))
    return now_ms if stated is None or stated > now_ms + AHEAD_MS else stated
