"""The app a person uses: name and version, when it was installed, upgraded, uninstalled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from onymous.rules.devices import truth

MOST_TEXT = 128
_FIELDS = {
    "application_name": "name",
    "application_version": "version",
    "application_build_number": "build",
    "package": "package",
}


class App(msgspec.Struct, array_like=True):
    """What is known of a person's app on one platform. Each part is of the latest time."""

    #: when name and version were stated
    at_ms: int = 0
    name: str | None = None
    version: str | None = None
    build: str | None = None
    package: str | None = None
    installed_ms: int = 0
    upgraded_ms: int = 0
    uninstalled_ms: int = 0


def read_app(given: object, at_ms: int) -> App | None:
    """Read the `application_info` of a batch; None where it says nothing of the app."""
    if not isinstance(given, dict):
        return None
    told: dict[str, Any] = {}
    for name, field in _FIELDS.items():
        value = given.get(name)
        if value is None:
            continue
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 63:
            value = str(value)
        if isinstance(value, str) and 0 < len(value) <= MOST_TEXT:
            told[field] = value
    return App(at_ms, **told) if told else None


def life_of(kind: str, data: Mapping[str, Any]) -> str:
    """Return what an event says of the app's life: a field of `App`, or nothing."""
    if kind == "uninstall":
        return "uninstalled_ms"
    if kind == "first_run":
        return "installed_ms"
    if data.get("application_transition_type") != "application_initialized":
        return ""
    if truth(data.get("is_first_run")) is True:
        return "installed_ms"
    return "upgraded_ms" if truth(data.get("is_upgrade")) is True else ""


def newer(old: App | None, new: App) -> App:
    """Return an app with what two tell of it: of each part what is from later."""
    if old is None:
        return new
    first, last = (old, new) if new.at_ms >= old.at_ms else (new, old)
    return App(
        last.at_ms,
        last.name or first.name,
        last.version or first.version,
        # a build belongs to its version
        last.build or (None if last.version else first.build),
        last.package or first.package,
        max(old.installed_ms, new.installed_ms),
        max(old.upgraded_ms, new.upgraded_ms),
        max(old.uninstalled_ms, new.uninstalled_ms),
    )
