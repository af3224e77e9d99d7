"""Generated requests against the real server: never a 5xx, always what the document says."""

from __future__ import annotations

import asyncio
import pathlib
from typing import Any

import hypothesis
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase
from tests.web.serving import Running, running

#: streams that never end are not for this
_LEFT_OUT = {"changes_stream"}


def attack(it: Running, headers: dict[str, str], examples: int) -> list[str]:
    """Send generated requests for every operation; return what was wrong."""
    schema = schemathesis.openapi.from_url(f"{it.url}/openapi.json")
    problems: list[str] = []
    for found in schema.get_all_operations():
        operation = found.ok()
        if operation.definition.raw.get("operationId") in _LEFT_OUT:
            continue

        @hypothesis.given(case=operation.as_strategy())
        @hypothesis.settings(
            max_examples=examples,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        def send(case: schemathesis.Case) -> None:
            name = case.operation.label
            reply = case.call(headers=headers, timeout=20)
            text = reply.content[:300]
            if reply.status_code >= 500:
                problems.append(f"{name}: {reply.status_code} {text!r}")
            elif reply.status_code >= 400:
                if b"Traceback" in reply.content or not reply.headers.get("content-type"):
                    problems.append(f"{name}: {reply.status_code} without a clear body {text!r}")
                said = any(word in reply.content for word in (b"essage", b"error_description"))
                if not said:
                    problems.append(f"{name}: {reply.status_code} does not say what {text!r}")
            known = {str(code) for code in case.operation.definition.raw.get("responses", {})}
            if str(reply.status_code) not in known | {"404", "405"}:
                problems.append(f"{name}: {reply.status_code} is not documented {text!r}")

        send()
    return problems


@pytest.mark.parametrize("who", ["server", "nobody"])
async def test_nothing_breaks_the_server(place: Any, tmp_path: pathlib.Path, who: str) -> None:
    async with running(place, tmp_path) as it:
        headers = it.basic("server") if who == "server" else {}
        examples = 12 if place.engine == "sqlite" else 4
        problems = await asyncio.to_thread(attack, it, headers, examples)
        assert not problems, "\n".join(sorted(set(problems))[:30])
        assert (await it.client.get("/readyz")).status_code == 200
