"""When keys and secrets were last used: noted when one is verified, written behind, to the minute.

A request whose credentials were verified before is not noted: what is remembered of them is given
up once a minute, so that the hot path does nothing for it.
"""

from __future__ import annotations

import time

from onymous.store import tenants_sql as sql
from onymous.store.port import Store

#: seconds after which credentials are verified anew, and noted
EVERY_S = 60.0


class Used:
    """Collects uses; `flush` writes them."""

    def __init__(self) -> None:
        self._inputs: dict[int, int] = {}
        self._secrets: dict[int, int] = {}
        self._since = time.monotonic()

    def note(self, source: int, secret: int | None) -> None:
        """Note that an input's key was used, and with which secret."""
        now_ms = time.time_ns() // 1_000_000
        self._inputs[source] = now_ms
        if secret is not None:
            self._secrets[secret] = now_ms

    def due(self) -> bool:
        """Return whether what is remembered of credentials is to be given up now."""
        if time.monotonic() - self._since < EVERY_S:
            return False
        self._since = time.monotonic()
        return True

    async def flush(self, store: Store) -> None:
        """Write what was noted."""
        inputs, self._inputs = self._inputs, {}
        secrets, self._secrets = self._secrets, {}
        if not inputs and not secrets:
            return
        async with store.write("keys.used") as tx:
            await tx.many(sql.INPUT_USED, sorted((at, n, at) for n, at in inputs.items()))
            await tx.many(sql.SEALED_USED, sorted((at, n, at) for n, at in secrets.items()))
