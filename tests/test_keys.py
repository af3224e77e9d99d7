"""Keys: two live secrets, last used, revoked for good; the master key, rotated."""

from __future__ import annotations

import asyncio
import json
import os
import pathlib
import sys
from typing import Any

import pytest
from tests.web.serving import Running, running
from typer.testing import CliRunner

from onymous.app import master_key
from onymous.app import running as core_of
from onymous.cli import app
from onymous.crypto import KeyProblem, MasterKey, new_master_key, write_key_file
from onymous.flows.keys import Listed, list_keys
from onymous.flows.master import opens_all, reseal
from onymous.flows.tenants import issue_secret, revoke_secret
from onymous.flows.tombstones import SECRET, read_lines
from onymous.settings import load


def call(*words: str, code: int = 0, stdin: str | None = None) -> Any:
    result = CliRunner().invoke(app, [*words, "--json"], input=stdin)
    assert result.exit_code == code, result.output
    return json.loads(result.stdout) if code == 0 else None


def test_commands(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    call("init")
    call("apply", "onymous.yaml")
    rows = call("keys", "list")["keys"]
    name = next(r["name"] for r in rows if r["kind"] == "server")
    (old,) = next(r["secrets"] for r in rows if r["name"] == name)
    new = call("keys", "issue", name)
    assert new["live"] == [old["secret_id"]] and len(new["secret"]) > 40
    call("keys", "issue", name, code=1)  # two are live
    assert call("keys", "revoke", name, str(old["secret_id"])) == {"revoked": old["secret_id"]}
    call("keys", "revoke", name, str(old["secret_id"]), code=1)
    taken = call("keys", "issue", name, "--stdin", stdin="carried-by-clients-0123456789\n")
    assert taken["secret"] == "carried-by-clients-0123456789"
    call("keys", "issue", "nowhere", code=2)
    call("keys", "issue", "no/where", code=1)
    text = json.dumps(call("keys", "list"))
    assert new["secret"] not in text and taken["secret"] not in text
    (log,) = pathlib.Path("data/backups").glob("tombstones-*.log")
    assert [line.number for line in read_lines(log) if line.kind == SECRET] == [old["secret_id"]]
    before = call("keys", "master")
    rotated = call("keys", "rotate-master")
    assert rotated["seals"] != before["seals"] and rotated["sealed"] >= 2
    assert call("keys", "master")["opens"] == [rotated["seals"], before["seals"]]
    assert call("keys", "retire-master")["retired"] == [before["seals"]]
    assert call("keys", "master")["opens"] == [rotated["seals"]]
    assert pathlib.Path("data/master.key").stat().st_mode & 0o777 == 0o600
    # killed after the file was written: the next run goes on with the same new key
    path = pathlib.Path("data/master.key")
    fresh = MasterKey.from_text(new_master_key())
    write_key_file(path, fresh.text() + path.read_text())
    assert call("keys", "rotate-master")["seals"] == fresh.id
    call("keys", "retire-master")
    assert call("keys", "master")["opens"] == [fresh.id]
    monkeypatch.setenv("ONYMOUS_MASTER_KEY", pathlib.Path("data/master.key").read_text())
    call("keys", "rotate-master", code=2)
    monkeypatch.setenv("ONYMOUS_MASTER_KEY", CliRunner().invoke(app, ["keys", "new-master"]).output)
    assert CliRunner().invoke(app, ["keys", "list"]).exit_code == 2, "it opens nothing here"


async def _server_row(it: Running) -> Listed:
    rows = await list_keys(it.server.core.store)
    return next(row for row in rows if row.name == "one/server")


async def test_last_use_is_known_by_key_and_secret(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        core = it.server.core
        assert (await _server_row(it)).used_ms is None
        new = await issue_secret(core.store, core.key, "one", "server", actor="t", now_ms=2)
        await core.directory.load()
        for _ in range(3):
            assert (await it.ask("login", {"customerid": "c"})).status_code == 200
        await core.directory.flush()
        row = await _server_row(it)
        first, second = row.secrets
        assert row.used_ms == first.used_ms and first.used_ms and second.used_ms is None
        it.secrets["server"] = new.secret
        assert (await it.ask("login", {"customerid": "c"})).status_code == 200
        assert (await it.ask("identify", {}, who="web", key_only=True)).status_code < 500
        await core.directory.flush()
        _, second = (await _server_row(it)).secrets
        assert second.used_ms is not None and second.used_ms >= first.used_ms
        rows = {row.name: row.used_ms for row in await list_keys(core.store)}
        assert rows["one/web"] and rows["one/off"] is None
        # the first secret was revoked: what was remembered of it is not believed
        await revoke_secret(core.store, "one", "server", first.secret_id, actor="t", now_ms=3)
        await core.directory.refresh_if_changed()
        it.secrets["server"] = "nonsense"
        assert (await it.ask("login", {"customerid": "c"})).status_code == 401


async def test_a_serving_process_learns_of_a_rotated_master_key(
    place: Any, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "master.key"
    async with running(place, tmp_path) as it:
        core = it.server.core
        await core.tokens.rotate(1)
        old = MasterKey.from_file(path).first_only()
        write_key_file(path, new_master_key() + "\n" + old.text())
        async with core_of(core.settings) as other:
            assert await reseal(other.store, other.key, actor="t", now_ms=5) >= 4
            fresh = other.key.first_only()
            async with other.store.read() as session:
                assert await opens_all(session, fresh)
                with pytest.raises(KeyProblem):
                    await opens_all(session, old)
        for _ in range(100):
            if core.key.id == fresh.id:
                break
            await asyncio.sleep(0.1)
        assert core.key.id == fresh.id
        assert (await it.ask("login", {"customerid": "c"})).status_code == 200
        await issue_secret(core.store, core.key, "one", "server", actor="t", now_ms=6)
        async with core.store.read() as session:
            assert await opens_all(session, fresh), "nothing is sealed with the old key any more"


def test_a_key_from_a_command_and_from_the_environment(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = new_master_key()
    (tmp_path / "key").write_text(text)
    script = f"import sys; sys.stdout.write(open({str(tmp_path / 'key')!r}).read())"
    settings = load({"master_key_command": f'{sys.executable} -c "{script}"'}, environ={})
    sealed = MasterKey.from_text(text).seal(b"x", b"c")
    key = master_key(settings)
    assert key.open(sealed, b"c") == b"x" and text not in repr(key)
    fresh = new_master_key()
    (tmp_path / "key").write_text(f"{fresh} {text}")
    later = MasterKey.from_text(fresh).seal(b"y", b"c")
    assert key.open(later, b"c") == b"y", "asked again when something does not open"
    for words in ("false", "no-such-command-here", 'python -c "'):
        with pytest.raises(KeyProblem, match="master_key_command"):
            master_key(load({"master_key_command": words}, environ={}))
    monkeypatch.setenv("ONYMOUS_MASTER_KEY", f"{fresh} {text}")
    assert master_key(settings).ids == MasterKey.from_text(f"{fresh} {text}").ids


async def test_a_missing_key_is_not_made_anew_beside_sealed_secrets(
    place: Any, tmp_path: pathlib.Path
) -> None:
    async with running(place, tmp_path) as it:
        settings = it.server.core.settings
    os.rename(tmp_path / "master.key", tmp_path / "kept.key")
    with pytest.raises(KeyProblem, match="put your copy"):
        async with core_of(settings):
            pass
    assert not (tmp_path / "master.key").exists()
