"""What native SDKs send, in the words of the Events API: a table of every kind of event."""

from __future__ import annotations

from typing import Any

import pytest

from onymous.rules.events import KINDS, read_batch
from onymous.rules.native_batches import from_native
from onymous.rules.native_events import read_event

AT = 1_700_000_000_000
#: message of an SDK -> kind of event and what its data holds besides time and name
EVENTS: list[tuple[dict[str, Any], str, dict[str, Any]]] = [
    ({"dt": "ss", "id": "S-1"}, "session_start", {"session_uuid": "S-1"}),
    ({"dt": "ss", "id": "m", "sid": "S-1"}, "session_start", {"session_uuid": "S-1"}),
    ({"dt": "se", "sid": "S-1", "sl": 5}, "session_end", {"session_duration_ms": 5}),
    (
        {"dt": "e", "n": "Played", "et": "UserContent", "attrs": {"a": "b"}, "flags": {"f": ["1"]}},
        "custom_event",
        {
            "event_name": "Played",
            "custom_event_type": "user_content",
            "custom_attributes": {"a": "b"},
            "custom_flags": {"f": ["1"]},
        },
    ),
    ({"dt": "e", "n": "x"}, "custom_event", {"custom_event_type": "other"}),
    (
        {"dt": "e", "n": "attribution", "et": "Attribution"},
        "custom_event",
        {"custom_event_type": "attribution"},
    ),
    (
        {"dt": "v", "n": "Home", "t": "activity_started"},
        "screen_view",
        {"screen_name": "Home", "activity_type": "activity_started"},
    ),
    ({"dt": "o", "s": True}, "opt_out", {"is_opted_out": True}),
    (
        {"dt": "x", "s": "fatal", "m": "boom", "c": "E", "st": "at", "eh": "true", "sn": 3},
        "crash_report",
        {
            "severity": "fatal",
            "message": "boom",
            "class_name": "E",
            "stack_trace": "at",
            "exception_handled": "true",
            "session_number": 3,
        },
    ),
    (
        {"dt": "pr", "to": "T", "r": True},
        "push_registration",
        {"registration_token": "T", "register": True},
    ),
    ({"dt": "pr", "to": "T", "r": False}, "push_registration", {"register": False}),
    ({"dt": "fr"}, "first_run", {}),
    (
        {"dt": "ast", "t": "app_init", "ifr": True, "iu": False, "sc": True, "lr": "a://b"},
        "application_state_transition",
        {
            "application_transition_type": "application_initialized",
            "is_first_run": True,
            "is_upgrade": False,
            "successfully_closed": True,
            "launch_referral": "a://b",
        },
    ),
    (
        {"dt": "ast", "t": "app_back"},
        "application_state_transition",
        {"application_transition_type": "application_background"},
    ),
    (
        {"dt": "ast", "t": "app_fore"},
        "application_state_transition",
        {"application_transition_type": "application_foreground"},
    ),
    (
        {"dt": "ast", "t": "app_exit"},
        "application_state_transition",
        {"application_transition_type": "application_exit"},
    ),
    (
        {
            "dt": "pm",
            "to": "T",
            "t": "received",
            "pay": "{}",
            "n": "apn",
            "as": "background",
            "aid": "yes",
            "bhv": 2,
        },
        "push_message",
        {
            "push_message_token": "T",
            "push_message_type": "received",
            "push_notification_payload": "{}",
            "network": "apn",
            "application_state": "background",
            "action_identifier": "yes",
            "push_message_behavior": 2,
        },
    ),
    ({"dt": "bc", "l": "here", "sn": 1}, "breadcrumb", {"label": "here", "session_number": 1}),
    (
        {"dt": "npe", "v": "GET", "url": "https://a", "te": 1, "bo": 2, "bi": 3, "rc": 200},
        "network_performance",
        {
            "http_verb": "GET",
            "url": "https://a",
            "time_elapsed": 1,
            "bytes_out": 2,
            "bytes_in": 3,
            "response_code": 200,
        },
    ),
    (
        {"dt": "pro", "t": "login", "o": 1, "n": 2},
        "profile",
        {"profile_event_type": "login", "previous_mpid": 1, "current_mpid": 2},
    ),
    (
        {"dt": "uac", "n": "plan", "nv": "gold", "ov": "free", "d": False, "na": True},
        "user_attribute_change",
        {
            "user_attribute_name": "plan",
            "new": "gold",
            "old": "free",
            "deleted": False,
            "is_new_attribute": True,
        },
    ),
    ({"dt": "uac", "n": "plan", "nv": None, "d": True}, "user_attribute_change", {"deleted": True}),
    (
        {"dt": "uic", "ni": {"n": 7, "i": "a@x.io", "dfs": 5, "f": True}, "oi": None},
        "user_identity_change",
        {
            "new": {
                "identity_type": 7,
                "identity": "a@x.io",
                "timestamp_unixtime_ms": 5,
                "created_this_batch": True,
            },
            "old": None,
        },
    ),
    (
        {"dt": "e", "n": "x", "lc": {"lat": 1.5, "lng": 2.5, "acc": 10}, "cs": {"bl": 0.5}},
        "custom_event",
        {
            "location": {"latitude": 1.5, "longitude": 2.5, "accuracy": 10},
            "device_current_state": {"battery_level": 0.5},
        },
    ),
    (
        {
            "dt": "cm",
            "cu": "EUR",
            "sn": "Cart",
            "ni": False,
            "pd": {
                "an": "purchase",
                "ti": "t1",
                "tr": 7.5,
                "tt": 1,
                "ts": 2,
                "ta": "A",
                "tcc": "C",
                "cs": 1,
                "co": "fast",
                "pal": "L",
                "pls": "S",
                "pl": [
                    {
                        "id": "sku",
                        "nm": "N",
                        "br": "B",
                        "ca": "C",
                        "va": "V",
                        "ps": 1,
                        "pr": 7.5,
                        "qt": 1,
                        "cc": "X",
                        "act": 9,
                        "tpa": 7.5,
                        "attrs": {"a": "b"},
                    }
                ],
            },
        },
        "commerce_event",
        {
            "currency_code": "EUR",
            "screen_name": "Cart",
            "is_non_interactive": False,
            "product_action": {
                "action": "purchase",
                "transaction_id": "t1",
                "total_amount": 7.5,
                "tax_amount": 1,
                "shipping_amount": 2,
                "affiliation": "A",
                "coupon_code": "C",
                "checkout_step": 1,
                "checkout_options": "fast",
                "product_action_list": "L",
                "product_list_source": "S",
                "products": [
                    {
                        "id": "sku",
                        "name": "N",
                        "brand": "B",
                        "category": "C",
                        "variant": "V",
                        "position": 1,
                        "price": 7.5,
                        "quantity": 1,
                        "coupon_code": "X",
                        "added_to_cart_time_ms": 9,
                        "total_product_amount": 7.5,
                        "custom_attributes": {"a": "b"},
                    }
                ],
            },
        },
    ),
    (
        {"dt": "cm", "pd": {"an": "remove_from_wishlist", "pl": None}},
        "commerce_event",
        {"product_action": {"action": "remove_from_wish_list", "products": []}},
    ),
    (
        {"dt": "cm", "pm": {"an": "view", "pl": [{"id": "p", "nm": "n", "cr": "c", "ps": "1"}]}},
        "commerce_event",
        {
            "promotion_action": {
                "action": "view",
                "promotions": [{"id": "p", "name": "n", "creative": "c", "position": "1"}],
            }
        },
    ),
    (
        {"dt": "cm", "pi": [{"pil": "L", "pl": [{"id": "sku"}]}]},
        "commerce_event",
        {"product_impressions": [{"product_impression_list": "L", "products": [{"id": "sku"}]}]},
    ),
    ({"dt": "cm", "pd": "?", "pm": 1, "pi": {}}, "commerce_event", {}),
    ({"dt": "zz"}, "zz", {}),
    ({}, "unknown", {}),
]


