"""People who sign in to the console: roles, passwords (scrypt), one-time links, failed tries."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable

import msgspec
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from onymous.crypto import MasterKey
from onymous.store import console_sql as sql
from onymous.store.port import Row, Store, Transaction
from onymous.store.sql import AUDIT_ADD, META_GET, META_ONCE

#: role -> what it may do
ROLES: dict[str, frozenset[str]] = {
    "admin": frozenset({"view", "reveal", "merge", "audit"}),
    "support": frozenset({"view", "reveal", "merge"}),
    "read-only": frozenset({"view"}),
}
LEAST_PASSWORD, MOST_PASSWORD, MOST_NAME = 10, 1_024, 64
LINK_MS = 15 * 60_000
#: failed tries in a window: for a name from an address, for an address, for a name
TRIES_S, TRIES_HERE, TRIES_ADDRESS, TRIES_NAME = 900, 5, 50, 200
_MOST_TRIES = 10_000
#: 32 MiB and about a tenth of a second for one try (log2 n, r, p)
_COST = (15, 8, 1)
#: what cookies are signed with: its row of `meta`, and what it is sealed for
COOKIES = "console_key"
COOKIES_CONTEXT = b"cookies of the console"


class PeopleProblem(Exception):
    """Someone cannot be added or found; the message says why, in one line."""


class User(msgspec.Struct, frozen=True):
    """Someone who may sign in."""

    id: int
    name: str
    role: str
    #: names of the scopes they see; none: all
    scopes: tuple[str, ...]
    generation: int
    created_ms: int

    def may(self, task: str) -> bool:
        """Return whether the role includes a task: view, reveal, merge or audit."""
        return task in ROLES.get(self.role, frozenset())

    def sees(self, scope: str) -> bool:
        """Return whether a scope is open to them."""
        return not self.scopes or scope in self.scopes


class People:
    """Keeps the people of one store."""

    def __init__(self, store: Store, key: MasterKey) -> None:
        self._store, self._key = store, key
        #: a try costs memory and a core: two at once
        self._turn = asyncio.Semaphore(2)

    async def signing_key(self) -> bytes:
        """Return the key that signs cookies: made once, sealed in the database."""
        async with self._store.read() as session:
            rows = await session.rows(META_GET, COOKIES)
        if rows:
            return self._key.open(bytes(rows[0][0]), COOKIES_CONTEXT)
        sealed = self._key.seal(secrets.token_bytes(32), COOKIES_CONTEXT)
        async with self._store.write("console_key") as tx:
            await tx.run(META_ONCE, COOKIES, sealed)
            rows = await tx.rows(META_GET, COOKIES)
        return self._key.open(bytes(rows[0][0]), COOKIES_CONTEXT)

    async def all(self) -> list[User]:
        """Return everybody, by name."""
        async with self._store.read() as session:
            return [_user(row) for row in await session.rows(sql.USERS)]

    async def by_id(self, number: int) -> User | None:
        """Return who has this number, or None."""
        async with self._store.read() as session:
            rows = await session.rows(sql.USER_BY_ID, number)
        return _user(rows[0]) if rows else None

    async def add(
        self, name: str, role: str, password: str, scopes: tuple[str, ...], *, actor: str
    ) -> User:
        """Add someone; raises `PeopleProblem` for what cannot be."""
        name = _checked_name(name)
        if role not in ROLES:
            raise PeopleProblem(f"role is one of {', '.join(ROLES)}")
        hashed = await self._hash(_checked_password(password))
        async with self._store.write("people.add") as tx:
            if await tx.rows(sql.USER_BY_NAME, name):
                raise PeopleProblem("there is someone of this name already")
            packed = msgspec.json.encode(scopes)
            await tx.run(sql.USER_ADD, name, role, packed, hashed, 1, _now())
            await _note(tx, actor, "add console user", name, {"role": role, "scopes": scopes})
            rows = await tx.rows(sql.USER_BY_NAME, name)
        return _user(rows[0])

    async def remove(self, name: str, *, actor: str) -> None:
        """Remove someone, at once; raises `PeopleProblem` for a name nobody has."""
        async with self._store.write("people.remove") as tx:
            user = await _named(tx, name)
            await tx.run(sql.USER_DROP, user.id)
            await _note(tx, actor, "remove console user", user.name, {})

    async def set_password(self, name: str, password: str, *, actor: str) -> None:
        """Give someone a new password; ends their sessions. Raises as `add` and `remove` do."""
        hashed = await self._hash(_checked_password(password))
        async with self._store.write("people.password") as tx:
            user = await _named(tx, name)
            await tx.run(sql.USER_CHANGE, hashed, user.id)
            await _note(tx, actor, "set console password", user.name, {})

    async def link(self, name: str, *, actor: str, lasts_ms: int = LINK_MS) -> str:
        """Return a token that signs someone in once, within `lasts_ms` milliseconds."""
        token = secrets.token_urlsafe(24)
        async with self._store.write("people.link") as tx:
            user = await _named(tx, name)
            await tx.run(sql.LINK_SET, _digest(token), _now() + lasts_ms, user.id)
            await _note(tx, actor, "make sign-in link", user.name, {})
        return token

    async def check(self, name: str, password: str) -> User | None:
        """Return who this is, or None; takes as long for a name nobody has."""
        async with self._store.read() as session:
            # nobody's name has a NUL, and an engine may not take one
            known = name.replace("\0", "\ufffd").strip().casefold()
            rows = await session.rows(sql.USER_BY_NAME, known)
        stored = rows[0][4] if rows else _NOBODY
        fits = await self._fits(password[:MOST_PASSWORD], stored)
        return _user(rows[0]) if rows and fits else None

    async def use_link(self, token: str) -> User | None:
        """Return who a one-time link signs in, and use it up; None where it is no good."""
        async with self._store.write("people.use_link") as tx:
            rows = await tx.rows(sql.LINK_USE, _digest(token), _now())
        return _user(rows[0]) if rows else None

    async def sign_out(self, user: User) -> None:
        """End all sessions of someone."""
        async with self._store.write("people.sign_out") as tx:
            await tx.run(sql.USER_OUT, user.id)

    async def note(self, user: User, action: str, subject: str, detail: object) -> None:
        """Write into the audit what someone does; the detail holds no values."""
        async with self._store.write("audit") as tx:
            await _note(tx, f"console/{user.name}", action, subject, detail)

    async def _hash(self, password: str) -> str:
        salt = secrets.token_bytes(16)
        async with self._turn:
            hashed = await asyncio.to_thread(_derive, password, salt, _COST)
        return _pack(_COST, salt, hashed)

    async def _fits(self, password: str, stored: str) -> bool:
        _, logn, r, p, salt, wanted = stored.split("$")
        cost = (int(logn), int(r), int(p))
        async with self._turn:
            hashed = await asyncio.to_thread(_derive, password, _bytes(salt), cost)
        return hmac.compare_digest(hashed, _bytes(wanted))


class Attempts:
    """Counts failed tries to sign in, in memory, bounded; a window lasts `TRIES_S` seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failed: dict[tuple[str, str], tuple[float, int]] = {}

    def wait_s(self, address: str, name: str) -> int:
        """Return how many seconds to wait before the next try; 0: none."""
        waits = [self._wait(key, most) for key, most in _keys(address, name)]
        return max(waits)

    def failed(self, address: str, name: str) -> None:
        """Count a failed try."""
        now = self._clock()
        for key, _ in _keys(address, name):
            start, count = self._failed.pop(key, (now, 0))
            if now - start >= TRIES_S:
                start, count = now, 0
            self._failed[key] = (start, count + 1)
        while len(self._failed) > _MOST_TRIES:
            del self._failed[next(iter(self._failed))]

    def succeeded(self, address: str, name: str) -> None:
        """Take back the try that turned out right, and forget this name's from this address."""
        here, *others = (key for key, _ in _keys(address, name))
        self._failed.pop(here, None)
        for key in others:
            start, count = self._failed.get(key, (0.0, 0))
            if count:
                self._failed[key] = (start, count - 1)

    def _wait(self, key: tuple[str, str], most: int) -> int:
        start, count = self._failed.get(key, (0.0, 0))
        left = start + TRIES_S - self._clock()
        return int(left) + 1 if count >= most and left > 0 else 0


