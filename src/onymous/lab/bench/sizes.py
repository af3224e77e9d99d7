"""The rows of the benchmark about size: growth, hot values, memory, disk, start, our own Python."""

from __future__ import annotations

import asyncio
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

from onymous.lab.bench import fill
from onymous.lab.bench.rows import Bench, Line, middle
from onymous.lab.bench.stage import Round, ready_after, running, start_server
from onymous.lab.bench.traffic import PEOPLE

#: identities of one person of the benchmark
EACH = 3
HOT = 100_000


def explain(bench: Bench) -> Iterator[Line]:
    """What a trace costs when it is asked for."""
    url = bench.store("one")
    secret = bench.secrets[url]["server"]
    server = start_server(url, bench.key)
    plain: list[Round] = []
    told: list[Round] = []
    with running(server):
        for n in range(bench.rounds):
            bench.progress(f"trace, round {n + 1} of {bench.rounds}")
            plain.append(bench.load([server], "known", secret=secret))
            told.append(bench.load([server], "explain", secret=secret))
    ratio = middle(told, "cpu_us") / middle(plain, "cpu_us")
    yield Line(
        what="trace",
        goal="explain=true <= 2x the call",
        measured=f"{ratio:.2f}x",
        met=ratio <= 2,
        detail=f"CPU {middle(told, 'cpu_us'):.1f} us against {middle(plain, 'cpu_us'):.1f} us;"
        " not asked for, no trace is made: one comparison with None per step",
    )


