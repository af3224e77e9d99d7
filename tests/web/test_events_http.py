"""Paths of events: statuses, answers, what is set aside and why; limits; both engines."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import pathlib
from typing import Any

import httpx
import pytest
from tests.flows.test_events_flow import purchase, send, view, who_is
from tests.web.serving import TENANTS, Running, running

from onymous.flows.tenants import apply

WEB, APP = "/v3/JS/web-api-key/events", "/v2/app-api-key/events"
SERVER, BULK, OLD = "/v2/events", "/v2/bulkevents", "/v2/bulkevents/historical"
ANNA = {"user_identities": {"customerid": "anna"}}
NO_KIND = {**ANNA, "events": [{"data": {}}]}
FEED = (
    TENANTS
    + """
    feeds:
      crm: {kind: custom_feed, api_key: crm-api-key}
      partner: {kind: partner_feed, api_key: partner-api-key, partner: Braze}
"""
)


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


async def test_waiting_batches_are_bounded_in_bytes(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        events = it.server.core.events
        events._most_held = 100_000
        big = {**ANNA, "user_attributes": {"a": "x" * 4000}, "pad": "y" * 40_000}
        replies = await asyncio.gather(*(post(it, SERVER, big) for _ in range(12)))
        codes = {r.status_code for r in replies}
        assert codes == {202, 503}
        assert all(r.headers.get("retry-after") for r in replies if r.status_code == 503)
        assert events.held == 0
        assert await send(it, big) == 202
        web = await asyncio.gather(*(post(it, WEB, big, None) for _ in range(12)))
        assert {r.status_code for r in web} <= {202, 503}
        assert events.held == 0 and await it.server.core.spool.quarantined() == []


async def test_limits_of_inputs_and_of_public_keys(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(
        place,
        tmp_path,
        address_requests_per_second=0,
        address_profiles_per_hour=3,
        address_values_per_hour=3,
    ) as it:
        core = it.server.core
        more = TENANTS.replace(
            "api_key: plain-api-key", "api_key: plain-api-key, requests_per_second: 2"
        )
        await apply(core.store, core.key, more, actor="test", now_ms=2)
        await core.directory.load()
        replies = await asyncio.gather(*(post(it, SERVER, ANNA, "plain") for _ in range(8)))
        late = [r for r in replies if r.status_code == 429]
        assert late and all(r.headers["retry-after"].isdigit() for r in late)
        assert {r.headers["x-mp-rate-limit-exceeded"] for r in late} == {"app"}
        # a public key makes a bounded number of people, whatever MPID it says
        codes = []
        for n in range(8):
            batch = {
                "mp_deviceid": f"4b8d2d52-6e1c-4c42-9d33-a5a1d2c3e4f{n}",
                "mpid": [None, "99"][n % 2],
                "events": [purchase(1)],
            }
            codes.append((await post(it, WEB, batch, None)).status_code)
        assert codes == [202] * 3 + [429] * 5
        # ... but sends on for those it knows
        mpid = await who_is(it, customerid="anna")
        assert (await post(it, WEB, {"mpid": mpid}, None)).status_code == 202
        assert await core.spool.quarantined() == []
    async with running(place, tmp_path, address_values_per_hour=3) as it:
        codes = []
        for n in range(6):
            batch = {"user_identities": {"customer_id": f"new{n}"}}
            codes.append((await post(it, WEB, batch, None)).status_code)
        assert codes == [202] * 3 + [429] * 3


async def test_a_public_key_belongs_to_its_pages(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        core = it.server.core
        more = TENANTS.replace(
            "api_key: web-api-key", 'api_key: web-api-key, cors_origins: ["https://shop.example"]'
        )
        await apply(core.store, core.key, more, actor="test", now_ms=2)
        await core.directory.load()
        for origin, status in (("https://shop.example", 202), ("https://evil.example", 403)):
            assert (await post(it, WEB, ANNA, None, Origin=origin)).status_code == status


async def test_feeds_say_only_what_is_theirs(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        core = it.server.core
        out = await apply(core.store, core.key, FEED, actor="test", now_ms=2)
        await core.directory.load()
        it.secrets |= {c.input: c.secret for c in out.credentials}
        batch = {
            "user_identities": {"customerid": "z"},
            "partner_identities": {"Braze_id": "b", "Other_id": "o"},
            "consent_state": {"ccpa": {"data_sale_opt_out": {"consented": True}}},
        }
        for who, partners, consents in (
            ("partner", {"Braze_id"}, 0),
            ("crm", {"Braze_id", "Other_id"}, 1),
        ):
            reply = await post(it, "/s2s/v2/events", batch, who)
            assert reply.status_code == 202
            found = await it.ask("search", {"customerid": "z"}, who="stranger")
            (person,) = (await view(it, found.json()["mpid"])).workspaces.values()
            assert set(person.partners) == partners and len(person.consent) == consents
        told = [d for kind, _, d in await diagnosed(it) if kind == "batch_noted"]
        assert told == [{"reasons": ["consent_not_allowed", "partner_identity_foreign"]}]


@pytest.mark.parametrize("where", [WEB, SERVER])
async def test_preflight_and_unknown_methods(
    place: Any, tmp_path: pathlib.Path, where: str
) -> None:
    async with running(place, tmp_path) as it:
        reply = await it.client.options(where)
        assert reply.status_code == 204
        assert "content-type" in reply.headers["access-control-allow-headers"]
        assert (await it.client.get(where)).status_code == 405
