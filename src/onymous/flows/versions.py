"""Versions of the configuration: written in the transaction of the change itself.

Version N is what tenancy was after change N. A database that was set up before versions were kept
gets one of what was found, so that the first change can be taken back too.
"""

from __future__ import annotations

import zlib

import msgspec

from onymous.flows import tenancy
from onymous.flows.config_text import text_of
from onymous.later import module
from onymous.rules.errors import BadRequest, ConfigChanged, NoSuchVersion
from onymous.store import configuration_sql as sql
from onymous.store.port import Row, Session, Store, Transaction
from onymous.store.rules_sql import PLAN_KEYS_DROP

difflib = module("difflib")

MOST_AUTHOR, MOST_REASON, MOST_PAGE = 100, 500, 200
_steps = msgspec.json.Decoder(list[str]).decode
_FOUND = "as it was found when versions began to be kept"


class Author(msgspec.Struct, frozen=True, kw_only=True):
    """Who changes the configuration, and why."""

    name: str
    reason: str = ""
    #: the version a rollback applies again
    brought_back: int | None = None

    def __post_init__(self) -> None:
        """Raise `BadRequest` for text that cannot be kept or shown."""
        for noun, text, least, most in (
            ("author", self.name, 1, MOST_AUTHOR),
            ("reason", self.reason, 0, MOST_REASON),
        ):
            if not least <= len(text.strip()) <= most or not text.isprintable():
                raise BadRequest(what=f"{noun} is {least} to {most} printable characters")


class Version(msgspec.Struct, kw_only=True):
    """One version as it is listed; `document` is filled where one version is asked for."""

    version: int
    at_ms: int
    author: str
    reason: str
    #: the version this rollback brought back
    rolled_back_to: int | None = None
    steps: list[str] = []
    document: str | None = None


async def newest(session: Session) -> int:
    """Return the number of the version in force; 0 before the first."""
    rows = await session.rows(sql.VERSION_NEWEST)
    return int(rows[0][0]) if rows else 0


async def expect(tx: Transaction, version: int | None) -> None:
    """Raise `ConfigChanged` unless `version` is the one in force; None accepts any."""
    if version is not None:
        now = await newest(tx)
        if now != version:
            raise ConfigChanged(now=now)


async def found(tx: Transaction, now_ms: int) -> None:
    """Keep what is there as the first version, where it was set up before there were any."""
    state, _ = await tenancy.read_state(tx)
    if state.organization is not None and not await newest(tx):
        await _add(tx, 1, now_ms, Author(name="onymous", reason=_FOUND), [], text_of(state))


async def record(tx: Transaction, author: Author, steps: list[str], now_ms: int) -> int:
    """Keep tenancy as this transaction leaves it as a new version; needs `tenancy.lock`."""
    state, _ = await tenancy.read_state(tx)
    number = await newest(tx) + 1
    await tx.run(PLAN_KEYS_DROP)
    await _add(tx, number, now_ms, author, steps, text_of(state))
    return number


async def _add(
    tx: Transaction,
    number: int,
    now_ms: int,
    author: Author,
    steps: list[str],
    document: str,
) -> None:
    packed = zlib.compress(document.encode())
    told = msgspec.json.encode(steps)
    name, reason = author.name.strip(), author.reason.strip()
    back = author.brought_back
    await tx.run(sql.VERSION_ADD, number, now_ms, name, reason, back, told, packed)


async def versions(store: Store, before: int | None = None, limit: int = 50) -> list[Version]:
    """Return versions, newest first, without their documents."""
    async with store.read() as session:
        rows = await session.rows(sql.VERSIONS_BEFORE, before or 1 << 62, min(limit, MOST_PAGE))
    return [_version(row) for row in rows]


async def version(store: Store, number: int) -> Version:
    """Return one version with its document; raises `NoSuchVersion`."""
    async with store.read() as session:
        rows = await session.rows(sql.VERSION_ONE, number) if 0 < number < 1 << 62 else []
    if not rows:
        raise NoSuchVersion(version=number)
    out = _version(rows[0])
    out.document = zlib.decompress(bytes(rows[0][6])).decode()
    return out


def _version(row: Row) -> Version:
    number, at_ms, actor, reason, back, steps = row[:6]
    return Version(
        version=number,
        at_ms=at_ms,
        author=actor,
        reason=reason,
        rolled_back_to=back,
        steps=_steps(bytes(steps)),
    )


def difference(old: str, new: str, names: tuple[str, str] = ("before", "after")) -> list[str]:
    """Return the lines in which two documents differ, with their surroundings."""
    lines = difflib.unified_diff(old.splitlines(), new.splitlines(), *names, lineterm="")
    return list(lines)
