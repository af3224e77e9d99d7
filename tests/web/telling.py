"""Rows of what the texts say about the wire (`told/*.yaml`), asked of a real server.

A row has `of` (where it is said), `says` (what, in our words) and steps; a step is one request and
what must come back. `<n>` is a name no other row has, `<kept>` something an earlier step kept.
"""

from __future__ import annotations

import asyncio
import base64
import datetime
import gzip
import json
import pathlib
import re
import time
from typing import Any

import httpx
import yaml
from tests.web.reading import MORE, Reading

from onymous.flows.tenants import apply
from onymous.web.signing import sign

FOLDER = pathlib.Path(__file__).parent / "told"
FILES = sorted(FOLDER.glob("*.yaml"))
#: other scopes and inputs the rows speak of
WORLD = (
    MORE.replace(
        "workspaces:\n",
        """  bare: {strategy: default}
  alone: {strategy: profile_isolation, login: [customerid], unique: [customerid]}
  linked: {strategy: profile_link, login: [customerid], unique: [customerid]}
workspaces:
""",
        1,
    )
    + """
  plainly:
    scope: bare
    consent_purposes: [marketing, location_collection]
    inputs:
      bareserver: {kind: server, api_key: bareserver-api-key, permissions: ["search:any"]}
      bareapp: {kind: ios, api_key: bareapp-api-key}
      bareweb: {kind: web, api_key: bareweb-api-key}
      folding: {kind: server, api_key: folding-api-key, fold_keys: true}
      noclock: {kind: android, api_key: noclock-api-key, skew_s: 0}
      shop: {kind: web, api_key: shop-api-key, cors_origins: ["https://shop.example"]}
      seeker: {kind: web, api_key: seeker-api-key, search_key_only: true}
      stale: {kind: web, api_key: stale-api-key, max_age_s: 0,
              config_flags: {cacheIdentity: "True"}}
      noreads: {kind: server, api_key: noreads-api-key, allow_read_only: false}
      limited: {kind: server, api_key: limited-api-key, requests_per_second: 1000}
      limitedweb: {kind: web, api_key: limitedweb-api-key, requests_per_second: 1000}
      slowweb: {kind: web, api_key: slowweb-api-key, requests_per_second: 1}
      slow: {kind: server, api_key: slow-api-key, requests_per_second: 1}
    feeds:
      partner: {kind: partner_feed, partner: Braze, api_key: partner-api-key}
      crm: {kind: custom_feed, api_key: crm-api-key}
  island:
    scope: alone
    inputs:
      isle: {kind: server, api_key: isle-api-key}
  chain:
    scope: linked
    inputs:
      link: {kind: server, api_key: link-api-key}
"""
)
STEP = {
    "to",
    "as",
    "known",
    "body",
    "text",
    "gzip",
    "headers",
    "sign",
    "times",
    "until",
    "eventually",
}
BACK = {"back", "has", "is", "lacks", "with", "without", "keep", "empty", "not"}
ROW = {"of", "says", "steps", *STEP, *BACK}
IDENTITY = re.compile(r"(/identity)?(/v1)?/(identify|login|logout|search)/?")
#: bodies that are no JSON or may be empty
FREE = {"/metrics", "/docs", "/"}


def rows(path: pathlib.Path) -> list[dict[str, Any]]:
    """Read the rows of a file; a word nobody knows is a mistake."""
    found: list[dict[str, Any]] = yaml.safe_load(path.read_text("utf-8"))["rows"]
    for row in found:
        assert row.keys() <= ROW, (row["says"], row.keys() - ROW)
        for step in steps(row):
            assert "to" in step and step.keys() <= STEP | BACK, (row["says"], step)
    return found


