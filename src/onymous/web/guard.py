"""Rate limits at the door (rulings 12 and 14)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from onymous.flows.answers import Answer, Question
from onymous.limits import Limits, Verdict
from onymous.rules.errors import Forbidden, RateLimited, Refusal
from onymous.rules.identifiers import BY_CODE, FOLDED
from onymous.web.auth import Credentials
from onymous.web.calls import Call

#: what is said where there is no limit
FREE = ((b"x-mp-rate-limit-percentage-used", b"0"),)


class Guard:
    """Asks the limits whether a request may pass; raises `RateLimited` if not."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits

    def check(
        self,
        address: str,
        headers: Sequence[tuple[bytes, bytes]],
        who: Credentials,
        op: str,
        known: Mapping[str, object],
    ) -> None:
        """Count a request. Key-only callers are limited per address and per (address, value)."""
        limits = self._limits
        self._count(who)
        if not who.key_only:
            return
        self._check_origin(headers, who)
        if limits.off:
            return
        self._raise(limits.address(address))
        if op != "search":
            self._raise(limits.may_create(address))
        plan = who.caller.plan
        if plan.best_match or op == "logout":
            return
        for code in plan.login_order:
            name = BY_CODE[code].name
            value = known.get(name)
            if isinstance(value, str):
                self._raise(limits.value(address, name, value))

    def created(self, address: str, who: Credentials, answer: Answer) -> None:
        """Count a new anonymous record that a public key made (rulings 12)."""
        if who.key_only and answer.created and not answer.logged_in:
            self._limits.created(address)

    def batch(self, call: Call, who: Credentials) -> Door | None:
        """Count a call that brings batches; return what watches over those of a public key."""
        self._count(who)
        if not who.key_only:
            return None
        self._check_origin(call.headers, who)
        if self._limits.off:
            return None
        self._raise(self._limits.address(call.address))
        return Door(self._limits, call.address)

    def rates(self, who: Credentials) -> tuple[tuple[bytes, bytes], ...]:
        """Return the header that says how many percent of its input's limit are used."""
        limit = who.caller.requests_per_second
        if not limit:
            return FREE
        return ((FREE[0][0], b"%d" % self._limits.used(who.caller.input, limit)),)

    def _count(self, who: Credentials) -> None:
        limit = who.caller.requests_per_second
        if limit:
            self._raise(self._limits.input(who.caller.input, limit))

    @staticmethod
    def _check_origin(headers: Sequence[tuple[bytes, bytes]], who: Credentials) -> None:
        """A public key may be bound to the pages it belongs to."""
        allowed = who.caller.cors_origins
        if allowed == ("*",):
            return
        for name, value in headers:
            if name == b"origin" and value.decode("latin-1") not in allowed:
                raise Forbidden(permission="use this key on this page")

    @staticmethod
    def _raise(verdict: Verdict) -> None:
        if not verdict.allowed:
            raise RateLimited(
                retry_after_s=verdict.retry_after_s,
                exceeded=verdict.exceeded,
            )


class Door:
    """Watches over batches of a public key whose identities must be resolved."""

    def __init__(self, limits: Limits, address: str) -> None:
        self._limits, self._address = limits, address

    def enter(self, question: Question) -> Refusal | None:
        """Return why no record may be looked up or made for this address now, or None."""
        verdict = self._limits.may_create(self._address)
        plan = question.caller.plan
        for name, value in question.known.items():
            kind = FOLDED.get(name)
            if not verdict.allowed:
                break
            if kind is not None and plan.login >> kind.code & 1 and isinstance(value, str):
                verdict = self._limits.value(self._address, kind.name, value)
        if verdict.allowed:
            return None
        return RateLimited(retry_after_s=verdict.retry_after_s, exceeded=verdict.exceeded)

    def left(self, answer: Answer) -> None:
        """Count a new anonymous record."""
        if answer.created and not answer.logged_in:
            self._limits.created(self._address)
