"""Scenario tables in YAML: a row is a situation, the strategies it holds under, and what follows.

    configs:
      conversion: {strategy: profile_conversion, login: [customerid], unique: [customerid]}
    cases:
      - id: a known person's device alone
        under: [conversion]
        given: {Ann: {customerid: 1, ios_idfv: tablet}}
        steps:
          - identify: {ios_idfv: tablet}
            expect: {mpid: new:1, records: {Ann: {customerid: 1, ios_idfv: tablet}}}

Each row becomes one scenario per configuration, in the form of the JSON Lines (check.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onymous.later import module

if TYPE_CHECKING:
    import yaml
else:
    yaml = module("yaml")

#: requests whose argument is identities, and those whose argument is an MPID
_BY_NAMES = {"identify", "login", "logout", "search", "events", "feed"}
_BY_MPID = {"modify", "erase"}
#: facts of a record in `given` that are no identities
_FACTS = {"last_seen", "created", "source", "was_known", "erased"}


class BadTable(ValueError):
    """A table that cannot be read; says where and why."""


def read_table(text: str, name: str) -> list[dict[str, Any]]:
    """Return the scenarios of a table; raises `BadTable`."""
    try:
        table = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{name}:{mark.line + 1}" if mark else name
        why = getattr(error, "problem", "nested too deeply")
        raise BadTable(f"{where} is not YAML: {why}") from None
    if not isinstance(table, dict) or not isinstance(table.get("cases"), list):
        raise BadTable(f"{name}: a table has `configs` and a list of `cases`")
    configs = table.get("configs") or {}
    out = []
    for number, row in enumerate(table["cases"], 1):
        if not isinstance(row, dict) or not isinstance(row.get("steps"), list):
            raise BadTable(f"{name}: case {number} is no row with `steps`")
        label = str(row.get("id", f"case {number}"))
        under = row.get("under", list(configs))
        for config in [under] if isinstance(under, str) else under:
            if config not in configs:
                raise BadTable(f"{name}: {label}: there is no configuration {config}")
            rules = {**configs[config], **row.get("with", {})}
            out.append(_scenario(row, f"{label} / {config}", rules))
    return out


def _scenario(row: dict[str, Any], label: str, config: dict[str, Any]) -> dict[str, Any]:
    steps = [_step(step, label) for step in row["steps"]]
    return {
        "id": label,
        "title": str(row.get("why", "")),
        "config": config,
        "initial": [_record(str(mpid), has) for mpid, has in (row.get("given") or {}).items()],
        "request": [request for request, _ in steps],
        "expect": [expect for _, expect in steps],
    }


def _record(mpid: str, has: dict[str, Any] | None) -> dict[str, Any]:
    facts = {k: v for k, v in (has or {}).items() if k in _FACTS}
    return {"mpid": mpid, "ids": _names(has or {}), **facts}


def _names(has: dict[str, Any]) -> dict[str, list[str]]:
    return {
        kind: [str(v) for v in (value if isinstance(value, list) else [value])]
        for kind, value in has.items()
        if kind not in _FACTS
    }


def _step(step: Any, label: str) -> tuple[dict[str, Any], dict[str, Any]]:
    if not isinstance(step, dict):
        raise BadTable(f"{label}: a step names a request")
    ops = [name for name in step if name in _BY_NAMES | _BY_MPID | {"alias"}]
    if len(ops) != 1:
        raise BadTable(f"{label}: a step names exactly one request, not {ops or 'none'}")
    op, more = ops[0], {k: v for k, v in step.items() if k not in (ops[0], "expect", "changes")}
    request: dict[str, Any] = {"op": op, **more}
    if op in _BY_NAMES:
        field = "identities" if op in ("events", "feed") else "known_identities"
        given = step[op] or {}
        request[field] = {k: None if v is None else str(v) for k, v in given.items()}
    elif op in _BY_MPID:
        request["mpid"] = str(step[op])
        if op == "modify":
            request["identity_changes"] = [
                _change(kind, old, new) for kind, (old, new) in (step.get("changes") or {}).items()
            ]
    else:
        source, destination = step[op]
        beside = {k: v for k, v in more.items() if k not in ("now_ms", "request_id", "key_only")}
        request = {k: v for k, v in request.items() if k not in beside}
        request["data"] = {"source_mpid": source, "destination_mpid": destination, **beside}
    return request, _expected(step.get("expect") or {})


def _change(kind: str, old: object, new: object) -> dict[str, str | None]:
    return {
        "identity_type": kind,
        "old_value": None if old is None else str(old),
        "new_value": None if new is None else str(new),
    }


def _expected(expect: dict[str, Any]) -> dict[str, Any]:
    out = dict(expect)
    if "status" not in out and "mpid" in out:
        out["status"] = 200
    if isinstance(out.get("records"), dict):
        records = []
        for mpid, has in out["records"].items():
            record: dict[str, Any] = {"mpid": str(mpid), "ids": _names(has or {})}
            records.append(record | {k: v for k, v in (has or {}).items() if k in _FACTS})
        out["records"] = records
    return out
