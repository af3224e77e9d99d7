"""Import, export, conflicts and quarantine on the command line, as an operator would."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pyarrow.parquet as parquet  # type: ignore[import-untyped]
from typer.testing import CliRunner, Result

from onymous.cli import app

TENANTS = """
organization: Test
scopes:
  people: {strategy: profile_conversion, login: [customerid, email],
           unique: [customerid, email], priority: [customerid, email, device_application_stamp]}
workspaces:
  shop: {scope: people, inputs: {server: {kind: server}, web: {kind: web}}}
"""


def run(*words: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, list(words))
    assert result.exit_code == code, result.output
    return result


def told(*words: str) -> Any:
    return json.loads(run(*words, "--json").stdout)


def test_a_file_in_and_events_out(tmp_path: pathlib.Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    store = ["--store", f"sqlite:{tmp_path}/data"]
    (tmp_path / "onymous.yaml").write_text(TENANTS)
    run("apply", "onymous.yaml", *store)
    people = tmp_path / "people.csv"
    people.write_text("Customer ID,email,plan,ts\n1,a@x.io,gold,2024-05-01\n2,,free,\n,,x,\n")
    mapping = ["--map", "Customer ID=customerid", "--map", "ts=timestamp"]
    first = ["import", "people.csv", "--feed", "server", *mapping, *store]
    seen = told(*first, "--dry-run")["people.csv"]
    assert (seen["applied"], seen["created"], seen["rejected"]) == (2, 2, 1)
    done = told(*first)["people.csv"]
    assert (done["applied"], done["rejected"]) == (2, 1)
    rejects = (tmp_path / "people.csv.rejects.csv").read_text()
    assert rejects.splitlines() == ["row,why,mpids", "3,no_usable_identity,"]
    assert told(*first)["people.csv"]["before"] >= 2

    (tmp_path / "calls.jsonl").write_text(
        json.dumps({"type": "track", "userId": "2", "event": "Viewed", "messageId": "m1"})
        + "\n"
        + json.dumps({"type": "identify", "userId": "1", "traits": {"email": "b@x.io"}})
        + "\n"
        + json.dumps({"type": "identify", "userId": "2", "traits": {"email": "a@x.io"}})
        + "\n"
    )
    calls = told("import", "calls.jsonl", "--feed", "server", "--format", "calls", *store)
    assert calls["calls.jsonl"]["conflicts"] == 1
    (waiting,) = told("conflicts", "list", *store)["conflicts"]
    assert (len(waiting["mpids"]), waiting["types"]) == (2, "customerid, email")
    number = str(waiting["id"])
    run("conflicts", "merge", number, "--reason", "same person", "--dry-run", *store)
    run("conflicts", "merge", number, "--into", "5", "--reason", "x", *store, code=1)
    merged = told("conflicts", "merge", number, "--reason", "same person", *store)
    assert merged[0]["destination"] == waiting["mpids"][0]
    assert told("conflicts", "list", *store)["conflicts"] == []
    run("conflicts", "dismiss", number, "--reason", "x", *store, code=1)

    run("import", "calls.jsonl", "--feed", "server", "--retry", *store, code=2)
    for form in ("rows", "calls", "persons"):
        run("import", "gone.jsonl", "--feed", "server", "--format", form, *store, code=2)
        run("import", str(tmp_path), "--feed", "server", "--format", form, *store, code=2)
    out = told("export-events", "events.parquet", *store)
    rows = parquet.read_table("events.parquet").to_pylist()
    assert len(rows) == out["events"] == 4
    tracked = next(r for r in rows if r["event_type"] == "custom_event")
    assert (tracked["event_name"], tracked["workspace"]) == ("Viewed", "shop")
    assert told("export-events", "e.jsonl", "--after", str(out["last"]), *store)["events"] == 0
    run("export-events", "e.txt", *store, code=2)
    run("import", "people.csv", "--feed", "nope", *store, code=2)
    run("import", "people.csv", "--feed", "web", *store, code=2)
    run("import", "people.csv", "--feed", "server", "--map", "x=email", *store, code=2)


def test_quarantine(tmp_path: pathlib.Path) -> None:
    store = ["--store", f"sqlite:{tmp_path}/data"]
    assert told("quarantine", "list", *store) == {"quarantined": []}
    assert told("quarantine", "replay", *store) == {"applied": 0, "dropped": 0, "left": 0}
    run("quarantine", "list", *store)


def test_diagnostics(tmp_path: pathlib.Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    store = ["--store", f"sqlite:{tmp_path}/data"]
    (tmp_path / "onymous.yaml").write_text(TENANTS)
    run("apply", "onymous.yaml", *store)
    (tmp_path / "p.csv").write_text("customer_id,email\n1,secret@x.io\n1,other@x.io\n")
    run("import", "p.csv", "--feed", "server", *store)
    found = told("diagnostics", *store)["diagnostics"]
    assert [d["kind"] for d in found] == ["identity_skipped"]
    assert "x.io" not in json.dumps(found)
    assert told("diagnostics", "--kind", "nope", *store) == {"diagnostics": []}
    run("diagnostics", *store)
