"""The log of a crash is read while the server's code is imported; then the folder is let go."""

from __future__ import annotations

import asyncio
import json
import os
import pathlib
import shutil
import sys

import apsw
import pytest

from onymous import early


def crashed(folder: pathlib.Path) -> None:
    """Leave a folder as a crash does: its log was not copied."""
    live = folder.with_name("live")
    live.mkdir()
    folder.mkdir()
    db = apsw.Connection(str(live / "onymous.db"))
    db.execute("PRAGMA journal_mode = WAL; CREATE TABLE t (x); INSERT INTO t VALUES (1)").fetchall()
    for name in ("onymous.db", "onymous.db-wal"):
        shutil.copy(live / name, folder / name)
    db.close()


def test_only_a_log_that_is_there_is_read(tmp_path: pathlib.Path) -> None:
    assert early.begin(["--store", f"sqlite:{tmp_path}/nowhere"], {}) is None
    assert early.begin([], {"ONYMOUS_STORE": "postgresql://nobody@nowhere/x"}) is None
    assert early.begin(["--store=sqlite:/", "--store"], {"ONYMOUS_PORT": "x"}) is None
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("how", ["flag", "joined flag", "environment"])
def test_the_log_is_read_and_stays(tmp_path: pathlib.Path, how: str) -> None:
    folder = tmp_path / "data"
    crashed(folder)
    store = f"sqlite:{folder}"
    words = {"flag": ["--json", "--store", store], "joined flag": [f"--store={store}"]}
    environ = {"ONYMOUS_STORE": store} if how == "environment" else {}
    thread = early.begin(words.get(how, []), environ)
    assert thread is not None
    thread.join()
    assert (folder / "onymous.db-shm").exists(), "the log is known"
    server = apsw.Connection(str(folder / "onymous.db"))
    assert server.execute("SELECT x FROM t").get == 1
    early.end()
    assert (folder / "onymous.db-wal").stat().st_size, "letting go copies nothing"
    assert server.execute("SELECT x FROM t").get == 1
    server.close()
    assert not (folder / "onymous.db-wal").exists(), "the server was the last one"


def test_a_folder_that_cannot_be_read_is_left_to_the_server(tmp_path: pathlib.Path) -> None:
    for name in ("onymous.db", "onymous.db-wal"):
        (tmp_path / name).write_bytes(b"no database at all" * 300)
    thread = early.begin([f"--store=sqlite:{tmp_path}"], {})
    assert thread is not None
    early.end()
    assert not thread.is_alive()


async def test_a_server_that_ends_leaves_no_log(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "data"
    words = ["-m", "onymous", "serve", "--port", "0", "--json", "--store", f"sqlite:{folder}"]
    environ = {**os.environ, "ONYMOUS_MASTER_KEY_FILE": str(tmp_path / "key")}
    for kill in (True, False):
        process = await asyncio.create_subprocess_exec(
            sys.executable, *words, stdout=asyncio.subprocess.PIPE, env=environ, cwd=tmp_path
        )
        assert process.stdout is not None
        assert json.loads(await process.stdout.readline())["serving"]
        log = folder / "onymous.db-wal"
        assert log.exists()
        if kill:
            process.kill()
        else:
            process.terminate()
        await process.wait()
        assert log.exists() is kill
