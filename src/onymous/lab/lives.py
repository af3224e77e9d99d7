"""Lives of a store whose rules and scopes change while callers ask, processes are killed at any
moment, and backups are restored.

After every turn the store is whole by the rules in force, whoever was told an MPID is somebody, who
logged in is found, and nobody answers for two customers. After a restore no MPID given since the
backup is given again.
"""

from __future__ import annotations

import asyncio
import os
import pathlib
import random
import sys

import httpx
import msgspec

from onymous.app import Core, running
from onymous.flows import tenancy
from onymous.flows.carrying import rule_changes
from onymous.flows.config_text import text_of
from onymous.flows.loading import all_records
from onymous.flows.scope_changes import finish
from onymous.flows.scope_log import changes
from onymous.flows.tenants import apply
from onymous.flows.versions import newest
from onymous.lab.audit import Violation
from onymous.lab.ground import Ground, Process
from onymous.lab.soak import Count, Going, Progress
from onymous.lab.verify import problems
from onymous.rules.identifiers import BY_NAME
from onymous.rules.records import ERASED
from onymous.rules.strategies import compile_plan
from onymous.settings import Settings

CALLERS, ANSWERS = 8, 60
#: turns between two backups or restores
TURNS = 2
#: latest moment of a kill: the command has announced its change, made it, and waits for others
LATEST_S = 11.0
#: longest a command may take, seconds
LONGEST_S = 120.0
LOGINS = (("customerid",), ("customerid", "email"), ("customerid", "email", "mobile_number"))
CUSTOMER = BY_NAME["customerid"].code
TENANTS = """
organization: Lives
scopes:
  red: {strategy: profile_conversion, login: [customerid], unique: [customerid]}
  blue: {strategy: profile_conversion, login: [customerid], unique: [customerid]}
workspaces:
  shop: {scope: red, inputs: {shop: {kind: server}}}
  club: {scope: blue, inputs: {club: {kind: server}}}
"""
DROP = [word for name in LOGINS[-1] for word in ("--resolve", f"{name}=drop")]
ACTIONS = ("rules", "rules", "rules", "unrules", "unrules", "join", "split", "unscope", "rollback")
VICTIMS = ("command", "command", "server", "both", "nobody")


class Told(msgspec.Struct):
    """What callers were told."""

    mpids: set[str] = msgspec.field(default_factory=set)
    #: (input, customer) whose login was answered
    customers: set[tuple[str, str]] = msgspec.field(default_factory=set)

    def copy(self) -> Told:
        """Return what was told so far."""
        return Told(set(self.mpids), set(self.customers))


