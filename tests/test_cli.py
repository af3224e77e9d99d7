"""The command line as a new user would use it, and the demo from beginning to end."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import pytest
from typer.testing import CliRunner

from onymous.__main__ import FILES
from onymous.cli import app

CASE: dict[str, Any] = {
    "id": "mine",
    "config": {"strategy": "profile_conversion", "login": ["customerid"], "unique": ["customerid"]},
    "initial": [{"mpid": "Ann", "ids": {"customerid": ["1"], "ios_idfv": ["T"]}}],
    "request": {"op": "identify", "known_identities": {"ios_idfv": "T"}},
    "expect": {"status": 200, "mpid": "new:1"},
}


def onymous(*words: str, cwd: pathlib.Path) -> subprocess.CompletedProcess[str]:
    environ = {k: v for k, v in os.environ.items() if not k.startswith("ONYMOUS_")}
    return subprocess.run(
        [sys.executable, "-m", "onymous", *words],
        cwd=cwd,
        env=environ,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_versions_diff_rollback_and_export(tmp_path: pathlib.Path) -> None:
    def run(*words: str, code: int = 0) -> str:
        done = onymous(*words, cwd=tmp_path)
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    run("init")
    run("apply", "--author", "ann", "--reason", "a start")
    run("export", "now.yaml")
    run("export", "now.yaml", code=2)
    text = (tmp_path / "now.yaml").read_text("utf-8")
    assert run("export") == text
    (tmp_path / "now.yaml").write_text(text.replace("kind: web", "kind: web\n        skew_s: 9"))
    assert "skew_s: 900 -> 9" in run("apply", "now.yaml", "--dry-run")
    assert "version 2" in run("apply", "now.yaml", "--author", "bob", "--reason", "clocks are good")
    assert "bob: clocks are good" in run("config", "log")
    assert "+        skew_s: 9" in run("config", "diff", "1")
    assert run("config", "show", "1") == text
    assert "skew_s: 9 -> 900" in run("rollback", "1", "--dry-run")
    back = json.loads(run("rollback", "1", "--reason", "they are not", "--json"))
    assert back["version"] == 3
    assert run("export") == text
    assert json.loads(run("config", "log", "--json"))["versions"][0]["rolled_back_to"] == 1
    assert "no version 9" in run("rollback", "9", code=1)


def test_init_apply_and_again(tmp_path: pathlib.Path) -> None:
    assert onymous("init", cwd=tmp_path).returncode == 0
    assert onymous("init", cwd=tmp_path).returncode == 2
    dry = onymous("apply", "onymous.yaml", "--dry-run", cwd=tmp_path)
    assert dry.returncode == 0
    assert "secret " not in dry.stdout
    first = onymous("apply", "onymous.yaml", "--json", cwd=tmp_path)
    made = json.loads(first.stdout)
    assert {c["input"] for c in made["credentials"]} >= {"web", "server"}
    again = json.loads(onymous("apply", "onymous.yaml", "--json", cwd=tmp_path).stdout)
    assert again["credentials"] == []
    text = (tmp_path / "onymous.yaml").read_text("utf-8")
    (tmp_path / "onymous.yaml").write_text(
        text.replace("login: [customerid]", "login: [custmerid]")
    )
    wrong = onymous("apply", "onymous.yaml", cwd=tmp_path)
    assert wrong.returncode == 1
    assert "customerid" in wrong.stderr
    assert onymous("apply", "missing.yaml", cwd=tmp_path).returncode == 2


def test_check_tells_what_failed_and_why(tmp_path: pathlib.Path) -> None:
    good, bad = tmp_path / "good.jsonl", tmp_path / "bad.jsonl"
    good.write_text("# comment\n" + json.dumps(CASE) + "\n", "utf-8")
    wrong = {**CASE, "id": "wrong", "expect": {"status": 200, "mpid": "Ann"}}
    bad.write_text(json.dumps(CASE) + "\n" + json.dumps(wrong) + "\n", "utf-8")
    runner = CliRunner()
    passed = runner.invoke(app, ["check", str(good)])
    assert passed.exit_code == 0
    assert "1 passed, 0 failed" in passed.output
    failed = runner.invoke(app, ["check", str(bad)])
    assert failed.exit_code == 1
    assert "1 passed, 1 failed" in failed.output
    assert "known person" in failed.output
    machine = runner.invoke(app, ["check", str(bad), "--json"])
    assert json.loads(machine.output)["failed"] == 1
    bad.write_text("{nonsense\n", "utf-8")
    assert runner.invoke(app, ["check", str(bad)]).exit_code == 2


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["serve", "--store", "mongodb://x"], "sqlite:FOLDER"),
        (["serve", "--port", "99999"], "at most"),
        (["serve", "--store", "sqlite:x", "--host", "203.0.113.1", "--port", "0"], "cannot listen"),
        (["history", "1", "--url", "http://127.0.0.1:9"], "does not answer"),
    ],
)
def test_mistakes_get_one_clear_line(words: list[str], says: str, tmp_path: pathlib.Path) -> None:
    out = onymous(*words, cwd=tmp_path)
    assert out.returncode == 2
    assert says in out.stderr.replace("\n", " ")
    assert "Traceback" not in out.stderr


def test_the_demo_finds_people_and_mixes_nobody_signed_in(tmp_path: pathlib.Path) -> None:
    words = ["demo", "--port", "0", "--no-stay", "--no-clicks", "--json"]
    out = onymous(*words, "--steps", "3000", "--people", "120", cwd=tmp_path)
    assert out.returncode == 0, out.stderr
    (row,) = json.loads(out.stdout)
    assert row["requests"] == 3000
    assert row["mismatches"] == 0
    assert row["score"]["known_mixed"] == 0
    assert row["score"]["known_precision"] == 1.0
    assert row["score"]["known_recall"] > 0.95
    other = tmp_path / "precious"
    other.mkdir()
    (other / "file").write_text("mine")
    refused = onymous("demo", "--folder", "precious", cwd=tmp_path)
    assert refused.returncode == 2
    assert (other / "file").exists()


def test_mpids_that_begin_with_a_minus_are_no_options() -> None:
    out = CliRunner().invoke(
        app, ["history", "-1180808910675866636", "--url", "http://127.0.0.1:1"]
    )
    assert out.exit_code == 2
    assert "does not answer" in out.output


def test_identities_without_a_value_are_told() -> None:
    out = CliRunner().invoke(app, ["resolve", "customerid"])
    assert out.exit_code == 2
    assert "TYPE=VALUE" in out.output


def test_files_that_cannot_be_read_are_told_in_one_line(tmp_path: pathlib.Path) -> None:
    (tmp_path / "odd.jsonl").write_bytes(b"\xff\xfe")
    (tmp_path / "deep.jsonl").write_text("[" * 100_000)
    for words in (
        ("check", str(tmp_path / "odd.jsonl")),
        ("check", str(tmp_path / "deep.jsonl")),
        ("config", "versions", "--store", f"sqlite:{tmp_path}/odd.jsonl/data"),
    ):
        result = CliRunner().invoke(app, list(words))
        assert result.exit_code == 2, (words, result.output, result.exception)


def test_each_command_is_looked_for_where_it_is() -> None:
    found: dict[str, set[str]] = {}
    for command in app.registered_commands:
        assert command.callback is not None
        name = command.name or command.callback.__name__.replace("_", "-")
        found.setdefault(command.callback.__module__, set()).add(name)
    for group in app.registered_groups:
        (inside,) = {c.callback.__module__ for c in group.typer_instance.registered_commands}
        found.setdefault(inside, set()).add(group.name)
    # these write pages about all commands
    assert found.pop("onymous.commands.reference") == {"settings", "reference"}
    assert found == {f"onymous.commands.{file}": set(words) for file, words in FILES.items()}


@pytest.mark.parametrize("words", [("config", "--help"), ("undo", "--help"), ("apply", "--no")])
def test_a_command_alone_says_what_it_says_among_all(
    words: tuple[str, ...], tmp_path: pathlib.Path
) -> None:
    done = onymous(*words, cwd=tmp_path)
    among = CliRunner().invoke(app, words, prog_name="python -m onymous")
    assert among.output and done.returncode == among.exit_code
    # both break their lines as wide as they believe the terminal to be
    for mine, theirs in ((done.stdout, among.stdout), (done.stderr, among.stderr)):
        assert "".join(mine.split()) == "".join(theirs.split())
