"""The cleaning pipeline, which every entrance shares."""

from __future__ import annotations

import decimal
import random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from onymous.rules.errors import (
    IdentityValueInvalid,
    IdentityValueNotString,
    UnknownIdentityType,
)
from onymous.rules.identifiers import (
    BY_NAME,
    FOLDED,
    TYPES,
    Folding,
    clean,
    clean_value,
    ordinary,
)

ZERO = "00000000-0000-0000-0000-000000000000"
SAME = "same"


@pytest.mark.parametrize(
    ("kind", "value", "key", "why"),
    [
        ("email", "  a@b.c\t\n", "a@b.c", ""),
        ("email", "\u00a0a@b.c\u2003", "a@b.c", ""),
        ("email", "\u3000\u2028a@b.c\x1f\x85", "a@b.c", ""),
        ("email", "\u200ba", SAME, ""),
        ("email", "a b", SAME, ""),
        ("email", "A@b.c", SAME, ""),
        ("email", "", None, "empty"),
        ("email", " \t\u00a0\u3000", None, "empty"),
        ("customerid", "NULL", None, "placeholder"),
        ("customerid", "Undefined", None, "placeholder"),
        ("customerid", " None ", None, "placeholder"),
        ("customerid", "NaN", None, "placeholder"),
        ("customerid", "(null)", None, "placeholder"),
        ("customerid", "N/A", None, "placeholder"),
        ("customerid", "nancy", SAME, ""),
        ("customerid", "nan.", SAME, ""),
        ("customerid", "0", SAME, ""),
        ("customerid", "-", SAME, ""),
        ("customerid", "0049", SAME, ""),
        ("customerid", "0" * 31, SAME, ""),
        ("customerid", "0" * 32, None, "zero_guid"),
        ("customerid", ZERO, None, "zero_guid"),
        ("ios_idfa", ZERO, None, "zero_guid"),
        ("ios_idfa", "0" * 32, None, "zero_guid"),
        ("microsoft_aid", "{" + ZERO + "}", None, "zero_guid"),
        ("push_token", "0", None, "zero_guid"),
        ("amp_id", "0-0", None, "zero_guid"),
        ("ios_idfv", "00000000-0000-0000-0000-000000000001", SAME, ""),
        ("device_application_stamp", "00000000-0000-4000-8000-0000000027bb", None, "placeholder"),
        ("other", "00000000-0000-4000-8000-00000000ABCD", None, "placeholder"),
        ("other", "00000000-0000-4000-8000-", None, "placeholder"),
        ("other", "00000000000040008000" + "0" * 12, None, "placeholder"),
        ("other", "00000000-0000-4000-9000-00000000abcd", SAME, ""),
        ("ios_idfa", "ABCDEF00-0000-0000-0000-0A", "abcdef00-0000-0000-0000-0a", ""),
        ("android_aaid", "\u212aA", SAME, ""),
        ("ios_idfv", "ABC", SAME, ""),
        ("other", "x" * 256, SAME, ""),
        ("other", "x" * 257, None, "too_long"),
        ("other", " " * 300 + "x" * 256 + " " * 300, "x" * 256, ""),
        ("other", "\U0001f600" * 256, SAME, ""),
        ("other", "\U0001f600" * 257, None, "too_long"),
    ],
)
def test_the_pipeline(kind: str, value: str, key: str | None, why: str) -> None:
    key = value if key == SAME else key
    for strict in (True, False):
        cleaned = clean({kind: value}, strict=strict)
        assert cleaned.keys.get(kind) == key
        assert [(s.type, s.why) for s in cleaned.skipped] == ([(kind, why)] if why else [])
    assert clean_value(BY_NAME[kind], value, Folding()) == key


def test_null_is_absent_and_leaves_no_trace() -> None:
    for strict in (True, False):
        cleaned = clean({"email": None}, strict=strict)
        assert (cleaned.keys, cleaned.spelling, cleaned.skipped) == ({}, {}, ())


