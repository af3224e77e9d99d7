"""Whose request is meant by an id that inputs choose for themselves.

Inputs of a shared scope may use the same id. Asked by an input, its own request is meant, then that
of its workspace; where that leaves several the caller must say which.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

import msgspec

from onymous.flows.tenants import Caller
from onymous.rules.errors import SeveralRequests


class Whose(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of whose request is meant; nothing: the caller's own first."""

    #: name of an input, or workspace/input
    input: str = ""
    workspace: str = ""
    #: the number of the input
    number: int | None = None


class Sent(Protocol):
    """A request somebody sent."""

    input: int


T = TypeVar("T", bound=Sent)


def chosen(
    found: Iterable[T], caller: Caller, whose: Whose, by_id: Callable[[int], Caller | None]
) -> T | None:
    """Return the request that is meant, of those of an id, newest first; None: there is none.

    Raises `SeveralRequests` where that cannot be told.
    """
    by: dict[int, T] = {}
    for one in found:
        by.setdefault(one.input, one)
    if whose.number is not None:
        return by.get(whose.number)
    senders = {number: by_id(number) for number in by}
    fits = [number for number, sender in senders.items() if _fits(sender, whose)]
    if not whose.input and caller.input in fits:
        return by[caller.input]
    if not whose.input and not whose.workspace:
        own = [n for n in fits if (s := senders[n]) is not None and s.workspace == caller.workspace]
        fits = own or fits
    if len(fits) > 1:
        raise SeveralRequests(what=", ".join(sorted(_name(senders[n], n) for n in fits)))
    return by[fits[0]] if fits else None


def _fits(sender: Caller | None, whose: Whose) -> bool:
    if sender is None:
        return not whose.input and not whose.workspace
    names = ("", sender.name, f"{sender.workspace_name}/{sender.name}")
    return whose.input in names and whose.workspace in ("", sender.workspace_name)


def _name(sender: Caller | None, number: int) -> str:
    return f"input {number}" if sender is None else f"{sender.workspace_name}/{sender.name}"
