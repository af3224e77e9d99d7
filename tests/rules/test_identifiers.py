"""Identity types in every spelling, and the cleaning pipeline."""

from __future__ import annotations

import json
import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onymous.rules.errors import (
    IdentityValueInvalid,
    IdentityValueNotString,
    Refusal,
    UnknownIdentityType,
)
from onymous.rules.identifiers import (
    BY_NAME,
    BY_SDK_CODE,
    DEFAULT_PRIORITY,
    FOLDED,
    TYPES,
    Folding,
    clean,
    clean_value,
)

ROWS = [
    json.loads(line)
    for line in (pathlib.Path(__file__).parent.parent / "cases" / "identity_type_map.jsonl")
    .read_text("utf-8")
    .splitlines()
]
ZERO = "00000000-0000-0000-0000-000000000000"


def bare(text: str | None) -> str | None:
    return None if text is None else text.split(" ")[0].rstrip("*")


@pytest.mark.parametrize("row", ROWS, ids=lambda r: r["id"])
def test_every_row_of_the_type_map(row: dict[str, object]) -> None:
    kind = BY_NAME[str(row["identity_api"])]
    assert kind.klass == row["class"]
    events = row.get("events_user_identities") or row.get("events_device_info")
    assert kind.events == bare(str(events))
    for column, value in (
        ("profile_api", kind.profile_api),
        ("opendsr", kind.opendsr),
        ("firehose", kind.firehose),
        ("platform_filter", kind.platform_filter),
    ):
        want = row[column]
        assert value == (bare(str(want)) if want is not None else None), column
    assert kind.sdk_code == row["sdk_code"]
    assert kind.ios_code == row["ios_mpidentity"]
    assert kind.uwp_code == row["uwp_identity_code"]
    assert kind.default_rank == row["default_rank"]
    for spelling in (kind.events, kind.profile_api, kind.opendsr, kind.firehose, kind.name):
        if spelling:
            assert FOLDED[spelling] is kind, spelling


def test_the_table_is_complete_and_its_codes_are_stable() -> None:
    assert len(TYPES) == len(ROWS) == 34
    assert len({t.code for t in TYPES}) == 34
    assert all(0 < t.code < 64 for t in TYPES)
    assert (BY_NAME["customerid"].code, BY_NAME["device_application_stamp"].code) == (1, 51)
    assert len(DEFAULT_PRIORITY) == 18
    assert DEFAULT_PRIORITY[:4] == ("customerid", "mobile_number", "email", "other")
    assert DEFAULT_PRIORITY[-1] == "device_application_stamp"
    assert BY_SDK_CODE[7].name == "email"


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("customer_id", "customerid"),
        ("other_id_10", "other10"),
        ("other1", "other"),
        ("google_advertising_id", "android_aaid"),
        ("roku_publishing_id", "roku_publisher_id"),
        ("mp_deviceid", "device_application_stamp"),
        ("controller_customer_id", "customerid"),
        ("user_identities.other_id_2", "other2"),
        ("device_info.ios_advertising_id", "ios_idfa"),
        ("CustomerId", "customerid"),
    ],
)
def test_other_spellings_fold_only_where_the_entrance_folds(spelling: str, name: str) -> None:
    assert clean({spelling: "v"}, strict=False).keys == {name: "v"}
    with pytest.raises(UnknownIdentityType) as caught:
        clean({spelling: "v"}, strict=True)
    assert spelling in caught.value.message


