"""What every command shares: the application, options, output, asking a running server."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Coroutine
from typing import Annotated, Any, TypeVar

import httpx
import typer
import uvloop
from rich.console import Console
from rich.markup import escape

from onymous.crypto import KeyProblem
from onymous.lab.check import BadScenario
from onymous.readers import FileProblem
from onymous.rules.errors import MappingInvalid
from onymous.settings import SettingError, Settings, load
from onymous.store.port import StoreError

T = TypeVar("T")
app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)
console = Console()
errors = Console(stderr=True)

StoreOption = Annotated[
    str | None, typer.Option(help="sqlite:FOLDER or postgresql://USER@HOST/DATABASE")
]
JsonOption = Annotated[bool, typer.Option("--json", help="answer for machines")]
UrlOption = Annotated[str, typer.Option(help="a running server")]
KeyOption = Annotated[str, typer.Option(envvar="ONYMOUS_KEY", help="API key of a server input")]
SecretOption = Annotated[str, typer.Option(envvar="ONYMOUS_SECRET", help="its secret")]
EnvironmentOption = Annotated[str, typer.Option(help="production or development")]
#: for commands that take an MPID: half of them begin with a minus, which is no option
NUMBERS = {"ignore_unknown_options": True}
ServerDefault = "http://127.0.0.1:8210"


@app.callback()
def main() -> None:
    """Onymous: the open, self-hosted identity layer."""


def run_now(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine; turn expected errors into one clear line and exit code 2."""
    try:
        return uvloop.run(work)
    except (
        SettingError,
        StoreError,
        KeyProblem,
        BadScenario,
        FileProblem,
        MappingInvalid,
    ) as error:
        errors.print(f"[red]{error}[/]", highlight=False)
        raise typer.Exit(2) from None
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        what = f"{where}{error.strerror or type(error).__name__}"
        errors.print(f"[red]{escape(what)}[/]", highlight=False)
        raise typer.Exit(2) from None


def settings_of(**flags: Any) -> Settings:
    """Settings from the file here, the environment and these flags; None leaves one alone."""
    file = pathlib.Path("onymous.toml")
    try:
        return load(flags, file=file if file.exists() else None)
    except SettingError as error:
        errors.print(f"[red]{error}[/]", highlight=False)
        raise typer.Exit(2) from None


def ask(
    url: str,
    key: str,
    secret: str,
    method: str,
    path: str,
    params: dict[str, str],
    body: object,
    as_json: bool = False,
) -> dict[str, Any]:
    """Ask a server; exit with its message, and why if it says so, where it refuses."""
    try:
        reply = httpx.request(
            method, url + path, params=params, json=body, auth=(key, secret), trust_env=False
        )
    except httpx.HTTPError as error:
        errors.print(f"[red]{url} does not answer: {type(error).__name__}; is it serving?[/]")
        raise typer.Exit(2) from None
    answer: dict[str, Any] = reply.json() if reply.content else {}
    if reply.status_code >= 400:
        if as_json:
            typer.echo(json.dumps(answer))
        text = answer.get("message", f"status {reply.status_code}")
        errors.print(f"[red]{text}[/] {answer.get('hint', '')}", highlight=False)
        for line in answer.get("trace_text", []):
            errors.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)
        raise typer.Exit(1)
    return answer
