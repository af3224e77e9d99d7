"""Long checks: the audit, first-sight races and crashes, for as long as one likes."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterator

import httpx
import msgspec

from onymous.app import running
from onymous.flows.tenants import apply
from onymous.lab.audit import Violation, history, shrunk
from onymous.lab.audit_restore import restored_histories
from onymous.lab.concurrent import concurrent
from onymous.lab.ground import Ground, Process, cores, processes
from onymous.lab.racing import Line, open_lines
from onymous.lab.verify import problems
from onymous.rules.identifiers import BY_NAME
from onymous.settings import Settings

#: steps of one history, and histories on one store
STEPS, HISTORIES = 200, 100
#: callers of a race, and people a store sees
CALLERS, PEOPLE = 64, 1_500
#: logins that are answered before a kill may come
_ANSWERS = 20
Progress = Callable[[int], None]
Going = Callable[[], bool]
TENANTS = """
organization: Soak
scopes:
  logins: {strategy: profile_conversion, login: [customerid], unique: [customerid],
           priority: [customerid, email, ios_idfv, device_application_stamp]}
  emails: {strategy: best_match, priority: [customerid, email, ios_idfv]}
workspaces:
  one: {scope: logins, inputs: {server: {kind: server, permissions: ["history:read"]}}}
  two: {scope: emails, inputs: {loose: {kind: server}}}
