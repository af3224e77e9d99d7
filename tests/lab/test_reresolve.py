"""New rules applied to history: what was predicted happens, and undone it never was."""

from __future__ import annotations

import asyncio
import contextlib
import json
import pathlib
import random
import sys
from typing import Any

import msgspec
import pytest
from tests.web.serving import TENANTS, Running, running
from typer.testing import CliRunner

from onymous.cli import app
from onymous.commands.reresolving import carry_over, undo_rules
from onymous.flows.carrying import preview_back, rule_changes, take_back
from onymous.flows.configure import parse
from onymous.flows.merging import Actor
from onymous.lab.reresolve import Past
from onymous.rules.errors import CannotUndo, DependsOn
from onymous.rules.records import ERASED, KNOWN, MERGED
from onymous.rules.strategies import compile_plan
from onymous.store import scratch_sql
from onymous.store.packing import unpack_record
from onymous.store.scratch import Scratch
from onymous.store.sql import PROFILES_AFTER

OTHERS = "others: {strategy: profile_conversion, login: [customerid], unique: [customerid]}"
RULES = {
    "bare": OTHERS,
    "wider": OTHERS.replace("[customerid]", "[customerid, email]"),
    "link": "others: {strategy: profile_link, login: [customerid, email],"
    " unique: [customerid, email]}",
    "folding": OTHERS.replace("]}", "], email_lower: true}"),
    "best": "others: {strategy: best_match}",
}


def document(rules: str) -> str:
    return TENANTS.replace(OTHERS, RULES[rules])


def actor(**more: Any) -> Actor:
    return Actor(name="Helen", reason="e-mail is personal here", now_ms=5, **more)


async def people(it: Running, pool: int) -> dict[int, tuple[Any, ...]]:
    """Every record as it is: values with their origins, and what counts of its flags."""
    async with it.server.core.store.read() as session:
        rows = await session.rows(PROFILES_AFTER, 0, 10_000)
    out = {}
    for r in map(unpack_record, rows):
        if r.pool == pool and not r.flags & ERASED:
            values = sorted(msgspec.structs.astuple(v) for v in r.values)
            out[r.pid] = (tuple(values), r.flags & (KNOWN | MERGED), r.seen_ms)
    return out


def names(found: dict[int, tuple[Any, ...]]) -> list[list[tuple[int, str]]]:
    """Who is who: the values of each person, without those who have none."""
    return sorted(sorted((v[0], v[1]) for v in values) for values, *_ in found.values() if values)


async def lookups(it: Running) -> list[tuple[Any, ...]]:
    async with it.server.core.store.read() as session:
        rows = await session.rows("SELECT slot, value, holder, pid FROM identity")
    return sorted(row for row in rows if row[2] != -1)


async def start(it: Running, rules: str) -> tuple[Any, int]:
    core = it.server.core
    if rules != "bare":
        await carry_over(core, document(rules), actor(), 0.0, quiet=True)
        await core.directory.load()
    caller = core.directory.find("stranger-api-key")
    assert caller is not None
    return caller, caller.pool("production")


async def live(it: Running, seed: int, count: int) -> None:
    """People with a few devices, addresses shared and not, in any order."""
    rng = random.Random(seed)
    once: set[object] = set()  # the journal replays each distinct request once
    for n in range(count):
        known: dict[str, str] = {}
        if rng.random() < 0.5:
            known["customerid"] = str(rng.randrange(12))
        if rng.random() < 0.6:
            known["email"] = rng.choice(["A", "a", "b", "c", "d", "e"]) + "@x.io"
        if rng.random() < 0.7 or not known:
            known["ios_idfv"] = f"device{rng.randrange(8)}"
        op = rng.choice(["identify", "identify", "login", "logout"])
        asked = (op, *sorted(known.items()))
        if asked in once:
            continue
        once.add(asked)
        await it.ask(op, known, who="stranger", request_id=f"{seed}-{n}")


async def agrees(it: Running, pool: int, rules: str) -> None:
    """The store says of everybody what it says of their lookups."""
    found = await people(it, pool)
    plan = compile_plan(parse(document(rules))[0].scopes["others"])
    want = sorted(
        (pool * 64 + v[0], v[1], 0 if plan.unique >> v[0] & 1 else pid, pid)
        for pid, (values, *_) in found.items()
        for v in values
    )
    assert [row for row in await lookups(it) if row[0] // 64 == pool] == want


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("bare", "wider"),
        ("wider", "bare"),
        ("bare", "folding"),
        ("wider", "link"),
        ("bare", "best"),
    ],
)
async def test_what_was_predicted_happens_and_can_be_undone(
    place: Any, tmp_path: pathlib.Path, old: str, new: str
) -> None:
    async with running(place, tmp_path) as it:
        core = it.server.core
        _, pool = await start(it, old)
        await live(it, 7, 80)
        before, rows = await people(it, pool), await lookups(it)
        plan = compile_plan(parse(document(new))[0].scopes["others"])
        with contextlib.closing(Scratch()) as scratch:
            past = Past(core, pool, plan, scratch)
            await past.replay(lambda n: None)
            nodes = [row[0] for row in scratch.rows(scratch_sql.NODES)]
            _, target = past.known_of(nodes)
        predicted = sorted(sorted(values) for values in target.people.values())
        applied, (carried,) = await carry_over(core, document(new), actor(), 0.0, quiet=True)
        assert applied.changed and carried.change and not carried.left
        after = await people(it, pool)
        assert names(after) == predicted
        assert names(after) != names(before) or (old, new) == ("wider", "link")
        await agrees(it, pool, new)
        await core.directory.load()
        seen = await preview_back(core.store, carried.change)
        assert (seen.records, seen.merged) == (carried.records, carried.merged)
        assert await people(it, pool) == after
        await undo_rules(core, carried.change, actor(), 0.0, keep_later=False)
        undone = await people(it, pool)
        assert {p: v for p, v in undone.items() if v[0] or p in before} == before
        assert await lookups(it) == rows
        with pytest.raises(CannotUndo):
            await take_back(core.store, core.key, carried.change, actor())
        await core.directory.load()
        await live(it, 8, 30)


