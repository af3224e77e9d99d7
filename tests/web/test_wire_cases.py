"""More worked examples of the kinds signature, auth, http, tenancy and consent."""

from __future__ import annotations

import base64
import json
import pathlib
from typing import Any

import pytest
from tests.flows.test_events_flow import send, view
from tests.flows.test_privacy_in import consent_of, with_private
from tests.web.serving import Running, running
from tests.web.test_http_cases import document, fits, given

from onymous.web.signing import parse_basic, parse_dates, verify

FILE = pathlib.Path(__file__).parent.parent / "cases" / "wire.jsonl"
CASES: list[dict[str, Any]] = [json.loads(line) for line in FILE.read_text("utf-8").splitlines()]


def of(kind: str) -> list[dict[str, Any]]:
    return [case for case in CASES if case["kind"] == kind]


def test_every_kind_is_run() -> None:
    kinds = {case["kind"] for case in CASES}
    assert kinds == {"signature", "auth", "http", "tenancy", "consent"}
    assert len({case["id"] for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", of("signature"), ids=lambda c: c["title"])
def test_signatures(case: dict[str, Any]) -> None:
    path, _, query = case["wire_path"].partition("?")
    secret = case.get("checked_with", case["secret"]).encode()
    method, date = case.get("wire_method", case["method"]), case["date_header"]
    fit = verify(secret, method, date, path, query, case["body"].encode(), case["signature"])
    assert fit is case["accept"]
    assert parse_dates(date)


@pytest.mark.parametrize("case", of("auth"), ids=lambda c: c["title"])
def test_basic(case: dict[str, Any]) -> None:
    wanted = None if case["key"] is None else (case["key"], case["secret"])
    assert parse_basic(case["header"]) == wanted


def agrees(wanted: Any, got: Any) -> bool:
    """Compare with placeholders, lists by their entries."""
    if isinstance(wanted, list):
        return (
            isinstance(got, list)
            and len(got) == len(wanted)
            and all(agrees(w, g) for w, g in zip(wanted, got, strict=True))
        )
    if isinstance(wanted, dict):
        return isinstance(got, dict) and all(
            k in got and agrees(v, got[k]) for k, v in wanted.items()
        )
    return fits(wanted, got)


async def sent(it: Running, request: dict[str, Any], mpid: str) -> Any:
    """Make a request of a case; `<mpid>` is who was found last."""
    who, _, how = request["as"].partition(" ")
    wrong = base64.b64encode(b"server-api-key:wrong").decode()
    headers = {"nobody": {}, "wrong": {"Authorization": f"Basic {wrong}"}}.get(who)
    if headers is None:
        alone = how == "key" or who == "web"
        headers = {"x-mp-key": f"{who}-api-key"} if alone else it.basic(who)
    text = json.dumps(request.get("body")).replace("<mpid>", mpid)
    path = request["path"].replace("<mpid>", mpid)
    content = text if "body" in request else None
    return await it.client.request(request["method"], path, content=content, headers=headers)


async def test_http(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        for number, case in enumerate(of("http")):
            # each case has an address of its own
            mine = json.loads(json.dumps(case).replace("a@example.com", f"a{number}@example.com"))
            mpid = ""
            for request in mine["given"]:
                mpid = (await sent(it, request, mpid)).json()["mpid"]
            reply = await sent(it, mine["request"], mpid)
            expect = json.loads(json.dumps(mine["expect"]).replace("<mpid>", mpid))
            said = (case["id"], case["title"], reply.status_code, reply.text)
            assert reply.status_code == expect["status"], said
            assert reply.headers["access-control-allow-origin"] == "*", said
            for name, value in expect.get("headers", {}).items():
                assert fits(value, reply.headers[name]), said
            if "body" in expect:
                assert agrees(expect["body"], reply.json()), said


async def test_tenancy(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        for number, case in enumerate(of("tenancy")):
            # each case has people of its own
            text = json.dumps(case["steps"]).replace('"A"', f'"A{number}"')
            steps = json.loads(text.replace('"S"', f'"S{number}"'))
            if not number:
                await given(it, case)
            found: dict[str, str] = {}
            for step in steps:
                more = {"previous_mpid": found[step["previous"]]} if "previous" in step else {}
                environment = step.get("environment", "production")
                reply = await it.ask(
                    step["op"],
                    step["known_identities"],
                    who=step["workspace"],
                    environment=environment,
                    **more,
                )
                assert reply.status_code == step["expect"].get("status", 200), case["id"]
                if reply.status_code == 200:
                    mpid = reply.json()["mpid"]
                    assert found.setdefault(step["expect"]["mpid"], mpid) == mpid, case["id"]
            assert len(set(found.values())) == len(found), case["id"]
        assert all(document(case) == document(of("tenancy")[0]) for case in of("tenancy"))


async def test_consent(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        await with_private(it)
        for case in of("consent"):
            who = {"user_identities": {"customerid": case["id"]}}
            feed = "partner" if case.get("credential") == "partner_feed" else "private"
            first = {**who, "consent_state": case["initial_consent"]}
            assert await send(it, first, who="private") == 202
            assert await send(it, {**who, **case["request"]}, who=feed) == 202
            found = await it.ask("search", {"customerid": case["id"]}, who="private")
            said = consent_of(await view(it, found.json()["mpid"]))
            assert said == case["expect"]["consent"], (case["id"], case["title"])
