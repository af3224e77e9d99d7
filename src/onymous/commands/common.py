"""What every command shares: the application, options, output."""

from __future__ import annotations

import pathlib
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
import uvloop

from onymous.crypto import KeyProblem
from onymous.lab.check import BadScenario
from onymous.later import module
from onymous.readers import FileProblem
from onymous.rules.errors import MappingInvalid
from onymous.settings import SettingError, Settings, load
from onymous.store.port import StoreError

if TYPE_CHECKING:
    from rich import console as rich
    from rich import markup
else:
    rich, markup = module("rich.console"), module("rich.markup")

T = TypeVar("T")
app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)
if TYPE_CHECKING:
    console: rich.Console
    errors: rich.Console

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


def __getattr__(name: str) -> Any:
    """Make the consoles when they are first asked for: `serve` starts without their library."""
    if name not in ("console", "errors"):
        raise AttributeError(name)
    made = globals()[name] = rich.Console(stderr=name == "errors")
    return made


def told() -> rich.Console:
    """Return the console for errors."""
    made: rich.Console = globals().get("errors") or __getattr__("errors")
    return made


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
        told().print(f"[red]{error}[/]", highlight=False)
        raise typer.Exit(2) from None
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        what = f"{where}{error.strerror or type(error).__name__}"
        told().print(f"[red]{markup.escape(what)}[/]", highlight=False)
        raise typer.Exit(2) from None


def settings_of(**flags: Any) -> Settings:
    """Settings from the file here, the environment and these flags; None leaves one alone."""
    file = pathlib.Path("onymous.toml")
    try:
        return load(flags, file=file if file.exists() else None)
    except SettingError as error:
        told().print(f"[red]{error}[/]", highlight=False)
        raise typer.Exit(2) from None
