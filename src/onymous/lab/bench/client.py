"""The load generator: 64 keep-alive connections, one request under way on each.

Run as a program with a JSON plan on its standard input; prints one JSON line.
"""

from __future__ import annotations

import array
import asyncio
import json
import sys
import time
from collections.abc import Iterator
from typing import Any, cast

import uvloop

from onymous.lab.bench.traffic import batches, reads, requests


class Totals:
    """What was counted."""

    def __init__(self) -> None:
        self.latency = array.array("d")
        self.bad = 0
        self.done = False


class Caller(asyncio.Protocol):
    """One connection that asks again as soon as it is answered."""

    def __init__(self, source: Iterator[bytes], out: Totals) -> None:
        self._source, self._out = source, out
        self._started = 0.0
        self._waiting = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the first time."""
        self._transport = cast(asyncio.Transport, transport)
        self._ask()

    def _ask(self) -> None:
        self._started = time.perf_counter()
        self._transport.write(next(self._source))

    def data_received(self, data: bytes) -> None:
        """Count a complete answer and ask again."""
        if self._waiting:
            data = self._waiting + data
        mark = data.find(b"\r\n\r\n")
        if mark < 0:
            self._waiting = data
            return
        at = data.find(b"content-length: ", 0, mark)
        length = int(data[at + 16 : data.find(b"\r\n", at)]) if at >= 0 else 0
        if len(data) < mark + 4 + length:
            self._waiting = data
            return
        self._waiting = b""
        out = self._out
        out.latency.append(time.perf_counter() - self._started)
        if data[9:10] != b"2":
            out.bad += 1
        if not out.done:
            self._ask()


async def run(plan: dict[str, Any]) -> dict[str, Any]:
    """Carry out a plan: warm up, then count for a while."""
    loop = asyncio.get_running_loop()
    out = Totals()
    source = _source(plan)
    for _ in range(plan["connections"]):
        await loop.create_connection(lambda: Caller(source, out), "127.0.0.1", plan["port"])
    await asyncio.sleep(plan["warm_s"])
    print("go", flush=True)
    out.latency = array.array("d")
    started = time.perf_counter()
    await asyncio.sleep(plan["seconds"])
    took = time.perf_counter() - started
    out.done = True
    times = sorted(out.latency)
    count = len(times)
    return {
        "per_second": count / took,
        "bad": out.bad,
        "p50_ms": times[count // 2] * 1000 if count else 0.0,
        "p99_ms": times[int(count * 0.99)] * 1000 if count else 0.0,
    }


def _source(plan: dict[str, Any]) -> Iterator[bytes]:
    kind, seed, secret = plan["kind"], plan["seed"], plan.get("secret", "")
    if kind in ("batch", "bulk"):
        return batches(kind, seed, plan["people"], secret=secret)
    if kind == "read":
        return reads(seed, plan["paths"], plan["token"])
    return requests(kind, seed, plan["people"], plan["first_new"], secret=secret)


if __name__ == "__main__":
    print(json.dumps(uvloop.run(run(json.load(sys.stdin)))), flush=True)
