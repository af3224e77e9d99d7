"""A process of its own for work that would keep this one from answering; it ends with this one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys

from onymous.settings import Settings, environment


class ApartFailed(Exception):
    """The process of its own ended with an error; its words are in the log."""


async def apart(settings: Settings, *words: str) -> None:
    """Let `onymous.aside` do something and wait for it; cancelled, it is killed.

    Raises `ApartFailed` where it ends with an error.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "onymous.aside", str(os.getpid()), *words),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        env={**os.environ, **environment(settings), "NOTIFY_SOCKET": ""},
    )
    try:
        code = await process.wait()
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if code:
        raise ApartFailed
