"""Rotating the master key: everything sealed is sealed again under the key that stands first."""

from __future__ import annotations

from onymous.crypto import MasterKey
from onymous.flows import tenancy
from onymous.flows.credentials import audit, transact
from onymous.flows.people import COOKIES, COOKIES_CONTEXT
from onymous.flows.tokens import sealing_context
from onymous.store import backup_sql, sql
from onymous.store.port import Session, Store, Transaction


async def reseal(store: Store, key: MasterKey, *, actor: str, now_ms: int) -> int:
    """Seal everything again, in one transaction; return how much there was.

    Raises `KeyProblem`, and changes nothing, if something does not open with any of the keys.
    Servers open what was sealed with the keys they have read; one whose keys do not open it reads
    them again where they come from.
    """

    async def work(tx: Transaction) -> int:
        done = 0
        for number, source, sealed in await tx.rows(backup_sql.SEALED_ALL):
            plain = tenancy.unseal(key, source, sealed).decode()
            await tx.run(backup_sql.SEALED_SET, tenancy.seal(key, source, plain), number)
            done += 1
        for kid, sealed in await tx.rows(backup_sql.KEYS_SEALED):
            context = sealing_context(kid)
            again = key.seal(key.open(bytes(sealed), context), context)
            await tx.run(backup_sql.KEY_SEALED_SET, again, kid)
            done += 1
        for (sealed,) in await tx.rows(sql.META_GET, COOKIES):
            again = key.seal(key.open(bytes(sealed), COOKIES_CONTEXT), COOKIES_CONTEXT)
            await tx.run(sql.META_PUT, COOKIES, again)
            done += 1
        await audit(tx, now_ms, actor, "master_key.reseal", key.id, done)
        await tenancy.changed(tx)
        return done

    return await transact(store, "master.reseal", work)


async def opens_all(session: Session, key: MasterKey) -> bool:
    """Return whether a key opens everything; raises `KeyProblem` that says what it does not."""
    for _, source, sealed in await session.rows(backup_sql.SEALED_ALL):
        tenancy.unseal(key, source, sealed)
    for kid, sealed in await session.rows(backup_sql.KEYS_SEALED):
        key.open(bytes(sealed), sealing_context(kid))
    for (sealed,) in await session.rows(sql.META_GET, COOKIES):
        key.open(bytes(sealed), COOKIES_CONTEXT)
    return True
