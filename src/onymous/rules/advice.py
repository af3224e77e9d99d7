"""The linter of a scope's configuration: what works, but usually is not meant."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from onymous.rules.identifiers import BY_NAME
from onymous.rules.strategies import ScopeConfig, login_types, unique_types
from onymous.rules.wording import Problem, listed, path

PHONES = ("mobile_number", "phone_number_2", "phone_number_3")
#: below, a family or an office makes a value hot; above, a shared mailbox passes for a person
_HOT_LOW, _HOT_HIGH = 10, 10_000

Advice = Callable[[ScopeConfig, str], Iterator[Problem]]


def warnings(config: ScopeConfig, where: str = "") -> list[Problem]:
    """Return advice on a configuration that `problems` found nothing wrong with."""
    return [p for advice in _ALL for p in advice(config, where)]


def _logins(config: ScopeConfig, where: str) -> Iterator[Problem]:
    """Which types say "this is that person"."""
    logins = login_types(config)
    if config.strategy == "best_match":
        return
    at = path(where, "login")
    if not logins:
        yield Problem(
            at,
            "without login types nobody is ever known, and every profile can be found by a device",
            "write login: [customerid]",
        )
    if len(logins) > 1:
        yield Problem(
            at,
            f"{len(logins)} login types: any one of them opens the profile",
            f"write login: [{logins[0]}] unless each of {listed(logins)} is verified and personal",
        )
    for name in logins:
        if name not in unique_types(config):
            yield Problem(
                at,
                f"{name} is a login type but not unique: two people may hold the same value",
                f"add {name} to unique",
            )
    for name in unique_types(config):
        if name not in logins:
            yield Problem(
                path(where, "unique"),
                f"{name} is unique but no login type: holding it protects nobody's profile",
                f"add {name} to login, or remove it from unique",
            )


def _ranks(config: ScopeConfig, where: str) -> Iterator[Problem]:
    """Which type decides before which."""
    at = path(where, "priority")
    users = [n for n, name in enumerate(config.priority) if BY_NAME[name].klass == "user"]
    devices = [n for n, name in enumerate(config.priority) if BY_NAME[name].klass == "device"]
    if users and devices and devices[0] < users[-1]:
        device, user = config.priority[devices[0]], config.priority[users[-1]]
        ordered = [config.priority[n] for n in (*users, *devices)]
        yield Problem(
            f"{at}[{devices[0]}]",
            f"{device} ranks above {user}: whoever uses the device counts more than who they say",
            f"write priority: {listed(ordered)}",
        )
    if users and not devices:
        yield Problem(
            at,
            "no device type is ranked: a visitor who has not logged in is new at every visit",
            "add device_application_stamp at the end",
        )
    logins = login_types(config)
    if {"customerid", "email"} <= set(logins) and _above(config, "email", "customerid"):
        yield Problem(
            at,
            "email ranks above customerid, but families share mailboxes and people change them",
            "write customerid before email",
        )


def _above(config: ScopeConfig, first: str, second: str) -> bool:
    return config.priority.index(first) < config.priority.index(second)


def _doubtful_types(config: ScopeConfig, where: str) -> Iterator[Problem]:
    """Ranked types that do not stand for one person or one device."""
    for n, name in enumerate(config.priority):
        at = f"{path(where, 'priority')}[{n}]"
        if name == "push_token":
            yield Problem(
                at,
                "push_token is renewed by the system and may pass to another app or user",
                "remove push_token; it is stored on the profile anyway",
            )
        elif name == "alias":
            why = "alias is a legacy label of one person, often the same for many"
            yield Problem(at, why, "remove alias")


def _folding(config: ScopeConfig, where: str) -> Iterator[Problem]:
    """Spelling variants that make one person two."""
    if "email" in config.priority and not config.email_lower:
        yield Problem(
            path(where, "email_lower"),
            "e-mail addresses are compared letter by letter: Ann@x.org and ann@x.org are two",
            "write email_lower: true before the first data arrives; later it is a migration",
        )
    phones = [name for name in PHONES if name in config.priority]
    logins = [name for name in phones if name in login_types(config)]
    if phones and not config.phone_e164:
        kind = "a login type" if logins else "looked up"
        yield Problem(
            path(where, "phone_e164"),
            f"{(logins or phones)[0]} is {kind}, but numbers are compared letter by letter",
            "write phone_e164: true (and phone_region) before the first data arrives",
        )
    if config.phone_region is not None and not config.phone_e164:
        yield Problem(
            path(where, "phone_region"),
            "the region counts only where phone numbers are folded",
            "write phone_e164: true, or leave phone_region out",
        )


def _loosened(config: ScopeConfig, where: str) -> Iterator[Problem]:
    """Switches that trade a safeguard for convenience."""
    if config.login_conflict == "return_match":
        yield Problem(
            path(where, "login_conflict"),
            "a shared e-mail address returns the profile of another customer id",
            "write login_conflict: new_record",
        )
    if config.identify_may_replace:
        yield Problem(
            path(where, "identify_may_replace"),
            "any identify may overwrite a person's login values; a mistyped form is enough",
            "write identify_may_replace: false and change values with modify",
        )
    if not config.alias_source_must_be_anonymous:
        yield Problem(
            path(where, "alias_source_must_be_anonymous"),
            "the history of a known person can be handed to another one",
            "write alias_source_must_be_anonymous: true",
        )
    if not config.sticky_known:
        yield Problem(
            path(where, "sticky_known"),
            "a profile that lost its last login value is open to whoever uses the device",
            "write sticky_known: true",
        )
    if config.search_requires_immutable and not config.immutable:
        yield Problem(
            path(where, "search_requires_immutable"),
            "there is no immutable type a search could carry",
            "leave search_requires_immutable out, or write immutable: [customerid]",
        )


def _numbers(config: ScopeConfig, where: str) -> Iterator[Problem]:
    at = path(where, "hot_after")
    if config.hot_after < _HOT_LOW:
        yield Problem(
            at,
            f"a value of more than {config.hot_after} people stops resolving; a household or a"
            " shared office device reaches that",
            "write hot_after: 100",
        )
    elif config.hot_after > _HOT_HIGH:
        yield Problem(
            at,
            f"a value may join up to {config.hot_after} people before anybody is told",
            "write hot_after: 100",
        )
    if config.alias_delay_s:
        yield Problem(
            path(where, "alias_delay_s"),
            f"aliases wait {config.alias_delay_s} seconds before they take effect",
            "write alias_delay_s: 0 unless downstream systems expect the wait",
        )


def _strategy(config: ScopeConfig, where: str) -> Iterator[Problem]:
    """What a strategy is known to get wrong."""
    at = path(where, "strategy")
    devices = any(BY_NAME[name].klass == "device" for name in config.priority)
    if config.strategy in ("default", "profile_conversion") and devices:
        yield Problem(
            at,
            "where people share devices, the first who registers inherits what others browsed",
            "write strategy: profile_link (or profile_isolation) for shared devices",
        )
    if config.strategy == "default" and "email" in config.priority:
        yield Problem(
            at,
            "under default an e-mail address is neither login nor unique, so several people may"
            " hold the same one and it protects nobody",
            "write strategy: profile_conversion with login and unique [customerid, email]",
        )
    if config.strategy == "best_match":
        yield Problem(
            at,
            "best_match protects nobody: a shared device or mailbox returns the other person",
            "write strategy: profile_conversion where people log in",
        )


_ALL: tuple[Advice, ...] = (
    _strategy,
    _logins,
    _ranks,
    _doubtful_types,
    _folding,
    _loosened,
    _numbers,
)
