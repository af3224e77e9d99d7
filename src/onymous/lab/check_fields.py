"""The fields a scenario may have: a field nobody reads would be an expectation nobody checks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

_CASE = {"id", "kind", "documented", "source", "title", "note", "config", "initial"} | {
    "prior_aliases",
    "request",
    "expect",
}
_RECORD = {"mpid", "ids", "last_seen", "created", "source", "was_known", "erased"}
_PRIOR = {"source", "destination", "start", "end", "scope", "device_application_stamp"}
_ANY = {"op", "now_ms", "request_id", "environment", "key_only", "note"}
#: parts of a real request that decide nothing
_IDLE = {"client_sdk", "context", "request_timestamp_ms", "source_request_id"}
_NAMES = {"known_identities", "previous_mpid", "read_only"} | _ANY | _IDLE
_REQUEST = {
    "identify": _NAMES,
    "login": _NAMES,
    "logout": _NAMES,
    "search": _NAMES | {"reach"},
    "modify": {"mpid", "identity_changes"} | _ANY | _IDLE,
    "events": {"identities", "mpid", "previous_mpid"} | _ANY | _IDLE,
    "feed": {"identities", "mpid", "replace_values"} | _ANY | _IDLE,
    "alias": {"data", "request_type", "api_key"} | _ANY,
    "erase": {"mpid"} | _ANY,
}
_CHANGE = {"identity_type", "old_value", "new_value"}
_ALIAS = {"source_mpid", "destination_mpid", "start_unixtime_ms", "end_unixtime_ms", "scope"} | {
    "device_application_stamp",
    "copy",
}
_EXPECT = {"status", "code", "mpid", "is_logged_in", "is_ephemeral", "matched_identities"} | {
    "change_results",
    "outcome",
    "reason",
    "matches",
    "attached",
    "skipped",
    "conflict",
    "records",
    "note",
}


class BadScenario(ValueError):
    """A scenario that cannot be run; says which and why."""


def steps(case: dict[str, Any]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return the requests of a scenario, each with what is expected of it."""
    label = case.get("id", "scenario")
    requests, expected = case.get("request"), case.get("expect")
    if isinstance(requests, dict):
        requests, expected = [requests], [expected]
    if not isinstance(requests, list) or not isinstance(expected, list):
        raise BadScenario(f"{label}: `request` and `expect` are one object each, or a list each")
    if len(requests) != len(expected):
        raise BadScenario(f"{label}: {len(requests)} requests, but {len(expected)} expectations")
    return list(zip(requests, expected, strict=True))


def check_fields(case: dict[str, Any]) -> None:
    """Raise `BadScenario` for a field of a scenario that nothing would read."""
    label = str(case.get("id", "scenario"))
    _known(case, _CASE, label)
    for n, record in enumerate(case.get("initial") or []):
        _known(record, _RECORD, f"{label}: initial[{n}]", ("mpid",))
    for n, alias in enumerate(case.get("prior_aliases") or []):
        _known(alias, _PRIOR, f"{label}: prior_aliases[{n}]", ("source", "destination"))
    for n, (request, expect) in enumerate(steps(case)):
        _request(request, f"{label}: request[{n}]")
        _known(expect, _EXPECT, f"{label}: expect[{n}]")
        for record in expect.get("records") or []:
            _known(record, _RECORD, f"{label}: expect[{n}].records", ("mpid",))


def _request(request: Any, where: str) -> None:
    op = request.get("op") if isinstance(request, dict) else None
    if op not in _REQUEST:
        raise BadScenario(f"{where}: unknown op {op}; there are {', '.join(_REQUEST)}")
    needs = [f for f in ("identity_changes", "data") if f in _REQUEST[op]]
    _known(request, _REQUEST[op], where, needs + ["mpid"] * (op in ("modify", "erase")))
    for change in request.get("identity_changes") or []:
        _known(change, _CHANGE, f"{where}.identity_changes", ("identity_type",))
    if op == "alias":
        _known(request["data"], _ALIAS, f"{where}.data")


def _known(given: Any, fields: set[str], where: str, needs: Iterable[str] = ()) -> None:
    if not isinstance(given, dict):
        raise BadScenario(f"{where} is no object")
    unknown = sorted(set(given) - fields)
    if unknown:
        raise BadScenario(f"{where}: unknown field {unknown[0]}; there are {sorted(fields)}")
    for field in needs:
        if field not in given:
            raise BadScenario(f"{where}: {field} is missing")
