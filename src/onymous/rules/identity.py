"""Which profile? What changes? Why? One function runs every strategy and returns its trace.

Written after the formal model: eligibility (3.1), order (3.2), algorithm (3.3), attaching (3.4),
requests (4). `decide` reads nothing but its arguments; the candidates must contain every record
that holds a ranked or unique identity of the question (bounded for values on many records).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from onymous.rules.errors import LoginNeedsLoginId, NoIdentities, NotFound, NothingToAttach, Refusal
from onymous.rules.records import ERASED, KNOWN, Record, mask_of
from onymous.rules.strategies import USER_MASK, Plan
from onymous.rules.trace import REASONS, TIES, Candidate, Step, Tie, Trace, name_of, names_of


class Ask(msgspec.Struct, kw_only=True):
    """A cleaned question: whose identities are these?"""

    op: str
    pool: int
    #: type code -> comparison key
    keys: dict[int, str]
    #: type code -> received spelling where it differs from the key
    shown: dict[int, str] = {}
    previous: int | None = None
    now_ms: int = 0
    workspace: int = 0
    input: int = 0
    key_only: bool = False
    #: most values one record may hold
    max_values: int = 200
    #: feed rows only: the row may replace the lower values of the record it matched
    replace_values: bool = False
    #: feed rows only: the records it belongs to were merged, so it may be any of theirs
    one_person: bool = False


class Decision(msgspec.Struct, kw_only=True):
    """What is answered and what changes. Nothing to change = nothing to write."""

    record: Record | None = None
    create: bool = False
    source: int | None = None
    attach: list[tuple[int, str]] = []
    #: values of the same record that go, because a new one replaces them
    replace: list[tuple[int, str]] = []
    skipped: list[tuple[int, str, int | None]] = []
    refusal: type[Refusal] | None = None
    #: type masks: given identities equal to the record's, before attaching
    matched: int = 0
    #: the type that decided, or 0
    by: int = 0
    tie: str | None = None
    #: feed rows: the records the row's identities belong to, when more than one
    conflict: list[int] = []

    @property
    def changes(self) -> bool:
        """Return whether anything must be written (beyond last seen)."""
        return self.create or bool(self.attach) or bool(self.replace)


class Seen(msgspec.Struct):
    """A candidate with what the question means for it."""

    record: Record
    has: int
    hits: int
    #: types through which it may be found
    reach: int
    known: bool
    fell_out: str | None = None


def is_person(has: int, plan: Plan) -> bool:
    """Return whether a record with these types is a person, not just a device.

    Known in the strategies with login types; under best match: has a user-class value.
    """
    return bool(has & (USER_MASK if plan.best_match else plan.login))


def protects(record: Record, has: int, plan: Plan) -> bool:
    """Return whether only a login id of the record may find it (3.1 rules 2 and 4)."""
    if plan.best_match:
        return False
    return bool(has & plan.login) or (plan.config.sticky_known and bool(record.flags & KNOWN))


def decide(
    ask: Ask,
    plan: Plan,
    candidates: Sequence[Record],
    hot: int = 0,
    why: Trace | None = None,
) -> Decision:
    """Decide one identify, login, logout, search, batch without MPID or feed row."""
    keys = ask.keys
    if why is not None:
        why.given = [name_of(c) for c in keys]
        why.order = [name_of(c) for c in plan.order if c in keys]
        why.login_ids = [name_of(c) for c in keys if plan.login >> c & 1]
        why.hot = names_of(hot)
        why.previous = ask.previous
    dropped: list[tuple[int, str, int | None]] = []
    if ask.op == "logout" and plan.strategy.on_logout != "identify":
        keys, dropped = _without_logins(keys, plan)
    refusal = _refused(ask, keys, plan)
    if refusal is not None:
        return _finish(Decision(refusal=refusal, skipped=dropped), why, "refused")
    seen = [_see(r, keys, plan, hot, ask) for r in candidates if r.pool == ask.pool]
    if why is not None:
        why.candidates = [_told(s, keys) for s in seen]
    if ask.op == "logout" and plan.strategy.on_logout == "new":
        return _create(ask, keys, plan, seen, None, dropped, why, "a logout makes a new record")
    found, by, tie = _lookup(ask, keys, plan, seen, why)
    if ask.op == "search":
        return _searched(found, by, tie, why)
    if ask.op == "feed" and (conflict := _owners(ask, keys, plan, seen)):
        return _finish(Decision(conflict=conflict), why, "conflict")
    if found is None:
        return _create(ask, keys, plan, seen, None, dropped, why, "nobody was found")
    given, source = _mask(keys), found.record.pid
    if plan.login & given and not found.known and plan.strategy.on_new_login == "create":
        return _create(ask, keys, plan, seen, source, dropped, why, "a login id nobody has")
    decision = Decision(record=found.record, by=by, tie=tie, matched=found.hits, skipped=dropped)
    if found.hits & given != given:
        _attach(ask, keys, plan, found, seen, decision)
    return _finish(decision, why, "found")


def _mask(keys: dict[int, str]) -> int:
    """Return the set of types given, one bit each."""
    mask = 0
    for code in keys:
        mask |= 1 << code
    return mask


def _refused(ask: Ask, keys: dict[int, str], plan: Plan) -> type[Refusal] | None:
    if not keys:
        return NoIdentities
    needed = ask.op == "login" and plan.strategy.login_needs_login_id
    if needed and not any(plan.login >> code & 1 for code in keys):
        return LoginNeedsLoginId
    return None


def _without_logins(
    keys: dict[int, str], plan: Plan
) -> tuple[dict[int, str], list[tuple[int, str, int | None]]]:
    kept = {c: k for c, k in keys.items() if not plan.single >> c & 1}
    return kept, [(c, "ignored_on_logout", None) for c in keys if c not in kept]


def _see(record: Record, keys: dict[int, str], plan: Plan, hot: int, ask: Ask) -> Seen:
    hits = has = 0
    for value in record.values:
        bit = 1 << value.code
        has |= bit
        if keys.get(value.code) == value.key:
            hits |= bit
    known = protects(record, has, plan)
    seen = Seen(record, has, hits, 0, known)
    usable = hits & plan.ranked
    if hot and not (ask.previous == record.pid and not known):
        usable &= ~hot
    if record.flags & ERASED:
        seen.fell_out = "erased"
    elif not usable:
        seen.fell_out = "hot" if hits & plan.ranked else "unranked"
    elif plan.immutable and (fell := _immutable(ask, has, usable, plan)):
        seen.fell_out = fell
    elif not known:
        seen.reach = usable
    else:
        _prove(seen, usable, keys, plan, hot)
    return seen


def _immutable(ask: Ask, has: int, usable: int, plan: Plan) -> str | None:
    if usable & plan.immutable:
        return None
    if has & plan.immutable:
        return "immutable"
    if ask.op == "search" and plan.config.search_requires_immutable:
        return "needs_immutable"
    return None


def _prove(seen: Seen, usable: int, keys: dict[int, str], plan: Plan, hot: int) -> None:
    """Set through which types a known record may be found (3.1 rules 2 and 5)."""
    strict = plan.config.login_conflict == "new_record"
    proven = vetoed = False
    for code in plan.login_order:
        bit = 1 << code
        if code not in keys or not seen.has & bit or hot & bit:
            continue
        if usable & bit:
            if not vetoed:
                proven = True
                seen.reach |= bit
        elif strict:
            vetoed = True
    if proven:
        seen.reach |= usable & ~plan.login
    else:
        seen.fell_out = "conflict" if vetoed and usable & plan.login else "protected"


def _lookup(
    ask: Ask, keys: dict[int, str], plan: Plan, seen: list[Seen], why: Trace | None
) -> tuple[Seen | None, int, str | None]:
    """Walk the priority (3.3); return the record, the type that decided and the tie-break."""
    current: list[Seen] = []
    by = 0
    for code in plan.order:
        if code not in keys:
            continue
        bit = 1 << code
        hit = [s for s in seen if s.reach & bit]
        if hit:
            if not current:
                current, by = hit, code
            elif both := [s for s in current if s.reach & bit]:
                if len(both) < len(current):
                    by = code
                current = both
        if why is not None:
            why.steps.append(
                Step(name_of(code), [s.record.pid for s in hit], [s.record.pid for s in current])
            )
        if len(current) == 1:
            return current[0], by, None
    if not current:
        return None, 0, None
    chosen, tie = _break_tie(current, ask.previous)
    if why is not None:
        why.tie = Tie([s.record.pid for s in current], tie, TIES[tie])
    return chosen, by, tie


def _break_tie(current: list[Seen], previous: int | None) -> tuple[Seen, str]:
    for s in current:
        if s.record.pid == previous:
            return s, "previous_mpid"
    first, second = sorted(
        current, key=lambda s: (-s.record.seen_ms, -s.record.created_ms, -s.record.pid)
    )[:2]
    if first.record.seen_ms != second.record.seen_ms:
        return first, "last_seen"
    return first, "created" if first.record.created_ms != second.record.created_ms else "number"


def _searched(found: Seen | None, by: int, tie: str | None, why: Trace | None) -> Decision:
    if found is None:
        return _finish(Decision(refusal=NotFound), why, "not_found")
    decision = Decision(record=found.record, by=by, tie=tie, matched=found.hits)
    return _finish(decision, why, "found")


def _owners(ask: Ask, keys: dict[int, str], plan: Plan, seen: list[Seen]) -> list[int]:
    """Return the records a feed row belongs to, when they are two or more people (rulings 7)."""
    if ask.one_person:
        return []
    owners = [s.record.pid for s in seen if s.hits & (plan.login | plan.unique)]
    return sorted(owners) if len(owners) > 1 else []


def _create(
    ask: Ask,
    keys: dict[int, str],
    plan: Plan,
    seen: list[Seen],
    source: int | None,
    dropped: list[tuple[int, str, int | None]],
    why: Trace | None,
    reason: str,
) -> Decision:
    decision = Decision(create=True, source=source, skipped=dropped)
    _attach(ask, keys, plan, None, seen, decision)
    if why is not None:
        why.why = reason
    if not decision.attach:
        refused = Decision(refusal=NothingToAttach, skipped=decision.skipped)
        return _finish(refused, why, "refused")
    return _finish(decision, why, "created")


def _attach(
    ask: Ask,
    keys: dict[int, str],
    plan: Plan,
    found: Seen | None,
    seen: list[Seen],
    decision: Decision,
) -> None:
    """Attach what the record does not have yet (3.4); never moves a value."""
    has, hits = (found.has, found.hits) if found else (0, 0)
    room = ask.max_values - (len(found.record.values) if found else 0)
    skipped = list(decision.skipped)
    attach: list[tuple[int, str]] = []
    replace: list[tuple[int, str]] = []
    for code, key in keys.items():
        bit = 1 << code
        if hits & bit:
            continue
        if plan.unique & bit and (holder := _holder(code, key, seen, found)):
            skipped.append((code, "held_by_another", holder))
        elif found and plan.single & bit and has & bit:
            if _may_replace(ask, code, plan, found):
                replace.extend((code, old) for old in found.record.keys_of(code))
                attach.append((code, key))
            else:
                skipped.append((code, "stale_value", None))
        elif room <= len(attach) - len(replace):
            skipped.append((code, "profile_full", None))
        else:
            attach.append((code, key))
    decision.attach, decision.replace, decision.skipped = attach, replace, skipped


def _holder(code: int, key: str, seen: list[Seen], found: Seen | None) -> int:
    for s in seen:
        if s is not found and s.hits >> code & 1 and not s.record.flags & ERASED:
            return s.record.pid
    return 0


def _may_replace(ask: Ask, code: int, plan: Plan, found: Seen) -> bool:
    """Whether a given value may take the place of the record's own (A2, rulings 7 and 12)."""
    bit = 1 << code
    if plan.immutable & bit or ask.op in ("logout", "events"):
        return False  # a batch never changes what a person is found by
    if ask.op == "feed":
        matched = [c for c in plan.login_order if found.reach >> c & 1]
        higher = bool(matched) and plan.rank[matched[0]] < plan.rank.get(code, len(plan.rank))
        return ask.replace_values and higher
    if ask.key_only and plan.login & bit:
        return False
    return plan.config.identify_may_replace


