"""docs/operate/walk.md, command by command, behind both proxies."""

from __future__ import annotations

import asyncio
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
from tests.operate.processes import free_ports
from tests.operate.test_proxies import PROXIES, Proxy

ROOT = pathlib.Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "operate" / "walk.md").read_text("utf-8")
BLOCKS: list[tuple[str, str]] = re.findall(r"^```(\w.*)\n((?:.*\n)*?)```$", PAGE, re.M)
NAME = "https://identity.example.com"
KINDS = {"sh", "sh serve", "sh fails", "toml"}


class Walk:
    """A folder, what is known in it so far, and what the last command said."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder, self.said = folder, ""
        self.mpids: list[str] = []
        self.port = free_ports(2)
        commands = pathlib.Path(sys.executable).parent
        self.environ = {
            "PATH": f"{commands}:/usr/bin:/bin",
            "HOME": str(folder),
            "ONYMOUS_PORT": str(self.port),
            "COLUMNS": "400",
        }
        self.server: asyncio.subprocess.Process | None = None

    async def run(self, text: str, *, fails: bool = False) -> str:
        """Run the commands of a block; the first that fails ends it."""
        done = await asyncio.create_subprocess_exec(
            "bash",
            "-euc",
            text,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self.folder,
            env=self.environ,
        )
        out, _ = await asyncio.wait_for(done.communicate(), 300)
        self.said = out.decode()
        assert done.returncode == int(fails), f"{text}\n{self.said}"
        self.mpids += re.findall(r'"mpid":"(-?\d+)"', self.said)
        return self.said

    async def serve(self, text: str) -> None:
        """Start the server as the page says."""
        with (self.folder / "serve.log").open("wb") as log:
            words = ["exec", *text.split()]
            self.server = await asyncio.create_subprocess_exec(
                "bash",
                "-c",
                " ".join(words),
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=self.environ,
            )
        while "serving on" not in (self.folder / "serve.log").read_text("utf-8"):
            assert self.server.returncode is None, (self.folder / "serve.log").read_text("utf-8")
            await asyncio.sleep(0.05)

    async def journaled(self, requests: int) -> None:
        """Wait until the journal has so many requests."""
        give_up = time.monotonic() + 240
        while True:
            (found,) = json.loads(await self.run("onymous rehearse new.yaml --json 2>/dev/null"))
            if found["requests"] >= requests:
                return
            assert time.monotonic() < give_up, found
            await asyncio.sleep(1)

    async def stop(self) -> None:
        if self.server is not None and self.server.returncode is None:
            self.server.send_signal(signal.SIGINT)
            self.server.send_signal(signal.SIGINT)
            await asyncio.wait_for(self.server.wait(), 60)


def test_every_block_is_of_a_known_kind() -> None:
    assert len(BLOCKS) == PAGE.count("```") // 2 >= 12
    assert {kind for kind, _ in BLOCKS} == KINDS


@pytest.mark.parametrize("kind", PROXIES)
async def test_the_walk(kind: str, tmp_path: pathlib.Path) -> None:
    assert shutil.which("curl"), "curl is not installed: apt-get install curl"
    for name in ("walk", "proxy"):
        (tmp_path / name).mkdir()
    walk = Walk(tmp_path / "walk")
    url = f"http://127.0.0.1:{walk.port}"
    try:
        async with Proxy(kind, tmp_path / "proxy", [url]) as proxy:
            ca = str(tmp_path / "proxy" / "ca.pem")
            walk.environ |= {"CURL_CA_BUNDLE": ca, "SSL_CERT_FILE": ca}
            for place, (what, text) in enumerate(BLOCKS):
                await step(walk, what, text.replace(NAME, proxy.url), place)
    finally:
        await walk.stop()
    assert os.listdir(walk.folder / "data" / "backups")


async def step(walk: Walk, what: str, text: str, place: int) -> None:
    """Do one block of the page, and see that it does what the page says."""
    before = walk.said
    url = f" --url http://127.0.0.1:{walk.port}"
    if what == "toml":
        name = text.split("\n")[0].removeprefix("# ")
        text = text.replace("8211", str(walk.port + 1))
        (walk.folder / name).write_text(text, "utf-8")
    elif what == "sh serve":
        await walk.serve(text)
    elif text.startswith("export ONYMOUS_KEY="):
        key, secret = re.findall(r"/server\s+key\s+(\S+)\s+secret\s+(\S+)", before)[0]
        walk.environ |= {"ONYMOUS_KEY": key, "ONYMOUS_SECRET": secret}
    else:
        if "rehearse" in text:
            await walk.journaled(2)
        text = re.sub(r"(onymous (?:resolve|history) .*)", r"\1" + url, text)
        text = re.sub(r"\bMPID\b", walk.mpids[0] if walk.mpids else "", text)
        await walk.run(text, fails=what == "sh fails")
    anna, other = [*walk.mpids, "", ""][:2]
    told = walk.said
    if what == "sh fails":
        assert "rehearse it first" in told and "nothing to change" not in told
    elif "/v1/login" in text:
        assert anna and other and anna != other
    elif "rehearse" in text:
        assert "One group of people would become one person" in told
        assert "a***@x.io" in (walk.folder / "report.html").read_text("utf-8")
    elif "--reresolve" in text:
        assert "rules:1: 2 records changed, 1 became one with another" in told
    elif "history" in text:
        assert told.startswith(anna) and "rules: merged" in told and "addresses are" in told
    elif "undo" in text:
        assert "undone" in told and other in told.rpartition("undone")[2]
    elif "resolve" in text:
        assert other in told.split("\n")[0]
    assert BLOCKS[place][0] == what
