"""Files of people: mapped, resolved like a feed in order, exactly once also after a crash."""

from __future__ import annotations

import asyncio
import csv
import gzip
import json
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pytest
from tests.flows.test_events_flow import view, who_is
from tests.web.serving import Running, running

from onymous import readers
from onymous.commands.rejects import RejectsFile, rejected_rows
from onymous.flows import importing
from onymous.flows.files import Job, NoRejects, Ready, Rejected, Report
from onymous.flows.importing import Importer
from onymous.readers import FileProblem, read
from onymous.rules.call_logs import calls, persons
from onymous.rules.errors import MappingInvalid
from onymous.rules.mapping import batch_of, map_columns
from onymous.store.port import StoreError


class Kept(NoRejects):
    """Keeps rejected rows in memory."""

    def __init__(self) -> None:
        self.rows: list[Rejected] = []
        self._before = 0

    def keep(self, rows: Sequence[Rejected]) -> None:
        self._before = len(self.rows)
        self.rows += rows

    def undo(self) -> None:
        del self.rows[self._before :]


async def load(
    it: Running, rows: Iterable[Ready], name: bytes = b"file", **more: Any
) -> tuple[Report, list[Rejected]]:
    core = it.server.core
    caller = core.directory.find("server-api-key")
    assert caller is not None
    rejects = Kept()
    job = Job(caller=caller, name=name, now_ms=1_700_000_000_000, **more)
    importer = Importer(core.store, core.events, job, rejects, lambda n: None)
    return await importer.run(rows), rejects.rows


def person(line: int, at: int | None = None, **known: str) -> Ready:
    attributes = {"n": str(line)}
    return line, {"user_identities": known, "user_attributes": attributes}, at


