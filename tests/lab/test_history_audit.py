"""Random histories of batches, aliases, merges and undoings, compared with a naive model."""

from __future__ import annotations

import asyncio
import json
import pathlib
import random
from typing import Any

import msgspec
import pytest
from tests.flows.test_merging import with_more
from tests.web.serving import Running, running

from onymous.flows import profiles as profiles_flow
from onymous.flows.aliases import AliasRequest, request_alias
from onymous.flows.answers import Answer, Question
from onymous.flows.events import Incoming, Taken
from onymous.flows.merging import Actor
from onymous.flows.profiles import read_profile, sides
from onymous.flows.tenants import Caller
from onymous.lab.history_auditor import Model, Pointer, Sent
from onymous.rules.errors import Refusal
from onymous.rules.profiles import Person, combine

START = 1_700_000_000_000
PEOPLE = [f"c{n}" for n in range(5)]
VISITORS = [f"d{n}" for n in range(5)]


class World:
    """The product and the model side by side."""

    def __init__(self, it: Running, rng: random.Random) -> None:
        self.it, self.rng, self.model = it, rng, Model(known=set(PEOPLE))
        self.core = it.server.core
        caller = self.core.directory.find("linked-api-key")
        assert caller is not None
        self.caller: Caller = caller
        self.pool = caller.pool("production")
        self.mpids: dict[str, str] = {}
        self.told: list[str] = []
        self.clock = 0

    def question(self, op: str) -> Question:
        self.clock += 1
        return Question(
            op=op,
            caller=self.caller,
            environment="production",
            known={},
            now_ms=START + 10**9 + self.clock,
        )

    async def meet(self) -> None:
        for who in (*PEOPLE, *VISITORS):
            known = {"customerid": who} if who in PEOPLE else {"device_application_stamp": who * 9}
            reply = await self.it.ask("identify", known, who="linked")
            self.mpids[who] = reply.json()["mpid"]

    def actor(self) -> Actor:
        self.clock += 1
        return Actor(name="test", reason="test", now_ms=START + 10**9 + self.clock)

    async def send(self, batch: Sent) -> None:
        events: list[dict[str, Any]] = []
        at = {"timestamp_unixtime_ms": batch.at}
        if batch.worth:
            action = {"action": "purchase", "total_amount": batch.worth}
            events.append(
                {"event_type": "commerce_event", "data": {**at, "product_action": action}}
            )
        events += [{"event_type": "session_start", "data": at}] * batch.sessions
        if batch.session:
            named = {"session_uuid": batch.session, **at}
            events.append({"event_type": "session_start", "data": named})
        if batch.says is not None:
            name, value = batch.says
            change = {"user_attribute_name": name, "new": value, "deleted": value is None, **at}
            events.append({"event_type": "user_attribute_change", "data": change})
        raw: dict[str, Any] = {
            "mpid": self.mpids[batch.who],
            "source_request_id": batch.name,
            "events": events or [{"event_type": "custom_event", "data": at}],
        }
        if batch.consents is not None:
            purpose, yes = batch.consents
            raw["consent_state"] = {"gdpr": {purpose: {"consented": yes, **at}}}
        if batch.device:
            raw["mp_deviceid"] = batch.device
        future: asyncio.Future[Taken] = asyncio.get_running_loop().create_future()
        item = Incoming(
            caller=self.caller, raw=raw, body=json.dumps(raw).encode(), now_ms=START + 10**9
        )
        self.core.events.take(item, future.set_result)
        taken = await future
        assert taken.refusal is None and taken.quarantined is None

    def batch(self) -> Sent:
        rng = self.rng
        known = sorted(self.model.names)
        name = rng.choice(known) if known and rng.random() < 0.15 else f"b{rng.random()}"
        return Sent(
            rng.choice(PEOPLE + VISITORS),
            name,
            START + rng.randrange(10_000) * 1000 + len(self.model.sent) % 997,
            rng.choice([0, 0, 1, 5, 20]),
            rng.choice([0, 0, 1]),
            (rng.choice("xyz"), f"v{rng.random()}" if rng.random() < 0.8 else None)
            if rng.random() < 0.4
            else None,
            (rng.choice("mn"), rng.random() < 0.5) if rng.random() < 0.3 else None,
            f"device-{rng.randrange(6)}" if rng.random() < 0.4 else "",
            f"s{rng.randrange(12)}" if rng.random() < 0.5 else "",
        )

    async def step(self) -> None:
        kind = self.rng.random()
        if kind < 0.45:
            await self.some_batches()
        elif kind < 0.62:
            await self.alias()
        elif kind < 0.70:
            await self.unalias()
        elif kind < 0.84:
            await self.merge()
        elif kind < 0.94:
            await self.unmerge()
        await self.check(self.rng.choice(PEOPLE + VISITORS))

    async def some_batches(self) -> None:
        """Send batches at the same time; a repeat of a name must say the same."""
        batches: dict[str, Sent] = {}
        for _ in range(self.rng.randrange(1, 12)):
            batch = self.batch()
            old = next((s for s in self.model.sent if s.name == batch.name), None)
            batches.setdefault(batch.name, old or batch)
        self.told.append(f"send {[(b.who, b.name, b.at, b.worth) for b in batches.values()]}")
        # every second one twice, at the same time
        twice = [b for n, b in enumerate(batches.values()) if n % 2]
        await asyncio.gather(*map(self.send, [*batches.values(), *twice]))
        for batch in batches.values():
            self.model.send(batch)

    async def alias(self) -> None:
        rng = self.rng
        one = rng.choice(VISITORS if rng.random() < 0.85 else PEOPLE)
        two = rng.choice([p for p in PEOPLE if p != one])
        start = START + rng.randrange(10_000) * 1000
        end = start + rng.randrange(5_000) * 1000
        new = Pointer(0, one, two, start, end)
        wanted = AliasRequest(
            source_mpid=self.mpids[one],
            destination_mpid=self.mpids[two],
            start_unixtime_ms=start,
            end_unixtime_ms=end,
            scope="mpid",
        )
        answer: Answer = await request_alias(
            self.core.resolver, self.core.store, self.question("alias"), wanted
        )
        expected = "applied" if self.model.may_alias(new) else "rejected"
        self.told.append(f"alias {one} -> {two} [{start}, {end}]: {answer.outcome}")
        assert answer.outcome == expected, self.story()
        if expected == "applied":
            async with self.core.store.read() as session:
                new.number = (await session.rows("SELECT max(id) FROM alias"))[0][0]
            self.model.aliases.append(new)

    async def unalias(self) -> None:
        if not self.model.aliases:
            return
        alias = self.rng.choice(self.model.aliases)
        self.told.append(f"undo alias {alias.number}")
        try:
            await self.core.merging.undo_alias(self.pool, alias.number, self.actor())
        except Refusal:
            assert alias.undone, self.story()
        else:
            assert not alias.undone, self.story()
            alias.undone = True

    async def merge(self) -> None:
        one, two = self.rng.choice(PEOPLE + VISITORS[:2]), self.rng.choice(PEOPLE)
        new = Pointer(0, one, two)
        may = self.model.may_merge(new)
        self.told.append(f"merge {one} -> {two}")
        try:
            done = await self.core.merging.merge(
                self.caller.plan, self.pool, self.mpids[one], self.mpids[two], self.actor()
            )
        except Refusal:
            assert not may, self.story()
        else:
            assert may, self.story()
            new.number = done.id
            self.model.merges.append(new)

    async def unmerge(self) -> None:
        if not self.model.merges:
            return
        merge = self.rng.choice(self.model.merges)
        may = self.model.may_unmerge(merge)
        self.told.append(f"undo merge {merge.number}")
        try:
            await self.core.merging.undo_merge(self.pool, merge.number, self.actor())
        except Refusal:
            assert not may, self.story()
        else:
            assert may, self.story()
            merge.undone = True

    async def check(self, who: str) -> None:
        model = self.model
        pid = self.core.mpids.parse(self.mpids[who])
        assert pid is not None
        async with self.core.store.read() as session:
            view = await read_profile(session, self.core.mpids, self.pool, pid)
            assert view is not None
            owned = await sides(session, view.pid)
        lead = model.stands_for(who)
        assert view.mpid == self.mpids[lead], self.story()
        seen = {
            "worth": sum(c.worth for c in view.counts) // 1_000_000,
            "sessions": view.sessions,
            "attributes": {
                n: a.value for p in view.workspaces.values() for n, a in p.attributes.items()
            },
            "sides": len([s for s in owned if s.whole]),
            "first": view.first_seen_ms,
            "consent": {
                n.removeprefix("gdpr/"): c.consented
                for p in view.workspaces.values()
                for n, c in p.consent.items()
            },
            "devices": {
                d.stamp: (d.first_ms, d.last_ms)
                for p in view.workspaces.values()
                for d in p.devices
            },
        }
        expected = {
            "worth": model.worth(lead),
            "sessions": model.sessions(lead),
            "attributes": model.attributes(lead),
            "sides": len(set(model.group(lead))),
            "first": model.first_seen(lead),
            "consent": model.consent(lead),
            "devices": model.devices(lead),
        }
        assert seen == expected, f"{who}: {self.story()}"

    def story(self) -> str:
        return "\n".join(self.told[-40:])


