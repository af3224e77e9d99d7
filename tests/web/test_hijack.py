"""What a stranger with a public key tries, and what a stranger's MPID opens: nothing."""

from __future__ import annotations

import pathlib
from typing import Any

from tests.web.serving import Running, running

VICTIM = {"customerid": "v", "email": "victim@x.io", "ios_idfv": "VD"}


async def victim(it: Running) -> str:
    return str((await it.ask("login", VICTIM)).json()["mpid"])


async def names_of(it: Running, mpid: str) -> set[tuple[str, str]]:
    page = await it.client.get(f"/v1/{mpid}/history", headers=it.basic())
    return {(i["identity_type"], i["value"]) for i in page.json()["identities"]}


async def test_a_public_key_cannot_take_a_name(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        theirs = await victim(it)
        mine = (await it.ask("login", {"customerid": "evil"}, who="web", key_only=True)).json()[
            "mpid"
        ]
        steal = [{"identity_type": "email", "old_value": None, "new_value": "victim@x.io"}]
        reply = await it.modify(mine, steal, who="web", key_only=True)
        assert reply.status_code == 400
        assert "victim@x.io" not in reply.text
        assert await names_of(it, theirs) == set(VICTIM.items())


async def test_a_public_key_cannot_replace_or_remove_a_login(
    place: Any, tmp_path: pathlib.Path
) -> None:
    async with running(place, tmp_path) as it:
        theirs = await victim(it)
        for old, new in ((None, "evil@x.io"), ("wrong@x.io", "evil@x.io"), ("wrong@x.io", None)):
            change = [{"identity_type": "email", "old_value": old, "new_value": new}]
            reply = await it.modify(theirs, change, who="web", key_only=True)
            assert await names_of(it, theirs) == set(VICTIM.items()), (old, new, reply.text)
        change = [{"identity_type": "email", "old_value": "victim@x.io", "new_value": "me@x.io"}]
        assert (await it.modify(theirs, change, who="web", key_only=True)).status_code == 200


async def test_a_public_key_has_no_powers(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        await victim(it)
        for params in ({"read_only": "true"}, {"explain": "true"}):
            reply = await it.ask("identify", VICTIM, who="web", key_only=True, params=params)
            assert reply.status_code == 403
        for params in ({}, {"reach": "any"}):
            reply = await it.ask("search", VICTIM, who="web", key_only=True, params=params)
            assert reply.status_code == 403
        mpid = (await it.ask("identify", VICTIM)).json()["mpid"]
        reply = await it.client.get(f"/v1/{mpid}/history", headers={"x-mp-key": "web-api-key"})
        assert reply.status_code == 403


async def test_a_device_or_a_guess_does_not_open_a_person(
    place: Any, tmp_path: pathlib.Path
) -> None:
    async with running(place, tmp_path) as it:
        theirs = await victim(it)
        for identities, more in (
            ({"ios_idfv": "VD"}, {}),
            ({"ios_idfv": "VD"}, {"previous_mpid": theirs}),
            ({"customerid": "other", "email": "victim@x.io"}, {}),
            ({"customerid": "other", "email": "victim@x.io", "ios_idfv": "VD"}, {}),
            ({"device_application_stamp": "S"}, {"previous_mpid": theirs}),
        ):
            for op in ("identify", "login", "logout"):
                reply = await it.ask(op, identities, who="web", key_only=True, **more)
                assert reply.json().get("mpid") != theirs, (op, identities)
        assert await names_of(it, theirs) == set(VICTIM.items())


async def test_one_address_is_limited_and_others_are_not(
    place: Any, tmp_path: pathlib.Path
) -> None:
    async with running(
        place, tmp_path, address_requests_per_second=5, trusted_proxies="127.0.0.1/32"
    ) as it:

        async def knock(address: str) -> Any:
            headers = {"x-mp-key": "web-api-key", "X-Forwarded-For": address}
            body = {"environment": "production", "known_identities": {"email": "victim@x.io"}}
            return await it.client.post("/v1/identify", json=body, headers=headers)

        replies = [await knock("9.9.9.9") for _ in range(40)]
        blocked = [r for r in replies if r.status_code == 429]
        assert blocked
        assert int(blocked[0].headers["retry-after"]) >= 1
        assert blocked[0].headers["x-mp-rate-limit-exceeded"]
        assert (await knock("8.8.8.8")).status_code == 200
        assert (await it.ask("identify", {"email": "victim@x.io"})).status_code == 200


async def test_a_foreign_mpid_is_an_unknown_one(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path, work=False) as it:
        mine = (await it.ask("login", {"customerid": "1"}, who="stranger")).json()["mpid"]
        theirs = await victim(it)
        before = await it.counts()
        change = [{"identity_type": "google", "old_value": None, "new_value": "g"}]
        foreign = await it.modify(theirs, change, who="stranger")
        unknown = await it.modify("123456789", change, who="stranger")
        assert (foreign.status_code, foreign.json()) == (unknown.status_code, unknown.json())
        for environment in ("production", "development"):
            page = await it.client.get(
                f"/v1/{theirs}/history",
                params={"environment": environment},
                headers=it.basic("stranger"),
            )
            assert page.status_code == 404
        other_pool = await it.client.get(
            f"/v1/{theirs}/history", params={"environment": "development"}, headers=it.basic()
        )
        assert other_pool.status_code == 404
        body = {"environment": "development", "identity_changes": change}
        reply = await it.client.post(f"/v1/{theirs}/modify", json=body, headers=it.basic())
        assert reply.status_code == 400
        for source, destination in ((theirs, mine), (mine, theirs)):
            data = {"source_mpid": source, "destination_mpid": destination}
            reply = await it.client.post(
                "/v1/identity/stranger-api-key/alias",
                json={"environment": "production", "data": data},
                headers=it.basic("stranger"),
            )
            assert reply.status_code == 400
        assert await it.counts() == before
        seen = await it.ask("identify", {"ios_idfv": "VD"}, who="stranger", previous_mpid=theirs)
        assert seen.json()["mpid"] not in (theirs, mine)
        assert (await it.ask("search", {"customerid": "v"}, who="stranger")).status_code == 404
        assert (
            await it.ask("search", {"email": "victim@x.io"}, environment="development")
        ).status_code == 404
