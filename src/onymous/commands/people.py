"""`onymous people`: who may sign in to the console."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import typer
from rich.table import Table

from onymous.commands.common import JsonOption, StoreOption, app, console, with_core
from onymous.flows.people import ROLES, People, new_password

people_app = typer.Typer(no_args_is_help=True, help="Who may sign in to the console.")
app.add_typer(people_app, name="people")

NameArgument = Annotated[str, typer.Argument(help="the name they sign in with")]
RoleOption = Annotated[str, typer.Option(help=f"one of {', '.join(ROLES)}")]
ScopeOption = Annotated[
    list[str] | None, typer.Option("--scope", help="a scope they see; may be repeated; none: all")
]
StdinOption = Annotated[
    bool, typer.Option("--password-stdin", help="read the password from standard input")
]
UrlOption = Annotated[str, typer.Option(help="where the console answers")]
_ACTOR = "operator"


def _with(store: str | None, work: Callable[[People], Awaitable[Any]]) -> Any:
    return with_core(store, lambda core: work(People(core.store, core.key)))


def _password(from_stdin: bool) -> tuple[str, bool]:
    """Return a password and whether it was made here."""
    if from_stdin:
        return typer.get_text_stream("stdin").readline().rstrip("\r\n"), False
    return new_password(), True


@people_app.command("add")
def add(
    name: NameArgument,
    role: RoleOption = "support",
    scope: ScopeOption = None,
    password_stdin: StdinOption = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add someone; shows a new password once, unless one is read from standard input."""
    password, made = _password(password_stdin)
    scopes = tuple(scope or ())
    user = _with(store, lambda p: p.add(name, role, password, scopes, actor=_ACTOR))
    _tell(as_json, {"name": user.name, "role": user.role}, password if made else None)


@people_app.command("password")
def password(
    name: NameArgument,
    password_stdin: StdinOption = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give someone a new password; ends their sessions."""
    fresh, made = _password(password_stdin)
    _with(store, lambda p: p.set_password(name, fresh, actor=_ACTOR))
    _tell(as_json, {"name": name}, fresh if made else None)


@people_app.command("remove")
def remove(name: NameArgument, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Remove someone; their sessions end at once."""
    _with(store, lambda p: p.remove(name, actor=_ACTOR))
    _tell(as_json, {"removed": name}, None)


@people_app.command("link")
def link(
    name: NameArgument,
    url: UrlOption = "http://127.0.0.1:8210",
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a link that signs someone in once, within 15 minutes."""
    token = _with(store, lambda p: p.link(name, actor=_ACTOR))
    address = f"{url.rstrip('/')}/console/welcome/{token}"
    typer.echo(json.dumps({"link": address}) if as_json else address)


@people_app.command("list")
def list_(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """List who may sign in."""
    users = _with(store, lambda p: p.all())
    if as_json:
        rows = [{"name": u.name, "role": u.role, "scopes": u.scopes} for u in users]
        typer.echo(json.dumps(rows))
        return
    table = Table("name", "role", "scopes", box=None)
    for user in users:
        table.add_row(user.name, user.role, ", ".join(user.scopes) or "all")
    console.print(table)


def _tell(as_json: bool, facts: dict[str, str], password: str | None) -> None:
    if password is not None:
        facts = {**facts, "password": password}
    if as_json:
        typer.echo(json.dumps(facts))
        return
    for name, value in facts.items():
        typer.echo(f"{name}: {value}")
    if password is not None:
        typer.echo("The password is shown this once.")
