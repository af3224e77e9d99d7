"""Libraries that are imported when they are first used: a server must start within a second.

Only where a library takes tens of milliseconds to import and most processes never need it, or not
at once (phone numbers, tokens, pages, documents, colours of a terminal).
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
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


_running = threading.RLock()


class _Hollow(ModuleType):
    """A module whose code has not run; what is missing makes it run, unless it is a part."""

    #: what of it stands in which part
    _known: Mapping[str, str]

    def __getattr__(self, name: str) -> Any:
        if name in self._known:
            return getattr(importlib.import_module(self._known[name]), name)
        if _part(self, name):
            raise AttributeError(name)  # whoever imports the part asks whether it is there
        with _running:
            if type(self) is _Hollow:
                self.__class__ = ModuleType  # type: ignore[assignment]
                assert self.__spec__ is not None and self.__spec__.loader is not None
                self.__spec__.loader.exec_module(self)
        return getattr(self, name)


def _part(package: ModuleType, name: str) -> bool:
    path = package.__dict__.get("__path__")
    finder, full = importlib.machinery.PathFinder, f"{package.__name__}.{name}"
    return path is not None and finder.find_spec(full, path) is not None


def hollow(name: str, **known: str) -> None:
    """Have a library's module run only when something of it is used that is no part of it.

    For packages whose parts are imported, while what the package itself brings is never used, and
    for modules that libraries import and hardly ever use. `known` names what stands in a part:
    asking for that makes only the part run. Does nothing for what is imported already or cannot
    be found.
    """
    spec = None if name in sys.modules else importlib.util.find_spec(name)
    if spec is None or spec.loader is None:
        return
    module = importlib.util.module_from_spec(spec)
    module.__dict__["_known"] = known
    module.__class__ = _Hollow
    sys.modules[name] = module
    parent, _, last = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], last, module)
