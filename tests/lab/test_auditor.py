"""The auditor agrees with every worked example, and catches deliberate bugs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from onymous.lab.auditor import Model, compare
from onymous.lab.auditor_types import NEW, Config, Record

#: switches and doors the naive model has nothing of (dry runs, environments, repeats, folding,
#: block lists, public keys): tests/test_cases.py runs them through the product
BEYOND = "choices.jsonl"


def _modelled(case: dict[str, Any]) -> bool:
    """Whether the model knows all a case asks: it tells each change of a modify by itself."""
    for op in _listed(case["request"]):
        types = [change["identity_type"] for change in op.get("identity_changes", ())]
        if len(set(types)) < len(types):
            return False
    return True


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


CASES = [
    case
    for file in sorted((Path(__file__).parents[1] / "cases").glob("*.jsonl"))
    if file.name != BEYOND
    for case in map(json.loads, file.read_text("utf-8").splitlines())
    if case["kind"] == "resolution" and _modelled(case)
]


def _start(case: dict[str, Any]) -> Model:
    config = Config.from_dict(case["config"])
    if config.strategy == "default":
        config.login = config.unique = ["customerid"]
    records = []
    for row in case["initial"]:
        fields = {k: v for k, v in row.items() if k != "ids"}
        records.append(Record(ids={k: list(v) for k, v in row["ids"].items()}, **fields))
    for record in records:
        known = any(record.ids.get(t) for t in config.login)
        record.was_known = record.was_known or known
    model = Model(config, records)
    model.aliases = list(case.get("prior_aliases", []))
    return model


def _stated(model: Model, wanted: dict[str, Any]) -> list[str]:
    problems = []
    by_mpid = {r.mpid: r for r in model.records}
    for row in wanted.get("records", []):
        record = by_mpid.get(row["mpid"])
        got = {k: sorted(v) for k, v in record.ids.items()} if record else None
        if got != {k: sorted(v) for k, v in row["ids"].items()}:
            problems.append(f"record {row['mpid']}: {got} instead of {row['ids']}")
        if record and "source" in row and record.source != row["source"]:
            problems.append(f"source of {row['mpid']}: {record.source}")
    return problems


@pytest.mark.parametrize("case", CASES, ids=lambda c: c["id"])
def test_worked_examples(case: dict[str, Any]) -> None:
    """Every stated field of every worked example holds in the model."""
    model, created, problems = _start(case), 0, []
    for step, (op, wanted) in enumerate(
        zip(_listed(case["request"]), _listed(case["expect"]), strict=True)
    ):
        # worked examples come through a server's input
        expected = model.expect({**op, "server_side": True}, 10_000 + step)
        created += expected.mpid == NEW
        label = f"new:{created}"
        model.commit(expected, label)
        if expected.mpid == NEW:
            expected.mpid = label
        problems += compare(expected, wanted) + _stated(model, wanted)
    assert problems == []


def test_all_worked_examples_are_read() -> None:
    """A missing file must not pass as agreement."""
    assert len(CASES) >= 390
