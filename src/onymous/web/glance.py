"""Hot requests about people who are known by all that is given (flows/glance.py).

Whatever is unusual about a request is left to the ordinary way (web/identity.py), which gives the
same answers; a test compares the two. Nothing here refuses anything.
"""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Callable

import msgspec

from onymous.flows.answers import Answer, Question
from onymous.flows.glance import PLAIN, Aim, Known, aim
from onymous.flows.identity import Resolver, lookup_keys
from onymous.flows.told import Told
from onymous.limits import Bounds, Trusted
from onymous.rules.errors import Refusal
from onymous.rules.records import MERGED
from onymous.store.port import Probe
from onymous.web.alike import Alike
from onymous.web.auth import Authenticator, Credentials
from onymous.web.calls import Headers, client_address
from onymous.web.guard import Guard
from onymous.web.hot_request import HotRequest
from onymous.web.identity import ENVIRONMENTS, answer_headers, identity_reply, refused
from onymous.web.raw import head, raw
from onymous.web.wire import IdentityBody, Reply, identity_decoder

__all__ = ["PLAIN", "SAMPLE", "Glances"]

_encode = msgspec.json.Encoder().encode
#: hears of each answer: operation, answer, seconds (below zero: not timed)
Observe = Callable[[str, Reply, float], None]
#: the query of a request to be explained
EXPLAINED = b"explain=true"
#: one in so many requests is timed
SAMPLE = 64
_FOUND = Reply(200)


@functools.lru_cache(1_000)
def _head(max_age_s: int) -> bytes:
    return head(200, b"application/json", answer_headers(max_age_s))


class _Told(msgspec.Struct):
    """The answer on the wire."""

    context: None
    matched_identities: dict[str, str]
    is_ephemeral: bool
    mpid: str
    is_logged_in: bool


def wire_of(told: Told) -> bytes:
    """Return the answer as it goes over the wire, and keep it with what was told."""
    about = (told.matched, told.ephemeral, told.mpid, told.logged_in)
    told.wire = body = _encode(_Told(None, *about))
    return body


class Glances:
    """Takes what may be answered at a glance."""

    def __init__(
        self,
        resolver: Resolver,
        authenticator: Authenticator,
        guard: Guard,
        bounds: Bounds,
        trusted: Trusted,
        observe: Observe,
    ) -> None:
        self.resolver, self.guard, self.observe = resolver, guard, observe
        self.alike = Alike()
        self.timed = itertools.cycle([True] + [False] * (SAMPLE - 1)).__next__
        self._auth, self._bounds, self._trusted = authenticator, bounds, trusted

    def take(self, op: str, request: HotRequest) -> bool:
        """Take a plain request from a known caller; return whether it was taken."""
        headers, query = request.headers, request.query
        who = self._auth.known(headers) if isinstance(headers, Headers) else None
        if who is None or who.caller.fold_keys or (query and not self._explains(query, who)):
            return False
        if who.caller.requests_per_second:
            return False  # the answer tells how much of it is used
        question = self._question(op, who, request.body)
        if question is None:
            return False
        wanted = aim(self.resolver, question, who.caller.pool(question.environment))
        if wanted is None:
            return False
        if question.request_id is not None and self.resolver.recent.knows(question):
            return False  # a repeat
        address = client_address(self._trusted, request.client, headers)
        if query:
            question.explain = True
        asked = _Asked(self, request, who, address, question, wanted)
        try:
            self.guard.check(address, headers, who, op, question.known)
        except Refusal as refusal:
            asked.reply(refused(refusal, question.request_id))
        else:
            if query:
                keys = lookup_keys(wanted.keys, question.caller.plan)
                self.resolver.desk.submit_alone(asked, Probe(wanted.pool, keys))
            else:
                self.resolver.desk.submit_glance(asked, wanted.label)
        return True

    def _explains(self, query: bytes, who: Credentials) -> bool:
        """Return whether all that is unusual is that an answer is to be explained."""
        can = self.resolver.desk.store.alone_now is not None
        return can and query == EXPLAINED and who.may("explain")

    def _question(self, op: str, who: Credentials, body: bytes) -> Question | None:
        """Return a request as a question, or None where something about it is unusual."""
        try:
            wanted: IdentityBody = identity_decoder.decode(body)
        except (ValueError, RecursionError):
            return None
        known, request_id = wanted.known_identities, wanted.request_id
        if (
            not known
            or wanted.requestId
            or (request_id and len(request_id) > 128)
            or wanted.environment not in ENVIRONMENTS
            or len(known) > self._bounds.max_identities_per_request
        ):
            return None
        return Question(
            op=op,
            caller=who.caller,
            environment=wanted.environment,
            known=known,
            now_ms=time.time_ns() // 1_000_000,
            previous=wanted.previous_mpid,
            request_id=request_id or None,
            body=body,
            key_only=who.key_only,
            max_values=self._bounds.max_identities_per_profile,
        )


class _Asked(Known):
    """A hot request at the desk."""

    __slots__ = ("_address", "_began", "_glances", "_request", "_who")

    def __init__(
        self,
        glances: Glances,
        request: HotRequest,
        who: Credentials,
        address: str,
        question: Question,
        wanted: Aim,
    ) -> None:
        self._resolver, self.question, self.aim = glances.resolver, question, wanted
        self._glances, self._request, self._who, self._address = glances, request, who, address
        self._began = time.perf_counter() if glances.timed() else 0.0

    def told(self, told: Told) -> None:
        """Answer somebody known by all that was given."""
        question, body = self.question, told.wire or wire_of(told)
        if question.explain:
            body = body[:-1] + self._why(told)
        if question.request_id is not None:
            self._resolver.recent.keep(
                question, told.mpid, told.logged_in, told.ephemeral, tuple(told.matched)
            )
        self._observe(_FOUND)
        self._request.respond(
            b"%b%d\r\n\r\n%b" % (_head(question.caller.max_age_s), len(body), body)
        )

    def _why(self, told: Told) -> bytes:
        """Return why, of a record that nobody else resembles."""
        mpids, row = self._resolver.mpids, told.row
        previous = self.question.previous
        if previous is not None:
            number = mpids.parse(previous)
            previous = None if number is None else mpids.text(number)
        me = mpids.text(row[0]) if row[4] & MERGED else told.mpid
        return self._glances.alike.end(told, me, previous)

    def done(self, answer: Answer) -> None:
        """Answer what went the ordinary way."""
        if answer.created:
            self._glances.guard.created(self._address, self._who, answer)
        headers = answer_headers(self.question.caller.max_age_s)
        self.reply(identity_reply(answer, self.question, headers, True))

    def reply(self, reply: Reply) -> None:
        """Send a reply."""
        self._observe(reply)
        self._request.respond(raw(reply))

    def _observe(self, reply: Reply) -> None:
        began = self._began
        seconds = time.perf_counter() - began if began else -1.0
        self._glances.observe(self.question.op, reply, seconds)
