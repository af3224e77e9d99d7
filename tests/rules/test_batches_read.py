"""What a batch says: tables of kinds of events, refusals, times, limits, what is left out."""

from __future__ import annotations

import json
import pathlib
import re
from typing import Any

import pytest

from onymous.rules.attributes import attribute_name, attribute_value
from onymous.rules.devices import truth
from onymous.rules.errors import InvalidData, MissingEventField, Refusal
from onymous.rules.events import KINDS, batch_names, read_batch, too_young
from onymous.rules.profiles import Context, absorb, fresh
from onymous.rules.times import event_time, read_time
from onymous.rules.trimming import trimmed
from onymous.rules.withholding import withheld
from onymous.rules.worth import worth_of

NOW = 1_700_000_000_000
HOUR, DAY = 3_600_000, 86_400_000
WEB = Context(1, "web")


def event(kind: str, **data: Any) -> dict[str, Any]:
    return {"event_type": kind, "data": data}


#: event -> notes it leaves; every documented kind, as real SDKs send it
EVENTS: list[tuple[dict[str, Any], list[str]]] = [
    (event("custom_event", event_name="a", custom_event_type="navigation"), []),
    (event("custom_event", event_name="a", custom_event_type="nobody knows"), []),
    (event("custom_event", custom_event_type="other"), ["event_incomplete"]),
    (event("custom_event", event_name="a", custom_flags={"x": [1, {"y": None}]}), []),
    (event("screen_view", screen_name="Home"), []),
    (event("screen_view", screen_name=None), ["event_incomplete"]),
    (event("commerce_event", product_action={"action": "unknown"}), []),
    (event("commerce_event", promotion_action={"action": "view"}, product_action=None), []),
    (event("commerce_event", product_impressions=[{"products": []}]), []),
    # one server SDK sends crash reports as commerce events
    (event("commerce_event", severity="x", message="boom"), ["event_incomplete"]),
    (event("session_start", session_uuid="S"), []),
    (event("session_end"), []),
    (event("application_state_transition", application_transition_type="application_exit"), []),
    (event("first_run"), []),
    (event("opt_out", is_opted_out=True), []),
    (event("opt_out"), []),
    (event("push_registration", register=True, registration_token="t"), []),
    (event("push_message", push_message_behavior="DirectOpen"), []),
    (event("push_message", push_message_behavior=3), []),
    (event("push_reaction"), []),
    (event("uninstall"), []),
    (event("crash_report", severity="x", message="m", breadcrumbs=["a", {"b": 1}]), []),
    (event("breadcrumb", label="l"), []),
    (event("network_performance", url="u", response_code=200), []),
    (event("profile", profile_event_type="login"), []),
    (event("user_attribute_change", user_attribute_name="a", new="b", old=None), []),
    (event("user_identity_change", new={"identity_type": "email"}, old=None), []),
    (event("pre_attribution"), []),
    (event("media", event_name="play"), []),
    (event("validation_result"), []),
    (event("brand_new_kind", x=1), ["event_type_unknown"]),
    ({"event_type": "first_run"}, []),
    ({"event_type": "first_run", "data": None}, []),
    (
        {"event_type": "first_run", "data": {"location": "x", "session_id": {}}},
        ["location_unusable"],
    ),
]


@pytest.mark.parametrize(("given", "notes"), EVENTS)
def test_every_kind_of_event_is_taken(given: dict[str, Any], notes: list[str]) -> None:
    batch = read_batch({"events": [given, None]}, NOW)
    assert (batch.events, batch.notes) == (1, notes)
    assert absorb(fresh(batch), batch, WEB) is not None


def test_the_table_above_has_every_kind() -> None:
    assert set(KINDS) <= {given["event_type"] for given, _ in EVENTS}