@pytest.mark.parametrize("value", [1, 1.5, True, [], {}, b"x"])
def test_only_text_on_the_identity_api(value: object) -> None:
    with pytest.raises(IdentityValueNotString) as caught:
        clean({"customerid": value}, strict=True)
    assert "customerid" in caught.value.message


@pytest.mark.parametrize(
    ("value", "key", "why"),
    [
        (0, "0", None),
        (-7, "-7", None),
        (2**63 - 1, "9223372036854775807", None),
        (2**64 + 1, "18446744073709551617", None),
        (10**255, "1" + "0" * 255, None),
        (10**256, None, "too_long"),
        (10**9000, None, "too_long"),
        (10.5, "10.5", None),
        (float(2**53 - 1), "9007199254740991.0", None),
        (float(2**53), None, "inexact_number"),
        (-1e300, None, "inexact_number"),
        (float("inf"), None, "inexact_number"),
        (float("nan"), None, "inexact_number"),
        (True, "true", None),
        (False, "false", None),
        (b"x", None, "not_text"),
        (["x"], None, "not_text"),
        ({}, None, "not_text"),
        (decimal.Decimal(1), None, "not_text"),
    ],
    ids=lambda v: type(v).__name__,  # pytest cannot print the largest of them
)
def test_what_is_not_text_is_exact_or_skipped(
    value: object, key: str | None, why: str | None
) -> None:
    cleaned = clean({"customer_id": value}, strict=False)
    assert cleaned.keys.get("customerid") == key
    assert [s.why for s in cleaned.skipped] == ([why] if why else [])
    assert cleaned.spelling == {}


@pytest.mark.parametrize("value", ["a\0b", "\0", "\ud800", "ok\udfff", "\U0001f600\udc00"])
def test_text_no_database_can_hold(value: str) -> None:
    with pytest.raises(IdentityValueInvalid) as caught:
        clean({"email": value}, strict=True)
    assert value not in caught.value.message
    with pytest.raises(IdentityValueInvalid):
        clean_value(BY_NAME["email"], value, Folding())
    assert clean({"email": value}, strict=False).skipped[0].why == "invalid"


def test_unknown_names_are_refused_in_one_printable_line_or_skipped() -> None:
    name = "evil\n\x1b[31m\u202e" + "x" * 500
    with pytest.raises(UnknownIdentityType) as caught:
        clean({name: "secret"}, strict=True)
    message = caught.value.message
    assert message.isprintable() and message.isascii() and len(message) < 200
    assert "secret" not in message
    cleaned = clean({name: "secret", "email": "a"}, strict=False)
    assert cleaned.keys == {"email": "a"}
    assert [(s.type, s.why) for s in cleaned.skipped] == [("unknown", "unknown_type")]


def test_the_canonical_spelling_wins_in_any_order() -> None:
    one = clean({"customer_id": "a", "customerid": "b"}, strict=False)
    two = clean({"customerid": "b", "customer_id": "a"}, strict=False)
    assert one == two
    assert one.keys == {"customerid": "b"}
    assert [(s.type, s.why) for s in one.skipped] == [("customerid", "other_spelling")]


@pytest.mark.parametrize("unusable", [None, "", "null", ZERO, "x" * 257, ["x"], "\0", "bad"])
def test_an_unusable_spelling_does_not_hide_a_usable_one(unusable: object) -> None:
    identities = {"customerid": unusable, "customer_id": "42"}
    cleaned = clean(identities, strict=False, blocked={("customerid", "bad")})
    assert cleaned.keys == {"customerid": "42"}


def test_equal_values_under_two_spellings_are_no_conflict() -> None:
    cleaned = clean({"customer_id": " 42", "customerid": "42"}, strict=False)
    assert (cleaned.keys, cleaned.spelling, cleaned.skipped) == ({"customerid": "42"}, {}, ())


def test_the_answer_is_in_type_order() -> None:
    identities = {"device_application_stamp": "D", "ios_idfa": " E", "other": "", "email": "c"}
    for strict in (True, False):
        cleaned = clean(identities, strict=strict)
        assert list(cleaned.keys.items()) == [
            ("email", "c"),
            ("ios_idfa", "e"),
            ("device_application_stamp", "D"),
        ]
        assert cleaned.spelling == {"ios_idfa": "E"}
        assert [s.type for s in cleaned.skipped] == ["other"]


