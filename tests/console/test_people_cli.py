"""`onymous people`: added, listed, given passwords and links, removed; secrets shown once."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest
from typer.testing import CliRunner

from onymous.cli import app


@pytest.fixture
def people(tmp_path: pathlib.Path) -> Any:
    """Run `onymous people` on a store of its own."""

    def run(*words: str, code: int = 0, **more: Any) -> str:
        given = ["people", *words, "--store", f"sqlite:{tmp_path / 'store'}"]
        result = CliRunner().invoke(app, given, **more)
        assert result.exit_code == code, result.output
        return str(result.output)

    return run


def test_a_life_of_an_account(people: Any) -> None:
    made = json.loads(people("add", "Anna", "--role", "admin", "--json"))
    assert made["name"] == "anna" and len(made["password"]) > 15
    out = people("add", "bo", "--scope", "one", "--password-stdin", input="a long password\n")
    assert "a long password" not in out
    rows = json.loads(people("list", "--json"))
    assert [(r["name"], r["role"], r["scopes"]) for r in rows] == [
        ("anna", "admin", []),
        ("bo", "support", ["one"]),
    ]
    assert "anna" in people("list")
    fresh = json.loads(people("password", "anna", "--json"))["password"]
    assert fresh != made["password"]
    link = people("link", "anna", "--url", "https://id.example/").strip()
    assert link.startswith("https://id.example/console/welcome/")
    people("remove", "ANNA")
    assert [r["name"] for r in json.loads(people("list", "--json"))] == ["bo"]


def test_what_cannot_be_is_one_line(people: Any) -> None:
    people("add", "anna")
    for words, more in (
        (("add", "anna"), {}),
        (("add", "x", "--role", "king"), {}),
        (("add", "y", "--password-stdin"), {"input": "short\n"}),
        (("add", " "), {}),
        (("remove", "nobody"), {}),
        (("password", "nobody"), {}),
        (("link", "nobody"), {}),
    ):
        out = people(*words, code=1, **more)
        assert len(out.strip().splitlines()) == 1 and "Traceback" not in out