REFUSED: list[tuple[dict[str, Any], type[Refusal]]] = [
    ({"events": {}}, InvalidData),
    ({"events": "x"}, InvalidData),
    ({"events": [1]}, InvalidData),
    ({"events": [{}]}, MissingEventField),
    ({"events": [{"event_type": ""}]}, MissingEventField),
    ({"events": [{"event_type": 4}]}, MissingEventField),
    ({"events": [{"event_type": None, "data": {}}]}, MissingEventField),
    ({"events": [{"event_type": "first_run", "data": []}]}, InvalidData),
    ({"user_identities": "x"}, InvalidData),
    ({"user_identities": 5}, InvalidData),
    ({"user_attributes": [1]}, InvalidData),
    ({"device_info": []}, InvalidData),
]


@pytest.mark.parametrize(("raw", "refusal"), REFUSED)
def test_what_is_stated_must_make_sense(raw: dict[str, Any], refusal: type[Refusal]) -> None:
    with pytest.raises(refusal):
        read_batch(raw, NOW)


#: values that are none, or not what they should be, change nothing and refuse nothing
@pytest.mark.parametrize(
    "field",
    [
        "events",
        "user_attributes",
        "deleted_user_attributes",
        "user_identities",
        "device_info",
        "consent_state",
        "integration_attributes",
        "partner_identities",
        "attribution_info",
        "context",
        "application_info",
        "mpid",
        "mp_deviceid",
        "environment",
        "source_request_id",
        "batch_id",
        "timestamp_unixtime_ms",
        "ip",
        "source_info",
        "modified",
        "schema_version",
    ],
)
def test_null_is_nothing(field: str) -> None:
    batch = read_batch({field: None}, NOW)
    assert (batch.development, batch.events, batch.identities) == (False, 0, {})
    assert batch.notes == [] and batch.changes == [] and batch.consent == []


ENVIRONMENTS = [
    (None, False), ("production", False), ("development", True), ("Development ", True),
    ("unknown", False), ("", False), (1, False), (["development"], False),
]  # fmt: skip


@pytest.mark.parametrize(("given", "development"), ENVIRONMENTS)
def test_environments(given: object, development: bool) -> None:
    assert read_batch({"environment": given}, NOW).development is development


TIMES = [
    (None, NOW), (NOW - 5, NOW - 5), (str(NOW - 5), NOW - 5), (float(NOW - 5), NOW - 5),
    (NOW + DAY, NOW + DAY), (NOW + DAY + 1, NOW), (0, NOW), (-5, NOW), (True, NOW), ("x", NOW),
    (1.5, NOW), (10**18, NOW), ("1" * 20, NOW), ([], NOW), ("\u0661", NOW),
]  # fmt: skip


@pytest.mark.parametrize(("given", "at"), TIMES)
def test_times(given: object, at: int) -> None:
    assert event_time({"timestamp_unixtime_ms": given}, NOW) == at
    raw = {"events": [event("first_run", timestamp_unixtime_ms=given)]}
    batch = read_batch(raw, NOW)
    assert (batch.first_ms, batch.last_ms) == (at, at)


def test_a_time_is_a_time() -> None:
    assert [read_time(v) for v in (1, "1", 1.0, False, 1e300, float("nan"))] == [
        1, 1, 1, None, None, None,
    ]  # fmt: skip


OLD = NOW - 73 * HOUR
YOUNG: list[tuple[Any, bool]] = [
    (None, True), ([], True), ([event("first_run", timestamp_unixtime_ms=OLD)], False),
    ([event("first_run", timestamp_unixtime_ms=NOW - 72 * HOUR)], False),
    ([event("first_run", timestamp_unixtime_ms=NOW - 72 * HOUR + 1)], True),
    ([event("first_run", timestamp_unixtime_ms=OLD), event("first_run")], True),
    ([event("first_run", timestamp_unixtime_ms=str(OLD))], False),
    ([{"event_type": "first_run"}], True),
]  # fmt: skip


@pytest.mark.parametrize(("events", "young"), YOUNG)
def test_the_historical_path_takes_old_events_only(events: Any, young: bool) -> None:
    assert too_young({"events": events}, NOW) is young