def test_values_differ_by_case_unless_folded() -> None:
    for name in ("customerid", "email", "other", "device_application_stamp", "android_uuid"):
        assert clean({name: "aB"}, strict=True).keys == {name: "aB"}


def test_folding_and_spelling() -> None:
    cleaned = clean(
        {"email": "Jo@X.io", "mobile_number": "0170 1234567", "phone_number_2": "call me"},
        strict=True,
        folding=Folding(True, True, "DE"),
    )
    assert cleaned.keys == {
        "email": "jo@x.io",
        "mobile_number": "+491701234567",
        "phone_number_2": "call me",
    }
    assert cleaned.spelling == {"email": "Jo@X.io", "mobile_number": "0170 1234567"}


@pytest.mark.parametrize(
    ("value", "key"),
    [
        ("Jo.Doe@X.IO", "jo.doe@x.io"),
        ("J\u00d6RG@X.IO", "j\u00f6rg@x.io"),
        ("\u0416@X.IO", "\u0436@x.io"),
        # look-alikes of another mailbox stay what they are
        ("\u212aevin@x.io", SAME),
        ("\u0130@x.io", SAME),
        ("stra\u1e9ee@x.io", SAME),
        ("stra\u00dfe@x.io", SAME),
        ("\u0130" * 256, SAME),
    ],
)
def test_folded_mail_joins_the_two_cases_of_a_letter_and_nothing_else(value: str, key: str) -> None:
    key = value if key == SAME else key
    assert clean_value(BY_NAME["email"], value, Folding(email_lower=True)) == key
    assert clean_value(BY_NAME["other"], value, Folding(email_lower=True)) == value


@pytest.mark.parametrize(
    ("value", "region", "key"),
    [
        ("+1 (212) 555-0100", None, "+12125550100"),
        ("+49 (0) 170 1234567", None, "+491701234567"),
        ("0170 / 123 45 67", "DE", "+491701234567"),
        ("0170 1234567", None, SAME),
        ("+49 170 1234567 ext. 5", None, SAME),
        ("+49 170 1234567 / +49 160 7654321", None, SAME),
        ("+1 555", None, SAME),
        ("555-0100", "US", SAME),
        ("call me", "DE", SAME),
        ("0170 1234567", "nowhere", SAME),
        ("x" * 257, "DE", None),
    ],
)
def test_phones_are_folded_only_where_it_is_certain(
    value: str, region: str | None, key: str | None
) -> None:
    key = value if key == SAME else key
    folding = Folding(phone_e164=True, phone_region=region)
    for name in ("mobile_number", "phone_number_2", "phone_number_3"):
        assert clean_value(BY_NAME[name], value, folding) == key
    assert clean_value(BY_NAME["other"], value, folding) == (value if key else None)


def test_blocked_values_are_absent() -> None:
    cleaned = clean({"email": "x@x.x"}, strict=True, blocked={("email", "x@x.x")})
    assert (cleaned.keys, cleaned.skipped[0].why) == ({}, "blocked")


def test_a_block_list_may_be_a_function_and_sees_the_key() -> None:
    asked = []

    def blocked(name: str, key: str) -> bool:
        asked.append((name, key))
        return name == "ios_idfa"

    cleaned = clean({"ios_idfa": " AB ", "email": "a"}, strict=True, blocked=blocked)
    assert cleaned.keys == {"email": "a"}
    assert sorted(asked) == [("email", "a"), ("ios_idfa", "ab")]