def steps(row: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the steps of a row; a row of one step is that step."""
    if "steps" in row:
        return list(row["steps"])
    return [{k: v for k, v in row.items() if k not in ("of", "says")}]


async def world(here: Reading) -> None:
    """Make what the rows speak of."""
    core = here.core
    out = await apply(core.store, core.key, WORLD, actor="test", now_ms=3)
    here.running.secrets |= {c.input: c.secret for c in out.credentials}
    await core.directory.load()
    await core.tokens.load(time.time_ns() // 1_000_000)
    await here.issue("plainly", "profile:read", workspaces=("plainly",))
    await here.issue("powerless", "activity:read", workspaces=("one", "plainly"))


class Telling:
    """Runs rows against a server, one after the other."""

    def __init__(self, here: Reading) -> None:
        self.here = here
        self.kept: dict[str, str] = {}

    async def run(self, number: int, row: dict[str, Any]) -> str | None:
        """Run a row; return what is not as told, or None."""
        places = {w: f"<{w}>" for w in ("one", "sister", "two", "plainly")}
        self.kept = {"n": f"n{number}", "now": str(time.time_ns() // 1_000_000)}
        self.kept |= {f"at {w}": self.here.path(w) for w in places}
        try:
            for step in steps(row):
                for _ in range(step.get("times", 1)):
                    await self._step(step)
        except AssertionError as error:
            return f"{row['of']}: {row['says']}: {error}"
        return None

    async def _step(self, step: dict[str, Any]) -> None:
        method, path = self.fill(step["to"]).split(" ", 1)
        content = self._content(step, path)
        headers = self._headers(step, method, path, content)
        if step.get("gzip"):
            content = gzip.compress(content)
            headers.setdefault("Content-Encoding", "gzip")
        asked = (method, path)
        reply = await self.here.client.request(*asked, content=content, headers=headers)
        for _ in range(100):  # a limit, which a slow machine reaches later
            if reply.status_code == step.get("until", reply.status_code):
                break
            reply = await self.here.client.request(*asked, content=content, headers=headers)
        for _ in range(600 if "eventually" in step else 0):  # what is written behind
            if self.fill(step["eventually"]) in reply.text:
                break
            await asyncio.sleep(0.05)
            reply = await self.here.client.request(*asked, content=content, headers=headers)
        said = f"{method} {path}: {reply.status_code} {reply.text[:300]}"
        assert self.fill(step.get("eventually", "")) in reply.text, said
        assert reply.status_code == step.get("back", 200), said
        self._usual(reply, path.partition("?")[0], step, said)
        self._compare(reply, step, said)

    def _content(self, step: dict[str, Any], path: str) -> bytes:
        if "text" in step:
            text = self.fill(step["text"])
            return str(text).encode("utf-8", "surrogateescape")
        body = self.fill(step.get("body"))
        if "known" in step:
            known = self.fill(step["known"])
            body = {"environment": "production", "known_identities": known, **(body or {})}
        return b"" if body is None else json.dumps(body, ensure_ascii=False).encode()

    def _headers(
        self, step: dict[str, Any], method: str, path: str, content: bytes
    ) -> dict[str, str]:
        who, _, how = step.get("as", "server").partition(" ")
        headers: dict[str, str] = {}
        if "sign" in step:
            given = step["sign"]
            date = stamp(given.get("date", "rfc"), given.get("late_s", 0))
            secret = self.here.running.secrets[who].encode()
            signed = self.fill(given.get("path", path))
            text = content + self.fill(given.get("body", "")).encode()
            headers["Date"] = date
            headers["x-mp-signature"] = sign(secret, method, date, signed, text)
            if given.get("key", True):
                headers["x-mp-key"] = f"{who}-api-key"
            if given.get("upper"):
                headers["x-mp-signature"] = headers["x-mp-signature"].upper()
        elif how == "key":
            headers["x-mp-key"] = f"{who}-api-key"
        elif how == "token":
            headers |= self.here.bearer(who)
        elif who != "nobody":
            headers |= self.here.running.basic(who)
        return headers | self.fill(step.get("headers", {}))

    def fill(self, value: Any) -> Any:
        """Put in what rows call by name: `<n>`, `<kept>`, `<long 9>`, `<plainbasic TEXT>`."""
        if isinstance(value, dict):
            return {self.fill(k): self.fill(v) for k, v in value.items()}
        if isinstance(value, list):
            return [self.fill(item) for item in value]
        return re.sub(r"<([^<>]+)>", self._named, value) if isinstance(value, str) else value

    def _named(self, match: re.Match[str]) -> str:
        name = match[1]
        word, _, rest = name.partition(" ")
        if word == "long":
            return "x" * int(rest)
        if word == "batches":
            return ",".join(["{}"] * int(rest))
        if word == "client":
            client = self.here.clients[rest.rpartition(" ")[2]]
            return client["client_secret" if rest.startswith("secret ") else "client_id"]
        if word == "plainbasic":
            return "Basic " + base64.b64encode(rest.encode()).decode()
        if word == "basic":  # the key of one input with the secret of another
            key, secret = rest.split()
            text = f"{key}-api-key:{self.here.running.secrets[secret]}"
            return "Basic " + base64.b64encode(text.encode()).decode()
        return self.kept.get(name, match[0])

    # -- what comes back ------------------------------------------------------------------------

    def _usual(self, reply: httpx.Response, path: str, step: dict[str, Any], said: str) -> None:
        """Check what is so for every answer."""
        assert reply.headers["access-control-allow-origin"] == "*", said
        shown = reply.headers.get("access-control-expose-headers", "").lower()
        for name in ("x-mp-max-age", "retry-after", "x-mp-rate-limit-exceeded"):
            assert name in shown or reply.status_code == 204, said
        assert "access-control-allow-credentials" not in reply.headers, said
        if reply.status_code in (429, 503):
            assert re.fullmatch(r"[1-9]\d*", reply.headers["retry-after"]), said
        if reply.status_code in (204, 304):
            assert "content-length" not in reply.headers, said
        if reply.status_code >= 400 and reply.content and not path.startswith("/oauth/"):
            refused(reply, said)
        if reply.content and path not in FREE:
            assert reply.headers["content-type"].startswith("application/json"), said

    def _compare(self, reply: httpx.Response, step: dict[str, Any], said: str) -> None:
        if step.get("empty"):
            assert reply.content == b"", said
        body = reply.json() if reply.content and {"has", "is", "lacks", "keep"} & set(step) else {}
        if "is" in step:
            assert list(body) == list(step["is"]), f"fields: {said}"
            self.fits(step["is"], body, said)
        self.fits(step.get("has", {}), body, said)
        for name in step.get("lacks", ()):
            assert name not in body, f"{name} is there: {said}"
        for text in step.get("not", ()):
            assert self.fill(text) not in reply.text, f"it says {text}: {said}"
        for name, value in step.get("with", {}).items():
            assert name.lower() in reply.headers, f"no header {name}: {said}"
            self.fits(value, reply.headers[name], f"header {name}: {said}")
        for name in step.get("without", ()):
            assert name.lower() not in reply.headers, f"header {name}: {said}"
        for name, place in step.get("keep", {}).items():
            self.kept[name] = str(body[place] if place in body else reply.headers[place])

    def fits(self, wanted: Any, got: Any, said: str) -> None:
        """Compare: `~` begins a pattern, `!` what it is not, `any`, `mpid` and `int` are kinds."""
        if isinstance(wanted, dict):
            assert isinstance(got, dict), f"{got!r} is no object: {said}"
            for key, value in wanted.items():
                key = self.fill(key)
                assert key in got, f"no {key}: {said}"
                self.fits(value, got[key], said)
            return
        if isinstance(wanted, list):
            assert isinstance(got, list) and len(got) == len(wanted), f"{got!r}: {said}"
            for one, other in zip(wanted, got, strict=True):
                self.fits(one, other, said)
            return
        wanted = self.fill(wanted)
        assert matches(wanted, got), f"{got!r} is not {wanted!r}: {said}"


def matches(wanted: Any, got: Any) -> bool:
    """Whether a single value is as wanted."""
    if wanted == "any":
        return True
    if wanted == "mpid":
        known = isinstance(got, str) and re.fullmatch(r"-?[1-9]\d{0,18}", got)
        return bool(known) and -(1 << 63) <= int(got) < 1 << 63
    if wanted == "int":
        return isinstance(got, int) and not isinstance(got, bool)
    if isinstance(wanted, str) and wanted.startswith("~"):
        return re.fullmatch(wanted[1:], str(got)) is not None
    if isinstance(wanted, str) and wanted.startswith("!"):
        return bool(wanted[1:] != got)
    return type(wanted) is type(got) and bool(wanted == got)


def refused(reply: httpx.Response, said: str) -> None:
    """Check an error body: both spellings, and what each client reads."""
    body = reply.json()
    assert body["errors"] == body["Errors"] and len(body["errors"]) >= 1, said
    (first, *_) = body["errors"]
    assert set(first) == {"code", "message"} and first["message"], said
    assert body["ErrorCode"] == first["code"] == body["code"], said
    assert body["message"] == first["message"], said
    assert body["StatusCode"] == reply.status_code, said
    assert "RequestId" in body, said


def stamp(kind: str, late_s: float) -> str:
    """Return a Date header as a client writes it."""
    at = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=late_s)
    forms = {
        "compact": ("%Y%m%dT%H%M%SZ", 0.0),
        "iso": ("%Y-%m-%dT%H:%M:%SZ", 0.0),
        "iso ms": ("%Y-%m-%dT%H:%M:%S.%fZ", 0.0),
        "iso east": ("%Y-%m-%dT%H:%M:%S+02:00", 2.0),
        "rfc": ("%a, %d %b %Y %H:%M:%S GMT", 0.0),
        "odd": ("%d/%m/%Y %H:%M:%S", 0.0),
        "unix": ("%s", 0.0),
    }
    if kind in forms:
        form, east = forms[kind]
    else:  # a zone as devices name it, and how far east it is
        zone, _, hours = kind.partition(" ")
        form, east = f"%a, %d %b %Y %H:%M:%S {zone}", float(hours)
    return (at + datetime.timedelta(hours=east)).strftime(form)
