"""What is kept of a person, batch by batch: attributes, sessions, money, consent, devices."""

from __future__ import annotations

from typing import Any

import pytest

from onymous.rules.consent import read_consent
from onymous.rules.devices import read_device
from onymous.rules.events import read_batch
from onymous.rules.profiles import Context, Person, absorb, combine, fresh

NOW = 1_700_000_000_000
DAY = 86_400_000
WEB = Context(1, "web")


def event(kind: str, **data: Any) -> dict[str, Any]:
    return {"event_type": kind, "data": data}


def lived(*batches: dict[str, Any], context: Context = WEB) -> Person:
    """Return what is known of a person after batches, received one second after the other."""
    person: Person | None = None
    for n, raw in enumerate(batches):
        batch = read_batch(raw, NOW + n * 1000)
        person = person or fresh(batch)
        absorb(person, batch, context)
    assert person is not None
    return person


def change(name: str, at: int, **what: Any) -> dict[str, Any]:
    return {
        "events": [
            event(
                "user_attribute_change", user_attribute_name=name, timestamp_unixtime_ms=at, **what
            )
        ]
    }


#: batches one after the other -> attributes at the end
ATTRIBUTES: list[tuple[list[dict[str, Any]], dict[str, Any]]] = [
    ([{"user_attributes": {"a": "1", "b": ["x"], "t": None}}], {"a": "1", "b": ["x"], "t": None}),
    ([{"user_attributes": {"a": "1"}}, {"user_attributes": {"a": ["1"]}}], {"a": ["1"]}),
    ([{"user_attributes": {"a": ["1", "2"]}}, {"user_attributes": {"a": ["3"]}}], {"a": ["3"]}),
    ([{"user_attributes": {"a": "1"}}, {"user_attributes": {"a": None}}], {"a": None}),
    ([{"user_attributes": {"a": "1", "A": "2"}}], {"a": "1", "A": "2"}),
    ([{"user_attributes": {"$Age": "1"}}, {"user_attributes": {"$AGE": "2"}}], {"$age": "2"}),
    ([{"user_attributes": {"a": "1"}}, {"deleted_user_attributes": ["a"]}], {}),
    ([{"user_attributes": {"a": "1"}}, {"deleted_user_attributes": ["A"]}], {"a": "1"}),
    ([{"user_attributes": {"$city": "1"}}, {"deleted_user_attributes": ["$City"]}], {}),
    ([{"user_attributes": {"a": "1"}, "deleted_user_attributes": ["a"]}], {"a": "1"}),
    ([{"deleted_user_attributes": ["a", 5, None]}, {"user_attributes": {"a": "1"}}], {"a": "1"}),
    ([{"deleted_user_attributes": "a"}], {}),
    ([{"user_attributes": {"a": "1"}}, {}], {"a": "1"}),
    ([change("a", NOW, new="1", old=None)], {"a": "1"}),
    ([change("a", NOW, new=None)], {"a": None}),
    ([change("a", NOW, new="1"), change("a", NOW - 1, new="0")], {"a": "1"}),
    ([change("a", NOW, new="1"), change("a", NOW, new="2")], {"a": "2"}),
    ([change("a", NOW, new="1"), change("a", NOW + 1, deleted=True)], {}),
    ([change("a", NOW, new="1"), change("a", NOW + 1, deleted="true")], {}),
    ([change("a", NOW, new="1"), change("a", NOW - 1, deleted=True)], {"a": "1"}),
    ([change("a", NOW + 5, deleted=True), change("a", NOW + 4, new="late")], {}),
    ([change("a", NOW + 5, deleted=True), change("a", NOW + 6, new="new")], {"a": "new"}),
    ([change("", NOW, new="1"), change("a", NOW, new={"x": 1})], {}),
    # a page that was left open sends its old map with an old event
    ([change("a", NOW, new="new"),
      {"user_attributes": {"a": "old"}, **change("b", NOW - 1, new="1")}],
     {"a": "new", "b": "1"}),
]  # fmt: skip


