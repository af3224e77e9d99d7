"""Batches of the native SDKs, in the words of the Events API.

Their short names: `dt` kind, `ct` created, `msgs` events, `ui` identities by number, `ua`
attributes, `uad` removed ones, `das` device stamp, `di` device, `ai` application, `con` consent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: numbers of identity types on this wire
_USER = "other customerid facebook twitter google microsoft yahoo email alias"
_MORE = "facebookcustomaudienceid other2 other3 other4 other5 other6 other7 other8 other9 other10"
_LAST = "mobile_number phone_number_2 phone_number_3 ios_idfa ios_idfv push_token"
_IDENTITIES = [*_USER.split(), *_MORE.split(), *_LAST.split(), "device_application_stamp"]
_KINDS = {
    "ss": "session_start",
    "se": "session_end",
    "e": "custom_event",
    "v": "screen_view",
    "cm": "commerce_event",
    "o": "opt_out",
    "x": "crash_report",
    "pr": "push_registration",
    "fr": "first_run",
    "ast": "application_state_transition",
    "pm": "push_message",
    "bc": "breadcrumb",
    "npe": "network_performance",
    "pro": "profile",
    "uac": "user_attribute_change",
    "uic": "user_identity_change",
}
_DEVICE = {
    "dma": "device_manufacturer",
    "dmdl": "device_model",
    "dn": "device_name",
    "dp": "platform",
    "dosv": "os_version",
    "dll": "locale_language",
    "dlc": "locale_country",
    "tz": "timezone_offset",
    "nc": "network_country",
    "b": "brand",
    "p": "product",
    "lat": "limit_ad_tracking",
    "aid": "ios_advertising_id",
    "vid": "ios_idfv",
    "gaid": "android_advertising_id",
    "duid": "android_uuid",
    "to": "push_token",
    "fireadid": "fire_advertising_id",
}
_ACTIONS = {"p": "purchase", "r": "refund"}


def from_native(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return a native batch as a batch of the Events API; unknown parts are left out."""
    out: dict[str, Any] = {
        "environment": "development" if raw.get("dbg") is True else "production",
        "mpid": raw.get("mpid"),
        "source_request_id": raw.get("id"),
        "mp_deviceid": raw.get("das"),
        "user_identities": _identities(raw.get("ui")),
        "user_attributes": _dict(raw.get("ua")),
        "deleted_user_attributes": _list(raw.get("uad")),
        "device_info": {
            name: value
            for short, value in _dict(raw.get("di")).items()
            if (name := _DEVICE.get(short, short)) and value is not None
        },
        "consent_state": _consent(raw.get("con")),
        "integration_attributes": _dict(raw.get("ia")),
        "events": [_event(m) for m in _list(raw.get("msgs")) if isinstance(m, dict)],
    }
    if raw.get("sdk") is not None:
        out["sdk_version"] = raw["sdk"]
    return out


def _dict(given: Any) -> dict[str, Any]:
    return given if isinstance(given, dict) else {}


def _list(given: Any) -> list[Any]:
    return given if isinstance(given, list) else []


def _identities(given: Any) -> dict[str, Any]:
    out = {}
    for item in _list(given):
        number = item.get("n") if isinstance(item, dict) else None
        if isinstance(number, int) and 0 <= number < len(_IDENTITIES):
            out[_IDENTITIES[number]] = item.get("i")
    return out


def _consent(given: Any) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for regulation, purposes in _dict(given).items():
        out[regulation] = {
            purpose: {
                "consented": facts.get("c"),
                "document": facts.get("d"),
                "timestamp_unixtime_ms": facts.get("ts"),
                "location": facts.get("l"),
                "hardware_id": facts.get("h"),
            }
            for purpose, facts in _dict(purposes).items()
            if isinstance(facts, dict)
        }
    return out


def _event(message: Mapping[str, Any]) -> dict[str, Any]:
    kind = _KINDS.get(str(message.get("dt")), str(message.get("dt") or "unknown"))
    data: dict[str, Any] = {
        "timestamp_unixtime_ms": message.get("ct"),
        "source_message_id": message.get("id"),
        "session_uuid": message.get("sid"),
        "session_start_unixtime_ms": message.get("sct"),
        "custom_attributes": message.get("attrs"),
    }
    name = message.get("n")
    if kind == "custom_event":
        data |= {"event_name": name, "custom_event_type": str(message.get("et", "other")).lower()}
    elif kind == "screen_view":
        data["screen_name"] = name
    elif kind == "user_attribute_change":
        data |= {
            "user_attribute_name": name,
            "new": message.get("nv"),
            "old": message.get("ov"),
            "deleted": message.get("d"),
            "is_new_attribute": message.get("na"),
        }
    elif kind == "opt_out":
        data["is_opted_out"] = message.get("s")
    elif kind == "commerce_event":
        data |= _commerce(message)
    elif kind == "push_registration":
        data |= {"registration_token": message.get("to"), "register": message.get("r", True)}
    return {"event_type": kind, "data": {k: v for k, v in data.items() if v is not None}}


def _commerce(message: Mapping[str, Any]) -> dict[str, Any]:
    action = message.get("pd")
    if not isinstance(action, dict):
        return {}
    named = str(action.get("an", "unknown"))
    products = [
        {
            "id": p.get("id"),
            "name": p.get("nm"),
            "brand": p.get("br"),
            "category": p.get("ca"),
            "price": p.get("pr"),
            "quantity": p.get("qt"),
            "total_product_amount": p.get("tpa"),
        }
        for p in _list(action.get("pl"))
        if isinstance(p, dict)
    ]
    return {
        "currency_code": message.get("cu"),
        "product_action": {
            "action": _ACTIONS.get(named, named),
            "transaction_id": action.get("ti"),
            "total_amount": action.get("tr"),
            "tax_amount": action.get("tt"),
            "shipping_amount": action.get("ts"),
            "products": products,
        },
    }
