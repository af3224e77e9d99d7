"""What of a timeline someone wants to see: said in the address, which therefore can be passed on.

A device is named by a handle: no identity value ends up in an address.
"""

from __future__ import annotations

import datetime
import re
import urllib.parse
from collections.abc import Mapping
from typing import Any

import msgspec

from onymous.console.masking import Handles
from onymous.flows.profiles import ProfileView
from onymous.flows.tenants import Names
from onymous.flows.timeline import Wanted
from onymous.rules.events import KINDS as EVENTS
from onymous.rules.masking import mask

#: what is shown: everything, or one of
KINDS = ("", "identity", "events")
_CURSOR = re.compile(r"\d{1,19}\.[01]\.\d{1,19}")
#: what fields are called in addresses
_NAMES = {"since": "from", "until": "to"}
_DAY_MS = 86_400_000
_ALL = 1 << 62


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What the address of a person's page says; what makes no sense is left out."""

    show: str = ""
    before: str = ""
    since: str = ""
    until: str = ""
    input: int = 0
    event: str = ""
    #: the handle of a device
    device: str = ""

    @property
    def filtered(self) -> bool:
        """Return whether more is asked for than a kind and a page."""
        return bool(self.since or self.until or self.input or self.event or self.device)

    def query(self, **other: str) -> str:
        """Return this as the query of an address, with some of it changed; empty: nothing."""
        fields = {**msgspec.to_builtins(self), **other}
        return urllib.parse.urlencode({_NAMES.get(k, k): v for k, v in fields.items() if v})


def asked(query: Mapping[str, str]) -> Asked:
    """Read the query of an address."""
    show, before = query.get("show", ""), query.get("before", "")
    event, number, device = (query.get(n, "") for n in ("event", "input", "device"))
    return Asked(
        show=show if show in KINDS else "",
        before=before if _CURSOR.fullmatch(before) else "",
        since=_day(query.get("from", "")),
        until=_day(query.get("to", "")),
        input=int(number) if re.fullmatch(r"[0-9]{1,9}", number, re.ASCII) else 0,
        event=event if event in EVENTS else "",
        device=device if re.fullmatch(r"[0-9a-f]{18}", device) else "",
    )


def reread(text: str) -> Asked:
    """Read a query that a form carries."""
    fields = urllib.parse.parse_qs(text[:1_000])
    return asked({name: values[0] for name, values in fields.items()})


def wanted(filters: Asked, view: ProfileView, handles: Handles) -> Wanted:
    """Return what the timeline is asked for."""
    stamps = {handle: stamp for handle, stamp, _ in _devices(view, handles)}
    return Wanted(
        kind=filters.show,
        from_ms=_ms(filters.since) if filters.since else 0,
        to_ms=_ms(filters.until) + _DAY_MS - 1 if filters.until else _ALL,
        input=filters.input,
        event_type=filters.event,
        # of a device that is not theirs nothing is shown
        device=stamps.get(filters.device, "\0") if filters.device else "",
    )


def choices(filters: Asked, view: ProfileView, handles: Handles, names: Names) -> dict[str, Any]:
    """Return what the form of the filter offers."""
    numbers = {n.input for n in (*view.user_identities, *view.device_identities)}
    numbers |= {number for person in view.workspaces.values() for number in person.inputs}
    return {
        "inputs": sorted((names.input(n), n) for n in {*numbers, filters.input} - {0}),
        "events": [(kind, kind.replace("_", " ")) for kind in EVENTS],
        "devices": [
            (handle, f"{platform} {mask(stamp)}")
            for handle, stamp, platform in _devices(view, handles)
        ],
    }


def _devices(view: ProfileView, handles: Handles) -> list[tuple[str, str, str]]:
    """Return (handle, stamp, platform) of the devices of a person that have a stamp."""
    found = {
        device.stamp: device.platform
        for person in view.workspaces.values()
        for device in person.devices
        if device.stamp
    }
    return [
        (handles.of(view.mpid, "device_application_stamp", stamp), stamp, platform)
        for stamp, platform in found.items()
    ]


def _day(text: str) -> str:
    """Return a day as it came in, or nothing for what is none."""
    try:
        return datetime.date.fromisoformat(text).isoformat() if len(text) == 10 else ""
    except ValueError:
        return ""


def _ms(day: str) -> int:
    start = datetime.datetime.fromisoformat(day).replace(tzinfo=datetime.UTC)
    return max(0, int(start.timestamp() * 1000))
