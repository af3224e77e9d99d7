"""The Identity API over real sockets: credentials, shapes, headers, flags."""

from __future__ import annotations

import asyncio
import gzip
import json
import pathlib
import time
from email.utils import formatdate
from typing import Any

import pytest
from tests.web.serving import running

from onymous.web.signing import sign


async def test_the_answer_has_the_documented_shape(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        first = await it.ask("login", {"email": "Jo@X.io", "customerid": "1"})
        assert first.status_code == 200
        answer = first.json()
        assert list(answer) == [
            "context",
            "matched_identities",
            "is_ephemeral",
            "mpid",
            "is_logged_in",
        ]
        assert answer["matched_identities"] == {}
        assert -(2**63) <= int(answer["mpid"]) < 2**63
        assert int(answer["mpid"]) != 0
        assert (answer["is_logged_in"], answer["is_ephemeral"]) == (True, False)
        again = await it.ask("identify", {"email": "jo@x.io"})
        assert again.json()["mpid"] == answer["mpid"]
        assert again.json()["matched_identities"] == {"email": "jo@x.io"}
        assert again.headers["x-mp-max-age"] == "86400"
        assert again.headers["x-mp-rate-limit-percentage-used"] == "0"
        assert again.headers["access-control-allow-origin"] == "*"
        assert "X-MP-Max-Age" in again.headers["access-control-expose-headers"]


@pytest.mark.parametrize("asgi", [False, True], ids=["hot", "asgi"])
async def test_hot_and_ordinary_routes_answer_alike(
    place: Any, tmp_path: pathlib.Path, asgi: bool
) -> None:
    async with running(place, tmp_path) as it:
        for op, identities, status in (
            ("identify", {"ios_idfv": "D"}, 200),
            ("search", {"ios_idfv": "nobody"}, 404),
            ("identify", {}, 400),
            ("identify", {"customer_id": "1"}, 400),
            ("identify", {"customerid": 42}, 400),
            ("logout", {"customerid": "1"}, 400),
        ):
            reply = await it.ask(op, identities, asgi=asgi)
            assert reply.status_code == status, (op, identities, reply.text)
            assert reply.headers["access-control-allow-origin"] == "*"
            if status != 200:
                body = reply.json()
                assert body["errors"] == body["Errors"]
                assert body["ErrorCode"] == body["errors"][0]["code"]
                assert body["StatusCode"] == status


async def test_three_ways_of_authentication(place: Any, tmp_path: pathlib.Path) -> None:
    body = json.dumps(
        {"environment": "production", "known_identities": {"ios_idfv": "D", "email": "jörg@x.io"}},
        ensure_ascii=False,
    ).encode()
    async with running(place, tmp_path) as it:
        date = formatdate(usegmt=True)
        secret = it.secrets["app"].encode()
        good = {"x-mp-key": "app-api-key", "Date": date}
        good["x-mp-signature"] = sign(secret, "POST", date, "/v1/identify", body)

        async def post(
            headers: dict[str, str], content: bytes = body, path: str = "/v1/identify"
        ) -> int:
            return (await it.client.post(path, content=content, headers=headers)).status_code

        assert await post(good) == 200
        assert await post(good, path="/identity/v1/identify") == 200
        assert await post({**good, "x-mp-signature": good["x-mp-signature"].upper()}) == 200
        zipped = {**good, "Content-Encoding": "gzip"}
        assert await post(zipped, gzip.compress(body)) == 200
        assert await post(zipped, body) == 200
        assert await post(it.basic("app")) == 200
        assert await post({"x-mp-key": "web-api-key"}) == 200
        for bad in (
            {},
            {"x-mp-key": "app-api-key"},
            {"x-mp-key": "nobody"},
            {**good, "x-mp-key": "web-api-key"},
            {**good, "x-mp-signature": "0" * 64},
            {**good, "x-mp-signature": ""},
            {k: v for k, v in good.items() if k != "Date"},
            it.basic("off"),
            {"Authorization": "Basic c2VydmVyLWFwaS1rZXk6d3Jvbmc="},
            {"Authorization": "nonsense"},
        ):
            assert await post(bad) == 401, bad
        assert await post(good, body + b" ") == 401
        old = formatdate(time.time() - 3600, usegmt=True)
        stale = {**good, "Date": old}
        stale["x-mp-signature"] = sign(secret, "POST", old, "/v1/identify", body)
        assert await post(stale) == 401


async def test_read_only_writes_nothing(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        before = await it.counts()
        reply = await it.ask("login", {"customerid": "1"}, params={"read_only": "true"})
        assert reply.json()["mpid"] is None
        assert reply.json()["is_logged_in"] is True, "the answer is what would happen"
        assert await it.counts() == before
        known = (await it.ask("login", {"customerid": "1"})).json()["mpid"]
        again = await it.ask("login", {"customerid": "1"}, params={"read_only": "true"})
        assert again.json()["mpid"] == known


async def test_repeats_get_the_same_answer_without_a_second_effect(
    place: Any, tmp_path: pathlib.Path
) -> None:
    async with running(place, tmp_path) as it:
        one = await it.ask("logout", {"ios_idfv": "D"}, request_id="r1")
        two = await it.ask("logout", {"ios_idfv": "D"}, request_id="r1")
        other = await it.ask("logout", {"ios_idfv": "D"}, request_id="r2")
        assert one.json() == two.json()
        assert one.json()["mpid"] != other.json()["mpid"]
        mpid = (await it.ask("login", {"customerid": "1"})).json()["mpid"]
        change = [{"identity_type": "email", "old_value": None, "new_value": "a@x.io"}]
        first = await it.modify(mpid, change, request_id="m1")
        await it.modify(mpid, [{**change[0], "new_value": "b@x.io"}], request_id="m2")
        again = await it.modify(mpid, change, request_id="m1")
        assert again.json() == first.json()
        found = await it.ask("search", {"email": "a@x.io"}, params={"reach": "protected"})
        assert found.status_code == 404
        clash = await it.modify(mpid, [], request_id="m1")
        assert clash.status_code == 409


async def test_modify_answers_what_sdks_need(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        one = (await it.ask("login", {"customerid": "1", "email": "a@x.io"})).json()["mpid"]
        two = (await it.ask("login", {"customerid": "2", "email": "b@x.io"})).json()["mpid"]
        change = [{"identity_type": "email", "old_value": "a@x.io", "new_value": "b@x.io"}]
        reply = await it.modify(one, change)
        assert reply.json() == {
            "change_results": [
                {"identity_type": "email", "modified_mpid": two},
                {"identity_type": "email", "modified_mpid": one},
            ],
            "mpid": one,
            "is_logged_in": True,
        }
        assert (await it.modify(one, [])).json()["change_results"] == []
        assert (await it.modify("123", change)).status_code == 400
        missing = [{"identity_type": "google", "new_value": "g"}]
        assert (await it.modify(one, missing)).status_code == 200


async def test_search_any_finds_every_holder(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        known = (await it.ask("login", {"customerid": "1", "ios_idfv": "D", "google": "g"})).json()
        visitor = (await it.ask("logout", {"ios_idfv": "D"})).json()
        reply = (await it.ask("search", {"ios_idfv": "D"})).json()
        assert {m["mpid"] for m in reply["matches"]} == {known["mpid"], visitor["mpid"]}
        unranked = (await it.ask("search", {"google": "g"})).json()
        assert unranked["mpid"] == known["mpid"]
        assert unranked["matches"][0]["user_identities"] == {"customerid": ["1"], "google": ["g"]}
        guarded = await it.ask("search", {"ios_idfv": "D"}, params={"reach": "protected"})
        assert guarded.json()["mpid"] == visitor["mpid"]
        denied = await it.ask("search", {"ios_idfv": "D"}, who="plain", params={"reach": "any"})
        assert denied.status_code == 403
        assert (await it.ask("search", {"email": "no@x.io"})).status_code == 404


async def test_explain_and_history(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        created = (await it.ask("identify", {"ios_idfv": "D"})).json()["mpid"]
        login = await it.ask(
            "login", {"ios_idfv": "D", "customerid": "1"}, params={"explain": "true"}
        )
        trace = login.json()["trace"]
        assert (trace["outcome"], trace["mpid"]) == ("found", created)
        assert trace["attached"] == ["customerid"]
        assert login.json()["trace_text"][0].startswith("login under profile_conversion")
        page = (await it.client.get(f"/v1/{created}/history", headers=it.basic())).json()
        assert [e["operation"] for e in page["entries"]] == ["login", "identify"]
        assert {i["identity_type"] for i in page["identities"]} == {"ios_idfv", "customerid"}
        assert page["identities"][0]["input"] == "server"
        at = page["entries"][-1]["at_ms"]
        then = await it.client.get(
            f"/v1/{created}/history", params={"at": str(at)}, headers=it.basic()
        )
        if page["entries"][0]["at_ms"] > at:
            assert [i["identity_type"] for i in then.json()["identities"]] == ["ios_idfv"]
        few = await it.client.get(
            f"/v1/{created}/history", params={"limit": "1"}, headers=it.basic()
        )
        more = await it.client.get(
            f"/v1/{created}/history", params={"before": few.json()["next"]}, headers=it.basic()
        )
        assert [e["operation"] for e in more.json()["entries"]] == ["identify"]


async def test_what_an_sdk_needs_to_live(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        pre = await it.client.options("/v1/identify")
        assert pre.status_code == 204
        assert "x-mp-key" in pre.headers["access-control-allow-headers"]
        config = await it.client.get("/JS/v2/web-api-key/config")
        assert config.json()["flags"]["reportBatching"] == "True"
        assert (await it.client.get("/JS/v2/none/config")).status_code == 401
        batch = {"events": [], "source_request_id": "s1", "environment": "production"}
        for path in ("/v3/JS/web-api-key/events", "/webevents/v3/JS/web-api-key/events"):
            reply = await it.client.post(path, content=json.dumps(batch))
            assert (reply.status_code, reply.json()) == (202, {})
        broken = await it.client.post("/v3/JS/web-api-key/events", content=b"{nonsense")
        assert (broken.status_code, broken.json()) == (202, {})
        assert (await it.counts())["spool"] == 2
        one = await it.client.post("/v2/events", json=batch, headers=it.basic())
        assert one.status_code == 202
        many = await it.client.post("/v2/bulkevents", json=[batch] * 101, headers=it.basic())
        assert many.status_code == 400
        bad = await it.client.post("/v2/events", content=b"{nonsense", headers=it.basic())
        assert bad.status_code == 400


async def test_aliases_answer_at_once(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        visitor = (await it.ask("identify", {"device_application_stamp": "S"})).json()["mpid"]
        person = (
            await it.ask("login", {"customerid": "9", "device_application_stamp": "T"})
        ).json()["mpid"]

        async def alias(source: Any, destination: Any, **data: Any) -> int:
            wanted = {"source_mpid": source, "destination_mpid": destination, **data}
            body = {"environment": "production", "data": wanted, "request_type": "alias"}
            reply = await it.client.post(
                "/v1/identity/server-api-key/Alias", json=body, headers=it.basic()
            )
            return reply.status_code

        assert await alias(visitor, person) == 202
        assert await alias(int(visitor), int(person)) == 202
        assert await alias(visitor, visitor) == 400
        assert await alias(visitor, "123") == 400
        assert await alias(visitor, person, start_unixtime_ms=2, end_unixtime_ms=1) == 400
        assert await alias(1.5, person) == 400


async def test_about(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        await it.ask("identify", {"ios_idfv": "D"})
        assert (await it.client.get("/healthz")).json() == {"status": "ok"}
        assert (await it.client.get("/readyz")).status_code == 200
        metrics = (await it.client.get("/metrics")).text
        assert 'onymous_requests_total{operation="identify",status="200"} 1.0' in metrics
        assert (await it.client.get("/openapi.json")).json()["openapi"] == "3.1.0"
        assert "Onymous API" in (await it.client.get("/docs")).text
        assert (await it.client.get("/nothing")).status_code == 404
        assert (await it.client.get("/v1/identify")).status_code == 405


async def test_history_is_told_as_it_was(place: Any, tmp_path: pathlib.Path) -> None:
    """What came later says nothing about then: names, whether known, when last seen."""
    async with running(place, tmp_path) as it:
        mpid = (await it.ask("identify", {"ios_idfv": "D"})).json()["mpid"]
        await asyncio.sleep(0.02)
        then = time.time_ns() // 1_000_000
        await asyncio.sleep(0.02)
        await it.ask("login", {"ios_idfv": "D", "customerid": "1"})

        async def at(when: int) -> Any:
            path, params = f"/v1/{mpid}/history", {"at": str(when)}
            return await it.client.get(path, params=params, headers=it.basic())

        page = (await at(then)).json()
        assert (page["known"], page["orphaned"], page["at_ms"]) == (False, False, then)
        assert page["last_seen_ms"] <= then
        (held,) = page["identities"]
        assert (held["value"], held["input"], held["workspace"]) == ("D", "server", "one")
        assert [e["operation"] for e in page["entries"]] == ["identify"]
        now = (await at(time.time_ns() // 1_000_000)).json()
        assert now["known"] and len(now["identities"]) == 2
        assert (await at(page["created_ms"] - 1)).status_code == 404


async def test_a_modify_of_another_person_is_no_repeat(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        one, two = [
            (await it.ask("login", {"customerid": n, "other": "x"})).json()["mpid"] for n in "12"
        ]
        changes = [{"identity_type": "other", "old_value": "x", "new_value": None}]
        for _ in range(2):
            reply = await it.modify(one, changes, request_id="job")
            assert (reply.status_code, reply.json()["mpid"]) == (200, one)
        assert (await it.modify(two, changes, request_id="job")).status_code == 409
        done = (await it.modify(two, changes, request_id="job 2")).json()
        assert done["change_results"] == [{"identity_type": "other", "modified_mpid": two}]
