"""A server starts with what it needs at once; the rest is imported when it is used."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import urllib.request
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from typer.main import get_command
from typer.testing import CliRunner

import onymous.commands.serve
from onymous.cli import app
from onymous.later import Later, module
from onymous.starting import OPTIONS, Line, read

#: what a server that answers has not imported
WAITS = {"starlette", "jinja2", "yaml", "asyncpg", "rich", "httpx", "typer", "click", "html"}
WAITS |= {"uvicorn.main", "uvicorn.supervisors", "prometheus_client.exposition", "http.server"}
WAITS |= {"importlib.metadata", "importlib.resources", "logging.handlers", "tempfile", "difflib"}
WAITS |= {"onymous.cli", "onymous.commands", "onymous.console", "onymous.lab", "onymous.pages"}
WAITS |= {"onymous.processes", "onymous.web.openapi"}
#: what it imports once it answers
SOON = ("phonenumbers", "joserfc")


def started(folder: pathlib.Path) -> list[str]:
    """Names of the modules whose code a server ran, in order, from its start to its end."""
    words = ["serve", "--json", "--port", "0", "--store", f"sqlite:{folder}"]
    server = subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "onymous", *words],
        stdout=subprocess.PIPE,
        stderr=(folder.parent / "errors").open("w"),
        text=True,
        env={k: v for k, v in os.environ.items() if not k.startswith("ONYMOUS_")},
    )
    assert server.stdout is not None
    try:
        host, port = json.loads(server.stdout.readline())["serving"]
        with urllib.request.urlopen(f"http://{host}:{port}/readyz") as reply:
            assert reply.status == 200
    finally:
        server.terminate()
        server.wait()
    lines = (folder.parent / "errors").read_text().splitlines()
    return [line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")]


def test_a_server_has_not_run_what_can_wait(tmp_path: pathlib.Path) -> None:
    started(tmp_path / "data")  # makes the schema
    names = started(tmp_path / "data")
    assert "onymous.serving" in names
    first = [n for n, name in enumerate(names) if name.split(".")[0] in SOON]
    assert first, "what a first request may need is fetched"
    before = names[: first[0]]
    found = [n for n in before if any(n == w or n.startswith(w + ".") for w in WAITS)]
    assert found == []


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


def test_a_hollow_package_runs_when_something_of_itself_is_used(tmp_path: pathlib.Path) -> None:
    package = tmp_path / "pack"
    package.mkdir()
    (package / "__init__.py").write_text("print('ran')\nfrom pack.part import near\nfar = 2\n")
    (package / "part.py").write_text("print('part')\nnear = 1\n")
    (package / "other.py").write_text("from pack import near, part\nimport pack.part\n")
    code = (
        "from onymous.later import hollow; hollow('pack', near='pack.part'); hollow('nowhere');"
        "import pack.other; print(pack.near, pack.part.near);"
        "hollow('pack'); print(pack.far, pack.far, pack.near);"
        "\ntry: pack.nothing\nexcept AttributeError: print('none')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.split("\n")[:-1] == ["part", "1 1", "ran", "2 2 1", "none"]


def understood(command: str, words: list[str]) -> Line | None:
    """The same line read by the command line; None where it is not understood."""
    found: list[Line] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onymous.commands.serve, "run", lambda line: found.append(line) or 0)
        result = CliRunner().invoke(app, [command, *words])
    assert (result.exit_code == 0) == bool(found)
    if not found:
        return None
    line = found[0]
    line.flags = {name: value for name, value in line.flags.items() if value is not None}
    return line


NAMES = sorted({name.replace("_", "-") for table in OPTIONS.values() for name in table})
WORDS = st.one_of(
    st.sampled_from([f"--{name}" for name in NAMES]),
    st.sampled_from([f"--no-{name}" for name in NAMES]),
    st.tuples(st.sampled_from(NAMES), st.sampled_from(["", "7", "x", "-1", "a=b", "--"])).map(
        lambda pair: f"--{pair[0]}={pair[1]}"
    ),
    st.sampled_from(["7", "0", "065", "65", "x", "", "-1", "-", "--", "--help", "\u0663", "1_0"]),
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(OPTIONS)), st.lists(WORDS, max_size=6))
@example("serve", ["--store", "sqlite:x", "--port", "0", "--json", "--no-work", "--processes=2"])
@example("serve", ["--no-tls-dev", "--host", "::1", "--tls-cert=a", "--tls-key", "b"])
@example("work", ["--manage-port", "0", "--json"])
def test_a_plain_line_means_the_same_without_the_command_line(
    command: str, words: list[str]
) -> None:
    line = read(command, words)
    if line is not None:
        assert line == understood(command, words)


def test_plain_lines_are_read_without_it() -> None:
    line = read("serve", ["--store", "sqlite:x", "--port=1", "--no-work", "--json"])
    assert line == Line("serve", {"store": "sqlite:x", "port": 1, "work": False}, as_json=True)
    assert read("work", []) == Line("work")
    for odd in (["--help"], ["--port", "x"], ["store"], ["--no-json"], ["--processes", "0"]):
        assert read("serve", odd) is None


def test_every_option_of_these_commands_is_known() -> None:
    commands: Any = get_command(app)
    for command, table in OPTIONS.items():
        options = commands.commands[command].params
        names = {o.opts[0].removeprefix("--").replace("-", "_"): o for o in options}
        assert list(names) == list(table)
        for name, option in names.items():
            assert option.is_flag == (table[name] is bool)
            assert bool(option.secondary_opts) == (table[name] is bool and name != "json")
            assert option.envvar is None and not option.multiple


def test_what_goes_wrong_is_told_as_by_every_command(tmp_path: pathlib.Path) -> None:
    words = [sys.executable, "-m", "onymous", "serve", "--store", "mongodb://x"]
    done = subprocess.run([*words, "--json"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    told = json.loads(done.stdout)
    assert told["code"] == "SETTING_ERROR" and "sqlite:FOLDER" in told["message"]
    assert told["message"] in " ".join(done.stderr.split())
    asked = subprocess.run([*words, "--no-json"], capture_output=True, text=True, cwd=tmp_path)
    assert asked.returncode == 2 and "No such option" in asked.stderr
