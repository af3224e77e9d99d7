"""Problems and advice of configurations, as tables (tests/scenarios/config_*.yaml)."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import msgspec
import pytest
import yaml

from onymous.rules import checks, documents
from onymous.rules.identifiers import DEFAULT_PRIORITY, TYPES
from onymous.rules.strategies import STRATEGIES, Blocked, ScopeConfig, compile_plan
from onymous.rules.wording import Problem

HERE = pathlib.Path(__file__).parent.parent


def table(name: str) -> list[Any]:
    rows = yaml.safe_load((HERE / "scenarios" / name).read_text("utf-8"))
    return [pytest.param(row, id=row["title"]) for row in rows]


def told(scope: object) -> tuple[list[Problem], list[Problem]]:
    """Problems and advice on a document with one scope; fields without scopes.people."""
    data = {"organization": "Acme", "scopes": {"people": scope}}
    document, problems = documents.decode(data, {})
    warnings = documents.advice(document) if document is not None else []
    return problems, warnings


def agree(found: list[Problem], expected: list[list[str]]) -> None:
    lines = "\n".join(map(str, found))
    assert len(found) == len(expected), lines
    for problem, (field, why, instead) in zip(found, expected, strict=True):
        where = f"scopes.people.{field}" if field else "scopes.people"
        assert problem.field == where, lines
        assert why in problem.why, lines
        assert instead in problem.instead, lines


@pytest.mark.parametrize("row", table("config_problems.yaml"))
def test_problems(row: dict[str, Any]) -> None:
    problems, _ = told(row["scope"])
    agree(problems, row["expect"])


@pytest.mark.parametrize("row", table("config_warnings.yaml"))
def test_advice(row: dict[str, Any]) -> None:
    problems, warnings = told(row["scope"])
    assert problems == []
    agree(warnings, row["expect"])


def configs_of_cases() -> list[Any]:
    out: dict[str, Any] = {}
    for path in sorted((HERE / "cases").glob("*.jsonl")):
        for line in path.read_text("utf-8").splitlines():
            config = json.loads(line).get("config")
            if config:
                out.setdefault(json.dumps(config, sort_keys=True), config)
    return list(out.values())


def test_every_worked_example_has_a_usable_configuration() -> None:
    configs = configs_of_cases()
    assert len(configs) > 5
    for given in configs:
        config = msgspec.convert(given, ScopeConfig)
        assert checks.problems(config) == [], given
        compile_plan(config)


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_new_scope_of_every_strategy_is_usable(name: str) -> None:
    priority = ("customerid", "email", "device_application_stamp")
    config = documents.with_presets(ScopeConfig(strategy=name, priority=priority))
    assert checks.problems(config) == []
    assert compile_plan(config).strategy.name == name


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_new_scope_needs_nothing_but_its_strategy(name: str) -> None:
    """The documented ranking has the phone above e-mail; login types move up by themselves."""
    config = documents.with_presets(ScopeConfig(strategy=name))
    assert checks.problems(config) == []
    assert sorted(config.priority) == sorted(DEFAULT_PRIORITY)
    immutable = documents.with_presets(ScopeConfig(strategy="default", immutable=("customerid",)))
    assert immutable.priority == DEFAULT_PRIORITY


def test_what_a_problem_says_to_write_solves_it() -> None:
    wrong = ScopeConfig(
        strategy="profile_conversion",
        priority=("device_application_stamp", "email", "mobile_number", "customerid"),
        login=("customerid", "email"),
        unique=("customerid",),
        immutable=("customerid",),
    )
    (problem,) = checks.problems(wrong)
    names = problem.instead.partition("[")[2].partition("]")[0].split(", ")
    right = msgspec.structs.replace(wrong, priority=tuple(names))
    assert checks.problems(right) == []


def test_fields_stand_under_the_given_path_or_alone() -> None:
    config = ScopeConfig(hot_after=0)
    assert [p.field for p in checks.problems(config)] == ["hot_after"]
    assert [p.field for p in checks.problems(config, "a.b")] == ["a.b.hot_after"]
    assert checks.warnings(ScopeConfig(hot_after=3), "x")[-1].field == "x.hot_after"


def test_a_wrong_word_that_never_came_from_a_document() -> None:
    config = ScopeConfig(login_conflict="returnmatch")  # type: ignore[arg-type]
    (problem,) = checks.problems(config)
    assert (problem.field, problem.instead) == ("login_conflict", "write return_match")


def test_a_block_list_has_a_limit() -> None:
    many = tuple(Blocked("customerid", f"c{n}") for n in range(checks.MOST_BLOCKED + 1))
    (problem,) = checks.problems(ScopeConfig(blocked=many))
    assert problem.field == "blocked" and "hot_after" in problem.instead
    assert checks.problems(ScopeConfig(blocked=many[1:])) == []


def test_no_message_shows_a_blocked_value() -> None:
    secret = " Mallory@Example.org "
    config = ScopeConfig(email_lower=True, blocked=(Blocked("email", secret),) * 2)
    found = checks.problems(config)
    assert found and not any("allory" in str(p) for p in found)


def test_every_type_may_be_ranked() -> None:
    users = tuple(t.name for t in TYPES if t.klass == "user")
    devices = tuple(t.name for t in TYPES if t.klass == "device")
    assert checks.problems(ScopeConfig(priority=users + devices)) == []


def test_messages_are_one_bounded_printable_line() -> None:
    config = ScopeConfig(strategy="x\n\x1b[31m" + "y" * 5000, priority=("\u202e" + "z" * 900,))
    for problem in checks.problems(config):
        text = str(problem)
        assert text.isprintable() and len(text) < 700