@pytest.mark.parametrize(("message", "kind", "data"), EVENTS)
def test_events(message: dict[str, Any], kind: str, data: dict[str, Any]) -> None:
    event = read_event({"ct": AT, "sct": AT - 1, "en": 0, **message})
    assert event["event_type"] == kind
    told = event["data"]
    assert {name: told.get(name, "absent") for name in data} == data
    assert told["timestamp_unixtime_ms"] == AT
    assert told["session_start_unixtime_ms"] == AT - 1
    batch = read_batch({"events": [event]}, AT)
    assert ("event_type_unknown" in batch.notes) == (kind not in KINDS)
    assert (batch.first_ms, batch.last_ms, batch.events) == (AT, AT, 1)


def test_every_kind_an_sdk_sends_is_known() -> None:
    kinds = {kind for _, kind, _ in EVENTS}
    server_side = {"pre_attribution", "push_reaction", "uninstall", "media", "validation_result"}
    assert set(KINDS) - kinds == server_side


def test_a_batch() -> None:
    raw = {
        "dt": "h",
        "id": "m1",
        "mpid": -5,
        "dbg": True,
        "das": "stamp",
        "sdk": "5.1",
        "ui": [
            {"n": 1, "i": "anna"},
            {"n": 7, "i": None},
            {"n": 19, "i": "+41"},
            {"n": 10, "i": "o2"},
            {"n": 22, "i": "idfa"},
            {"n": 25, "i": "das"},
            {"n": 99, "i": "x"},
            {"n": "1"},
            "x",
        ],
        "ua": {"plan": "gold", "tag": None, "list": ["a"]},
        "uad": ["old"],
        "di": {"dp": "iOS", "dosv": "17", "aid": "A", "vid": "V", "lat": False, "new": "kept"},
        "ai": {"an": "Shop", "av": "1.2", "apn": "com.shop", "lc": 3},
        "con": {"gdpr": {"ads": {"c": True, "ts": 5, "d": "D", "l": "L", "h": "H"}}, "ccpa": None},
        "ctx": {"dpln": {"id": "plan", "v": 2}},
        "ia": {"134": {"k": "v"}},
        "msgs": [{"dt": "ss", "ct": AT}, "x", None],
        "ck": {},
        "cms": {},
        "fsr": [],
        "ltv": 5,
        "oo": False,
    }
    assert from_native(raw) == {
        "environment": "development",
        "mpid": -5,
        "source_request_id": "m1",
        "mp_deviceid": "stamp",
        "sdk_version": "5.1",
        "user_identities": {
            "customerid": "anna",
            "email": None,
            "mobile_number": "+41",
            "other2": "o2",
            "ios_idfa": "idfa",
            "device_application_stamp": "das",
        },
        "user_attributes": {"plan": "gold", "tag": None, "list": ["a"]},
        "deleted_user_attributes": ["old"],
        "device_info": {
            "platform": "iOS",
            "os_version": "17",
            "ios_advertising_id": "A",
            "ios_idfv": "V",
            "limit_ad_tracking": False,
            "new": "kept",
        },
        "application_info": {
            "application_name": "Shop",
            "application_version": "1.2",
            "package": "com.shop",
        },
        "consent_state": {
            "gdpr": {
                "ads": {
                    "consented": True,
                    "timestamp_unixtime_ms": 5,
                    "document": "D",
                    "location": "L",
                    "hardware_id": "H",
                }
            },
            "ccpa": {},
        },
        "context": {"data_plan": {"plan_id": "plan", "plan_version": 2}},
        "integration_attributes": {"134": {"k": "v"}},
        "events": [
            {
                "event_type": "session_start",
                "data": {"timestamp_unixtime_ms": AT, "session_uuid": None},
            }
        ],
    }
    nothing = from_native({"dt": "h"})
    assert nothing["environment"] == "production" and nothing["events"] == []
    assert read_batch(nothing, AT).notes == []
