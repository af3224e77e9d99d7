"""What the person page shows, made of a profile, its timeline and its ties; values masked."""

from __future__ import annotations

from typing import Any

from onymous.console.graph import draw
from onymous.console.masking import Handles, scrubbed
from onymous.console.words import label
from onymous.flows.former import Former
from onymous.flows.history import Changed, Happened
from onymous.flows.profiles import Named, ProfileView
from onymous.flows.tenants import Names
from onymous.flows.timeline import Item, Sent
from onymous.rules.identity_types import BY_NAME
from onymous.rules.masking import mask
from onymous.rules.profiles import Person

#: reserved attributes come first, in this order
RESERVED = (
    "age",
    "firstname",
    "lastname",
    "gender",
    "mobile",
    "address",
    "city",
    "state",
    "zip",
    "country",
)
#: told beside the MPID
HEADLINE = ("customerid", "email")
#: the group of all identities of a person
NAMES = "all-names"
#: facts of a device that say nothing of a person
_PLAIN_INFO = (
    "brand",
    "device_manufacturer",
    "device_model",
    "os",
    "os_version",
    "locale_language",
    "locale_country",
)
#: undone elsewhere: as a merge or an alias; or what cannot be taken back
NOT_UNDONE_HERE = ("merge", "unmerge", "alias", "unalias", "erase", "undo")
#: operations whose decision can be told again
RETOLD = ("identify", "login", "logout", "modify")
#: done by people, where no input is named
BY_HAND = ("merge", "unmerge", "alias", "unalias", "undo", "detach")
#: of the ids of a device the one that stands for it: advertising ids first
DEVICE_IDS = (
    "ios_idfa",
    "android_aaid",
    "fire_aid",
    "roku_aid",
    "microsoft_aid",
    "ios_idfv",
    "android_uuid",
    "roku_publisher_id",
    "microsoft_publisher_id",
    "amp_id",
)
_WORDS = {
    "created": "profile created",
    "attached": "got",
    "detached": "lost",
    "taken_from": "took",
    "given_to": "gave",
    "aliased": "alias with",
    "erased": "erased",
    "alias_undone": "alias undone with",
    "merged": "merged with",
    "merge_undone": "merge undone with",
}


_JOINS = {"taken_from": "from", "given_to": "to", "created": "beside the anonymous"}


class Shown:
    """The values of one page: masked, unless asked for; remembers all of them by handle."""

    def __init__(self, handles: Handles, person: str, wanted: frozenset[str]) -> None:
        self._handles, self._person, self._wanted = handles, person, wanted
        #: handle -> (field, value) of those asked for
        self.revealed: dict[str, tuple[str, str]] = {}

    def value(self, field: str, value: str, groups: tuple[str, ...] = (NAMES,)) -> dict[str, Any]:
        """Return what a template needs of a value: handle, text, and whether it is masked.

        It is shown in full where its handle or one of its groups was asked for.
        """
        handle = self._handles.of(self._person, field, value)
        clear = not self._wanted.isdisjoint((handle, *groups))
        if clear:
            self.revealed[handle] = (field, value)
        return {"handle": handle, "text": value if clear else mask(value), "masked": not clear}

    def group(self, *names: str) -> str:
        """Return the handle of a group of values."""
        return self._handles.of(self._person, "group", "\0".join(names))


def names_of(view: ProfileView, shown: Shown, names: Names) -> dict[str, Any]:
    """Return the identities of a person, and the drawing of them."""

    def one(n: Named) -> dict[str, Any]:
        value = shown.value(n.type, n.value)
        return {
            "id": f"name-{value['handle']}",
            "type": n.type,
            "label": label(n.type),
            "kind": BY_NAME[n.type].klass,
            "value": value,
            "since": n.first_ms,
            "updated": n.updated_ms,
            "input": names.input(n.input),
            "workspace": names.workspace(n.workspace),
        }

    user = [one(n) for n in view.user_identities]
    device = [one(n) for n in view.device_identities]
    rows = [*user, *device]
    head = [next((r for r in rows if r["type"] == kind), None) for kind in HEADLINE]
    return {"rows": rows, "drawing": draw(user, device), "head": [r for r in head if r]}


