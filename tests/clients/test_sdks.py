"""Unmodified SDKs against the real server: the web SDK in Chromium, the Node and PyPI server SDKs.

They come from their packages at test time, into a cache outside the repository. What cannot be
installed or started fails the test and says so; nothing is skipped.
"""

from __future__ import annotations

import asyncio
import functools
import http.server
import json
import os
import pathlib
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.async_api import Page, async_playwright
from tests.web.serving import Running, running

CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache"))
FOLDER = CACHE / "onymous-tests" / "sdks"
NPM = ("@mparticle/web-sdk@2.68.0", "mparticle@1.0.8")
PYPI = "mparticle==0.16.1"
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    " --disable-component-update --disable-sync"
)
PAGE = """<!doctype html><meta charset="utf-8"><title>shop</title><script src="/sdk.js"></script>
<script>
window.answers = [];
mParticle.init(%s, {
  isDevelopmentMode: false, requestConfig: false, forceHttps: false, workspaceToken: 'w1',
  identityUrl: '%s/v1/', v3SecureServiceUrl: '%s/v3/JS/', logLevel: 'none',
  identityCallback: r => window.answers.push(
    {code: r.httpCode, body: r.body, user: r.getUser && r.getUser() && r.getUser().getMPID()}),
});
function call(op, identities) {
  return new Promise(done => mParticle.Identity[op]({userIdentities: identities || {}},
    r => done({code: r.httpCode, body: r.body, user: mParticle.Identity.getCurrentUser() &&
      mParticle.Identity.getCurrentUser().getMPID()})));
}
</script>"""


def fetch(words: list[str], what: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    if done.returncode:
        pytest.fail(f"{what} could not be installed: {done.stderr[-300:]}", pytrace=False)


@pytest.fixture(scope="session")
def sdks() -> pathlib.Path:
    """The SDKs, installed from their packages."""
    if not (FOLDER / "ready").exists():
        shutil.rmtree(FOLDER, ignore_errors=True)
        FOLDER.mkdir(parents=True)
        npm = ["npm", "install", "--prefix", str(FOLDER), "--no-audit", "--no-fund", "--silent"]
        fetch([*npm, *NPM], "the web and Node SDKs")
        uv = ["uv", "pip", "install", "-q", "--python", sys.executable]
        fetch([*uv, "--target", str(FOLDER / "py"), PYPI], "the PyPI SDK")
        (FOLDER / "ready").touch()
    return FOLDER


class _Pages(http.server.BaseHTTPRequestHandler):
    """Serves one page and the SDK."""

    def __init__(self, files: dict[str, bytes], *args: Any) -> None:
        self._files = files
        super().__init__(*args)

    def do_GET(self) -> None:
        body = self._files.get(self.path)
        self.send_response(200 if body else 404)
        kind = "text/javascript" if self.path.endswith(".js") else "text/html"
        self.send_header("Content-Type", kind)
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, *args: Any) -> None:
        """Stay quiet."""


@pytest.fixture
def pages(sdks: pathlib.Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    """A page server: its address and the files it serves."""
    script = sdks / "node_modules" / "@mparticle" / "web-sdk" / "dist" / "mparticle.js"
    files = {"/sdk.js": script.read_bytes()}
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Pages, files))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", files
    server.shutdown()
    thread.join()
    server.server_close()


def shop(it: Running, key: str = "web-api-key") -> bytes:
    host = it.url.removeprefix("http://")
    return (PAGE % (json.dumps(key), host, host)).encode()


async def opened(page: Page, address: str) -> dict[str, Any]:
    """Open the page and return the answer to its first identify."""
    await page.goto(address)
    await page.wait_for_function("window.answers.length > 0", timeout=15_000)
    return dict(await page.evaluate("window.answers[0]"))


async def call(page: Page, op: str, identities: dict[str, str] | None = None) -> dict[str, Any]:
    return dict(await page.evaluate("([op, ids]) => call(op, ids)", [op, identities]))


async def spooled(it: Running, least: int) -> list[dict[str, Any]]:
    """Wait for accepted batches and return them as they came in."""
    core = it.server.core
    for _ in range(200):
        async with core.store.read() as session:
            rows = await session.rows("SELECT dictionary, body FROM batch ORDER BY id")
            if len(rows) >= least:
                break
        await asyncio.sleep(0.05)
    async with core.store.read() as session:
        return [json.loads(await core.bodies.unpack(session, *row)) for row in rows]