class Life:
    """One store, what was told of it, and what happened, for the story of a violation."""

    def __init__(self, settings: Settings, keys: dict[str, str], chance: random.Random) -> None:
        self.settings, self._keys, self._chance = settings, keys, chance
        self.told = Told()
        self.answers = 0
        self.story: list[str] = []
        #: scopes were joined or split: customers may be elsewhere
        self.moved = False
        self._number = 0

    async def turn(self) -> None:
        """Let callers ask, change something meanwhile, kill somebody, and look at what is left."""
        action, victim = self._chance.choice(ACTIONS), self._chance.choice(VICTIMS)
        words = await self._words(action)
        self.story.append(f"{action} ({' '.join(words)}), {victim} killed")
        server, asked = Process(self.settings), self.answers
        await server.start()
        callers = [asyncio.create_task(self._call(server.port)) for _ in range(CALLERS)]
        try:
            while self.answers < asked + ANSWERS and not any(task.done() for task in callers):
                await asyncio.sleep(0.01)
            await self._change(words, victim, server)
        finally:
            await server.kill()
            await asyncio.gather(*callers)
        await self.check()

    async def _words(self, action: str) -> list[str]:
        """Return the command of an action; what cannot be done now is a change of rules instead."""
        self._number += 1
        async with running(self.settings) as core:
            async with core.store.read() as session:
                state, _ = await tenancy.read_state(session)
                last = await newest(session)
            moves = await changes(core.store)
            standing = [c.id for c in await rule_changes(core.store) if c.undone_ms is None]
        if action == "unrules" and standing:
            number = self._chance.choice(standing[:2])
            return ["undo", f"rules:{number}", "--reason", "back", "--keep-later"]
        if action == "join":
            return ["scopes", "join", *self._chance.sample(["red", "blue"], 2), *DROP]
        if action == "split":
            source = self._chance.choice(["red", "blue"])
            return ["scopes", "split", source, f"own{self._number}", "--workspace", "club"]
        if action == "unscope" and moves:
            return ["scopes", "undo", str(moves[0].id), *DROP]
        if action == "rollback":
            return ["rollback", str(self._chance.randrange(1, last + 1))]
        login = self._chance.choice(LOGINS)
        names = sorted(state.scopes)
        for name in names if self._chance.random() < 0.5 else names[:1]:
            scope = state.scopes[name]
            state.scopes[name] = msgspec.structs.replace(scope, login=login, unique=login)
        file = pathlib.Path(self.settings.master_key_file).with_name(f"rules{self._number}.yaml")
        file.write_text(text_of(state), "utf-8")
        return ["apply", str(file), "--reresolve"]

    async def _change(self, words: list[str], victim: str, server: Process) -> None:
        """Run a command beside the traffic; the victim dies at any moment of it."""
        environ = {k: v for k, v in os.environ.items() if not k.startswith("ONYMOUS_")}
        environ["ONYMOUS_MASTER_KEY_FILE"] = self.settings.master_key_file
        self.moved = self.moved or words[0] == "scopes"
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "onymous", *words, "--store", self.settings.store),
            env=environ,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        ended = asyncio.create_task(child.communicate())
        if victim != "nobody":
            await asyncio.wait([ended], timeout=self._chance.uniform(0.5, LATEST_S))
            if victim != "command":
                await server.kill()
            if victim != "server" and child.returncode is None:
                child.kill()
        out, _ = await asyncio.wait_for(ended, LONGEST_S)
        said = out.decode("utf-8", "replace").strip()
        self.story[-1] += f": {child.returncode}, {' '.join(said.split())[-300:]}"
        if "Traceback" in said or child.returncode not in (0, 1, -9):
            raise Violation("\n".join([*self.story, said[-4_000:]]))

    async def _call(self, port: int) -> None:
        """Ask for people until the server is gone."""
        url = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=60) as client:
            while True:
                known, input_ = self._somebody(), self._chance.choice(["shop", "club"])
                body = {"environment": "production", "known_identities": known}
                headers = {"Authorization": self._keys[input_]}
                op = self._chance.choice(["identify", "login"])
                try:
                    answer = await client.post(f"/v1/{op}", json=body, headers=headers)
                except (httpx.HTTPError, AttributeError):
                    # the driver has no error of its own for a socket that dies while it is opened
                    return
                if answer.status_code == 200:
                    self.answers += 1
                    self.told.mpids.add(answer.json()["mpid"])
                    if "customerid" in known:
                        self.told.customers.add((input_, known["customerid"]))
                elif answer.status_code != 503:
                    raise Violation(f"an answer was {answer.status_code}: {answer.text}")
                await asyncio.sleep(0.005)

    def _somebody(self) -> dict[str, str]:
        chance = self._chance
        known = {"ios_idfv": f"device-{chance.randrange(40)}"} if chance.random() < 0.7 else {}
        if chance.random() < 0.5:
            known["email"] = f"e{chance.randrange(40)}@x.io"
        if chance.random() < 0.5 or not known:
            known["customerid"] = f"c{chance.randrange(40)}"
        return known

    # -- what must hold -----------------------------------------------------------------------

    async def check(self) -> None:
        """Look at what is left, after what was begun is finished; raises `Violation`."""
        async with running(self.settings) as core:
            for one in await changes(core.store):
                if one.state != "done":
                    await finish(core.scopes, one.id, hurry=True)
            await core.directory.load()
            await core.merging.refresh()
            async with core.store.read() as session:
                state, ids = await tenancy.read_state(session)
            plans = {ids.scopes[n]: compile_plan(config) for n, config in state.scopes.items()}
            found = await problems(core, plans)
            found += await self._people(core)
        if found:
            raise Violation("\n".join([*self.story, *found]))

    async def _people(self, core: Core) -> list[str]:
        """Return who is lost or mixed."""
        async with core.store.read() as session:
            records = [r for r in await all_records(session) if not r.flags & ERASED]
        merged, out = core.resolver.merged, []
        names = {core.mpids.text(r.pid) for r in records}
        out += [f"MPID {mpid} was told and names nobody" for mpid in self.told.mpids - names]
        customers: dict[int, set[str]] = {}
        held: set[tuple[int, str]] = set()
        for record in records:
            one = record.pid
            while one in merged:
                one = merged[one]
            customers.setdefault(one, set()).update(record.keys_of(CUSTOMER))
            held |= {(record.pool, name) for name in record.keys_of(CUSTOMER)}
        out += [f"{core.mpids.text(p)} is {n}" for p, n in customers.items() if len(n) > 1]
        pools = {c.name: c.pool("production") for c in core.directory.callers()}
        if not self.moved:
            lost = [c for c in self.told.customers if (pools[c[0]], c[1]) not in held]
            out += [f"customer {name} of {input_} is lost" for input_, name in lost]
        return out


async def lives(ground: Ground, times: int, seed: int, progress: Progress, going: Going) -> Count:
    """Live `times` turns in stores of their own; raises `Violation`.

    Each store is lived in, backed up, lived on in, restored, and lived on in from there.
    """
    out = Count(what="answers given while rules and scopes changed and processes were killed")
    while out.done < times and going():
        turns = min(TURNS, max(1, (times - out.done) // 3))
        chance = random.Random(f"{seed} {out.done}")

        async def some(life: Life, turns: int = turns) -> None:
            for _ in range(turns):
                if out.done < times and going():
                    await life.turn()
                    out.done += 1
                    progress(1)

        async with ground.fresh() as settings, ground.kept(settings) as kept:
            life = Life(settings, await _tenants(settings), chance)
            await some(life)
            had, before = await _names(settings), life.told.copy()
            await kept.back_up()
            life.story.append("backed up")
            await some(life)
            since = life.told.mpids - had
            async with kept.restored() as new:
                life.settings, life.told = new, before
                life.story.append("restored")
                await life.check()
                await some(life)
                again = since & life.told.mpids
                if again:
                    raise Violation("\n".join([*life.story, f"given a second time: {again}"]))
            out.checked += life.answers
    return out


async def _names(settings: Settings) -> set[str]:
    """Return the MPID of every record."""
    async with running(settings) as core, core.store.read() as session:
        return {core.mpids.text(record.pid) for record in await all_records(session)}


async def _tenants(settings: Settings) -> dict[str, str]:
    async with running(settings) as core:
        out = await apply(core.store, core.key, TENANTS, actor="soak", now_ms=1)
    return {c.input: httpx.BasicAuth(c.api_key, c.secret)._auth_header for c in out.credentials}
