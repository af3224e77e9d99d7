"""What every command shares: the application, options, output, and how a command fails."""

from __future__ import annotations

import getpass
import json
import pathlib
import re
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import msgspec
import typer
import uvloop
from typer.core import TyperGroup

from onymous.app import Core, running
from onymous.crypto import KeyProblem
from onymous.flows.configure import BadDocument, ChangeRefused
from onymous.flows.people import PeopleProblem
from onymous.lab.check_fields import BadScenario
from onymous.later import module
from onymous.readers import FileProblem
from onymous.rules.errors import MappingInvalid, Refusal
from onymous.settings import SettingError, Settings, load_here
from onymous.store.port import StoreError

if TYPE_CHECKING:
    from rich import console as rich
    from rich import markup, progress
else:
    rich, markup, progress = map(module, ("rich.console", "rich.markup", "rich.progress"))

T = TypeVar("T")
#: what a command may meet that is nobody's bug; it ends with 2
PROBLEMS = (SettingError, StoreError, KeyProblem, BadScenario, FileProblem, MappingInvalid)


#: whether the command line that runs asks for an answer for machines
_MACHINES: ContextVar[bool] = ContextVar("machines", default=False)


class Commands(TyperGroup):
    """The commands; a line that is not understood is told to machines as well."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Note what kind of answer the line asks for."""
        _MACHINES.set("--json" in args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except Exception as error:
            words: Callable[[], str] | None = getattr(error, "format_message", None)
            if words is not None and _MACHINES.get():
                typer.echo(json.dumps({"code": "USAGE_ERROR", "message": words()}))
            raise


app = typer.Typer(
    cls=Commands, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None
)
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
AuthorOption = Annotated[
    str, typer.Option(envvar="ONYMOUS_AUTHOR", help="who changes it; your login name if not given")
]
ReasonOption = Annotated[str, typer.Option(help="why, for `config log`")]
DryRunOption = Annotated[bool, typer.Option(help="show what would happen, change nothing")]
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
    """Run a coroutine; expected errors become one clear line and exit code 2, refusals 1."""
    try:
        return uvloop.run(work)
    except Exception as error:
        fail_for(error)


def fail_for(error: Exception) -> NoReturn:
    """Fail for an error a command may meet; raises any other one."""
    if isinstance(error, PROBLEMS):
        stop(error)
    if isinstance(error, BadDocument | ChangeRefused):
        _not_applied(error)
    if isinstance(error, Refusal):
        fail(error.message, error.hint, code=error.code, status=1)
    if isinstance(error, PeopleProblem):
        stop(error, status=1)
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        fail(f"{where}{error.strerror or type(error).__name__}", code="OS_ERROR")
    raise error


def ended(error: Exception, *, machines: bool) -> int:
    """Tell why something ended that began without the command line; return the exit code."""
    _MACHINES.set(machines)
    try:
        fail_for(error)
    except typer.Exit as exit:
        return exit.exit_code


def with_core(store: str | None, work: Callable[[Core], Awaitable[T]]) -> T:
    """Run work on the core of a store, as `run_now` does."""

    async def inside() -> T:
        async with running(settings_of(store=store)) as core:
            return await work(core)

    return run_now(inside())


def settings_of(**flags: Any) -> Settings:
    """Settings from the file here, the environment and these flags; None leaves one alone."""
    try:
        return load_here(flags)
    except SettingError as error:
        stop(error)


def fail(
    message: str,
    hint: str = "",
    *,
    code: str = "USAGE_ERROR",
    status: int = 2,
    more: dict[str, Any] | None = None,
    lines: Sequence[str] = (),
) -> NoReturn:
    """End with a clear line for people and, where `--json` was given, an object for machines.

    The object has the fields of a refusal over HTTP: code, message, hint.
    """
    if _MACHINES.get():
        answer = {"code": code, "message": message} | ({"hint": hint} if hint else {})
        typer.echo(json.dumps(answer | (more or {})))
    for line in lines:
        told().print(line, highlight=False, markup=False, soft_wrap=True)
    told().print(
        f"[red]{markup.escape(message)}[/] {markup.escape(hint)}".rstrip(), highlight=False
    )
    raise typer.Exit(status) from None


def stop(error: Exception, *, status: int = 2) -> NoReturn:
    """Fail with an error whose text is for people."""
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(error).__name__).upper()
    fail(str(error), code=name, status=status)


def _not_applied(error: BadDocument | ChangeRefused) -> NoReturn:
    """Say why a document was not applied, and end."""
    if isinstance(error, BadDocument):
        problems = msgspec.to_builtins(error.problems)
        lines = [f"problem: {problem}" for problem in error.problems]
        text = "the document is not valid: nothing was changed"
        fail(text, code="BAD_DOCUMENT", status=1, more={"problems": problems}, lines=lines)
    refused = msgspec.to_builtins(error.refused)
    lines = [str(step) for step in error.refused]
    text = "refused: nothing was changed"
    fail(text, code="CHANGE_REFUSED", status=1, more={"refused": refused}, lines=lines)


def write_new(file: str, text: str) -> pathlib.Path:
    """Write a file that must not be there yet."""
    path = pathlib.Path(file)
    if path.exists():
        fail(f"{path} exists; choose another name or remove it")
    try:
        path.write_text(text, "utf-8")
    except OSError as error:
        fail(f"{path}: {error.strerror or type(error).__name__}", code="OS_ERROR")
    return path


def read_text(file: str | pathlib.Path) -> str:
    """Read a text file a person named."""
    try:
        return pathlib.Path(file).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        fail(f"{file} cannot be read: {why or type(error).__name__}", code="OS_ERROR")


def written(path: pathlib.Path) -> pathlib.Path:
    """Return where a long command will write to; fails before it begins if that cannot be."""
    try:
        path.open("a").close()
    except OSError as error:
        why = error.strerror or type(error).__name__
        fail(f"{path} cannot be written: {why}", code="OS_ERROR")
    return path


def bar(quiet: bool) -> progress.Progress:
    """Return a progress bar on standard error, unseen where the answer is for machines."""
    p = progress
    columns = (p.TextColumn("{task.description}"), p.BarColumn(), p.MofNCompleteColumn())
    return p.Progress(*columns, p.TimeElapsedColumn(), console=told(), disable=quiet)


def whoever() -> str:
    """Return the name of who runs this, as their machine knows them."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "operator"


def now_ms() -> int:
    """Return the time in milliseconds."""
    return time.time_ns() // 1_000_000


def when(at_ms: int) -> str:
    """Return a time as people read it (UTC)."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(at_ms / 1000))
