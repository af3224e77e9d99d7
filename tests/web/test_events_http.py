"""Paths of events: statuses, answers, what is set aside and why; limits; both engines."""

from __future__ import annotations

import asyncio
import base64
import email.utils
import gzip
import json
import pathlib
from typing import Any

import httpx
import pytest
from tests.flows.test_events_flow import purchase, send, view, who_is
from tests.web.serving import Running, running

from onymous.web.signing import sign

WEB, APP = "/v3/JS/web-api-key/events", "/v2/app-api-key/events"
SERVER, BULK, OLD = "/v2/events", "/v2/bulkevents", "/v2/bulkevents/historical"
ANNA = {"user_identities": {"customerid": "anna"}}
NO_KIND = {**ANNA, "events": [{"data": {}}]}


async def post(
    it: Running, path: str, body: Any, who: str | None = "server", **headers: str
) -> httpx.Response:
    """Send a body as it is (text) or as JSON, with the secret of `who` or none."""
    content = body if isinstance(body, bytes | str) else json.dumps(body)
    shown = {} if who is None else it.basic(who)
    return await it.client.post(path, content=content, headers={**shown, **headers})


async def diagnosed(it: Running) -> list[tuple[str, str | None, Any]]:
    """Return (kind, request, detail) of every entry of diagnostics, and forget them."""
    core = it.server.core
    await core.diagnostics.flush(core.store)
    async with core.store.read() as session:
        rows = await session.rows("SELECT kind, request, detail FROM diagnostic ORDER BY id")
    async with core.store.write("test") as tx:
        await tx.run("DELETE FROM diagnostic WHERE id > ?", 0)
    return [(row[0], row[1], json.loads(bytes(row[2]))) for row in rows]


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


#: path, body, whose secret, further headers -> status
ANSWERS: list[tuple[str, Any, str | None, dict[str, str], int]] = [
    (SERVER, ANNA, "server", {}, 202),
    ("/s2s/v2/events", ANNA, "server", {}, 202),
    (SERVER + "/", ANNA, "server", {}, 202),
    (SERVER, {}, "server", {}, 202),
    (SERVER, {**ANNA, "events": None}, "server", {}, 202),
    (SERVER, {**ANNA, "nobody_knows": {"x": [1]}}, "server", {}, 202),
    (SERVER, ANNA, None, {}, 401),
    (SERVER, ANNA, None, {"x-mp-key": "web-api-key"}, 401),
    (SERVER, ANNA, None, {"Authorization": basic("server-api-key:wrong")}, 403),
    (SERVER, ANNA, None, {"Authorization": basic("nobody-api-key:wrong")}, 403),
    (SERVER, ANNA, None, {"Authorization": "Bearer abc"}, 403),
    (SERVER, ANNA, "off", {}, 403),
    (SERVER, "{", "server", {}, 400),
    (SERVER, "", "server", {}, 400),
    (SERVER, [], "server", {}, 400),
    (SERVER, NO_KIND, "server", {}, 400),
    (SERVER, {**ANNA, "events": [{"event_type": ""}]}, "server", {}, 400),
    (SERVER, {**ANNA, "events": {}}, "server", {}, 400),
    (SERVER, {**ANNA, "events": ["x"]}, "server", {}, 400),
    (SERVER, {**ANNA, "events": [{"event_type": "first_run", "data": 1}]}, "server", {}, 400),
    (SERVER, {"user_identities": "anna"}, "server", {}, 400),
    (SERVER, {**ANNA, "user_attributes": []}, "server", {}, 400),
    (SERVER, {**ANNA, "device_info": "x"}, "server", {}, 400),
    (SERVER, '{"user_attributes": {"a": "\\ud800"}}', "server", {}, 400),
    (SERVER, b'{"a": "\xff"}', "server", {}, 400),
    (SERVER, b"[" * 100_000, "server", {}, 400),
    (SERVER, {**ANNA, "x": "y" * 131_072}, "server", {}, 400),
    (SERVER, b"x" * 2_200_000, "server", {}, 413),
    (BULK, [ANNA], "server", {}, 202),
    ("/s2s/v2/bulkevents", [ANNA], "server", {}, 202),
    (BULK, [], "server", {}, 202),
    (BULK, [NO_KIND, None, 1, "x", [], {"events": 1}], "server", {}, 202),
    (BULK, {}, "server", {}, 400),
    (BULK, [{}] * 101, "server", {}, 400),
    (BULK, [ANNA], None, {}, 401),
    (BULK, [ANNA], None, {"Authorization": basic("server-api-key:wrong")}, 403),
    (OLD, [ANNA], "server", {}, 202),
    ("/s2s/v2/bulkevents/historical", [NO_KIND], "server", {}, 202),
    (OLD, {}, "server", {}, 400),
    (WEB, ANNA, None, {}, 202),
    (WEB.lower(), ANNA, None, {"content-type": "text/plain;charset=UTF-8"}, 202),
    ("/webevents" + WEB, ANNA, None, {}, 202),
    (WEB, NO_KIND, None, {}, 202),
    (WEB, "no json", None, {}, 202),
    (WEB, "", None, {}, 202),
    (WEB, [], None, {}, 202),
    (WEB, b"\xff\xfe", None, {}, 202),
    (WEB, b"[" * 100_000, None, {}, 202),
    (WEB, b"\x1f\x8b broken", None, {}, 202),
    (WEB, {**ANNA, "x": "y" * 131_072}, None, {}, 202),
    ("/v3/JS/nobody-api-key/events", ANNA, None, {}, 401),
    ("/v3/JS/app-api-key/events", ANNA, None, {}, 401),
    (APP, ANNA, "app", {}, 202),
    ("/nativeevents" + APP, ANNA, "app", {}, 202),
    ("/nativeevents/app-api-key/events", ANNA, "app", {}, 202),
    ("/app-api-key/events", ANNA, "app", {}, 202),
    (APP, "no json", "app", {}, 202),
    (APP, ANNA, None, {}, 401),
    (APP, ANNA, None, {"Authorization": basic("app-api-key:wrong")}, 403),
]


