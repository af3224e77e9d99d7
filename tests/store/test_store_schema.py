"""The schema: fresh equals migrated, starting is safe at any time, the future is refused."""

from __future__ import annotations

import asyncio
import collections
import pathlib
import re

import apsw
import asyncpg
import pytest
from making import DEVICE, LOGIN, POOL, opened, pids, record, see, written

from conftest import Place, Postgres
from onymous.store import migrating, schema, sql
from onymous.store import sqlite as embedded
from onymous.store.port import Probe, SchemaMismatch, Store, StoreError
from onymous.store.postgres import PostgresStore
from onymous.store.sqlite import SqliteStore

COLUMNS = (
    "SELECT table_name, column_name, data_type, is_nullable, column_default, collation_name"
    " FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1, 2"
)
INDEXES = "SELECT tablename, indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 2"
OBJECTS = (
    "SELECT relname, relkind::text FROM pg_class WHERE relnamespace = 'public'::regnamespace"
    " ORDER BY 1"
)


def test_migrations_are_numbered_without_gaps_and_end_at_the_version() -> None:
    for engine in schema.DIALECTS:
        numbers = [number for number, _ in schema.migrations(engine)]
        assert numbers == list(range(1, schema.SCHEMA_VERSION + 1))
    assert 1 <= schema.COMPATIBLE_VERSION <= schema.SCHEMA_VERSION


def test_no_migration_leaves_a_word_untranslated() -> None:
    for engine in schema.DIALECTS:
        for _, text in schema.migrations(engine):
            for statement in schema.statements(text):
                assert "{" not in statement and "}" not in statement


async def postgres_schema(store: Store) -> list[list[tuple[object, ...]]]:
    async with store.read() as session:
        return [await session.rows(s) for s in (COLUMNS, INDEXES, OBJECTS)]


async def test_postgres_fresh_equals_one_migration_after_the_other(postgres: Postgres) -> None:
    fresh, stepwise = postgres.database(), postgres.database()
    connection = await asyncpg.connect(stepwise)
    for _, text in schema.migrations("postgresql"):
        for statement in schema.statements(text):
            await connection.execute(statement)
    put = migrating.numbered(sql.META_PUT)
    await connection.execute(put, "schema_version", b"%d" % schema.SCHEMA_VERSION)
    await connection.execute(put, "compatible_version", b"%d" % schema.COMPATIBLE_VERSION)
    await connection.close()
    async with opened(PostgresStore(fresh)) as one, opened(PostgresStore(stepwise)) as two:
        assert await postgres_schema(one) == await postgres_schema(two)
        columns = (await postgres_schema(one))[0]
        texts = [row for row in columns if row[2] == "text"]
        assert texts and all(row[5] == "C" for row in texts), "values compare byte by byte"


def sqlite_schema(path: pathlib.Path) -> list[tuple[object, ...]]:
    db = apsw.Connection(str(path))
    rows = db.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY 1, 2")
    return list(rows)


async def test_sqlite_fresh_equals_one_migration_after_the_other(tmp_path: pathlib.Path) -> None:
    async with opened(SqliteStore(tmp_path / "fresh")):
        pass
    (tmp_path / "step").mkdir()
    db = embedded.connect(tmp_path / "step" / "onymous.db")
    for _, text in schema.migrations("sqlite"):
        for statement in schema.statements(text):
            db.execute(statement)
    fresh = sqlite_schema(tmp_path / "fresh" / "onymous.db")
    assert fresh == sqlite_schema(tmp_path / "step" / "onymous.db")
    names = {row[1] for row in fresh}
    assert {"meta", "profile", "identity", "claim", "ledger", "job", "audit"} <= names


def test_every_statement_is_used() -> None:
    source = pathlib.Path(sql.__file__).parents[1]
    words = re.findall(r"\b[A-Z][A-Z0-9_]+\b", "".join(p.read_text() for p in source.rglob("*.py")))
    used = collections.Counter(words)
    for path in (source / "store").glob("*sql.py"):
        names = re.findall(r"^([A-Z][A-Z0-9_]+)\b", path.read_text(), re.MULTILINE)
        assert [name for name in names if used[name] < 2] == [], path.name


async def test_every_statement_is_understood(store: Store) -> None:
    """Each statement of `sql` fits the schema of each engine."""
    names = [n for n in vars(sql) if n.isupper() and n != "RECORD"]
    assert len(names) > 25
    for name in names:
        statement: str = getattr(sql, name)
        async with store.write(name) as tx:
            assert await tx.rows(f"EXPLAIN {statement}", *[None] * statement.count("?"))


async def test_starting_again_changes_nothing(store: Store, place: Place) -> None:
    await written(store, record(1, {LOGIN: "a"}))
    async with opened(place.store()) as again:
        assert pids(await see(again, Probe(POOL, {LOGIN: "a"}))) == [1]
        async with again.read() as session:
            rows = await session.rows("SELECT name, value FROM meta ORDER BY name")
    assert [(name, bytes(value)) for name, value in rows] == [
        ("compatible_version", b"%d" % schema.COMPATIBLE_VERSION),
        ("schema_version", b"%d" % schema.SCHEMA_VERSION),
    ]


async def test_many_may_start_at_once_on_an_empty_place(empty_place: Place) -> None:
    stores = [empty_place.store() for _ in range(6)]
    await asyncio.gather(*(store.start() for store in stores))
    for n, store in enumerate(stores, 1):
        await written(store, record(n, {DEVICE: "d"}))
    assert pids(await see(stores[0], Probe(POOL, {DEVICE: "d"}))) == [1, 2, 3, 4, 5, 6]
    for store in stores:
        await store.close()


async def test_a_schema_from_the_future_is_refused(place: Place) -> None:
    newer = schema.SCHEMA_VERSION + 1
    async with opened(place.store()) as store, store.write("future") as tx:
        await tx.run(sql.META_PUT, "schema_version", b"%d" % newer)
        await tx.run(sql.META_PUT, "compatible_version", b"%d" % newer)
    refused = place.store()
    with pytest.raises(SchemaMismatch, match=f"version {newer}"):
        await refused.start()
    await refused.close()


async def test_a_newer_schema_that_stays_compatible_is_served(place: Place) -> None:
    newer = b"%d" % (schema.SCHEMA_VERSION + 1)
    async with opened(place.store()) as store, store.write("newer") as tx:
        await tx.run(sql.META_PUT, "schema_version", newer)
    async with opened(place.store()) as store, store.read() as session:
        rows = await session.rows(sql.META_GET, "schema_version")
        assert bytes(rows[0][0]) == newer, "and not set back"


async def test_a_database_of_something_else_is_refused(postgres: Postgres) -> None:
    url = postgres.database()
    connection = await asyncpg.connect(url)
    await connection.execute("CREATE TABLE meta (name TEXT PRIMARY KEY, value BYTEA)")
    await connection.close()
    with pytest.raises(SchemaMismatch):
        await PostgresStore(url).start()


async def test_a_server_that_is_not_there_is_a_clear_error() -> None:
    with pytest.raises(StoreError, match="cannot connect") as caught:
        await PostgresStore("postgresql://u:secret@127.0.0.1:1/x").start()
    assert "secret" not in str(caught.value)
