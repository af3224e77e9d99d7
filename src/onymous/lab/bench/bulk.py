"""The rows "Bulk" of the benchmark: imports against raw writes of the same rows."""

from __future__ import annotations

import asyncio
import pathlib
import time
from collections.abc import Iterator
from typing import Any

import asyncpg  # type: ignore[import-untyped]

from onymous.app import calm_collector
from onymous.app import running as running_core
from onymous.flows.files import Job, NoRejects, Ready
from onymous.flows.importing import Importer
from onymous.lab.bench.rows import Bench, Line
from onymous.lab.bench.traffic import SERVER_KEY
from onymous.store.sqlite import connect

#: rows of people, of the goal's million
ROWS = 100_000
#: tables an import writes
TABLES = ("profile", "identity", "ledger", "batch", "person", "once", "job", "journal")
#: statements that make the tables, then their indexes
SHAPES = (
    "SELECT sql FROM sqlite_master WHERE type IN ('table', 'index') AND sql IS NOT NULL"
    " ORDER BY type DESC"
)
#: rows of a raw transaction
TOGETHER = 10_000


def rows(count: int) -> Iterator[Ready]:
    """Yield rows of a CRM; one in ten is a change of somebody earlier in the file."""
    for n in range(count):
        who = n - n // 2 if n % 10 == 9 else n
        identities = {"customerid": f"crm{who:08d}", "email": f"crm{who:08d}@example.org"}
        attributes = {"$firstname": f"F{who % 977}", "$city": f"C{n % 331}", "plan": "gold"}
        yield n + 1, {"user_identities": identities, "user_attributes": attributes}, None


def imports(bench: Bench) -> Iterator[Line]:
    """A file of people into each engine."""
    url = f"sqlite:{bench.folder}/import"
    bench.progress(f"importing {ROWS:,} rows")
    took = _imported(bench, url)
    raw, written = _executed(bench.folder / "import", bench.folder / "raw")
    yield _line("SQLite", 0.40, "executemany", took, raw, written)
    if bench.postgres:
        place = bench.postgres
        if place not in bench.secrets:
            bench.fill(place, 1)
        took = _imported(bench, place)
        raw, written = asyncio.run(_copied(place))
        yield _line("PostgreSQL", 0.30, "COPY", took, raw, written)


def _line(engine: str, goal: float, how: str, took: float, raw: float, written: int) -> Line:
    ratio = raw / took
    return Line(
        what=f"import of {ROWS:,} CRM rows into {engine}",
        goal=f">= {goal:.2f} of raw {how} of the rows it writes",
        measured=f"{ratio:.2f}",
        met=ratio >= goal,
        detail=f"{ROWS / took:,.0f} rows/s; raw: {written:,} rows of tables in {raw:.1f} s",
    )


def _imported(bench: Bench, url: str) -> float:
    if url not in bench.secrets:
        bench.fill(url, 1)
    return asyncio.run(_run(bench, url))


async def _run(bench: Bench, url: str) -> float:
    async with running_core(bench.settings(url)) as core:
        calm_collector()
        caller = core.directory.find(SERVER_KEY)
        assert caller is not None
        job = Job(caller=caller, name=b"bench", now_ms=time.time_ns() // 1_000_000)
        importer = Importer(core.store, core.events, job, NoRejects(), lambda n: None)
        start = time.perf_counter()
        report = await importer.run(rows(ROWS))
        took = time.perf_counter() - start
        assert report.applied == ROWS, report
    return took


def _executed(folder: pathlib.Path, empty: pathlib.Path) -> tuple[float, int]:
    """Write the rows of a store once more, table by table, into an empty one; return seconds."""
    empty.mkdir()
    source, target = connect(folder / "onymous.db"), connect(empty / "onymous.db")
    try:
        for (statement,) in list(source.execute(SHAPES)):
            if "sqlite_" not in statement:
                target.execute(statement)
        took, written = 0.0, 0
        for table in TABLES:
            found: list[Any] = list(source.execute("SELECT * FROM " + table))
            written += len(found)
            marks = ", ".join("?" * len(found[0])) if found else ""
            start = time.perf_counter()
            for n in range(0, len(found), TOGETHER):
                target.execute("BEGIN IMMEDIATE")
                some = found[n : n + TOGETHER]
                target.executemany(f"INSERT INTO {table} VALUES ({marks})", some)
                target.execute("COMMIT")
            took += time.perf_counter() - start
    finally:
        source.close()
        target.close()
    return took, written


async def _copied(url: str) -> tuple[float, int]:
    """Copy the rows of a database into empty tables of the same shape; return seconds."""
    connection = await asyncpg.connect(url)
    try:
        took, written = 0.0, 0
        for table in TABLES:
            found = await connection.fetch("SELECT * FROM " + table)
            shape = "INCLUDING DEFAULTS INCLUDING INDEXES"
            await connection.execute(f"CREATE TABLE raw_{table} (LIKE {table} {shape})")
            written += len(found)
            records = [tuple(row) for row in found]
            columns = list(found[0].keys()) if found else None
            start = time.perf_counter()
            await connection.copy_records_to_table(f"raw_{table}", records=records, columns=columns)
            took += time.perf_counter() - start
            await connection.execute(f"DROP TABLE raw_{table}")
    finally:
        await connection.close()
    return took, written
