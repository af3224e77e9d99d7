"""The Profile API on both engines: worked cases, tenancy, exact numbers, ETag, audit."""

from __future__ import annotations

import asyncio
import json
import pathlib
from typing import Any

import pytest
from tests.conftest import Place
from tests.web.reading import Reading, now, reading

from onymous.flows import reads as reads_module
from onymous.flows.api_credentials import activate
from onymous.rules.errors import Busy
from onymous.web.profile_body import FIELDS

CASES = pathlib.Path(__file__).parent.parent / "cases" / "profile_api.jsonl"
BASE = {
    "mpid",
    "created_timestamp_ms",
    "last_stored_timestamp_ms",
    "is_opted_out",
    "limit_ad_tracking",
}


async def ask(here: Reading, case: dict[str, Any], mpid: str) -> list[Any]:
    """Make the requests of a case."""
    request = case["request"]
    path = request["path"].replace("<org>/<acct>/<ws>", here.path("one"))
    path = path.replace("<org>/<acct>/<other ws>", here.path("two")).replace("<mpid>", mpid)
    headers = here.bearer() if request.get("headers") is None else request["headers"]
    return [
        await here.client.request(method, path, json=request.get("body"), headers=headers)
        for method in request["method"].split(" or ")
    ]


async def test_the_worked_cases(place: Place, tmp_path: pathlib.Path) -> None:
    cases = [json.loads(line) for line in CASES.read_text("utf-8").splitlines()]
    assert len(cases) == 7
    async with reading(place, tmp_path) as here:
        mpid = await here.identify({"customerid": "12345", "email": "a@example.com"})
        for case in cases:
            # an unknown MPID is 404 here, not 400: clients in production rely on it, and a
            # malformed one stays 400
            status = 404 if case["id"] == "profile-07" else case["expect"]["status"]
            for reply in await ask(here, case, mpid):
                assert reply.status_code == status, (case["id"], reply.text)
                assert set(case["expect"].get("body_keys", ())) <= reply.json().keys()


async def test_who_was_never_here(place: Place, tmp_path: pathlib.Path) -> None:
    async with reading(place, tmp_path) as here:
        mpid = await here.identify({"customerid": "a"})
        for text in ("1", "-1", "9223372036854775807", "-9223372036854775808"):
            assert (await here.read(text)).status_code == 404, text
        for text in ("0", "01", "+1", "1.0", "1e3", "9223372036854775808", "x", "--1", "-", "٣"):
            assert (await here.read(text)).status_code == 400, text
        foreign = (await here.running.ask("identify", {"customerid": "b"}, who="stranger")).json()
        assert (await here.read(foreign["mpid"])).status_code == 404
        assert (await here.read(mpid)).status_code == 200


async def test_environments_are_told_apart(place: Place, tmp_path: pathlib.Path) -> None:
    async with reading(place, tmp_path) as here:
        production = await here.identify({"customerid": "a"})
        development = await here.identify({"customerid": "a"}, environment="development")
        assert production != development
        for environment, mpid in (("production", production), ("development", development)):
            body = {
                "environment_type": environment,
                "identity": {"type": "customer_id", "value": "a"},
            }
            reply = await here.client.post(
                f"/userprofile/v1/resolve/{here.path()}?fields=user_identities&mpid_as_string=true",
                json=body,
                headers=here.bearer(),
            )
            assert reply.json()["mpid"] == mpid
            assert (await here.read(mpid)).json()["mpid"] == int(mpid)


async def test_resolve_refuses(place: Place, tmp_path: pathlib.Path) -> None:
    async with reading(place, tmp_path) as here:
        await here.identify({"customerid": "a", "email": "a@example.com"})
        path = f"/userprofile/v1/resolve/{here.path()}?fields=user_identities"
        good = {"environment_type": "production", "identity": {"type": "customer_id", "value": "a"}}
        tries: list[tuple[Any, int]] = [
            (good, 200),
            (good | {"environment_type": "staging"}, 400),
            ({"identity": good["identity"]}, 400),
            (good | {"identity": {"type": "email", "value": "a@example.com"}}, 400),
            (good | {"identity": {"type": "shoe_size", "value": "a"}}, 400),
            (good | {"identity": {"type": "customer_id", "value": 7}}, 400),
            (good | {"identity": {"type": "customer_id", "value": "null"}}, 400),
            (good | {"identity": {"type": "customer_id", "value": "A"}}, 404),
            ([], 400),
            ("x", 400),
        ]
        for body, status in tries:
            reply = await here.client.post(path, json=body, headers=here.bearer())
            assert reply.status_code == status, (body, reply.text)


