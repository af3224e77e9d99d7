"""A profile as the Profile API shows it: only the fields that were asked for."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import msgspec

from onymous.flows.profiles import Named, ProfileView
from onymous.flows.tokens import Workspace
from onymous.rules.apps import App
from onymous.rules.consent import Consent
from onymous.rules.errors import BadRequest
from onymous.rules.identifiers import BY_NAME
from onymous.rules.profiles import Device, Person
from onymous.rules.strategies import Plan

_NOTHING = Person(0, 0, 0)


class Shown:
    """What a field is made of: the profile, and the workspace that is asked about."""

    def __init__(
        self, view: ProfileView, workspace: Workspace, readable: dict[int, Workspace]
    ) -> None:
        self.view, self.workspace = view, workspace
        #: workspaces of the scope the credential may read
        self.readable = readable
        self.person = view.workspaces.get(workspace.id, _NOTHING)


def _device_identities(shown: Shown) -> dict[str, Any]:
    return {"device_identities": [_identity(n) for n in shown.view.device_identities]}


def _user_identities(shown: Shown) -> dict[str, Any]:
    """Return the newest value per type, in the scope's order of priority."""
    newest: dict[str, Named] = {}
    for named in shown.view.user_identities:  # of each type the newest stands first
        newest.setdefault(named.type, named)
    ordered = sorted(newest.values(), key=lambda n: _rank(shown.workspace.plan, n.type))
    return {"user_identities": [_identity(n) for n in ordered]}


def _rank(plan: Plan, name: str) -> tuple[int, int]:
    code = BY_NAME[name].code
    return plan.rank.get(code, 99), code


def _identity(named: Named) -> dict[str, Any]:
    kind = BY_NAME[named.type]
    type_ = kind.profile_api or (kind.events if kind.klass == "user" else "unknown")
    return {"type": type_, "encoding": "none", "value": named.value}


def _user_attributes(shown: Shown) -> dict[str, Any]:
    found = {name: a.value for name, a in sorted(shown.person.attributes.items())}
    return {"account_userattributes": None, "user_attributes": found}


def _audience_memberships(shown: Shown) -> dict[str, Any]:
    return {"audience_memberships": []}


def _attribution(shown: Shown) -> dict[str, Any]:
    """Return where installs came from; left out where there were none."""
    found = shown.view.attributed.get(shown.workspace.id)
    return {"attribution": [_install(a) for a in found]} if found else {}


def _install(attribution: tuple[str, str, str]) -> dict[str, str]:
    names = ("service_provider", "publisher", "campaign")
    return dict(zip(names, attribution, strict=True))


def _consent_state(shown: Shown) -> dict[str, Any]:
    state: dict[str, dict[str, Any]] = {}
    for name, consent in sorted(shown.person.consent.items()):
        regulation, _, purpose = name.partition("/")
        state.setdefault(regulation, {})[purpose] = _answer(consent)
    return {"consent_state": state}


def _answer(consent: Consent) -> dict[str, Any]:
    return {
        "consented": consent.consented,
        "timestamp_unixtime_ms": consent.at_ms,
        "document": consent.document,
        "location": consent.location,
        "hardware_id": consent.hardware_id,
    }


def _consent_history(shown: Shown) -> dict[str, Any]:
    """Return every answer that changed something, and those that came too late; oldest first."""
    out = []
    for name, consent in shown.person.consents:
        regulation, _, purpose = name.partition("/")
        out.append({"regulation": regulation, "purpose": purpose, **_answer(consent)})
    return {"consent_history": out}


def _activity(shown: Shown) -> dict[str, Any]:
    """Return when the person was seen and how often, over the scope and in the workspace."""
    view, person = shown.view, shown.person
    here = [c for c in view.counts if c.workspace == shown.workspace.id]
    platforms: dict[str, int] = {}
    for count in here:
        if count.sessions:
            platforms[count.platform] = platforms.get(count.platform, 0) + count.sessions
    return {
        "activity": {
            "first_seen_ms": view.first_seen_ms or None,
            "last_seen_ms": view.last_seen_ms or None,
            "sessions": view.sessions,
            "workspace": {
                "first_seen_ms": person.first_ms or None,
                "last_seen_ms": person.last_ms or None,
                "sessions": sum(platforms.values()),
                "sessions_by_platform": platforms,
                "batches": person.batches,
                "events": person.events,
            },
        }
    }


