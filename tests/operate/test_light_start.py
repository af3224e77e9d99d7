"""A server starts with what it needs at once; the rest is imported when it is used."""

from __future__ import annotations

import subprocess
import sys

from onymous.later import Later, module

HEAVY = ("phonenumbers", "joserfc", "jinja2", "starlette", "yaml", "asyncpg", "rich", "httpx")


def test_serve_imports_no_library_that_can_wait() -> None:
    code = (
        "import sys, onymous.commands.serve\n"
        f"print(*[name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_what_is_made_later_is_made_once() -> None:
    made: list[int] = []

    class Thing:
        size = 3

        def __init__(self) -> None:
            made.append(1)

    thing = Later(Thing)
    assert made == []
    assert (thing.size, thing.size, made) == (3, 3, [1])
    assert module("json").dumps([1]) == "[1]"