TEXT = st.one_of(
    st.text(max_size=300),
    st.text("0-{} +1234567890()/x\u0130\u212aAa", max_size=40),
    st.from_regex(r"\+(1|49|39|52|54|7|351)[0-9 ]{3,14}", fullmatch=True),
    st.text(st.characters(min_codepoint=0xD700, max_codepoint=0xE100), max_size=5),
)
VALUES = st.one_of(st.none(), TEXT, st.integers(), st.floats(), st.booleans(), st.binary())
GIVEN = st.dictionaries(st.sampled_from([*FOLDED, "nonsense"]), VALUES, max_size=6)
STRICT = st.dictionaries(st.sampled_from([*BY_NAME, "nonsense"]), VALUES, max_size=6)
FOLDINGS = st.builds(
    Folding, st.booleans(), st.booleans(), st.sampled_from([None, "US", "DE", "MX", "AR"])
)


@given(GIVEN, FOLDINGS)
@example({"email": "\u0130" * 256}, Folding(True))
def test_cleaning_twice_changes_nothing(identities: dict[str, object], folding: Folding) -> None:
    once = clean(identities, strict=False, folding=folding)
    for strict in (True, False):
        twice = clean(once.keys, strict=strict, folding=folding)
        assert (twice.keys, twice.spelling, twice.skipped) == (once.keys, {}, ())
    for name, key in once.keys.items():
        assert clean_value(BY_NAME[name], key, folding) == key
        assert 0 < len(key) <= 256
        assert key.encode("utf-8")
    assert all(once.spelling[name] != once.keys[name] for name in once.spelling)


@given(GIVEN, FOLDINGS, st.randoms(use_true_random=False))
def test_the_order_of_the_request_does_not_matter(
    identities: dict[str, object], folding: Folding, chance: random.Random
) -> None:
    items = list(identities.items())
    chance.shuffle(items)
    one = clean(identities, strict=False, folding=folding)
    two = clean(dict(items), strict=False, folding=folding)
    assert one == two
    assert list(one.keys) == list(two.keys) == [t.name for t in TYPES if t.name in one.keys]


@given(STRICT, FOLDINGS)
def test_strict_and_folded_cleaning_agree_where_strict_does_not_refuse(
    identities: dict[str, object], folding: Folding
) -> None:
    try:
        cleaned = clean(identities, strict=True, folding=folding)
    except (UnknownIdentityType, IdentityValueNotString, IdentityValueInvalid):
        return
    assert cleaned == clean(identities, strict=False, folding=folding)


BLOCKED = st.frozensets(
    st.tuples(st.sampled_from(["email", "ios_idfa"]), st.sampled_from(["0123456789", "a" * 12]))
)
PLAIN_VALUES = st.one_of(
    VALUES, st.from_regex(r"[A-Za-z0-9@. {}-]{6,20}", fullmatch=True), st.just("A" * 12)
)


@given(
    st.dictionaries(st.sampled_from([*BY_NAME, "nonsense"]), PLAIN_VALUES, max_size=5),
    FOLDINGS,
    BLOCKED,
)
@example({"ios_idfa": "A" * 12, "email": "A" * 12}, Folding(True), frozenset({("email", "a" * 12)}))
@example(
    {"email": "undefined", "customerid": "00000000-0000-0000-0000-000000000000"},
    Folding(),
    frozenset(),
)
def test_what_needs_no_second_look_is_cleaned_alike(
    identities: dict[str, object], folding: Folding, blocked: frozenset[tuple[str, str]]
) -> None:
    keys = ordinary(identities, folding, blocked)
    if keys is None:
        return
    cleaned = clean(identities, strict=True, folding=folding, blocked=blocked)
    assert list(keys.items()) == [(BY_NAME[n].code, key) for n, key in cleaned.keys.items()]
    assert cleaned.skipped == ()
    for name in cleaned.keys:
        assert cleaned.spelling.get(name, cleaned.keys[name]) == identities[name]


def test_ordinary_values_are_taken_as_such() -> None:
    given_now = {"ios_idfa": "7A0CDD5B-1c1c-4222-8333-000000000001", "other": None}
    keys = ordinary({**given_now, "customerid": "customer-17"}, Folding(), frozenset())
    assert keys is not None
    assert list(keys.values()) == ["customer-17", "7a0cdd5b-1c1c-4222-8333-000000000001"]