@pytest.mark.clients
async def test_the_web_sdk_lives(
    place: Any, tmp_path: pathlib.Path, pages: tuple[str, dict[str, bytes]]
) -> None:
    address, files = pages
    chromium = shutil.which("chromium")
    assert chromium, "Chromium is not installed: apt-get install chromium"
    async with running(place, tmp_path) as it, async_playwright() as playwright:
        files["/"] = shop(it)
        browser = await playwright.chromium.launch(
            executable_path=chromium, args=FLAGS.split(), headless=True
        )
        try:
            laptop = await (await browser.new_context()).new_page()
            anonymous = await opened(laptop, f"{address}/")
            assert anonymous["code"] == 200
            assert anonymous["body"]["is_logged_in"] is False
            login = await call(laptop, "login", {"customerid": "anna", "email": "Anna@X.io"})
            assert (login["code"], login["body"]["is_logged_in"]) == (200, True)
            assert login["user"] == anonymous["user"]
            await laptop.reload()
            again = await opened(laptop, f"{address}/")
            assert again["user"] == login["user"]
            out = await call(laptop, "logout")
            assert out["user"] != login["user"]
            assert (await call(laptop, "login", {"customerid": "anna"}))["user"] == login["user"]
            changed = await call(laptop, "modify", {"customerid": "anna", "email": "new@x.io"})
            assert (changed["code"], changed["user"]) == (200, login["user"])
            phone = await (await browser.new_context()).new_page()
            other = await opened(phone, f"{address}/")
            assert other["user"] not in (anonymous["user"], out["user"])
            same = await call(phone, "login", {"customerid": "anna", "email": "new@x.io"})
            assert same["user"] == login["user"]
            await call(phone, "logout")
            brother = await call(phone, "login", {"customerid": "ben"})
            assert brother["user"] != login["user"]
            await laptop.evaluate("mParticle.logEvent('viewed'); mParticle.upload()")
            batches = await spooled(it, 3)
            assert {b["mpid"] for b in batches} >= {login["user"]}
            files["/"] = shop(it, "nobody-has-this-key")
            stranger = await (await browser.new_context()).new_page()
            refused = await opened(stranger, f"{address}/")
            assert refused["code"] == -1
            assert "401" in json.dumps(refused["body"])
        finally:
            await browser.close()


NODE = """
const mp = require('mparticle');
const [url, key, secret] = process.argv.slice(1);
const api = new mp.EventsApi(new mp.Configuration(key, secret));
api.apiClient.basePath = url + '/v2';
const batch = new mp.Batch(mp.Batch.Environment.development);
batch.user_identities = new mp.UserIdentities();
batch.user_identities.customerid = 'node';
batch.addEvent(new mp.AppEvent(mp.AppEvent.CustomEventType.navigation, 'seen'));
api.uploadEvents(batch, (error, data, response) => {
  const status = response ? response.status : error && error.status;
  console.log(JSON.stringify({status, why: error ? String(error) : null}));
});
"""
PYTHON = """
import sys, json, mparticle
url, key, secret = sys.argv[1:]
configuration = mparticle.Configuration()
configuration.api_key, configuration.api_secret, configuration.host = key, secret, url + '/v2'
api = mparticle.EventsApi(configuration)
batch = mparticle.Batch()
batch.environment = 'development'
batch.user_identities = mparticle.UserIdentities(customerid='python', email='p@x.io')
batch.events = [mparticle.AppEvent('seen', 'navigation')]
try:
    status = api.upload_events_with_http_info(batch)[1]
    api.bulk_upload_events([batch, batch])
except mparticle.rest.ApiException as error:
    status = error.status
print(json.dumps({'status': status}))
"""


async def client(words: list[str], folder: pathlib.Path, **environ: str) -> dict[str, Any]:
    """Run a client program and return the JSON line it prints."""
    process = await asyncio.create_subprocess_exec(
        *words,
        cwd=folder,
        env={**os.environ, **environ},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, errors = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, errors.decode()[-500:]
    return dict(json.loads(out.decode().strip().splitlines()[-1]))


@pytest.mark.clients
async def test_the_node_sdk(place: Any, tmp_path: pathlib.Path, sdks: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        words = ["node", "-e", NODE, it.url, "server-api-key"]
        assert (await client([*words, it.secrets["server"]], sdks))["status"] == 202
        assert (await client([*words, "wrong"], sdks))["status"] == 403
        (batch,) = await spooled(it, 1)
        assert batch["user_identities"] == {"customerid": "node"}


@pytest.mark.clients
async def test_the_pypi_sdk(place: Any, tmp_path: pathlib.Path, sdks: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        words = [sys.executable, "-c", PYTHON, it.url, "server-api-key"]
        path = {"PYTHONPATH": str(sdks / "py")}
        assert (await client([*words, it.secrets["server"]], sdks, **path))["status"] == 202
        assert (await client([*words, "wrong"], sdks, **path))["status"] in (401, 403)
        assert len(await spooled(it, 3)) == 3
