"""The command line. Every command knows `--json`; long work shows a progress bar."""

from __future__ import annotations

import json
import pathlib
import tempfile
import time
from collections.abc import Coroutine
from typing import Annotated, Any, TypeVar

import httpx
import msgspec
import typer
import uvloop
from rich.console import Console
from rich.table import Table
from rich.tree import Tree

from onymous.app import running
from onymous.crypto import KeyProblem
from onymous.flows.tenants import Applied, BadDocument, ChangeRefused, apply, starter
from onymous.lab.check import BadScenario, Result
from onymous.lab.check import read as read_scenarios
from onymous.lab.check import run as run_scenarios
from onymous.lab.demonstrate import demonstrate
from onymous.lab.reference import pages
from onymous.lab.reference import write as write_pages
from onymous.observe import set_up_logging
from onymous.serving import Server, listen
from onymous.settings import TABLE, SettingError, Settings, load
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
ServerDefault = "http://127.0.0.1:8210"


@app.callback()
def main() -> None:
    """Onymous: the open, self-hosted identity layer."""


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine; turn expected errors into one clear line and exit code 2."""
    try:
        return uvloop.run(work)
    except (SettingError, StoreError, KeyProblem, BadScenario) as error:
        errors.print(f"[red]{error}[/]", highlight=False)
        raise typer.Exit(2) from None


def _settings(**flags: Any) -> Settings:
    file = pathlib.Path("onymous.toml")
    try:
        return load(flags, file=file if file.exists() else None)
    except SettingError as error:
        errors.print(f"[red]{error}[/]", highlight=False)
        raise typer.Exit(2) from None


@app.command()
def demo(
    people: Annotated[int, typer.Option(help="simulated people")] = 400,
    steps: Annotated[int, typer.Option(help="requests to send")] = 12_000,
    seed: Annotated[int, typer.Option(help="the same seed tells the same story")] = 7,
    world: Annotated[str, typer.Option(help="retail, media, family_tv or b2b")] = "retail",
    folder: Annotated[str, typer.Option(help="where the demo keeps its data")] = "onymous-demo",
    port: Annotated[int, typer.Option(help="port; 0 takes a free one")] = 8210,
    clicks: Annotated[bool, typer.Option(help="replay the real click stream as well")] = True,
    stay: Annotated[bool, typer.Option(help="leave the server up at the end")] = True,
    as_json: JsonOption = False,
) -> None:
    """Start a server, let simulated people use it, and show whom it found."""
    _run(
        demonstrate(
            world=world,
            people=people,
            steps=steps,
            seed=seed,
            folder=pathlib.Path(folder),
            port=port,
            clicks=clicks,
            stay=stay,
            as_json=as_json,
            console=errors if as_json else console,
        )
    )


@app.command()
def init(
    file: Annotated[str, typer.Argument(help="file to write")] = "onymous.yaml",
    organization: Annotated[str, typer.Option(help="name of your company")] = "My company",
    as_json: JsonOption = False,
) -> None:
    """Write a starter configuration."""
    path = pathlib.Path(file)
    if path.exists():
        errors.print(f"[red]{path} exists; choose another name or remove it[/]")
        raise typer.Exit(2)
    path.write_text(starter(organization), "utf-8")
    if as_json:
        typer.echo(json.dumps({"wrote": str(path)}))
    else:
        console.print(f"wrote {path}; next: onymous apply {path}")


@app.command("apply")
def apply_(
    file: Annotated[str, typer.Argument(help="configuration to apply")] = "onymous.yaml",
    store: StoreOption = None,
    dry_run: Annotated[bool, typer.Option(help="show what would happen, change nothing")] = False,
    as_json: JsonOption = False,
) -> None:
    """Make the tenants and rules of a file real; refuses what would mix or lose people."""
    try:
        text = pathlib.Path(file).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        errors.print(f"[red]{file} cannot be read: {type(error).__name__}[/]")
        raise typer.Exit(2) from None

    try:
        out = _run(_apply(_settings(store=store), text, dry_run))
    except BadDocument as error:
        for problem in error.problems:
            errors.print(f"problem: {problem}", highlight=False, markup=False)
        raise typer.Exit(1) from None
    except ChangeRefused as error:
        for step in error.refused:
            errors.print(str(step), highlight=False, markup=False)
        errors.print("[red]refused: nothing was changed[/]")
        raise typer.Exit(1) from None
    if as_json:
        typer.echo(msgspec.json.encode(out).decode())
    else:
        _show_applied(out)
    if out.refused:
        raise typer.Exit(1)


async def _apply(settings: Settings, text: str, dry_run: bool) -> Applied:
    async with running(settings) as core:
        now = time.time_ns() // 1_000_000
        return await apply(
            core.store, core.key, text, dry_run=dry_run, actor="operator", now_ms=now
        )


def _show_applied(out: Applied) -> None:
    for warning in out.warnings:
        console.print(f"advice: {warning}", highlight=False, markup=False)
    for step in out.steps:
        console.print(str(step), highlight=False, markup=False)
    if not out.changed:
        console.print("nothing to change")
    if out.dry_run:
        console.print("dry run: nothing was changed")
    if out.credentials:
        console.print("new credentials; secrets are shown this once:")
        for c in out.credentials:
            typer.echo(f"  {c.workspace}/{c.input}\n    key    {c.api_key}\n    secret {c.secret}")


@app.command()
def serve(
    store: StoreOption = None,
    host: Annotated[str | None, typer.Option(help="address to listen on")] = None,
    port: Annotated[int | None, typer.Option(help="port; 0 takes a free one")] = None,
    tls_cert: Annotated[str | None, typer.Option(help="certificate chain (PEM)")] = None,
    tls_key: Annotated[str | None, typer.Option(help="private key (PEM)")] = None,
    tls_dev: Annotated[bool, typer.Option(help="https with a throw-away certificate")] = False,
    as_json: JsonOption = False,
) -> None:
    """Serve the APIs until interrupted."""
    settings = _settings(
        store=store,
        host=host,
        port=port,
        tls_cert=tls_cert,
        tls_key=tls_key,
        tls_dev=tls_dev or None,
    )
    set_up_logging(settings.log_format)

    async def work() -> None:
        sock = listen(settings)
        name = sock.getsockname()[:2]

        def started() -> None:
            line = json.dumps({"serving": list(name)}) if as_json else f"serving on {name}"
            print(line, flush=True)

        await Server(settings).run(sock, started)

    _run(work())


@app.command()
def check(
    files: Annotated[list[str], typer.Argument(help="scenario files (JSON Lines)")],
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run scenario files through the real rules on a throw-away or given store."""
    results = _run(_check(files, store))
    failed = [r for r in results if not r.passed]
    if as_json:
        rows = [{"id": r.id, "passed": r.passed, "problems": r.problems} for r in results]
        typer.echo(json.dumps({"results": rows, "failed": len(failed)}))
    else:
        for result in failed:
            console.print(f"[red]FAILED[/] {result.id} {result.title}", highlight=False)
            for line in (*result.problems, *result.trace):
                console.print(f"    {line}", highlight=False, markup=False, soft_wrap=True)
        console.print(f"{len(results) - len(failed)} passed, {len(failed)} failed")
    if failed or not results:
        raise typer.Exit(1)


