"""`onymous apply` and `export`: a document becomes tenancy, in one transaction, and back."""

from __future__ import annotations

from typing import Any

import msgspec

from onymous.crypto import MasterKey, new_key_pair
from onymous.flows import tenancy
from onymous.flows.credentials import Credential, add_secret, audit, check_key, transact
from onymous.flows.documents import Unreadable, read, write
from onymous.flows.tenancy import Ids, Shared, encode
from onymous.rules import documents
from onymous.rules.errors import ConfigInvalid
from onymous.rules.strategies import ScopeConfig
from onymous.rules.tenants import FEED_KINDS, Document, InputConfig, State, Step, diff
from onymous.rules.wording import Problem
from onymous.store import tenants_sql as sql
from onymous.store.port import Store, Transaction


class BadDocument(ConfigInvalid):
    """The document cannot be applied; {count} to correct, the first: {first}"""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__(count=len(problems), first=problems[0])
        self.problems = problems


class ChangeRefused(ConfigInvalid):
    """Nothing was applied; {count} not safe to change, the first: {first}"""

    status = 409

    def __init__(self, steps: list[Step]) -> None:
        refused = [s for s in steps if s.action == "refuse"]
        super().__init__(count=len(refused), first=refused[0])
        self.steps, self.refused = steps, refused


class Applied(msgspec.Struct, kw_only=True):
    """What an apply did, or in a dry run: would do."""

    dry_run: bool
    #: in the order they are carried out; a dry run holds refused ones too
    steps: list[Step]
    warnings: list[Problem]
    #: keys and secrets of new inputs, shown this once
    credentials: list[Credential] = []

    @property
    def changed(self) -> bool:
        """Return whether anything was (or would be) created or updated."""
        return any(s.action in ("create", "update") for s in self.steps)

    @property
    def refused(self) -> list[Step]:
        """Return the steps that are not safe; only a dry run has any."""
        return [s for s in self.steps if s.action == "refuse"]

    def lines(self) -> list[str]:
        """Return the steps as lines for a person."""
        return [str(s) for s in self.steps]


def parse(text: str) -> tuple[Document, list[Problem]]:
    """Return the document a YAML text stands for, and the linter's warnings.

    Raises `BadDocument` with every problem found.
    """
    try:
        data, lines = read(text)
    except Unreadable as error:
        raise BadDocument([error.problem]) from None
    document, problems = documents.decode(data, lines)
    if document is None:
        raise BadDocument(problems)
    return document, documents.at_lines(documents.advice(document), lines)


async def apply(
    store: Store,
    master_key: MasterKey,
    document: str,
    *,
    dry_run: bool = False,
    actor: str,
    now_ms: int,
) -> Applied:
    """Make the database's tenancy what a YAML document says, all or nothing.

    Creates what is missing, updates what is safe to update, deletes nothing; a second time it
    changes nothing. Raises `BadDocument`, `ChangeRefused` (not in a dry run: its steps say so)
    and `KeyProblem` when the master key is not the one of this database.
    """
    wanted, warnings = parse(document)
    if dry_run:
        async with store.read() as session:
            state, _ = await tenancy.read_state(session)
        return Applied(dry_run=True, steps=diff(state, wanted), warnings=warnings)

    async def work(tx: Transaction) -> Applied:
        state, ids = await tenancy.read_state(tx)
        steps = diff(state, wanted)
        if any(s.action == "refuse" for s in steps):
            raise ChangeRefused(steps)
        out = Applied(dry_run=False, steps=steps, warnings=warnings)
        if out.changed:
            await check_key(tx, master_key)
            writer = _Writer(tx, master_key, wanted, ids, now_ms)
            for step in steps:
                if step.action in ("create", "update"):
                    await writer.carry_out(step)
                    action = f"{step.noun}.{step.action}"
                    await audit(tx, now_ms, actor, action, step.name, step.changes)
            out.credentials = writer.credentials
            await tenancy.changed(tx)
        return out

    return await transact(store, "tenants.apply", work)


