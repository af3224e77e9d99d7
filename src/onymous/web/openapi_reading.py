"""The part of the OpenAPI document about reading: tokens, the Profile API, user activity."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Answers = Callable[..., dict[str, Any]]
BEARER: list[dict[str, list[str]]] = [{"bearer": []}]
SCHEME = {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}}


def paths(answers: Answers) -> dict[str, Any]:
    """Return the paths; `answers` makes the documented statuses."""
    return {**_token_paths(answers)}


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
        "OAuthError": {
            "type": "object",
            "required": ["error"],
            "properties": {"error": text, "error_description": text},
        },
    }
