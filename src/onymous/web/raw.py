"""Answers as the bytes of HTTP/1.1, for the hot routes."""

from __future__ import annotations

import functools
import http

from onymous.web.wire import Reply

#: headers of every answer
CORS: tuple[tuple[bytes, bytes], ...] = (
    (b"access-control-allow-origin", b"*"),
    (
        b"access-control-expose-headers",
        b"X-MP-Max-Age, Retry-After, X-mp-rate-limit-exceeded,"
        b" X-mp-rate-limit-percentage-used, ETag",
    ),
)
_STATUS = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode()
    for status in http.HTTPStatus
}
_CORS_RAW = b"".join(b"%b: %b\r\n" % pair for pair in CORS)


def raw(reply: Reply) -> bytes:
    """Return a reply as the bytes of an HTTP/1.1 answer."""
    body = reply.body
    if reply.status == 304:  # its length would be that of the answer the client has
        start = head(reply.status, reply.content_type, reply.headers)
        return start.removesuffix(b"content-length: ") + b"\r\n"
    return b"%b%d\r\n\r\n%b" % (
        head(reply.status, reply.content_type, reply.headers),
        len(body),
        body,
    )


@functools.lru_cache(1_000)
def head(status: int, content_type: bytes, headers: tuple[tuple[bytes, bytes], ...]) -> bytes:
    """Return the head of an answer up to its length; nearly all answers share a few."""
    more = b"".join(b"%b: %b\r\n" % pair for pair in headers)
    start = b"%bcontent-type: %b\r\n" % (_STATUS[status], content_type)
    return b"%b%b%bcontent-length: " % (start, _CORS_RAW, more)
