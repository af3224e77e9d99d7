"""What the server says about itself: health, metrics, its reference."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from onymous.later import module
from onymous.web.calls import Call
from onymous.web.wire import Reply, json_reply

html, openapi = module("html"), module("onymous.web.openapi")

PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width"><title>Onymous API</title>
<style>:root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;max-width:56rem;
margin:2rem auto;padding:0 1rem}code{font:14px ui-monospace,monospace}section{border-top:1px
solid #8886;padding:.6rem 0}h2{font-size:1rem;margin:.4rem 0}b.m{display:inline-block;
min-width:3.5rem}p{margin:.2rem 0}.ext{font-size:.8rem;border:1px solid;border-radius:4px;
padding:0 .3rem;margin-left:.5rem}</style></head><body><h1>Onymous API</h1>
<p>Machine-readable: <a href="/openapi.json">/openapi.json</a>. Every path also exists under the
prefixes SDKs use behind one host.</p>%s</body></html>"""


class AboutWeb:
    """Health, metrics, reference."""

    def __init__(
        self,
        ready: Callable[[], Awaitable[bool]],
        metrics: Callable[[], Awaitable[bytes]],
        ending: Callable[[], bool],
    ) -> None:
        self._ready, self._metrics, self._ending = ready, metrics, ending

    async def health(self, call: Call) -> Reply:
        """GET /healthz: the process answers."""
        return json_reply(200, {"status": "ok"})

    async def ready(self, call: Call) -> Reply:
        """GET /readyz: the database answers too, and this process is not about to end."""
        if self._ending():
            return json_reply(503, {"status": "not ready", "why": "this process is stopping"})
        if await self._ready():
            return json_reply(200, {"status": "ready"})
        return json_reply(503, {"status": "not ready", "why": "the database does not answer"})

    async def metrics(self, call: Call) -> Reply:
        """GET /metrics: Prometheus text."""
        return Reply(200, await self._metrics(), (), b"text/plain; version=0.0.4; charset=utf-8")

    async def openapi(self, call: Call) -> Reply:
        """GET /openapi.json."""
        return Reply(200, msgspec.json.encode(openapi.document()))

    async def page(self, call: Call) -> Reply:
        """GET /docs: the reference as a page a person can read."""
        return Reply(200, page().encode(), (), b"text/html; charset=utf-8")


def page() -> str:
    """Return the reference page."""
    out = []
    for path, item in openapi.document()["paths"].items():
        for method, operation in item.items():
            mark = '<span class="ext">extension</span>' if operation.get("x-extension") else ""
            out.append(
                f'<section><h2><b class="m">{method.upper()}</b> <code>{html.escape(path)}</code>'
                f"{mark}</h2><p>{html.escape(operation['summary'])}</p>"
                f"<p>{html.escape(operation.get('description', ''))}</p></section>"
            )
    return PAGE % "".join(out)
