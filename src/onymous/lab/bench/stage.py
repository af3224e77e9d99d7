"""Processes of the benchmark: servers, the limit, the load generator; what they cost."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import msgspec

_TICK = os.sysconf("SC_CLK_TCK")


class Round(msgspec.Struct, kw_only=True):
    """One measurement."""

    per_second: float
    p50_ms: float
    p99_ms: float
    #: answers that were not 2xx
    bad: int
    #: share of its core the server's main thread was busy
    busy: float
    #: CPU of the whole server process per request, microseconds
    cpu_us: float


class Serving(msgspec.Struct):
    """A process that listens."""

    process: subprocess.Popen[str]
    port: int

    @property
    def url(self) -> str:
        """Return where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def stop(self, *, kill: bool = False) -> None:
        """Stop it, politely or not."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(30)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def memory(self) -> int:
        """Return its resident memory in bytes."""
        text = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        line = next(x for x in text.splitlines() if x.startswith("VmRSS"))
        return int(line.split()[1]) * 1024


def start_limit() -> Serving:
    """Start L."""
    words = [sys.executable, "-m", "onymous.lab.bench.limit"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return Serving(process, int(process.stdout.readline()))


def start_server(store: str, key: pathlib.Path, *, port: int = 0, **settings: str) -> Serving:
    """Start `onymous serve` without limits per address."""
    words = [sys.executable, "-m", "onymous", "serve", "--store", store, "--json"]
    words += ["--port", str(port)]
    # bytecode is there once a server was started, as where it was installed
    environ = {
        **{k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"},
        "ONYMOUS_MASTER_KEY_FILE": str(key),
        "ONYMOUS_ADDRESS_REQUESTS_PER_SECOND": "0",
        "ONYMOUS_ADDRESS_VALUES_PER_HOUR": "0",
        "ONYMOUS_VALUE_REQUESTS_PER_HOUR": "0",
        "ONYMOUS_ADDRESS_PROFILES_PER_HOUR": "0",
        **{f"ONYMOUS_{name.upper()}": value for name, value in settings.items()},
    }
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environ)
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError("the server did not start; its error is above")
    return Serving(process, json.loads(line)["serving"][1])


def ready_after(serving: Serving, since: float, path: str = "/readyz") -> float:
    """Return the seconds from `since` until the server says that it is ready."""
    while True:
        with contextlib.suppress(OSError):
            url = f"http://127.0.0.1:{serving.port}{path}"
            with urllib.request.urlopen(url, timeout=5) as reply:
                if reply.status == 200:
                    return time.perf_counter() - since
        time.sleep(0.002)


def _cpu(pid: int, thread: int | None = None) -> float:
    """Return CPU seconds of a process, or of its main thread."""
    place = f"/proc/{pid}/stat" if thread is None else f"/proc/{pid}/task/{thread}/stat"
    fields = pathlib.Path(place).read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def measure(
    servers: list[Serving],
    kind: str,
    *,
    seconds: float,
    people: int,
    seed: int,
    first_new: int = 0,
    **more: Any,
) -> Round:
    """Put load on servers that share a port, and return what was seen."""
    plan: dict[str, Any] = {"kind": kind, "port": servers[0].port, "seconds": seconds}
    plan |= {"warm_s": 0.5, "people": people, "seed": seed, "first_new": first_new}
    plan |= {"connections": 64, **more}
    words = [sys.executable, "-m", "onymous.lab.bench.client"]
    client = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert client.stdin is not None and client.stdout is not None
    client.stdin.write(json.dumps(plan))
    client.stdin.close()
    client.stdout.readline()
    pids = [s.process.pid for s in servers]
    before = [(_cpu(p), _cpu(p, p)) for p in pids]
    started = time.perf_counter()
    told = json.loads(client.stdout.readline())
    took = time.perf_counter() - started
    after = [(_cpu(p), _cpu(p, p)) for p in pids]
    client.wait()
    count = max(told["per_second"] * seconds, 1)
    cpu = sum(a[0] - b[0] for a, b in zip(after, before, strict=True))
    busy = min((a[1] - b[1]) / took for a, b in zip(after, before, strict=True))
    return Round(
        per_second=told["per_second"],
        p50_ms=told["p50_ms"],
        p99_ms=told["p99_ms"],
        bad=told["bad"],
        busy=busy,
        cpu_us=cpu / count * 1e6,
    )


@contextlib.contextmanager
def running(*servings: Serving) -> Iterator[None]:
    """Stop processes at the end."""
    try:
        yield
    finally:
        for serving in servings:
            serving.stop()
