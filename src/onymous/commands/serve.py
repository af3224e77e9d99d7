"""`onymous serve` and `onymous work` as the command line knows them; `starting` does them."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from onymous.commands.common import JsonOption, StoreOption, app
from onymous.starting import MOST_PROCESSES, Line, run

HostOption = Annotated[str | None, typer.Option(help="address to listen on")]
PortOption = Annotated[int | None, typer.Option(help="port; 0 takes a free one")]
ManageOption = Annotated[
    int | None, typer.Option(help="own port for /metrics, /console; further processes: the next")
]
ProcessesOption = Annotated[
    int, typer.Option(help="so many on one port", min=1, max=MOST_PROCESSES)
]


@app.command()
def serve(
    store: StoreOption = None,
    host: HostOption = None,
    port: PortOption = None,
    tls_cert: Annotated[str | None, typer.Option(help="certificate chain (PEM)")] = None,
    tls_key: Annotated[str | None, typer.Option(help="private key (PEM)")] = None,
    tls_dev: Annotated[
        bool | None, typer.Option(help="https with a throw-away certificate")
    ] = None,
    manage_port: ManageOption = None,
    work: Annotated[
        bool | None, typer.Option(help="do promised work here, or leave it to `onymous work`")
    ] = None,
    processes: ProcessesOption = 1,
    as_json: JsonOption = False,
) -> None:
    """Serve the APIs until interrupted (SIGTERM: what was accepted is answered first)."""
    flags: dict[str, Any] = {"store": store, "host": host, "port": port}
    flags |= {"tls_cert": tls_cert, "tls_key": tls_key, "tls_dev": tls_dev}
    flags |= {"manage_port": manage_port, "work": work}
    _end(run(Line("serve", flags, processes, as_json)))


@app.command()
def work(
    store: StoreOption = None, manage_port: ManageOption = None, as_json: JsonOption = False
) -> None:
    """Do promised jobs and upkeep until interrupted; any number of these may run."""
    flags = {"store": store, "manage_port": manage_port}
    _end(run(Line("work", flags, as_json=as_json)))


def _end(code: int) -> None:
    if code:
        raise typer.Exit(code)
