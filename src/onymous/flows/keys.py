"""All keys at a glance: inputs, their live secrets, when they were last used."""

from __future__ import annotations

import msgspec

from onymous.flows.credentials import Issued
from onymous.store import tenants_sql as sql
from onymous.store.port import Store


class Listed(msgspec.Struct, kw_only=True):
    """An input and its secrets; nothing of a secret can be read from it."""

    #: WORKSPACE/INPUT
    name: str
    kind: str
    api_key: str
    active: bool
    used_ms: int | None
    secrets: list[Issued]


async def list_keys(store: Store) -> list[Listed]:
    """Return every input with its secrets, oldest first."""
    async with store.read() as session:
        rows = await session.rows(sql.INPUTS_USED)
        secrets = await session.each(sql.SECRETS_OF, [(row[0],) for row in rows])
    return [
        Listed(
            name=f"{row[1]}/{row[2]}",
            kind=row[3],
            api_key=row[4],
            active=bool(row[5]),
            used_ms=row[6],
            secrets=[Issued(*secret) for secret in some],
        )
        for row, some in zip(rows, secrets, strict=True)
    ]
