"""`onymous credentials` from issuing to deletion."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest
from typer.testing import CliRunner

from onymous.cli import app

DOCUMENT = """
organization: Shop
scopes:
  people: {strategy: profile_conversion, login: [customerid], unique: [customerid]}
workspaces:
  shop: {scope: people, inputs: {server: {kind: server}}}
"""


def call(*words: str, code: int = 0) -> Any:
    """Run a command; return its JSON."""
    result = CliRunner().invoke(app, [*words, "--json"])
    assert result.exit_code == code, result.output
    return json.loads(result.stdout) if code == 0 else None


def test_credentials(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shop.yaml").write_text(DOCUMENT)
    call("apply", "shop.yaml")
    words = ("credentials", "issue", "Mine", "--permission", "profile:read")
    call(*words, code=1)
    call(*words, "--workspace", "elsewhere", code=1)
    made = call(*words, "--workspace", "shop", "--per-second", "5")
    assert made["paths"] == ["/userprofile/v1/1/1/1/MPID"]
    assert len(made["client_secret"]) > 40
    listed = call("credentials", "list")["credentials"]
    assert [(c["name"], c["active"], c["workspaces"]) for c in listed] == [("Mine", True, ["shop"])]
    assert "secret" not in json.dumps(listed)
    client = made["client_id"]
    assert call("credentials", "revoke", client) == {"revoked": client}
    assert not call("credentials", "list")["credentials"][0]["active"]
    assert call("credentials", "activate", client) == {"activated": client}
    kids = {call("credentials", "rotate-keys")["kid"] for _ in range(2)}
    assert len(kids) == 2
    assert call("credentials", "revoke", client, "--forever") == {"deleted": client}
    assert call("credentials", "list") == {"credentials": []}
    call("credentials", "activate", client, code=1)
    admin = call("credentials", "issue", "deploy", "--permission", "platform:admin")
    assert admin["paths"] == ["/platform/v2/organizations/1/configuration"]
