"""`onymous serve` and `onymous work`: the APIs, and the work behind them, until interrupted."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Annotated, Any

import typer

from onymous import early
from onymous.commands.common import (
    JsonOption,
    StoreOption,
    app,
    run_now,
    settings_of,
    told,
)
from onymous.logs import set_up_logging
from onymous.processes import serve_many
from onymous.serving import Server, listen
from onymous.settings import Settings

HostOption = Annotated[str | None, typer.Option(help="address to listen on")]
PortOption = Annotated[int | None, typer.Option(help="port; 0 takes a free one")]
ManageOption = Annotated[
    int | None, typer.Option(help="own port for /metrics, /console; further processes: the next")
]


@app.command()
def serve(
    store: StoreOption = None,
    host: HostOption = None,
    port: PortOption = None,
    tls_cert: Annotated[str | None, typer.Option(help="certificate chain (PEM)")] = None,
    tls_key: Annotated[str | None, typer.Option(help="private key (PEM)")] = None,
    tls_dev: Annotated[bool, typer.Option(help="https with a throw-away certificate")] = False,
    manage_port: ManageOption = None,
    work: Annotated[
        bool | None, typer.Option(help="do promised work here, or leave it to `onymous work`")
    ] = None,
    processes: Annotated[int, typer.Option(help="so many on one port", min=1, max=64)] = 1,
    as_json: JsonOption = False,
) -> None:
    """Serve the APIs until interrupted (SIGTERM: what was accepted is answered first)."""
    flags: dict[str, Any] = {"tls_cert": tls_cert, "tls_key": tls_key, "tls_dev": tls_dev or None}
    flags |= {"manage_port": manage_port, "work": work}
    settings = settings_of(store=store, host=host, port=port, **flags)
    set_up_logging(settings.log_format)

    def tell(place: list[Any]) -> None:
        scheme = "https" if settings.tls_cert or settings.tls_dev else "http"
        name = f"[{place[0]}]" if ":" in str(place[0]) else place[0]
        text = (
            json.dumps({"serving": place}) if as_json else _where(f"{scheme}://{name}:{place[1]}")
        )
        print(text, flush=True)

    many = serve_many(settings, processes, tell) if processes > 1 else _one(settings, tell)
    _end(run_now(many))


def _where(url: str) -> str:
    return f"serving on {url}; the API is at {url}/docs"


async def _one(settings: Settings, tell: Callable[[list[Any]], None]) -> int:
    sock = listen(settings)
    place = list(sock.getsockname()[:2])
    return await _run(Server(settings), sock, lambda: tell(place))


@app.command()
def work(
    store: StoreOption = None, manage_port: ManageOption = None, as_json: JsonOption = False
) -> None:
    """Do promised jobs and upkeep until interrupted; any number of these may run."""
    settings: Settings = settings_of(store=store, manage_port=manage_port, work=True)
    set_up_logging(settings.log_format)

    def tell() -> None:
        print(json.dumps({"working": settings.manage_port}) if as_json else "working", flush=True)

    _end(run_now(_run(Server(settings), None, tell)))


async def _run(server: Server, sock: Any, started: Any) -> int:
    def open_now() -> None:
        early.end()
        started()

    cut = await server.run(sock, open_now, signals=True)
    if cut:
        told().print(f"{cut} requests were cut off: they took longer than stop_timeout_s")
    return int(cut > 0 or server.core.outdated)


def _end(code: int) -> None:
    if code:
        raise typer.Exit(code)