async def test_a_merge_keeps_old_mpids_and_guards_the_device(
    place: Any, tmp_path: pathlib.Path
) -> None:
    async with running(place, tmp_path) as it:
        core = it.server.core
        await start(it, "bare")

        async def ask(**known: str) -> str:
            reply = await it.ask("identify", known, who="stranger")
            return str(reply.json()["mpid"])

        anna = await ask(customerid="1", email="a@x.io")
        phone = await ask(email="a@x.io", ios_idfv="phone")
        assert anna != phone
        _, (carried,) = await carry_over(core, document("wider"), actor(), 0.0, quiet=True)
        assert (carried.merged, carried.created) == (1, 0)
        await core.directory.load()
        assert await ask(email="a@x.io") == anna
        assert await ask(email="a@x.io", ios_idfv="phone") == anna
        assert await ask(ios_idfv="phone") not in (anna, phone)
        told = await it.client.get(f"/v1/{phone}/history", headers=it.basic("stranger"))
        kinds = [c["change"] for e in told.json()["entries"] for c in e["changes"]]
        assert "merged" in kinds and "orphaned" in kinds
        await it.ask("identify", {"customerid": "1", "other": "later"}, who="stranger")
        await undo_rules(core, carried.change, actor(), 0.0, keep_later=False)
        await core.directory.load()
        assert await ask(email="a@x.io", ios_idfv="phone") == phone
        assert await ask(other="later", customerid="1") == anna
        (change,) = await rule_changes(core.store)
        assert change.undone_ms and change.actor == "Helen"


