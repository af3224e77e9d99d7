"""`onymous demo`: a server, simulated people, and whom it found."""

from __future__ import annotations

import pathlib
from typing import Annotated

import typer

from onymous.commands.common import JsonOption, app, console, errors, run_now
from onymous.lab.demonstrate import demonstrate


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
    run_now(
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
