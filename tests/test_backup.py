"""Backups while serving, restores into a new epoch, and what is remembered outside."""

from __future__ import annotations

import asyncio
import json
import os
import pathlib
import shutil
from typing import Any

import apsw
import pytest
from tests.web.serving import Running, running
from typer.testing import CliRunner

from onymous import backups, checking, restoring
from onymous.app import Core, open_store
from onymous.app import running as core_of
from onymous.cli import app
from onymous.flows.answers import Answer, Question
from onymous.flows.erasure import erase
from onymous.flows.tombstones import (
    ERASED,
    Line,
    Mark,
    OutsideProblem,
    Tombstones,
    read_lines,
)
from onymous.rules.errors import NotRemembered, UnknownMpid
from onymous.settings import Settings, load
from onymous.store.port import StoreError

DATABASE = "0123456789abcdef"


def quiet(step: str, done: int, total: int) -> None:
    """Report to nobody."""


def settings_of(tmp_path: pathlib.Path, folder: str = "store") -> Settings:
    flags = {
        "store": f"sqlite:{tmp_path / folder}",
        "master_key_file": str(tmp_path / "master.key"),
    }
    return load(flags, environ={})


async def erased(core: Core, mpid: str, who: str = "server-api-key") -> Answer:
    caller = core.directory.find(who)
    assert caller is not None
    question = Question(op="erase", caller=caller, environment="production", known={}, now_ms=7)
    future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
    erase(core.resolver, question, mpid, future.set_result)
    return await future


async def login(it: Running, customer: str) -> str:
    reply = await it.ask("login", {"customerid": customer, "email": f"{customer}@x.io"})
    assert reply.status_code == 200
    return str(reply.json()["mpid"])


async def found(it: Running, customer: str) -> str | None:
    reply = await it.ask("search", {"customerid": customer})
    return str(reply.json()["mpid"]) if reply.status_code == 200 else None


class SqlitePlace:
    engine = "sqlite"

    def __init__(self, url: pathlib.Path) -> None:
        self.url = str(url)


async def made(settings: Settings, into: pathlib.Path) -> backups.Backup:
    return await asyncio.to_thread(backups.make, settings, into, quiet)


# -- the file outside ---------------------------------------------------------------------------


def test_lines_outside_survive_a_torn_end_and_name_damage(tmp_path: pathlib.Path) -> None:
    outside = Tombstones(tmp_path / "b", DATABASE)
    lines = [Line(ERASED, 5, n, 4) for n in range(3)]
    outside.append(lines[:2])
    assert read_lines(outside.path, DATABASE)[1:] == lines[:2]
    whole = outside.path.read_bytes()
    outside.path.write_bytes(whole + b'12345678 {"kind":"era')
    assert read_lines(outside.path, DATABASE)[1:] == lines[:2], "never acknowledged"
    outside.append(lines[2:])
    assert read_lines(outside.path, DATABASE)[1:] == lines
    with pytest.raises(OutsideProblem, match="another database"):
        read_lines(outside.path, "f" * 16)
    outside.path.write_bytes(outside.path.read_bytes().replace(b'"number":1', b'"number":9'))
    with pytest.raises(OutsideProblem, match="line 3"):
        read_lines(outside.path, DATABASE)


async def test_an_erasure_is_acknowledged_only_when_remembered_outside(
    place: Any, tmp_path: pathlib.Path
) -> None:
    folder = tmp_path / "outside"
    async with running(place, tmp_path, backup_folder=str(folder)) as it:
        core = it.server.core
        mpid = await login(it, "anna")
        folder.write_text("not a folder")
        assert isinstance((await erased(core, mpid)).refusal, NotRemembered)
        assert await found(it, "anna") is None
        folder.unlink()
        # asked again it is remembered first, and then unknown
        assert isinstance((await erased(core, mpid)).refusal, UnknownMpid)
        pid = core.mpids.parse(mpid)
        lines = read_lines(core.tombstones.path, core.tombstones.database)
        assert pid in [line.number for line in lines if line.kind == ERASED]
        text = core.tombstones.path.read_text()
        assert "anna" not in text and mpid not in text
        # the promise was made in the same transaction
        async with core.store.read() as session:
            assert await session.rows("SELECT 1 FROM job WHERE kind = 'remember'")


# -- backup and restore -------------------------------------------------------------------------


