"""The requests of the benchmark: fixed lengths, so that making one costs next to nothing."""

from __future__ import annotations

import base64
import random
from collections.abc import Iterator

import msgspec

KEY = "bench-web-key"
SERVER_KEY = "bench-server-key"
#: people that are there before a measurement
PEOPLE = 10_000
#: people of the hot value
HOT_STAMP = "7a0cdd5b-9999-4222-8333-5555aaaa7777"

TENANTS = """
organization: Bench
scopes:
  people: {strategy: profile_conversion, login: [customerid], unique: [customerid],
           priority: [customerid, email, device_application_stamp]}
workspaces:
  shop:
    scope: people
    inputs:
      web: {kind: web, api_key: bench-web-key}
      server: {kind: server, api_key: bench-server-key,
               permissions: [explain, "search:any", "history:read"]}
"""


class _Sdk(msgspec.Struct):
    platform: str
    sdk_vendor: str
    sdk_version: str


class Known(msgspec.Struct):
    """The body of an identify, as the limit decodes it."""

    client_sdk: _Sdk
    environment: str
    request_id: str
    request_timestamp_ms: int
    known_identities: dict[str, str | None]
    context: str | None = None
    previous_mpid: str | None = None


#: as long as a real answer of ours
ANSWER = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
    b"access-control-allow-origin: *\r\naccess-control-expose-headers: X-MP-Max-Age,"
    b" Retry-After, X-mp-rate-limit-exceeded, X-mp-rate-limit-percentage-used, ETag\r\n"
    b"x-mp-max-age: 86400\r\nx-mp-rate-limit-percentage-used: 0\r\ncontent-length: 171\r\n\r\n"
    b'{"context":null,"matched_identities":{"customerid":"c0000001234","email":'
    b'"person00001234@example.org"},"is_ephemeral":false,"mpid":"-1234567890123456789",'
    b'"is_logged_in":true}'
)
ANSWER = ANSWER.replace(b"171", str(len(ANSWER.partition(b"\r\n\r\n")[2])).encode())

_BODY = (
    b'{"client_sdk":{"platform":"web","sdk_vendor":"onymous","sdk_version":"2.68.0"},'
    b'"context":null,"environment":"production",'
    b'"request_id":"6d0b9d5c-4f1e-4c55-9d0e-%012d","request_timestamp_ms":1763900000000,'
    b'"previous_mpid":null,"known_identities":{"customerid":"c%010d",'
    b'"email":"person%010d@example.org","other":null,"other2":null,'
    b'"device_application_stamp":"7a0cdd5b-1c1c-4222-8333-%012d"}}'
)
_DEVICE = (
    b'{"client_sdk":{"platform":"web","sdk_vendor":"onymous","sdk_version":"2.68.0"},'
    b'"context":null,"environment":"production",'
    b'"request_id":"6d0b9d5c-4f1e-4c55-9d0e-%012d","request_timestamp_ms":1763900000000,'
    b'"previous_mpid":null,"known_identities":{"other":null,"other2":null,'
    b'"device_application_stamp":"' + HOT_STAMP.encode() + b'"}}'
)


def head(path: str, length: int, *, secret: str = "") -> bytes:
    """Return the head of a request with a body of this length."""
    who = f"x-mp-key: {KEY}"
    if secret:
        text = base64.b64encode(f"{SERVER_KEY}:{secret}".encode()).decode()
        who = f"authorization: Basic {text}"
    return (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n{who}\r\n"
        f"content-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    ).encode()


def body(request: int, person: int) -> bytes:
    """Return the body of one identify."""
    return _BODY % (request, person, person, person)


def requests(
    kind: str, seed: int, people: int, first_new: int, *, secret: str = ""
) -> Iterator[bytes]:
    """Yield requests for ever: `known`, `mixed` (one in ten is new), `explain`, `hot`."""
    rng = random.Random(seed)
    path = "/v1/identify" + ("?explain=true" if kind == "explain" else "")
    size = len(_DEVICE % 0 if kind == "hot" else body(0, 0))
    start = head(path, size, secret=secret)
    number, new = rng.randrange(10**11), first_new
    while True:
        number += 1
        if kind == "hot":
            yield start + _DEVICE % (number % 10**12)
        elif kind == "mixed" and number % 10 == 0:
            new += 1
            yield start + body(number % 10**12, new)
        else:
            yield start + body(number % 10**12, int(rng.random() * people))
