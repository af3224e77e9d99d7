"""Decisions derived again from their traces alone."""

from __future__ import annotations

from typing import Any

from onymous.flows.answers import Answer


def contradictions(op: dict[str, Any], answer: Answer, config: dict[str, Any]) -> list[str]:
    """Return where the public trace of an answer does not lead to the answer."""
    trace = answer.trace
    if trace is None or op["op"] not in ("identify", "login", "logout", "search"):
        return []
    out = []
    reachable = {str(c.mpid): list(c.reachable_by) for c in trace.candidates if c.fell_out is None}
    left: list[str] | None = None
    for step in trace.steps:
        found = [str(m) for m in step.found]
        for mpid in found:
            if mpid not in reachable:
                out.append(f"{step.type} finds {mpid}, who fell out")
        narrowed = found if left is None else [m for m in left if m in found] or left
        if left is None and not found:
            narrowed = []
        now = [str(m) for m in step.left]
        if sorted(now) != sorted(narrowed) and now:
            out.append(f"{step.type} leaves {now}, though {narrowed} follow")
        left = now or left
    ended = left or []
    told = answer.mpid
    if trace.tie is not None and sorted(map(str, trace.tie.between)) != sorted(ended):
        out.append(f"the tie is between {trace.tie.between}, though {ended} were left")
    if answer.refusal is None and told is not None and trace.outcome == "found":
        if told not in ended:
            out.append(f"{told} was found, though {ended} were left")
        if len(ended) > 1 and trace.tie is None:
            out.append("several were left and no tie was decided")
    if answer.refusal is None and trace.outcome == "created" and trace.mpid != told:
        out.append("the trace names another profile than the answer")
    for name in trace.attached:
        if name not in trace.given:
            out.append(f"{name} was attached, but not given")
    twice = {s.type for s in trace.skipped} & set(trace.attached)
    if twice:
        out.append(f"attached and skipped: {sorted(twice)}")
    return out