def _keys(address: str, name: str) -> list[tuple[tuple[str, str], int]]:
    name = name.strip().casefold()[:MOST_NAME]
    return [
        ((address, name), TRIES_HERE),
        ((address, ""), TRIES_ADDRESS),
        (("", name), TRIES_NAME),
    ]


def new_password() -> str:
    """Return a random password that can be typed."""
    return "-".join(secrets.token_hex(2) for _ in range(5))


async def _named(tx: Transaction, name: str) -> User:
    rows = await tx.rows(sql.USER_BY_NAME, name.strip().casefold())
    if not rows:
        raise PeopleProblem("nobody of this name signs in to the console")
    return _user(rows[0])


async def _note(tx: Transaction, actor: str, action: str, subject: str, detail: object) -> None:
    await tx.run(AUDIT_ADD, _now(), actor, action, subject, msgspec.json.encode(detail))


def _user(row: Row) -> User:
    scopes = msgspec.json.decode(bytes(row[3]), type=tuple[str, ...])
    return User(row[0], row[1], row[2], scopes, row[5], row[6])


def _checked_name(name: str) -> str:
    name = name.strip().casefold()
    if not 0 < len(name) <= MOST_NAME or not name.isprintable():
        raise PeopleProblem(f"a name is 1 to {MOST_NAME} printable characters")
    return name


def _checked_password(password: str) -> str:
    if not LEAST_PASSWORD <= len(password) <= MOST_PASSWORD:
        raise PeopleProblem(f"a password has at least {LEAST_PASSWORD} characters")
    return password


def _derive(password: str, salt: bytes, cost: tuple[int, int, int]) -> bytes:
    logn, r, p = cost
    return Scrypt(salt=salt, length=32, n=1 << logn, r=r, p=p).derive(
        password.encode("utf-8", "replace")
    )


def _pack(cost: tuple[int, int, int], salt: bytes, hashed: bytes) -> str:
    words = ("scrypt", *map(str, cost), *(base64.b64encode(b).decode() for b in (salt, hashed)))
    return "$".join(words)


def _bytes(text: str) -> bytes:
    return base64.b64decode(text)


def _digest(token: str) -> bytes:
    return hashlib.blake2b(token.encode("utf-8", "replace"), digest_size=32).digest()


def _now() -> int:
    return time.time_ns() // 1_000_000


#: what a try for a name nobody has is compared with
_NOBODY = _pack(_COST, b"\0" * 16, b"\0" * 32)
