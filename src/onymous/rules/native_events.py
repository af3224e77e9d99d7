"""Events of the native SDKs, in the words of the Events API."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

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
#: of every event
_COMMON = {
    "ct": "timestamp_unixtime_ms",
    "id": "source_message_id",
    "sid": "session_uuid",
    "sct": "session_start_unixtime_ms",
    "est": "event_start_unixtime_ms",
    "en": "event_num",
    "attrs": "custom_attributes",
    "flags": "custom_flags",
    "vc": "view_controller",
    "mt": "is_main_thread",
    "dct": "data_connection_type",
}
#: of one kind
_OWN: dict[str, dict[str, str]] = {
    "se": {"sl": "session_duration_ms"},
    "e": {"n": "event_name", "et": "custom_event_type"},
    "v": {"n": "screen_name", "t": "activity_type"},
    "cm": {"cu": "currency_code", "sn": "screen_name", "ni": "is_non_interactive"},
    "o": {"s": "is_opted_out"},
    "x": {
        "s": "severity",
        "m": "message",
        "c": "class_name",
        "st": "stack_trace",
        "eh": "exception_handled",
        "tc": "topmost_context",
        "sn": "session_number",
        "bc": "breadcrumbs",
        "plc": "pl_crash_report_file_base64",
    },
    "pr": {"to": "registration_token", "r": "register"},
    "ast": {
        "t": "application_transition_type",
        "ifr": "is_first_run",
        "iu": "is_upgrade",
        "sc": "successfully_closed",
        "pay": "push_notification_payload",
        "lr": "launch_referral",
    },
    "pm": {
        "to": "push_message_token",
        "t": "push_message_type",
        "pay": "push_notification_payload",
        "n": "network",
        "as": "application_state",
        "aid": "action_identifier",
        "bhv": "push_message_behavior",
    },
    "bc": {"l": "label", "sn": "session_number"},
    "npe": {
        "v": "http_verb",
        "url": "url",
        "te": "time_elapsed",
        "bo": "bytes_out",
        "bi": "bytes_in",
        "d": "data",
        "rc": "response_code",
    },
    "pro": {"o": "previous_mpid", "n": "current_mpid", "t": "profile_event_type"},
    "uac": {
        "n": "user_attribute_name",
        "nv": "new",
        "ov": "old",
        "d": "deleted",
        "na": "is_new_attribute",
    },
}
_TRANSITIONS = {
    "app_init": "application_initialized",
    "app_exit": "application_exit",
    "app_back": "application_background",
    "app_fore": "application_foreground",
}
_STATE = {
    "cpu": "cpu",
    "sma": "system_memory_available_bytes",
    "tsm": "total_system_memory_usage_bytes",
    "sml": "system_memory_low",
    "smt": "system_memory_threshold_bytes",
    "ama": "application_memory_available_bytes",
    "amm": "application_memory_max_bytes",
    "amt": "application_memory_total_bytes",
    "so": "device_orientation",
    "sbo": "status_bar_orientation",
    "tss": "time_since_start_ms",
    "bl": "battery_level",
    "dct": "data_connection_type",
    "gps": "gps_state",
    "fds": "disk_space_free_bytes",
    "efds": "external_disk_space_free_bytes",
}
_LOCATION = {"lat": "latitude", "lng": "longitude", "acc": "accuracy"}
_ACTION = {
    "an": "action",
    "cs": "checkout_step",
    "co": "checkout_options",
    "pal": "product_action_list",
    "pls": "product_list_source",
    "ti": "transaction_id",
    "ta": "affiliation",
    "tr": "total_amount",
    "tt": "tax_amount",
    "ts": "shipping_amount",
    "tcc": "coupon_code",
}
_PRODUCT = {
    "id": "id",
    "nm": "name",
    "br": "brand",
    "ca": "category",
    "va": "variant",
    "ps": "position",
    "pr": "price",
    "qt": "quantity",
    "cc": "coupon_code",
    "act": "added_to_cart_time_ms",
    "tpa": "total_product_amount",
    "attrs": "custom_attributes",
}
_PROMOTION = {"id": "id", "nm": "name", "cr": "creative", "ps": "position"}
_ACTIONS = {"p": "purchase", "r": "refund", "remove_from_wishlist": "remove_from_wish_list"}
_INSIDE = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def named(
    given: Mapping[str, Any], names: Mapping[str, str], *, keep: bool = False
) -> dict[str, Any]:
    """Return what has a name under that name, without nulls; `keep` what has none as well."""
    out = {}
    for short, value in given.items():
        name = names.get(short, short if keep else None)
        if name is not None and value is not None:
            out[name] = value
    return out


def read_event(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return a native message as an event."""
    short = str(message.get("dt") or "unknown")
    data = named(message, _COMMON) | named(message, _OWN.get(short, {}))
    place, state = message.get("lc"), message.get("cs")
    if isinstance(place, dict):
        data["location"] = named(place, _LOCATION)
    if isinstance(state, dict):
        data["device_current_state"] = named(state, _STATE)
    if short == "ss":
        # a session's start is called like the session
        data.setdefault("session_uuid", data.get("source_message_id"))
    elif short == "e":
        data["custom_event_type"] = _words(data.get("custom_event_type", "other"))
    elif short == "ast":
        kind = str(data.get("application_transition_type"))
        data["application_transition_type"] = _TRANSITIONS.get(kind, kind)
    elif short == "uic":
        data |= {"new": _identity(message.get("ni")), "old": _identity(message.get("oi"))}
    elif short == "cm":
        data |= _commerce(message)
    return {"event_type": _KINDS.get(short, short), "data": data}


def _words(given: object) -> str:
    """Return a name such as UserContent as user_content."""
    return _INSIDE.sub("_", str(given)).lower()


def _identity(given: Any) -> dict[str, Any] | None:
    if not isinstance(given, dict):
        return None
    return {
        "identity_type": given.get("n"),
        "identity": given.get("i"),
        "timestamp_unixtime_ms": given.get("dfs"),
        "created_this_batch": given.get("f"),
    }


def _commerce(message: Mapping[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    action, promotion = message.get("pd"), message.get("pm")
    if isinstance(action, dict):
        told = named(action, _ACTION)
        kind = str(told.get("action", "unknown")).lower()
        told |= {"action": _ACTIONS.get(kind, kind), "products": _all(action.get("pl"), _PRODUCT)}
        out["product_action"] = told
    if isinstance(promotion, dict):
        shown = _all(promotion.get("pl"), _PROMOTION)
        out["promotion_action"] = {"action": promotion.get("an"), "promotions": shown}
    seen = message.get("pi")
    if isinstance(seen, list):
        out["product_impressions"] = [
            {"product_impression_list": i.get("pil"), "products": _all(i.get("pl"), _PRODUCT)}
            for i in seen
            if isinstance(i, dict)
        ]
    return out


def _all(given: Any, names: Mapping[str, str]) -> list[dict[str, Any]]:
    items = given if isinstance(given, list) else []
    return [named(item, names) for item in items if isinstance(item, dict)]