async def test_fields(place: Place, tmp_path: pathlib.Path) -> None:
    async with reading(place, tmp_path) as here:
        mpid = await here.identify({"customerid": "a"})
        more = {"user_attributes": {"account_userattributes"}}
        for name in FIELDS:
            keys = (await here.read(mpid, name)).json().keys()
            absent = {"attribution"} if name == "attribution" else set()
            assert keys == BASE | {name} - absent | more.get(name, set())
        spaced = await here.read(mpid, " user_identities , devices,")
        assert spaced.json().keys() == BASE | {"user_identities", "devices"}
        for bad in (None, "", ",", "email", "user_identities,nothing", "USER_IDENTITIES"):
            assert (await here.read(mpid, bad)).status_code == 400, bad
        assert (await here.read(mpid, mpid_as_string="maybe")).status_code == 400


async def test_numbers_of_64_bits_are_exact(place: Place, tmp_path: pathlib.Path) -> None:
    async with reading(place, tmp_path) as here:
        for number in range(20):
            mpid = await here.identify({"customerid": f"c{number}"})
            reply = await here.read(mpid)
            assert reply.text.startswith('{"mpid":' + mpid + ",")
            assert reply.json()["mpid"] == int(mpid)
            as_text = await here.read(mpid, mpid_as_string="true")
            assert as_text.json()["mpid"] == mpid
        # the neighbour a rounding reader would ask for is somebody else or nobody
        rounded = str(int(float(mpid)))
        assert rounded == mpid or (await here.read(rounded)).status_code in (400, 404)


BATCH: dict[str, Any] = {
    "user_attributes": {"$city": "Oslo", "likes": ["tea", "rain"], "plan": "4"},
    "device_info": {
        "platform": "web",
        "android_uuid": "5f3c0c1e8a9b7d22",
        "limit_ad_tracking": True,
        "device_model": "X1",
    },
    "mp_deviceid": "3b1f5a52-6a0e-4c2f-9a3c-2c1a3b0f7a11",
    "consent_state": {
        "gdpr": {"marketing": {"consented": True, "timestamp_unixtime_ms": 1_700_000_000_000}},
        "ccpa": {
            "data_sale_opt_out": {"consented": False, "timestamp_unixtime_ms": 1_700_000_000_000}
        },
    },
    "events": [
        {
            "event_type": "commerce_event",
            "data": {
                "timestamp_unixtime_ms": 1_700_000_000_000,
                "product_action": {"action": "purchase", "total_amount": 12.34, "products": []},
            },
        }
    ],
}
EVERYTHING = ",".join(FIELDS)


async def test_a_full_profile(place: Place, tmp_path: pathlib.Path) -> None:
    async with reading(place, tmp_path) as here:
        mpid = await here.identify({"customerid": "a", "email": "A@Example.com", "other": "o"})
        await here.send({"mpid": mpid, **BATCH})
        body = (await here.read(mpid, EVERYTHING)).json()
        assert body["user_identities"] == [
            {"type": "customer_id", "encoding": "none", "value": "a"},
            {"type": "email", "encoding": "none", "value": "A@Example.com"},
            {"type": "other", "encoding": "none", "value": "o"},
        ]
        assert {"type": "android_id", "encoding": "none", "value": "5f3c0c1e8a9b7d22"} in body[
            "device_identities"
        ]
        assert body["user_attributes"] == {"$city": "Oslo", "likes": ["tea", "rain"], "plan": "4"}
        assert body["account_userattributes"] is None
        assert body["audience_memberships"] == []
        assert body["limit_ad_tracking"] is True
        assert body["is_opted_out"] is False
        consent = body["consent_state"]
        assert consent["gdpr"]["marketing"]["consented"] is True
        assert consent["ccpa"]["data_sale_opt_out"]["consented"] is False
        value = body["lifetime_value"]
        assert value["total"] == value["workspace"] == value["by_workspace"]["one"] == 12.34
        assert list(value["by_platform"].values()) == [12.34]
        assert [d["platform"] for d in body["devices"]] == ["web"]
        assert [(c["purpose"], c["consented"]) for c in body["consent_history"]] == [
            ("marketing", True),
            ("data_sale_opt_out", False),
        ]
        seen = {"first_seen_ms": 1_700_000_000_000, "last_seen_ms": 1_700_000_000_000}
        counted = {"sessions_by_platform": {}, "batches": 1, "events": 1}
        assert body["activity"] == {
            **seen,
            "sessions": 0,
            "workspace": {**seen, "sessions": 0, **counted},
        }
        assert body["last_stored_timestamp_ms"] >= body["created_timestamp_ms"]


