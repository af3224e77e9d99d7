"""Checks of one input or feed: what must not be, and what a careful reader would ask about."""

from __future__ import annotations

import re
from collections.abc import Iterator

from onymous.rules.tenants import (
    FEED_KINDS,
    INPUT_KINDS,
    PERMISSIONS,
    PLATFORMS,
    SERVER_KINDS,
    InputConfig,
)
from onymous.rules.wording import Problem, hint, path, shorten

#: (least, most, unit) of each number of an input
LIMITS: dict[str, tuple[int, int, str]] = {
    "max_age_s": (0, 2_592_000, "seconds"),
    "skew_s": (0, 86_400, "seconds"),
    "requests_per_second": (0, 1_000_000, "requests"),
}
#: most origins, flags, and characters of a flag
MOST_ORIGINS, MOST_FLAGS, MOST_FLAG = 100, 50, 256
_ORIGIN = re.compile(r"\*|[a-z][a-z0-9+.-]*://[^/\s?#@*]+")
_API_KEY = re.compile(r"[A-Za-z0-9_-]{8,128}")
_PARTNER = re.compile(r"[A-Za-z0-9.-]{1,64}")
_SECRET = re.compile(r"secret|passw(or)?d|private_?key|credential", re.I)


def input_problems(config: InputConfig, where: str, *, feed: bool) -> list[Problem]:
    """Return what makes a (resolved) input unusable; `feed`: it stands under feeds."""
    return [
        *_kind(config, where, feed),
        *_rights(config, where),
        *_numbers(config, where),
        *_texts(config, where),
    ]


def _kind(config: InputConfig, where: str, feed: bool) -> Iterator[Problem]:
    kinds, others = (FEED_KINDS, INPUT_KINDS) if feed else (INPUT_KINDS, FEED_KINDS)
    if config.kind not in kinds:
        at, kind = path(where, "kind"), shorten(config.kind)
        if config.kind in others:
            side = "inputs" if feed else "feeds"
            yield Problem(at, f"{kind} belongs under {side}", f"move it under {side}")
        else:
            yield Problem(at, f"{kind} is not a kind of {_noun(feed)}", hint(config.kind, kinds))
    if config.act_as is not None:
        at = path(where, "act_as")
        if not feed:
            yield Problem(at, "only feeds act as a platform", "leave act_as out")
        elif config.act_as not in PLATFORMS:
            why = f"{shorten(config.act_as)} is not a platform"
            yield Problem(at, why, hint(config.act_as, PLATFORMS))
    if config.partner is not None:
        at = path(where, "partner")
        if config.kind != "partner_feed":
            yield Problem(at, "only partner feeds have a partner", "leave partner out")
        elif not _PARTNER.fullmatch(config.partner):
            why = "a partner's name is 1 to 64 letters, digits, - and ."
            yield Problem(at, why, "write the part of its identities before the underscore")


def _noun(feed: bool) -> str:
    return "feed" if feed else "input"


def _rights(config: InputConfig, where: str) -> Iterator[Problem]:
    """Rights belong to secrets that stay on servers (rulings 11)."""
    if config.server_side and config.kind not in SERVER_KINDS:
        yield Problem(
            path(where, "server_side"),
            f"a secret inside {config.kind} clients can be read by anybody who has the client",
            "make an input of kind server for your back end",
        )
    if config.server_side and config.key_only:
        yield Problem(
            path(where, "key_only"),
            "a server-side input shows its secret; its key alone must not be enough",
            "write key_only: false, or server_side: false",
        )
    for n, permission in enumerate(config.permissions):
        at = f"{path(where, 'permissions')}[{n}]"
        if permission not in PERMISSIONS:
            why = f"{shorten(permission)} is not a permission"
            yield Problem(at, why, hint(permission, PERMISSIONS))
        elif permission in config.permissions[:n]:
            yield Problem(at, f"{permission} stands there twice", "remove the second")
    if config.permissions and not config.server_side:
        yield Problem(
            path(where, "permissions"),
            "only server-side inputs may hold permissions: other secrets are not secret",
            "move them to an input of kind server",
        )


def _numbers(config: InputConfig, where: str) -> Iterator[Problem]:
    for field, (least, most, unit) in LIMITS.items():
        value = getattr(config, field)
        if not least <= value <= most:
            nearest = least if value < least else most
            why = f"{value} is out of range: {field} is {least} to {most} {unit}"
            yield Problem(path(where, field), why, f"write {field}: {nearest}")


def _texts(config: InputConfig, where: str) -> Iterator[Problem]:
    at = path(where, "cors_origins")
    if "*" in config.cors_origins and len(config.cors_origins) > 1:
        yield Problem(at, "* already allows every origin", "remove * or the other origins")
    if len(config.cors_origins) > MOST_ORIGINS:
        yield Problem(at, f"more than {MOST_ORIGINS} origins", 'write ["*"]')
    for n, origin in enumerate(config.cors_origins):
        if not _ORIGIN.fullmatch(origin):
            yield Problem(
                f"{at}[{n}]",
                f"{shorten(origin, 60)} is not an origin",
                "write scheme://host[:port] without a path, like https://shop.example",
            )
    if config.api_key is not None and not _API_KEY.fullmatch(config.api_key):
        yield Problem(
            path(where, "api_key"),
            "a key is 8 to 128 letters, digits, - and _",
            "leave api_key out to have one generated",
        )
    yield from _flags(config, path(where, "config_flags"))


def _flags(config: InputConfig, at: str) -> Iterator[Problem]:
    if len(config.config_flags) > MOST_FLAGS:
        yield Problem(at, f"more than {MOST_FLAGS} flags", "remove those no SDK reads")
    for name, value in config.config_flags.items():
        if _SECRET.search(name):
            why = "config flags are public: every page and app can read them"
            yield Problem(path(at, shorten(name)), why, "remove it and renew the secret")
        elif len(name) > MOST_FLAG or len(value) > MOST_FLAG:
            why = f"a flag has at most {MOST_FLAG} characters"
            yield Problem(path(at, shorten(name)), why, "write a shorter text")


def input_warnings(config: InputConfig, where: str) -> list[Problem]:
    """Return advice on a (resolved) input that `input_problems` found nothing wrong with."""
    out = []
    if config.key_only and config.kind not in ("web", "amp"):
        out.append(
            Problem(
                path(where, "key_only"),
                f"anybody who finds the key can call as this {config.kind} input",
                "write key_only: false; the SDK signs its requests",
            )
        )
    if config.search_key_only and config.key_only:
        out.append(
            Problem(
                path(where, "search_key_only"),
                "anybody with the public key may ask whether an identity exists",
                "write search_key_only: false and search from a server",
            )
        )
    elif config.search_key_only:
        out.append(
            Problem(
                path(where, "search_key_only"),
                "the key alone is not accepted here, so this has no effect",
                "leave search_key_only out",
            )
        )
    if config.skew_s == 0:
        out.append(
            Problem(
                path(where, "skew_s"),
                "a signed request that was overheard can be sent again for ever",
                "write skew_s: 900; 0 only where devices have no clock",
            )
        )
    return out
