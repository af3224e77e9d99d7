"""Identity scopes as resources: read one by one, changed with the checks of a whole document."""

from __future__ import annotations

from typing import Any

import msgspec

from onymous.crypto import MasterKey
from onymous.flows import tenancy, versions
from onymous.flows.config_text import plain
from onymous.flows.configure import Applied, apply
from onymous.flows.documents import write
from onymous.rules.errors import BadRequest, ConfigChanged, NoSuchScope
from onymous.store.port import Session, Store

#: what is told of a scope beside its fields; accepted and left aside when it is sent back
_TOLD = ("id", "name", "holds_data", "workspaces")


async def scopes(store: Store) -> tuple[int, list[dict[str, Any]]]:
    """Return the version in force and every scope: all fields, its workspaces, if it holds data."""
    async with store.read() as session:
        return await _scopes(session)


async def _scopes(session: Session) -> tuple[int, list[dict[str, Any]]]:
    version = await versions.newest(session)
    state, ids = await tenancy.read_state(session)
    out = []
    for name, config in state.scopes.items():
        fields = msgspec.to_builtins(config)
        inside = [w for w, workspace in state.workspaces.items() if workspace.scope == name]
        more = {"workspaces": inside, "holds_data": name in state.holding}
        out.append({"id": ids.scopes[name], "name": name, **fields, **more})
    return version, out


async def scope(store: Store, number: int) -> tuple[int, dict[str, Any]]:
    """Return the version in force and one scope; raises `NoSuchScope`."""
    version, found = await scopes(store)
    for one in found:
        if one["id"] == number:
            return version, one
    raise NoSuchScope()


async def put_scopes(
    store: Store,
    master_key: MasterKey,
    wanted: list[dict[str, Any]],
    author: versions.Author,
    now_ms: int,
    *,
    expected: int | None,
    dry_run: bool,
) -> Applied:
    """Make scopes what is given, each complete, by name; others stay as they are.

    Fields left out are as usual for the strategy. `workspaces`, if given, says which the scope
    has. Raises what `apply` raises, and `BadRequest` for what names no scope or workspace.
    """
    async with store.read() as session:
        version = await versions.newest(session)
        state, ids = await tenancy.read_state(session)
    if expected not in (None, version):
        raise ConfigChanged(now=version)
    document = plain(state)
    for one in wanted:
        _put(document, one, ids.scopes)
    return await apply(
        store,
        master_key,
        write(document),
        dry_run=dry_run,
        actor=author.name,
        reason=author.reason,
        now_ms=now_ms,
        expected=version,
    )


def _put(document: dict[str, Any], wanted: dict[str, Any], ids: dict[str, int]) -> None:
    """Put one scope into a document."""
    name = wanted.get("name")
    if not isinstance(name, str):
        raise BadRequest(what="name must be the name of a scope")
    if wanted.get("id", ids.get(name)) != ids.get(name):
        raise BadRequest(what="id and name are not those of one scope; a scope keeps its name")
    document["scopes"][name] = {k: v for k, v in wanted.items() if k not in _TOLD}
    inside = wanted.get("workspaces")
    if inside is None:
        return
    if not isinstance(inside, list):
        raise BadRequest(what="workspaces is a list of names")
    for workspace in inside:
        if not isinstance(workspace, str) or workspace not in document["workspaces"]:
            raise BadRequest(what=f"there is no workspace {workspace}")
        document["workspaces"][workspace]["scope"] = name
    for workspace, body in document["workspaces"].items():
        if body["scope"] == name and workspace not in inside:
            what = f"workspace {workspace} needs a scope: list it here, or in another scope first"
            raise BadRequest(what=what)
