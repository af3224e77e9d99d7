"""Who calls: every input with its rights and its scope's plan, in memory, by API key.

The face of tenancy for the other rooms; applying documents is in `configure`, secrets in
`credentials`.
"""

from __future__ import annotations

import asyncio
import json
import re

import msgspec

from onymous.crypto import MasterKey
from onymous.flows import tenancy
from onymous.flows.configure import (
    Applied,
    BadDocument,
    ChangeRefused,
    apply,
    export,
    parse,
    rollback,
)
from onymous.flows.credentials import (
    Credential,
    Issued,
    issue_secret,
    list_secrets,
    revoke_secret,
)
from onymous.flows.fencing import FENCE
from onymous.flows.tenancy import decode_scope, decode_shared, has_data, stored_input
from onymous.flows.used import Used
from onymous.later import module
from onymous.rules.strategies import Plan, compile_plan
from onymous.store import tenants_sql as sql
from onymous.store.port import Row, Session, Store
from onymous.store.scopes_sql import HOLDS
from onymous.store.sql import META_GET

resources = module("importlib.resources")

__all__ = [
    "Applied",
    "BadDocument",
    "Caller",
    "ChangeRefused",
    "Credential",
    "Directory",
    "Issued",
    "Names",
    "apply",
    "export",
    "has_data",
    "issue_secret",
    "list_secrets",
    "parse",
    "revoke_secret",
    "rollback",
    "starter",
]

#: reads of tenancy before changes that never end are reported
_MOST_LOADS = 20


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """One input or feed as a request meets it; see `InputConfig` for the flags."""

    input: int
    name: str
    kind: str
    workspace: int
    workspace_name: str
    scope: int
    scope_name: str
    plan: Plan
    api_key: str
    #: live secrets, oldest first
    secrets: tuple[bytes, ...]
    #: their numbers
    secret_ids: tuple[int, ...] = ()
    active: bool = True
    #: the people of its workspace are on their way to another scope
    held: bool = False
    key_only: bool = False
    server_side: bool = False
    fold_keys: bool = False
    search_key_only: bool = False
    allow_read_only: bool = True
    permissions: frozenset[str] = frozenset()
    cors_origins: tuple[str, ...] = ("*",)
    max_age_s: int = 86_400
    skew_s: int = 900
    requests_per_second: int = 0
    config_flags: dict[str, str] = {}
    #: feeds: the platform whose rows these are
    act_as: str | None = None
    keep_ip: bool = True
    restrict_device_ids: bool = False
    strict_uac: bool = False
    #: partner feeds: the partner whose identities they may state
    partner: str | None = None
    #: declared consent purposes of the workspace, or None where any may be stated
    purposes: frozenset[str] | None = None

    def pool(self, environment: str) -> int:
        """Return the number of the pool of an environment; anything else is production."""
        return self.scope * 2 + (environment == "development")

    def __repr__(self) -> str:
        return f"Caller({self.workspace_name}/{self.name}, {self.kind}, scope {self.scope_name})"


class Names:
    """Names of inputs and workspaces by their numbers, for people who read histories."""

    def __init__(self, inputs: dict[int, str], workspaces: dict[int, str]) -> None:
        self._inputs, self._workspaces = inputs, workspaces

    def input(self, number: int) -> str:
        """Return the name of an input; number 0 is this process itself (library, imports)."""
        return self._inputs.get(number) or _nameless("input", number)

    def workspace(self, number: int) -> str:
        """Return the name of a workspace."""
        return self._workspaces.get(number) or _nameless("workspace", number)


def _nameless(noun: str, number: int) -> str:
    return f"{noun} {number}" if number else "local"


