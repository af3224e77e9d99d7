"""A request, free of HTTP framing: both the hot routes and the ASGI application make one."""

from __future__ import annotations

import functools
import urllib.parse
from collections.abc import Iterable, Sequence

import msgspec

from onymous.limits import Trusted
from onymous.rules.errors import BadRequest, NotFound

#: longest query string whose meaning is remembered, bytes
MOST_REMEMBERED = 128


class Headers(list[tuple[bytes, bytes]]):
    """Headers that come again and again, and what was made of them."""

    __slots__ = ("who",)

    def __init__(self, headers: Sequence[tuple[bytes, bytes]]) -> None:
        super().__init__(headers)
        #: version of the directory, and whose requests these are (web/auth.py)
        self.who: tuple[int, object] = (-1, None)


class Call(msgspec.Struct):
    """One request as the handlers see it."""

    method: str
    #: path as it came, without query
    path: str
    query: bytes
    #: (lower-case name, value)
    headers: Sequence[tuple[bytes, bytes]]
    #: body as it came; `plain` inflates it
    body: bytes
    #: address of the client (behind trusted proxies: as they say)
    address: str
    #: named parts of the route's path
    parts: dict[str, str] = {}
    #: came by a hot route: plain, never compressed
    hot: bool = False

    def header(self, name: bytes) -> str | None:
        """Return the first header of a (lower-case) name."""
        for key, value in self.headers:
            if key == name:
                return value.decode("latin-1")
        return None

    def number(self) -> int:
        """Return the number the path names by (`id`); raises `NotFound` for anything else."""
        number = digits(self.parts["id"])
        if number is None:
            raise NotFound()
        return number

    def params(self) -> dict[str, str]:
        """Return the query parameters; of repeated ones the last counts."""
        if not self.query:
            return {}
        short = len(self.query) <= MOST_REMEMBERED
        return dict(_short(self.query) if short else _parsed(self.query))


def digits(text: str) -> int | None:
    """Return a number of at most 18 digits, or None for any other text."""
    fits = text.isascii() and text.isdigit() and len(text) <= 18
    return int(text) if fits else None


def _parsed(query: bytes) -> list[tuple[str, str]]:
    if b"%00" in query:
        raise BadRequest(what="the query string has a NUL")
    try:
        return urllib.parse.parse_qsl(
            query.decode("ascii"), keep_blank_values=True, max_num_fields=50, errors="strict"
        )
    except (UnicodeDecodeError, ValueError):
        raise BadRequest(what="the query string is not valid") from None


_short = functools.lru_cache(1_024)(_parsed)


def client_address(trusted: Trusted, peer: str, headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Return the address of a client: the peer's, or what a trusted proxy says of it."""
    if trusted.networks:
        # a proxy may append a line of its own to the client's: together they are one list
        lines = [value for name, value in headers if name == b"x-forwarded-for"]
        if lines:
            return trusted.address(peer, b",".join(lines).decode("latin-1"))
    return peer


def flag(params: dict[str, str], name: str, default: bool = False) -> bool:
    """Return a boolean query parameter; raises `BadRequest` for anything but true or false."""
    value = params.get(name)
    if value is None:
        return default
    word = value.strip().lower()
    if word in ("true", "1", ""):
        return True
    if word in ("false", "0"):
        return False
    raise BadRequest(what=f"{name} must be true or false")