async def _check(files: list[str], store: str | None) -> list[Result]:
    cases = []
    for name in files:
        path = pathlib.Path(name)
        if not path.is_file():
            raise BadScenario(f"{name} is not a file")
        cases += read_scenarios(path.read_text("utf-8"), path.name)
    with tempfile.TemporaryDirectory(prefix="onymous-check-") as folder:
        async with running(_settings(store=store or f"sqlite:{folder}/store")) as core:
            # far above any tenant's scope, and new for every run
            first = 1_000_000 + (time.time_ns() // 1_000_000) % 1_000_000_000 * 1000
            return await run_scenarios(core, cases, first)


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
    known = dict(item.partition("=")[::2] for item in identities)
    body = {"environment": environment, "known_identities": known}
    params = {"explain": "true", "read_only": "false" if write else "true"}
    answer = _ask(url, key, secret, "POST", f"/v1/{operation}", params, body)
    if as_json:
        typer.echo(json.dumps(answer))
        return
    tree = Tree(f"[bold]{answer.get('mpid') or 'nobody yet: a new profile would be made'}[/]")
    for line in answer.get("trace_text", []):
        tree.add(line, highlight=False)
    console.print(tree)


@app.command()
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
    answer = _ask(url, key, secret, "GET", f"/v1/{mpid}/history", params, None)
    if as_json:
        typer.echo(json.dumps(answer))
        return
    tree = Tree(f"[bold]{answer['mpid']}[/]")
    for name in answer["identities"]:
        tree.add(f"{name['identity_type']} = {name['value']} ({name['input']})", highlight=False)
    console.print(tree)
    for entry in answer["entries"]:
        what = ", ".join(
            f"{c['change']} {c.get('identity_type', '')} {c.get('value', '')}".strip()
            for c in entry["changes"]
        )
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(entry["at_ms"] / 1000))
        console.print(
            f"{when} {entry['operation']}: {what}", highlight=False, markup=False, soft_wrap=True
        )


def _ask(
    url: str,
    key: str,
    secret: str,
    method: str,
    path: str,
    params: dict[str, str],
    body: object,
) -> dict[str, Any]:
    """Ask a server; exit with its message if it refuses."""
    try:
        reply = httpx.request(
            method, url + path, params=params, json=body, auth=(key, secret), trust_env=False
        )
    except httpx.HTTPError as error:
        errors.print(f"[red]{url} does not answer: {type(error).__name__}; is it serving?[/]")
        raise typer.Exit(2) from None
    answer: dict[str, Any] = reply.json() if reply.content else {}
    if reply.status_code >= 400:
        text = answer.get("message", f"status {reply.status_code}")
        errors.print(f"[red]{text}[/] {answer.get('hint', '')}", highlight=False)
        raise typer.Exit(1)
    return answer


@app.command("settings")
def settings_(as_json: JsonOption = False) -> None:
    """All settings with their defaults and meaning."""
    if as_json:
        rows = [{"name": s.name, "default": s.default, "help": s.help} for s in TABLE]
        typer.echo(json.dumps(rows))
        return
    table = Table()
    for column in ("setting", "type", "default", "meaning"):
        table.add_column(column)
    for s in TABLE:
        table.add_row(s.name, s.kind.__name__, str(s.default), s.help)
    console.print(table)


@app.command()
def reference(
    write: Annotated[bool, typer.Option(help="write the pages, else list the stale ones")] = False,
    folder: Annotated[str, typer.Option(help="where they are")] = "docs/reference",
) -> None:
    """Keep the generated reference pages fresh (for contributors)."""
    path = pathlib.Path(folder)
    if write:
        changed = write_pages(path)
    else:
        changed = [n for n, t in pages().items() if _read(path / n) != t]
    for name in changed:
        console.print(name)
    if changed and not write:
        raise typer.Exit(1)


def _read(path: pathlib.Path) -> str:
    return path.read_text("utf-8") if path.exists() else ""