def _lifetime_value(shown: Shown) -> dict[str, Any]:
    """Return the worth over the whole scope; split only by what the credential may read."""
    total, here = 0, 0
    workspaces: dict[str, int] = {}
    platforms: dict[str, int] = {}
    for count in shown.view.counts:
        total += count.worth
        if count.workspace == shown.workspace.id:
            here += count.worth
            platforms[count.platform] = platforms.get(count.platform, 0) + count.worth
        if (known := shown.readable.get(count.workspace)) is not None:
            workspaces[known.name] = workspaces.get(known.name, 0) + count.worth
    return {
        "lifetime_value": {
            "total": _money(total),
            "workspace": _money(here),
            "by_workspace": {name: _money(w) for name, w in workspaces.items()},
            "by_platform": {name: _money(w) for name, w in platforms.items()},
        }
    }


def _money(millionths: int) -> float | int:
    whole, rest = divmod(millionths, 1_000_000)
    return millionths / 1_000_000 if rest else whole


def _devices(shown: Shown) -> dict[str, Any]:
    ordered = sorted(shown.person.devices, key=lambda d: -d.last_ms)
    return {"devices": [_device(d) for d in ordered]}


def _device(device: Device) -> dict[str, Any]:
    return {
        "device_application_stamp": device.stamp or None,
        "platform": device.platform,
        "first_seen_ms": device.first_ms,
        "last_seen_ms": device.last_ms,
        "limit_ad_tracking": device.limit_ad_tracking,
        "can_be_pushed": device.push_token is not None,
        "attribution": _install(device.attribution) if device.attribution else None,
        "device_info": device.info,
    }


def _location(shown: Shown) -> dict[str, Any]:
    """Return where the person was last, in this workspace."""
    place = shown.person.place
    if place is None:
        return {"location": None}
    facts = msgspec.structs.asdict(place)
    return {"location": {"timestamp_unixtime_ms": facts.pop("at_ms"), **facts}}


def _apps(shown: Shown) -> dict[str, Any]:
    """Return the app of each platform, the one stated last first."""
    found = sorted(shown.person.apps.items(), key=lambda a: -a[1].at_ms)
    return {"apps": [{"platform": platform, **_app(app)} for platform, app in found]}


def _app(app: App) -> dict[str, Any]:
    return {
        "application_name": app.name,
        "application_version": app.version,
        "application_build_number": app.build,
        "package": app.package,
        "timestamp_unixtime_ms": app.at_ms or None,
        "installed_ms": app.installed_ms or None,
        "upgraded_ms": app.upgraded_ms or None,
        "uninstalled_ms": app.uninstalled_ms or None,
    }


def _partner_identities(shown: Shown) -> dict[str, Any]:
    return {"partner_identities": dict(sorted(shown.person.partners.items()))}


def _integration_attributes(shown: Shown) -> dict[str, Any]:
    return {"integration_attributes": dict(sorted(shown.person.integrations.items()))}


#: field -> what it adds to the answer; those after `attribution` are extensions
FIELDS: dict[str, Callable[[Shown], dict[str, Any]]] = {
    "device_identities": _device_identities,
    "user_identities": _user_identities,
    "user_attributes": _user_attributes,
    "audience_memberships": _audience_memberships,
    "attribution": _attribution,
    "consent_state": _consent_state,
    "consent_history": _consent_history,
    "lifetime_value": _lifetime_value,
    "devices": _devices,
    "activity": _activity,
    "location": _location,
    "apps": _apps,
    "partner_identities": _partner_identities,
    "integration_attributes": _integration_attributes,
}


def fields(text: str | None) -> tuple[str, ...]:
    """Return the fields of a query, in the order answers have; raises `BadRequest`."""
    wanted = {name.strip() for name in (text or "").split(",")} - {""}
    if not wanted:
        raise BadRequest(what="fields is required: a list such as user_identities,user_attributes")
    if wanted - FIELDS.keys():
        raise BadRequest(what=f"fields may hold {', '.join(FIELDS)}")
    return tuple(name for name in FIELDS if name in wanted)


def body(shown: Shown, wanted: Collection[str], *, as_text: bool) -> dict[str, Any]:
    """Return the answer; `as_text` gives the MPID as text, for readers that round numbers."""
    view = shown.view
    out: dict[str, Any] = {
        "mpid": view.mpid if as_text else int(view.mpid),
        "created_timestamp_ms": view.created_ms,
        "last_stored_timestamp_ms": view.stored_ms,
        "is_opted_out": view.opted_out,
        "limit_ad_tracking": view.limit_ad_tracking,
    }
    for name in wanted:
        out |= FIELDS[name](shown)
    return out
