"""Asking a running server."""

from __future__ import annotations

import json
from typing import Any

import httpx
import typer

from onymous.commands.common import errors, fail
from onymous.doctor_url import authorities


def ask(
    url: str,
    key: str,
    secret: str,
    method: str,
    path: str,
    params: dict[str, str],
    body: object,
    as_json: bool,
) -> dict[str, Any]:
    """Ask a server; exit with its message, and why if it says so, where it refuses."""
    try:
        reply = httpx.request(
            method,
            url + path,
            params=params,
            json=body,
            auth=(key, secret),
            trust_env=False,
            verify=authorities(),
        )
    except httpx.HTTPError as error:
        fail(f"{url} does not answer: {type(error).__name__}; is it serving?", code="NO_ANSWER")
    answer: dict[str, Any] = reply.json() if reply.content else {}
    if reply.status_code >= 400:
        if as_json:
            typer.echo(json.dumps(answer))
        text = answer.get("message", f"status {reply.status_code}")
        errors.print(f"[red]{text}[/] {answer.get('hint', '')}", highlight=False)
        for line in answer.get("trace_text", []):
            errors.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)
        raise typer.Exit(1)
    return answer
