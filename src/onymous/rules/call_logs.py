"""Call logs and persons of other tools, as batches: what each field becomes is in
docs/use/import.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from onymous.rules.mapping import time_of

Item = tuple[Mapping[str, Any] | str, int | None]

#: a distinct id that a browser made up, not a person's name
_MADE_UP = re.compile(r"(\$device:)?([0-9a-f]{8,}-[0-9a-f-]{20,}|[0-9a-f]{32,})", re.I)
_TRAITS = {
    "firstName": "$firstname",
    "first_name": "$firstname",
    "lastName": "$lastname",
    "last_name": "$lastname",
    "age": "$age",
    "gender": "$gender",
    "city": "$city",
    "country": "$country",
    "state": "$state",
    "zip": "$zip",
}
_PHONES = ("phone", "phone_number", "mobile")


def calls(row: Mapping[str, Any]) -> Iterator[Item]:
    """Yield what one call of a log of identify, track, page, screen, group and alias calls is."""
    if "!" in row:
        yield str(row["!"]), None
        return
    kind = row.get("type")
    at = time_of(row.get("timestamp") or row.get("originalTimestamp") or row.get("sentAt") or "")
    batch = _who(row)
    if kind == "identify":
        context = row.get("context") if isinstance(row.get("context"), dict) else {}
        traits = row.get("traits") or (context or {}).get("traits")
        _traits(batch, traits if isinstance(traits, dict) else {})
        yield batch, at
    elif kind in ("track", "page", "screen"):
        batch["events"] = [_event(kind, row, at)]
        yield batch, at
    elif kind == "alias":
        yield "alias_needs_review", None
    elif kind == "group":
        yield "group_has_no_profile", None
    else:
        yield "unknown_call", None


def persons(row: Mapping[str, Any]) -> Iterator[Item]:
    """Yield what a person with distinct ids is: one batch per made-up id, so that each device is
    attached by the same rules as ever.
    """
    if "!" in row:
        yield str(row["!"]), None
        return
    ids = row.get("distinct_ids")
    ids = [i for i in ids if isinstance(i, str) and i] if isinstance(ids, list) else []
    named = [i for i in ids if not _MADE_UP.fullmatch(i)]
    made_up = [i.removeprefix("$device:") for i in ids if _MADE_UP.fullmatch(i)]
    at = time_of(row.get("created_at") or "")
    properties = row.get("properties") if isinstance(row.get("properties"), dict) else {}
    if len(named) > 1:
        yield "several_names", None
        return
    base: dict[str, Any] = {"user_identities": {"customerid": named[0]} if named else {}}
    _traits(base, {k: v for k, v in (properties or {}).items() if not k.startswith("$")})
    if not made_up:
        yield base, at
    for stamp in made_up:
        yield {**base, "mp_deviceid": stamp}, at


def _who(row: Mapping[str, Any]) -> dict[str, Any]:
    identities: dict[str, Any] = {}
    if row.get("userId") not in (None, ""):
        identities["customerid"] = row["userId"]
    out: dict[str, Any] = {"user_identities": identities}
    anonymous = row.get("anonymousId")
    if isinstance(anonymous, str) and anonymous:
        out["mp_deviceid"] = anonymous
    message = row.get("messageId")
    if isinstance(message, str) and message:
        out["source_request_id"] = message
    return out


def _traits(batch: dict[str, Any], traits: Mapping[str, Any]) -> None:
    """Put traits where they belong: names of people into identities, the rest into attributes."""
    attributes: dict[str, Any] = {}
    for key, value in traits.items():
        if value is None or isinstance(value, dict):
            continue
        if key == "email":
            batch["user_identities"]["email"] = value
        elif key in _PHONES:
            batch["user_identities"]["mobile_number"] = value
        elif key not in ("id", "userId", "anonymousId"):
            attributes[_TRAITS.get(key, key)] = value
    if attributes:
        batch["user_attributes"] = attributes


def _event(kind: str, row: Mapping[str, Any], at: int | None) -> dict[str, Any]:
    properties = row.get("properties") if isinstance(row.get("properties"), dict) else {}
    name = row.get("event") if kind == "track" else row.get("name")
    data: dict[str, Any] = {
        "timestamp_unixtime_ms": at,
        "custom_attributes": {
            k: v for k, v in (properties or {}).items() if not isinstance(v, dict | list)
        },
    }
    if kind != "track":
        return {"event_type": "screen_view", "data": {**data, "screen_name": str(name or "")}}
    if name in ("Order Completed", "Order Refunded"):
        action = {
            "action": "purchase" if name == "Order Completed" else "refund",
            "transaction_id": (properties or {}).get("order_id"),
            "total_amount": (properties or {}).get("total") or (properties or {}).get("revenue"),
        }
        return {"event_type": "commerce_event", "data": {**data, "product_action": action}}
    more = {"event_name": str(name or ""), "custom_event_type": "other"}
    return {"event_type": "custom_event", "data": {**data, **more}}
