"""Who may call, in memory: API key -> caller with everything a request needs to know."""

from __future__ import annotations

import msgspec

from onymous.crypto import MasterKey
from onymous.rules.strategies import Plan, ScopeConfig, compile_plan
from onymous.rules.tenants import InputConfig, State, Workspace
from onymous.store import sql
from onymous.store import tenants_sql as tsql
from onymous.store.packing import SLOTS
from onymous.store.port import Session, Store

_config = msgspec.msgpack.Decoder(ScopeConfig)
_input = msgspec.msgpack.Decoder(InputConfig)


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """One input or feed, with its workspace and the rules of its scope."""

    input: int
    name: str
    kind: str
    workspace: int
    workspace_name: str
    scope: int
    scope_name: str
    plan: Plan
    api_key: str
    #: live secrets, opened
    secrets: tuple[bytes, ...]
    active: bool = True
    #: the key alone suffices
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

    def pool(self, environment: str) -> int:
        """Return the pool of people a request of this caller sees (rulings 3)."""
        return self.scope * 2 + (environment == "development")


class Names:
    """Names of inputs and workspaces for people to read; a number where the name is gone."""

    def __init__(self) -> None:
        self._inputs: dict[int, str] = {}
        self._workspaces: dict[int, str] = {}

    def fill(self, inputs: dict[int, str], workspaces: dict[int, str]) -> None:
        """Take over what the directory read."""
        self._inputs, self._workspaces = inputs, workspaces

    def input(self, number: int) -> str:
        """Return the name of an input."""
        return self._inputs.get(number, str(number))

    def workspace(self, number: int) -> str:
        """Return the name of a workspace."""
        return self._workspaces.get(number, str(number))


class Stored(msgspec.Struct, kw_only=True):
    """The tenancy of a database, with its numbers."""

    state: State
    #: scope name -> number
    scopes: dict[str, int]
    #: workspace name -> number
    workspaces: dict[str, int]
    #: (workspace number, input name) -> number
    inputs: dict[tuple[int, str], int]


async def has_data(session: Session, scope: int) -> bool:
    """Return whether a scope holds anybody, in production or development."""
    for pool in (scope * 2, scope * 2 + 1):
        if await session.rows(tsql.POOL_IN_USE, pool * SLOTS, (pool + 1) * SLOTS):
            return True
    return False


async def read_state(session: Session) -> Stored:
    """Read the whole tenancy."""
    organization = await session.rows(tsql.ORGANIZATIONS)
    accounts = {int(i): str(name) for i, name in await session.rows(tsql.ACCOUNTS)}
    scope_rows = await session.rows(tsql.SCOPES)
    scopes = {int(i): str(name) for i, name, _ in scope_rows}
    held: dict[int, dict[str, InputConfig]] = {}
    inputs: dict[tuple[int, str], int] = {}
    for number, name, place, _, _, settings, _ in await session.rows(tsql.INPUTS):
        held.setdefault(int(place), {})[str(name)] = _input.decode(settings)
        inputs[int(place), str(name)] = int(number)
    workspaces: dict[str, Workspace] = {}
    numbers: dict[str, int] = {}
    for number, name, account, scope in await session.rows(tsql.WORKSPACES):
        numbers[str(name)] = int(number)
        workspaces[str(name)] = Workspace(
            account=accounts[int(account)],
            scope=scopes[int(scope)],
            inputs=held.get(int(number), {}),
        )
    holding = frozenset([name for i, name in scopes.items() if await has_data(session, i)])
    state = State(
        organization=str(organization[0][1]) if organization else None,
        accounts=tuple(accounts.values()),
        scopes={str(name): _config.decode(config) for _, name, config in scope_rows},
        workspaces=workspaces,
        holding=holding,
    )
    by_name = {name: i for i, name in scopes.items()}
    return Stored(state=state, scopes=by_name, workspaces=numbers, inputs=inputs)


class Directory:
    """All callers of a store; `refresh_if_changed` sees what other processes applied."""

    def __init__(self, store: Store, key: MasterKey) -> None:
        self._store, self._key = store, key
        self._by_key: dict[str, Caller] = {}
        self._by_id: dict[int, Caller] = {}
        self._stored_version = b""
        #: grows with every reload; caches of credentials compare it
        self.version = 0
        self.names = Names()

    def find(self, api_key: str) -> Caller | None:
        """Return the caller of an API key, or None."""
        return self._by_key.get(api_key)

    def by_id(self, number: int) -> Caller | None:
        """Return the caller of an input's number, or None."""
        return self._by_id.get(number)

    def all(self) -> list[Caller]:
        """Return all callers, by number."""
        return [self._by_id[n] for n in sorted(self._by_id)]

    async def load(self) -> None:
        """Read everything; raises if the master key does not open the secrets."""
        async with self._store.read() as session:
            version = await session.rows(sql.META_GET, "tenants_version")
            stored = await read_state(session)
            secrets: dict[int, list[bytes]] = {}
            for number, sealed in await session.rows(tsql.SECRETS):
                plain = self._key.open(bytes(sealed), b"input:%d" % number)
                secrets.setdefault(int(number), []).append(plain)
        callers = _callers(stored, secrets)
        self._by_key = {c.api_key: c for c in callers}
        self._by_id = {c.input: c for c in callers}
        self._stored_version = bytes(version[0][0]) if version else b""
        self.names.fill(
            {c.input: c.name for c in callers},
            {number: name for name, number in stored.workspaces.items()},
        )
        self.version += 1

    async def refresh_if_changed(self) -> None:
        """Read again if somebody applied a document or changed secrets."""
        async with self._store.read() as session:
            rows = await session.rows(sql.META_GET, "tenants_version")
        if rows and bytes(rows[0][0]) != self._stored_version:
            await self.load()


def _callers(stored: Stored, secrets: dict[int, list[bytes]]) -> list[Caller]:
    out = []
    for name, workspace in stored.state.workspaces.items():
        place = stored.workspaces[name]
        plan = compile_plan(stored.state.scopes[workspace.scope])
        for child, config in workspace.inputs.items():
            number = stored.inputs[place, child]
            out.append(
                Caller(
                    input=number,
                    name=child,
                    kind=config.kind,
                    workspace=place,
                    workspace_name=name,
                    scope=stored.scopes[workspace.scope],
                    scope_name=workspace.scope,
                    plan=plan,
                    api_key=config.api_key or "",
                    secrets=tuple(secrets.get(number, ())),
                    active=config.active,
                    key_only=bool(config.key_only),
                    server_side=bool(config.server_side),
                    fold_keys=config.fold_keys,
                    search_key_only=config.search_key_only,
                    allow_read_only=config.allow_read_only,
                    permissions=frozenset(config.permissions),
                    cors_origins=config.cors_origins,
                    max_age_s=config.max_age_s,
                    skew_s=config.skew_s,
                    requests_per_second=config.requests_per_second,
                    config_flags=config.config_flags,
                )
            )
    return out