async def test_every_row_of_a_file_is_in_the_journal(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        rows = [person(n, customerid=str(n), email=f"p{n}@x.io") for n in range(1, 301)]
        await load(it, rows)
        core = it.server.core
        # nothing waits to be written: what a crash would take
        assert not core.journal.held
        told = "SELECT op, count, body FROM journal WHERE op = 'feed' ORDER BY id"
        async with core.store.read() as session:
            first = await session.rows(told)
        assert len(first) == 300
        # the same said again, found or made, is one entry
        await load(it, rows, name=b"another file")
        await core.journal.flush(core.store)
        async with core.store.read() as session:
            again = await session.rows(told)
        assert [(row[1], bytes(row[2])) for row in again] == [(2, bytes(r[2])) for r in first]


async def test_a_crm_file_joins_the_profiles_of_the_app(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        anna = await who_is(it, customerid="1")
        rows = [person(n, customerid=str(n), email=f"p{n}@x.io") for n in range(1, 301)]
        seen, _ = await load(it, rows, dry_run=True)
        assert (seen.applied, seen.created) == (300, 299)
        assert (await it.counts())["profile"] == 1
        report, _ = await load(it, rows)
        assert (report.applied, report.created, report.before) == (300, 299, 0)
        assert await who_is(it, email="p1@x.io") == anna
        (known,) = (await view(it, anna)).workspaces.values()
        assert known.attributes["n"].value == "1"
        again, _ = await load(it, rows)
        assert (again.applied, again.before) == (0, 300)


async def test_an_interrupted_import_goes_on_where_it_was(
    place: Any, tmp_path: pathlib.Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(importing, "TOGETHER", 20)
    async with running(place, tmp_path) as it:
        rows = [person(n, customerid=str(n % 70), email=f"{n % 70}@x.io") for n in range(1, 101)]

        def dying() -> Iterator[Ready]:
            yield from rows[:60]
            raise RuntimeError("the process dies")

        with pytest.raises(RuntimeError):
            await load(it, dying())
        report, _ = await load(it, rows)
        assert report.before in (40, 60) and report.applied + report.before == 100
        for n in range(70):
            (known,) = (await view(it, await who_is(it, customerid=str(n)))).workspaces.values()
            assert known.batches == 1 + (1 <= n <= 30)
        assert (await it.counts())["profile"] == 70


async def test_a_file_is_imported_by_one_process_at_a_time(
    place: Any, tmp_path: pathlib.Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(importing, "TOGETHER", 20)
    async with running(place, tmp_path) as it:
        rows = [person(n, customerid=str(n)) for n in range(1, 101)]
        done = await asyncio.gather(load(it, rows), load(it, rows), return_exceptions=True)
        refused = [d for d in done if isinstance(d, StoreError)]
        assert len(refused) == 1 and "another process" in str(refused[0])
        async with it.server.core.store.read() as session:
            assert await session.rows("SELECT count(*) FROM batch") == [(100,)]


async def test_rows_of_two_people_change_nothing(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        one, two = await who_is(it, customerid="1"), await who_is(it, email="b@x.io")
        report, rejected = await load(
            it,
            [
                person(1, customerid="1", email="b@x.io"),
                person(2),
                (3, "not_json", None),
                person(4, customerid="9"),
            ],
        )
        assert (report.applied, report.conflicts, report.rejected) == (1, 1, 2)
        whys = {(r.row, r.why) for r in rejected}
        assert whys == {(1, "conflict"), (2, "no_usable_identity"), (3, "not_json")}
        conflict = next(r for r in rejected if r.why == "conflict")
        assert (conflict.row, sorted(conflict.mpids)) == (1, sorted([one, two]))
        assert (await it.counts())["conflict"] == 1


async def test_older_rows_do_not_overwrite_newer_ones(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        await load(it, [person(2, 1_600_000_000_000, customerid="1")])
        await load(it, [person(1, 1_500_000_000_000, customerid="1")], b"older")
        (known,) = (await view(it, await who_is(it, customerid="1"))).workspaces.values()
        assert known.attributes["n"].value == "2"


def test_columns_mean_what_they_say() -> None:
    columns = map_columns(
        [
            "Email",
            "Customer_ID",
            "device_info.ios_idfv",
            "user_attributes.$City",
            "Plan",
            "x",
            "ts",
        ],
        {"x": "-", "ts": "timestamp"},
    )
    assert [(c.kind, c.name) for c in columns] == [
        ("identity", "email"),
        ("identity", "customerid"),
        ("identity", "ios_idfv"),
        ("attribute", "$city"),
        ("attribute", "Plan"),
        ("ignore", "x"),
        ("timestamp", "timestamp"),
    ]
    row = {"Email": "a@b.c", "Customer_ID": "", "Plan": "gold", "ts": " 2024-05-01 "}
    assert batch_of(columns, row) == {
        "user_identities": {"email": "a@b.c"},
        "user_attributes": {"Plan": "gold"},
        "timestamp": "2024-05-01",
    }
    for headers, given in (
        (["plan"], {}),
        (["email", "email"], {}),
        (["email", "mail"], {"mail": "email"}),
        (["email"], {"nope": "-"}),
        (["email", "a"], {"a": "emial"}),
    ):
        with pytest.raises(MappingInvalid):
            map_columns(headers, given)


def test_files_are_read_row_by_row(tmp_path: pathlib.Path) -> None:
    plain = tmp_path / "people.csv"
    with plain.open("w", newline="") as file:
        csv.writer(file).writerows([["email", "note"], ["a@b.c", 'say "hi",\nok'], ["x"]])
    headers, rows = read(plain)
    assert headers == ["email", "note"]
    assert list(rows) == [
        {"email": "a@b.c", "note": 'say "hi",\nok'},
        {"!": "wrong_number_of_columns"},
    ]
    packed = tmp_path / "people.jsonl.gz"
    packed.write_bytes(gzip.compress(b'{"email":"a"}\n\n[1]\n{bad\n'))
    headers, rows = read(packed)
    assert headers == ["email"]
    assert list(rows) == [{"email": "a"}, {"!": "not_an_object"}, {"!": "not_json"}]
    for name, content in (("a.txt", b"x"), ("b.csv", b""), ("c.parquet", b"x"), ("d.csv.gz", b"x")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(FileProblem):
            read(tmp_path / name)


def test_call_logs_and_persons() -> None:
    identify = {
        "type": "identify",
        "userId": 42,
        "anonymousId": "anon-1",
        "messageId": "m1",
        "timestamp": "2024-05-01T10:00:00.000Z",
        "traits": {"email": "a@b.c", "firstName": "Ann", "plan": "pro", "address": {"x": 1}},
    }
    ((batch, at),) = calls(identify)
    assert at == 1_714_557_600_000
    assert batch == {
        "user_identities": {"customerid": 42, "email": "a@b.c"},
        "mp_deviceid": "anon-1",
        "source_request_id": "m1",
        "user_attributes": {"$firstname": "Ann", "plan": "pro"},
    }
    order = {"type": "track", "event": "Order Completed", "userId": "1", "properties": {"total": 5}}
    ((batch, _),) = calls(order)
    assert isinstance(batch, dict)
    assert batch["events"][0]["data"]["product_action"]["total_amount"] == 5
    assert [item for item, _ in calls({"type": "alias", "userId": "1"})] == ["alias_needs_review"]
    stamp = "018f5f3c-1f0a-7b52-8d7e-0a2b3c4d5e6f"
    found = list(persons({"distinct_ids": ["anna", stamp, f"$device:{stamp[:-1]}0"]}))
    assert [b.get("mp_deviceid") for b, _ in found if isinstance(b, dict)] == [
        stamp,
        f"{stamp[:-1]}0",
    ]
    assert list(persons({"distinct_ids": ["anna", "ben"]})) == [("several_names", None)]
    assert json.dumps(found[0][0])


def test_files_that_are_not_as_they_should_be(tmp_path: pathlib.Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(readers, "MOST_ROW", 100)
    file = tmp_path / "people.csv"
    file.write_bytes(b"\xef\xbb\xbfemail;note\na@b.c;\xe4\n" + b"x" * 450 + b";y\nd@e.f;ok\n")
    headers, rows = read(file)
    assert headers == ["email", "note"]
    found = list(rows)
    assert [r["email"] for r in found if "!" not in r] == ["a@b.c", "d@e.f"]
    assert [r["!"] for r in found if "!" in r] == ["wrong_number_of_columns"]
    log = tmp_path / "calls.jsonl"
    log.write_text('{"a":1}\n' + '{"b":"' + "x" * 300 + '"}\n{"c":1}')
    assert list(readers.lines(log)) == [{"a": 1}, {"!": "row_too_large"}, {"c": 1}]
    quoted = tmp_path / "quoted.csv"
    quoted.write_text('email\n"' + ("y" * 60 + "\n") * 3000 + '"\na@b.c\n')
    assert {"!": "row_too_large"} in list(read(quoted)[1])
    cut = tmp_path / "cut.csv.gz"
    cut.write_bytes(gzip.compress(b"email\n" + b"a@b.c\n" * 9000)[:-20])
    with pytest.raises(FileProblem):
        list(read(cut)[1])


async def test_text_that_is_no_text_is_rejected_with_its_row(
    place: Any, tmp_path: pathlib.Path
) -> None:
    file = tmp_path / "latin.csv"
    file.write_bytes(b"customer_id,note\n1,ok\n2,\xe4\n3,ok\n")
    headers, rows = read(file)
    columns = map_columns(headers)
    async with running(place, tmp_path) as it:
        ready = [(n, batch_of(columns, row), None) for n, row in enumerate(rows, 1)]
        report, rejected = await load(it, ready)
        assert report.applied == 2
        assert [(r.row, r.why) for r in rejected] == [(2, "not_utf8")]


def test_whole_numbers_of_a_column_with_gaps() -> None:
    columns = map_columns(["customer_id", "score"])
    row = {"customer_id": 42.0, "score": 42.0}
    assert batch_of(columns, row)["user_identities"] == {"customerid": 42}
    assert batch_of(columns, {"customer_id": 1e300})["user_identities"] == {"customerid": 1e300}


def test_rejected_rows_outlive_a_crash(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "p.csv.rejects.csv"
    first = RejectsFile(path)
    first.begin(0)
    first.keep([])
    assert not path.exists()
    first.keep([Rejected(3, "not_json"), Rejected(5, "conflict", ["1", "2"])])
    first.keep([Rejected(7, "not_json")])
    first.undo()
    first.keep([Rejected(8, "not_json")])
    first.keep([Rejected(9, "not_json")])
    # killed before the piece with row 9 was committed
    second = RejectsFile(path)
    second.begin(8)
    second.keep([Rejected(9, "not_json")])
    second.close()
    assert list(rejected_rows(path)) == [3, 5, 8, 9]
    assert path.read_text().splitlines()[2] == "5,conflict,1 2"
    third = RejectsFile(path)
    third.begin(0)
    assert not path.exists()
    with pytest.raises(FileProblem):
        list(rejected_rows(path))