VALUES: list[tuple[object, object, str]] = [
    ("x", "x", ""), ("", "", ""), (None, None, ""), (9, "9", ""), (10.5, "10.5", ""),
    (True, "true", ""), (False, "false", ""), (["a", 1, True], ["a", "1", "true"], ""),
    ([], [], ""),
    (2**63, str(2**63), ""), ("x" * 4096, "x" * 4096, ""),
    ("x" * 4097, None, "attribute_value_too_long"), ({}, None, "attribute_value_unusable"),
    ([None], None, "attribute_value_unusable"), ([["a"]], None, "attribute_value_unusable"),
    (["x" * 513], None, "attribute_value_unusable"), (["x" * 512], ["x" * 512], ""),
    (["a"] * 1001, None, "attribute_list_too_long"), ("a\0", None, "attribute_value_unusable"),
    (float("inf"), None, "attribute_value_unusable"), ("\ud800", None, "attribute_value_unusable"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "value", "why"), VALUES)
def test_values_of_attributes(given: object, value: object, why: str) -> None:
    assert attribute_value(given) == (value, why)


NAMES = [
    ("plan", "plan"), ("Plan", "Plan"), ("$FirstName", "$firstname"), ("$ZIP", "$zip"),
    ("$Own", "$Own"), (" plan ", "plan"), ("", None), (" ", None), ("x" * 256, "x" * 256),
    ("x" * 257, None), (5, None), (None, None), ("a\0", None), ("\ud800", None),
]  # fmt: skip


@pytest.mark.parametrize(("given", "name"), NAMES)
def test_names_of_attributes(given: object, name: str | None) -> None:
    assert attribute_name(given) == name


ORDER = {"transaction_id": "t"}
#: data of a commerce event -> its worth in millionths
WORTH: list[tuple[dict[str, Any], int]] = [
    ({"product_action": {"action": "purchase", "total_amount": 123}}, 123_000_000),
    ({"product_action": {"action": "purchase", "total_amount": "123.45"}}, 123_450_000),
    ({"product_action": {"action": "PURCHASE", "total_amount": 0.1}}, 100_000),
    ({"product_action": {"action": "refund", "total_amount": 5}}, -5_000_000),
    ({"product_action": {"action": "add_to_cart", "total_amount": 5}}, 0),
    ({"product_action": {"action": "purchase", "total_amount": None, "products": [
        {"total_product_amount": 2}, {"price": "1.5", "quantity": 2}, {"price": 1}, None, {}]}},
     6_000_000),
    ({"product_action": {"action": "purchase", "total_amount": 0, "products": [{"price": 1}]}}, 0),
    ({"product_action": {"action": "purchase", "total_amount": "1e30"}}, 0),
    ({"product_action": {"action": "purchase", "total_amount": "NaN"}}, 0),
    ({"product_action": {"action": "purchase", "total_amount": "1e99999999"}}, 0),
    ({"product_action": {"action": "purchase", "total_amount": "1e-99999999"}}, 0),
    ({"product_action": {"action": "purchase", "total_amount": True}}, 0),
    ({"product_action": {"action": "purchase"}}, 0),
    ({"product_action": {"action": "purchase", "total_amount": 5},
      "is_goal_defined": True, "lifetime_value_change": 5}, 5_000_000),
    ({"is_goal_defined": True, "lifetime_value_change": 2.5}, 2_500_000),
    ({"is_goal_defined": False, "lifetime_value_change": 2.5}, 0),
    ({"lifetime_value_change": 2.5}, 0),
    ({}, 0),
]  # fmt: skip


@pytest.mark.parametrize(("data", "worth"), WORTH)
def test_worth(data: dict[str, Any], worth: int) -> None:
    assert worth_of("commerce_event", data) == worth


TRUTHS = [
    (True, True), (False, False), ("true", True), ("False", False), (1, True), (0, False),
    ("1", True), ("", None), (None, None), ("yes", None), (2, None), ([], None), (1.0, None),
]  # fmt: skip


@pytest.mark.parametrize(("given", "expected"), TRUTHS)
def test_truth_in_any_spelling(given: object, expected: bool | None) -> None:
    assert truth(given) is expected


def test_names_of_batches() -> None:
    assert batch_names({"source_request_id": "a", "batch_id": -5}) == [
        "source_request_id:a",
        "batch_id:-5",
    ]
    for nothing in (None, "", True, 1.5, [], {}):
        assert batch_names({"source_request_id": nothing, "id": "x"}) == []


