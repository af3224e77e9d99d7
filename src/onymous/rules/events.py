"""One batch of events, understood: whose it may be, what happened when, what it changes.

Unknown fields are ignored; what is stated must make sense. What cannot be used is dropped with a
reason (limits: the documented ones), and only a batch that cannot be read at all is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from onymous.rules.apps import App, life_of, newer, read_app
from onymous.rules.attributes import (
    MOST_ATTRIBUTES,
    attribute_name,
    attribute_value,
    known_name,
)
from onymous.rules.consent import Stated, read_consent
from onymous.rules.devices import IDENTITY_FIELDS, Device, read_device, truth
from onymous.rules.errors import InvalidData, MissingEventField
from onymous.rules.places import Place, later, read_place
from onymous.rules.times import AHEAD_MS, LAST_MS, event_time, read_time
from onymous.rules.worth import worth_of

#: an event on the historical path is at least this old
HISTORICAL_MS = 72 * 3_600_000

SESSION_START = "session_start"
#: every kind of event, with what it should say one of; a missing part is noted, never refused
KINDS: dict[str, tuple[str, ...]] = {
    "custom_event": ("event_name",),
    "screen_view": ("screen_name",),
    "commerce_event": ("product_action", "promotion_action", "product_impressions"),
    SESSION_START: (),
    "session_end": (),
    "application_state_transition": ("application_transition_type",),
    "first_run": (),
    "opt_out": (),
    "push_registration": ("registration_token",),
    "push_message": (),
    "push_reaction": (),
    "uninstall": (),
    "crash_report": ("message",),
    "breadcrumb": ("label",),
    "network_performance": ("url",),
    "profile": (),
    "user_attribute_change": ("user_attribute_name",),
    "user_identity_change": (),
    "pre_attribution": (),
    "media": (),
    "validation_result": (),
}

#: most events are of these kinds, and hardly any of them changes anything
_SILENT = frozenset({"custom_event", "screen_view"})
#: events that tell when an app was installed, upgraded or uninstalled
_LIVES = frozenset({"application_state_transition", "first_run", "uninstall"})


class Change(msgspec.Struct, array_like=True):
    """One change of a user attribute; `deleted` forgets it."""

    name: str
    value: str | list[str] | None
    at_ms: int
    deleted: bool = False


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
    #: starts of sessions: (time, what the sender calls the session; empty where it does not say)
    sessions: list[tuple[int, str]] = []
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
    #: the latest location stated
    place: Place | None = None
    #: what the batch tells of the app it came from
    app: App | None = None
    #: what was dropped and why
    notes: list[str] = []


def batch_names(raw: Mapping[str, Any]) -> list[str]:
    """Return what tells a batch from every other of its sender, or nothing.

    A batch is a repeat if either its `source_request_id` or its `batch_id` was seen before.
    """
    out = []
    for field in ("source_request_id", "batch_id"):
        value = raw.get(field)
        if isinstance(value, str | int) and not isinstance(value, bool) and value != "":
            out.append(f"{field}:{value}")
    return out


def read_batch(
    raw: Mapping[str, Any],
    now_ms: int,
    *,
    platform: str = "unknown",
    at_ms: int | None = None,
    changes_only: bool = False,
) -> Batch:
    """Understand a batch received now; `platform` is the input's; `at_ms` is what a row of a file
    says of its own time. `changes_only`: attributes are set by change events, not by the map.

    Raises `InvalidData` or `MissingEventField` for one that cannot be read.
    """
    events, notes = _events(raw), list[str]()
    out = Batch(
        development=is_development(raw),
        mpid=raw.get("mpid"),
        identities=identities_of(raw),
        received_ms=now_ms,
        first_ms=now_ms if at_ms is None else at_ms,
        last_ms=now_ms if at_ms is None else at_ms,
        events=len(events),
        device=read_device(raw, platform),
        notes=notes,
    )
    _read_events(out, events)
    # changes named by events come after the map: they are what just happened
    out.changes[:0] = _attributes(raw, out.last_ms, notes, changes_only)
    out.consent = read_consent(raw.get("consent_state"), now_ms, notes.append)
    _belongings(raw, out)
    _whereabouts(raw, out)
    return out


def _read_events(out: Batch, events: list[dict[str, Any]]) -> None:
    """Take what the events of a batch change, and when they happened."""
    now_ms, notes, times = out.received_ms, out.notes, []
    ahead_ms = min(now_ms + AHEAD_MS, LAST_MS)
    for event in events:
        kind, data = event["event_type"], event.get("data") or {}
        at = data.get("timestamp_unixtime_ms")
        if type(at) is not int or not 0 < at <= ahead_ms:
            at = event_time(data, now_ms)
        times.append(at)
        wanted = KINDS.get(kind)
        if wanted is None:
            notes.append("event_type_unknown")
        elif wanted and not data.get(wanted[0]) and not any(map(data.get, wanted)):
            # a person should know of it; it is taken all the same
            notes.append("event_incomplete")
        if kind not in _SILENT or _speaks(data):
            _happened(out, kind, data, at)
    if times:
        out.first_ms, out.last_ms = min(times), max(times)


def too_young(raw: Mapping[str, Any], now_ms: int) -> bool:
    """Whether a batch does not belong on the historical path: it is dropped there.

    It must have events, each with its time, and all of them at least 72 hours old.
    """
    events = raw.get("events")
    if not isinstance(events, list) or not events:
        return True
    for event in events:
        data = event.get("data") if isinstance(event, dict) else None
        stated = read_time(data.get("timestamp_unixtime_ms")) if isinstance(data, dict) else None
        if stated is None or stated > now_ms - HISTORICAL_MS:
            return True
    return False


def is_development(raw: Mapping[str, Any]) -> bool:
    """Return whether a batch belongs to development; whatever is not said to is production."""
    environment = raw.get("environment")
    if isinstance(environment, str):
        return environment.strip().lower() == "development"
    return False


def _events(raw: Mapping[str, Any]) -> list[dict[str, Any]]:
    events = raw.get("events")
    if events is None:
        return []
    if not isinstance(events, list):
        raise InvalidData(what="events must be an array")
    for event in events:
        if event is None:
            continue
        if not isinstance(event, dict):
            raise InvalidData(what="each event must be an object")
        kind, data = event.get("event_type"), event.get("data")
        if not kind or not isinstance(kind, str):
            raise MissingEventField(field="event_type")
        if data is not None and not isinstance(data, dict):
            raise InvalidData(what="the data of an event must be an object")
    return [event for event in events if event is not None] if None in events else events


def identities_of(raw: Mapping[str, Any]) -> dict[str, object]:
    """Collect every identity of a batch: user, device and the device stamp."""
    out: dict[str, object] = {}
    info = raw.get("device_info")
    if isinstance(info, dict):
        # most of what is said of a device is no identity
        for name in IDENTITY_FIELDS & info.keys():
            out[name] = info[name]
    given = raw.get("user_identities")
    if isinstance(given, dict):
        out.update(given)
    elif isinstance(given, list):
        out.update(_listed(given))
    elif given is not None:
        raise InvalidData(what="user_identities must be an object")
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


def _speaks(data: Mapping[str, Any]) -> bool:
    """Whether an event that is silent otherwise may change something."""
    if "location" in data or "is_goal_defined" in data:
        return True
    return data.get("custom_event_type") == "attribution"


def _happened(out: Batch, kind: str, data: dict[str, Any], at: int) -> None:
    """Take what one event changes."""
    money = worth_of(kind, data)
    if money:
        out.worth.append((at, money))
    if kind == SESSION_START:
        out.sessions.append((at, _session(data)))
    elif kind == "user_attribute_change":
        _attribute_change(out, data, at)
    elif kind == "opt_out":
        opted = truth(data.get("is_opted_out")) is True
        if out.opted_out is None or out.opted_out[1] <= at:
            out.opted_out = (opted, at)
    elif kind == "push_registration":
        _push(out, data)
    elif kind == "custom_event" and data.get("custom_event_type") == "attribution":
        _attributed(out, data)
    elif kind in _LIVES and (what := life_of(kind, data)):
        out.app = newer(out.app, msgspec.structs.replace(App(), **{what: at}))
    if "location" in data:
        out.place = later(out.place, read_place(data["location"], at, out.notes.append))


def _session(data: Mapping[str, Any]) -> str:
    """Return what the sender calls a session; the start of one may be sent more than once."""
    for field in ("session_uuid", "session_id", "source_message_id"):
        value = data.get(field)
        if isinstance(value, str | int) and not isinstance(value, bool) and value:
            return str(value)
    return ""


def _attribute_change(out: Batch, data: dict[str, Any], at: int) -> None:
    name = attribute_name(data.get("user_attribute_name"))
    if name is None:
        out.notes.append("attribute_name_unusable")
    elif truth(data.get("deleted")) is True:
        out.changes.append(Change(name, None, at, True))
    else:
        value, why = attribute_value(data.get("new"))
        if why:
            out.notes.append(why)
        else:
            out.changes.append(Change(name, value, at))


def _attributes(
    raw: Mapping[str, Any], at: int, notes: list[str], changes_only: bool
) -> list[Change]:
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
    if changes_only:
        return out
    for n, (key, item) in enumerate((given or {}).items()):
        name = known_name(key)
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
        out.device.push = token if truth(data.get("register")) is not False else ""


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


def _whereabouts(raw: Mapping[str, Any], out: Batch) -> None:
    """Take the app the batch came from, and its own location where no event has one."""
    app = read_app(raw.get("application_info"), out.last_ms)
    if app is not None:
        out.app = newer(out.app, app)
    context = raw.get("context")
    if out.place is None and isinstance(context, dict):
        out.place = read_place(context.get("location"), out.last_ms, out.notes.append)