def former_of(found: list[Former], shown: Shown) -> list[dict[str, Any]]:
    """Return the names a person has no more."""
    return [
        {
            "label": label(f.identity_type),
            "kind": BY_NAME[f.identity_type].klass,
            "value": shown.value(f.identity_type, f.value),
            "since": f.since_ms,
            "until": f.until_ms,
            "how": f"given to {f.went_to}" if f.went_to else f.operation.replace("_", " "),
            "request": f.request_id or "",
            "now": f.now,
        }
        for f in found
    ]


def _newest_id(view: ProfileView, shown: Shown, number: int) -> dict[str, Any] | None:
    """Return the id of the device used last in a workspace: an advertising id before others."""
    own = [n for n in view.device_identities if n.workspace == number and n.type in DEVICE_IDS]
    if not own:
        return None
    best = min(own, key=lambda n: (-n.updated_ms, DEVICE_IDS.index(n.type)))
    return {"label": label(best.type), "value": shown.value(best.type, best.value)}


def workspaces_of(view: ProfileView, shown: Shown, names: Names) -> list[dict[str, Any]]:
    """Return what each workspace knows of a person."""
    return [
        {
            "name": names.workspace(number),
            "group": shown.group(f"workspace {number}"),
            "person": person,
            "inputs": [
                (names.input(i), first, last) for i, (first, last) in sorted(person.inputs.items())
            ],
            "attributes": _attributes(person, shown, number, names.workspace(number)),
            "others": _others(person, shown, number, names.workspace(number)),
            "place": _where(person, shown, number, names.workspace(number)),
            "device_id": _newest_id(view, shown, number),
            "apps": sorted(person.apps.items(), key=lambda a: -a[1].at_ms),
            "devices": [
                {
                    "platform": d.platform,
                    "stamp": shown.value("device_application_stamp", d.stamp) if d.stamp else None,
                    "first": d.first_ms,
                    "last": d.last_ms,
                    "limited": d.limit_ad_tracking,
                    "push": bool(d.push_token),
                    "info": [(k, d.info[k]) for k in _PLAIN_INFO if d.info.get(k)],
                    "attribution": d.attribution,
                }
                for d in person.devices
            ],
            "consent": sorted(person.consent.items()),
            "consents": list(reversed(person.consents)),
        }
        for number, person in sorted(view.workspaces.items())
    ]


def _attributes(person: Person, shown: Shown, number: int, workspace: str) -> list[dict[str, Any]]:
    out = []
    all_here = shown.group(f"workspace {number}")
    for name, attribute in person.attributes.items():
        value = attribute.value
        field = f"attribute {name} in {workspace}"
        group = shown.group(f"attribute {number}", name)
        values = value if isinstance(value, list) else [value] if value is not None else []
        out.append(
            {
                "name": name,
                "reserved": name.startswith("$"),
                "tag": value is None,
                "group": group,
                "values": [shown.value(field, v, (group, all_here)) for v in values],
                "at": attribute.at_ms,
            }
        )
    return sorted(out, key=lambda a: _place(str(a["name"])))


def _others(person: Person, shown: Shown, number: int, workspace: str) -> list[dict[str, Any]]:
    """Return what partners and integrations call a person: shown with all attributes."""
    told = [("partner", name, value) for name, value in sorted(person.partners.items())]
    for module, items in sorted(person.integrations.items()):
        told += [("integration", f"{module} {key}", value) for key, value in sorted(items.items())]
    group = (shown.group(f"workspace {number}"),)
    return [
        {"name": name, "value": shown.value(f"{kind} {name} in {workspace}", value, group)}
        for kind, name, value in told
    ]


def _where(person: Person, shown: Shown, number: int, workspace: str) -> dict[str, Any] | None:
    """Return where a person was last: shown with all attributes."""
    place = person.place
    if place is None:
        return None
    told = (place.city_name, place.postal_code, place.region_code, place.country_code)
    degrees = f"{place.latitude:.5f}, {place.longitude:.5f}"
    text = ", ".join([*filter(None, told), degrees])
    group = (shown.group(f"workspace {number}"),)
    return {"value": shown.value(f"location in {workspace}", text, group), "at": place.at_ms}


