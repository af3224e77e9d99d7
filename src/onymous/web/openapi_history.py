"""The part of the OpenAPI document about history: merges, aliases and their undoing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Answers = Callable[..., dict[str, Any]]
_MPID = {
    "name": "mpid",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "pattern": "^-?[0-9]{1,19}$"},
}


def paths(answers: Answers, security: list[dict[str, list[str]]]) -> dict[str, Any]:
    """Return the paths; `answers` makes the documented statuses."""
    return {
        "/v1/merge": _post(
            "merge",
            "Two profiles are one person (permission merge).",
            "By pointer: no history is rewritten, old MPIDs keep resolving. dry_run previews.",
            "MergeRequest",
            answers,
            security,
        ),
        "/v1/merge/{id}/undo": _post(
            "undo_merge",
            "Undo a merge exactly (permission merge).",
            "Refused with 409 where a later merge stands on it.",
            "UndoRequest",
            answers,
            security,
        ),
        "/v1/alias/{id}/undo": _post(
            "undo_alias",
            "Undo an alias (permission alias:any).",
            "Takes exactly what the alias gave away.",
            "UndoRequest",
            answers,
            security,
        ),
        "/v1/{mpid}/history/{id}/undo": _post(
            "undo_entry",
            "Undo one entry of a profile's history (permission undo).",
            "Exact; refused with 409 where a later change depends on it. dry_run previews.",
            "UndoRequest",
            answers,
            security,
        ),
        **_ties(answers, security),
        "/v1/changes": {"get": _changes("changes", answers, security)},
        "/v1/changes/stream": {"get": _changes("changes_stream", answers, security)},
    }


def _ties(answers: Answers, security: list[dict[str, list[str]]]) -> dict[str, Any]:
    merges = "Merges in force into a profile (permission merge)."
    aliases = "Aliases from or to a profile and their outcome (permission alias:any)."
    return {
        "/v1/{mpid}/merges": {"get": _listed("merges", merges, answers, security)},
        "/v1/{mpid}/aliases": {"get": _listed("aliases", aliases, answers, security)},
    }


def _post(
    op: str,
    summary: str,
    text: str,
    schema: str,
    answers: Answers,
    security: list[dict[str, list[str]]],
) -> dict[str, Any]:
    ref = {"$ref": f"#/components/schemas/{schema}"}
    number = {"name": "id", "in": "path", "required": True, "schema": {"type": "integer"}}
    params = [number] if op != "merge" else []
    if op == "undo_entry":
        params.insert(0, _MPID)
    return {
        "post": {
            "operationId": op,
            "x-extension": True,
            "summary": summary,
            "description": text,
            "parameters": params,
            "requestBody": {"required": True, "content": {"application/json": {"schema": ref}}},
            "responses": answers(200, 400, 401, 403, 404, 409, 413, 503),
            "security": security,
        }
    }


def _listed(
    op: str, summary: str, answers: Answers, security: list[dict[str, list[str]]]
) -> dict[str, Any]:
    environment = {"type": "string", "enum": ["production", "development"]}
    return {
        "operationId": op,
        "x-extension": True,
        "summary": summary,
        "parameters": [
            _MPID,
            {"name": "environment", "in": "query", "schema": environment},
        ],
        "responses": answers(200, 400, 401, 403, 404),
        "security": security,
    }


def _changes(op: str, answers: Answers, security: list[dict[str, list[str]]]) -> dict[str, Any]:
    def query(name: str, kind: str, text: str) -> dict[str, Any]:
        return {"name": name, "in": "query", "description": text, "schema": {"type": kind}}

    params = [
        query("environment", "string", "production (default) or development."),
        query("after", "integer", "Cursor to go on from; without it: only what comes."),
    ]
    if op == "changes":
        params += [
            query("limit", "integer", "Changes on a page, 1 to 1000; 100 by default."),
            query("wait", "integer", "Seconds to wait for the first change, 0 to 60."),
        ]
    return {
        "operationId": op,
        "x-extension": True,
        "summary": "Every identity change, in order (permission history:read).",
        "description": "Pages or long polls."
        if op == "changes"
        else "Server-sent events; Last-Event-ID takes the feed up again.",
        "parameters": params,
        "responses": answers(200, 400, 401, 403, 410),
        "security": security,
    }


def schemas() -> dict[str, Any]:
    """Return the bodies of these requests."""
    environment = {"type": "string", "enum": ["production", "development"]}
    number = {"type": ["string", "integer"]}
    reason = {"type": "string", "minLength": 1, "maxLength": 500}
    return {
        "MergeRequest": {
            "type": "object",
            "required": ["environment", "source_mpid", "destination_mpid", "reason"],
            "properties": {
                "environment": environment,
                "source_mpid": number,
                "destination_mpid": number,
                "reason": reason,
                "dry_run": {"type": "boolean"},
            },
        },
        "UndoRequest": {
            "type": "object",
            "required": ["environment", "reason"],
            "properties": {
                "environment": environment,
                "reason": reason,
                "dry_run": {"type": "boolean"},
            },
        },
    }
