"""The part of the OpenAPI document about the configuration: its versions, identity scopes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Answers = Callable[..., dict[str, Any]]
_BEARER: list[dict[str, list[str]]] = [{"bearer": []}]
_BASE = "/platform/v2/organizations/{org}"
_AUTHOR = "Every change is a version with the credential as author and the reason given."


def paths(answers: Answers) -> dict[str, Any]:
    """Return the paths; `answers` makes the documented statuses."""
    make = _Maker(answers)
    return {**_configuration(make), **_scopes(make), **_changes(make), **_rules(make)}


def _configuration(make: _Maker) -> dict[str, Any]:
    whole = f"{_BASE}/configuration"
    text = {"required": True, "content": {"application/yaml": {"schema": {"type": "string"}}}}
    listed = make.read(
        "configuration_versions",
        "Versions, newest first: author, reason, what changed.",
        _query("limit", "integer"),
        _query("before", "integer"),
    )
    back = make.change(
        "configure_rollback", "Apply an older version again.", _body("RollbackRequest")
    )
    one = make.read("configuration_version", "One version, whole.", _place("version"))
    seen = make.change("configure_dry_run", "What a document would change.", text)
    return {
        whole: {
            "get": make.read("configuration", "The configuration in force and its version."),
            "put": make.change("configure", "Apply a document, YAML or JSON.", text, query=True),
        },
        f"{whole}/dry_run": {"post": seen},
        f"{whole}/rollback": {"post": back},
        f"{whole}/versions": {"get": listed},
        f"{whole}/versions/{{version}}": {"get": one},
    }


def _scopes(make: _Maker) -> dict[str, Any]:
    scopes = f"{_BASE}/identity_scopes"
    several, single = _body("IdentityScopesRequest"), _body("IdentityScope")
    some = make.change(
        "put_identity_scopes", "Change identity scopes by name; others stay as they are.", several
    )
    one = make.change(
        "put_identity_scope", "Change one identity scope.", single, _place("id"), query=True
    )
    return {
        scopes: {"get": make.read("identity_scopes", "Every identity scope."), "put": some},
        f"{scopes}/{{id}}": {
            "get": make.read("identity_scope", "One identity scope.", _place("id")),
            "put": one,
        },
    }


def _changes(make: _Maker) -> dict[str, Any]:
    path = f"{_BASE}/scope_changes"
    begin = make.change(
        "change_scopes", "Join or split scopes, or see what it would do.", _body("ScopeChange")
    )
    undo = make.change(
        "undo_scope_change",
        "Take a join or split of scopes back.",
        _body("ScopeChangeUndo"),
        _place("id"),
    )
    return {
        path: {"get": make.read("scope_changes", "Joins and splits of scopes."), "post": begin},
        f"{path}/{{id}}/undo": {"post": undo},
    }


def _rules(make: _Maker) -> dict[str, Any]:
    path = f"{_BASE}/rule_changes"
    one = make.read("rule_change", "A change of rules, and where its undoing stands.", _place("id"))
    undo = make.change(
        "undo_rule_change", "Take a change of rules back.", _body("RuleChangeUndo"), _place("id")
    )
    undo["description"] = (
        "202: it is promised and done soon, by another process, in one transaction for which"
        " writes wait; read the change for `state` and the outcome. Asked again meanwhile, the"
        " same undoing is told. 200: a dry run."
    )
    undo["parameters"] = [p for p in undo["parameters"] if p["in"] == "path"]
    undo["responses"] = make.answers(200, 202, 400, 401, 403, 404, 409, 413, 503)
    return {
        path: {"get": make.read("rule_changes", "Changes of rules applied to history.")},
        f"{path}/{{id}}": {"get": one},
        f"{path}/{{id}}/undo": {"post": undo},
    }


class _Maker:
    """Makes operations."""

    def __init__(self, answers: Answers) -> None:
        self.answers = answers

    def read(self, op: str, summary: str, *params: dict[str, Any]) -> dict[str, Any]:
        return {
            "operationId": op,
            "x-extension": True,
            "summary": f"{summary[:-1]} (permission platform:read).",
            "parameters": [_place("org"), *params],
            "responses": self.answers(200, 400, 401, 403, 404),
            "security": _BEARER,
        }

    def change(
        self,
        op: str,
        summary: str,
        body: dict[str, Any],
        *params: dict[str, Any],
        query: bool = False,
    ) -> dict[str, Any]:
        match = {"name": "If-Match", "in": "header", "schema": {"type": "string"}}
        more = [_query("dry_run", "boolean"), _query("reason", "string")] if query else []
        return {
            "operationId": op,
            "x-extension": True,
            "summary": f"{summary[:-1]} (permission platform:admin).",
            "description": f"{_AUTHOR} If-Match names the version it was made for.",
            "parameters": [_place("org"), *params, match, *more],
            "requestBody": body,
            "responses": self.answers(200, 400, 401, 403, 404, 409, 412, 413, 428, 503),
            "security": _BEARER,
        }


def _place(name: str) -> dict[str, Any]:
    schema = {"type": "integer", "minimum": 0, "maximum": 10**18 - 1}
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _query(name: str, kind: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": {"type": kind}}


def _body(name: str) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{name}"}
    return {"required": True, "content": {"application/json": {"schema": schema}}}


def schemas() -> dict[str, Any]:
    """Return the bodies of these requests."""
    text, yes = {"type": "string", "maxLength": 500}, {"type": "boolean"}
    names = {"type": "array", "items": {"type": "string"}}
    scope = {
        "type": "object",
        "description": "The fields of a scope (docs/use/configuration.md); those left out are as"
        " usual for the strategy.",
        "properties": {
            "name": {"type": "string"},
            "strategy": {"type": "string"},
            **dict.fromkeys(("priority", "login", "unique", "immutable"), names),
            "workspaces": names,
        },
    }
    return {
        **_change_schemas(text, names),
        "RuleChangeUndo": {
            "type": "object",
            "properties": {"reason": text, "keep_later": yes, "dry_run": yes},
        },
        "RollbackRequest": {
            "type": "object",
            "required": ["version"],
            "properties": {"version": {"type": "integer"}, "reason": text, "dry_run": yes},
        },
        "IdentityScope": scope,
        "IdentityScopesRequest": {
            "type": "object",
            "required": ["identity_scopes"],
            "properties": {
                "identity_scopes": {"type": "array", "items": scope},
                "reason": text,
                "dry_run": yes,
            },
        },
    }


def _change_schemas(text: dict[str, Any], names: dict[str, Any]) -> dict[str, Any]:
    yes = {"type": "boolean"}
    choices = {
        "type": "object",
        "additionalProperties": {"type": "string", "enum": ["target", "source", "drop"]},
    }
    undo = {"resolve": choices, "reason": text, "dry_run": yes}
    name = {"type": "string"}
    return {
        "ScopeChangeUndo": {"type": "object", "properties": undo},
        "ScopeChange": {
            "type": "object",
            "required": ["kind", "source", "target"],
            "properties": {
                "kind": {"type": "string", "enum": ["join", "split"]},
                "source": name,
                "target": name,
                "workspaces": names,
                "choose": choices,
                **undo,
            },
        },
    }
