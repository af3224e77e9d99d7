"""`onymous explain` and `undo` of one of several requests that chose the same id."""

from __future__ import annotations

import asyncio
import json
import pathlib
from typing import Any

from tests.web.serving import TENANTS, Running, running
from typer.testing import CliRunner

from onymous.cli import app
from onymous.flows.tenants import apply

MORE = TENANTS.replace('"explain"]}', '"explain", "undo"]}', 1) + (
    "  three: {scope: people, inputs: {shop: {kind: server, api_key: shop-api-key}}}\n"
)


async def said(it: Running, *words: str, code: int = 0) -> Any:
    """Run a command against the server, as the input `server`; return its answer."""
    where = ["--url", it.url, "--key", "server-api-key", "--secret", it.secrets["server"]]
    told = await asyncio.to_thread(CliRunner().invoke, app, [*words, *where, "--json"])
    assert told.exit_code == code, told.output
    return json.loads(told.stdout)


async def test_whose_request_is_meant_can_be_said(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        core = it.server.core
        out = await apply(core.store, core.key, MORE, actor="test", now_ms=2)
        it.secrets |= {c.input: c.secret for c in out.credentials}
        await core.directory.load()
        mpids = {}
        for who, only in (("plain", False), ("web", True), ("shop", False)):
            known = {"device_application_stamp": f"device of {who}"}
            if not only:
                known = {"customerid": who}
            await it.ask("identify", known, who=who, key_only=only)
            known["other"] = f"more of {who}"
            reply = await it.ask("identify", known, who=who, key_only=only, request_id="same-1")
            assert reply.status_code == 200, reply.text
            mpids[who] = reply.json()["mpid"]
        await core.journal.flush(core.store)
        assert len(set(mpids.values())) == 3

        several = await said(it, "explain", "same-1", code=1)
        assert "one/plain, one/web" in several["message"] + several.get("hint", "")
        for words, who in (
            (("--input", "one/plain"), "plain"),
            (("--input", "web"), "web"),
            (("--workspace", "three"), "shop"),
            (("--input", "shop", "--workspace", "three"), "shop"),
        ):
            told = await said(it, "explain", "same-1", *words)
            assert (told["mpid"], told["input"]) == (mpids[who], who)
        await said(it, "explain", "same-1", "--input", "shop", "--workspace", "one", code=1)

        because = ("--reason", "a mistake")
        await said(it, "undo", "same-1", *because, code=1)
        await said(it, "undo", "same-1", *because, "--input", "nobody", code=1)
        seen = await said(it, "undo", "same-1", *because, "--workspace", "three", "--dry-run")
        assert (seen["mpid"], seen["dry_run"]) == (mpids["shop"], True)
        done = await said(it, "undo", "same-1", *because, "--input", "one/plain")
        assert done["mpid"] == mpids["plain"]
        assert (await it.ask("search", {"other": "more of plain"})).status_code == 404
        found = (await it.ask("search", {"other": "more of shop"})).json()
        assert found["mpid"] == mpids["shop"]