@pytest.mark.parametrize(("batches", "expected"), ATTRIBUTES)
def test_attributes(batches: list[dict[str, Any]], expected: dict[str, Any]) -> None:
    person = lived(*batches)
    assert {name: a.value for name, a in person.attributes.items()} == expected


def test_with_strict_changes_the_map_says_nothing() -> None:
    raw = {
        "user_attributes": {"a": "stale"},
        "deleted_user_attributes": ["gone"],
        **change("b", NOW, new="1"),
    }
    batch = read_batch(raw, NOW, changes_only=True)
    assert [(c.name, c.deleted) for c in batch.changes] == [("gone", True), ("b", False)]


def test_a_person_has_a_bounded_number_of_everything() -> None:
    batches = []
    for n in range(130):
        batches.append(
            {
                "user_attributes": {f"a{n}-{k}": "x" for k in range(90)},
                "mp_deviceid": f"device-{n}",
                "device_info": {f"field{n}": "x", "brand": f"b{n}"},
                "integration_attributes": {f"{n % 60}": {f"k{n}-{k}": "v" for k in range(40)}},
                "partner_identities": {f"P_{n}-{k}": "v" for k in range(40)},
                "consent_state": {"gdpr": {"p": {"consented": n % 2 == 0}}},
                "attribution_info": {"service_provider": "s", "publisher": "p", "campaign": f"{n}"},
                "events": [event("session_start", session_uuid=f"s{n}")],
            }
        )
    person = lived(*batches)
    assert len(person.attributes) == 100
    assert (len(person.devices), len(person.partners), len(person.started)) == (50, 50, 50)
    assert len(person.integrations) == 50
    assert all(len(items) <= 50 for items in person.integrations.values())
    assert all(set(device.info) == {"brand"} for device in person.devices)
    assert len(person.consents) == 130 and len(person.attributions) == 20
    assert person.sessions == {"unknown": 130}


#: names given to starts of sessions -> sessions counted
SESSIONS: list[tuple[list[dict[str, Any]], int]] = [
    ([{}, {}], 2),
    ([{"session_uuid": "a"}, {"session_uuid": "a"}], 1),
    ([{"session_uuid": "a"}, {"session_uuid": "b"}], 2),
    ([{"session_id": 5}, {"session_id": 5}, {"session_id": 6}], 2),
    ([{"source_message_id": "a"}, {"source_message_id": "a"}], 1),
    ([{"session_uuid": "a", "source_message_id": "x"},
      {"session_uuid": "a", "source_message_id": "y"}], 1),
]  # fmt: skip


@pytest.mark.parametrize(("starts", "count"), SESSIONS)
def test_a_session_counts_once(starts: list[dict[str, Any]], count: int) -> None:
    one = [{"events": [event("session_start", **data)]} for data in starts]
    together = {"events": [event("session_start", **data) for data in starts]}
    assert lived(*one).sessions == {"web": count}
    assert lived(together).sessions == {"web": count}


def test_worth_adds_up_by_platform() -> None:
    bought = event("commerce_event", product_action={"action": "purchase", "total_amount": "0.1"})
    person = lived(
        *[{"events": [bought]}] * 10,
        {"events": [bought], "device_info": {"platform": "iOS"}},
    )
    assert person.worth == {"web": 1_000_000, "ios": 100_000}


def said(yes: bool, at: object = None, **more: Any) -> dict[str, Any]:
    return {"consented": yes, "timestamp_unixtime_ms": at, **more}


#: consent states one after the other -> (answer in force, answers in the history)
CONSENTS: list[tuple[list[Any], bool | None, list[bool]]] = [
    ([said(True, 5)], True, [True]),
    ([said(True, 5), said(False, 6)], False, [True, False]),
    ([said(True, 6), said(False, 5)], True, [False, True]),
    ([said(True, 5), said(False, 5)], False, [True, False]),
    ([said(False, 5), said(True, 5)], False, [False, True]),
    ([said(True, 5), said(True, 9)], True, [True]),
    ([said(True, 5, document="v1"), said(True, 9, document="v2")], True, [True, True]),
    ([said(True, "5"), said(False, 6.0)], False, [True, False]),
    ([said(True), said(False)], False, [True, False]),
    # a clock that is ahead does not win for ever
    ([said(True, NOW + DAY), said(False)], False, [True, False]),
    ([{"consented": "yes"}], None, []),
    ([{}], None, []),
    (["yes"], None, []),
    ([None], None, []),
]  # fmt: skip


