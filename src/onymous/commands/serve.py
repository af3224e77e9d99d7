"""`onymous serve`: the APIs until interrupted."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from onymous.commands.common import JsonOption, StoreOption, app, run_now, settings_of
from onymous.observe import set_up_logging
from onymous.serving import Server, listen


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
    settings = settings_of(
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

    run_now(work())