def test_what_is_over_a_limit_is_cut() -> None:
    notes: list[str] = []
    long = event(
        "custom_event",
        event_name="n" * 300,
        custom_attributes={"k" * 300: "v" * 5000, **{f"a{n}": n for n in range(150)}},
    )
    push = event("push_message", action_identifier="a" * 200)
    fine = event("screen_view", screen_name="s", custom_attributes={"a": 1})
    raw = {"events": [long, push, fine, None, "x"], "x": 1}
    out = trimmed(raw, len(json.dumps(raw)), notes)["events"]
    assert len(out[0]["data"]["event_name"]) == 256
    kept = out[0]["data"]["custom_attributes"]
    assert len(kept) == 100 and kept["k" * 256] == "v" * 4096
    assert len(out[1]["data"]["action_identifier"]) == 100
    assert out[2:] == [fine, None, "x"]
    assert sorted(notes) == [
        "action_identifier_truncated",
        "event_attribute_name_truncated",
        "event_attribute_value_truncated",
        "event_name_truncated",
        "too_many_event_attributes",
    ]
    assert len(long["data"]["event_name"]) == 300  # the batch itself is left as it is
    for plain in ({"events": [fine]}, {"events": None}, {}, {"events": "x"}):
        assert trimmed(plain, 200, notes) is plain


LONG = [
    event("custom_event", event_name="n" * 257),
    event("custom_event", event_name="n" * 200 + '"' + "n" * 57),
    event("custom_event", event_name="\u00e9" * 257),
    event("custom_event", custom_attributes={"k" * 257: 1}),
    event("custom_event", custom_attributes={"k": "v" * 4097}),
    event("custom_event", custom_attributes=dict.fromkeys(map(str, range(101)), 1)),
    event("push_message", action_identifier="a" * 101),
]


@pytest.mark.parametrize("given", LONG)
def test_every_limit_is_seen(given: dict[str, Any]) -> None:
    raw = {"events": [given]}
    notes: list[str] = []
    assert trimmed(raw, len(json.dumps(raw)), notes) is not raw
    assert len(notes) == 1


def test_every_reason_is_in_the_manual() -> None:
    home = pathlib.Path(__file__).parents[2]
    manual = (home / "docs" / "use" / "events.md").read_text("utf-8")
    found: set[str] = set()
    for room in ("rules", "flows", "web"):
        for path in (home / "src" / "onymous" / room).glob("*.py"):
            text = path.read_text("utf-8")
            found |= set(re.findall(r'notes?(?:\.append)?\(\s*"([a-z_]+)"', text))
            found |= set(re.findall(r'dropped = "([a-z_]+)"', text))
    text = (home / "src/onymous/rules/trimming.py").read_text("utf-8")
    found |= set(re.findall(r'"([a-z_]+_truncated|too_many[a-z_]+)"', text))
    assert {"duplicate", "erased", "event_name_truncated", "too_many_attributes"} <= found
    assert {reason for reason in found if f"`{reason}`" not in manual} == set()


def test_what_senders_may_not_say_is_left_out() -> None:
    raw = {"api_key": "k", "source_info": {"is_historical": True}, "ip": "1.2.3.4", "x": 1}
    assert withheld(raw, keep_ip=True, restrict=False) == ({"ip": "1.2.3.4", "x": 1}, [])
    assert withheld(raw, keep_ip=False, restrict=False) == ({"x": 1}, ["ip_withheld"])
    plain = {"ip": "1.2.3.4"}
    assert withheld(plain, keep_ip=True, restrict=True)[0] is plain
    for limited in (True, "True", 1):
        info = {"limit_ad_tracking": limited, "android_advertising_id": "a", "android_uuid": "u"}
        given = {"device_info": info, "user_identities": {"android_aaid": "a", "email": "e"}}
        less, notes = withheld(given, keep_ip=True, restrict=True)
        assert less["device_info"] == {"limit_ad_tracking": limited, "android_uuid": "u"}
        assert less["user_identities"] == {"email": "e"} and notes == ["advertising_id_withheld"]
