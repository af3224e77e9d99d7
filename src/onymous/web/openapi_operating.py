"""The part of the OpenAPI document about operating: explained, diagnosed, reviewed, undone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Answers = Callable[..., dict[str, Any]]
_ENVIRONMENT = {"type": "string", "enum": ["production", "development"]}
_ENTRY: dict[str, Any] = {
    "name": "id",
    "in": "path",
    "required": True,
    "schema": {"type": "string"},
}
_REASON = {"type": "string", "minLength": 1, "maxLength": 500}


def paths(answers: Answers, security: list[dict[str, list[str]]]) -> dict[str, Any]:
    """Return the paths; `answers` makes the documented statuses."""
    return {
        "/v1/explain": {
            "get": _get(
                "explain",
                "A past answer, told again with its trace (permission explain).",
                "Also of requests that changed nothing, as long as the journal knows them.",
                [
                    _query("request_id", "string", "The request.", required=True),
                    _query("environment", "string", "production (default) or development."),
                    _query("input", "string", "Whose request: workspace/input; own first."),
                    _query("workspace", "string", "A request of this workspace."),
                ],
                answers(200, 400, 401, 403, 404, 409),
                security,
            )
        },
        "/v1/diagnostics": {
            "get": _get(
                "diagnostics",
                "What was not done in this workspace, and why (permission history:read).",
                "Types and reasons, never values. Pages or long polls.",
                [
                    _query("after", "integer", "Only after this number; without it the latest."),
                    _query("kind", "string", "Only this kind."),
                    _query("limit", "integer", "1 to 1000; 100 by default."),
                    _query("wait", "integer", "Seconds to wait for the first one, 0 to 60."),
                ],
                answers(200, 400, 401, 403),
                security,
            )
        },
        "/v1/undo": {"post": _undo(answers, security)},
        **_review(answers, security),
        **_quarantine(answers, security),
    }


def _quarantine(answers: Answers, security: list[dict[str, list[str]]]) -> dict[str, Any]:
    environment = _query("environment", "string", "production (default) or development.")
    paging = [
        _query("after", "integer", "Only after this batch: `next` of the page before."),
        _query("limit", "integer", "1 to 500; 100 by default."),
    ]
    return {
        "/v1/quarantine": {
            "get": _get(
                "quarantine",
                "Batches of this workspace that were set aside (permission quarantine).",
                "Oldest first, with the reason; never what they say.",
                [environment, *paging],
                answers(200, 400, 401, 403),
                security,
            )
        },
        "/v1/quarantine/{id}": {
            "get": _get(
                "quarantine_batch",
                "One batch as it came in (permission quarantine).",
                "Personal data; who read it is audited.",
                [_ENTRY, environment],
                answers(200, 400, 401, 403, 404),
                security,
            )
        },
        **{
            f"/v1/quarantine/{verb}": {"post": _choose(verb, summary, text, answers, security)}
            for verb, summary, text in _CHOICES
        },
    }


#: verb, what it does, what is to be known of it
_CHOICES = (
    (
        "replay",
        "Try batches once more",
        "Those of ids, or the 500 after `after`. What is applied counts once.",
    ),
    ("drop", "Throw batches away for good", "Answers with the ids that were there."),
)


def _choose(
    verb: str,
    summary: str,
    text: str,
    answers: Answers,
    security: list[dict[str, list[str]]],
) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "ids": {"type": "array", "items": {"type": "integer"}, "maxItems": 500}
    }
    if verb == "replay":
        fields["after"] = {"type": "integer"}
    return {
        "operationId": f"quarantine_{verb}",
        "x-extension": True,
        "summary": f"{summary} (permission quarantine).",
        "description": text,
        "requestBody": _body(fields),
        "responses": answers(200, 400, 401, 403, 413, 503),
        "security": security,
    }


def _review(answers: Answers, security: list[dict[str, list[str]]]) -> dict[str, Any]:
    environment = _query("environment", "string", "production (default) or development.")
    paging = [
        _query("after", "string", "Only after this entry: `next` of the page before."),
        _query("limit", "integer", "1 to 500; 100 by default."),
    ]
    return {
        "/v1/review": {
            "get": _get(
                "review",
                "What was held back and waits in this scope (permission review).",
                "Conflicts of feeds, then values. Types and MPIDs, never values.",
                [environment, *paging],
                answers(200, 400, 401, 403, 404),
                security,
            )
        },
        "/v1/review/{id}": {
            "get": _get(
                "review_entry",
                "One entry with its values (permission review).",
                "And what the people have of these types now.",
                [_ENTRY, environment],
                answers(200, 400, 401, 403, 404),
                security,
            )
        },
        **{
            f"/v1/review/{{id}}/{verb}": {"post": _decide(verb, text, answers, security)}
            for verb, text in (
                ("accept", "Decided again at that moment; 409 says why it cannot be done now."),
                ("refuse", "The same does not come back; who and why is kept."),
            )
        },
    }


def _decide(
    verb: str, text: str, answers: Answers, security: list[dict[str, list[str]]]
) -> dict[str, Any]:
    return {
        "operationId": f"review_{verb}",
        "x-extension": True,
        "summary": f"{verb.title()} what was held back (permission review).",
        "description": text,
        "parameters": [_ENTRY],
        "requestBody": _body({"into": {"type": ["string", "integer"]}} if verb == "accept" else {}),
        "responses": answers(200, 400, 401, 403, 404, 409, 413, 503),
        "security": security,
    }


def _undo(answers: Answers, security: list[dict[str, list[str]]]) -> dict[str, Any]:
    return {
        "operationId": "undo",
        "x-extension": True,
        "summary": "Undo an entry, or what a request changed (permission undo).",
        "description": "Exact; refused with 409 where later changes depend on it. dry_run"
        " previews.",
        "requestBody": _body(
            {
                "entry": {"type": ["string", "integer"]},
                "request_id": {"type": "string", "maxLength": 128},
                "input": {"type": "string"},
                "workspace": {"type": "string"},
                "dry_run": {"type": "boolean"},
            }
        ),
        "responses": answers(200, 400, 401, 403, 404, 409, 413, 503),
        "security": security,
    }


def _query(name: str, kind: str, text: str, *, required: bool = False) -> dict[str, Any]:
    out: dict[str, Any] = {
        "name": name,
        "in": "query",
        "description": text,
        "schema": {"type": kind},
    }
    return out | ({"required": True} if required else {})


def _get(
    op: str,
    summary: str,
    text: str,
    params: list[dict[str, Any]],
    responses: dict[str, Any],
    security: list[dict[str, list[str]]],
) -> dict[str, Any]:
    return {
        "operationId": op,
        "x-extension": True,
        "summary": summary,
        "description": text,
        "parameters": params,
        "responses": responses,
        "security": security,
    }


def _body(more: dict[str, Any]) -> dict[str, Any]:
    schema = {
        "type": "object",
        "required": ["environment", "reason"],
        "properties": {
            "environment": _ENVIRONMENT,
            "reason": _REASON,
            "operator": _REASON,
            **more,
        },
    }
    return {"required": True, "content": {"application/json": {"schema": schema}}}