async def test_two_workspaces_share_a_scope(place: Place, tmp_path: pathlib.Path) -> None:
    async with reading(place, tmp_path) as here:
        await here.issue("narrow", "profile:read", workspaces=("one",))
        mpid = await here.identify({"customerid": "a"})
        assert await here.identify({"customerid": "a"}, who="sisterfeed") == mpid
        purchase = {"mpid": mpid, "events": BATCH["events"]}
        await here.send({**purchase, "user_attributes": {"from": "one"}})
        await here.send({**purchase, "user_attributes": {"from": "sister"}}, "sisterfeed")
        for workspace in ("one", "sister"):
            body = (await here.read(mpid, EVERYTHING, workspace=workspace)).json()
            assert [i["value"] for i in body["user_identities"]] == ["a"]
            assert body["user_attributes"] == {"from": workspace}
            assert body["lifetime_value"]["total"] == 24.68
            assert body["lifetime_value"]["workspace"] == 12.34
            assert body["lifetime_value"]["by_workspace"] == {"one": 12.34, "sister": 12.34}
        narrow = await here.read(mpid, EVERYTHING, who="narrow")
        assert narrow.json()["lifetime_value"]["by_workspace"] == {"one": 12.34}
        assert narrow.json()["lifetime_value"]["total"] == 24.68
        assert "sister" not in narrow.text
        assert (await here.read(mpid, workspace="sister", who="narrow")).status_code == 403


async def test_a_workspace_the_person_was_never_seen_in(
    place: Place, tmp_path: pathlib.Path
) -> None:
    async with reading(place, tmp_path) as here:
        mpid = await here.identify({"customerid": "a"})
        await here.send({"mpid": mpid, **BATCH})
        body = (await here.read(mpid, EVERYTHING, workspace="sister")).json()
        assert [i["value"] for i in body["user_identities"]] == ["a"]
        assert body["user_attributes"] == {}
        assert body["consent_state"] == {}
        assert body["devices"] == []
        assert "attribution" not in body


async def test_what_the_path_names_is_checked(place: Place, tmp_path: pathlib.Path) -> None:
    async with reading(place, tmp_path) as here:
        await here.issue("timeline", "activity:read", workspaces=("one",))
        mpid = await here.identify({"customerid": "a"})
        org, account, workspace = here.path().split("/")
        for path, status in (
            (f"{org}/{account}/{workspace}", 200),
            (f"{org}1/{account}/{workspace}", 403),
            (f"{org}/{account}1/{workspace}", 403),
            (f"{org}/{account}/999", 403),
            (f"x/{account}/{workspace}", 400),
            (f"{org}/{account}/{'9' * 30}", 400),
        ):
            reply = await here.client.get(
                f"/userprofile/v1/{path}/{mpid}?fields=devices", headers=here.bearer()
            )
            assert reply.status_code == status, path
        assert (await here.read(mpid, who="timeline")).status_code == 403
        assert (await here.read(mpid, headers=here.running.basic())).status_code == 401


async def test_etag(place: Place, tmp_path: pathlib.Path) -> None:
    async with reading(place, tmp_path) as here:
        mpid = await here.identify({"customerid": "a"})
        first = await here.read(mpid)
        tag = first.headers["etag"]
        assert str(first.json()["last_stored_timestamp_ms"]) in tag
        for header in (tag, f"W/{tag}", f'"x", {tag}', "*"):
            again = await here.read(mpid, headers={"If-None-Match": header})
            assert (again.status_code, again.content) == (304, b""), header
            assert again.headers["etag"] == tag
        assert (await here.read(mpid, headers={"If-None-Match": '"x"'})).status_code == 200
        # a changed identity is a changed answer, though no batch was stored
        change = {"identity_type": "other", "old_value": None, "new_value": "o"}
        assert (await here.running.modify(mpid, [change])).status_code == 200
        other = await here.read(mpid, headers={"If-None-Match": tag})
        assert other.status_code == 200
        await here.send({"mpid": mpid, "user_attributes": {"a": "b"}})
        stored = await here.read(mpid, headers={"If-None-Match": other.headers["etag"]})
        assert stored.status_code == 200
        newest = stored.json()["last_stored_timestamp_ms"]
        assert newest > first.json()["last_stored_timestamp_ms"]


async def audited(here: Reading) -> list[tuple[str, str, str, Any]]:
    """Return the audit entries of reads."""
    async with here.core.store.read() as session:
        rows = await session.rows("SELECT actor, action, subject, detail FROM audit ORDER BY id")
    found = [(r[0], r[1], r[2], json.loads(bytes(r[3]))) for r in rows]
    return [row for row in found if row[1].endswith(".read")]


