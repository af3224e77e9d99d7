"""The previous release on today's schema: its own suite passes, and both versions serve at once.

pyproject.toml names the previous release (`[tool.onymous]`). Its source comes from this clone's
history; a clone without it says so by name, and what needs no history is tested all the same.
"""

from __future__ import annotations

import asyncio
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from tests.operate.processes import TENANTS, Load, Process, all_there, prepared

from conftest import in_memory
from onymous.app import running
from onymous.settings import load
from onymous.store import schema, sql

ROOT = pathlib.Path(__file__).parents[2]
NAMED = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["onymous"]
#: what a contract of the store is: places are made by the fixtures, which come migrated
SUITE = ("tests/store/test_store_find.py", "tests/store/test_store_writing.py")
SUITE += ("tests/store/test_store_lasting.py", "tests/store/test_store_races.py")
SUITE += ("tests/flows/test_first_sight.py", "tests/flows/test_jobs.py")


def git(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True)


@pytest.fixture(scope="module")
def previous(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pathlib.Path]:
    """A work tree of the previous release."""
    commit = NAMED["previous"]
    if git("cat-file", "-e", f"{commit}^{{commit}}").returncode:
        pytest.xfail(f"this clone has no history of {commit[:12]}: git fetch --unshallow")
    folder = tmp_path_factory.mktemp("previous") / "tree"
    made = git("worktree", "add", "--detach", str(folder), commit)
    assert made.returncode == 0, made.stderr
    try:
        yield folder
    finally:
        git("worktree", "remove", "--force", str(folder))


def test_the_suite_of_the_previous_release_passes_on_todays_schema(
    previous: pathlib.Path,
) -> None:
    environ = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    environ |= {
        "PYTHONPATH": f"{previous / 'src'}:{ROOT / 'tests' / 'upgrade'}",
        "ONYMOUS_NEW_SOURCE": str(ROOT / "src"),
    }
    memory = in_memory(programs=True)
    if memory is not None:
        memory.chmod(0o755)  # its server runs as somebody else
        environ["TMPDIR"] = str(memory)
    words = ["-m", "pytest", "-q", "-n", "2", "-p", "on_new_schema", "-p", "no:cacheprovider"]
    command = [sys.executable, *words, *SUITE]
    try:
        done = subprocess.run(command, cwd=previous, env=environ, capture_output=True, text=True)
    finally:
        if memory is not None:
            shutil.rmtree(memory, ignore_errors=True)
    assert done.returncode == 0, done.stdout[-6000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed and int(passed[1]) > 50, "and it was really run"


async def test_an_old_and_a_new_process_serve_one_store(
    empty_place: Any, tmp_path: pathlib.Path, previous: pathlib.Path
) -> None:
    """As a rolling upgrade goes: the new one starts and migrates under load, the old one ends."""
    old_source = str(previous / "src")
    url, auth = await asyncio.to_thread(prepared_by, previous, empty_place, tmp_path)
    old = Process(url, tmp_path, "serve", "--port", "0", source=old_source)
    first = await old.start()
    async with Load(auth, [first.url], callers=6) as load_:
        await load_.until(60)
        new = await Process(url, tmp_path, "serve", "--port", "0").start()
        load_.urls.append(new.url)
        await load_.until(120)
        load_.urls.remove(first.url)
        first.signal()
        await first.ended()
        await load_.until(60)
    assert set(load_.statuses) == {200}
    await all_there(new.url, auth, load_.answered)
    await all_followed(new.url, auth, set(load_.answered.values()))
    assert await new.stop() == 0


PREPARE = """
import asyncio, json, sys
from onymous.app import running
from onymous.flows.tenants import apply
from onymous.settings import load
from onymous.store import schema, sql
async def main():
    settings = load({"store": sys.argv[1], "master_key_file": sys.argv[2]}, environ={})
    async with running(settings) as core:
        out = await apply(core.store, core.key, sys.argv[3], actor="test", now_ms=1)
        (made,) = [c for c in out.credentials if c.input == "server"]
    print(json.dumps([schema.SCHEMA_VERSION, made.api_key, made.secret]))
asyncio.run(main())
"""


def prepared_by(
    tree: pathlib.Path, place: Any, folder: pathlib.Path
) -> tuple[str, tuple[str, str]]:
    """Let the previous release set the tenants up; return the store and a credential."""
    url = place.url if place.engine == "postgresql" else f"sqlite:{place.url}"
    words = [sys.executable, "-c", PREPARE, url, str(folder / "master.key"), TENANTS]
    environ = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(tree / "src")}
    done = subprocess.run(words, capture_output=True, text=True, env=environ, cwd=folder)
    assert done.returncode == 0, done.stderr
    version, key, secret = json.loads(done.stdout)
    assert version == NAMED["previous_schema"]
    return url, (key, secret)


async def all_followed(url: str, auth: tuple[str, str], mpids: set[str]) -> None:
    """The feed tells of every person, whichever version made them."""
    after, seen = "0", set[str]()
    async with httpx.AsyncClient(base_url=url, auth=auth, trust_env=False, timeout=60) as client:
        for _ in range(200):
            asked = {"after": after, "limit": "1000", "wait": "1"}
            page = (await client.get("/v1/changes", params=asked)).json()
            after = page["next"]
            seen |= {change["mpid"] for change in page["changes"]}
            if mpids <= seen:
                return
    assert mpids <= seen


#: what an older version does not notice
ADDS = re.compile(
    r"CREATE TABLE |CREATE INDEX |INSERT INTO |CREATE SEQUENCE "
    r"|ALTER TABLE \w+ ADD COLUMN (?!.*NOT NULL(?!.*DEFAULT))"
)


@pytest.mark.parametrize("engine", sorted(schema.DIALECTS))
def test_migrations_since_the_previous_release_only_add(engine: str) -> None:
    """Where one does more, older processes must not go on: COMPATIBLE_VERSION says so."""
    plain: set[str] = set()
    for number, text in schema.migrations(engine):
        plain |= set(re.findall(r"CREATE INDEX (\w+)", text))
        if number <= NAMED["previous_schema"] or number <= schema.COMPATIBLE_VERSION:
            continue
        made = set(re.findall(r"CREATE TABLE (\w+)", text))
        for statement in schema.statements(text):
            unique = re.match(r"CREATE UNIQUE INDEX \w+ ON (\w+)", statement)
            fits = unique[1] in made if unique else ADDS.match(" ".join(statement.split()))
            gone = re.match(r"DROP INDEX (\w+)", statement)  # older ones only get slower
            fits = fits or (gone is not None and gone[1] in plain)
            assert fits, f"migration {number} changes what older versions rely on: {statement}"


async def test_a_process_ends_once_the_schema_is_beyond_it(
    place: Any, tmp_path: pathlib.Path
) -> None:
    """An upgrade that older versions do not understand: they notice, and go."""
    url, _ = await prepared(place, tmp_path)
    process = await Process(url, tmp_path, "serve", "--port", "0").start()
    given = {"store": url, "master_key_file": str(tmp_path / "master.key")}
    async with running(load(given, environ={})) as core:
        newer = b"%d" % (schema.SCHEMA_VERSION + 1)
        async with core.store.write("upgrade") as tx:
            await tx.run(sql.META_PUT, "schema_version", newer)
            await tx.run(sql.META_PUT, "compatible_version", newer)
        assert await process.ended() == 1
    assert "upgrade this process" in process.log()
