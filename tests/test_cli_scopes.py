"""Scopes joined, split and taken back from the command line."""

from __future__ import annotations

import json
import pathlib

from tests.test_cli import onymous

TWO = """
organization: Test
scopes:
  red: {strategy: profile_conversion, login: [customerid], unique: [customerid]}
  blue: {strategy: profile_conversion, login: [customerid], unique: [customerid]}
workspaces:
  shop: {scope: red, inputs: {shop: {kind: server}}}
  club: {scope: blue, inputs: {club: {kind: server}}}
"""


def test_join_split_and_undo(tmp_path: pathlib.Path) -> None:
    def run(*words: str, code: int = 0) -> str:
        done = onymous(*words, cwd=tmp_path)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    (tmp_path / "onymous.yaml").write_text(TWO)
    run("apply")
    assert "dry run: nothing was changed" in run("scopes", "join", "red", "blue", "--dry-run")
    assert "no scope green" in run("scopes", "join", "red", "green", code=1)
    run("scopes", "join", "red", "blue", "--resolve", "email=both", code=2)
    done = run("scopes", "join", "red", "blue", "--alone", "--author", "ann", "--reason", "one")
    assert "scopes undo 1" in done
    assert "scope: red -> blue (join)" in run("config", "log")
    assert "1  " in run("scopes", "log") and "ann: one" in run("scopes", "log")
    assert "the scope holds data" not in run("apply", "--dry-run"), "nobody is in it"
    run("scopes", "undo", "1", "--alone", "--reason", "two")
    assert "undone already" in run("scopes", "undo", "1", code=1)
    run("scopes", "join", "blue", "red", "--alone")
    assert "all went over" in run("scopes", "resume", "3")
    told = run("scopes", "split", "red", "own", "--workspace", "club", "--alone", "--json")
    assert json.loads(told)["change"] == 4
    listed = json.loads(run("scopes", "log", "--json"))["changes"]
    assert [c["kind"] for c in listed] == ["split", "join", "unjoin", "join"]
    assert {c["state"] for c in listed} == {"done"}
    assert "scope: own" in run("export")
