"""Questions and answers of the Identity API, free of any transport."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
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
    #: the body as it came, to tell a repeat from another request under the same id
    body: bytes = b""
    #: the caller proved nothing but a public key (rulings 12)
    key_only: bool = False
    read_only: bool = False
    explain: bool = False
    #: fold all spellings (events, feeds, files) instead of the strict Identity API ones
    fold_keys: bool = False
    #: feeds: a row may replace the lower values of the record it matched
    replace_values: bool = False
    max_values: int = 200

    def fingerprint(self) -> bytes:
        """Return the digest that tells a repeat from another request; it outlives this process."""
        return hashlib.blake2b(self.body, digest_size=12, person=self.op.encode()).digest()


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
    a = answer
    return _encode(
        Kept(a.mpid, a.logged_in, a.ephemeral, list(a.matched), a.changes, a.outcome, a.reason)
    )


def kept(data: bytes, given: Mapping[str, object]) -> Answer:
    """Unpack an answer given before; the values come from the repeated request itself."""
    k = _decode(data)
    return Answer(
        mpid=k.mpid,
        logged_in=k.logged_in,
        ephemeral=k.ephemeral,
        matched=_given(k.matched, given),
        changes=k.changes,
        outcome=k.outcome,
        reason=k.reason,
    )


def _given(names: Iterable[str], given: Mapping[str, object]) -> dict[str, str]:
    return {name: str(given[name]).strip() for name in names if name in given}


#: hash of the body, MPID, logged in, ephemeral, matched types; no identity values
_Short = tuple[int, str, bool, bool, tuple[str, ...]]


class Recent:
    """The last answers by request id, so that a repeat gets the same one (rulings 15).

    Answers that changed something are kept in the database as well; those that only read live
    here, in this process, for at least the last `most` requests.
    """

    def __init__(self, most: int = 15_000) -> None:
        self._most = most
        self._new: dict[tuple[int, str], _Short] = {}
        self._old: dict[tuple[int, str], _Short] = {}

    def knows(self, question: Question) -> bool:
        """Return whether an answer was given under this request id, perhaps to another request."""
        key = (question.caller.input, question.request_id or "")
        return key in self._new or key in self._old

    def get(self, question: Question) -> Answer | None:
        """Return the answer given to an equal request, or None."""
        key = (question.caller.input, question.request_id or "")
        found = self._new.get(key) or self._old.get(key)
        if found is None or found[0] != hash((question.op, question.body)):
            return None
        return Answer(
            mpid=found[1],
            logged_in=found[2],
            ephemeral=found[3],
            matched=_given(found[4], question.known),
        )

    def put(self, question: Question, answer: Answer) -> None:
        """Keep an answer, if its request has an id."""
        if question.request_id is not None and (mpid := answer.mpid) is not None:
            names = tuple(answer.matched)
            self.keep(question, mpid, answer.logged_in, answer.ephemeral, names)

    def keep(
        self,
        question: Question,
        mpid: str,
        logged_in: bool,
        ephemeral: bool,
        matched: tuple[str, ...],
    ) -> None:
        """Keep an answer to a request that has an id."""
        if len(self._new) >= self._most:
            self._old, self._new = self._new, {}
        told = (hash((question.op, question.body)), mpid, logged_in, ephemeral, matched)
        self._new[question.caller.input, question.request_id or ""] = told