def growth(bench: Bench) -> Iterator[Line]:
    """Known people out of very many."""
    small, large = bench.store("one"), bench.store("large", bench.scale // EACH)
    people = bench.scale // EACH
    one, many = start_server(small, bench.key), start_server(large, bench.key)
    few: list[Round] = []
    lots: list[Round] = []
    with running(one, many):
        bench.load([many], "known", people=people)
        for n in range(bench.rounds):
            bench.progress(f"growth, round {n + 1} of {bench.rounds}")
            few.append(bench.load([one], "known"))
            lots.append(bench.load([many], "known", people=people))
        memory = many.memory() / 1e6
    ratio = middle(lots, "cpu_us") / middle(few, "cpu_us")
    yield Line(
        what=f"growth from 30 thousand to {bench.scale:,} identities",
        goal="known identify <= 1.5x",
        measured=f"{ratio:.2f}x",
        met=ratio <= 1.5,
        detail=f"CPU {middle(few, 'cpu_us'):.1f} us and {middle(lots, 'cpu_us'):.1f} us;"
        f" {middle(lots):,.0f}/s of {people:,} people at random",
    )
    yield Line(
        what=f"memory with {people:,} profiles, under load",
        goal="<= 200 MB resident",
        measured=f"{memory:.0f} MB",
        met=memory <= 200,
        detail="most of it pages of the database and what people were told last",
    )


def hot_value(bench: Bench) -> Iterator[Line]:
    """A device identity that very many people share."""
    url = bench.store("hot")
    bench.progress(f"filling {HOT} people who share a device")
    asyncio.run(fill.through_flows(bench.settings(url), fill.hot_people(HOT), lambda n: None))
    server = start_server(url, bench.key)
    seen: dict[str, list[Round]] = {"known": [], "hot-known": [], "new": [], "hot": []}
    with running(server):
        for n in range(bench.rounds):
            bench.progress(f"hot value, round {n + 1} of {bench.rounds}")
            for kind, rounds in seen.items():
                people = HOT if kind == "hot-known" else PEOPLE
                rounds.append(bench.load([server], kind, people=people))
    cost = {kind: middle(rounds, "cpu_us") for kind, rounds in seen.items()}
    for what, hot, normal in (
        ("known people, with a device id that 100,000 people share", "hot-known", "known"),
        ("that device id alone: it finds nobody, so each call makes a record", "hot", "new"),
    ):
        ratio = cost[hot] / cost[normal]
        yield Line(
            what=what,
            goal="<= 1.5x a normal call",
            measured=f"{ratio:.2f}x",
            met=ratio <= 1.5,
            detail=f"CPU {cost[hot]:.1f} us; the same with values of their own"
            f" {cost[normal]:.1f} us",
        )


def disk(bench: Bench) -> Iterator[Line]:
    """Bytes on disk per identity, records, values and ledger included."""
    with tempfile.TemporaryDirectory(dir=bench.folder) as folder:
        url = f"sqlite:{folder}/disk"
        bench.fill(url, 1)
        bench.progress("filling 50,000 people through the flows")
        known = map(fill.person, range(10, 50_010))
        asyncio.run(fill.through_flows(bench.settings(url), known, lambda n: None))
        files = (pathlib.Path(folder) / "disk").glob("onymous.db*")
        size = sum(f.stat().st_size for f in files)
    each = size / (50_000 * EACH)
    yield Line(
        what="disk per identity, all in",
        goal="<= 250 bytes",
        measured=f"{each:.0f} bytes",
        met=each <= 250,
        detail="records, values, ledger, journal, repeats and jobs of 50,000 people with three"
        " identities",
    )


def starting(bench: Bench) -> Iterator[Line]:
    """Seconds until a large folder is served, also after the power went."""
    url = bench.store("large", bench.scale // EACH)
    people = bench.scale // EACH
    times: dict[str, list[float]] = {"stop": [], "kill": []}
    for n in range(bench.rounds):
        for how, seen in times.items():
            bench.progress(f"start after {how}, round {n + 1} of {bench.rounds}")
            server = start_server(url, bench.key)
            with running(server):
                bench.load([server], "mixed", people=people)
                server.stop(kill=how == "kill")
            since = time.perf_counter()
            again = start_server(url, bench.key)
            with running(again):
                seen.append(ready_after(again, since))
    normal, crash = sorted(times["stop"])[len(times["stop"]) // 2], max(times["kill"])
    yield Line(
        what=f"start on {people:,} profiles",
        goal="serving within 1 s, also after kill -9 under load",
        measured=f"{normal:.2f} s; after kill -9 at most {crash:.2f} s",
        met=normal <= 1 and crash <= 1,
        detail="from starting the interpreter to 200 of /readyz; bytecode was there, as after an"
        " installation",
    )


def own_python(bench: Bench) -> Iterator[Line]:
    """The share of our own Python in the busy main thread."""
    spy = shutil.which("py-spy") or str(pathlib.Path(sys.executable).with_name("py-spy"))
    what, goal = "our own Python", "<= 35% of the busy main thread"
    if not pathlib.Path(spy).exists():
        yield Line(what=what, goal=goal, measured="not measured: no py-spy", met=None)
        return
    server = start_server(bench.store("one"), bench.key)
    out = bench.folder / "spy.txt"
    with running(server):
        words = [spy, "record", "-p", str(server.process.pid), "-d", "6", "-r", "200"]
        words += ["-f", "raw", "-o", str(out), "--native"]
        recorder = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        bench.load([server], "known")
        bench.load([server], "known")
        recorder.wait()
    ours = total = 0
    for line in out.read_text().splitlines() if out.exists() else ():
        stack, _, count = line.rpartition(" ")
        frames = stack.split(";")
        if "Runner.run" in stack and "epoll" not in frames[-1]:
            total += int(count)
            ours += int(count) * is_ours(frames)
    if not total:
        yield Line(what=what, goal=goal, measured="not measured: no samples", met=None)
        return
    share = ours / total
    yield Line(
        what=what,
        goal=goal,
        measured=f"{share:.0%}",
        met=share <= 0.35,
        detail=f"{total} samples that did not wait; ours is what the interpreter does for a line of"
        " ours, not SQLite, msgspec, uvloop or the kernel it calls",
    )


def is_ours(frames: list[str]) -> bool:
    """Return whether a sample (outermost frame first, native ones included) is our own Python.

    The interpreter's own work for a line of ours counts (calls, dictionaries, memory); a library
    written in C, and the kernel, do not.
    """
    for frame in reversed(frames):
        name, _, place = frame.rpartition(" (")
        if ".py:" in place:
            return "onymous/" in place
        if place.startswith(("libc", "ld-", "object.h", "[vdso")) or "libpython" in place:
            if name in _KERNEL:
                return False
        else:
            return False
    return False


#: calls in which the kernel works
_KERNEL = {"write", "read", "send", "recv", "sendmsg", "recvmsg", "pread64", "fdatasync", "writev"}
