"""Tokens over HTTP: client credentials in, a bearer token out; revocation; public keys.

Errors are those of OAuth 2.0 (RFC 6749): `error` and `error_description`.
"""

from __future__ import annotations

import time
import urllib.parse
from typing import Any

import msgspec

from onymous.flows.tokens import LIFE_S, TokenRefused, Tokens
from onymous.web.calls import Call
from onymous.web.signing import parse_basic
from onymous.web.wire import Reply

MOST_BODY = 16_384
_NO_STORE = ((b"cache-control", b"no-store"), (b"pragma", b"no-cache"))
_decode = msgspec.json.Decoder(dict[str, Any]).decode
_encode = msgspec.json.Encoder().encode


class OAuthWeb:
    """POST /oauth/token and /oauth/revoke, GET /.well-known/jwks.json."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    async def token(self, call: Call) -> Reply:
        """Issue a token for client credentials, sent as JSON or as a form."""
        try:
            given = _given(call)
            if given.get("grant_type") != "client_credentials":
                known = "unsupported_grant_type" if "grant_type" in given else "invalid_request"
                raise TokenRefused(known, "grant_type must be client_credentials")
            client, secret = _client(call, given)
            now_ms = time.time_ns() // 1_000_000
            token = await self._tokens.issue(client, secret, given.get("audience"), now_ms)
        except TokenRefused as refused:
            return _refused(refused)
        body = {"access_token": token, "expires_in": LIFE_S, "token_type": "Bearer"}
        return Reply(200, _encode(body), _NO_STORE)

    async def revoke(self, call: Call) -> Reply:
        """Take back a token of the client that asks (RFC 7009), given whole or by its jti.

        What is no token of this client is answered 200 too: it is not valid, which is the aim.
        """
        try:
            given = _given(call)
            client, secret = _client(call, given)
            token = given.get("token") or given.get("jti")
            if not token:
                raise TokenRefused("invalid_request", "token or jti is missing")
            now_ms = time.time_ns() // 1_000_000
            credential = await self._tokens.client(client, secret, now_ms)
            await self._tokens.revoke(credential, token, now_ms)
        except TokenRefused as refused:
            return _refused(refused)
        return Reply(200, b"{}", _NO_STORE)

    async def jwks(self, call: Call) -> Reply:
        """Return the public keys tokens are signed with."""
        found = await self._tokens.jwks(time.time_ns() // 1_000_000)
        return Reply(200, _encode(found), ((b"cache-control", b"public, max-age=300"),))


def _given(call: Call) -> dict[str, str]:
    """Return the fields of a form or a JSON object; raises `TokenRefused`."""
    kind = (call.header(b"content-type") or "").partition(";")[0].strip().lower()
    try:
        if kind == "application/x-www-form-urlencoded":
            text = call.body.decode("utf-8")
            pairs = urllib.parse.parse_qsl(text, max_num_fields=20, errors="strict")
            given: dict[str, Any] = dict(pairs)
            if len(given) != len(pairs):
                raise TokenRefused("invalid_request", "a field is given twice")
        else:
            given = _decode(call.body)
    except (ValueError, msgspec.DecodeError, RecursionError):
        raise TokenRefused("invalid_request", "the body is neither a form nor JSON") from None
    if any(not isinstance(v, str) for v in given.values()):
        raise TokenRefused("invalid_request", "every field is text")
    return given


def _client(call: Call, given: dict[str, str]) -> tuple[str, str]:
    """Return client id and secret, from the body or a Basic header; raises `TokenRefused`."""
    header = call.header(b"authorization")
    pair = parse_basic(header) if header is not None else None
    client, secret = pair or (given.get("client_id", ""), given.get("client_secret", ""))
    if not client or not secret:
        raise TokenRefused("invalid_client", "client_id and client_secret are missing", 401)
    return client, secret


def _refused(refused: TokenRefused) -> Reply:
    body = {"error": refused.error, "error_description": refused.description}
    more = ((b"www-authenticate", b'Basic realm="onymous"'),) if refused.status == 401 else ()
    return Reply(refused.status, _encode(body), (*_NO_STORE, *more), reason=type(refused).__name__)
