"""Whose a batch is, in every strategy: by MPID, by identities, by device; never the wrong one's."""

from __future__ import annotations

import asyncio
import json
import pathlib
import random
from typing import Any

from tests.flows.test_events_flow import purchase, send, view
from tests.web.serving import Running, running

from onymous.flows.tenants import apply

STRATEGIES = ("default", "profile_conversion", "profile_link", "profile_isolation", "best_match")
PRIORITY = "priority: [customerid, email, other, ios_idfv, device_application_stamp]"
LOGIN = "login: [customerid, email], unique: [customerid, email]"
#: a new login id makes a new record, the anonymous one stays as it is
APART = ("profile_link", "profile_isolation")


def tenants() -> str:
    """Return a scope and a workspace for each strategy."""
    lines = ["organization: Test", "scopes:"]
    for name in STRATEGIES:
        rules = {"default": "", "best_match": f", {PRIORITY}"}.get(name, f", {LOGIN}, {PRIORITY}")
        lines.append(f"  {name}: {{strategy: {name}{rules}}}")
    lines.append("workspaces:")
    for name in STRATEGIES:
        inputs = (
            f"{name}: {{kind: server, api_key: {name}-api-key}}, "
            f"{name}-app: {{kind: ios, api_key: {name}-app-api-key}}"
        )
        lines.append(f"  {name}: {{scope: {name}, inputs: {{{inputs}}}}}")
    return "\n".join(lines) + "\n"


class Story:
    """One strategy's workspace of a running server."""

    def __init__(self, it: Running, strategy: str) -> None:
        self.it, self.strategy = it, strategy

    async def met(self, **known: str) -> str:
        """Identify somebody."""
        reply = await self.it.ask("identify", known, who=self.strategy)
        assert reply.status_code == 200, reply.text
        return str(reply.json()["mpid"])

    async def found(self, **known: str) -> str | None:
        """Search for somebody."""
        reply = await self.it.ask("search", known, who=self.strategy)
        return str(reply.json()["mpid"]) if reply.status_code == 200 else None

    async def sent(self, app: bool = False, **batch: Any) -> None:
        """Send a batch with a purchase of 1, by the server or by the app."""
        who = f"{self.strategy}-app" if app else self.strategy
        path = f"/v2/{who}-api-key/events" if app else "/v2/events"
        assert await send(self.it, {"events": [purchase(1)], **batch}, path, who) == 202

    async def worth(self, mpid: str) -> float:
        """Return what arrived for somebody."""
        return (await view(self.it, mpid)).lifetime_value

    async def names(self, mpid: str) -> dict[str, set[str]]:
        """Return everything somebody is known by."""
        profile = await view(self.it, mpid)
        out: dict[str, set[str]] = {}
        for named in (*profile.user_identities, *profile.device_identities):
            out.setdefault(named.type, set()).add(named.value)
        return out

    async def knows(self, mpid: str) -> set[str]:
        """Return attributes, consent and devices of somebody."""
        out = set()
        for person in (await view(self.it, mpid)).workspaces.values():
            out |= {*person.attributes, *person.consent, *(d.stamp for d in person.devices)}
        return out


async def started(it: Running) -> list[Story]:
    core = it.server.core
    out = await apply(core.store, core.key, tenants(), actor="test", now_ms=2)
    await core.directory.load()
    it.secrets |= {c.input: c.secret for c in out.credentials}
    return [Story(it, name) for name in STRATEGIES]


SAYS = {
    "user_attributes": {"visitor": "yes"},
    "consent_state": {"gdpr": {"ads": {"consented": True}}},
}


