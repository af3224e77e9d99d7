"""Documentation: reference pages are fresh, and the README names what exists."""

from __future__ import annotations

import pathlib
import re

import pytest
from typer.testing import CliRunner

from onymous.cli import app
from onymous.lab.reference import pages
from onymous.rules import errors
from onymous.settings import TABLE

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
COMMANDS = sorted(
    c.name or str(getattr(c.callback, "__name__", "")) for c in app.registered_commands
)


@pytest.mark.parametrize("name", sorted(pages()))
def test_reference_pages_are_fresh(name: str) -> None:
    path = ROOT / "docs" / "reference" / name
    assert path.read_text("utf-8") == pages()[name], "run: uv run onymous reference --write"


def test_the_readme_begins_with_two_commands() -> None:
    assert "uv run onymous demo" in README
    assert "uv run pytest" in README
    assert "uv run pytest" in (ROOT / ".ci" / "run").read_text("utf-8")


def test_files_named_in_the_readme_exist() -> None:
    for name in re.findall(r"docs/[\w/.-]+", README):
        assert (ROOT / name.rstrip(".")).exists(), name


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    result = CliRunner().invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert len(result.output) > 100


@pytest.mark.parametrize(
    "command", ["demo", "serve", "init", "apply", "check", "resolve", "history"]
)
def test_the_readme_or_the_docs_show_every_command(command: str) -> None:
    texts = [README, *(p.read_text("utf-8") for p in (ROOT / "docs").rglob("*.md"))]
    assert any(f"onymous {command}" in text for text in texts)


def test_every_setting_has_help_and_every_error_a_way_out() -> None:
    assert all(s.help for s in TABLE)
    for thing in vars(errors).values():
        if isinstance(thing, type) and issubclass(thing, errors.Refusal):
            assert thing.__doc__
            assert thing.hint
            assert 400 <= thing.status < 600
