"""Where a person was last, as events and batches state it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import msgspec

_TEXTS = ("country_code", "region_code", "city_name", "postal_code", "dma_code", "location_source")
MOST_TEXT, MOST_NUMBER = 128, 40
#: degrees
_NORTH, _EAST = 90.0, 180.0


class Place(msgspec.Struct, array_like=True, gc=False):
    """A location and the time it is from."""

    at_ms: int
    latitude: float
    longitude: float
    accuracy_m: float | None = None
    country_code: str | None = None
    region_code: str | None = None
    city_name: str | None = None
    postal_code: str | None = None
    dma_code: str | None = None
    location_source: str | None = None


def read_place(given: object, at_ms: int, note: Callable[[str], None]) -> Place | None:
    """Read a location; numbers may be text. One without usable coordinates is left and noted."""
    if given is None or given == {}:
        return None
    if not isinstance(given, dict):
        note("location_unusable")
        return None
    latitude, longitude = _degrees(given, "latitude", _NORTH), _degrees(given, "longitude", _EAST)
    if latitude is None or longitude is None:
        note("location_unusable")
        return None
    accuracy = _number(given.get("accuracy"))
    texts = (_text(given.get(name)) for name in _TEXTS)
    return Place(at_ms, latitude, longitude, accuracy, *texts)


def later(old: Place | None, new: Place | None) -> Place | None:
    """Return the later of two places; of equal times the one that came last."""
    if old is None or new is None:
        return new or old
    return new if new.at_ms >= old.at_ms else old


def _degrees(given: dict[str, Any], name: str, most: float) -> float | None:
    number = _number(given.get(name))
    return number if number is not None and -most <= number <= most else None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str) and len(value) > MOST_NUMBER:
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _text(value: object) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value) if abs(value) < 1 << 63 else ""
    return value if isinstance(value, str) and 0 < len(value) <= MOST_TEXT else None