@pytest.mark.parametrize(("answers", "force", "history"), CONSENTS)
def test_consent(answers: list[Any], force: bool | None, history: list[bool]) -> None:
    person = lived(*({"consent_state": {"gdpr": {" Ads ": a}}} for a in answers))
    stands = person.consent.get("gdpr/ads")
    assert (stands.consented if stands else None) == force
    assert [c.consented for _, c in person.consents] == history


def test_ccpa_has_one_purpose_and_an_opt_out_wins() -> None:
    notes: list[str] = []
    given = {"ccpa": {"data_sale_opt_out": said(True, 5), "other": said(True, 5)}, "lgpd": {}}
    assert len(read_consent(given, NOW, notes.append)) == 1 and notes == ["consent_unusable"]
    person = lived(
        *({"consent_state": {"ccpa": {"data_sale_opt_out": said(yes, 5)}}} for yes in (True, False))
    )
    assert person.consent["ccpa/data_sale_opt_out"].consented


def test_opt_out_and_ad_tracking_are_what_was_said_last() -> None:
    out = event("opt_out", is_opted_out=True, timestamp_unixtime_ms=NOW)
    back = event("opt_out", is_opted_out="false", timestamp_unixtime_ms=NOW - 5)
    assert lived({"events": [out]}, {"events": [back]}).opted_out == (True, NOW)
    late = {**back, "data": {**back["data"], "timestamp_unixtime_ms": NOW + 5}}
    assert lived({"events": [out]}, {"events": [late]}).opted_out == (False, NOW + 5)
    person = lived({"device_info": {"limit_ad_tracking": "true"}})
    assert person.limit_ad_tracking == (True, NOW)


def test_a_device_is_what_is_worth_showing() -> None:
    zero = "00000000-0000-0000-0000-000000000000"
    info = {
        "platform": "iOS", "os_version": "17", "is_tablet": False, "supports_telephony": "",
        "screen_width": 5, "ios_advertising_id": zero, "ios_idfv": "V", "nobody_knows": "x",
        "timezone_offset": {"x": 1}, "brand": "x" * 600,
    }  # fmt: skip
    device = read_device({"device_info": info, "mp_deviceid": "00000000-0000-4000-8000-01"}, "web")
    assert device is not None
    assert (device.stamp, device.platform) == (None, "ios")
    assert device.info == {
        "platform": "iOS", "os_version": "17", "is_tablet": "false", "screen_width": "5",
        "ios_idfv": "V",
    }  # fmt: skip
    assert read_device({"mp_deviceid": zero}, "web") is None
    assert read_device({}, "web") is None
    plain = read_device({"mp_deviceid": "d"}, "web")
    assert plain is not None and (plain.stamp, plain.platform) == ("d", "web")


def test_devices_are_told_apart_by_their_stamp() -> None:
    person = lived(
        {"mp_deviceid": "one", "device_info": {"platform": "web", "os_version": "1"}},
        {"mp_deviceid": "two", "device_info": {"platform": "iOS", "os_version": "2"}},
        {"mp_deviceid": "one", "device_info": {"platform": "web", "os_version": "3"}},
        {"mp_deviceid": "one", "events": [event("push_registration", registration_token="t")]},
    )
    found = {d.stamp: (d.platform, d.info.get("os_version"), d.push_token) for d in person.devices}
    assert found == {"one": ("web", "3", "t"), "two": ("ios", "2", None)}
    gone = event("push_registration", registration_token="t", register="false")
    person = lived(
        {"mp_deviceid": "one", "events": [event("push_registration", registration_token="t")]},
        {"mp_deviceid": "one", "events": [gone]},
    )
    assert person.devices[0].push_token is None


