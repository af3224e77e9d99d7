"""One batch of events, understood: whose it may be, what happened when, what it changes.

Unknown fields are ignored; what is stated must make sense. What cannot be used is dropped with a
reason (limits: the documented ones), and only a batch that cannot be read at all is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from onymous.rules.attributes import MOST_ATTRIBUTES, attribute_name, attribute_value
from onymous.rules.consent import Stated, read_consent
from onymous.rules.errors import InvalidData, MissingEventField
from onymous.rules.identity_types import FOLDED
from onymous.rules.worth import worth_of

#: a time further ahead than this is the sender's clock, not the event's time
AHEAD_MS = 86_400_000
#: an event on the historical path is at least this old
HISTORICAL_MS = 72 * 3_600_000
#: years before 1970 or after 9999 are no times
_LAST_MS = 253_402_300_799_000
MOST_NAME = 256

SESSION_START = "session_start"
_NAMES = {"custom_event": "event_name", "screen_view": "screen_name"}
DEVICE_FIELDS = frozenset(name for name, kind in FOLDED.items() if kind.klass != "user")


class Change(msgspec.Struct, array_like=True):
    """One change of a user attribute; `deleted` forgets it."""

    name: str
    value: str | list[str] | None
    at_ms: int
    deleted: bool = False


class Device(msgspec.Struct):
    """The one device a batch came from."""

    stamp: str | None
    platform: str
    info: dict[str, str]
    limit_ad_tracking: bool | None = None
    #: push token registered (text) or removed (empty) by this batch
    push: str | None = None


class Batch(msgspec.Struct, kw_only=True):
    """A batch as the product understands it."""

    development: bool
    mpid: object
    #: every identity given, in any spelling
    identities: dict[str, object]
    received_ms: int
    #: time of the first and of the last event; the receive time without events
    first_ms: int
    last_ms: int
    events: int = 0
    #: starts of sessions
    sessions: list[int] = []
    #: (time, worth in millionths)
    worth: list[tuple[int, int]] = []
    changes: list[Change] = []
    consent: list[Stated] = []
    device: Device | None = None
    opted_out: tuple[bool, int] | None = None
    #: install attribution: provider, publisher, campaign
    attribution: tuple[str, str, str] | None = None
    integrations: dict[str, dict[str, str]] = {}
    partners: dict[str, str] = {}
    #: what was dropped and why
    notes: list[str] = []


def batch_id(raw: Mapping[str, Any]) -> str | None:
    """Return what tells a batch from every other of its sender, or None.

    `source_request_id` comes first; a repeated `batch_id` is a repeat as well.
    """
    for field in ("source_request_id", "batch_id", "id"):
        value = raw.get(field)
        if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
            continue
        text = str(value)
        if len(text) <= 256:
            return f"{field}:{text}"
    return None


def read_batch(
    raw: Mapping[str, Any], now_ms: int, *, platform: str = "unknown", at_ms: int | None = None
) -> Batch:
    """Understand a batch received now; `platform` is the input's; `at_ms` is what a row of a file
    says of its own time.

    Raises `InvalidData` or `MissingEventField` for one that cannot be read.
    """
    events = _events(raw)
    notes: list[str] = []
    device = _device(raw, platform)
    out = Batch(
        development=raw.get("environment") == "development",
        mpid=raw.get("mpid"),
        identities=_identities(raw),
        received_ms=now_ms,
        first_ms=now_ms if at_ms is None else at_ms,
        last_ms=now_ms if at_ms is None else at_ms,
        events=len(events),
        device=device,
        notes=notes,
    )
    times = []
    for event in events:
        data = event.get("data")
        at = event_time(data if isinstance(data, dict) else {}, now_ms)
        times.append(at)
        if isinstance(data, dict):
            _happened(out, event["event_type"], data, at)
    if times:
        out.first_ms, out.last_ms = min(times), max(times)
    # changes named by events come after the map: they are what just happened
    out.changes[:0] = _attributes(raw, out.last_ms, notes)
    out.consent = read_consent(raw.get("consent_state"), now_ms, notes.append)
    _belongings(raw, out)
    return out


def too_young(raw: Mapping[str, Any], now_ms: int) -> bool:
    """Whether a batch does not belong on the historical path: it is dropped there.

    It must have events, each with its time, and all of them at least 72 hours old.
    """
    events = raw.get("events")
    if not isinstance(events, list) or not events:
        return True
    for event in events:
        data = event.get("data") if isinstance(event, dict) else None
        stated = _time(data.get("timestamp_unixtime_ms")) if isinstance(data, dict) else None
        if stated is None or stated > now_ms - HISTORICAL_MS:
            return True
    return False


def event_time(data: Mapping[str, Any], now_ms: int) -> int:
    """Return when an event happened: as stated, unless missing or far ahead of the receive time."""
    stated = _time(data.get("timestamp_unixtime_ms"))
    return now_ms if stated is None or stated > now_ms + AHEAD_MS else stated


def _time(value: object) -> int | None:
    """Return a time in milliseconds; text and whole floats are taken, anything else is none."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 16:
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and 0 < value <= _LAST_MS else None