async def test_a_restore_brings_back_people_but_no_erased_ones_and_no_mpid_twice(
    tmp_path: pathlib.Path,
) -> None:
    settings, vault = settings_of(tmp_path), tmp_path / "vault"
    place = SqlitePlace(tmp_path / "store")
    async with running(place, tmp_path) as it:
        before = {n: await login(it, n) for n in ("anna", "berta", "clara")}
        backup = await made(settings, vault)
        later = {f"later-{n}": await login(it, f"later-{n}") for n in range(20)}
        assert (await erased(it.server.core, before["berta"])).refusal is None
        assert (await erased(it.server.core, later["later-3"])).refusal is None
    for _ in range(2):  # and once more from the same backup
        new = settings_of(tmp_path, "restored")
        shutil.rmtree(tmp_path / "restored", ignore_errors=True)
        out = await restoring.restore(
            backup, tmp_path / "restored", new, tombstones=[], progress=quiet
        )
        assert out.findings == [] and out.key_fits
        assert (out.renewed.erased, out.renewed.unknown) == (1, 1)
        async with core_of(new) as core:
            async with core.store.read() as session:
                assert not await session.rows(
                    "SELECT 1 FROM identity WHERE value IN ('berta', 'berta@x.io')"
                )
                bodies = await session.rows("SELECT body FROM ledger")
                journal = await session.rows("SELECT body FROM journal")
            assert not any(b"berta" in bytes(body) for (body,) in [*bodies, *journal])
        async with _served(new, it) as again:
            assert await found(again, "anna") == before["anna"]
            assert await found(again, "berta") is None
            fresh = [await login(again, f"fresh-{n}-{_}") for n in range(30)]
            assert await login(again, "berta") not in before.values()
        assert not set(fresh) & {*before.values(), *later.values()}
        later |= {f"fresh-{_}-{n}": mpid for n, mpid in enumerate(fresh)}
    whole = await checking.verify(None, settings_of(tmp_path, "restored"), False, quiet)
    assert whole.findings == [] and whole.counts["profiles"] > 30


def _served(settings: Settings, old: Running) -> Any:
    """Serve a restored folder with the secrets its inputs had."""
    return _Again(settings, old)


class _Again:
    def __init__(self, settings: Settings, old: Running) -> None:
        self._settings, self._old = settings, old

    async def __aenter__(self) -> Running:
        place = SqlitePlace(pathlib.Path(self._settings.store.removeprefix("sqlite:")))
        key = pathlib.Path(self._settings.master_key_file).parent
        self._context = running(place, key)
        it = await self._context.__aenter__()
        it.secrets = self._old.secrets
        return it

    async def __aexit__(self, *_: object) -> None:
        await self._context.__aexit__(None, None, None)


async def test_a_backup_is_never_served_and_a_broken_one_never_restored(
    tmp_path: pathlib.Path,
) -> None:
    settings, vault = settings_of(tmp_path), tmp_path / "vault"
    async with core_of(settings):
        backup = await made(settings, vault)
    assert await backups.verify_backup(backup, quiet) == []
    raw = load({"store": f"sqlite:{backup.path}"}, environ={})
    with pytest.raises(StoreError, match="onymous restore"):
        await open_store(raw.store).start()
    assert await backups.verify_backup(backup, quiet) == [], "and nothing changed in it"
    path = backup.path / "onymous.db"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)
    (finding,) = await backups.verify_backup(backup, quiet)
    assert "checksum" in finding.what
    into = tmp_path / "into"
    with pytest.raises(StoreError, match="damaged"):
        await restoring.restore(
            backup, into, settings_of(tmp_path, "into"), tombstones=[], progress=quiet
        )
    with pytest.raises(StoreError, match="did not finish"):
        await open_store(f"sqlite:{into}").start()


async def test_restoring_refuses_what_would_lose(tmp_path: pathlib.Path) -> None:
    settings, vault = settings_of(tmp_path), tmp_path / "vault"
    async with core_of(settings) as core:
        backup = await made(settings, vault)
        outside = core.tombstones.path
        for words in ({}, {"replace": True}):
            with pytest.raises(StoreError, match=r"exists|open in another process"):
                await restoring.restore(
                    backup, tmp_path / "store", settings, tombstones=[], progress=quiet, **words
                )
    away = outside.rename(tmp_path / "copy.log")
    new = settings_of(tmp_path, "new")
    with pytest.raises(OutsideProblem, match="--tombstones"):
        await restoring.restore(backup, tmp_path / "new", new, tombstones=[], progress=quiet)
    out = await restoring.restore(backup, tmp_path / "new", new, tombstones=[away], progress=quiet)
    assert out.findings == []
    replaced = await restoring.restore(
        backup, tmp_path / "store", settings, tombstones=[away], replace=True, progress=quiet
    )
    assert replaced.before is not None and pathlib.Path(replaced.before).exists()
    async with core_of(settings):
        pass


