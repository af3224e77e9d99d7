"""What an explained answer at a glance says: of all who are alike the same, but for whom and when.

Why somebody known by all that was given is found depends on which types were given, which ones the
record holds, and the rules: not on whose values they are. So `rules.identity.decide` explains it
once, of a record that stands in for all who are alike; of each of them it is told with their own
MPID and times. A test compares that with what is said the ordinary way, byte by byte.
"""

from __future__ import annotations

import msgspec

from onymous.flows.told import Told
from onymous.rules.identity import Ask, decide
from onymous.rules.records import Record, Value
from onymous.rules.strategies import Plan
from onymous.rules.trace import Trace, lines, public

#: explanations remembered; too many at once, and all are forgotten
MOST_ALIKE = 2_048
#: what stands in: numbers of the record and of the previous one, times, and how all are written
_ME, _PREVIOUS = 1, 2
_CREATED, _SEEN = 100_000_000_000_000_001, 100_000_000_000_000_002
_MARKS = {_ME: "<<me>>", _PREVIOUS: "<<previous>>"}
_HOLES = {b"<<me>>": b"%(me)b", b"<<previous>>": b"%(previous)b"}
_HOLES |= {b"%d" % _CREATED: b"%(created)d", b"%d" % _SEEN: b"%(seen)d"}
_encode = msgspec.json.Encoder().encode

#: operation, types given in order, types the record holds, its flags, is a previous one named
_Kind = tuple[str, tuple[int, ...], int, int, bool]


class Alike:
    """Explains answers to people who are known by all they gave, whom nobody else resembles."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, _Kind], tuple[Plan, bytes]] = {}

    def end(self, told: Told, me: str, previous: str | None) -> bytes:
        """Return how the body of an explained answer goes on behind that of the plain one.

        `told` is made of a record that alone holds every value given, and each of them; `me` is its
        MPID, `previous` the one the request named.
        """
        row, plan = told.row, told.plan
        kind = (told.op, tuple(told.keys), told.has, row[4], previous is not None)
        known = self._known.get((id(plan), kind))
        if known is None or known[0] is not plan:
            if len(self._known) >= MOST_ALIKE:
                self._known.clear()
            known = self._known[id(plan), kind] = (plan, explained(plan, kind))
        return known[1] % {
            b"me": me.encode(),
            b"previous": b"" if previous is None else previous.encode(),
            b"created": row[2],
            b"seen": row[3],
        }


def explained(plan: Plan, kind: _Kind) -> bytes:
    """Return the explanation of all who are alike, with places for whom and when."""
    op, codes, has, flags, named = kind
    values = [Value(c, "same", None, 0, 0, 0, 0) for c in range(64) if has >> c & 1]
    record = Record(_ME, 0, _CREATED, _SEEN, flags, None, values)
    ask = Ask(op=op, pool=0, keys=dict.fromkeys(codes, "same"))
    ask.previous = _PREVIOUS if named else None
    trace = Trace(op, plan.strategy.name)
    decision = decide(ask, plan, [record], 0, trace)
    if decision.record is not record or decision.changes or decision.skipped:
        raise ValueError("nobody who is known without a doubt is explained like this")
    public(trace, _MARKS.__getitem__)
    text = _encode({"trace": trace, "trace_text": lines(trace)}).replace(b"%", b"%%")
    for mark, hole in _HOLES.items():
        text = text.replace(mark, hole)
    return b"," + text[1:]
