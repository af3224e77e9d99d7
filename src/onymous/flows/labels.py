"""Which of the identities given are looked up, and which one may answer alone."""

from __future__ import annotations

from onymous.flows.answers import Question
from onymous.rules.identifiers import Cleaned
from onymous.rules.strategies import Plan
from onymous.store.port import Label, Probe

#: requests that are often about somebody known by all that is given
PLAIN = frozenset({"identify", "login"})


def lookup_keys(keys: dict[int, str], plan: Plan) -> dict[int, str]:
    """Return the identities that must be looked up: ranked or unique types."""
    wanted = plan.ranked | plan.unique
    for code in keys:
        if not wanted >> code & 1:
            return {code: key for code, key in keys.items() if wanted >> code & 1}
    return keys


def first_label(question: Question, cleaned: Cleaned, probe: Probe) -> Label | None:
    """Return the value whose only holder may answer at a glance, or None."""
    plan, keys = question.caller.plan, probe.keys
    if question.op not in PLAIN or question.explain or question.read_only or cleaned.skipped:
        return None
    for code in plan.order:
        if code in keys:
            # a login without a login id is refused where one is needed
            refused = (
                question.op == "login"
                and plan.strategy.login_needs_login_id
                and not plan.login >> code & 1
            )
            return None if refused else (probe.pool, code, keys[code])
    return None
