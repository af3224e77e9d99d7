"""Checks of a scope's configuration: what must not be, and what a careful reader would ask about.

`problems` finds what makes a configuration unusable; `warnings` (from `rules.advice`) finds what
works but usually is not meant. Both say which field, why, and what to write instead.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from onymous.rules.advice import warnings
from onymous.rules.errors import Refusal
from onymous.rules.identifiers import BY_NAME, Folding, clean_value
from onymous.rules.strategies import STRATEGIES, ScopeConfig, login_types, unique_types
from onymous.rules.wording import Problem, hint, listed, path, shorten, type_problem

__all__ = ["LIMITS", "MOST_BLOCKED", "Problem", "problems", "warnings"]

#: (least, most, unit) of each number of a scope
LIMITS: dict[str, tuple[int, int, str]] = {
    "alias_delay_s": (0, 604_800, "seconds"),
    "alias_max_window_days": (1, 3_650, "days"),
    "hot_after": (2, 1_000_000, "people"),
}
#: most entries of a scope's block list: every one is kept in memory
MOST_BLOCKED = 10_000
_CONFLICTS = ("new_record", "return_match")
_LISTS = ("priority", "login", "unique", "immutable")

Check = Callable[[ScopeConfig, str], Iterator[Problem]]


def problems(config: ScopeConfig, where: str = "") -> list[Problem]:
    """Return what makes a scope's configuration unusable; empty means `compile_plan` may run.

    `where` is the path of the scope in its document and stands before each field.
    """
    out = [p for check in (_strategy, _names, _values, _blocked) for p in check(config, where)]
    if not out:
        out = [p for check in _SETS for p in check(config, where)]
    return out


def _strategy(config: ScopeConfig, where: str) -> Iterator[Problem]:
    if config.strategy not in STRATEGIES:
        why = f"{shorten(config.strategy)} is not a strategy"
        yield Problem(path(where, "strategy"), why, hint(config.strategy, STRATEGIES))


def _names(config: ScopeConfig, where: str) -> Iterator[Problem]:
    """Every name is an identity type, once."""
    if not config.priority:
        yield Problem(
            path(where, "priority"),
            "an empty priority finds nobody",
            "leave priority out (the default ranking) or write at least one identity type",
        )
    for field in _LISTS:
        seen: set[str] = set()
        for n, name in enumerate(getattr(config, field) or ()):
            at = f"{path(where, field)}[{n}]"
            problem = type_problem(name, at)
            if problem is not None:
                yield problem
            elif name in seen:
                yield Problem(at, f"{name} stands there twice", f"remove the second {name}")
            seen.add(name)


def _values(config: ScopeConfig, where: str) -> Iterator[Problem]:
    """Numbers and words are within their bounds."""
    for field, (least, most, unit) in LIMITS.items():
        value = getattr(config, field)
        if not least <= value <= most:
            nearest = least if value < least else most
            yield Problem(
                path(where, field),
                f"{value} is out of range: {field} is {least} to {most} {unit}",
                f"write {field}: {nearest}",
            )
    if config.login_conflict not in _CONFLICTS:
        yield Problem(
            path(where, "login_conflict"),
            f"{shorten(config.login_conflict)} is neither new_record nor return_match",
            hint(config.login_conflict, _CONFLICTS),
        )
    yield from _region(config, where)


def _region(config: ScopeConfig, where: str) -> Iterator[Problem]:
    region, at = config.phone_region, path(where, "phone_region")
    if region is None:
        return
    if not re.fullmatch("[A-Z]{2}", region):
        yield Problem(
            at,
            f"{shorten(region)} is not a region: two capital letters, like US or DE",
            f"write {region.upper()}"
            if re.fullmatch("[A-Za-z]{2}", region)
            else "write the two-letter code of the country whose numbers have no +, or null",
        )
    elif not _has_numbers(region):
        yield Problem(
            at,
            f"no phone numbers are known of region {region}",
            "write GB" if region == "UK" else "write an ISO 3166 code, like US or DE, or null",
        )


def _has_numbers(region: str) -> bool:
    """Whether numbers without a country code can be folded as numbers of this region."""
    folding = Folding(False, True, region)
    tries = (clean_value(BY_NAME["mobile_number"], "2" * n, folding) for n in range(4, 14))
    return any(text is not None and text.startswith("+") for text in tries)


def _blocked(config: ScopeConfig, where: str) -> Iterator[Problem]:
    """Blocked values stand as they are compared: cleaned and folded. Never shows a value."""
    at = path(where, "blocked")
    if len(config.blocked) > MOST_BLOCKED:
        yield Problem(
            at,
            f"{len(config.blocked)} entries: a block list has at most {MOST_BLOCKED}",
            "keep the values that are shared most; hot_after finds the others by itself",
        )
        return
    seen = set()
    for n, entry in enumerate(config.blocked):
        problem = type_problem(entry.type, f"{at}[{n}].type")
        if problem is not None:
            yield problem
            continue
        try:
            cleaned = clean_value(BY_NAME[entry.type], entry.value, config.folding)
        except Refusal:
            cleaned = None
        if cleaned is None:
            yield Problem(
                f"{at}[{n}].value",
                "empty values, placeholders and over-long values never resolve anyway",
                "remove the entry",
            )
        elif cleaned != entry.value:
            yield Problem(
                f"{at}[{n}].value",
                "this spelling is never compared: values are trimmed and folded first",
                "write it trimmed, and folded as this scope folds values of the type",
            )
        elif entry in seen:
            yield Problem(f"{at}[{n}]", "the value is blocked twice", "remove the second entry")
        seen.add(entry)


def _fixed(config: ScopeConfig, where: str) -> Iterator[Problem]:
    """Strategies with fixed sets take no others."""
    strategy = STRATEGIES[config.strategy]
    if strategy.fixed is None:
        return
    for field in ("login", "unique"):
        given = getattr(config, field)
        if given is not None and set(given) != set(strategy.fixed):
            yield Problem(
                path(where, field),
                f"under {strategy.name} the {field} types are always {listed(strategy.fixed)}",
                f"leave {field} out, or write strategy: profile_conversion to choose them",
            )
    if config.immutable and not strategy.fixed:
        yield Problem(
            path(where, "immutable"),
            f"under {strategy.name} nothing is immutable, because there are no logins",
            "leave immutable out, or write strategy: profile_conversion",
        )


def _no_devices(config: ScopeConfig, where: str) -> Iterator[Problem]:
    """A device is no person: it is shared, sold and reset."""
    for field in ("login", "unique", "immutable"):
        for n, name in enumerate(getattr(config, field) or ()):
            if BY_NAME[name].klass == "device":
                yield Problem(
                    f"{path(where, field)}[{n}]",
                    f"{name} belongs to a device, and devices are shared and change hands",
                    f"remove {name} from {field}; it may stay in priority",
                )


def _ranked(config: ScopeConfig, where: str) -> Iterator[Problem]:
    """A type that protects or is unique must be looked up."""
    sets = {"login": login_types(config), "unique": unique_types(config)}
    told: set[str] = set()
    for field, names in sets.items():
        for name in names:
            if name not in config.priority and name not in told:
                told.add(name)
                yield Problem(
                    path(where, "priority"),
                    f"{name} is a {field} type, but nothing is looked up that is not ranked",
                    f"write priority: {listed((name, *config.priority))}",
                )


def _immutable(config: ScopeConfig, where: str) -> Iterator[Problem]:
    """What cannot change must tell persons apart and protect them."""
    fixed = STRATEGIES[config.strategy].fixed
    if fixed == ():
        return
    for n, name in enumerate(config.immutable):
        for field, names in (("login", login_types(config)), ("unique", unique_types(config))):
            if name not in names:
                yield Problem(
                    f"{path(where, 'immutable')}[{n}]",
                    f"{name} is not a {field} type; an immutable type must be login and unique",
                    f"remove {name} from immutable"
                    if fixed is not None
                    else f"add {name} to {field}, or remove it from immutable",
                )


def _order(config: ScopeConfig, where: str) -> Iterator[Problem]:
    """Immutable types rank first, then the other login types, then the rest."""
    logins = login_types(config)
    priority, immutable = config.priority, config.immutable
    if any(name not in priority for name in (*logins, *immutable)):
        return
    first = [n for n in priority if n in immutable]
    second = [n for n in priority if n in logins and n not in immutable]
    rest = [n for n in priority if n not in logins and n not in immutable]
    write = f"write priority: {listed((*first, *second, *rest))}"
    for n, name in enumerate(priority):
        at = f"{path(where, 'priority')}[{n}]"
        before = priority[:n]
        above = next((b for b in before if b not in immutable), None)
        if name in immutable and above is not None:
            yield Problem(at, f"{name} is immutable and must rank above {above}", write)
            return
        above = next((b for b in before if b not in logins), None)
        if name in logins and above is not None:
            why = f"{name} is a login type and must rank above {above}, which is none"
            yield Problem(at, why, write)
            return


_SETS: tuple[Check, ...] = (_fixed, _no_devices, _ranked, _immutable, _order)
