"""What `onymous serve` and `onymous work` do, and how their plain options are read.

A server is to answer within a second, and the library that reads command lines takes a good part
of that. So options written in the plain way are read here; whatever else a line says (help, an
unknown option, a value that is none) is left to `commands/serve.py`, which ends here as well.
"""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import uvloop

from onymous import early
from onymous.later import module
from onymous.logs import set_up_logging
from onymous.serving import Server, listen
from onymous.settings import Settings, load_here

processes, common = module("onymous.processes"), module("onymous.commands.common")

#: options of the commands and how they are read: a text, a whole number, or a switch
OPTIONS: dict[str, dict[str, type]] = {
    "serve": {
        "store": str,
        "host": str,
        "port": int,
        "tls_cert": str,
        "tls_key": str,
        "tls_dev": bool,
        "manage_port": int,
        "work": bool,
        "processes": int,
        "json": bool,
    },
    "work": {"store": str, "manage_port": int, "json": bool},
}
#: most processes on one port
MOST_PROCESSES = 64


class Line(msgspec.Struct):
    """A command line that was understood."""

    command: str
    flags: dict[str, Any] = {}
    processes: int = 1
    as_json: bool = False


def read(command: str, arguments: Sequence[str]) -> Line | None:
    """Return what the arguments of a command say, or None where they are not plain."""
    options, found = OPTIONS[command], dict[str, Any]()
    rest = iter(arguments)
    for argument in rest:
        name, given, value = argument.removeprefix("--").partition("=")
        name, on = name.replace("-", "_"), True
        if name.startswith("no_"):
            name, on = name.removeprefix("no_"), False
        kind = options.get(name)
        if not argument.startswith("--") or kind is None or "_" in argument.partition("=")[0]:
            return None
        if kind is bool:
            if given or (not on and name == "json"):
                return None
            found[name] = on
            continue
        value = value if given else next(rest, "")
        plain = value and not value.startswith("-") and on
        if not plain or (kind is int and not (value.isascii() and value.isdigit())):
            return None
        found[name] = kind(value)
    count, as_json = found.pop("processes", 1), found.pop("json", False)
    if not 1 <= count <= MOST_PROCESSES:
        return None
    return Line(command, found, count, as_json)


def run(line: Line) -> int:
    """Do what a line says until told to end; return the exit code.

    What goes wrong is told as every command tells it.
    """
    try:
        return _do(line)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        code: int = common.ended(error, machines=line.as_json)
        return code


def _do(line: Line) -> int:
    serving = line.command == "serve"
    flags = line.flags if serving else line.flags | {"work": True}
    settings = load_here(flags)
    set_up_logging(settings.log_format)

    def tell(place: list[Any]) -> None:
        print(_told(settings, line.as_json, place), flush=True)

    if line.processes > 1:
        gc.enable()
        code: int = uvloop.run(processes.serve_many(settings, line.processes, tell))
        return code
    return uvloop.run(_one(settings, tell, serving=serving))


def _told(settings: Settings, as_json: bool, place: list[Any]) -> str:
    """Return what is said once it runs; without a place only promised work is done."""
    if not place:
        return json.dumps({"working": settings.manage_port}) if as_json else "working"
    if as_json:
        return json.dumps({"serving": place})
    scheme = "https" if settings.tls_cert or settings.tls_dev else "http"
    name = f"[{place[0]}]" if ":" in str(place[0]) else place[0]
    url = f"{scheme}://{name}:{place[1]}"
    return f"serving on {url}; the API is at {url}/docs"


async def _one(settings: Settings, tell: Callable[[list[Any]], None], *, serving: bool) -> int:
    sock = listen(settings) if serving else None
    place = list(sock.getsockname()[:2]) if sock is not None else []
    server = Server(settings)

    def open_now() -> None:
        early.end()
        tell(place)

    cut = await server.run(sock, open_now, signals=True)
    if cut:
        text = f"{cut} requests were cut off: they took longer than stop_timeout_s"
        print(text, file=sys.stderr, flush=True)
    return int(cut > 0 or server.core.outdated)
