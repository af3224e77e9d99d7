"""Batches of the native SDKs, in the words of the Events API.

Their short names: `dt` kind, `ct` created, `msgs` events, `ui` identities by number, `ua`
attributes, `uad` removed ones, `das` device stamp, `di` device, `ai` application, `con` consent.
What one kind of event says is in `native_events`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onymous.rules.native_events import named, read_event

#: numbers of identity types on this wire
_USER = "other customerid facebook twitter google microsoft yahoo email alias"
_MORE = "facebookcustomaudienceid other2 other3 other4 other5 other6 other7 other8 other9 other10"
_LAST = "mobile_number phone_number_2 phone_number_3 ios_idfa ios_idfv push_token"
_IDENTITIES = [*_USER.split(), *_MORE.split(), *_LAST.split(), "device_application_stamp"]
_DEVICE = {
    "b": "brand",
    "p": "product",
    "dn": "device",
    "bid": "build_identifier",
    "vr": "build_version_release",
    "dma": "device_manufacturer",
    "dmdl": "device_model",
    "dp": "platform",
    "dosv": "os_version",
    "dsh": "screen_height",
    "dsw": "screen_width",
    "dpi": "screen_dpi",
    "dc": "device_country",
    "dll": "locale_language",
    "dlc": "locale_country",
    "tz": "timezone_offset",
    "tzn": "timezone_name",
    "dst": "supports_telephony",
    "dsnfc": "has_nfc",
    "dbe": "bluetooth_enabled",
    "dbv": "bluetooth_version",
    "it": "is_tablet",
    "se": "push_notification_sound_enabled",
    "ve": "push_notification_vibrate_enabled",
    "nc": "network_country",
    "nca": "network_carrier",
    "mnc": "network_code",
    "mcc": "network_mobile_country_code",
    "ant": "radio_access_technology",
    "arc": "cpu_architecture",
    "lat": "limit_ad_tracking",
    "atts": "att_authorization_status",
    "attt": "att_timestamp_unixtime_ms",
    "aid": "ios_advertising_id",
    "vid": "ios_idfv",
    "gaid": "android_advertising_id",
    "duid": "android_uuid",
    "anid": "android_uuid",
    "to": "push_token",
    "fireadid": "fire_advertising_id",
    "rida": "roku_advertising_id",
    "rpb": "roku_publisher_id",
}
_APPLICATION = {
    "an": "application_name",
    "av": "application_version",
    "abn": "application_build_number",
    "apn": "package",
    "ir": "install_referrer",
    "asaa": "apple_search_ads_attributes",
}


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
        "device_info": named(_dict(raw.get("di")), _DEVICE, keep=True),
        "application_info": named(_dict(raw.get("ai")), _APPLICATION),
        "consent_state": _consent(raw.get("con")),
        "integration_attributes": _dict(raw.get("ia")),
        "events": [read_event(m) for m in _list(raw.get("msgs")) if isinstance(m, dict)],
    }
    if raw.get("sdk") is not None:
        out["sdk_version"] = raw["sdk"]
    plan = _dict(_dict(raw.get("ctx")).get("dpln"))
    if plan.get("id"):
        out["context"] = {"data_plan": {"plan_id": plan["id"], "plan_version": plan.get("v")}}
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