class _Writer:
    """Carries out steps of one transaction."""

    def __init__(
        self, tx: Transaction, key: MasterKey, wanted: Document, ids: Ids, now_ms: int
    ) -> None:
        self._tx, self._key, self._wanted, self._ids, self._now = tx, key, wanted, ids, now_ms
        self.credentials: list[Credential] = []

    async def carry_out(self, step: Step) -> None:
        """Write one step."""
        if step.noun == "organization":
            self._ids.organization = await self._add(sql.ORGANIZATION_ADD, step.name)
        elif step.noun == "account":
            number = await self._add(sql.ACCOUNT_ADD, self._ids.organization, step.name)
            self._ids.accounts[step.name] = number
        elif step.noun == "scope":
            await self._scope(step)
        elif step.noun == "workspace":
            await self._workspace(step)
        else:
            await self._input(step)

    async def _add(self, statement: str, *args: object) -> int:
        rows = await self._tx.rows(statement, *args)
        return int(rows[0][0])

    async def _scope(self, step: Step) -> None:
        config = encode(self._wanted.scopes[step.name])
        if step.action == "create":
            number = await self._add(sql.SCOPE_ADD, step.name, config, self._now)
            self._ids.scopes[step.name] = number
        else:
            await self._tx.run(sql.SCOPE_SET, config, self._now, self._ids.scopes[step.name])

    async def _workspace(self, step: Step) -> None:
        workspace = self._wanted.workspaces[step.name]
        account = self._ids.accounts[workspace.account]
        scope = self._ids.scopes[workspace.scope]
        if step.action == "create":
            shared = encode(Shared(consent_purposes=workspace.consent_purposes))
            number = await self._add(sql.WORKSPACE_ADD, step.name, account, scope, shared)
            self._ids.workspaces[step.name] = number
        else:
            number = self._ids.workspaces[step.name]
            await self._tx.run(sql.WORKSPACE_SET, account, scope, number)
            if workspace.consent_purposes is not None:
                shared = encode(Shared(consent_purposes=workspace.consent_purposes))
                await self._tx.run(sql.WORKSPACE_SHARED, shared, number)

    async def _input(self, step: Step) -> None:
        workspace, _, name = step.name.partition("/")
        config = self._wanted.workspaces[workspace].inputs[name]
        if step.action == "update":
            number = self._ids.inputs[workspace, name]
            await self._tx.run(sql.INPUT_SET, encode(config), int(config.active), number)
            return
        new_key, secret = new_key_pair()
        api_key = config.api_key or new_key
        owner = self._ids.workspaces[workspace]
        number = await self._add(
            sql.INPUT_ADD, name, owner, config.kind, api_key, encode(config), int(config.active)
        )
        secret_id = await add_secret(self._tx, self._key, number, secret, self._now)
        self.credentials.append(
            Credential(
                workspace=workspace,
                input=name,
                kind=config.kind,
                api_key=api_key,
                secret=secret,
                secret_id=secret_id,
            )
        )


async def export(store: Store) -> str:
    """Return the YAML document that `apply` finds nothing to change in; holds no secrets."""
    async with store.read() as session:
        state, _ = await tenancy.read_state(session)
    return write(_plain(state))


def _plain(state: State) -> dict[str, Any]:
    workspaces: dict[str, Any] = {}
    for name, workspace in state.workspaces.items():
        out: dict[str, Any] = {"account": workspace.account, "scope": workspace.scope}
        if workspace.consent_purposes is not None:
            out["consent_purposes"] = list(workspace.consent_purposes)
        for child, config in workspace.inputs.items():
            group = "feeds" if config.kind in FEED_KINDS else "inputs"
            usual = InputConfig(kind=config.kind).resolved()
            settings = {"kind": config.kind, **_differing(config, usual)}
            out.setdefault(group, {})[child] = settings
        workspaces[name] = out
    scopes = {}
    for name, scope in state.scopes.items():
        scopes[name] = {"strategy": scope.strategy, **_differing(scope, _usual(scope))}
    return {
        "organization": state.organization or "",
        "accounts": list(state.accounts),
        "scopes": scopes,
        "workspaces": workspaces,
    }


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
