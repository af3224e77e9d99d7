"""Credentials -> caller. Three ways: Basic, signature, and the key alone where the input allows.

Every failure is the same 401; nothing tells a stranger which part was wrong.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Sequence
from typing import cast

import msgspec

from onymous.flows.tenants import Caller, Directory
from onymous.rules.errors import Forbidden, ScopeChanging, Unauthorized
from onymous.web.calls import Call, Headers
from onymous.web.signing import parse_basic, parse_dates, verify

#: Basic headers remembered, so that a busy server does not decode and compare them again
MOST_REMEMBERED = 4096


class Credentials(msgspec.Struct, frozen=True):
    """Who calls, and how it was proven."""

    caller: Caller
    #: nothing but a public key was shown (rulings 12)
    key_only: bool = False
    #: the request was signed or carried the secret
    signed: bool = True

    def may(self, permission: str) -> bool:
        """Return whether this credential holds a permission."""
        return not self.key_only and permission in self.caller.permissions

    def need(self, permission: str) -> None:
        """Raise `Forbidden` unless this credential holds a permission."""
        if not self.may(permission):
            raise Forbidden(permission=permission)


class Authenticator:
    """Checks the credentials of requests against the directory."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._basic: dict[bytes, tuple[int, Credentials]] = {}
        self._key_only: dict[bytes, tuple[int, Credentials]] = {}

    def check(
        self,
        method: str,
        path: str,
        query: bytes,
        headers: Sequence[tuple[bytes, bytes]],
        body: bytes,
        path_key: str | None = None,
    ) -> Credentials:
        """Return whose request this is; `body` must be uncompressed (the signature is over it).

        Raises `Unauthorized`. `path_key` is an API key in the path (native SDKs sign such
        requests without naming the key in a header).
        """
        if isinstance(headers, Headers) and (known := self.known(headers)) is not None:
            return known
        basic = key = signature = date = None
        for name, value in headers:
            if name == b"authorization":
                basic = value
            elif name == b"x-mp-key":
                key = value
            elif name == b"x-mp-signature":
                signature = value
            elif name == b"date":
                date = value
        if basic is not None:
            return self._note(headers, self._check_basic(basic))
        text = path_key if key is None else key.decode("latin-1").strip()
        if text is None:
            raise Unauthorized()
        if signature is not None:
            return self._check_signature(text, method, path, query, body, date, signature)
        return self._note(headers, self._check_key(text))

    def permitted(self, call: Call, permission: str, body: bytes = b"") -> Credentials:
        """Return whose request this is; raises `Unauthorized`, or `Forbidden` without a permission.

        `body` must be uncompressed, as for `check`.
        """
        who = self.check(call.method, call.path, call.query, call.headers, body)
        who.need(permission)
        return who

    def still(self, who: Credentials, permission: str) -> bool:
        """Return whether an answer that takes long may go on: nothing it stands on was revoked."""
        was, now = who.caller, self._directory.find(who.caller.api_key)
        return (
            now is not None
            and now.active
            and now.scope == was.scope
            and permission in now.permissions
            and set(was.secrets) <= set(now.secrets)
        )

    def _note(self, headers: Sequence[tuple[bytes, bytes]], found: Credentials) -> Credentials:
        """Keep with headers that come again whose they are: a signature proves one request only."""
        if isinstance(headers, Headers):
            headers.who = (self._directory.version, found)
        return found

    def known(self, headers: Headers) -> Credentials | None:
        """Return whose requests with these headers are, if that was found out before."""
        version, found = headers.who
        return cast(Credentials, found) if version == self._directory.version else None

    def knows(self, key: str) -> bool:
        """Return whether an API key exists."""
        return self._directory.find(key) is not None

    def check_path_key(self, key: str) -> Credentials:
        """Return whose path key this is, for the paths whose key is their only credential.

        Web events, web config and web alias; the input must allow its key alone.
        """
        return self._check_key(key)

    def _check_basic(self, header: bytes) -> Credentials:
        version = self._directory.version
        known = self._basic.get(header)
        if known is not None and known[0] == version:
            return known[1]
        pair = parse_basic(header.decode("latin-1"))
        caller = self._directory.find(pair[0]) if pair else None
        if pair is None or caller is None or not caller.active:
            raise Unauthorized()
        given = pair[1].encode("utf-8", "surrogatepass")
        fits = [hmac.compare_digest(given, secret) for secret in caller.secrets]
        if not any(fits):
            raise Unauthorized()
        self._directory.used.note(caller.input, secret_of(caller, fits.index(True)))
        _there(caller)
        return self._remember(self._basic, header, Credentials(caller))

    def _check_signature(
        self,
        key: str,
        method: str,
        path: str,
        query: bytes,
        body: bytes,
        date: bytes | None,
        signature: bytes,
    ) -> Credentials:
        caller = self._directory.find(key)
        if caller is None or not caller.active or date is None:
            raise Unauthorized()
        text, given = date.decode("latin-1"), signature.decode("latin-1").strip()
        if caller.skew_s:
            off = [abs(at - time.time() * 1000) for at in parse_dates(text)]
            if not off or min(off) > caller.skew_s * 1000:
                raise Unauthorized()
        words = query.decode("latin-1")
        for place, secret in enumerate(caller.secrets):
            if verify(secret, method, text, path, words, body, given):
                self._directory.used.note(caller.input, secret_of(caller, place))
                _there(caller)
                return Credentials(caller)
        raise Unauthorized()

    def _check_key(self, key: str) -> Credentials:
        raw = key.encode("latin-1", "replace")
        version = self._directory.version
        known = self._key_only.get(raw)
        if known is not None and known[0] == version:
            return known[1]
        caller = self._directory.find(key)
        if caller is None or not caller.active or not caller.key_only:
            raise Unauthorized()
        self._directory.used.note(caller.input, None)
        _there(caller)
        return self._remember(self._key_only, raw, Credentials(caller, key_only=True, signed=False))

    def _remember(
        self,
        cache: dict[bytes, tuple[int, Credentials]],
        key: bytes,
        credentials: Credentials,
    ) -> Credentials:
        if len(cache) >= MOST_REMEMBERED:
            cache.clear()
        cache[key] = (self._directory.version, credentials)
        return credentials


def secret_of(caller: Caller, place: int) -> int | None:
    """Return the number of one of a caller's secrets."""
    return caller.secret_ids[place] if place < len(caller.secret_ids) else None


def _there(caller: Caller) -> None:
    """Raise `ScopeChanging` while the people of a caller's workspace go to another scope."""
    if caller.held:
        raise ScopeChanging(retry_after_s=5)
