"""The command line."""

from __future__ import annotations

from typing import Annotated

import typer
import uvloop

from onymous.observe import set_up_logging
from onymous.serving import Server, listen
from onymous.settings import load

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback()
def main() -> None:
    """Onymous: the open, self-hosted identity layer."""


@app.command()
def serve(
    store: Annotated[str | None, typer.Option(help="sqlite:FOLDER or postgresql://...")] = None,
    host: Annotated[str | None, typer.Option(help="address to listen on")] = None,
    port: Annotated[int | None, typer.Option(help="port; 0 takes a free one")] = None,
) -> None:
    """Serve the APIs until interrupted."""
    settings = load({"store": store, "host": host, "port": port})
    set_up_logging(settings.log_format)
    sock = listen(settings)
    server = Server(settings)
    uvloop.run(server.run(sock, lambda: print("serving on", sock.getsockname()[:2], flush=True)))
