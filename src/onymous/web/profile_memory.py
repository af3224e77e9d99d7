"""Answers of the Profile API that are given again while nothing they are made of has changed.

A page reads the same person again and again. What was read is compared, so an answer is never old;
only making it once more is saved. Nothing is kept longer than a minute or two.
"""

from __future__ import annotations

import msgspec

from onymous.flows.profiles import ProfileView
from onymous.flows.tokens import Holder, Workspace
from onymous.store.port import Row

#: answers of one generation, its length, and the largest answer kept
MOST_KEPT, KEPT_MS, MOST_BYTES = 4_000, 60_000, 16_384
#: longest query whose meaning or answer is kept, bytes
MOST_QUERY = 1_024
_Key = tuple[str, bytes]


class Given(msgspec.Struct, frozen=True):
    """An answer, and what it was made of."""

    holder: Holder
    workspace: Workspace
    pid: int
    mpid: str
    #: what was asked for, as text for the audit
    asked: str
    rows: list[Row]
    tag: bytes
    body: bytes


class Memory:
    """Answers by path and query, in two generations."""

    def __init__(self) -> None:
        self._new: dict[_Key, Given] = {}
        self._old: dict[_Key, Given] = {}
        self._since = 0

    def get(self, path: str, query: bytes, holder: Holder) -> Given | None:
        """Return the answer last given to this holder, or None."""
        key = (path, query)
        found = self._new.get(key) or self._old.get(key)
        # tokens are verified anew whenever credentials or workspaces change
        return found if found is not None and found.holder is holder else None

    def put(self, path: str, query: bytes, given: Given, now_ms: int) -> None:
        """Keep an answer."""
        if len(given.body) > MOST_BYTES or len(query) > MOST_QUERY:
            return
        if len(self._new) >= MOST_KEPT or now_ms - self._since > KEPT_MS:
            self._old, self._new, self._since = self._new, {}, now_ms
        self._new[path, query] = given


def given(
    view: ProfileView, holder: Holder, workspace: Workspace, asked: str, tag: bytes, body: bytes
) -> Given | None:
    """Return an answer to keep, or None where more than its rows decides."""
    if view.made_of is None:
        return None
    return Given(holder, workspace, view.pid, view.mpid, asked, view.made_of, tag, body)
