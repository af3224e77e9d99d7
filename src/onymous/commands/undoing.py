"""`onymous undo`: an entry, a request, a change of rules, a version of the configuration."""

from __future__ import annotations

import json
from typing import Annotated, Any

import msgspec
import typer

from onymous.app import Core, running
from onymous.commands.asking import ask
from onymous.commands.common import (
    EnvironmentOption,
    JsonOption,
    KeyOption,
    SecretOption,
    ServerDefault,
    StoreOption,
    UrlOption,
    app,
    console,
    now_ms,
    run_now,
    settings_of,
    whoever,
)
from onymous.commands.reresolving import number_of, undo_rules
from onymous.flows.carrying import rule_changes
from onymous.flows.configure import ChangeRefused
from onymous.flows.fencing import GRACE_S
from onymous.flows.merging import Actor
from onymous.flows.reresolve import Carried
from onymous.flows.tenants import Applied, rollback
from onymous.flows.versions import newest
from onymous.rules.errors import CannotUndo, NoSuchThing


@app.command()
def undo(
    what: Annotated[
        str,
        typer.Argument(help="entry of a history (a number), request id, rules:N or config:N"),
    ],
    reason: Annotated[str, typer.Option(help="why; stays in the audit")],
    request: Annotated[bool, typer.Option(help="a number is a request id, too")] = False,
    input_: Annotated[str, typer.Option("--input", help="whose request: workspace/input")] = "",
    workspace: Annotated[str, typer.Option(help="of which workspace")] = "",
    operator: Annotated[str, typer.Option("--as", help="who does it")] = "",
    dry_run: Annotated[bool, typer.Option(help="show what would change")] = False,
    keep_later: Annotated[
        bool, typer.Option(help="rules:N: leave people alone whose values moved again")
    ] = False,
    store: StoreOption = None,
    url: UrlOption = ServerDefault,
    key: KeyOption = "",
    secret: SecretOption = "",
    environment: EnvironmentOption = "production",
    as_json: JsonOption = False,
) -> None:
    """Undo an entry of the ledger, what a request changed, or a change of rules or settings.

    Entries and requests are undone by a running server; rules:N and config:N in the store itself.
    """
    if not request and what.startswith(("rules:", "config:")):
        actor = Actor(name=operator or whoever(), reason=reason, now_ms=now_ms())
        _stored(what, actor, dry_run, keep_later, store, as_json)
        return
    named = "request_id" if request or not what.isdigit() else "entry"
    body: dict[str, Any] = {"environment": environment, "reason": reason, named: what}
    if named == "request_id":
        body |= {"input": input_, "workspace": workspace}
    body |= {"dry_run": dry_run} | ({"operator": operator} if operator else {})
    answer = ask(url, key, secret, "POST", "/v1/undo", {}, body, as_json)
    _show(answer, dry_run, as_json)


def _show(answer: dict[str, Any], dry_run: bool, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(answer))
        return
    console.print(f"entry {answer['entry']} of {answer['mpid']}", highlight=False)
    for change in answer["changes"]:
        to = f" to {change['mpid']}" if change.get("mpid") else ""
        line = f"{change['change']} {change['identity_type']} {change['value']}{to}"
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    console.print("nothing was changed" if dry_run else "undone")


async def _rolled_back(core: Core, number: int, actor: Actor, dry_run: bool) -> Applied:
    if number == 1:
        raise CannotUndo(what="there was nothing before it")
    try:
        return await rollback(
            core.store,
            core.key,
            number - 1,
            dry_run=dry_run,
            actor=actor.name,
            reason=actor.reason,
            now_ms=actor.now_ms,
            expected=number,
        )
    except ChangeRefused:
        standing = [c.id for c in await rule_changes(core.store) if c.undone_ms is None]
        if standing:
            why = f"people were carried over to its rules, undo rules:{standing[0]} instead"
            raise CannotUndo(what=why) from None
        raise


def _stored(
    what: str, actor: Actor, dry_run: bool, keep_later: bool, store: str | None, as_json: bool
) -> None:
    number = number_of(what)

    async def work() -> Carried | Applied:
        async with running(settings_of(store=store)) as core:
            if what.startswith("rules:"):
                return await undo_rules(
                    core, number, actor, GRACE_S, keep_later=keep_later, dry_run=dry_run
                )
            async with core.store.read() as session:
                now = await newest(session)
            if number > now or number < 1:
                raise NoSuchThing(what=f"version {number} of the configuration")
            if number != now:
                raise CannotUndo(what=f"version {now} stands on it, undo that first")
            return await _rolled_back(core, number, actor, dry_run)

    done = run_now(work())
    if as_json:
        typer.echo(msgspec.json.encode(done).decode())
    elif isinstance(done, Applied):
        for line in done.lines():
            console.print(line, highlight=False, markup=False)
    else:
        left = f", {done.left} groups of people left alone" if done.left else ""
        console.print(f"{done.records} records go back{left}", highlight=False)
    if not as_json:
        console.print("nothing was changed" if dry_run else "undone")
