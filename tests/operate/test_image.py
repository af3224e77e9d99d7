"""deploy/Containerfile, followed step by step without an engine; what a first process must do."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import psutil
import pytest
from tests.operate.processes import Process, free_ports

from onymous.ready import ready
from onymous.settings import load

ROOT = pathlib.Path(__file__).parents[2]
KNOWN = {"FROM", "RUN", "WORKDIR", "COPY", "ENV", "USER", "VOLUME", "EXPOSE", "STOPSIGNAL"}
KNOWN |= {"HEALTHCHECK", "ENTRYPOINT", "CMD"}
Stage = list[tuple[str, str]]


def stages() -> list[Stage]:
    """The instructions of each stage, comments and broken lines undone."""
    lines = (ROOT / "deploy" / "Containerfile").read_text("utf-8").splitlines(keepends=True)
    text = "".join(line for line in lines if not line.startswith("#")).replace("\\\n", " ")
    out: list[Stage] = []
    for line in filter(str.strip, text.splitlines()):
        word, rest = line.split(None, 1)
        assert word in KNOWN
        if word == "FROM":
            out.append([])
        out[-1].append((word, rest))
    return out


def one(stage: Stage, word: str) -> str:
    """What follows the one instruction of this name."""
    (rest,) = [rest for name, rest in stage if name == word]
    return rest


def variables(stage: Stage) -> dict[str, str]:
    rest = " ".join(rest for word, rest in stage if word == "ENV")
    return dict(pair.split("=", 1) for pair in shlex.split(rest))


def copied(stage: Stage) -> list[str]:
    """What a stage takes out of the repository."""
    rests = [rest for word, rest in stage if word == "COPY" and not rest.startswith("--from")]
    return [source for rest in rests for source in rest.split()[:-1]]


def test_the_image_is_made_from_what_is_there_and_runs_as_nobody_special() -> None:
    build, final = stages()
    sources = copied(build)
    assert sources and copied(final) == []
    assert all((ROOT / source).exists() for source in sources)
    sent = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text("utf-8"), re.M)
    assert sorted(sent) == sorted(sources)
    # bytecode that is valid whatever happens to the times of files, or every start compiles again
    assert variables(build)["UV_COMPILE_BYTECODE"] == "1"
    assert variables(build)["PYC_INVALIDATION_MODE"] == "UNCHECKED_HASH"
    assert "compileall -q --invalidation-mode unchecked-hash" in one(final, "RUN")
    # by number, or Kubernetes could not tell that it is not root
    assert one(final, "USER") == "8210:8210"
    words = [word for word, _ in final]
    assert words.index("USER") < words.index("ENTRYPOINT")
    assert variables(final)["ONYMOUS_STORE"] == "sqlite:" + one(final, "VOLUME")
    assert one(final, "WORKDIR") == one(final, "VOLUME")


class Image:
    """What the steps of the Containerfile make, in a folder, run as an engine would run it."""

    def __init__(self, folder: pathlib.Path) -> None:
        build, self.final = stages()
        self.places = {p: str(folder / p[1:]) for p in ("/opt/onymous", "/src", "/data")}
        self.data = folder / "data"
        self.data.mkdir()
        self._build(build, pathlib.Path(self.places["/src"]))
        ports = free_ports(2)
        environ = {k: self.here(v) for k, v in variables(self.final).items()}
        environ["PATH"] = environ["PATH"].replace("$PATH", "/usr/bin:/bin")
        ports_of = {"ONYMOUS_PORT": str(ports), "ONYMOUS_MANAGE_PORT": str(ports + 1)}
        self.environ = environ | ports_of | {"HOME": str(self.data)}
        self.url = f"http://127.0.0.1:{ports}"

    def here(self, text: str) -> str:
        for place, folder in self.places.items():
            text = re.sub(rf"{place}(?![\w-])", folder, text)
        return text

    def _build(self, stage: Stage, folder: pathlib.Path) -> None:
        folder.mkdir()
        for source in copied(stage):
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, folder / source)
            else:
                shutil.copy(ROOT / source, folder / source)
        environ = {k: v for k, v in os.environ.items() if k != "VIRTUAL_ENV"}
        environ |= {k: self.here(v) for k, v in variables(stage).items()}
        # bytecode of everything takes a quarter of a minute and shows nothing here
        environ |= {"UV_COMPILE_BYTECODE": "0", "UV_PYTHON": sys.executable}
        (sync,) = [r for w, r in stage if w == "RUN" and "uv sync" in r]
        words = ["sh", "-euc", self.here(sync)]
        done = subprocess.run(words, cwd=folder, env=environ, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        shutil.rmtree(folder)

    def run(self, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words, cwd=self.data, env=self.environ | environ, capture_output=True, text=True
        )

    def command(self, *words: str) -> Any:
        """Run a command of ours as `docker run --rm` does; return what it says."""
        done = self.run(*json.loads(one(self.final, "ENTRYPOINT")), *words, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def healthy(self, **environ: str) -> bool:
        check = one(self.final, "HEALTHCHECK").partition("CMD")[2]
        return self.run(*json.loads(check), **environ).returncode == 0

    def serve(self) -> subprocess.Popen[str]:
        words = json.loads(one(self.final, "ENTRYPOINT")) + json.loads(one(self.final, "CMD"))
        server = subprocess.Popen(
            words, cwd=self.data, env=self.environ, stdout=subprocess.PIPE, text=True
        )
        assert server.stdout is not None
        line = server.stdout.readline()
        assert json.loads(line)["serving"], "every line it writes is JSON"
        return server

    def ask(self, operation: str, auth: tuple[str, str]) -> str:
        body = {"environment": "production", "known_identities": {"customerid": "42"}}
        with httpx.Client(base_url=self.url, auth=auth, trust_env=False) as client:
            reply = client.post(f"/v1/{operation}", json=body)
        assert reply.status_code == 200
        return str(reply.json()["mpid"])


def test_its_steps_make_a_server_that_is_checked_and_stopped(tmp_path: pathlib.Path) -> None:
    image = Image(tmp_path)
    code = "import importlib.util as u; print(*map(bool, map(u.find_spec, {names})), sep='')"
    found = code.replace("{names}", "('onymous', 'opentelemetry.sdk', 'pytest', 'uv')")
    assert image.run("python", "-c", found).stdout.split() == ["TrueTrueFalseFalse"]

    assert image.command("init")
    made = image.command("apply")["credentials"]
    (auth,) = [(c["api_key"], c["secret"]) for c in made if c["input"] == "server"]
    assert not image.healthy()
    server = image.serve()
    try:
        assert image.healthy()
        assert image.healthy(http_proxy="http://127.0.0.1:9", HTTP_PROXY="http://127.0.0.1:9")
        mpid = image.ask("login", auth)
    finally:
        server.terminate()
    assert server.wait(60) == 0
    assert not image.healthy()
    server = image.serve()
    try:
        assert image.ask("identify", auth) == mpid
    finally:
        server.terminate()
    assert server.wait(60) == 0


@pytest.mark.parametrize(
    ("words", "more"),
    [
        (("serve",), {}),
        (("serve",), {"manage_port": 0}),
        (("serve",), {"tls_dev": True, "host": "0.0.0.0"}),
        (("serve", "--processes", "2"), {}),
        (("work",), {}),
    ],
)
async def test_ready_asks_whoever_was_started(
    words: tuple[str, ...], more: dict[str, Any], tmp_path: pathlib.Path
) -> None:
    url = f"sqlite:{tmp_path / 'store'}"
    port = free_ports(3)
    given = {"port": port, "manage_port": port + 1, **more}
    settings = load({"store": url, **given}, environ={})
    assert not ready(settings)
    process = await Process(url, tmp_path, *words, **given).start()
    assert ready(settings)
    assert await process.stop() == 0
    assert not ready(settings)


def test_ready_says_why_it_cannot_ask(tmp_path: pathlib.Path) -> None:
    words = [sys.executable, "-m", "onymous.ready"]
    (tmp_path / "onymous.toml").write_text("port = 'many'\n")
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "port must be a int\n")
    (tmp_path / "onymous.toml").write_text(f"port = {free_ports()}\n")
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "not ready\n")


@contextlib.contextmanager
def first(*words: str) -> Iterator[tuple[subprocess.Popen[bytes], psutil.Process]]:
    """Start a command as the first process of a namespace; give who waits for it, and it."""
    namespace = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child"]
    waiting = subprocess.Popen([*namespace, sys.executable, "-m", "onymous", *words])
    try:
        yield waiting, within(lambda: begun(waiting.pid))
    finally:
        waiting.kill()
        waiting.wait()


def begun(pid: int) -> psutil.Process | None:
    """The child that is no longer unshare itself."""
    children = psutil.Process(pid).children()
    return next((c for c in children if "onymous" in c.cmdline()[:3]), None)


def catches(child: psutil.Process) -> bool:
    status = pathlib.Path(f"/proc/{child.pid}/status").read_text("utf-8")
    (caught,) = re.findall(r"^SigCgt:\s*(\w+)", status, re.M)
    return bool(int(caught, 16) & 1 << (signal.SIGTERM - 1))


def within(look: Callable[[], Any], seconds: float = 30) -> Any:
    """What comes to be there."""
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up:
        if found := look():
            return found
        time.sleep(0.01)
    raise AssertionError("it did not happen")


def test_as_a_first_process_every_command_ends_when_told() -> None:
    """The kernel keeps signals without a handler from a namespace's first process."""
    with first("soak", "--only", "audit", "--minutes", "5") as (waiting, child):
        assert within(lambda: catches(child))
        child.terminate()
        assert waiting.wait(60) == 128 + signal.SIGTERM


@pytest.mark.parametrize(
    ("mode", "told"),
    [
        ("0555", r"onymous\.db: user \d+ cannot open it"),
        ("0", r"user \d+ may not look for onymous"),
    ],
)
def test_a_folder_of_somebody_elses_is_told_in_a_line(
    mode: str, told: str, tmp_path: pathlib.Path
) -> None:
    """What a container meets where root made the mounted folder; here root has no rights."""
    serve = f"{sys.executable} -m onymous serve --store sqlite:. --port 0"
    words = f"chmod {mode} . && exec unshare --user {serve}"
    environ = {"PATH": "/usr/bin:/bin", "COLUMNS": "400"}
    done = subprocess.run(
        ["sh", "-c", words], cwd=tmp_path, env=environ, capture_output=True, text=True
    )
    tmp_path.chmod(0o700)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert re.search(told, line)
