"""The table of identity types, against the type map, in every spelling."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest

from onymous.rules.errors import UnknownIdentityType
from onymous.rules.identifiers import (
    BY_CODE,
    BY_NAME,
    BY_SDK_CODE,
    DEFAULT_PRIORITY,
    FOLDED,
    TYPES,
    clean,
    type_of,
)

MAP = pathlib.Path(__file__).parent.parent / "cases" / "identity_type_map.jsonl"
ROWS: list[dict[str, Any]] = [json.loads(line) for line in MAP.read_text("utf-8").splitlines()]


def bare(text: str | None) -> str | None:
    return None if text is None else text.split(" ")[0].rstrip("*")


def spellings_of(row: dict[str, Any]) -> set[str]:
    """Every word of a row that names its type somewhere; `firehose` may hold two."""
    columns = "identity_api events_user_identities events_device_info profile_api opendsr"
    words = [bare(row.get(column)) for column in (*columns.split(), "platform_filter", "web_alias")]
    words += str(row["firehose"] or "").split(" / ")
    for column in ("events_aliases", "identity_api_aliases", "opendsr_aliases"):
        words += row.get(column, [])
    return {word for word in words if word}


@pytest.mark.parametrize("row", ROWS, ids=lambda r: r["id"])
def test_every_row_of_the_type_map(row: dict[str, Any]) -> None:
    kind = BY_NAME[row["identity_api"]]
    assert kind.klass == row["class"]
    assert kind.label == row["title"]
    assert kind.events == bare(row.get("events_user_identities") or row["events_device_info"])
    assert kind.profile_api == bare(row["profile_api"])
    assert kind.opendsr == bare(row["opendsr"])
    assert kind.opendsr_extension == str(row["opendsr"]).endswith("(ext)")
    assert kind.firehose == bare(row["firehose"])
    assert kind.platform_filter == row["platform_filter"]
    assert kind.sdk_code == row["sdk_code"]
    assert kind.ios_code == row["ios_mpidentity"]
    assert kind.uwp_code == row["uwp_identity_code"]
    assert kind.default_rank == row["default_rank"]
    assert BY_CODE[kind.code] is kind


@pytest.mark.parametrize("row", ROWS, ids=lambda r: r["id"])
def test_every_spelling_of_a_row_folds(row: dict[str, Any]) -> None:
    kind = BY_NAME[row["identity_api"]]
    section = "user_identities" if kind.klass == "user" else "device_info"
    for spelling in spellings_of(row):
        assert FOLDED[spelling] is kind, spelling
        assert FOLDED[f"{section}.{spelling}"] is kind, spelling
        assert type_of(spelling) is type_of(spelling.upper(), any_case=True) is kind, spelling


def test_codes_are_stored_and_stable() -> None:
    assert len(ROWS) == 34
    # a new type takes the next number of its class; no number ever changes its meaning
    assert [t.code for t in TYPES] == [*range(1, 23), *range(40, 52)]
    assert [t.name for t in TYPES] == [row["identity_api"] for row in ROWS]
    assert {t.sdk_code: t for t in TYPES if t.sdk_code is not None} == BY_SDK_CODE
    assert BY_SDK_CODE[0].name == "other"
    assert len(BY_SDK_CODE) == 22


def test_the_default_hierarchy() -> None:
    users = ("customerid", "mobile_number", "email", "other", "facebook", "google", "twitter")
    assert DEFAULT_PRIORITY[:9] == (*users, "microsoft", "yahoo")
    devices = ("ios_idfa", "ios_idfv", "android_aaid", "android_uuid", "roku_aid")
    assert DEFAULT_PRIORITY[9:14] == devices
    last = ("roku_publisher_id", "microsoft_publisher_id", "microsoft_aid")
    assert DEFAULT_PRIORITY[14:] == (*last, "device_application_stamp")
    assert [BY_NAME[name].default_rank for name in DEFAULT_PRIORITY] == list(range(1, 19))


def test_advertising_ids_are_the_guids() -> None:
    guids = {t.name for t in TYPES if t.guid}
    assert guids == {"ios_idfa", "android_aaid", "fire_aid", "roku_aid", "microsoft_aid"}


def test_no_two_types_share_a_spelling_that_differs_in_case_only() -> None:
    seen: dict[str, str] = {}
    for spelling, kind in FOLDED.items():
        assert seen.setdefault(spelling.lower(), kind.name) == kind.name, spelling


def test_names_have_a_case_except_in_a_warehouse_and_sections_do_not_mix() -> None:
    assert type_of("EMAIL") is None
    assert type_of(" Customer_ID ", any_case=True) is BY_NAME["customerid"]
    assert type_of("mpid", any_case=True) is None
    assert "user_identities.ios_idfa" not in FOLDED
    assert "device_info.email" not in FOLDED


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("customer_id", "customerid"),
        ("customer", "customerid"),
        ("CustomerId", "customerid"),
        ("controller_customer_id", "customerid"),
        ("user_identities.customer_id", "customerid"),
        ("other1", "other"),
        ("email_sha256", "other"),
        ("mobile_sha256", "other2"),
        ("user_identities.other_id_2", "other2"),
        ("other_id_10", "other10"),
        ("Other10", "other10"),
        ("FacebookId", "facebook"),
        ("facebook_custom_audience_id", "facebookcustomaudienceid"),
        ("google_advertising_id", "android_aaid"),
        ("android_advertising_id", "android_aaid"),
        ("android_id", "android_uuid"),
        ("ios_vendor_id", "ios_idfv"),
        ("device_info.ios_advertising_id", "ios_idfa"),
        ("fire_advertising_id", "fire_aid"),
        ("microsoft_advertising_id", "microsoft_aid"),
        ("roku_publishing_id", "roku_publisher_id"),
        ("apple_push_notification_token", "push_token"),
        ("google_cloud_messaging_token", "push_token"),
        ("mp_deviceid", "device_application_stamp"),
    ],
)
def test_other_spellings_fold_only_where_the_entrance_folds(spelling: str, name: str) -> None:
    assert clean({spelling: "v"}, strict=False).keys == {name: "v"}
    with pytest.raises(UnknownIdentityType) as caught:
        clean({spelling: "v"}, strict=True)
    assert spelling in caught.value.message
