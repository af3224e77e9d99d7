"""Every ruling of the product is shown by tests that exist, by number."""

from __future__ import annotations

import ast
import functools
import pathlib
import re
import tomllib
from typing import Any

import pytest
import yaml

from onymous.flows.review import Waiting
from onymous.web.openapi import document

ROOT = pathlib.Path(__file__).parents[1]
RULINGS: dict[int, dict[str, Any]] = yaml.safe_load(
    (ROOT / "tests" / "rulings.yaml").read_text("utf-8")
)
ROWS: list[str] = [
    case["id"]
    for case in yaml.safe_load((ROOT / "tests/scenarios/rulings.yaml").read_text("utf-8"))["cases"]
]
#: rulings about who is who: they have rows a marketer could read, too
WITH_ROWS = {1, 2, 4, 5, 6, 7, 9, 12, 17, 21}


@functools.cache
def named_in(file: str) -> set[str]:
    tree = ast.parse((ROOT / file).read_text("utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in tree.body if isinstance(node, kinds)}


def test_every_ruling_has_its_place() -> None:
    assert list(RULINGS) == list(range(1, 27))
    numbers = {int(row.partition(",")[0]) for row in ROWS}
    assert numbers == WITH_ROWS, "a row of no ruling, or a ruling that lost its rows"
    assert len(ROWS) == len(set(ROWS))


@pytest.mark.parametrize("number", RULINGS)
def test_it_is_shown(number: int) -> None:
    ruling = RULINGS[number]
    assert ruling["says"] and ruling["tests"]
    for name in ruling["tests"]:
        file, _, test = name.partition("::")
        assert (ROOT / file).exists() and test in named_in(file), name


def test_license_and_python() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert (project["license"], project["requires-python"]) == ("Apache-2.0", ">=3.11")
    assert (ROOT / "LICENSE").read_text("utf-8").strip().startswith("Apache License")


def test_extensions_are_marked() -> None:
    """What the compatible API does not have says so, in the document and in the reference."""
    page = (ROOT / "docs" / "reference" / "http.md").read_text("utf-8")
    marked = set()
    for path, item in document()["paths"].items():
        for method, operation in item.items():
            if operation.get("x-extension"):
                marked.add(f"{method.upper()} {path}")
    assert {"GET /healthz", "GET /v1/changes", "GET /v1/{mpid}/history", "POST /v1/undo"} <= marked
    assert not {"POST /v1/identify", "POST /v1/{mpid}/modify"} & marked
    for name in marked:
        method, path = name.split()
        lines = re.findall(rf"^\| {method} \| [^|]*`{re.escape(path)}`.*$", page, re.M)
        assert len(lines) == 1 and lines[0].endswith("extension |"), name


def test_what_is_listed_names_its_environment() -> None:
    """Lists for operators mix scopes and pools: each line says of which it is."""
    assert "environment" in Waiting.__struct_fields__
    for command in ("conflicts", "review", "quarantine"):
        text = (ROOT / "src" / "onymous" / "commands" / f"{command}.py").read_text("utf-8")
        heads = [line for line in text.splitlines() if "Table(" in line]
        assert heads and all('"environment"' in line for line in heads), command