def _place(name: str) -> tuple[int, str]:
    plain = name.lower().removeprefix("$")
    if name.startswith("$") and plain in RESERVED:
        return RESERVED.index(plain), plain
    return len(RESERVED), plain


def worth_of(view: ProfileView, names: Names) -> list[dict[str, Any]]:
    """Return lifetime value and sessions by workspace and platform."""
    return [
        {
            "workspace": names.workspace(c.workspace),
            "platform": c.platform or "unknown",
            "worth": c.worth,
            "sessions": c.sessions,
        }
        for c in sorted(view.counts, key=lambda c: (-c.worth, -c.sessions))
    ]


def timeline_of(items: list[Item], shown: Shown, mpid: str) -> list[dict[str, Any]]:
    """Return the entries of a timeline as the template shows them."""
    out = []
    for item in items:
        other = item.mpid if item.mpid != mpid else ""
        if item.change is not None and other and _told_by(item.change, mpid):
            continue
        if item.change is not None:
            out.append({**told(item.change, shown), "at": item.at_ms, "of": other})
        elif item.batch is not None:
            out.append({**sent(item.batch), "at": item.at_ms, "of": other})
    return out


def _told_by(change: Happened, mpid: str) -> bool:
    """Return whether the entry of a merge stands in the ledger of this person as well."""
    both = change.operation in ("merge", "unmerge")
    return both and all(c.mpid == mpid for c in change.changes)


def told(change: Happened, shown: Shown) -> dict[str, Any]:
    """Return an identity change as the template shows it, with its reasons."""
    return {
        "kind": "identity",
        "title": change.operation.replace("_", " "),
        "from": "by hand" if _by_hand(change) else f"{change.workspace} / {change.input}",
        "changes": [_changed(c, shown) for c in change.changes],
        "why": why(change),
        "request": change.request_id,
        "entry": change.entry,
        "retold": change.operation in RETOLD,
        "undoable": change.operation not in NOT_UNDONE_HERE,
    }


def _by_hand(change: Happened) -> bool:
    """Return whether no input sent this: number 0 is this server itself."""
    return change.operation in BY_HAND and change.input == "local"


def _changed(c: Changed, shown: Shown) -> dict[str, Any]:
    kind = c.identity_type or ""
    return {
        "word": _WORDS.get(c.change, c.change),
        "label": label(kind) if kind else "",
        "value": shown.value(kind, c.value) if c.value else None,
        "join": _JOINS.get(c.change, "") if c.mpid else "",
        "mpid": c.mpid or "",
    }


def why(change: Happened) -> list[str]:
    """Return the reasons of a decision as sentences."""
    out = []
    made = any(c.change == "created" for c in change.changes)
    if _by_hand(change):
        where = (
            "in the audit" if change.operation in ("undo", "detach") else "under aliases and merges"
        )
        out.append(f"Someone decided this by hand: who and why stands {where}.")
    elif change.decided_by:
        out.append(f"The profile was found by {label(change.decided_by)}.")
    elif made:
        out.append("No profile could be this one under the rules, so a new one was made.")
    elif any(c.mpid for c in change.changes):
        out.append("The request named both profiles.")
    else:
        out.append("The request named the profile by its MPID.")
    if change.tie:
        out.append(f"Several profiles were left; what decided: {change.tie}.")
    if change.source_mpid:
        out.append(f"Made beside the anonymous profile {change.source_mpid}.")
    for skip in change.skipped:
        out.append(f"{label(skip['identity_type'])} changed nothing: {skip['why']}.")
    return out


def sent(batch: Sent) -> dict[str, Any]:
    """Return a batch as the template shows it."""
    return {
        "kind": "events",
        "title": f"batch from {batch.platform}" if batch.platform else "batch",
        "from": f"{batch.workspace} / {batch.input}",
        "events": [
            {"kind": kind.replace("_", " "), "name": scrubbed(name), "count": count}
            for kind, name, count in batch.events
        ],
        "batch": batch.id,
        "received": batch.received_ms,
    }
