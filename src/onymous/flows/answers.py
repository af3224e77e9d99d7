"""Questions and answers of the Identity API, free of any transport."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from onymous.rules.errors import Refusal
from onymous.rules.trace import Trace

if TYPE_CHECKING:
    from onymous.flows.tenants import Caller


class Question(msgspec.Struct, kw_only=True):
    """An identify, login, logout or search as it came in."""

    op: str
    caller: Caller
    environment: str
    known: Mapping[str, object]
    now_ms: int
    previous: object = None
    request_id: str | None = None
    #: digest of the body, to tell a repeat from another request under the same id
    digest: bytes = b""
    #: the caller proved nothing but a public key (rulings 12)
    key_only: bool = False
    read_only: bool = False
    explain: bool = False
    #: fold all spellings (events, feeds, files) instead of the strict Identity API ones
    fold_keys: bool = False
    #: feeds: a row may replace the lower values of the record it matched
    replace_values: bool = False
    max_values: int = 200


class Match(msgspec.Struct, kw_only=True):
    """One holder found by Search with reach `any`."""

    mpid: str
    known: bool
    orphaned: bool
    matched_on: list[str]
    user_identities: dict[str, list[str]]
    device_identities: dict[str, list[str]]
    last_seen_ms: int


class Answer(msgspec.Struct, kw_only=True):
    """What is answered. `refusal` set: an error, and nothing was written."""

    mpid: str | None = None
    logged_in: bool = False
    ephemeral: bool = True
    matched: dict[str, str] = {}
    refusal: Refusal | None = None
    trace: Trace | None = None
    #: modify: (type, MPID) of each record that changed
    changes: list[tuple[str, str]] = []
    #: feed rows that belong to several people
    conflict: list[str] = []
    #: aliases: applied or rejected, and why
    outcome: str | None = None
    reason: str | None = None
    matches: list[Match] | None = None
    next_page: str | None = None
    created: bool = False


class Kept(msgspec.Struct, array_like=True):
    """The part of an answer that is kept for repeats of the request; no identity values."""

    mpid: str | None
    logged_in: bool
    ephemeral: bool
    matched: list[str]
    changes: list[tuple[str, str]] = []
    outcome: str | None = None
    reason: str | None = None


Done = Callable[[Answer], Any]

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Kept).decode


def keep(answer: Answer) -> bytes:
    """Pack an answer for repeats."""
    return _encode(without_values(answer))


def without_values(answer: Answer) -> Kept:
    """Return the part of an answer that is kept for repeats."""
    a = answer
    return Kept(a.mpid, a.logged_in, a.ephemeral, list(a.matched), a.changes, a.outcome, a.reason)


def kept(data: bytes | Kept, given: Mapping[str, object]) -> Answer:
    """Unpack an answer given before; the values come from the repeated request itself."""
    k = _decode(data) if isinstance(data, bytes) else data
    return Answer(
        mpid=k.mpid,
        logged_in=k.logged_in,
        ephemeral=k.ephemeral,
        matched={name: str(given[name]).strip() for name in k.matched if name in given},
        changes=k.changes,
        outcome=k.outcome,
        reason=k.reason,
    )


class Recent:
    """The last answers by request id, so that a repeat gets the same one (rulings 15).

    Answers that changed something are kept in the database as well; those that only read live
    here, in this process, for at least the last `most` requests.
    """

    def __init__(self, most: int = 25_000) -> None:
        self._most = most
        self._new: dict[tuple[int, str], tuple[bytes, Kept]] = {}
        self._old: dict[tuple[int, str], tuple[bytes, Kept]] = {}

    def get(self, input_id: int, request_id: str, digest: bytes) -> Kept | None:
        """Return the kept answer of an equal request, or None."""
        key = (input_id, request_id)
        found = self._new.get(key) or self._old.get(key)
        return found[1] if found is not None and found[0] == digest else None

    def put(self, input_id: int, request_id: str, digest: bytes, answer: Kept) -> None:
        """Keep an answer."""
        if len(self._new) >= self._most:
            self._old, self._new = self._new, {}
        self._new[input_id, request_id] = (digest, answer)