async def test_every_path_answers_as_documented(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        for path, body, who, headers, status in ANSWERS:
            case = (path, str(body)[:60], who, headers)
            reply = await post(it, path, body, who, **headers)
            assert reply.status_code == status, (case, reply.text[:200])
            assert reply.headers["access-control-allow-origin"] == "*", case
            if status == 202:
                assert reply.json() == {}, case
            else:
                told = reply.json()
                assert told["errors"][0]["code"] == "BAD_REQUEST" or status == 400, case
                assert told["errors"] == told["Errors"] and told["message"], case
        missing = (await post(it, SERVER, NO_KIND)).json()["errors"]
        text = 'Required event field "event_type" is missing or empty.'
        assert missing == [{"code": "BAD_REQUEST", "message": text}]
        packed = gzip.compress(json.dumps(ANNA).encode())
        for headers in ({}, {"content-encoding": "gzip"}):
            for path, who in ((SERVER, "server"), (WEB, None), (APP, "app")):
                assert (await post(it, path, packed, who, **headers)).status_code == 202
        reply = await post(it, SERVER, ANNA)
        assert reply.headers["x-mp-rate-limit-percentage-used"] == "0"


async def test_apps_sign_the_path_they_know(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        body = json.dumps({"dt": "h", "id": "m1", "ui": [{"n": 1, "i": "anna"}]}).encode()
        secret = it.secrets["app"].encode()
        date = email.utils.formatdate(usegmt=True)
        signature = sign(secret, "POST", date, APP, body)
        for path in (APP, "/nativeevents" + APP, "/nativeevents/app-api-key/events"):
            for again in (path, "/app-api-key/events"):
                headers = {"Date": date, "x-mp-signature": signature}
                for sent in (body, gzip.compress(body)):
                    reply = await it.client.post(again, content=sent, headers=headers)
                    assert (reply.status_code, reply.json()) == (202, {}), again
                reply = await it.client.post(again, content=body + b" ", headers=headers)
                assert reply.status_code == 401
        # the same batch all along: it counts once
        (person,) = (await view(it, await who_is(it, customerid="anna"))).workspaces.values()
        assert person.batches == 1


async def test_an_sdk_may_send_more_than_a_server(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        big = {**ANNA, "events": [purchase(1)], "pad": "y" * 200_000}
        assert (await post(it, SERVER, big)).status_code == 400
        assert (await post(it, BULK, [big])).status_code == 202
        (row,) = await it.server.core.spool.quarantined()
        assert row.reason == "BatchTooLarge"
        assert (await post(it, WEB, big, None)).status_code == 202
        assert (await post(it, APP, big, "app")).status_code == 202
        mpid = await who_is(it, customerid="anna")
        assert (await view(it, mpid)).lifetime_value == 2
        # an operator may let it in
        assert (await it.server.core.spool.replay()).applied == 1
        assert (await view(it, mpid)).lifetime_value == 3


async def test_the_ledger_names_the_batch(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        assert await send(it, {**ANNA, "source_request_id": "batch-7"}) == 202
        mpid = await who_is(it, customerid="anna")
        assert (
            await send(
                it,
                {"mpid": mpid, "user_identities": {"other": "o"}, "source_request_id": "batch-8"},
            )
            == 202
        )
        reply = await it.client.get(f"/v1/{mpid}/history", headers=it.basic())
        assert [e["request_id"] for e in reply.json()["entries"]] == ["batch-8", "batch-7"]


async def test_what_is_set_aside_says_why_and_is_tried_again(
    place: Any, tmp_path: pathlib.Path
) -> None:
    async with running(place, tmp_path) as it:
        core = it.server.core
        nobody = {"source_request_id": "n1", "user_attributes": {"a": "b"}}
        for _ in range(2):
            assert (await post(it, WEB, "no json", None)).status_code == 202
            assert (await post(it, SERVER, nobody)).status_code == 202
        assert (await post(it, BULK, [NO_KIND, 7, ANNA])).status_code == 202
        unknown = {"mpid": "1234567", "events": [purchase(1)], "source_request_id": "n2"}
        assert (await post(it, APP, {**unknown, "events": "?"}, "app")).status_code == 202
        found = {row.body[:12]: row.reason for row in await core.spool.quarantined()}
        assert found == {
            b"no json": "BadJson",
            b'{"source_req': "no_usable_identity",
            b'{"user_ident': "MissingEventField",
            b"7": "InvalidData",
            b'{"mpid": "12': "InvalidData",
        }
        told = await diagnosed(it)
        reasons = {
            (request, detail["reason"]) for kind, request, detail in told if "reason" in detail
        }
        assert reasons == {
            (None, "BadJson"),
            ("n1", "no_usable_identity"),
            (None, "MissingEventField"),
            (None, "InvalidData"),
            ("n2", "InvalidData"),
        }
        # what nobody can be found for stays, once, and is not tried for ever
        done = await asyncio.wait_for(core.spool.replay(), 60)
        assert (done.applied, done.dropped, done.left) == (0, 0, 5)
        assert len(await core.spool.quarantined()) == 5
        first = (await core.spool.quarantined())[0].id
        assert (await core.spool.replay([first])).left == 1
        await core.spool.drop([first])
        assert len(await core.spool.quarantined()) == 4
        await core.upkeep.run(4_000_000_000_000)
        assert await core.spool.quarantined() == []


async def test_text_that_is_no_text_costs_no_batch(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        cut = b'{"user_identities":{"customerid":"anna"},"user_attributes":{"a":"\\ud83d"}}'
        assert (await post(it, WEB, cut, None)).status_code == 202
        broken = b'{"user_identities":{"customerid":"anna"},"user_attributes":{"b":"\xff!"}}'
        assert (await post(it, WEB, broken, None)).status_code == 202
        (person,) = (await view(it, await who_is(it, customerid="anna"))).workspaces.values()
        assert {n: a.value for n, a in person.attributes.items()} == {"a": "\ufffd", "b": "\ufffd!"}
        assert await it.server.core.spool.quarantined() == []
        assert {d["reasons"][0] for _, _, d in await diagnosed(it)} == {"text_repaired"}


#: two batches of one person; whether the second is a repeat
REPEATS: list[tuple[dict[str, Any], dict[str, Any], bool]] = [
    ({}, {}, False),
    ({"source_request_id": "a"}, {"source_request_id": "a"}, True),
    ({"source_request_id": "a"}, {"source_request_id": "b"}, False),
    ({"source_request_id": 7}, {"source_request_id": "7"}, True),
    ({"source_request_id": "A"}, {"source_request_id": "a"}, False),
    ({"source_request_id": ""}, {"source_request_id": ""}, False),
    ({"source_request_id": "x" * 500}, {"source_request_id": "x" * 500}, True),
    ({"batch_id": 5}, {"batch_id": 5}, True),
    ({"batch_id": 5}, {"batch_id": 6}, False),
    ({"source_request_id": "a", "batch_id": 5}, {"source_request_id": "b", "batch_id": 5}, True),
    ({"source_request_id": "a", "batch_id": 5}, {"source_request_id": "a", "batch_id": 6}, True),
    ({"source_request_id": "5"}, {"batch_id": 5}, False),
    ({"id": "a"}, {"id": "a"}, False),
    ({"source_request_id": "a"}, {"source_request_id": "a", "environment": "development"}, False),
    ({"source_request_id": None}, {"source_request_id": None}, False),
    ({"source_request_id": True}, {"source_request_id": True}, False),
]


async def test_repeats_are_known_by_their_names(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        for n, (one, two, again) in enumerate(REPEATS):
            who = {"user_identities": {"customerid": f"c{n}"}, "events": [purchase(1)]}
            for names in (one, two):
                mine = {
                    k: f"{n}-{v}"
                    if isinstance(v, str) and v
                    else v * 100 + n
                    if v == 5 or v == 6
                    else f"{n}-{v}"
                    if v == 7
                    else v
                    for k, v in names.items()
                    if k != "environment"
                }
                batch = {**who, **mine, "environment": names.get("environment", "production")}
                assert await send(it, batch) == 202
            worth = (await view(it, await who_is(it, customerid=f"c{n}"))).lifetime_value
            apart = two.get("environment") == "development"
            assert worth == (1 if again or apart else 2), (one, two)
        # names are those of an input: another one may use the same
        batch = {**ANNA, "source_request_id": "same", "events": [purchase(1)]}
        assert await send(it, batch) == await send(it, batch, who="plain") == 202
        assert (await view(it, await who_is(it, customerid="anna"))).lifetime_value == 2


async def test_a_call_of_many_keeps_their_order_and_is_kept_whole(
    place: Any, tmp_path: pathlib.Path
) -> None:
    async with running(place, tmp_path) as it:
        mpid = await who_is(it, customerid="anna")
        # by MPID and by identities in turn: the last one said wins, at the same millisecond
        batches = [
            {**({"mpid": mpid} if n % 2 else ANNA), "user_attributes": {"n": n}} for n in range(100)
        ]
        assert await send(it, batches, BULK) == 202
        (person,) = (await view(it, mpid)).workspaces.values()
        assert (person.attributes["n"].value, person.batches) == ("99", 100)
        one = {**ANNA, "source_request_id": "r", "events": [purchase(1)]}
        assert await send(it, [one, {"mpid": mpid, **one}, one], BULK) == 202
        assert (await view(it, mpid)).lifetime_value == 1
        # no room for all of them: none is kept, and a repeat of the call counts once
        core = it.server.core
        desk = core.desk
        room, desk._most_waiting = desk._most_waiting, 2
        many = [{**ANNA, "events": [purchase(1)]}, {"mpid": mpid, "events": [purchase(1)]}, NO_KIND]
        for batches in (many, many[:1] * 3):
            reply = await post(it, BULK, batches)
            assert (reply.status_code, reply.headers["retry-after"]) == (503, "1")
        desk._most_waiting = room
        assert (await view(it, mpid)).lifetime_value == 1
        assert await core.spool.quarantined() == []
        assert await send(it, many, BULK) == 202
        assert (await view(it, mpid)).lifetime_value == 3
        exact = (
            '[{"user_identities":{"customerid":"anna"}, "x": 12345678901234567890123, "y": 1.10}]'
        )
        assert (await post(it, BULK, exact)).status_code == 202
        async with core.store.read() as session:
            rows = await session.rows("SELECT dictionary, body FROM batch ORDER BY id DESC LIMIT 1")
            body = await core.bodies.unpack(session, *rows[0])
        assert body.decode() == exact[1:-1]


@pytest.mark.parametrize("where", [WEB, SERVER])
async def test_preflight_and_unknown_methods(
    place: Any, tmp_path: pathlib.Path, where: str
) -> None:
    async with running(place, tmp_path) as it:
        reply = await it.client.options(where)
        assert reply.status_code == 204
        assert "content-type" in reply.headers["access-control-allow-headers"]
        assert (await it.client.get(where)).status_code == 405