async def test_a_stated_mpid_is_whose_it_is(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        for story in await started(it):
            ben = await story.met(customerid="ben", device_application_stamp="ben-phone")
            nobody = await story.met(device_application_stamp="tablet")
            # what else it says moves nobody, and gives an anonymous record no login identity
            login = {"customerid": "ben", "email": "new@x.io", "other": "o1"}
            await story.sent(mpid=nobody, user_identities=login, **SAYS)
            await story.sent(app=True, mpid=nobody, user_identities={**login, "other": "o2"})
            await story.sent(mpid=int(nobody), mp_deviceid="tablet")
            assert await story.worth(nobody) == 3 and await story.worth(ben) == 0
            names = await story.names(nobody)
            # in best match no type is a login, in default e-mail is none
            free = {"best_match": {"customerid", "email"}, "default": {"email"}}
            gained = names.keys() & {"customerid", "email"}
            assert gained == free.get(story.strategy, set()), story.strategy
            # a server may add other types, an app may not
            assert names["other"] == {"o1"}
            assert await story.knows(ben) == set()
            assert await story.knows(nobody) == {"visitor", "gdpr/ads", "tablet"}


async def test_without_one_identities_decide_as_in_identify(
    place: Any, tmp_path: pathlib.Path
) -> None:
    async with running(place, tmp_path) as it:
        for story in await started(it):
            nobody = await story.met(device_application_stamp="tablet")
            await story.sent(mpid=nobody, **SAYS)
            device = {"mp_deviceid": "tablet"}
            await story.sent(user_identities={"customerid": 42}, **device)
            anna = await story.found(customerid="42")
            assert anna is not None
            assert (anna == nobody) is (story.strategy not in APART), story.strategy
            if story.strategy in APART:
                assert await story.worth(anna) == 1 and await story.worth(nobody) == 1
                # nothing anonymous reached the known profile
                assert await story.knows(anna) == {"tablet"}
            else:
                assert await story.worth(anna) == 2
            # a device alone never reaches a known profile of a strategy with logins
            before = await story.worth(anna)
            await story.sent(mp_deviceid="tablet", events=[purchase(7)])
            gained = await story.worth(anna) - before
            assert gained == (7 if story.strategy == "best_match" else 0), story.strategy


async def test_two_people_in_one_batch_stay_two(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        for story in await started(it):
            anna = await story.met(customerid="anna")
            ben = await story.met(email="ben@x.io")
            assert anna != ben
            await story.sent(user_identities={"customer_id": "anna", "email": "ben@x.io"})
            assert (await story.worth(anna), await story.worth(ben)) == (1, 0)
            assert await story.found(customerid="anna") == anna
            if story.strategy not in ("default", "best_match"):
                assert await story.found(email="ben@x.io") == ben
                assert "email" not in await story.names(anna)


async def test_an_mpid_that_is_none_here_is_left_out(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        stories = await started(it)
        elsewhere = await stories[0].met(customerid="else")
        for story in stories[1:]:
            anna = await story.met(customerid="anna")
            reply = await it.ask(
                "identify", {"customerid": "dev"}, who=story.strategy, environment="development"
            )
            developer = reply.json()["mpid"]
            ids = {"user_identities": {"customerid": "anna"}}
            wrong = [elsewhere, developer, "12345", "abc", "", 0, "0", 1.5, True, [], "9" * 30]
            for mpid in wrong:
                await story.sent(mpid=mpid, **ids)
            assert await story.worth(anna) == len(wrong)
            # with nobody to fall back on it is set aside, and makes nobody
            before = await it.counts()
            await story.sent(mpid=elsewhere, **SAYS)
            after = await it.counts()
            assert after["profile"] == before["profile"]
            assert after["spool"] == before["spool"] + 1
        assert await stories[0].worth(elsewhere) == 0


JUNK = [
    {},
    {"customerid": ""},
    {"customerid": None, "email": "  "},
    {"customerid": "null", "email": "undefined"},
    {"customerid": {"x": 1}},
    {"customerid": "x" * 300},
    {"nobody_knows": "x"},
]
ZERO = "00000000-0000-0000-0000-000000000000"


async def test_what_is_nobodys_makes_nobody(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        story = (await started(it))[1]
        before = await it.counts()
        for known in JUNK:
            await story.sent(user_identities=known)
        for device in (
            {"device_info": {"ios_advertising_id": ZERO, "android_advertising_id": ZERO}},
            {"mp_deviceid": ZERO},
            {"mp_deviceid": "00000000-0000-4000-8000-0000000027bb"},
        ):
            await story.sent(**device)
        after = await it.counts()
        assert after["profile"] == before["profile"]
        assert after["spool"] - before["spool"] == len(JUNK) + 3


async def test_no_batch_brings_an_erased_person_back(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        core = it.server.core
        for story in await started(it):
            anna = await story.met(customerid="anna", device_application_stamp="phone")
            await story.sent(mpid=anna, **SAYS)
            # set aside under her name: it goes with her
            assert (
                await send(
                    it,
                    [{"user_identities": {"customerid": "anna"}, "events": "?"}],
                    "/v2/bulkevents",
                    story.strategy,
                )
                == 202
            )
            await it.erase(anna, who=story.strategy)
            for _ in range(200):
                if not await core.spool.quarantined():
                    break
                await asyncio.sleep(0.05)
            assert await core.spool.quarantined() == []
            # with nothing else it is dropped: nothing is kept of who was erased
            await story.sent(mpid=anna, source_request_id="after", **SAYS)
            await story.sent(mpid=anna, mp_deviceid=ZERO)
            assert await core.spool.quarantined() == []
            assert await story.found(customerid="anna") is None
            async with core.store.read() as session:
                pid = core.mpids.parse(anna)
                for table in ("batch", "person", "tally"):
                    rows = await session.rows(f"SELECT count(*) FROM {table} WHERE pid = ?", pid)
                    assert rows[0][0] == 0
            # with identities it is somebody new
            await story.sent(mpid=anna, user_identities={"customerid": "anna"})
            again = await story.found(customerid="anna")
            assert again not in (None, anna) and await story.worth(str(again)) == 1


async def test_repeats_to_two_servers_at_once_count_once(
    place: Any, tmp_path: pathlib.Path
) -> None:
    async with running(place, tmp_path) as one, running(place, tmp_path) as two:
        two.secrets |= one.secrets
        servers, rng = [one, two], random.Random(7)
        mpids = [
            str((await one.ask("identify", {"customerid": f"c{n}"})).json()["mpid"])
            for n in range(4)
        ]

        def batch(n: int) -> dict[str, Any]:
            whose = (
                {"mpid": mpids[n % 4]}
                if n % 3
                else {"user_identities": {"customerid": f"c{n % 4}"}}
            )
            start = {"event_type": "session_start", "data": {"session_uuid": f"s{n // 8}-{n % 4}"}}
            return {**whose, "source_request_id": f"r{n}", "events": [purchase("0.1"), start]}

        async def one_by_one(n: int) -> None:
            for _ in range(2):
                await asyncio.gather(*(send(s, batch(n)) for s in servers))

        async def together(n: int) -> None:
            batches = [batch(k) for k in range(n, n + 20)]
            rng.shuffle(batches)
            where = rng.choice(servers)
            assert await send(where, batches, "/v2/bulkevents") == 202

        await asyncio.gather(
            *(one_by_one(n) for n in range(0, 80, 5)), *(together(n) for n in range(0, 80, 10))
        )
        for n in range(4):
            for server in servers:
                profile = await view(server, mpids[n])
                (person,) = profile.workspaces.values()
                count = len([k for k in range(90) if k % 4 == n])
                assert (person.batches, person.events) == (count, 2 * count)
                assert round(profile.lifetime_value * 10) == count
                sessions = {f"s{k // 8}" for k in range(90) if k % 4 == n}
                assert profile.sessions == len(sessions)
        # what one server has answered, the other one shows
        for n in range(20):
            known = {"user_identities": {"customerid": f"new{n}"}, "user_attributes": {"n": n}}
            assert await send(servers[n % 2], known) == 202
            mpid = (await servers[n % 2].ask("search", {"customerid": f"new{n}"})).json()["mpid"]
            (person,) = (await view(servers[1 - n % 2], mpid)).workspaces.values()
            assert person.attributes["n"].value == json.dumps(n)