INSTALL = {"publisher": "p", "campaign": "c"}
#: event name, attributes -> install attribution
INSTALLS: list[tuple[str, Any, list[tuple[str, str, str]]]] = [
    ("attribution", INSTALL, [("", "p", "c")]),
    ("attribution", {**INSTALL, "service_provider": "s"}, [("s", "p", "c")]),
    ("attribution", {"publisher": "p"}, []),
    ("attribution", None, []),
    ("re-engagement", INSTALL, []),
]


@pytest.mark.parametrize(("name", "given", "expected"), INSTALLS)
def test_installs(name: str, given: Any, expected: list[tuple[str, str, str]]) -> None:
    kind = {"custom_event_type": "attribution", "event_name": name, "custom_attributes": given}
    assert lived({"events": [event("custom_event", **kind)]}).attributions == expected


def test_first_and_last_seen_are_of_what_happened_also_late() -> None:
    person = lived(
        {"events": [event("first_run", timestamp_unixtime_ms=NOW - 5)]},
        {"events": [event("first_run", timestamp_unixtime_ms=NOW - DAY)]},
    )
    assert (person.first_ms, person.last_ms, person.stored_ms) == (NOW - DAY, NOW - 5, NOW + 1000)
    assert person.inputs == {1: (NOW - DAY, NOW - 5)}


def there(latitude: Any, longitude: Any = 10.75, **more: Any) -> dict[str, Any]:
    return {"latitude": latitude, "longitude": longitude, **more}


#: batches one after the other -> (latitude, city) at the end, notes of the last one
PLACES: list[tuple[list[dict[str, Any]], tuple[float, str | None] | None, list[str]]] = [
    ([{"events": [event("screen_view", screen_name="x", location=there(59.9))]}],
     (59.9, None), []),
    ([{"context": {"location": there("59.9", "10", city_name="Oslo", dma_code=5)}}],
     (59.9, "Oslo"), []),
    # the later one, also if it came first; the batch's own only where no event has one
    ([{"events": [event("first_run", timestamp_unixtime_ms=NOW, location=there(1))]},
      {"events": [event("first_run", timestamp_unixtime_ms=NOW - 5, location=there(2))]}],
     (1.0, None), []),
    ([{"events": [event("first_run", location=there(1))], "context": {"location": there(2)}}],
     (1.0, None), []),
    ([{"context": {"location": there(1)}}, {"context": {"location": there(91)}}],
     (1.0, None), ["location_unusable"]),
    ([{"context": {"location": there(1, 181)}}], None, ["location_unusable"]),
    ([{"context": {"location": there(True)}}], None, ["location_unusable"]),
    ([{"context": {"location": there("nan")}}], None, ["location_unusable"]),
    ([{"context": {"location": there(10**400)}}], None, ["location_unusable"]),
    ([{"context": {"location": {"city_name": "Oslo"}}}], None, ["location_unusable"]),
    ([{"context": {"location": "Oslo"}}], None, ["location_unusable"]),
    ([{"context": {"location": None}}, {"context": "Oslo"}], None, []),
    ([{"context": {"location": there(1, city_name="x" * 200)}}], (1.0, None), []),
]  # fmt: skip


@pytest.mark.parametrize(("batches", "expected", "notes"), PLACES)
def test_where_a_person_was_last(
    batches: list[dict[str, Any]], expected: tuple[float, str | None] | None, notes: list[str]
) -> None:
    place = lived(*batches).place
    assert (None if place is None else (place.latitude, place.city_name)) == expected
    assert read_batch(batches[-1], NOW).notes == notes


def began(at: int, **more: Any) -> dict[str, Any]:
    kind = {"application_transition_type": "application_initialized", **more}
    return event("application_state_transition", timestamp_unixtime_ms=at, **kind)


def app(version: str, *events: dict[str, Any], **more: Any) -> dict[str, Any]:
    info = {"application_name": "Shop", "application_version": version, **more}
    return {"application_info": info, "events": [*events]}


