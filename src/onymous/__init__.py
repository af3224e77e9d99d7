"""Onymous: the open, self-hosted identity layer. One person, many names, every answer explained.

>>> import onymous
>>> ids = onymous.open("./data")
>>> ids.login({"customerid": "42", "email": "a@b.c"}).mpid  # doctest: +SKIP
'-2398457239845723984'
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onymous.library import Onymous, Person, open

__all__ = ["Onymous", "Person", "open"]


def __getattr__(name: str) -> Any:
    """Return what the library offers, imported at its first use: a server needs little of it."""
    if name in __all__:
        return getattr(importlib.import_module("onymous.library"), name)
    raise AttributeError(f"module 'onymous' has no attribute {name!r}")
