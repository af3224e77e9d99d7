"""The requests of the benchmark: fixed lengths, so that making one costs next to nothing."""

from __future__ import annotations

import base64
import random
from collections.abc import Iterator, Sequence

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


_SHARED = (
    b'{"client_sdk":{"platform":"web","sdk_vendor":"onymous","sdk_version":"2.68.0"},'
    b'"context":null,"environment":"production",'
    b'"request_id":"6d0b9d5c-4f1e-4c55-9d0e-%012d","request_timestamp_ms":1763900000000,'
    b'"previous_mpid":null,"known_identities":{"customerid":"hot%08d","other":null,"other2":null,'
    b'"device_application_stamp":"' + HOT_STAMP.encode() + b'"}}'
)


_BATCH = (
    b'{"schema_version":2,"environment":"production","source_request_id":"8f0c-%012d",'
    b'"mp_deviceid":"7a0cdd5b-1c1c-4222-8333-%012d","ip":"203.0.113.77",'
    b'"timestamp_unixtime_ms":1763900000000,"user_identities":{"customer_id":"c%010d"},'
    b'"user_attributes":{"plan":"gold","$city":"Bern","visits":"%06d"},'
    b'"device_info":{"platform":"web","screen_width":1920,"screen_height":1080,'
    b'"locale_language":"en","locale_country":"CH","timezone_offset":1},'
    b'"application_info":{"application_name":"shop","application_version":"4.12.0"},'
    b'"events":[{"event_type":"screen_view","data":{"screen_name":"product page",'
    b'"timestamp_unixtime_ms":1763900000100,"session_uuid":"84e1b361-a282-4adf-8a6d-%012d",'
    b'"custom_attributes":{"ref":"https://shop.example.com/c/shoes?x=%06d"}}},'
    b'{"event_type":"custom_event","data":{"event_name":"viewed product",'
    b'"custom_event_type":"navigation","timestamp_unixtime_ms":1763900000200,'
    b'"session_uuid":"84e1b361-a282-4adf-8a6d-%012d","custom_attributes":{"category":"shoes",'
    b'"price":"119.90","position":"3","list":"search results","sku":"%08d"}}},'
    b'{"event_type":"commerce_event","data":{"timestamp_unixtime_ms":1763900000300,'
    b'"session_uuid":"84e1b361-a282-4adf-8a6d-%012d","currency_code":"CHF",'
    b'"product_action":{"action":"add_to_cart","products":[{"id":"%08d","name":"Trail shoe",'
    b'"brand":"Nimbus","category":"shoes","price":119.90,"quantity":1}]}}}]}'
)
#: batches in one call of the bulk path
BULK = 100


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


def batch(request: int, person: int) -> bytes:
    """Return the body of one batch of events of about 1.4 KB."""
    number = request % 10**12
    short = number % 10**6
    return _BATCH % (
        number,
        person,
        person,
        short,
        number,
        short,
        number,
        short,
        number,
        short,
    )


def batches(kind: str, seed: int, people: int, *, secret: str) -> Iterator[bytes]:
    """Yield calls that bring events for ever: one batch each, or `BULK` of them."""
    rng = random.Random(seed)
    # numbers never come twice, or the batch would be a repeat
    number = seed * 10**8
    while True:
        number += BULK
        if kind == "batch":
            body = batch(number, int(rng.random() * people))
            yield head("/v2/events", len(body), secret=secret) + body
            continue
        some = [batch(number + n, int(rng.random() * people)) for n in range(BULK)]
        body = b"[" + b",".join(some) + b"]"
        yield head("/v2/bulkevents", len(body), secret=secret) + body


def reads(seed: int, paths: Sequence[str], token: str) -> Iterator[bytes]:
    """Yield reads of profiles for ever."""
    rng = random.Random(seed)
    tail = f" HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {token}\r\n\r\n"
    asked = [f"GET {path}{tail}".encode() for path in paths]
    while True:
        yield rng.choice(asked)


def requests(
    kind: str, seed: int, people: int, first_new: int, *, secret: str = ""
) -> Iterator[bytes]:
    """Yield requests for ever.

    `known`, `explain`; `mixed` (one in ten is new), `new`; `hot` (a device id very many people
    share), `hot-known` (those people with it).
    """
    rng = random.Random(seed)
    path = "/v1/identify" + ("?explain=true" if kind == "explain" else "")
    size = len({"hot": _DEVICE % 0, "hot-known": _SHARED % (0, 0)}.get(kind) or body(0, 0))
    start = head(path, size, secret=secret)
    number, new = rng.randrange(10**11), first_new
    while True:
        number += 1
        if kind == "hot":
            yield start + _DEVICE % (number % 10**12)
        elif kind == "hot-known":
            yield start + _SHARED % (number % 10**12, int(rng.random() * people))
        elif kind == "new" or (kind == "mixed" and number % 10 == 0):
            new += 1
            yield start + body(number % 10**12, new)
        else:
            yield start + body(number % 10**12, int(rng.random() * people))
