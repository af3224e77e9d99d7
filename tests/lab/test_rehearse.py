"""Rules rehearsed on the journal: predictions, and that they are what then happens."""

from __future__ import annotations

import asyncio
import json
import pathlib
from typing import Any

import msgspec
from tests.flows.test_merging import with_more
from tests.web.serving import Running, running
from typer.testing import CliRunner

from onymous.cli import app
from onymous.flows.answers import Answer, Question
from onymous.flows.erasure import erase
from onymous.flows.tenants import starter
from onymous.lab.rehearsal_report import page
from onymous.lab.rehearse import journal_size, rehearse
from onymous.lab.rehearsed import decided_by
from onymous.rules.strategies import ScopeConfig, compile_plan
from onymous.rules.trace import Step, Trace

BARE = ScopeConfig(strategy="profile_conversion", login=("customerid",), unique=("customerid",))
WIDER = ScopeConfig(
    strategy="profile_conversion",
    login=("customerid", "email"),
    unique=("customerid", "email"),
)


async def ask(it: Running, **known: str) -> str:
    reply = await it.ask("identify", known, who="stranger")
    return str(reply.json()["mpid"])


async def lived(it: Running) -> tuple[Any, int]:
    """Two profiles that share an e-mail, which is no login type yet, and one that does not."""
    await ask(it, customerid="1", email="a@x.io")
    await ask(it, customerid="2", email="b@x.io")
    for _ in range(3):
        await ask(it, email="a@x.io", ios_idfv="phone")
        await ask(it, email="a@x.io", ios_idfv="tablet")
    core = it.server.core
    await core.journal.flush(core.store)
    caller = core.directory.find("stranger-api-key")
    assert caller is not None
    return caller, caller.pool("production")


