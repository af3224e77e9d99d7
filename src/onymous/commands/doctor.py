"""`onymous doctor`: what is not as it should be, and what to do."""

from __future__ import annotations

import json
from typing import Annotated

import msgspec
import typer

from onymous import doctor, doctor_url
from onymous.commands.common import JsonOption, StoreOption, app, console, run_now, settings_of
from onymous.settings import Settings

_COLOUR = {doctor.OK: "green", doctor.WARN: "yellow", doctor.FAIL: "red"}


@app.command("doctor")
def doctor_(
    url: Annotated[
        str, typer.Argument(help="where clients reach the server, such as https://...")
    ] = "",
    key: Annotated[
        str, typer.Option(help="API key of a web input; default: one of the store")
    ] = "",
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Look at settings, disk, clock, keys, schema, backups and, with a URL, at TLS, CORS, proxy."""
    settings = settings_of(store=store)
    found = run_now(_local(settings))
    if url:
        key = key or run_now(doctor.web_key(settings))
        found += doctor_url.of_url(url, key, settings)
    if as_json:
        typer.echo(json.dumps({"checks": msgspec.to_builtins(found)}))
    else:
        for check in found:
            mark = f"[{_COLOUR[check.state]}]{check.state:>4}[/]"
            console.print(f"{mark}  {check.name}: ", end="", highlight=False)
            console.print(check.what, highlight=False, markup=False)
            if check.todo:
                console.print(f"      {check.todo}", highlight=False, markup=False)
    if any(check.state == doctor.FAIL for check in found):
        raise typer.Exit(1)


async def _local(settings: Settings) -> list[doctor.Check]:
    return doctor.of_settings(settings) + await doctor.of_store(settings)
