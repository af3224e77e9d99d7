"""Tenancy as the database has it: read, locked for a change, counted when changed."""

from __future__ import annotations

import msgspec

from onymous.crypto import KeyProblem, MasterKey
from onymous.rules.strategies import ScopeConfig
from onymous.rules.tenants import InputConfig, State, Workspace
from onymous.store import tenants_sql as sql
from onymous.store.packing import SLOTS
from onymous.store.port import Session, Store, Transaction


class Shared(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Settings of a workspace that all its inputs share."""

    consent_purposes: tuple[str, ...] | None = None


decode_shared = msgspec.json.Decoder(Shared).decode
decode_scope = msgspec.json.Decoder(ScopeConfig).decode
decode_input = msgspec.json.Decoder(InputConfig).decode
encode = msgspec.json.Encoder().encode


class Ids(msgspec.Struct):
    """Numbers of what exists, by name; inputs by (workspace, name)."""

    organization: int = 0
    accounts: dict[str, int] = {}
    scopes: dict[str, int] = {}
    workspaces: dict[str, int] = {}
    inputs: dict[tuple[str, str], int] = {}


async def read_state(session: Session) -> tuple[State, Ids]:
    """Read everything a document is compared with."""
    state, ids = State(), Ids()
    for number, name in await session.rows(sql.ORGANIZATIONS):
        state.organization, ids.organization = name, number
    ids.accounts = {name: number for number, name in await session.rows(sql.ACCOUNTS)}
    state.accounts = tuple(ids.accounts)
    for number, name, config in await session.rows(sql.SCOPES):
        ids.scopes[name] = number
        state.scopes[name] = decode_scope(config)
    for number, name, account, scope, shared in await session.rows(sql.WORKSPACES):
        ids.workspaces[name] = number
        purposes = decode_shared(shared).consent_purposes
        state.workspaces[name] = Workspace(account=account, scope=scope, consent_purposes=purposes)
    for number, workspace, name, kind, api_key, settings, active in await session.rows(sql.INPUTS):
        ids.inputs[workspace, name] = number
        config = stored_input(kind, api_key, settings, active)
        state.workspaces[workspace].inputs[name] = config
    holding = [name for name, scope in ids.scopes.items() if await holds(session, scope)]
    state.holding = frozenset(holding)
    return state, ids


def stored_input(kind: str, api_key: str, settings: bytes, active: int) -> InputConfig:
    """Return the configuration of an input from its row; its columns win over its settings."""
    config = decode_input(settings)
    return msgspec.structs.replace(config, kind=kind, api_key=api_key, active=bool(active))


async def holds(session: Session, scope: int) -> bool:
    """Return whether a scope holds any identity, in production or development."""
    first = scope * 2 * SLOTS
    return bool(await session.rows(sql.SCOPE_HOLDS, first, first + 2 * SLOTS))


async def has_data(store: Store, scope: int) -> bool:
    """Return whether a scope holds any identity, in either environment; one index look-up."""
    async with store.read() as session:
        return await holds(session, scope)


async def lock(tx: Transaction) -> None:
    """Let only this transaction change tenancy until it ends."""
    await tx.run(sql.VERSION_ONCE, b"0")
    await tx.run(sql.VERSION_LOCK)


async def version(session: Session) -> int:
    """Return how often tenancy has changed."""
    rows = await session.rows(sql.VERSION_GET)
    return int(bytes(rows[0][0])) if rows else 0


async def changed(tx: Transaction) -> None:
    """Count a change, so that every process reads tenancy again; needs `lock`."""
    await tx.run(sql.VERSION_SET, b"%d" % (await version(tx) + 1))


def seal(key: MasterKey, input_id: int, secret: str) -> bytes:
    """Seal a secret so that it opens only for its own input."""
    return key.seal(secret.encode(), _context(input_id))


def unseal(key: MasterKey, input_id: int, sealed: bytes) -> bytes:
    """Open a sealed secret; raises `KeyProblem` that says what to do about a wrong key."""
    try:
        return key.open(bytes(sealed), _context(input_id))
    except KeyProblem:
        raise KeyProblem(
            "the master key does not open the secrets of this database: use the key file they"
            " were sealed with (setting master_key_file, or ONYMOUS_MASTER_KEY)"
        ) from None


def _context(input_id: int) -> bytes:
    return b"secret of input %d" % input_id