@pytest.mark.parametrize(
    ("kind", "value", "key", "why"),
    [
        ("email", "  a@b.c\t\n", "a@b.c", ""),
        ("email", "\u00a0a@b.c\u2003", "a@b.c", ""),
        ("email", "A@b.c", "A@b.c", ""),
        ("email", "", None, "empty"),
        ("email", " \t ", None, "empty"),
        ("customerid", "NULL", None, "placeholder"),
        ("customerid", "Undefined", None, "placeholder"),
        ("customerid", "(null)", None, "placeholder"),
        ("customerid", "N/A", None, "placeholder"),
        ("customerid", "nancy", "nancy", ""),
        ("customerid", "0", "0", ""),
        ("customerid", ZERO, None, "zero_guid"),
        ("ios_idfa", ZERO, None, "zero_guid"),
        ("ios_idfa", "0" * 32, None, "zero_guid"),
        ("push_token", "0", None, "zero_guid"),
        ("device_application_stamp", "00000000-0000-4000-8000-0000000027bb", None, "placeholder"),
        (
            "ios_idfa",
            "ABCDEF00-0000-0000-0000-00000000000A",
            "abcdef00-0000-0000-0000-00000000000a",
            "",
        ),
        ("ios_idfv", "ABC", "ABC", ""),
        ("other", "x" * 256, "x" * 256, ""),
        ("other", "x" * 257, None, "too_long"),
        ("other", "\U0001f600" * 256, "\U0001f600" * 256, ""),
    ],
)
def test_the_pipeline(kind: str, value: str, key: str | None, why: str) -> None:
    cleaned = clean({kind: value}, strict=True)
    assert cleaned.keys.get(kind) == key
    assert [s.why for s in cleaned.skipped] == ([why] if why else [])
    assert clean_value(BY_NAME[kind], value, Folding()) == key


def test_null_is_absent_and_leaves_no_trace() -> None:
    assert clean({"email": None}, strict=True).skipped == ()


@pytest.mark.parametrize("value", [1, 1.5, True, [], {}])
def test_only_text_on_the_identity_api(value: object) -> None:
    with pytest.raises(IdentityValueNotString):
        clean({"customerid": value}, strict=True)


def test_numbers_become_exact_text_elsewhere() -> None:
    assert clean({"customer_id": 2**63 - 1}, strict=False).keys == {"customerid": str(2**63 - 1)}
    assert clean({"customer_id": ["x"]}, strict=False).skipped[0].why == "not_text"


@pytest.mark.parametrize("value", ["a\0b", "\ud800", "ok\udfff"])
def test_text_no_database_can_hold(value: str) -> None:
    with pytest.raises(IdentityValueInvalid) as caught:
        clean({"email": value}, strict=True)
    assert value not in caught.value.message
    assert clean({"email": value}, strict=False).skipped[0].why == "invalid"


def test_the_canonical_spelling_wins_in_any_order() -> None:
    one = clean({"customer_id": "a", "customerid": "b"}, strict=False)
    two = clean({"customerid": "b", "customer_id": "a"}, strict=False)
    assert one.keys == two.keys == {"customerid": "b"}


def test_folding_and_spelling() -> None:
    folding = Folding(True, True, "DE")
    cleaned = clean(
        {"email": "Jo@X.io", "mobile_number": "0170 1234567", "phone_number_2": "call me"},
        strict=True,
        folding=folding,
    )
    assert cleaned.keys == {
        "email": "jo@x.io",
        "mobile_number": "+491701234567",
        "phone_number_2": "call me",
    }
    assert cleaned.spelling == {"email": "Jo@X.io", "mobile_number": "0170 1234567"}


def test_blocked_values_are_absent() -> None:
    cleaned = clean({"email": "x@x.x"}, strict=True, blocked={("email", "x@x.x")})
    assert (cleaned.keys, cleaned.skipped[0].why) == ({}, "blocked")


NAMES = st.sampled_from([*FOLDED, "nonsense"])
VALUES = st.one_of(st.none(), st.text(max_size=300), st.integers(), st.floats(), st.booleans())


@given(st.dictionaries(NAMES, VALUES, max_size=6), st.booleans())
def test_cleaning_twice_changes_nothing(identities: dict[str, object], lower: bool) -> None:
    folding = Folding(email_lower=lower)
    once = clean(identities, strict=False, folding=folding)
    assert clean(once.keys, strict=True, folding=folding).keys == once.keys


@given(st.dictionaries(NAMES, VALUES, max_size=6))
def test_strict_cleaning_refuses_with_a_name_or_cleans(identities: dict[str, object]) -> None:
    try:
        clean(identities, strict=True)
    except Refusal as refusal:
        assert refusal.status == 400