def _events(raw: Mapping[str, Any]) -> list[dict[str, Any]]:
    events = raw.get("events")
    if events is None:
        return []
    if not isinstance(events, list):
        raise InvalidData(what="events must be an array")
    out = []
    for event in events:
        if event is None:
            continue
        if not isinstance(event, dict):
            raise InvalidData(what="each event must be an object")
        kind = event.get("event_type")
        if not isinstance(kind, str) or not kind:
            raise MissingEventField(field="event_type")
        if event.get("data") is not None and not isinstance(event["data"], dict):
            raise InvalidData(what="the data of an event must be an object")
        out.append(event)
    return out


def _identities(raw: Mapping[str, Any]) -> dict[str, object]:
    """Collect every identity of a batch: user, device and the device stamp."""
    out: dict[str, object] = {}
    info = raw.get("device_info")
    if isinstance(info, dict):
        # most of what is said of a device is no identity
        for name in DEVICE_FIELDS & info.keys():
            out[name] = info[name]
    given = raw.get("user_identities")
    if isinstance(given, dict):
        out.update(given)
    elif isinstance(given, list):
        out.update(_listed(given))
    if raw.get("mp_deviceid") is not None:
        out["device_application_stamp"] = raw["mp_deviceid"]
    return out


def _listed(given: list[Any]) -> dict[str, object]:
    """Read identities in the form outgoing batches have: an array of type and value."""
    out = {}
    for item in given:
        if isinstance(item, dict) and isinstance(item.get("identity_type"), str):
            out[item["identity_type"]] = item.get("identity")
    return out


def _happened(out: Batch, kind: str, data: dict[str, Any], at: int) -> None:
    """Take what one event changes."""
    money = worth_of(kind, data)
    if money:
        out.worth.append((at, money))
    if kind == SESSION_START:
        out.sessions.append(at)
    elif kind == "user_attribute_change":
        _attribute_change(out, data, at)
    elif kind == "opt_out":
        opted = data.get("is_opted_out", False) is True
        if out.opted_out is None or out.opted_out[1] <= at:
            out.opted_out = (opted, at)
    elif kind == "push_registration":
        _push(out, data)
    elif kind == "custom_event" and data.get("custom_event_type") == "attribution":
        _attributed(out, data)
    name = data.get(_NAMES.get(kind, ""))
    if isinstance(name, str) and len(name) > MOST_NAME:
        out.notes.append("event_name_truncated")


def _attribute_change(out: Batch, data: dict[str, Any], at: int) -> None:
    name = attribute_name(data.get("user_attribute_name"))
    if name is None:
        out.notes.append("attribute_name_unusable")
    elif data.get("deleted") is True:
        out.changes.append(Change(name, None, at, True))
    else:
        value, why = attribute_value(data.get("new"))
        if why:
            out.notes.append(why)
        else:
            out.changes.append(Change(name, value, at))


