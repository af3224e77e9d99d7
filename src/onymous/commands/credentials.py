"""`onymous credentials`: who may read profiles over the API."""

from __future__ import annotations

import json
from typing import Annotated, Any

import msgspec
import typer
from rich.table import Table

from onymous.app import Core
from onymous.commands.common import JsonOption, StoreOption, app, console, now_ms, when, with_core
from onymous.flows.api_credentials import PERMISSIONS, activate, credentials, delete, issue
from onymous.flows.api_credentials import ApiCredential as Credential

group = typer.Typer(no_args_is_help=True, help="API credentials: who may read profiles.")
app.add_typer(group, name="credentials")
Client = Annotated[str, typer.Argument(help="client id from `credentials list`")]


@group.command("issue")
def issue_(
    name: Annotated[str, typer.Argument(help="name for people")],
    permission: Annotated[list[str], typer.Option(help=" | ".join(PERMISSIONS))],
    workspace: Annotated[list[str] | None, typer.Option(help="workspace it may read")] = None,
    per_second: Annotated[int, typer.Option(help="requests in a second; 0: any number")] = 0,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Issue a credential; the secret is shown this once."""

    async def work(core: Core) -> dict[str, Any]:
        made = await issue(
            core.store,
            name,
            permission,
            workspace or [],
            actor="operator",
            now_ms=now_ms(),
            requests_per_second=per_second,
        )
        await core.tokens.load(now_ms())
        return _told(core, made.credential) | {"client_secret": made.client_secret}

    out = with_core(store, work)
    if as_json:
        typer.echo(json.dumps(out))
        return
    console.print("new credential; its secret is shown this once:")
    typer.echo(f"  client id {out['client_id']}\n  secret    {out['client_secret']}")
    for path in out["paths"]:
        typer.echo(f"  path      {path}")


@group.command("list")
def list_(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """List credentials, never their secrets."""

    async def work(core: Core) -> list[dict[str, Any]]:
        return [_told(core, c) for c in await credentials(core.store)]

    rows = with_core(store, work)
    if as_json:
        typer.echo(json.dumps({"credentials": rows}))
        return
    table = Table("client id", "name", "permissions", "workspaces", "active", "last used")
    for row in rows:
        used = when(row["used_ms"]) if row["used_ms"] else "never"
        table.add_row(
            row["client_id"],
            row["name"],
            ", ".join(row["permissions"]),
            ", ".join(row["workspaces"]),
            "yes" if row["active"] else "no",
            used,
        )
    console.print(table)


@group.command()
def revoke(
    client: Client,
    forever: Annotated[bool, typer.Option(help="delete it: this is final")] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Switch a credential and all its tokens off, within a second or two."""

    async def work(core: Core) -> None:
        if forever:
            await delete(core.store, client, actor="operator", now_ms=now_ms())
        else:
            await activate(core.store, client, False, actor="operator", now_ms=now_ms())
        await core.remember_now()

    with_core(store, work)
    done = "deleted" if forever else "revoked"
    typer.echo(json.dumps({done: client}) if as_json else f"{client} is {done}")


@group.command("activate")
def activate_(client: Client, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Switch a revoked credential on again."""

    async def work(core: Core) -> None:
        await activate(core.store, client, True, actor="operator", now_ms=now_ms())
        await core.remember_now()

    with_core(store, work)
    typer.echo(json.dumps({"activated": client}) if as_json else f"{client} is active")


@group.command("rotate-keys")
def rotate_keys(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Sign tokens with a new key pair; the old one verifies until its tokens have expired."""

    async def work(core: Core) -> str:
        return await core.tokens.rotate(now_ms())

    kid = with_core(store, work)
    typer.echo(json.dumps({"kid": kid}) if as_json else f"new tokens are signed with {kid}")


def _told(core: Core, c: Credential) -> dict[str, Any]:
    found = [w for n in c.granted.workspaces if (w := core.tokens.workspaces.get(n)) is not None]
    paths = [f"/userprofile/v1/{w.organization}/{w.account}/{w.id}/MPID" for w in found]
    if any(p.startswith("platform:") for p in c.granted.permissions):
        numbers = {w.organization for w in core.tokens.workspaces.values()}
        paths += [f"/platform/v2/organizations/{n}/configuration" for n in sorted(numbers)]
    out: dict[str, Any] = msgspec.to_builtins(c)
    del out["granted"], out["id"]
    more = {"permissions": list(c.granted.permissions), "workspaces": [w.name for w in found]}
    return out | more | {"paths": paths}