async def test_later_changes_are_named_or_kept(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        core = it.server.core
        await start(it, "bare")

        async def ask(**known: str) -> str:
            reply = await it.ask("identify", known, who="stranger")
            return str(reply.json()["mpid"])

        anna = await ask(customerid="1", email="a@x.io")
        await ask(email="a@x.io", ios_idfv="phone")
        _, (carried,) = await carry_over(core, document("wider"), actor(), 0.0, quiet=True)
        await core.directory.load()
        ben = await ask(customerid="2")
        move = {"identity_type": "ios_idfv", "old_value": "phone", "new_value": None}
        assert (await it.modify(anna, [move], who="stranger")).status_code == 200
        with pytest.raises(DependsOn):
            await take_back(core.store, core.key, carried.change, actor())
        with pytest.raises(DependsOn):
            await preview_back(core.store, carried.change)
        seen = await preview_back(core.store, carried.change, keep_later=True)
        done = await undo_rules(core, carried.change, actor(), 0.0, keep_later=True)
        assert seen == done and done.left == 1
        await core.directory.load()
        assert await ask(email="a@x.io", customerid="1") == anna
        assert await ask(customerid="2") == ben


async def test_others_write_while_rules_change(place: Any, tmp_path: pathlib.Path) -> None:
    """Nothing is lost or doubled; a unique value has one holder at every moment after."""
    async with running(place, tmp_path) as it:
        core = it.server.core
        _, pool = await start(it, "bare")
        await live(it, 3, 40)
        stop = False

        async def traffic(seed: int) -> int:
            rng, done = random.Random(seed), 0
            while not stop:
                known = {"email": f"{rng.randrange(40)}@x.io", "ios_idfv": f"d{rng.randrange(60)}"}
                if rng.random() < 0.4:
                    known["customerid"] = str(rng.randrange(40))
                reply = await it.ask("identify", known, who="stranger")
                assert reply.status_code in (200, 503), reply.text
                done += reply.status_code == 200
            return done

        async def meanwhile(work: Any) -> Any:
            nonlocal stop
            stop = False
            tasks = [asyncio.create_task(traffic(n)) for n in range(4)]
            await asyncio.sleep(0.3)
            done = await work
            await asyncio.sleep(0.5)
            stop = True
            assert all(await asyncio.gather(*tasks))
            return done

        change = carry_over(core, document("wider"), actor(), 4.0, quiet=True)
        _, (carried,) = await meanwhile(change)
        await agrees(it, pool, "wider")
        await meanwhile(undo_rules(core, carried.change, actor(), 4.0, keep_later=True))
        await agrees(it, pool, "bare")


def test_the_commands(tmp_path: pathlib.Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("onymous.commands.tenants.GRACE_S", 0.0)
    monkeypatch.setattr("onymous.commands.undoing.GRACE_S", 0.0)
    store = ["--store", f"sqlite:{tmp_path}/data"]
    text = """
organization: T
scopes: {people: {strategy: profile_conversion, login: [customerid], unique: [customerid]}}
workspaces: {shop: {scope: people, inputs: {server: {kind: server}}}}
"""
    (tmp_path / "now.yaml").write_text(text)
    (tmp_path / "then.yaml").write_text(text.replace("[customerid]", "[customerid, email]"))
    (tmp_path / "p.csv").write_text("customer_id,email,ios_idfv\n1,a@x.io,\n,a@x.io,one\n")

    def run(*words: str, code: int = 0) -> str:
        result = CliRunner().invoke(app, list(words))
        assert result.exit_code == code, result.output
        return result.stdout

    run("apply", "now.yaml", *store)
    run("import", "p.csv", "--feed", "server", *store)
    assert "--reresolve" in CliRunner().invoke(app, ["apply", "then.yaml", *store]).output
    seen = " ".join(run("apply", "then.yaml", "--reresolve", "--dry-run", *store).split())
    assert "dry run" in seen and "2 records would change, 1 become one with another" in seen
    done = run("apply", "then.yaml", "--reresolve", "--reason", "e-mail is personal", *store)
    assert "1 became one" in done and "undo rules:1" in done
    assert "nothing to change" in run("apply", "then.yaml", "--reresolve", *store)
    for what, why in (
        ("config:2", "undo rules:1 instead"),
        ("config:1", "version 2 stands on it"),
        ("config:9", "no version 9"),
    ):
        refused = CliRunner().invoke(app, ["undo", what, "--reason", "no", *store])
        assert refused.exit_code == 1 and why in " ".join(refused.output.split())
    seen = run("undo", "rules:1", "--reason", "no", "--dry-run", *store)
    assert "2 records go back" in seen and "nothing was changed" in seen
    assert "undone" in run("undo", "rules:1", "--reason", "no", *store)
    run("undo", "rules:1", "--reason", "no", *store, code=1)
    run("undo", "rules:9", "--reason", "no", *store, code=1)
    run("undo", "rules:x", "--reason", "no", *store, code=2)
    run("undo", "config:x", "--reason", "no", *store, code=2)
    run("rehearse", "then.yaml", "--scope", "nope", *store, code=2)
    (tmp_path / "hot.yaml").write_text(text.replace("{strategy", "{hot_after: 7, strategy"))
    run("apply", "hot.yaml", *store)
    run("undo", "config:3", "--reason", "no", *store, code=1)
    assert "hot_after: 7 -> 100" in run("undo", "config:4", "--reason", "no", *store)
    (found,) = json.loads(run("rehearse", "then.yaml", "--json", *store))
    assert found["merges"] == 1


SCRIPT = """
import asyncio, sys
from onymous.app import running
from onymous.commands.reresolving import carry_over
from onymous.flows.merging import Actor
from onymous.settings import load

async def main():
    settings = load({"store": sys.argv[1], "master_key_file": sys.argv[2]}, environ={})
    async with running(settings) as core:
        actor = Actor(name="Helen", reason="try", now_ms=5)
        print("planning", flush=True)
        await carry_over(core, sys.stdin.read(), actor, 0.0, quiet=True)
        print("done", flush=True)

asyncio.run(main())
"""


async def test_a_killed_change_is_done_or_not_begun(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        core = it.server.core
        _, pool = await start(it, "bare")
        await live(it, 5, 60)
        await core.journal.flush(core.store)
        before = await people(it, pool)
        url = place.url if place.engine == "postgresql" else f"sqlite:{place.url}"
        words = (sys.executable, "-c", SCRIPT, url, str(tmp_path / "master.key"))
        for wait_s in (0.3, 0.6, 0.9, 60.0):
            pipes = {"stdin": asyncio.subprocess.PIPE, "stdout": asyncio.subprocess.PIPE}
            child = await asyncio.create_subprocess_exec(*words, **pipes)
            assert child.stdin is not None and child.stdout is not None
            child.stdin.write(document("wider").encode())
            child.stdin.write_eof()
            assert await child.stdout.readline() == b"planning\n"
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(child.wait(), wait_s)
            if child.returncode is None:
                child.kill()
            await child.wait()
            changes = [c for c in await rule_changes(core.store) if c.undone_ms is None]
            await agrees(it, pool, "wider" if changes else "bare")
            for change in changes:
                await undo_rules(core, change.id, actor(), 0.0, keep_later=False)
            undone = await people(it, pool)
            assert {p: v for p, v in undone.items() if v[0] or p in before} == before
        assert changes
