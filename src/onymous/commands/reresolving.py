"""`onymous apply --reresolve` and its undoing: rules that change who is who, applied to history."""

from __future__ import annotations

import contextlib
import functools
import itertools

import typer

from onymous.app import Core
from onymous.commands.common import bar, console, now_ms
from onymous.flows import tenancy
from onymous.flows.carrying import preview_back, take_back
from onymous.flows.configure import Applied, Around, apply, parse
from onymous.flows.credentials import transact
from onymous.flows.fencing import announced
from onymous.flows.merging import Actor
from onymous.flows.reresolve import Carried, Reresolve
from onymous.flows.rule_changes import undisturbed
from onymous.flows.versions import newest
from onymous.lab.rehearse import journal_size
from onymous.lab.reresolve import Parts, planned
from onymous.lab.resuming import Keeping
from onymous.rules.reresolving import summary
from onymous.rules.strategies import ScopeConfig, compile_plan
from onymous.store.port import Transaction

#: rounds for people who changed while it was planned
MOST_ROUNDS = 5


async def carry_over(
    core: Core, text: str, actor: Actor, grace_s: float, *, quiet: bool
) -> tuple[Applied, list[Carried]]:
    """Apply a document whose rules change who is who, and carry people over to it."""
    version, changing, scopes = await _changing(core, text)
    rounds = dict.fromkeys(changing, 0)
    out: list[Applied] = []
    done: dict[str, Carried] = {}

    async with contextlib.AsyncExitStack() as stack:
        kept: list[Keeping] = []
        parts = await _plans(core, changing, scopes, quiet, stack, (version, kept))

        async def work() -> None:
            carrier = Reresolve(parts, actor)

            async def around(
                tx: Transaction, scope: int, was: ScopeConfig, becomes: ScopeConfig
            ) -> None:
                await carrier(tx, scope, was, becomes)
                done[next(n for n, s in scopes.items() if s == scope)] = carrier.done

            out.append(await _apply(core, text, actor, around, version))
            for name, carried in done.items():
                while carried.left and rounds[name] < MOST_ROUNDS:
                    rounds[name] += 1
                    left = await _again(core, scopes[name], changing[name], carried, actor)
                    carried.left = left

        await announced(core.store, work, grace_s)
    for keeping in kept:
        keeping.drop()
    await core.merging.refresh()
    return out[0], list(done.values())


async def _apply(core: Core, text: str, actor: Actor, around: Around, version: int) -> Applied:
    return await apply(
        core.store,
        core.key,
        text,
        actor=actor.name,
        reason=actor.reason,
        now_ms=now_ms(),
        expected=version,
        around=around,
    )


async def _changing(core: Core, text: str) -> tuple[int, dict[str, ScopeConfig], dict[str, int]]:
    """Return the version in force, the scopes whose rules change, and the numbers of all."""
    document, _ = parse(text)
    await core.directory.load()
    async with core.store.read() as session:
        version = await newest(session)
        state, ids = await tenancy.read_state(session)
    # also scopes nobody calls any more; the people of one whose rules stay are left alone
    scopes, were = ids.scopes, state.scopes
    changing = {n: c for n, c in document.scopes.items() if n in scopes and c != were[n]}
    return version, changing, scopes


async def preview(
    core: Core, text: str, actor: Actor, *, quiet: bool
) -> tuple[Applied, list[Carried]]:
    """Return what an apply would change, and what that makes of people as they are now."""

    async def around(tx: Transaction, scope: int, was: ScopeConfig, becomes: ScopeConfig) -> None:
        """Nothing is carried over in a dry run."""

    applied = await apply(
        core.store,
        core.key,
        text,
        dry_run=True,
        actor=actor.name,
        now_ms=actor.now_ms,
        around=around,
    )
    if applied.refused:
        return applied, []
    _, changing, scopes = await _changing(core, text)
    out = []
    async with contextlib.AsyncExitStack() as stack:
        parts = await _plans(core, changing, scopes, quiet, stack)
        for name in changing:
            both = (parts[scopes[name] * 2], parts[scopes[name] * 2 + 1])
            out.append(Carried(**summary(itertools.chain(*both))))
    return applied, out


async def _plans(
    core: Core,
    changing: dict[str, ScopeConfig],
    scopes: dict[str, int],
    quiet: bool,
    stack: contextlib.AsyncExitStack,
    keep: tuple[int, list[Keeping]] | None = None,
) -> dict[int, Parts]:
    """Plan each pool; `keep`: for which version, so that a killed planning can be gone on with."""
    parts: dict[int, Parts] = {}
    with bar(quiet) as shown:
        for name, config in changing.items():
            for pool in (scopes[name] * 2, scopes[name] * 2 + 1):
                label = f"{name} ({'development' if pool % 2 else 'production'})"
                size = await journal_size(core, pool, 0)
                advance = functools.partial(shown.advance, shown.add_task(label, total=size))
                rules, keeping = compile_plan(config), None
                if keep is not None:
                    keeping = Keeping(core, pool, rules, keep[0])
                    keep[1].append(keeping)
                plan = planned(core, pool, rules, advance, keeping)
                parts[pool] = await stack.enter_async_context(plan)
    return parts


async def _again(
    core: Core, scope: int, config: ScopeConfig, carried: Carried, actor: Actor
) -> int:
    """Carry those over who changed while the first round was planned; return how many are left."""
    async with contextlib.AsyncExitStack() as stack:
        parts = await _plans(core, {"": config}, {"": scope}, True, stack)
        carrier = Reresolve(parts, actor, carried.change)

        async def work(tx: Transaction) -> None:
            # between two rounds others may have changed the rules, or begun to join or split scopes
            if await undisturbed(tx, scope, config):
                await carrier(tx, scope, config, config)
            else:
                carrier.done.left = carried.left

        await transact(core.store, "rules.again", work)
    more = carrier.done
    carried.merged += more.merged
    carried.created += more.created
    carried.records += more.records
    return more.left


def show(carried: list[Carried]) -> None:
    """Say what a change of rules did to people."""
    for c in carried:
        if not c.change:
            console.print(
                f"{c.records} records would change, {c.merged} become one with another,"
                f" {c.created} be made; who, says: onymous rehearse",
                highlight=False,
            )
            continue
        text = (
            f"rules:{c.change}: {c.records} records changed, {c.merged} became one with another,"
            f" {c.created} were made"
        )
        text += f", {c.left} groups left alone: they keep changing" if c.left else ""
        text += f", {c.parted} values left with one of several holders" if c.parted else ""
        console.print(text, highlight=False)
        console.print(f"undo it with: onymous undo rules:{c.change}", highlight=False)


async def undo_rules(
    core: Core,
    number: int,
    actor: Actor,
    grace_s: float,
    *,
    keep_later: bool,
    dry_run: bool = False,
) -> Carried:
    """Take a change of rules back; raises `Refusal`s of `take_back`."""
    done: list[Carried] = []
    # seen before it is announced: what is refused keeps nobody waiting
    seen = await preview_back(core.store, number, keep_later=keep_later)
    if dry_run:
        return seen

    async def work() -> None:
        done.append(await take_back(core.store, core.key, number, actor, keep_later=keep_later))

    await announced(core.store, work, grace_s)
    await core.merging.refresh()
    return done[0]


def number_of(what: str) -> int:
    """Return the number of `rules:N` or `config:N`; raises `typer.BadParameter`."""
    kind, _, text = what.partition(":")
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        teller = "`apply --reresolve` told you" if kind == "rules" else "of `config log`"
        raise typer.BadParameter(f"write {kind}: and the number {teller}")
    return int(text)
