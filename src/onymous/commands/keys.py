"""`onymous keys`: keys and secrets of inputs, and the operator's master key."""

from __future__ import annotations

import json
import os
import pathlib
import sys
from typing import Annotated

import msgspec
import typer
from rich.table import Table

from onymous.app import Core, backup_folder, master_key_path
from onymous.backups import listed
from onymous.commands.common import (
    JsonOption,
    StoreOption,
    app,
    console,
    fail,
    now_ms,
    settings_of,
    when,
    with_core,
)
from onymous.crypto import MasterKey, new_master_key, write_key_file
from onymous.flows.keys import Listed, list_keys
from onymous.flows.master import opens_all, reseal
from onymous.flows.tenants import Credential, issue_secret, revoke_secret
from onymous.settings import Settings

group = typer.Typer(no_args_is_help=True, help="Keys of inputs, and the master key.")
app.add_typer(group, name="keys")
Input = Annotated[str, typer.Argument(metavar="WORKSPACE/INPUT")]
OPERATOR = "operator"


@group.command("list")
def list_(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """List keys and live secrets with when they were last used; never their text."""

    async def work(core: Core) -> list[Listed]:
        return await list_keys(core.store)

    found = with_core(store, work)
    if as_json:
        typer.echo(json.dumps({"keys": msgspec.to_builtins(found)}))
        return
    table = Table("input", "kind", "key", "last used", "secret", "made", "last used", "revoked")
    for row in found:
        head = (row.name, row.kind, row.api_key, _used(row.used_ms))
        for place, secret in enumerate(row.secrets or [None]):
            front = head if place == 0 else ("",) * 4
            if secret is None:
                table.add_row(*front, "none", "", "", "")
                continue
            gone = when(secret.revoked_ms) if secret.revoked_ms is not None else ""
            number, made = str(secret.secret_id), when(secret.created_ms)
            table.add_row(*front, number, made, _used(secret.used_ms), gone)
    console.print(table)


@group.command()
def issue(
    source: Input,
    from_stdin: Annotated[
        bool, typer.Option("--stdin", help="take over a secret that clients carry already")
    ] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Issue another secret; the one before stays valid until it is revoked."""
    workspace, name = _parts(source)
    secret = sys.stdin.readline().strip() if from_stdin else None

    async def work(core: Core) -> tuple[Credential, list[int]]:
        made = await issue_secret(
            core.store, core.key, workspace, name, actor=OPERATOR, now_ms=now_ms(), secret=secret
        )
        rows = [row for row in await list_keys(core.store) if row.name == source]
        live = [s.secret_id for row in rows for s in row.secrets if s.revoked_ms is None]
        return made, [number for number in live if number != made.secret_id]

    made, others = with_core(store, work)
    if as_json:
        typer.echo(json.dumps(msgspec.to_builtins(made) | {"live": others}))
        return
    console.print("new secret, shown this once:")
    typer.echo(f"  key    {made.api_key}\n  secret {made.secret}\n  number {made.secret_id}")
    for number in others:
        typer.echo(f"once clients use it: onymous keys revoke '{source}' {number}")


@group.command()
def revoke(
    source: Input,
    number: Annotated[int, typer.Argument(help="number of the secret from `keys list`")],
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Revoke a secret for good, within a second or two; a restore does not bring it back."""
    workspace, name = _parts(source)

    async def work(core: Core) -> None:
        await revoke_secret(core.store, workspace, name, number, actor=OPERATOR, now_ms=now_ms())
        await core.remember_now()

    with_core(store, work)
    typer.echo(json.dumps({"revoked": number}) if as_json else f"secret {number} is revoked")


@group.command()
def master(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Say where the master key comes from, and its id; never the key."""
    settings = settings_of(store=store)

    async def work(core: Core) -> tuple[str, ...]:
        return core.key.ids

    ids = with_core(store, work)
    kept = listed(backup_folder(settings))
    needed = sorted({b.manifest.master_key for b in kept if b.manifest.master_key} - set(ids))
    out = {"from": _origin(settings), "seals": ids[0], "opens": list(ids), "backups_need": needed}
    if as_json:
        typer.echo(json.dumps(out))
        return
    console.print(f"from {out['from']}; seals with {ids[0]}", highlight=False)
    for other in ids[1:]:
        console.print(f"also opens what {other} sealed: keys retire-master", highlight=False)
    for other in needed:
        console.print(f"older backups need {other}: keep it as long as them", highlight=False)


@group.command("new-master")
def new_master(as_json: JsonOption = False) -> None:
    """Print a new master key, for ONYMOUS_MASTER_KEY or the store of master_key_command."""
    key = new_master_key()
    typer.echo(json.dumps({"master_key": key}) if as_json else key)


@group.command("rotate-master")
def rotate_master(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Put a new key first in the key file and seal everything with it; the old one stays second.

    Killed on the way, run it again: both keys are in the file before anything is sealed anew.
    """
    settings = settings_of(store=store)
    path = _file(settings)

    async def work(core: Core) -> tuple[str, int]:
        if len(core.key.ids) == 1:
            write_key_file(path, new_master_key() + "\n" + core.key.text())
        key = MasterKey.from_file(path, make=False)
        done = await reseal(core.store, key, actor=OPERATOR, now_ms=now_ms())
        return key.id, done

    fresh, done = with_core(store, work)
    if as_json:
        typer.echo(json.dumps({"seals": fresh, "sealed": done}))
        return
    console.print(f"{done} secrets are sealed with the new key {fresh}", highlight=False)
    console.print("keep a copy of it; later, for the old one: onymous keys retire-master")


@group.command("reseal")
def reseal_(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Seal everything with the first of the keys given (environment or command: NEW OLD)."""

    async def work(core: Core) -> tuple[str, int]:
        done = await reseal(core.store, core.key, actor=OPERATOR, now_ms=now_ms())
        return core.key.id, done

    fresh, done = with_core(store, work)
    out = {"seals": fresh, "sealed": done}
    typer.echo(json.dumps(out) if as_json else f"{done} secrets are sealed with {fresh}")


@group.command("retire-master")
def retire_master(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Leave only the first key in the key file, after it was seen to open everything."""
    settings = settings_of(store=store)
    path = _file(settings)

    async def work(core: Core) -> tuple[str, ...]:
        first = core.key.first_only()
        await reseal(core.store, core.key, actor=OPERATOR, now_ms=now_ms())
        async with core.store.read() as session:
            await opens_all(session, first)
        write_key_file(path, first.text())
        return core.key.ids[1:]

    gone = with_core(store, work)
    if as_json:
        typer.echo(json.dumps({"retired": list(gone)}))
        return
    for old in gone:
        console.print(f"{old} is retired; older backups still need it", highlight=False)


def _file(settings: Settings) -> pathlib.Path:
    if os.environ.get("ONYMOUS_MASTER_KEY") or settings.master_key_command:
        fail(
            f"the master key comes from {_origin(settings)}: let that give NEW and OLD, apart"
            " by a space, and run `onymous keys reseal`; then NEW alone"
        )
    return master_key_path(settings)


def _origin(settings: Settings) -> str:
    if os.environ.get("ONYMOUS_MASTER_KEY"):
        return "the environment (ONYMOUS_MASTER_KEY)"
    return "master_key_command" if settings.master_key_command else str(master_key_path(settings))


def _parts(source: str) -> tuple[str, str]:
    workspace, mark, name = source.rpartition("/")
    if not mark:
        fail("name it WORKSPACE/INPUT, as `onymous keys list` does")
    return workspace, name


def _used(at_ms: int | None) -> str:
    return when(at_ms) if at_ms else "never"
