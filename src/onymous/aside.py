"""What a process of its own does: `python -m onymous.aside PARENT WHAT ...` (see `apart`)."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine

from onymous.app import master_key, open_store
from onymous.flows.rules_asked import carry_out
from onymous.logs import set_up_logging
from onymous.settings import Settings, load

log = logging.getLogger("onymous.aside")


async def undo_rules(settings: Settings, number: str, grace_s: str) -> None:
    """Carry out an undoing of a change of rules that was asked of a server."""
    store = open_store(settings.store)
    await store.start()
    try:
        key = master_key(settings, make=False)
        await carry_out(store, key, int(number), float(grace_s))
    finally:
        await store.close()


def end_with(parent: int) -> None:
    """Let the kernel end this process when its parent ends, however that ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:  # it ended before it could be asked for
        sys.exit(1)


WHAT: dict[str, Callable[..., Coroutine[None, None, None]]] = {"undo_rules": undo_rules}


def main(words: list[str]) -> int:
    """Do what the words say; return the exit code."""
    parent, what, *rest = words
    end_with(int(parent))
    settings = load()
    set_up_logging(settings.log_format)
    try:
        asyncio.run(WHAT[what](settings, *rest))
    except Exception as error:
        # the message may hold identity values: only the kind of error and where it was
        bare = RuntimeError(type(error).__name__).with_traceback(error.__traceback__)
        log.error("%s failed: %s", what, type(error).__name__, exc_info=bare)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
