"""Tenancy as YAML: the document that `apply` finds nothing to change in; never holds a secret."""

from __future__ import annotations

from typing import Any

import msgspec

from onymous.flows.documents import write
from onymous.rules import documents
from onymous.rules.strategies import ScopeConfig
from onymous.rules.tenants import FEED_KINDS, InputConfig, State, Workspace


def text_of(state: State) -> str:
    """Return the YAML document of what the database has."""
    return write(plain(state))


def plain(state: State) -> dict[str, Any]:
    """Return the same as plain values; what is as usual is left out."""
    return {
        "organization": state.organization or "",
        "accounts": list(state.accounts),
        "scopes": {name: plain_scope(scope) for name, scope in state.scopes.items()},
        "workspaces": {name: _workspace(w) for name, w in state.workspaces.items()},
    }


def plain_scope(scope: ScopeConfig) -> dict[str, Any]:
    """Return a scope as plain values; what is as usual for its strategy is left out."""
    return {"strategy": scope.strategy, **_differing(scope, _usual(scope))}


def _workspace(workspace: Workspace) -> dict[str, Any]:
    out: dict[str, Any] = {"account": workspace.account, "scope": workspace.scope}
    if workspace.consent_purposes is not None:
        out["consent_purposes"] = list(workspace.consent_purposes)
    for child, config in workspace.inputs.items():
        group = "feeds" if config.kind in FEED_KINDS else "inputs"
        usual = InputConfig(kind=config.kind).resolved()
        out.setdefault(group, {})[child] = {"kind": config.kind, **_differing(config, usual)}
    return out


def _usual(scope: ScopeConfig) -> ScopeConfig:
    """Return what a document need not say about a scope of this strategy and these types."""
    preset = documents.with_presets(ScopeConfig(strategy=scope.strategy))
    ranked = ScopeConfig(
        strategy=scope.strategy,
        login=scope.login,
        unique=scope.unique,
        immutable=scope.immutable,
    )
    return msgspec.structs.replace(preset, priority=documents.with_presets(ranked).priority)


def _differing(config: msgspec.Struct, usual: msgspec.Struct) -> dict[str, Any]:
    """Return the fields that are not as usual, as plain values."""
    return {
        field: msgspec.to_builtins(getattr(config, field))
        for field in config.__struct_fields__
        if getattr(config, field) != getattr(usual, field)
    }
