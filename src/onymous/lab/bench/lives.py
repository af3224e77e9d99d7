"""The rows "Events, profiles, aliases" of the benchmark, except those about size."""

from __future__ import annotations

import asyncio
import os
import pathlib
import statistics
import struct
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import zstandard

from onymous.app import running as running_core
from onymous.flows.api_credentials import issue
from onymous.lab.bench.rows import BUSY, Bench, Line, compared, middle
from onymous.lab.bench.stage import Round, Serving, running, start_server
from onymous.lab.bench.traffic import BULK, KEY, PEOPLE, SERVER_KEY, batch
from onymous.settings import Settings

#: the limit compresses as any zstd user would: its default level, a dictionary of usual size
LEVEL, DICTIONARY = 3, 32_768
#: reads that look for what was just accepted
LOOKS = 300


def batches(bench: Bench) -> Iterator[Line]:
    """Event batches, alone and a hundred in a call."""
    url = bench.store("events")
    secret = bench.secrets[url]["server"]
    server = start_server(url, bench.key)
    with running(server):
        rounds = bench.against_limit([server], "batch", secret=secret)
        yield compared("event batches, single calls", 0.12, *rounds)
        ours, raw = [], []
        bench.load([server], "bulk", secret=secret)
        for n in range(bench.rounds):
            bench.progress(f"bulk, round {n + 1} of {bench.rounds}")
            raw.append(appended(bench.folder, bench.seconds))
            ours.append(bench.load([server], "bulk", secret=secret))
    good = [o for o in ours if o.busy >= BUSY]
    each = middle(good or ours) * BULK
    ratio = each / statistics.median(raw)
    yield Line(
        what=f"event batches, calls of {BULK}",
        goal=">= 0.35 of raw appends of zstd frames",
        measured=f"{ratio:.2f}",
        met=ratio >= 0.35 and not sum(o.bad for o in ours),
        detail=f"{each:,.0f} batches/s at {middle(good or ours, 'cpu_us') / BULK:.0f} us CPU;"
        f" raw {statistics.median(raw):,.0f}/s with an fdatasync per {BULK};"
        f" {len(good)} of {len(ours)} rounds with the core >= 90% busy",
    )


def appended(folder: pathlib.Path, seconds: float) -> float:
    """Return how many batches a second can be compressed and appended to a file, synced."""
    samples = [batch(n, n) for n in range(1_000)]
    dictionary = zstandard.train_dictionary(DICTIONARY, [*samples])
    dictionary.precompute_compress(level=LEVEL)
    packer = zstandard.ZstdCompressor(dict_data=dictionary)
    path = folder / "raw.log"
    with path.open("wb") as file:
        count, number, start = 0, 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            for _ in range(BULK):
                number += 1
                frame = packer.compress(samples[number % len(samples)])
                file.write(struct.pack("<I", len(frame)) + frame)
            file.flush()
            os.fdatasync(file.fileno())
            count += BULK
        took = time.perf_counter() - start
    path.unlink()
    return count / took


def profiles(bench: Bench) -> Iterator[Line]:
    """The Profile API by MPID, and how soon it shows what was accepted."""
    url = bench.store("events")
    secret = bench.secrets[url]["server"]
    paths, client = asyncio.run(_reader(bench.settings(url)))
    server = start_server(url, bench.key)
    with running(server):
        told = httpx.post(f"{server.url}/oauth/token", json=client, trust_env=False)
        token = told.json()["access_token"]
        bench.load([server], "batch", secret=secret)
        rounds = bench.against_limit([server], "read", paths=paths, token=token)
        yield compared("Profile API by MPID", 0.30, *rounds, p99=10)
        yield _visible(bench, server, secret, paths, token)


def _visible(bench: Bench, server: Serving, secret: str, paths: list[str], token: str) -> Line:
    """Accept batches under load, and read until the profile shows them."""
    path = paths[0].partition("?")[0]
    mpid = path.rpartition("/")[2]
    bearer = {"Authorization": f"Bearer {token}"}
    took: list[float] = []
    with ThreadPoolExecutor(1) as pool, httpx.Client(base_url=server.url, trust_env=False) as web:
        loading = pool.submit(bench.load, [server], "batch", secret=secret)
        while not loading.done() and len(took) < LOOKS:
            mark = str(len(took))
            sent = {"mpid": mpid, "user_attributes": {"mark": mark}}
            web.post("/v2/events", json=sent, auth=(SERVER_KEY, secret)).raise_for_status()
            start = time.perf_counter()
            while True:
                reply = web.get(path, params={"fields": "user_attributes"}, headers=bearer)
                if reply.json().get("user_attributes", {}).get("mark") == mark:
                    break
            took.append((time.perf_counter() - start) * 1000)
        load: Round = loading.result()
    slow = sorted(took)[int(len(took) * 0.99)]
    return Line(
        what="accepted -> visible in the Profile API",
        goal="p99 < 1 s under load",
        measured=f"p99 {slow:.1f} ms",
        met=slow < 1000,
        detail=f"{len(took)} batches, each read until seen, beside {load.per_second:,.0f}/s",
    )


async def _reader(settings: Settings) -> tuple[list[str], dict[str, str]]:
    """Return paths of profiles, and client credentials that may read them."""
    async with running_core(settings) as core:
        caller = core.directory.find(KEY)
        assert caller is not None
        now = time.time_ns() // 1_000_000
        workspaces = (caller.workspace_name,)
        made = await issue(
            core.store, "bench", ("profile:read",), workspaces, actor="bench", now_ms=now
        )
        await core.tokens.load(now)
        place = next(w for w in core.tokens.workspaces.values() if w.name in workspaces)
        base = f"/userprofile/v1/{place.organization}/{place.account}/{place.id}"
        mpids = [core.mpids.text(pid) for pid in range(1, PEOPLE, 10)]
    client = {"client_id": made.credential.client_id, "client_secret": made.client_secret}
    fields = "?fields=user_identities,user_attributes"
    paths = [f"{base}/{mpid}{fields}" for mpid in mpids]
    return paths, {**client, "grant_type": "client_credentials"}