#: batches one after the other -> platform: (version, build, installed, upgraded, uninstalled)
APPS: list[tuple[list[dict[str, Any]], dict[str, tuple[Any, ...]]]] = [
    ([app("1", began(NOW, is_first_run=True), application_build_number=7)],
     {"web": ("1", "7", NOW, 0, 0)}),
    ([app("1"), app("2", began(NOW + 9, is_upgrade="true"))], {"web": ("2", None, 0, NOW + 9, 0)}),
    # what is late changes nothing that is newer
    ([app("2", began(NOW)), app("1", began(NOW - 5, is_first_run=True))],
     {"web": ("2", None, NOW - 5, 0, 0)}),
    ([{"events": [event("first_run", timestamp_unixtime_ms=NOW - 5)]},
      {"events": [event("uninstall", timestamp_unixtime_ms=NOW)]}],
     {"web": (None, None, NOW - 5, 0, NOW)}),
    ([{"events": [event("application_state_transition", is_first_run=True,
                        application_transition_type="application_exit")]}], {}),
    ([app("1"), {**app("5"), "device_info": {"platform": "Android"}}],
     {"web": ("1", None, 0, 0, 0), "android": ("5", None, 0, 0, 0)}),
    ([{"application_info": {"application_version": "x" * 200, "os": "IOS"}}], {}),
    ([{"application_info": {"application_version": True, "package": {"x": 1}}}], {}),
    ([{"application_info": "Shop"}, {"application_info": None}], {}),
]  # fmt: skip


@pytest.mark.parametrize(("batches", "expected"), APPS)
def test_apps(batches: list[dict[str, Any]], expected: dict[str, tuple[Any, ...]]) -> None:
    person = lived(*batches)
    assert {
        p: (a.version, a.build, a.installed_ms, a.upgraded_ms, a.uninstalled_ms)
        for p, a in person.apps.items()
    } == expected


def test_platforms_are_names_and_bounded() -> None:
    for odd in ("a\x00b", "\ud800", "a\nb", "", 7, None):
        raw = {"device_info": {"platform": odd, "brand": "x"}, "events": [event("session_start")]}
        assert lived(raw).sessions == {"unknown": 1}, odd
    raws = [
        {"device_info": {"platform": f"p{n % 90}"}, "events": [event("session_start")]}
        for n in range(180)
    ]
    sessions = lived(*raws).sessions
    assert len(sessions) == 33 and sum(sessions.values()) == 180 and sessions["p0"] == 2


def test_apps_are_bounded() -> None:
    person = lived(*({**app("1"), "device_info": {"platform": f"p{n}"}} for n in range(40)))
    assert len(person.apps) <= 16


def test_two_profiles_of_one_person_are_one() -> None:
    one = lived(
        {"user_attributes": {"plan": "old", "kept": "1"}, "mp_deviceid": "d",
         "integration_attributes": {"5": {"a": "1"}}, "partner_identities": {"P_a": "1"}},
        {"application_info": {"application_version": "1"}},
    )  # fmt: skip
    two = lived(
        {"deleted_user_attributes": ["plan"], "events": [event("first_run",
         timestamp_unixtime_ms=NOW + 5)], "mp_deviceid": "d",
         "integration_attributes": {"5": {"b": "2"}}, "partner_identities": {"P_b": "2"}},
        {},
        {"context": {"location": there(1)}, "application_info": {"application_version": "2"}},
    )  # fmt: skip
    for both in (combine(one, two), combine(two, one)):
        # forgotten on one side after it was set on the other
        assert {n: a.value for n, a in both.attributes.items()} == {"kept": "1"}
        assert [d.stamp for d in both.devices] == ["d"]
        assert both.integrations == {"5": {"a": "1", "b": "2"}}
        assert both.partners == {"P_a": "1", "P_b": "2"}
        assert both.apps["web"].version == "2"
        assert both.place is not None and both.place.latitude == 1.0
    set_again = lived({"user_attributes": {"plan": "new"}, **change("x", NOW + 9, new="1")})
    assert combine(two, set_again).attributes["plan"].value == "new"
