"""Every command answers machines too, and a refusal is an answer."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from onymous.cli import app

#: commands without `--json`, and why; today there is none
WITHOUT: dict[str, str] = {}

#: words, exit code and code of the answer; the store here has the starter configuration
REFUSED: list[tuple[str, int, str]] = [
    ("apply nothing.yaml", 2, "OS_ERROR"),
    ("apply bad.yaml", 1, "BAD_DOCUMENT"),
    ("apply other.yaml", 1, "CHANGE_REFUSED"),
    ("apply other.yaml --reresolve --store nowhere://x", 2, "SETTING_ERROR"),
    ("backups --in nowhere prune --keep-days 0", 2, "USAGE_ERROR"),
    ("check nothing.jsonl", 2, "BAD_SCENARIO"),
    ("config show 99", 1, "VALIDATION_ERROR"),
    ("conflicts merge 99 --reason x", 1, "NOT_FOUND_ERROR"),
    ("conflicts list --nonsense", 2, "USAGE_ERROR"),
    ("credentials revoke nobody", 1, "NOT_FOUND_ERROR"),
    ("explain r1 --url http://127.0.0.1:9", 2, "NO_ANSWER"),
    ("export-events there.txt", 2, "FILE_PROBLEM"),
    ("history 5 --url http://127.0.0.1:9", 2, "NO_ANSWER"),
    ("import nothing.csv --feed crm", 2, "FILE_PROBLEM"),
    ("import nothing.csv --feed crm --format strange", 2, "USAGE_ERROR"),
    ("init onymous.yaml", 2, "USAGE_ERROR"),
    ("keys issue web", 2, "USAGE_ERROR"),
    ("keys issue nobody/web", 1, "NOT_FOUND_ERROR"),
    ("people add x --role emperor", 1, "PEOPLE_PROBLEM"),
    ("play nothing.jsonl --out there.jsonl --strategy strange", 2, "USAGE_ERROR"),
    ("rehearse nothing.yaml", 2, "OS_ERROR"),
    ("rehearse bad.yaml", 1, "BAD_DOCUMENT"),
    ("resolve customerid=1 --url http://127.0.0.1:9", 2, "NO_ANSWER"),
    ("resolve customerid", 2, "USAGE_ERROR"),
    ("restore", 2, "USAGE_ERROR"),
    ("review show v99", 1, "NOT_FOUND_ERROR"),
    ("rollback 99", 1, "VALIDATION_ERROR"),
    ("scopes undo 99", 1, "VALIDATION_ERROR"),
    ("serve --store nowhere://x", 2, "SETTING_ERROR"),
    ("simulate mars", 2, "VALUE_ERROR"),
    ("undo r1 --reason x --url http://127.0.0.1:9", 2, "NO_ANSWER"),
    ("undo rules:99 --reason x", 1, "NOT_FOUND_ERROR"),
    ("undo rules:x --reason x", 2, "USAGE_ERROR"),
    ("verify nowhere", 2, "STORE_ERROR"),
]


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every command with its words; a group that does something itself is one too."""
    inside = getattr(command, "commands", None)
    if inside is None or (path and command.invoke_without_command):
        yield " ".join(path), command
    for name, one in (inside or {}).items():
        yield from commands(one, (*path, name))


def test_every_command_knows_json() -> None:
    found = dict(commands(typer.main.get_command(app)))
    assert len(found) > 60 and "keys new-master" in found and "backups" in found
    lacking = {
        name
        for name, command in found.items()
        if not any("--json" in option.opts for option in command.params)
    }
    assert lacking == set(WITHOUT), "add JsonOption, or say in WITHOUT why not"


@pytest.fixture
def place(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.chdir(tmp_path)
    for name in ("ONYMOUS_STORE", "ONYMOUS_MASTER_KEY"):
        monkeypatch.delenv(name, raising=False)
    run = CliRunner().invoke
    assert run(app, ["init"]).exit_code == 0
    assert run(app, ["apply"]).exit_code == 0
    text = (tmp_path / "onymous.yaml").read_text("utf-8")
    (tmp_path / "bad.yaml").write_text("scopes: {people: {strategy: magic}}\n")
    assert "\norganization: " in text
    (tmp_path / "other.yaml").write_text(text.replace("\norganization: ", "\norganization: No "))
    return tmp_path


def test_a_refusal_is_an_answer(place: pathlib.Path) -> None:
    """One object with code and message on standard output, whatever went wrong."""
    wrong = []
    for words, status, code in REFUSED:
        done = CliRunner().invoke(app, [*words.split(), "--json"])
        told = json.loads(done.stdout) if done.stdout.startswith("{") else {}
        plain = CliRunner().invoke(app, words.split())
        seen = done.exit_code, told.get("code"), bool(told.get("message")), bool(done.stderr)
        if (*seen, plain.exit_code, plain.stdout) != (status, code, True, True, status, ""):
            wrong.append((words, *seen, plain.exit_code, done.output, repr(done.exception)))
    assert not wrong, "\n".join(map(str, wrong))