async def test_every_read_is_audited(place: Place, tmp_path: pathlib.Path) -> None:
    async with reading(place, tmp_path) as here:
        mpid = await here.identify({"customerid": "a"})
        number = here.core.tokens.workspace
        await asyncio.gather(*(here.read(mpid, "devices,user_identities") for _ in range(5)))
        await here.read(mpid, "attribution", method="POST")
        await here.read("1")  # nobody was read
        await here.core.reads.flush(here.core.store)
        found = await audited(here)
        client, workspace = here.clients["all"]["client_id"], int(here.path().split("/")[2])
        assert {(a, b, c) for a, b, c, _ in found} == {(client, "profile.read", mpid)}
        counted: dict[str, int] = {}
        for _, _, _, detail in found:
            assert detail["workspace"] == workspace
            counted[detail["asked"]] = counted.get(detail["asked"], 0) + detail["reads"]
        assert counted == {"user_identities,devices": 5, "attribution": 1}
        assert number is not None


async def test_a_graceful_stop_loses_no_audit(place: Place, tmp_path: pathlib.Path) -> None:
    async with reading(place, tmp_path) as here:
        mpids = [await here.identify({"customerid": f"c{n}"}) for n in range(40)]
        for mpid in mpids:
            assert (await here.read(mpid)).status_code == 200
    store = place.store()
    await store.start()
    try:
        async with store.read() as session:
            rows = await session.rows("SELECT subject FROM audit WHERE action = 'profile.read'")
    finally:
        await store.close()
    assert {row[0] for row in rows} == set(mpids)


async def test_no_read_without_audit(
    place: Place, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with reading(place, tmp_path) as here:
        mpids = [await here.identify({"customerid": f"c{n}"}) for n in range(3)]
        monkeypatch.setattr(reads_module, "MOST_WAITING", 2)
        reads = reads_module.Reads()
        for mpid in mpids[:2]:
            reads.note("on-1", "profile.read", mpid, 1, "devices", now())
        with pytest.raises(Busy):
            reads.note("on-1", "profile.read", mpids[2], 1, "devices", now())
        assert await reads.flush(here.core.store) == 2
        reads.note("on-1", "profile.read", mpids[2], 1, "devices", now())


async def test_limit_of_a_credential(place: Place, tmp_path: pathlib.Path) -> None:
    async with reading(place, tmp_path) as here:
        mpid = await here.identify({"customerid": "a"})
        client = here.clients["all"]["client_id"]
        here.core.tokens._clients[client][0].granted.requests_per_second = 3
        here.core.tokens._known.clear()
        replies = [await here.read(mpid) for _ in range(12)]
        assert {r.status_code for r in replies} == {200, 429}
        limited = next(r for r in replies if r.status_code == 429)
        assert int(limited.headers["retry-after"]) >= 1
        assert limited.headers["x-mp-rate-limit-exceeded"] == "app"
        assert replies[0].headers["x-mp-rate-limit-percentage-used"] == "0"


async def test_hot_and_ordinary_answers_agree(place: Place, tmp_path: pathlib.Path) -> None:
    async with reading(place, tmp_path) as here:
        mpid = await here.identify({"customerid": "a"})
        hot = await here.read(mpid, EVERYTHING)
        ordinary = await here.read(mpid, EVERYTHING, headers={"Expect": ""})
        assert hot.content == ordinary.content
        assert hot.headers["etag"] == ordinary.headers["etag"]
        await activate(
            here.core.store, here.clients["all"]["client_id"], False, actor="t", now_ms=now()
        )
        await here.core.tokens.refresh_if_changed(now())
        assert (await here.read(mpid, headers={"Expect": ""})).status_code == 401


async def test_merged_profiles_are_read_as_one(place: Place, tmp_path: pathlib.Path) -> None:
    async with reading(place, tmp_path) as here:
        one = await here.identify({"email": "one@example.com"})
        two = await here.identify({"email": "two@example.com"})
        core = here.core
        async with core.store.write("test") as tx:
            pids = [core.mpids.parse(m) for m in (one, two)]
            await tx.run(
                "INSERT INTO merge (pool, source, destination, at, actor, reason)"
                " SELECT pool, ?, ?, 1, 't', 't' FROM profile WHERE pid = ?",
                *pids,
                pids[0],
            )
        for mpid in (one, two):
            body = (await here.read(mpid)).json()
            assert body["mpid"] == int(two)
            # of several values of one type the newest is shown
            assert [i["type"] for i in body["user_identities"]] == ["email"]