"""


class Count(msgspec.Struct):
    """What a part has done, and how many answers were checked by it."""

    done: int = 0
    checked: int = 0
    #: what was checked, in words
    what: str = ""


async def audit(ground: Ground, steps: int, seed: int, progress: Progress, going: Going) -> Count:
    """Audit random histories, every fourth one with many callers on two cores of one store."""
    out = Count(what="requests compared with the auditor's one by one; the others come at once")
    numbers = itertools.count(1)
    while out.done < steps and going():
        async with ground.fresh() as settings, cores(settings, 2) as pair:
            for _ in range(HISTORIES):
                if out.done >= steps or not going():
                    break
                scope = next(numbers)
                own = seed * 1_000_000 + scope
                if scope % 4 == 0:
                    await concurrent(pair, own, STEPS, scope)
                else:
                    try:
                        out.checked += await history(pair[0], own, STEPS, scope)
                    except Violation:
                        raise Violation(
                            f"seed {own}\n{await shrunk(pair[0], own, STEPS, 1_000_000)}"
                        ) from None
                out.done += STEPS
                progress(STEPS)
    return out


async def restores(
    ground: Ground, times: int, seed: int, progress: Progress, going: Going
) -> Count:
    """Audit histories across backups and restores: each is restored twice and goes on."""
    out = Count(what="requests compared, across two restores of each backup")
    while out.done < times and going():
        out.checked += await restored_histories(ground, seed * 1_000_000 + out.done)
        out.done += 1
        progress(1)
    return out


async def races(ground: Ground, tries: int, seed: int, progress: Progress, going: Going) -> Count:
    """Race for first sights of the same person: 64 callers, two real processes, one store."""
    out = Count(what="answers, 64 for each person, from two processes")
    kinds = ("login", "device", "email")
    while out.done < tries and going():
        async with ground.fresh() as settings:
            keys = await _tenants(settings)
            async with processes(settings, 2) as pair:
                lines = await open_lines([p.port for p in pair], CALLERS)
                made = 0
                while out.done < tries and made < PEOPLE and going():
                    await _race(lines, keys, kinds[made % 3], f"{seed}-{out.done}")
                    made += 1
                    out.done += 1
                    out.checked += CALLERS
                    progress(1)
                for line in lines:
                    line.close()
            people = await _whole(settings)
            if people != made:
                raise Violation(f"{made} people were seen, {people} profiles were made")
    return out


async def _race(lines: list[Line], keys: dict[str, str], kind: str, name: str) -> None:
    known = {
        "login": {"customerid": f"c{name}", "ios_idfv": f"i{name}"},
        "device": {"ios_idfv": f"i{name}", "device_application_stamp": f"s{name}"},
        "email": {"email": f"e{name}@x.io"},
    }[kind]
    auth = keys["loose" if kind == "email" else "server"]
    answers = await asyncio.gather(*(line.identify(auth, known) for line in lines))
    by = Counter(answers)
    if len(by) != 1 or next(iter(by))[0] != 200:
        raise Violation(f"{kind}, person {name}: {dict(by)}")


async def kills(ground: Ground, times: int, seed: int, progress: Progress, going: Going) -> Count:
    """Kill a serving process under load, again and again, and look for everything answered."""
    out = Count(what="logins and changes answered before a kill, found after it")
    rng = random.Random(seed)
    async with ground.fresh() as settings:
        auth = (await _tenants(settings))["server"]
        logins: dict[str, str] = {}
        changed: dict[str, str] = {}
        for turn in range(times):
            if not going():
                break
            process = Process(settings)
            await process.start()
            await _load(process, auth, rng, turn, logins, changed)
            await _kept(settings, logins, changed)
            out.done, out.checked = turn + 1, len(logins) + len(changed)
            progress(1)
    return out


async def _load(
    process: Process,
    auth: str,
    rng: random.Random,
    turn: int,
    logins: dict[str, str],
    changed: dict[str, str],
) -> None:
    url = f"http://127.0.0.1:{process.port}"
    headers = {"Authorization": auth}
    async with httpx.AsyncClient(base_url=url, headers=headers, trust_env=False) as client:
        names = (f"{turn}-{n}" for n in itertools.count())
        tasks = [asyncio.create_task(_live(client, names, logins, changed)) for _ in range(16)]
        try:
            enough = len(logins) + _ANSWERS
            while len(logins) < enough and not all(task.done() for task in tasks):
                await asyncio.sleep(0.01)
            await asyncio.sleep(rng.random() * 0.7)
        finally:
            await process.kill()
        await asyncio.gather(*tasks)


async def _live(
    client: httpx.AsyncClient,
    names: Iterator[str],
    logins: dict[str, str],
    changed: dict[str, str],
) -> None:
    """Log people in and let them change their address, until the server is gone."""
    for name in names:
        known = {"customerid": name, "ios_idfv": f"device {name}"}
        change = {"identity_type": "email", "old_value": None, "new_value": f"{name}@x.io"}
        try:
            one = await client.post(
                "/v1/login", json={"environment": "production", "known_identities": known}
            )
            if one.status_code == 200:
                logins[name] = mpid = one.json()["mpid"]
                two = await client.post(
                    f"/v1/{mpid}/modify",
                    json={"environment": "production", "identity_changes": [change]},
                )
                if two.status_code == 200:
                    changed[f"{name}@x.io"] = mpid
                    continue
                one = two
        except (httpx.HTTPError, AttributeError):
            # the driver has no error of its own for a socket that dies while it is opened
            return
        raise Violation(f"an answer under load was {one.status_code}: {one.text}")


async def _kept(settings: Settings, logins: dict[str, str], changed: dict[str, str]) -> None:
    """Check that everything answered is there, once, and that the store is whole."""
    if len(set(logins.values())) != len(logins):
        raise Violation("an MPID was given to two people")
    await _whole(settings)
    async with running(settings) as core:
        pool = next(c for c in core.directory.callers() if c.name == "server").pool("production")
        for kind, answered in (("customerid", logins), ("email", changed)):
            async with core.store.read() as session:
                rows = await session.rows(
                    "SELECT value, pid FROM identity WHERE slot = ?",
                    pool * 64 + BY_NAME[kind].code,
                )
            held = {value: core.mpids.text(pid) for value, pid in rows if pid}
            lost = [name for name, mpid in answered.items() if held.get(name) != mpid]
            if lost:
                raise Violation(f"{len(lost)} answers are lost, the first is {lost[0]}")


async def _whole(settings: Settings) -> int:
    """Check every record of a store against its ledger; returns how many there are."""
    async with running(settings) as core:
        found = await problems(core, {c.scope: c.plan for c in core.directory.callers()})
        if found:
            raise Violation("\n".join(found))
        async with core.store.read() as session:
            rows = await session.rows("SELECT count(*) FROM profile")
    return int(rows[0][0])


async def _tenants(settings: Settings) -> dict[str, str]:
    """Set up the tenants; returns the Authorization header of each input."""
    async with running(settings) as core:
        out = await apply(core.store, core.key, TENANTS, actor="soak", now_ms=1)
    basic = httpx.BasicAuth
    return {c.input: basic(c.api_key, c.secret)._auth_header for c in out.credentials}
