"""Backup and restore under load, and killed on the way: nothing acknowledged before the backup is
lost, no MPID is given twice, and what is half done is never taken for whole."""

from __future__ import annotations

import asyncio
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import httpx
from tests.test_kill import TENANTS, Process, _load

from conftest import Postgres
from onymous.app import open_store, running
from onymous.backups import listed, verify_backup
from onymous.flows.tenants import Credential, apply
from onymous.settings import load
from onymous.store.port import StoreError


class Commands:
    """Runs `onymous` as processes of their own, with the key of the test."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.environ = {
            "PATH": "/usr/bin:/bin",
            "ONYMOUS_MASTER_KEY_FILE": str(folder / "master.key"),
            "ONYMOUS_BACKUP_FOLDER": str(folder / "vault"),
        }

    async def start(self, *words: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "onymous",
            *words,
            "--json",
            env=self.environ,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def run(self, *words: str) -> Any:
        process = await self.start(*words)
        out, error = await process.communicate()
        assert process.returncode == 0, error.decode() + out.decode()
        return json.loads(out)

    async def killed(self, when: Callable[[], bool], *words: str) -> None:
        """Kill a command as soon as something is seen, if it is seen before it ends."""
        process = await self.start(*words)
        while process.returncode is None and not when():
            await asyncio.sleep(0.001)
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
        await process.communicate()


class Crowd:
    """People who log in all the time; only what was answered counts."""

    def __init__(self, process: Process, made: Credential) -> None:
        self._process, self._auth = process, (made.api_key, made.secret)
        self.answered: dict[str, str] = {}
        self._turn = 0

    async def __aenter__(self) -> Crowd:
        self._turn += 1
        self.client = httpx.AsyncClient(
            base_url=self._process.url, auth=self._auth, trust_env=False, timeout=60
        )
        self._tasks = [
            asyncio.create_task(_load(self.client, self._turn, n, self.answered)) for n in range(6)
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*self._tasks)
        await self.client.aclose()

    async def more(self, count: int) -> None:
        """Wait until so many more were answered."""
        wanted = len(self.answered) + count
        while len(self.answered) < wanted:
            await asyncio.sleep(0.01)


async def _tenants(store: str, folder: pathlib.Path) -> Credential:
    flags = {
        "store": store,
        "master_key_file": str(folder / "master.key"),
        "backup_folder": str(folder / "vault"),
    }
    async with running(load(flags, environ={})) as core:
        (made,) = (await apply(core.store, core.key, TENANTS, actor="t", now_ms=1)).credentials
    return made


async def _checked(
    url: str, folder: pathlib.Path, made: Credential, before: dict[str, str], gone: dict[str, str]
) -> None:
    """Serve what was restored: everybody from before is there, nobody new has an old MPID."""
    process = Process(url, folder)
    await process.start()
    async with httpx.AsyncClient(
        base_url=process.url, auth=(made.api_key, made.secret), trust_env=False, timeout=60
    ) as client:
        some = random.Random(3).sample(sorted(before.items()), min(150, len(before)))
        for customer, mpid in some:
            body = {"environment": "production", "known_identities": {"customerid": customer}}
            reply = await client.post("/v1/search", json=body)
            assert reply.json()["mpid"] == mpid
        fresh = []
        for n in range(150):
            known = {"customerid": f"after-{n}", "ios_idfv": f"after device {n}"}
            body = {"environment": "production", "known_identities": known}
            fresh.append((await client.post("/v1/login", json=body)).json()["mpid"])
    await process.stop()
    assert len(set(fresh)) == len(fresh)
    assert not set(fresh) & {*before.values(), *gone.values()}


async def test_a_folder_backed_up_and_restored_under_load(tmp_path: pathlib.Path) -> None:
    url, vault = f"sqlite:{tmp_path / 'store'}", tmp_path / "vault"
    made, commands = await _tenants(url, tmp_path), Commands(tmp_path)
    process = Process(url, tmp_path)
    await process.start()
    crowd = Crowd(process, made)
    async with crowd:
        await crowd.more(150)
        for _ in range(2):
            await commands.killed(
                lambda: any(vault.glob(".partial-*/onymous.db")), "backup", "--store", url
            )
            for whole in listed(vault):
                assert await verify_backup(whole, lambda *_: None) == []
        before = dict(crowd.answered)
        path = pathlib.Path((await commands.run("backup", "--store", url))["backup"])
        assert not list(vault.glob(".partial-*")), "what the killed ones left is swept"
        await crowd.more(100)
        await process.kill()
    gone = {c: m for c, m in crowd.answered.items() if c not in before}
    into = tmp_path / "into"
    words = ("restore", str(path), "--into", str(into))
    for seen in ("restore-unfinished", ".restore/onymous.db", ".restore/onymous.db-wal"):
        await commands.killed(lambda seen=seen: (into / seen).exists(), *words)
        if (into / "restore-unfinished").exists():
            try:
                await open_store(f"sqlite:{into}").start()
                raise AssertionError("half a restore must not be served")
            except StoreError as error:
                assert "did not finish" in str(error)
    if not (into / "onymous.db").exists():
        assert (await commands.run(*words))["findings"] == []
    assert (await commands.run("verify", str(into)))["whole"]
    assert len(before) > 150 and len(gone) >= 100
    await _checked(f"sqlite:{into}", tmp_path, made, before, gone)


async def test_postgresql_came_back_from_a_base_backup_under_load(
    own_postgres: Postgres, tmp_path: pathlib.Path
) -> None:
    url = own_postgres.database()
    made, commands = await _tenants(url, tmp_path), Commands(tmp_path)
    process = Process(url, tmp_path)
    await process.start()
    crowd = Crowd(process, made)
    restored = Postgres()
    try:
        async with crowd:
            await crowd.more(100)
            before = dict(crowd.answered)
            await asyncio.to_thread(_base_backup, own_postgres, restored)
            await crowd.more(100)
            await process.kill()
        gone = {c: m for c, m in crowd.answered.items() if c not in before}
        restored.boot()
        again = restored.url(url.rpartition("/")[2])
        words = ("restore", "--new-epoch", "--without-tombstones", "--store", again)
        log = tmp_path / "vault"
        for _ in range(2):
            await commands.killed(lambda: bool(list(log.glob("tombstones-*.log"))), *words)
        assert (await commands.run(*words))["findings"] == []
        assert (await commands.run("verify", again))["whole"]
        assert len(before) >= 100 and len(gone) >= 100
        await _checked(again, tmp_path, made, before, gone)
    finally:
        restored.stop()


def _base_backup(server: Postgres, restored: Postgres) -> None:
    """Take a base backup as docs/operate/backup.md says, to where another server finds it."""
    restored.folder.chmod(0o755)
    restored._data, restored._bin, restored._user = (
        restored.folder / "data",
        server._bin,
        server._user,
    )
    if server._user is not None:
        shutil.chown(restored.folder, server._user)
    tool = [server._bin / "pg_basebackup", "-D", restored._data, "-X", "stream", "-c", "fast"]
    where = ["-h", "127.0.0.1", "-p", str(server.port), "-U", "postgres"]
    done = subprocess.run(
        [*tool, *where],
        user=server._user,
        capture_output=True,
        text=True,
        cwd=restored.folder,
        env={**os.environ, "HOME": str(restored.folder)},
    )
    assert done.returncode == 0, done.stderr
