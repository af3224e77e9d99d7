"""The part of the OpenAPI document about reading: tokens, the Profile API, user activity."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from onymous.web.profile_body import FIELDS

Answers = Callable[..., dict[str, Any]]
BEARER: list[dict[str, list[str]]] = [{"bearer": []}]
SCHEME = {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}}


def paths(answers: Answers) -> dict[str, Any]:
    """Return the paths; `answers` makes the documented statuses."""
    return {**_token_paths(answers), **_profile_paths(answers), **_activity_paths(answers)}


def _token_paths(answers: Answers) -> dict[str, Any]:
    return {
        "/oauth/token": {
            "post": {
                "operationId": "oauth_token",
                "summary": "A bearer token for client credentials.",
                "description": "JSON or a form. Tokens live 8 hours.",
                "requestBody": _either("TokenRequest"),
                "responses": _oauth(answers(200, 400, 401, 403, 413)),
                "security": [],
            }
        },
        "/oauth/revoke": {
            "post": {
                "operationId": "oauth_revoke",
                "x-extension": True,
                "summary": "Take back a token (RFC 7009).",
                "description": "Only tokens of the client that asks; 200 for whatever is none.",
                "requestBody": _either("RevokeRequest"),
                "responses": _oauth(answers(200, 400, 401, 413)),
                "security": [],
            }
        },
        "/.well-known/jwks.json": {
            "get": {
                "operationId": "jwks",
                "summary": "Public keys tokens are signed with.",
                "responses": answers(200),
                "security": [],
            }
        },
    }


def _place(*names: str) -> list[dict[str, Any]]:
    """Return the numbers a path begins with."""
    schema = {"type": "integer", "minimum": 0, "maximum": 10**18 - 1}
    return [{"name": n, "in": "path", "required": True, "schema": schema} for n in names]


MPID = {
    "name": "mpid",
    "in": "path",
    "required": True,
    "description": "signed 64-bit number as decimal text",
    "schema": {"type": "string", "pattern": "^-?[0-9]{1,19}$"},
}


def _query(name: str, kind: str, text: str, *, required: bool = False) -> dict[str, Any]:
    schema = {"type": kind}
    out = {"name": name, "in": "query", "description": text, "schema": schema}
    return out | {"required": True} if required else out


def _profile_paths(answers: Answers) -> dict[str, Any]:
    listed = ", ".join(FIELDS)
    query = [
        _query("fields", "string", f"Comma-separated: {listed}.", required=True),
        _query("mpid_as_string", "boolean", "Extension: the MPID as text."),
    ]
    place = _place("org", "account", "workspace")
    by_mpid = {
        "summary": "A person's profile by MPID (permission profile:read).",
        "description": "404 for an unknown MPID. ETag and If-None-Match are honoured.",
        "parameters": [*place, MPID, *query],
        "responses": answers(200, 304, 400, 401, 403, 404, 429, 503),
        "security": BEARER,
    }
    resolve = {
        "operationId": "resolve",
        "summary": "A person's profile by an immutable identity (permission profile:read).",
        "description": "The type must be immutable in the scope of the workspace.",
        "parameters": [*place, *query],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"$ref": "#/components/schemas/ResolveRequest"}}
            },
        },
        "responses": answers(200, 304, 400, 401, 403, 404, 413, 429, 503),
        "security": BEARER,
    }
    base = "{org}/{account}/{workspace}"
    return {
        f"/userprofile/v1/resolve/{base}": {"post": resolve},
        f"/userprofile/v1/{base}/{{mpid}}": {
            "get": {"operationId": "profile", **by_mpid},
            "post": {"operationId": "profile_by_post", **by_mpid},
        },
    }


def _activity_paths(answers: Answers) -> dict[str, Any]:
    place = [*_place("workspace"), MPID]
    number = {"name": "id", "in": "path", "required": True, "schema": {"type": "integer"}}
    page = {
        "operationId": "activity",
        "x-extension": True,
        "summary": "A person's timeline (permission activity:read).",
        "description": "Batches of the workspace and identity changes as one list, newest first.",
        "parameters": [
            *place,
            _query("from", "integer", "Not before this time (ms)."),
            _query("to", "integer", "Not after this time (ms)."),
            _query("input", "string", "Name of an input of the workspace."),
            _query("device", "string", "Device application stamp."),
            _query("event_type", "string", "Only batches with such an event, or identity_change."),
            _query("after", "string", "`next` of the page before."),
            _query("limit", "integer", "Entries on a page, 1 to 500; 50 by default."),
        ],
        "responses": answers(200, 400, 401, 403, 404),
        "security": BEARER,
    }
    batch = {
        "operationId": "activity_batch",
        "x-extension": True,
        "summary": "One batch of a person as it was sent (permission activity:read).",
        "parameters": [*place, number],
        "responses": answers(200, 400, 401, 403, 404),
        "security": BEARER,
    }
    path = "/v1/activity/{workspace}/{mpid}"
    return {path: {"get": page}, f"{path}/batches/{{id}}": {"get": batch}}


def _either(name: str) -> dict[str, Any]:
    body = {"schema": {"$ref": f"#/components/schemas/{name}"}}
    kinds = ("application/json", "application/x-www-form-urlencoded")
    return {"required": True, "content": dict.fromkeys(kinds, body)}


def _oauth(responses: dict[str, Any]) -> dict[str, Any]:
    """Return the responses with the errors of OAuth 2.0, which have a shape of their own."""
    for code, response in responses.items():
        if code in ("400", "401", "403"):
            ref = {"$ref": "#/components/schemas/OAuthError"}
            response["content"] = {"application/json": {"schema": ref}}
    return responses


def schemas() -> dict[str, Any]:
    """Return the bodies of these requests."""
    text = {"type": "string"}
    client = {"client_id": text, "client_secret": text}
    return {
        "TokenRequest": {
            "type": "object",
            "required": ["grant_type"],
            "properties": {
                **client,
                "grant_type": {"type": "string", "enum": ["client_credentials"]},
                "audience": text,
            },
        },
        "RevokeRequest": {
            "type": "object",
            "properties": {**client, "token": text, "jti": text},
        },
        "ResolveRequest": {
            "type": "object",
            "required": ["environment_type", "identity"],
            "properties": {
                "environment_type": {"type": "string", "enum": ["production", "development"]},
                "identity": {
                    "type": "object",
                    "required": ["type", "value"],
                    "properties": {"type": text, "value": text},
                },
            },
        },
        "OAuthError": {
            "type": "object",
            "required": ["error"],
            "properties": {"error": text, "error_description": text},
        },
    }