async def live(place: Any, folder: pathlib.Path, seed: int, steps: int) -> None:
    async with running(place, folder) as it:
        await with_more(it)
        world = World(it, random.Random(seed))
        await world.meet()
        for _ in range(steps):
            await world.step()
        for who in (*PEOPLE, *VISITORS):
            await world.check(who)


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_history_agrees_with_a_naive_model(
    place: Any, tmp_path: pathlib.Path, seed: int
) -> None:
    await live(place, tmp_path, seed, 150)


def _without(field: str) -> Any:
    """Return a rule for two profiles that forgets one part of the second."""

    def broken(one: Person, two: Person) -> Person:
        return msgspec.structs.replace(combine(one, two), **{field: getattr(one, field)})

    return broken


@pytest.mark.parametrize("broken", ["add_counts", "combine", "gone", "consent", "devices"])
async def test_a_broken_rule_is_found(
    place: Any, tmp_path: pathlib.Path, monkeypatch: Any, broken: str
) -> None:
    if broken == "add_counts":
        monkeypatch.setattr(
            profiles_flow,
            "add_counts",
            lambda counts, more: counts.append(more) if not counts else None,
        )
    elif broken == "combine":
        monkeypatch.setattr(profiles_flow, "combine", lambda one, two: one)
    elif broken == "gone":
        monkeypatch.setattr("onymous.rules.profiles._latest_of", lambda one, two: {})
    else:
        monkeypatch.setattr(profiles_flow, "combine", _without(broken))
    with pytest.raises(AssertionError):
        await live(place, tmp_path, 1, 150)
