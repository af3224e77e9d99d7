"""What SDKs send and get acknowledged, kept durably until its meaning is worked out.

Works of one tick share a commit with the identity requests: acceptance costs no fsync of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import msgspec

from onymous.flows.desk import Desk
from onymous.flows.working import Working
from onymous.rules.errors import Internal, Refusal
from onymous.store import sql
from onymous.store.port import Found, Kept, Probe


class Accepted(msgspec.Struct, kw_only=True):
    """One request to keep."""

    kind: str
    at_ms: int
    workspace: int
    input: int
    development: bool
    #: the uncompressed body; the same one of the same input and kind is kept once
    body: bytes
    #: why it was set aside
    reason: str | None = None


def accept(desk: Desk, item: Accepted, done: Callable[[Refusal | None], None]) -> None:
    """Keep a request durably, then call `done(None)`; `done(refusal)` if nothing was kept."""
    desk.submit_write(Keeping(item, done))


class Keeping:
    """One accepted request at the desk."""

    name = "spool"
    probe = Probe(0, {})
    more: tuple[Probe, ...] = ()
    replay: tuple[int, bytes, bytes] | None = None

    def __init__(self, item: Accepted, done: Callable[[Refusal | None], None]) -> None:
        self._item, self._done = item, done

    def look(self, found: Found, desk: Desk) -> bool:
        """Keeping always writes."""
        return False

    def act(self, working: Working, again: Kept | None) -> bytes | None:
        """Note the row to write."""
        i = self._item
        body = msgspec.msgpack.encode(i.body)
        request = hashlib.blake2b(i.body, digest_size=16).hexdigest()
        row = (i.at_ms, i.kind, i.workspace, i.input, int(i.development), request, body, i.reason)
        working.extra.append((sql.SPOOL_ADD, row))
        return None

    def finish(self) -> None:
        """Answer: the request is durable."""
        self._done(None)

    def fail(self, error: Exception) -> None:
        """Answer with an error."""
        self._done(error if isinstance(error, Refusal) else Internal())
