"""What SDKs meet at a URL: answers, TLS, CORS, what a proxy on the way takes away."""

from __future__ import annotations

import datetime
import email.utils
import socket
import ssl
import urllib.parse
from collections.abc import Iterator

import httpx

from onymous.doctor import FAIL, OK, SKEW_MS, WARN, Check, expiry
from onymous.settings import Settings

ORIGIN = "https://shop.example"
SECONDS = 10.0
_ASKED = "x-mp-key,content-type"


def of_url(url: str, key: str, settings: Settings) -> Iterator[Check]:
    """Check a URL as an SDK would use it; `key` is the API key of a web input, or empty."""
    url = url.rstrip("/")
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        yield Check("url", FAIL, f"{url} is no URL of a server", "write https://HOST[:PORT]")
        return
    local = parts.hostname in ("localhost", "::1") or parts.hostname.startswith("127.")
    if parts.scheme == "http":
        state = OK if local else FAIL
        yield Check("tls", state, "plain http", "" if local else "SDKs call https: use TLS")
    else:
        yield _certificate(parts.hostname, parts.port or 443)
    with httpx.Client(
        base_url=url, timeout=SECONDS, trust_env=False, verify=authorities()
    ) as client:
        try:
            yield _ready(client)
            yield from _cors(client)
            yield from _proxy(client, local, settings)
            yield from _sdk(client, key, parts)
        except httpx.HTTPError as error:
            todo = "is it serving there? does the certificate fit, and the proxy reach it?"
            yield Check("url", FAIL, f"{url} does not answer: {type(error).__name__}", todo)


def authorities() -> ssl.SSLContext:
    """Return whom to trust: what this machine trusts, and the public authorities."""
    context = httpx.create_ssl_context()
    context.load_default_certs()
    return context


def _certificate(host: str, port: int) -> Check:
    context = authorities()
    try:
        with (
            socket.create_connection((host, port), SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=host) as sock,
        ):
            found = sock.getpeercert() or {}
    except ssl.SSLCertVerificationError as error:
        todo = "SDKs verify it: use one of a public authority, with its chain, for this name"
        return Check("tls", FAIL, f"the certificate is refused: {error.verify_message}", todo)
    except OSError as error:
        return Check("tls", FAIL, f"no https: {type(error).__name__}", "is TLS served there?")
    return expiry("tls", ssl.cert_time_to_seconds(str(found["notAfter"])))


def _ready(client: httpx.Client) -> Check:
    reply = client.get("/readyz")
    if reply.status_code == 200:
        return Check("ready", OK, "/readyz answers 200")
    if reply.status_code == 503:
        todo = "the database does not answer the server, or went back: see its log"
        return Check("ready", FAIL, "/readyz answers 503", todo)
    todo = "the proxy must hand every path on unchanged"
    return Check("ready", FAIL, f"/readyz answers {reply.status_code}", todo)


def _cors(client: httpx.Client) -> Iterator[Check]:
    """Browsers ask first, and read answers, also refusals, only with these headers."""
    asking = {
        "Origin": ORIGIN,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": _ASKED,
    }
    reply = client.options("/v1/identify", headers=asking)
    allowed = reply.headers.get("access-control-allow-headers", "").lower()
    todo = "let the proxy pass OPTIONS and the server's CORS headers on, and add none of its own"
    if reply.status_code >= 300 or any(name not in allowed for name in _ASKED.split(",")):
        yield Check("cors", FAIL, f"a preflight is answered {reply.status_code}", todo)
        return
    reply = client.post("/v1/identify", headers={"Origin": ORIGIN}, json={})
    origins = reply.headers.get_list("access-control-allow-origin")
    if len(origins) != 1 or origins[0] not in ("*", ORIGIN):
        what = f"answers carry {len(origins)} Access-Control-Allow-Origin"
        yield Check("cors", FAIL, what, todo)
    else:
        yield Check("cors", OK, "preflights and refusals can be read by browsers")


def _proxy(client: httpx.Client, local: bool, settings: Settings) -> Iterator[Check]:
    reply = client.get("/healthz")
    between = any(name in reply.headers for name in ("via", "server", "x-served-by", "cf-ray"))
    if between and not settings.trusted_proxies:
        todo = "set trusted_proxies to its networks: limits count it as one client"
        yield Check("proxy", WARN, "there is a proxy on the way, and none is trusted", todo)
    date = (
        email.utils.parsedate_to_datetime(reply.headers["date"])
        if "date" in reply.headers
        else None
    )
    if date is not None:
        apart = abs((datetime.datetime.now(datetime.UTC) - date).total_seconds())
        if apart * 1000 > SKEW_MS:
            todo = "set the clocks (NTP): signed requests are refused outside their window"
            yield Check("clock", WARN, f"its clock is {apart:.0f} s from here", todo)
    for path in ("/metrics", "/console"):
        if not local and client.get(path).status_code != 404:
            todo = "set manage_port, or let the proxy refuse it"
            yield Check("operators", WARN, f"{path} is answered to everybody", todo)


def _sdk(client: httpx.Client, key: str, parts: urllib.parse.SplitResult) -> Iterator[Check]:
    """Check with a key what gets through, and say what to write into SDKs."""
    place = f"{parts.netloc}{parts.path}"
    write = f"in the web SDK: identityUrl '{place}/v1/', v3SecureServiceUrl '{place}/v3/JS/'"
    if not key:
        todo = "name the key of a web input with --key to check more"
        yield Check("sdk url", OK, f"{write}; {todo}")
        return
    reply = client.get(f"/JS/v2/{key}/config")
    if reply.status_code != 200:
        todo = "the key is unknown there, or the proxy changes paths"
        yield Check("sdk url", FAIL, f"its configuration is answered {reply.status_code}", todo)
        return
    reply = client.post("/v1/identify", headers={"x-mp-key": key}, json={})
    if reply.status_code == 401:
        todo = "let the proxy pass every header on: x-mp-key, x-mp-signature, authorization, date"
        yield Check("sdk url", FAIL, "the header x-mp-key does not arrive", todo)
        return
    yield Check("sdk url", OK, write)
