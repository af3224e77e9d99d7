"""The samples in the docs import as the docs say; the watched folder takes each file once."""

from __future__ import annotations

import asyncio
import json
import pathlib
from typing import Any

import pytest
from tests.test_cli_history import TENANTS, run, told

from onymous.commands import watching
from onymous.commands.watching import waiting, watch_folder
from onymous.readers import FileProblem

SAMPLES = pathlib.Path(__file__).parent.parent / "docs" / "use" / "samples"


def imported(folder: pathlib.Path, name: str, *words: str) -> dict[str, Any]:
    rejects = ["--rejects", str(folder / f"{name}.rejects.csv"), *words]
    store = ["--store", f"sqlite:{folder}/data"]
    report = told("import", str(SAMPLES / name), "--feed", "shop/server", *rejects, *store)
    (found,) = report.values()
    return dict(found)


def test_the_samples_become_one_person_across_tools(
    tmp_path: pathlib.Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "onymous.yaml").write_text(TENANTS)
    run("apply", "onymous.yaml", "--store", f"sqlite:{tmp_path}/data")
    people = imported(tmp_path, "people.csv")
    assert (people["applied"], people["created"], people["rejected"]) == (3, 2, 1)
    calls = imported(tmp_path, "calls.jsonl", "--format", "calls")
    assert (calls["applied"], calls["before"]) == (4, 1)
    assert calls["reasons"] == {"alias_needs_review": 1, "group_has_no_profile": 1}
    persons = imported(tmp_path, "persons.jsonl", "--format", "persons")
    assert (persons["applied"], persons["reasons"]) == (2, {"several_names": 1})
    # anna and ben of all three files, and two visitors who never said who they are
    assert people["created"] + calls["created"] + persons["created"] == 4
    run("export-events", "e.jsonl", "--store", f"sqlite:{tmp_path}/data")
    rows = [json.loads(line) for line in (tmp_path / "e.jsonl").read_text().splitlines()]
    assert sum(row["event_type"] == "commerce_event" for row in rows) == 1


def test_a_conflict_is_merged_and_its_row_tried_again(
    tmp_path: pathlib.Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    store = ["--store", f"sqlite:{tmp_path}/data"]
    (tmp_path / "onymous.yaml").write_text(TENANTS)
    run("apply", "onymous.yaml", *store)
    file = tmp_path / "p.csv"
    file.write_text("customer_id,email,plan\n1,,a\n,b@x.io,b\n1,b@x.io,both\n,,none\n2,,c\n")
    first = ["import", "p.csv", "--feed", "server", *store]
    assert told(*first)["p.csv"]["conflicts"] == 1
    again = told(*first, "--retry")["p.csv"]
    assert (again["rows"], again["conflicts"], again["rejected"]) == (2, 1, 1)
    for waiting_ in told("conflicts", "list", *store)["conflicts"][:1]:
        run("conflicts", "merge", str(waiting_["id"]), "--reason", "one person", *store)
    done = told(*first, "--retry")["p.csv"]
    assert (done["applied"], done["conflicts"], done["rejected"]) == (1, 0, 1)
    rejects = (tmp_path / "p.csv.rejects.csv").read_text().splitlines()
    assert rejects == ["row,why,mpids", "4,no_usable_identity,"]
    assert told("conflicts", "list", *store) == {"conflicts": []}
    assert told(*first)["p.csv"]["before"] == 5


async def test_a_watched_folder_takes_each_file_once(
    tmp_path: pathlib.Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(watching, "QUIET_S", 0.2)
    monkeypatch.setattr(watching, "PAUSE_S", 0.02)
    seen: list[tuple[str, str]] = []

    async def one(path: pathlib.Path) -> None:
        seen.append((path.name, path.read_text()))
        if "bad" in path.name:
            raise FileProblem("cannot be read")
        path.with_name(path.name + ".rejects.csv").write_text("row")

    (tmp_path / "ready.csv").write_text("1")
    (tmp_path / ".hidden.csv").write_text("x")
    (tmp_path / "copying.csv.part").write_text("x")
    task = asyncio.create_task(watch_folder(tmp_path, one))
    for _ in range(10):
        # a file that still grows is not taken
        with (tmp_path / "growing.csv").open("a") as file:
            file.write("2")
        await asyncio.sleep(0.05)
    (tmp_path / "bad.csv").write_text("3")
    for _ in range(500):
        if len(seen) == 3 and not (tmp_path / "bad.csv").exists():
            break
        await asyncio.sleep(0.02)
    (tmp_path / "ready.csv").write_text("4")
    for _ in range(500):
        if len(seen) == 4 and not (tmp_path / "ready.csv").exists():
            break
        await asyncio.sleep(0.02)
    task.cancel()
    assert sorted(seen) == [
        ("bad.csv", "3"),
        ("growing.csv", "2" * 10),
        ("ready.csv", "1"),
        ("ready.csv", "4"),
    ]
    assert sorted(p.name for p in (tmp_path / "done").iterdir()) == [
        "1.ready.csv",
        "1.ready.csv.rejects.csv",
        "growing.csv",
        "growing.csv.rejects.csv",
        "ready.csv",
        "ready.csv.rejects.csv",
    ]
    assert [p.name for p in (tmp_path / "failed").iterdir()] == ["bad.csv"]
    left = sorted(p.name for p in tmp_path.iterdir() if p.is_file())
    assert left == [".hidden.csv", "copying.csv.part"]
    with pytest.raises(FileProblem):
        await watch_folder(tmp_path / "nowhere", one)
    assert waiting(tmp_path, {}) == []
