"""A request id that several inputs of a scope used: whose is meant is known, said, or asked for."""

from __future__ import annotations

import pathlib
from typing import Any

import httpx
from tests.flows.test_undoing import allow, names
from tests.web.serving import Running, running


async def mpid_of(it: Running, who: str, request: str, **known: str) -> str:
    reply = await it.ask("identify", known, who=who, request_id=request)
    assert reply.status_code == 200, reply.text
    return str(reply.json()["mpid"])


async def explained(it: Running, request: str, **more: str) -> httpx.Response:
    params = {"request_id": request, **more}
    return await it.client.get("/v1/explain", params=params, headers=it.basic())


async def undo(it: Running, request: str, **more: Any) -> httpx.Response:
    body = {"environment": "production", "reason": "wrong", "request_id": request, **more}
    return await it.client.post("/v1/undo", json=body, headers=it.basic())


async def test_the_callers_own_request_comes_first(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        await allow(it)
        own = await mpid_of(it, "server", "same", customerid="1")
        other = await mpid_of(it, "plain", "same", customerid="2")
        assert own != other
        for more, expected in (
            ({}, own),
            ({"workspace": "one"}, own),
            ({"input": "plain"}, other),
            ({"input": "one/plain"}, other),
            ({"input": "server", "workspace": "one"}, own),
        ):
            told = (await explained(it, "same", **more)).json()
            assert told["mpid"] == expected, (more, told)
            assert told["input"] == ("server" if expected == own else "plain")
            assert told["entries"][0]["changes"][0]["change"] == "created"
        for more in ({"input": "app"}, {"workspace": "two"}, {"input": "two/plain"}):
            assert (await explained(it, "same", **more)).status_code == 404


async def test_what_cannot_be_told_is_asked_for(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        await allow(it)
        for number, who in enumerate(("app", "plain")):
            await mpid_of(it, who, f"met-{who}", customerid=str(number))
        one = await mpid_of(it, "app", "twice", customerid="0", email="a@x.io")
        two = await mpid_of(it, "plain", "twice", customerid="1", email="b@x.io")
        for reply in (await explained(it, "twice"), await undo(it, "twice")):
            assert reply.status_code == 409, reply.text
            assert "one/app, one/plain" in reply.text
        assert ("email", "a@x.io") in await names(it, one)
        done = await undo(it, "twice", input="one/plain")
        assert done.status_code == 200 and done.json()["mpid"] == two
        assert await names(it, two) == {("customerid", "1")}
        assert ("email", "a@x.io") in await names(it, one)


async def test_one_person_two_inputs_one_id(place: Any, tmp_path: pathlib.Path) -> None:
    """Both changed the same person under the same id: only the request that is meant is told."""
    async with running(place, tmp_path) as it:
        await allow(it)
        anna = await mpid_of(it, "server", "both", customerid="1")
        assert await mpid_of(it, "plain", "both", customerid="1", email="a@x.io") == anna
        (own,) = (await explained(it, "both")).json()["entries"]
        (other,) = (await explained(it, "both", input="plain")).json()["entries"]
        assert own["changes"][0]["change"] == "created"
        assert [c["value"] for c in other["changes"]] == ["a@x.io"]
        assert (await undo(it, "both", input="plain")).status_code == 200
        assert await names(it, anna) == {("customerid", "1")}
