"""`onymous resolve` and `onymous history`: who is this, and how did it come about?"""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.tree import Tree

from onymous.commands.asking import ask
from onymous.commands.common import (
    NUMBERS,
    EnvironmentOption,
    JsonOption,
    KeyOption,
    SecretOption,
    ServerDefault,
    UrlOption,
    app,
    console,
    when,
)


@app.command()
def resolve(
    identities: Annotated[list[str], typer.Argument(help="TYPE=VALUE, such as email=a@b.c")],
    operation: Annotated[str, typer.Option(help="identify, login, logout or search")] = "identify",
    write: Annotated[bool, typer.Option(help="really do it; else only show")] = False,
    url: UrlOption = ServerDefault,
    key: KeyOption = "",
    secret: SecretOption = "",
    environment: EnvironmentOption = "production",
    as_json: JsonOption = False,
) -> None:
    """Who is this? Asks a running server and draws the trace."""
    wrong = [item for item in identities if "=" not in item]
    if wrong:
        raise typer.BadParameter(f"{wrong[0]}: write TYPE=VALUE, such as customerid=42")
    known = dict(item.partition("=")[::2] for item in identities)
    body = {"environment": environment, "known_identities": known}
    params = {"explain": "true", "read_only": "false" if write else "true"}
    answer = ask(url, key, secret, "POST", f"/v1/{operation}", params, body, as_json)
    if as_json:
        typer.echo(json.dumps(answer))
        return
    who = answer.get("mpid") or "nobody yet: a new profile would be made"
    tree = Tree(f"[bold]{who}[/] ({environment})")
    for line in answer.get("trace_text", []):
        tree.add(line, highlight=False)
    console.print(tree)


@app.command(context_settings=NUMBERS)
def history(
    mpid: Annotated[str, typer.Argument(help="whose history")],
    at: Annotated[int | None, typer.Option(help="the record as it was then (ms)")] = None,
    url: UrlOption = ServerDefault,
    key: KeyOption = "",
    secret: SecretOption = "",
    environment: EnvironmentOption = "production",
    as_json: JsonOption = False,
) -> None:
    """How a profile came about, newest first."""
    params = {"environment": environment} | ({"at": str(at)} if at is not None else {})
    answer = ask(url, key, secret, "GET", f"/v1/{mpid}/history", params, None, as_json)
    if as_json:
        typer.echo(json.dumps(answer))
        return
    tree = Tree(f"[bold]{answer['mpid']}[/] ({environment})")
    for name in answer["identities"]:
        tree.add(f"{name['identity_type']} = {name['value']} ({name['input']})", highlight=False)
    console.print(tree)
    for entry in answer["entries"]:
        line = f"{when(entry['at_ms'])} {entry['operation']}: {_changes(entry)}"
        line += f" (entry {entry['entry']})"
        console.print(line, highlight=False, markup=False, soft_wrap=True)


@app.command()
def explain(
    request_id: Annotated[str, typer.Argument(help="the request, as its sender named it")],
    input_: Annotated[str, typer.Option("--input", help="whose request: workspace/input")] = "",
    workspace: Annotated[str, typer.Option(help="of which workspace")] = "",
    url: UrlOption = ServerDefault,
    key: KeyOption = "",
    secret: SecretOption = "",
    environment: EnvironmentOption = "production",
    as_json: JsonOption = False,
) -> None:
    """A past answer told again, with its trace; also of a request that changed nothing."""
    params = {"environment": environment, "request_id": request_id}
    params |= {k: v for k, v in (("input", input_), ("workspace", workspace)) if v}
    told = ask(url, key, secret, "GET", "/v1/explain", params, None, as_json)
    if as_json:
        typer.echo(json.dumps(told))
        return
    who = told.get("mpid") or "nobody"
    tree = Tree(f"[bold]{when(told['at_ms'])} {told['operation']}[/] from {told['input']}: {who}")
    for entry in told.get("entries", []):
        tree.add(f"entry {entry['entry']}: {_changes(entry)}", highlight=False)
    if not told.get("entries"):
        tree.add("changed nothing", highlight=False)
    for line in told.get("trace_text", []):
        tree.add(line, highlight=False)
    if told.get("note"):
        tree.add(f"[yellow]{told['note']}[/]", highlight=False)
    console.print(tree)


def _changes(entry: dict[str, Any]) -> str:
    return ", ".join(
        f"{c['change']} {c.get('identity_type', '')} {c.get('value', '')}".strip()
        for c in entry["changes"]
    )
