"""Several serving processes on one port: started one after the other, replaced when they die.

The kernel spreads connections over the processes that listen. The first one also does promised
work; with `manage_port` each has an operators' port of its own, counted up from there.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from onymous.settings import SettingError, Settings, environment
from onymous.stopping import Ending, notify

log = logging.getLogger("onymous.processes")

#: seconds before a process that died is replaced, growing while it dies again and again
PAUSE_S, LONGEST_PAUSE_S = 0.2, 10.0
#: seconds a process has, beyond those it waits for requests, before it is killed
SPARE_S = 15.0


async def serve_many(settings: Settings, count: int, tell: Callable[[list[Any]], None]) -> int:
    """Serve with several processes until told to stop; return the exit code."""
    with _reserved(settings) as place:
        settings = replace(settings, port=place[1])
        group = _Group(settings, count)
        with group.ending.signals():
            if not settings.manage_port:
                log.warning("metrics tell of one process only: set manage_port")
            await group.start()
            notify("READY=1")
            tell(place)
            await group.ending.asked()
            notify("STOPPING=1")
            return await group.stop()


@contextlib.contextmanager
def _reserved(settings: Settings) -> Any:
    """Hold the port, without listening, so that all processes get the same one."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            sock.bind((settings.host, settings.port))
        except OSError as error:
            raise SettingError(
                f"cannot listen on {settings.host}:{settings.port}: {error.strerror};"
                " choose another port"
            ) from None
        yield list(sock.getsockname()[:2])


class _Group:
    """The processes, and one task each that keeps it alive."""

    def __init__(self, settings: Settings, count: int) -> None:
        self._settings, self._count = settings, count
        self.ending = Ending()
        self._tasks: list[asyncio.Task[int]] = []

    async def start(self) -> None:
        """Start one after the other: the first one brings the schema up to date."""
        for number in range(self._count):
            up = asyncio.Event()
            task = asyncio.create_task(self._keep(number, up))
            self._tasks.append(task)
            waiting = asyncio.create_task(up.wait())
            await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            if task.done() and not self.ending():
                self.ending.ask()
                await self.stop()
                raise SettingError("a process did not start; its own words are above")

    async def stop(self) -> int:
        """Wait until all ended; return the worst exit code."""
        codes = await asyncio.gather(*self._tasks)
        return max((abs(code) for code in codes), default=0)

    async def _keep(self, number: int, up: asyncio.Event) -> int:
        """Keep one process running until asked to end; return its last exit code."""
        pause = PAUSE_S
        while True:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "onymous", "serve", "--json"),
                stdout=asyncio.subprocess.PIPE,
                stdin=asyncio.subprocess.DEVNULL,
                env=self._environment(number),
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )
            code = await self._watch(process, up)
            if self.ending() or not up.is_set():
                return code
            log.error("process %s ended with %s and is replaced", number, code)
            await self.ending.asked_within(pause)
            if self.ending():
                return code
            pause = min(pause * 2, LONGEST_PAUSE_S)

    async def _watch(self, process: asyncio.subprocess.Process, up: asyncio.Event) -> int:
        assert process.stdout is not None
        ended = asyncio.create_task(process.wait())
        asked = asyncio.create_task(self.ending.asked())
        try:
            if await process.stdout.readline():
                up.set()
            await asyncio.wait({ended, asked}, return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                await self._end(process, ended)
            return await ended
        finally:
            asked.cancel()

    async def _end(self, process: asyncio.subprocess.Process, ended: asyncio.Task[int]) -> None:
        """Pass the request to end on, a second one too; kill what does not end."""
        process.send_signal(signal.SIGTERM)
        again = asyncio.create_task(self.ending.asked(2))
        s = self._settings
        patience = s.stop_delay_s + s.stop_timeout_s * 2 + SPARE_S
        done, _ = await asyncio.wait(
            {ended, again}, timeout=patience, return_when=asyncio.FIRST_COMPLETED
        )
        if again in done and not ended.done():
            process.send_signal(signal.SIGTERM)
            await asyncio.wait({ended}, timeout=SPARE_S)
        again.cancel()
        if not ended.done():
            log.error("a process did not end and is killed")
            process.kill()

    def _environment(self, number: int) -> dict[str, str]:
        s = self._settings
        if number:
            manage = s.manage_port + number if s.manage_port else 0
            s = replace(s, work=False, manage_port=manage)
        return {**os.environ, **environment(s), "NOTIFY_SOCKET": ""}


def _die_with_parent() -> None:
    """Let the kernel end a process whose parent was killed (PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
