"""Rate limits at the door (rulings 12 and 14)."""

from __future__ import annotations

from onymous.flows.answers import Answer, Question
from onymous.limits import Limits, Verdict
from onymous.rules.errors import Forbidden, RateLimited
from onymous.rules.identifiers import BY_CODE
from onymous.web.auth import Credentials
from onymous.web.calls import Call


class Guard:
    """Asks the limits whether a request may pass; raises `RateLimited` if not."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits

    def check(self, call: Call, who: Credentials, question: Question, values: int) -> None:
        """Count a request. Key-only callers are limited per address and per (address, value)."""
        limits = self._limits
        if not who.key_only:
            limit = who.caller.requests_per_second
            if limit:
                self._raise(limits.input(who.caller.input, limit))
            return
        self._check_origin(call, who)
        if limits.off:
            return
        self._raise(limits.address(call.address))
        if question.op != "search":
            self._raise(limits.may_create(call.address))
        plan = who.caller.plan
        if plan.best_match or question.op == "logout":
            return
        known = question.known
        for code in plan.login_order:
            name = BY_CODE[code].name
            value = known.get(name)
            if isinstance(value, str):
                self._raise(limits.value(call.address, name, value))

    def created(self, call: Call, who: Credentials, answer: Answer) -> None:
        """Count a new anonymous record that a public key made (rulings 12)."""
        if who.key_only and answer.created and not answer.logged_in:
            self._limits.created(call.address)

    @staticmethod
    def _check_origin(call: Call, who: Credentials) -> None:
        """A public key may be bound to the pages it belongs to."""
        allowed = who.caller.cors_origins
        if allowed == ("*",):
            return
        origin = call.header(b"origin")
        if origin is not None and origin not in allowed:
            raise Forbidden(permission="use this key on this page")

    @staticmethod
    def _raise(verdict: Verdict) -> None:
        if not verdict.allowed:
            raise RateLimited(
                retry_after_s=verdict.retry_after_s,
                exceeded=verdict.exceeded,
            )
