"""The five identity strategies as five records, and the configuration of a scope.

Strategies are data: one function (`onymous.rules.identity.decide`) runs them all. A scope's
configuration names its strategy and settings in the words of the Identity API; `Plan` is the same
thing compiled to bit masks over type codes, because it is consulted for every request.
"""

from __future__ import annotations

import functools
from typing import Literal

import msgspec

from onymous.rules.identifiers import BY_NAME, DEFAULT_PRIORITY, Folding

OnNewLogin = Literal["attach", "create", "none"]
OnLogout = Literal["new", "existing_anonymous", "identify"]


class Strategy(msgspec.Struct, frozen=True, kw_only=True):
    """One way to answer "same person or not?"; the table is in docs/use/strategies.md."""

    name: str
    label: str
    summary: str
    #: what a login id that belongs to nobody does to the anonymous record of the device
    on_new_login: OnNewLogin
    on_logout: OnLogout
    #: may history be aliased from one profile to another?
    alias: bool
    #: may an operator find two profiles to be one person?
    merge: bool = True
    #: must a login carry a login id? (else it is answered like an identify)
    login_needs_login_id: bool = False
    #: login and unique types fixed by the strategy, or None where the scope chooses
    fixed: tuple[str, ...] | None = None
    #: login and unique types a new scope of this strategy starts with
    preset: tuple[str, ...] = ()


STRATEGIES: dict[str, Strategy] = {
    s.name: s
    for s in (
        Strategy(
            name="default",
            label="Default",
            summary="Profile conversion with the customer id as the only login and unique type.",
            on_new_login="attach",
            on_logout="new",
            alias=True,
            fixed=("customerid",),
            preset=("customerid",),
        ),
        Strategy(
            name="profile_conversion",
            label="Profile conversion",
            summary="The anonymous visitor becomes the person who registers; one MPID throughout.",
            on_new_login="attach",
            on_logout="new",
            alias=True,
            preset=("customerid", "email"),
        ),
        Strategy(
            name="profile_link",
            label="Profile link",
            summary="A registration makes a new profile that remembers the anonymous one.",
            on_new_login="create",
            on_logout="new",
            alias=True,
            preset=("customerid", "email"),
        ),
        Strategy(
            name="profile_isolation",
            label="Profile isolation",
            summary="Known and anonymous data never meet; a logout returns to the visitor.",
            on_new_login="create",
            on_logout="existing_anonymous",
            alias=False,
            merge=False,
            login_needs_login_id=True,
            preset=("customerid", "email"),
        ),
        Strategy(
            name="best_match",
            label="Best match",
            summary="No logins: the highest ranked identity that finds a profile decides.",
            on_new_login="none",
            on_logout="identify",
            alias=False,
            fixed=(),
        ),
    )
}


class Blocked(msgspec.Struct, frozen=True):
    """A value that never resolves in this scope (rulings 5), after the cleaning pipeline."""

    type: str
    value: str


class ScopeConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How one scope decides who is who; defaults are those of a bare scope."""

    strategy: str = "default"
    priority: tuple[str, ...] = DEFAULT_PRIORITY
    login: tuple[str, ...] | None = None
    unique: tuple[str, ...] | None = None
    immutable: tuple[str, ...] = ()
    #: a lower login id finds a record whose higher one differs: refuse the match, or return it
    login_conflict: Literal["new_record", "return_match"] = "new_record"
    #: identify and login may replace a login or unique value of the matched record
    identify_may_replace: bool = False
    search_requires_immutable: bool = False
    sticky_known: bool = True
    alias_source_must_be_anonymous: bool = True
    #: seconds an alias waits before it takes effect
    alias_delay_s: int = 0
    alias_max_window_days: int = 90
    #: a value held by more known people than this is hot and stops resolving
    hot_after: int = 100
    email_lower: bool = False
    phone_e164: bool = False
    #: two-letter region for phone numbers without a country code; None accepts only "+..." forms
    phone_region: str | None = None
    blocked: tuple[Blocked, ...] = ()

    @property
    def folding(self) -> Folding:
        """Return the value folding of this scope for the cleaning pipeline."""
        return Folding(self.email_lower, self.phone_e164, self.phone_region)


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A `ScopeConfig` compiled: codes in lookup order and bit masks (bit = type code)."""

    config: ScopeConfig
    strategy: Strategy
    #: lookup order: login types first, then the rest of the priority
    order: tuple[int, ...]
    login_order: tuple[int, ...]
    ranked: int
    login: int
    unique: int
    immutable: int
    #: single valued: only modify changes them once set
    single: int
    #: rank of each code in `order`
    rank: dict[int, int]
    blocked: frozenset[tuple[str, str]]
    folding: Folding

    @property
    def best_match(self) -> bool:
        """Whether nobody is ever "known" here, because no type is a login type."""
        return self.strategy.name == "best_match"


def mask(names: tuple[str, ...]) -> int:
    """Return the bit mask of the types named; unknown names raise KeyError."""
    return functools.reduce(lambda bits, name: bits | 1 << BY_NAME[name].code, names, 0)


USER_MASK = mask(tuple(t.name for t in BY_NAME.values() if t.klass == "user"))


def login_types(config: ScopeConfig) -> tuple[str, ...]:
    """Return the login types in force: fixed by the strategy, configured, or none."""
    fixed = STRATEGIES[config.strategy].fixed
    return fixed if fixed is not None else (config.login or ())


def unique_types(config: ScopeConfig) -> tuple[str, ...]:
    """Return the unique types in force: fixed by the strategy, configured, or none."""
    fixed = STRATEGIES[config.strategy].fixed
    return fixed if fixed is not None else (config.unique or ())


@functools.lru_cache(maxsize=1024)
def compile_plan(config: ScopeConfig) -> Plan:
    """Compile a configuration; expects one that `checks.problems` finds nothing wrong with."""
    logins, uniques = login_types(config), unique_types(config)
    ranked = list(config.priority)
    first = [name for name in ranked if name in logins]
    order = tuple(BY_NAME[n].code for n in (*first, *(n for n in ranked if n not in logins)))
    return Plan(
        config=config,
        strategy=STRATEGIES[config.strategy],
        order=order,
        login_order=tuple(BY_NAME[n].code for n in first),
        ranked=mask(config.priority),
        login=mask(logins),
        unique=mask(uniques),
        immutable=mask(config.immutable),
        single=mask(logins) | mask(uniques) | mask(config.immutable),
        rank={code: n for n, code in enumerate(order)},
        blocked=frozenset((b.type, b.value) for b in config.blocked),
        folding=config.folding,
    )