async def test_an_erasure_counts_by_number_wherever_the_person_was(
    place: Any, tmp_path: pathlib.Path
) -> None:
    """A scope may have been joined with another between the backup and the erasure."""
    async with running(place, tmp_path) as it:
        core = it.server.core
        mpid, other = await login(it, "anna"), await login(it, "berta")
        line = Line(ERASED, 5, core.mpids.parse(mpid) or 0, 998)
        await core.tombstones.remember([line, line, Line(ERASED, 6, 1 << 40, 4)])
        settings = core.settings
    for turn in range(2):
        out = await restoring.new_epoch(settings, tombstones=[], progress=quiet)
        done = out.renewed
        counts = (1, 0, 1) if turn == 0 else (0, 1, 1)
        assert (done.erased, done.already, done.unknown) == counts
        assert out.findings == []
    async with running(place, tmp_path) as again:
        again.secrets = it.secrets
        assert await found(again, "anna") is None
        assert await found(again, "berta") == other


async def test_a_database_that_went_back_is_not_served(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        core = it.server.core
        await login(it, "anna")
        await core._mark()
        mark = core.tombstones.mark()
        assert mark is not None and mark.pid and mark.ledger and await core.ready()
        core.tombstones.set_mark(Mark(mark.epoch, mark.ledger + 1, mark.pid, 1))
        await core._mark()
        assert not await core.ready()
        settings = core.settings
    with pytest.raises(StoreError, match="new-epoch"):
        async with core_of(settings):
            pass
    out = await restoring.new_epoch(settings, tombstones=[], without=True, progress=quiet)
    assert out.findings == [] and out.renewed.first > mark.pid
    async with core_of(settings) as core:
        assert await core.ready()
        async with core.store.write("numbers") as tx:
            assert (await tx.numbers("pid", 1))[0] >= out.renewed.first
        await core._mark()
        assert await core.ready()


async def test_sequences_skip_and_never_go_back(store: Any) -> None:
    async with store.write("numbers") as tx:
        for name in ("pid", "ledger"):
            first = await tx.numbers(name, 3)
            await tx.skip(name, 1 << 60)
            await tx.skip(name, 5)
            assert await tx.numbers(name, 2) == [1 << 60, (1 << 60) + 1]
            assert max(first) < 10


# -- commands -----------------------------------------------------------------------------------


def call(*words: str, code: int = 0) -> Any:
    result = CliRunner().invoke(app, [*words, "--json"])
    assert result.exit_code == code, result.output
    return json.loads(result.stdout) if result.stdout else None


def test_commands_from_backup_to_restore(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    call("init")
    call("apply", "onymous.yaml")
    path = call("backup", "vault")["backup"]
    assert call("verify", path)["whole"] and call("verify")["whole"]
    names = [pathlib.Path(call("backup", "vault")["backup"]).name for _ in range(3)]
    assert len(call("backups", "--in", "vault")["backups"]) == 4
    for manifest in pathlib.Path("vault").glob("*/manifest.json"):
        if manifest.parent.name != names[-1]:
            data = json.loads(manifest.read_text())
            data["made_ms"] -= 90 * 86_400_000
            manifest.write_text(json.dumps(data))
    words = ("backups", "prune", "--in", "vault", "--keep-days", "30", "--keep-last", "2")
    assert len(call(*words, "--dry-run")["pruned"]) == 2
    assert len(call(*words)["pruned"]) == 2
    assert names[-1] in [b["name"] for b in call("backups", "--in", "vault")["backups"]]
    assert call("restore", "vault", "--into", "new")["findings"] == []
    call("verify", "new", code=1)  # the key is not in a backup: put it there
    shutil.copy("data/master.key", "new/master.key")
    os.chmod("new/master.key", 0o600)
    assert call("verify", "new")["whole"]
    call("restore", "vault", "--into", "new", code=2)
    call("restore", "vault", code=2)
    call("verify", "elsewhere", code=2)
    db = apsw.Connection("new/onymous.db")
    db.execute("INSERT INTO profile VALUES (5, 2, 1, 1, 0, NULL, x'90')")
    db.execute("UPDATE counter SET next = 3 WHERE name = 'pid'")
    db.execute("INSERT INTO identity VALUES (129, 'a', 5, 5, NULL)")
    db.execute("INSERT INTO job (kind, due, tries, body) VALUES ('x', 1, 8, x'00')")
    db.close()
    told = call("verify", "new", code=1)["findings"]
    text = json.dumps(told)
    for words_ in ("next pid number", "lacks it", "given up"):
        assert words_ in text
    assert all(f["todo"] for f in told)