def _told(seen: Seen, keys: dict[int, str]) -> Candidate:
    given = _mask(keys)
    return Candidate(
        mpid=seen.record.pid,
        known=seen.known,
        matched_on=names_of(seen.hits),
        differs_on=names_of(seen.has & given & ~seen.hits),
        created_ms=seen.record.created_ms,
        last_seen_ms=seen.record.seen_ms,
        reachable_by=names_of(seen.reach),
        fell_out=seen.fell_out,
        why=REASONS[seen.fell_out] if seen.fell_out else None,
    )


def _finish(decision: Decision, why: Trace | None, outcome: str) -> Decision:
    if why is None:
        return decision
    why.outcome = outcome
    if decision.refusal is not None:
        why.why = str(decision.refusal.__doc__).strip().split("\n")[0]
    elif decision.conflict:
        why.why = "the identities belong to several people"
    elif decision.record is not None:
        why.mpid = decision.record.pid
        why.why = f"found by {name_of(decision.by)}"
    why.source = decision.source
    replaced = {code for code, _ in decision.replace}
    why.attached = [name_of(c) for c, _ in decision.attach if c not in replaced]
    why.replaced = [name_of(c) for c in sorted(replaced)]
    for code, reason, held_by in decision.skipped:
        why.skip(code, reason, held_by)
    return decision


def flags_of(values: int, plan: Plan) -> tuple[bool, bool]:
    """Return (is_logged_in, is_ephemeral) of a record that holds these types (section 4)."""
    return bool(values & plan.login), not is_person(values, plan)


def would_be(decision: Decision, plan: Plan) -> tuple[bool, bool]:
    """Return (is_logged_in, is_ephemeral) of the record once a decision is carried out."""
    has = mask_of(decision.record) if decision.record is not None else 0
    for code, _ in decision.attach:
        has |= 1 << code
    return flags_of(has, plan)


def answer_flags(record: Record, plan: Plan) -> tuple[bool, bool]:
    """Return (is_logged_in, is_ephemeral) of a record."""
    return flags_of(mask_of(record), plan)
