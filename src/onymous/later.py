"""Libraries that are imported when they are first used: a server must start within a second.

Only where a library takes tens of milliseconds to import and most processes never need it, or not
at once (phone numbers, tokens, pages, documents, colours of a terminal).
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Iterable
from typing import Any


class Later:
    """Stands for an object until something of it is used."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._made: Any = None

    def __getattr__(self, name: str) -> Any:
        """Return what the object has; makes the object first."""
        if self._made is None:
            self._made = self._make()
        return getattr(self._made, name)


def module(name: str) -> Any:
    """Return what stands for a module until something of it is used."""
    return Later(lambda: importlib.import_module(name))


def fetch(names: Iterable[str]) -> None:
    """Import modules in a thread of their own, so that no request waits for them."""

    def work() -> None:
        for name in names:
            importlib.import_module(name)

    threading.Thread(target=work, name="onymous-later", daemon=True).start()