class Directory:
    """All callers in memory. Starts empty: call `load`, then `refresh_if_changed` now and then."""

    def __init__(self, store: Store, key: MasterKey) -> None:
        self._store, self._key = store, key
        self._callers: dict[str, Caller] = {}
        self._by_id: dict[int, Caller] = {}
        #: grows with every load, so that caches of callers know when they are stale
        self.version = 0
        self._read_version = -1
        self._loading = asyncio.Lock()
        self._plans: dict[int, Plan] = {}
        self._scopes: dict[int, str] = {}
        #: until when (ms) writers must make sure that the rules they know are in force
        self.fenced_until = 0
        self.names = Names({}, {})
        self.used = Used()

    def find(self, api_key: str) -> Caller | None:
        """Return whose API key this is, active or not, or None."""
        return self._callers.get(api_key)

    def by_id(self, number: int) -> Caller | None:
        """Return the input of a number, active or not, or None."""
        return self._by_id.get(number)

    async def flush(self) -> None:
        """Write when keys were last used; once a minute let credentials be verified anew."""
        await self.used.flush(self._store)
        if self.used.due():
            self.version += 1

    def __len__(self) -> int:
        return len(self._callers)

    def callers(self) -> list[Caller]:
        """Return every input, in the order they were made."""
        return list(self._by_id.values())

    async def load(self) -> None:
        """Read tenancy and replace what is in memory, at once.

        Raises `KeyProblem` when the master key does not open the secrets; the old content then
        stays in force.
        """
        async with self._loading:  # one that began earlier must not end later
            await self._load()

    async def _load(self) -> None:
        for _ in range(_MOST_LOADS):
            async with self._store.read() as session:
                version = await tenancy.version(session)
                callers, names = await self._read(session)
                fence = await session.rows(META_GET, FENCE)
                # SQLite shows each statement the last commit: read again if one came between
                if await tenancy.version(session) == version:
                    break
        self._callers = {c.api_key: c for c in callers}
        self._by_id = {c.input: c for c in callers}
        self._plans = {c.scope: c.plan for c in callers}
        self._scopes = {c.scope: c.scope_name for c in callers}
        self.names, self._read_version = names, version
        self.fenced_until = int(bytes(fence[0][0])) if fence else 0
        self.version += 1

    def plan_of(self, scope: int) -> Plan | None:
        """Return the rules of a scope, or None for one nobody calls."""
        return self._plans.get(scope)

    def scope_name(self, scope: int) -> str | None:
        """Return the name of a scope, or None for one nobody calls."""
        return self._scopes.get(scope)

    @property
    def read_version(self) -> int:
        """Return which change of tenancy was read last."""
        return self._read_version

    async def refresh_if_changed(self) -> bool:
        """Load again if any process changed tenancy; return whether it did."""
        async with self._store.read() as session:
            version = await tenancy.version(session)
        if version == self._read_version:
            return False
        await self.load()
        return True

    async def _read(self, session: Session) -> tuple[list[Caller], Names]:
        secrets: dict[int, list[tuple[int, bytes]]] = {}
        for secret, number, sealed in await session.rows(sql.SECRETS_LIVE):
            plain = tenancy.unseal(self._key, number, sealed)
            secrets.setdefault(number, []).append((secret, plain))
        rows = await session.rows(sql.CALLERS)
        held = {row[0] for row in await session.rows(HOLDS)}
        callers = [_caller(row, secrets.get(row[0], []), held) for row in rows]
        workspaces = {row[0]: row[1] for row in await session.rows(sql.WORKSPACE_NAMES)}
        return callers, Names({c.input: c.name for c in callers}, workspaces)


def _caller(row: Row, secrets: list[tuple[int, bytes]], held: set[int]) -> Caller:
    number, name, kind, api_key, settings, active, workspace, w_name, shared, scope = row[:10]
    s_name, config = row[10:]
    flags = stored_input(kind, api_key, settings, active)
    purposes = decode_shared(shared).consent_purposes
    return Caller(
        input=number,
        name=name,
        kind=kind,
        workspace=workspace,
        workspace_name=w_name,
        scope=scope,
        scope_name=s_name,
        plan=compile_plan(decode_scope(config)),
        api_key=api_key,
        secrets=tuple(plain for _, plain in secrets),
        secret_ids=tuple(number for number, _ in secrets),
        active=flags.active,
        held=workspace in held,
        key_only=bool(flags.key_only),
        server_side=bool(flags.server_side),
        fold_keys=flags.fold_keys,
        search_key_only=flags.search_key_only,
        allow_read_only=flags.allow_read_only,
        permissions=frozenset(flags.permissions),
        cors_origins=flags.cors_origins,
        max_age_s=flags.max_age_s,
        skew_s=flags.skew_s,
        requests_per_second=flags.requests_per_second,
        config_flags=flags.config_flags,
        act_as=flags.act_as,
        keep_ip=flags.keep_ip,
        restrict_device_ids=flags.restrict_device_ids,
        strict_uac=flags.strict_uac,
        partner=flags.partner,
        purposes=None if purposes is None else frozenset(purposes),
    )


def starter(organization: str = "My company", workspace: str = "My app") -> str:
    """Return the commented document that `onymous init` writes; `apply` accepts it as it is."""
    text = resources.files("onymous").joinpath("starter.yaml").read_text("utf-8")
    names = {"ORGANIZATION": organization, "WORKSPACE": workspace}
    pattern = re.compile("{(" + "|".join(names) + ")}")
    return pattern.sub(lambda m: json.dumps(names[m[1]], ensure_ascii=False), text)
