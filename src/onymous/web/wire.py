"""What goes over the wire: request bodies in, answers out, both spellings of errors."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from onymous.flows.answers import Answer
from onymous.rules.errors import BadJson, BodyTooLarge, Refusal
from onymous.rules.trace import lines


class Reply(msgspec.Struct):
    """A complete answer, free of HTTP framing."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    content_type: bytes = b"application/json"
    #: more of the body, for as long as the client stays
    stream: AsyncIterator[bytes] | None = None
    #: kind of the refusal this is, for metrics
    reason: str = ""


class IdentityBody(msgspec.Struct, kw_only=True):
    """Body of identify, login, logout and search; other fields are ignored."""

    environment: str | None = None
    known_identities: dict[str, Any] | None = None
    previous_mpid: str | int | None = None
    request_id: str | None = None
    #: how one SDK spells it
    requestId: str | None = None
    context: Any = None


class ModifyBody(msgspec.Struct, kw_only=True):
    """Body of modify."""

    environment: str | None = None
    identity_changes: list[ModifyEntry] | None = None
    request_id: str | None = None
    requestId: str | None = None


class ModifyEntry(msgspec.Struct, kw_only=True):
    """One entry of `identity_changes`; a missing side is null."""

    identity_type: str
    old_value: Any = None
    new_value: Any = None


identity_decoder = msgspec.json.Decoder(IdentityBody)
modify_decoder = msgspec.json.Decoder(ModifyBody)
_encode = msgspec.json.Encoder().encode


def decode(decoder: msgspec.json.Decoder[Any], body: bytes) -> Any:
    """Decode a JSON body; raises `BadJson` that says what and where, never the value."""
    try:
        return decoder.decode(body)
    except msgspec.DecodeError as error:
        raise BadJson(what=str(error)) from None
    except RecursionError:
        raise BadJson(what="nested too deeply") from None
    except UnicodeDecodeError:
        raise BadJson(what="invalid UTF-8") from None


def inflate(body: bytes, most: int) -> bytes:
    """Inflate a gzip body of at most `most` bytes; a body that is not gzip is returned as it is.

    Some clients announce gzip on requests that are not compressed.
    """
    if body[:2] != b"\x1f\x8b":
        return body
    stream = zlib.decompressobj(wbits=31)
    try:
        out = stream.decompress(body, most + 1)
    except zlib.error:
        raise BadJson(what="the gzip body is damaged") from None
    if len(out) > most:
        raise BodyTooLarge(most=most)
    if not stream.eof:
        raise BadJson(what="the gzip body ends too early")
    return out


def error_body(refusal: Refusal, request_id: str | None = None) -> bytes:
    """Encode an error in both documented spellings."""
    one = [{"code": refusal.code, "message": refusal.message}]
    body: dict[str, Any] = {
        "errors": one,
        "Errors": one,
        "ErrorCode": refusal.code,
        "StatusCode": refusal.status,
        "RequestId": request_id,
        "code": refusal.code,
        "message": refusal.message,
    }
    if refusal.hint:
        body["hint"] = refusal.hint
    return _encode(body)


def identity_body(answer: Answer, *, matches: bool = True) -> bytes:
    """Encode the answer of identify, login, logout and search."""
    if answer.trace is None and answer.matches is None:
        matched = _encode(answer.matched) if matches and answer.matched else b"{}"
        mpid = b"null" if answer.mpid is None else b'"%b"' % answer.mpid.encode()
        return b'{"context":null,%b"is_ephemeral":%b,"mpid":%b,"is_logged_in":%b}' % (
            b'"matched_identities":%b,' % matched if matches else b"",
            b"true" if answer.ephemeral else b"false",
            mpid,
            b"true" if answer.logged_in else b"false",
        )
    body: dict[str, Any] = {"context": None}
    if matches:
        body["matched_identities"] = answer.matched
    body["is_ephemeral"] = answer.ephemeral
    body["mpid"] = answer.mpid
    body["is_logged_in"] = answer.logged_in
    if answer.matches is not None:
        body["matches"] = answer.matches
        body["next_page"] = answer.next_page
    _explain(body, answer)
    return _encode(body)


def modify_body(answer: Answer) -> bytes:
    """Encode the answer of modify."""
    body: dict[str, Any] = {
        "change_results": [
            {"identity_type": name, "modified_mpid": mpid} for name, mpid in answer.changes
        ],
        "mpid": answer.mpid,
        "is_logged_in": answer.logged_in,
    }
    _explain(body, answer)
    return _encode(body)


def _explain(body: dict[str, Any], answer: Answer) -> None:
    if answer.trace is not None:
        body["trace"] = answer.trace
        body["trace_text"] = lines(answer.trace)


def json_reply(status: int, value: object) -> Reply:
    """Make a JSON reply."""
    return Reply(status, _encode(value))