def test_what_cannot_be_read_or_written_is_one_line(
    tmp_path: pathlib.Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.yaml").write_text(starter("T"))
    (tmp_path / "folder").mkdir()
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe")
    store = ("--store", f"sqlite:{tmp_path}/data")
    for words, why in (
        (("gone.yaml",), "gone.yaml cannot be read: No such file or directory"),
        (("folder",), "folder cannot be read: Is a directory"),
        (("bytes.yaml",), "bytes.yaml cannot be read: it is not UTF-8 text"),
        (("good.yaml", "--html", "folder"), "folder cannot be written: Is a directory"),
        (("good.yaml", "--html", "no/x.html"), "no/x.html cannot be written: No such file"),
    ):
        told = CliRunner().invoke(app, ["rehearse", *words, *store])
        assert told.exit_code == 2
        assert why in " ".join(told.output.split()) and len(told.output.splitlines()) <= 2
    assert not (tmp_path / "data").exists()


async def test_a_split_that_only_a_repeat_shows_is_listed(
    place: Any, tmp_path: pathlib.Path
) -> None:
    """A phone is somebody nobody knows, logs in, and is seen again with its number alone."""
    async with running(place, tmp_path) as it:
        core = it.server.core
        for _ in range(2):
            visit = await ask(it, ios_idfv="phone")
            assert await ask(it, email="a@x.io", ios_idfv="phone") == visit
        assert await ask(it, ios_idfv="phone") == visit
        await core.journal.flush(core.store)
        caller = core.directory.find("stranger-api-key")
        assert caller is not None
        pool, wider = caller.pool("production"), compile_plan(WIDER)
        found = await rehearse(core, "others", pool, caller.plan, wider, 0, lambda n: None)
        assert (found.requests, found.merges, found.splits) == (2, 0, 1)
        (split,) = found.listed
        assert split.people == [visit] and split.into == 2
        again = await rehearse(core, "others", pool, wider, wider, 0, lambda n: None)
        assert (again.merges, again.splits) == (0, 0)


async def test_what_changes_and_what_does_not(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        caller, pool = await lived(it)
        core = it.server.core
        steps: list[int] = []
        same = await rehearse(core, "others", pool, caller.plan, caller.plan, 0, steps.append)
        assert (same.merges, same.splits, same.requests) == (0, 0, 4)
        # under both rules: four, two of which came again
        assert len(steps) == 12 == 2 * await journal_size(core, pool, 0)
        wider = compile_plan(WIDER)
        found = await rehearse(core, "others", pool, caller.plan, wider, 0, steps.append)
        assert (found.people_before, found.people_after) == (3, 2)
        assert (found.merges, found.splits, found.merged_known) == (1, 0, 0)
        assert found.by == {"email": 1}
        (example,) = found.examples
        assert example.kind == "merge" and len(example.people) == 2
        assert any("email" in line for line in example.trace)
        # which value decides, masked unless somebody asks for it
        (value,) = found.values
        assert (value.type, value.value, value.merges) == ("email", "a***@x.io", 1)
        assert [(v.type, v.value) for v in example.values] == [("email", "a***@x.io")]
        assert [one.people for one in found.listed] == [example.people]
        seen = await rehearse(core, "x", pool, caller.plan, wider, 0, steps.append, reveal=True)
        assert [v.value for v in seen.values] == ["a@x.io"]
        assert "a@x.io" not in msgspec.json.encode(found).decode()
        assert "Email a@x.io" in page([seen], "new.yaml")
        html = page([found], "new.yaml")
        assert "Email a***@x.io" in html and "a@x.io" not in html
        assert (
            "One group of people would become one person" in html
            and "<script" not in html
            and "http" not in html
        )
        assert (await rehearse(core, "x", pool, wider, wider, 1 << 60, steps.append)).requests == 0


async def test_the_value_that_decides_is_the_one_that_found(
    place: Any, tmp_path: pathlib.Path
) -> None:
    """A type looked up later that finds nobody decides nothing; what joins is warned of."""
    async with running(place, tmp_path) as it:
        for phone in ("phone-a", "phone-b"):
            await ask(it, customerid=phone[-1], ios_idfv=phone)
            await ask(it, other=f"other-{phone}", ios_idfv="tablet")
        await ask(it, ios_idfv="tablet", email="new@x.io")
        core = it.server.core
        await core.journal.flush(core.store)
        caller = core.directory.find("stranger-api-key")
        assert caller is not None
        plans = (caller.plan, compile_plan(ScopeConfig(strategy="best_match")))
        pool = caller.pool("production")
        found = await rehearse(core, "x", pool, *plans, 0, lambda n: None, reveal=True)
        back = await rehearse(core, "x", pool, *plans[::-1], 0, lambda n: None, reveal=True)
        assert {v.type for v in [*found.values, *back.values]} <= {"ios_idfv", "other"}
        for one in found.listed:
            assert one.kind != "merge" or "device_only" in one.risks


def test_what_decides_a_trace() -> None:
    trace = Trace("identify", "x", steps=[Step("email", [1, 2], [1, 2]), Step("other", [], [1, 2])])
    assert decided_by(trace) == "email"
    trace.steps.append(Step("ios_idfv", [2], [2]))
    assert decided_by(trace) == "ios_idfv"
    assert decided_by(Trace("identify", "x", steps=[Step("email", [], [])])) is None


async def test_the_journal_forgets_an_erased_person(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        await with_more(it)
        caller, _ = await lived(it)
        core = it.server.core
        mpid = await ask(it, customerid="1")
        question = Question(op="erase", caller=caller, environment="production", known={}, now_ms=1)
        answers: list[Answer] = []
        erase(core.resolver, question, mpid, answers.append)
        for _ in range(200):
            async with core.store.read() as session:
                rows = await session.rows("SELECT body FROM journal")
                jobs = await session.rows("SELECT body FROM job WHERE kind = 'journal_erase'")
            if answers and not any(b"a@x.io" in bytes(r[0]) for r in rows):
                break
            await asyncio.sleep(0.05)
        assert not any(b"a@x.io" in bytes(r[0]) for r in rows)
        assert any(b"b@x.io" in bytes(r[0]) for r in rows)
        assert not any(b"a@x.io" in bytes(r[0]) for r in jobs)


def test_the_command(tmp_path: pathlib.Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    store = ["--store", f"sqlite:{tmp_path}/data"]
    text = """
organization: T
scopes: {people: {strategy: profile_conversion, login: [customerid], unique: [customerid]}}
workspaces: {shop: {scope: people, inputs: {server: {kind: server}}}}
"""
    (tmp_path / "now.yaml").write_text(text)
    (tmp_path / "then.yaml").write_text(text.replace("[customerid]", "[customerid, email]"))
    (tmp_path / "p.csv").write_text(
        "customer_id,email,ios_idfv\n1,a@x.io,\n,a@x.io,one\n,a@x.io,two\n"
    )

    def run(*words: str, code: int = 0) -> str:
        result = CliRunner().invoke(app, list(words))
        assert result.exit_code == code, result.output
        return result.stdout

    run("apply", "now.yaml", *store)
    run("import", "p.csv", "--feed", "server", *store)
    (found,) = json.loads(run("rehearse", "then.yaml", "--html", "r.html", "--json", *store))
    assert found["requests"] == 3
    assert "Rehearsal of then.yaml" in (tmp_path / "r.html").read_text()
    assert found["values"][0]["value"] == "a***@x.io"
    shown = run("rehearse", "then.yaml", "--since", "30d", *store)
    assert "a***@x.io" in shown and "a@x.io" not in shown
    assert "a@x.io" in run("rehearse", "then.yaml", "--reveal", *store)
    run("rehearse", "then.yaml", "--since", "x", *store, code=2)