def _attributes(raw: Mapping[str, Any], at: int, notes: list[str]) -> list[Change]:
    """Read the map of attributes and the list of deleted ones: deletes first, then sets."""
    out = []
    deleted = raw.get("deleted_user_attributes")
    for item in deleted if isinstance(deleted, list) else ():
        name = attribute_name(item)
        if name is not None:
            out.append(Change(name, None, at, True))
    given = raw.get("user_attributes")
    if given is not None and not isinstance(given, dict):
        raise InvalidData(what="user_attributes must be an object")
    for n, (key, item) in enumerate((given or {}).items()):
        name = attribute_name(key)
        value, why = attribute_value(item)
        if n >= MOST_ATTRIBUTES:
            notes.append("too_many_attributes")
            break
        if name is None or why:
            notes.append(why or "attribute_name_unusable")
            continue
        out.append(Change(name, value, at))
    return out


def _push(out: Batch, data: dict[str, Any]) -> None:
    token = data.get("registration_token")
    if out.device is not None and isinstance(token, str) and token:
        out.device.push = token if data.get("register") is not False else ""


def _attributed(out: Batch, data: dict[str, Any]) -> None:
    """Take install attribution; engagement is not stored."""
    given = data.get("custom_attributes")
    if data.get("event_name") != "attribution" or not isinstance(given, dict):
        return
    publisher, campaign = given.get("publisher"), given.get("campaign")
    if isinstance(publisher, str) and isinstance(campaign, str):
        provider = given.get("service_provider")
        text = provider if isinstance(provider, str) else ""
        out.attribution = (text[:256], publisher[:256], campaign[:256])


def _device(raw: Mapping[str, Any], platform: str) -> Device | None:
    info = raw.get("device_info")
    if info is not None and not isinstance(info, dict):
        raise InvalidData(what="device_info must be an object")
    stamp = raw.get("mp_deviceid")
    stamp = stamp if isinstance(stamp, str) and stamp and len(stamp) <= 256 else None
    if not info and stamp is None:
        return None
    named = (info or {}).get("platform")
    facts = dict(_facts(info or {}))
    limited = (info or {}).get("limit_ad_tracking")
    return Device(
        stamp,
        named[:32].lower() if isinstance(named, str) and named else platform,
        facts,
        limited if isinstance(limited, bool) else None,
    )


def _facts(info: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what is worth showing of a device: short scalars, at most 40."""
    taken = 0
    for key, value in info.items():
        if isinstance(value, bool):
            value = "true" if value else "false"
        elif isinstance(value, int | float):
            value = str(value)
        if isinstance(value, str) and value and len(value) <= 256 and len(key) <= 64:
            yield key, value
            taken += 1
            if taken == 40:
                return


def _belongings(raw: Mapping[str, Any], out: Batch) -> None:
    """Take attribution, integration attributes and partner identities of the batch itself."""
    info = raw.get("attribution_info")
    if isinstance(info, dict):
        parts = [info.get(k) for k in ("service_provider", "publisher", "campaign")]
        if all(isinstance(p, str) for p in parts):
            out.attribution = (str(parts[0])[:256], str(parts[1])[:256], str(parts[2])[:256])
    given = raw.get("integration_attributes")
    for module, items in given.items() if isinstance(given, dict) else ():
        if isinstance(items, dict) and len(out.integrations) < 50:
            texts = {str(k)[:256]: str(v)[:4096] for k, v in list(items.items())[:50] if v}
            out.integrations[str(module)[:64]] = texts
    partners = raw.get("partner_identities")
    for name, value in partners.items() if isinstance(partners, dict) else ():
        if isinstance(value, str) and value and len(out.partners) < 50:
            out.partners[str(name)[:256]] = value[:256]
