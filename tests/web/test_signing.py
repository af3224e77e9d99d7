"""Signatures and Basic credentials, against vectors made elsewhere."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest

from onymous.web.signing import parse_basic, parse_dates, verify

CASES = pathlib.Path(__file__).parent.parent / "cases"


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (CASES / name).read_text("utf-8").splitlines()]


@pytest.mark.parametrize("case", rows("hmac.jsonl"), ids=lambda c: c["id"])
def test_vectors(case: dict[str, Any]) -> None:
    body = case["body"].encode()
    signature = case["signature"]
    if case.get("signature_transform") == "upper":
        signature = signature.upper()
    if case.get("tamper"):
        body += b" "
    path, _, query = case["wire_path"].partition("?")
    secret = case["secret"].encode()
    fits = verify(secret, case["method"], case["date_header"], path, query, body, signature)
    assert fits is case["accept"]


DATE = "Mon, 23 Nov 2026 12:00:00 GMT"


@pytest.mark.parametrize(
    ("method", "path", "query", "body", "signature"),
    [
        (
            "POST",
            "/v1/identify",
            "",
            b'{"environment":"development"}',
            "8bace98d06315757e6b23da25e6f9c982fab49b977f348ffaf6e5bc1f78d5892",
        ),
        (
            "GET",
            "/v4/key/config",
            "av=1.0&sv=5.0.0",
            b"",
            "74dd992ba3626b3e4f1cb5151cc3850dac4182b57e8b185818c8cff94d42a9a2",
        ),
        (
            "GET",
            "/config/v4/key/config",
            "av=1.0&sv=5.0.0",
            b"",
            "74dd992ba3626b3e4f1cb5151cc3850dac4182b57e8b185818c8cff94d42a9a2",
        ),
        (
            "GET",
            "/v4/key/config",
            "av=1.0&sv=5.0.0&plan_id=p&plan_version=2",
            b"",
            "74dd992ba3626b3e4f1cb5151cc3850dac4182b57e8b185818c8cff94d42a9a2",
        ),
        (
            "GET",
            "/config/key/config",
            "av=1.0&sv=5.0.0",
            b"",
            "74dd992ba3626b3e4f1cb5151cc3850dac4182b57e8b185818c8cff94d42a9a2",
        ),
    ],
)
def test_paths_a_client_may_have_signed(
    method: str, path: str, query: str, body: bytes, signature: str
) -> None:
    assert verify(b"secret", method, DATE, path, query, body, signature)
    assert not verify(b"secreT", method, DATE, path, query, body, signature)
    assert not verify(b"secret", method, DATE, path, query, body + b"x", signature)
    assert not verify(
        b"secret", method, DATE.replace("12:00", "12:01"), path, query, body, signature
    )


NOON = 1_795_435_200_000


@pytest.mark.parametrize(
    "text",
    [
        "20261123T120000Z",
        "Mon, 23 Nov 2026 12:00:00 GMT",
        "Mon, 23 Nov 2026 12:00:00 UTC",
        "Mon, 23 Nov 2026 13:00:00 +0100",
        "Mon, 23 Nov 2026 04:00:00 PST",
        "Mon, 23 Nov 2026 07:00:00 EST",
        "Mon, 23 Nov 2026 13:00:00 CET",
        "Mon, 23 Nov 2026 13:00:00 GMT+01:00",
        "2026-11-23T12:00:00Z",
        "2026-11-23T12:00:00.000Z",
        "2026-11-23T13:00:00+01:00",
    ],
)
def test_dates_of_all_clients(text: str) -> None:
    assert NOON in parse_dates(text)


@pytest.mark.parametrize(
    "text", ["", "now", "20261323T120000Z", "x" * 5000, "\x00", "٢٠٢٦1123T120000Z"]
)
def test_dates_that_are_none(text: str) -> None:
    assert parse_dates(text) == []


def test_basic() -> None:
    (case,) = rows("basic_auth.jsonl")
    assert parse_basic(case["header"]) == (case["key"], case["secret"])
    for bad in (
        "",
        "Basic",
        "Basic !!!",
        "Bearer abc",
        "Basic YWJj",
        "Basic /w==",
        "Basic " + "A" * 9999,
    ):
        assert parse_basic(bad) is None, bad
    assert parse_basic("basic a2V5OnNlY3JldDp3aXRoOmNvbG9ucw==") == ("key", "secret:with:colons")
