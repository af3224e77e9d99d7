"""The OpenAPI document of everything served, made of the same tables the server uses."""

from __future__ import annotations

import functools
from typing import Any

from onymous.rules.identifiers import TYPES
from onymous.web import (
    openapi_history,
    openapi_operating,
    openapi_platform,
    openapi_reading,
)

_ERROR = {"$ref": "#/components/schemas/Error"}
_BASIC: list[dict[str, list[str]]] = [
    {"basic": []},
    {"key": []},
    {"key": [], "signature": [], "date": []},
]
_KEY_IN_PATH = {"name": "key", "in": "path", "required": True, "schema": {"type": "string"}}
_MPID = {
    "name": "mpid",
    "in": "path",
    "required": True,
    "description": "signed 64-bit number as decimal text",
    "schema": {"type": "string", "pattern": "^-?[0-9]{1,19}$"},
}


def _query(name: str, kind: str, text: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": text, "schema": {"type": kind}}


_EXPLAIN = _query("explain", "boolean", "Extension: add the trace (permission explain).")


def _answers(*codes: int, ok: dict[str, Any] | None = None) -> dict[str, Any]:
    texts = {
        200: "OK",
        202: "Accepted: kept durably",
        304: "Not modified",
        400: "Not acceptable; nothing was written",
        401: "Credentials missing or wrong",
        403: "Not allowed for this credential",
        404: "Not found",
        409: "The request_id was used with another body",
        410: "Not kept any more",
        412: "Another version of the configuration is in force",
        413: "Body too large",
        428: "If-Match is missing",
        429: "Too many requests; see Retry-After",
        503: "Too many requests are waiting; see Retry-After",
    }
    out: dict[str, Any] = {}
    for code in codes:
        schema = (ok or {"type": "object"}) if code < 300 else _ERROR
        out[str(code)] = {
            "description": texts[code],
            "content": {"application/json": {"schema": schema}},
        }
    return out


def _body(name: str) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{name}"}
    return {"required": True, "content": {"application/json": {"schema": schema}}}


def _resolve(op: str, summary: str, text: str) -> dict[str, Any]:
    params = [
        _EXPLAIN,
        _query("read_only", "boolean", "Write nothing; answer what would happen."),
        _query("return_matches", "boolean", "Include matched_identities (default true)."),
    ]
    codes = [200, 400, 401, 403, 413, 429, 503]
    if op == "search":
        params.append(
            {
                **_query("reach", "string", "Extension: protected or any (permission search:any)."),
                "schema": {"type": "string", "enum": ["protected", "any"]},
            }
        )
        codes.insert(4, 404)
    return {
        "post": {
            "operationId": op,
            "summary": summary,
            "description": text,
            "parameters": params,
            "requestBody": _body("IdentityRequest"),
            "responses": _answers(*codes, ok={"$ref": "#/components/schemas/IdentityAnswer"}),
            "security": _BASIC,
        }
    }


def _identity_paths() -> dict[str, Any]:
    return {
        "/v1/identify": _resolve(
            "identify",
            "Who is this?",
            "Session start. Finds the profile of the given identities, or makes one.",
        ),
        "/v1/login": _resolve(
            "login", "Someone logs in.", "Like identify; isolation needs a login id."
        ),
        "/v1/logout": _resolve(
            "logout",
            "Someone logs out.",
            "The identities are those of the visitor to move to; login ids are ignored.",
        ),
        "/v1/search": _resolve(
            "search", "Look someone up.", "Never creates or changes anything; 404 if nobody."
        ),
        "/v1/{mpid}/modify": _modify(),
        "/v1/{mpid}/history": _history(),
    }


def _modify() -> dict[str, Any]:
    return {
        "post": {
            "operationId": "modify",
            "summary": "Change a person's names.",
            "description": "The MPID stays. A unique value moves here from its owner.",
            "parameters": [_MPID, _EXPLAIN],
            "requestBody": _body("ModifyRequest"),
            "responses": _answers(200, 400, 401, 403, 409, 413, 429, 503),
            "security": _BASIC,
        }
    }


def _history() -> dict[str, Any]:
    return {
        "get": {
            "operationId": "history",
            "x-extension": True,
            "summary": "How one profile came about.",
            "description": "Ledger of one person, newest first (permission history:read).",
            "parameters": [
                _MPID,
                _query("environment", "string", "production (default) or development."),
                _query("at", "integer", "The record as it was at this time (ms)."),
                _query("before", "integer", "`next` of the page before."),
                _query("limit", "integer", "Entries on a page, 1 to 500; 50 by default."),
            ],
            "responses": _answers(200, 400, 401, 403, 404),
            "security": _BASIC,
        }
    }


def _events(op: str, summary: str, *, key: bool, array: bool = False) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object"}
    if array:
        schema = {"type": "array", "items": {"type": "object"}, "maxItems": 100}
    return {
        "post": {
            "operationId": op,
            "summary": summary,
            "description": "Kept durably before the answer; a repeat has no second effect.",
            "parameters": [_KEY_IN_PATH] if key else [],
            "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
            "responses": _answers(202, 400, 401, 403, 413, 429, 503),
            "security": _BASIC,
        }
    }


def _get(op: str, summary: str, *, key: bool = False, **more: Any) -> dict[str, Any]:
    codes = (200, 304, 401) if key else (200,)
    return {
        "get": {
            "operationId": op,
            "summary": summary,
            "parameters": [_KEY_IN_PATH] if key else [],
            "responses": _answers(*codes),
            **more,
        }
    }


def _other_paths() -> dict[str, Any]:
    alias = {
        "operationId": "alias",
        "summary": "The history of one profile also belongs to another.",
        "description": "Accepted with 202; the outcome is recorded on both profiles.",
        "parameters": [_KEY_IN_PATH],
        "requestBody": _body("AliasRequest"),
        "responses": _answers(202, 400, 401, 403, 409, 413),
        "security": _BASIC,
    }
    return {
        "/v1/identity/{key}/alias": {"post": alias},
        "/v2/events": _events("events", "One batch from a server.", key=False),
        "/v2/bulkevents": _events("bulkevents", "Up to 100 batches.", key=False, array=True),
        "/v2/bulkevents/historical": _events(
            "historical", "Old batches: no present effects.", key=False, array=True
        ),
        "/v3/JS/{key}/events": _events("web_events", "A batch of the web SDK.", key=True),
        "/v2/{key}/events": _events("native_events", "A batch of a native SDK.", key=True),
        "/JS/v2/{key}/config": _get("web_config", "Config of the web SDK.", key=True),
        "/v4/{key}/config": _get("native_config", "Config of the native SDKs.", key=True),
        "/v1/{key}/audience": _get("audiences", "Audience memberships of a profile.", key=True),
        "/healthz": _get("health", "The process answers.", **{"x-extension": True}),
        "/readyz": _get("ready", "The database answers too.", **{"x-extension": True}),
        "/metrics": _get("metrics", "Prometheus metrics.", **{"x-extension": True}),
    }


def _schemas() -> dict[str, Any]:
    text = {"type": ["string", "null"]}
    environment = {"type": "string", "enum": ["production", "development"]}
    common = {"environment": environment, "request_id": {**text, "maxLength": 128}}
    return {
        "IdentityRequest": _identity_schema(common, text),
        **_change_schemas(common),
        "IdentityAnswer": _answer_schema(),
        "Error": _error_schema(),
        **openapi_history.schemas(),
        **openapi_reading.schemas(),
        **openapi_platform.schemas(),
    }


def _identity_schema(common: dict[str, Any], text: dict[str, Any]) -> dict[str, Any]:
    value = {"type": ["string", "null"], "maxLength": 256}
    return {
        "type": "object",
        "required": ["environment", "known_identities"],
        "properties": {
            **common,
            "known_identities": {
                "type": "object",
                "minProperties": 1,
                "additionalProperties": False,
                "properties": dict.fromkeys([t.name for t in TYPES], value),
            },
            "previous_mpid": {"type": ["string", "integer", "null"]},
            "context": text,
            "client_sdk": {"type": "object"},
        },
    }


def _change_schemas(common: dict[str, Any]) -> dict[str, Any]:
    value = {"type": ["string", "null"], "maxLength": 256}
    names = [t.name for t in TYPES]
    change = {
        "type": "object",
        "required": ["identity_type"],
        "properties": {
            "identity_type": {"type": "string", "enum": names},
            "old_value": value,
            "new_value": value,
        },
    }
    number = {"type": ["string", "integer"]}
    return {
        "ModifyRequest": {
            "type": "object",
            "required": ["environment", "identity_changes"],
            "properties": {**common, "identity_changes": {"type": "array", "items": change}},
        },
        "AliasRequest": {
            "type": "object",
            "required": ["environment", "data"],
            "properties": {
                **common,
                "data": {
                    "type": "object",
                    "required": ["source_mpid", "destination_mpid"],
                    "properties": {"source_mpid": number, "destination_mpid": number},
                },
            },
        },
    }


def _answer_schema() -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["mpid", "is_logged_in", "is_ephemeral"],
        "properties": {
            "context": {"type": ["string", "null"]},
            "matched_identities": {"type": "object"},
            "is_ephemeral": {"type": "boolean"},
            "mpid": {"type": ["string", "null"]},
            "is_logged_in": {"type": "boolean"},
            "trace": {"type": "object", "description": "Extension: why the answer is this."},
        },
    }


def _error_schema() -> dict[str, Any]:
    item = {
        "type": "object",
        "properties": {"code": {"type": "string"}, "message": {"type": "string"}},
    }
    lists = {"type": "array", "items": item}
    return {
        "type": "object",
        "properties": {"errors": lists, "Errors": lists, "ErrorCode": {"type": "string"}},
    }


@functools.cache
def document() -> dict[str, Any]:
    """Return the OpenAPI 3.1 document."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "Onymous", "version": "1", "description": "The identity layer."},
        "paths": {
            **_identity_paths(),
            **_other_paths(),
            **openapi_history.paths(_answers, _BASIC),
            **openapi_operating.paths(_answers, _BASIC),
            **openapi_reading.paths(_answers),
            **openapi_platform.paths(_answers),
        },
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {
                **openapi_reading.SCHEME,
                "basic": {"type": "http", "scheme": "basic"},
                "key": {"type": "apiKey", "in": "header", "name": "x-mp-key"},
                "signature": {"type": "apiKey", "in": "header", "name": "x-mp-signature"},
                "date": {"type": "apiKey", "in": "header", "name": "Date"},
            },
        },
    }
