"""Statements of the configuration and of scopes fit the schema of each engine."""

from __future__ import annotations

import types

import pytest

from onymous.store import configuration_sql, scopes_sql
from onymous.store.port import Store

#: lists of columns, not statements
COLUMNS = {"CHANGE"}


@pytest.mark.parametrize("module", [configuration_sql, scopes_sql])
async def test_every_statement_is_understood(store: Store, module: types.ModuleType) -> None:
    names = [n for n in vars(module) if n.isupper() and n not in COLUMNS]
    assert len(names) >= 4
    for name in names:
        statement: str = getattr(module, name)
        async with store.write(name) as tx:
            assert await tx.rows(f"EXPLAIN {statement}", *[None] * statement.count("?"))
