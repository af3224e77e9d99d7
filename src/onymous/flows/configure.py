"""`onymous apply` and `export`: a document becomes tenancy, in one transaction, and back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from onymous.crypto import MasterKey, new_key_pair
from onymous.flows import tenancy, versions
from onymous.flows.config_text import text_of
from onymous.flows.credentials import Credential, add_secret, audit, check_key, transact
from onymous.flows.documents import Unreadable, read
from onymous.flows.tenancy import Ids, Shared, encode
from onymous.rules import documents
from onymous.rules.errors import ConfigInvalid, ScopeChangeRefused
from onymous.rules.strategies import ScopeConfig
from onymous.rules.tenants import Document, State, Step, diff
from onymous.rules.wording import Problem
from onymous.store import tenants_sql as sql
from onymous.store.port import Store, Transaction
from onymous.store.scopes_sql import CHANGES_OPEN

#: carries a change of a scope's rules over to its people, in the transaction of the change:
#: (transaction, number of the scope, what it was, what it becomes)
Around = Callable[[Transaction, int, ScopeConfig, ScopeConfig], Awaitable[None]]


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
    #: the version of the configuration that is in force now
    version: int = 0

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
    reason: str = "",
    now_ms: int,
    expected: int | None = None,
    brought_back: int | None = None,
    around: Around | None = None,
) -> Applied:
    """Make tenancy what a YAML document says, all or nothing; a second time it changes nothing.

    `expected` names the version it was made for, `around` carries people over. Raises
    `BadDocument`, `ChangeRefused`, `ConfigChanged`, `KeyProblem`.
    """
    author = versions.Author(name=actor, reason=reason, brought_back=brought_back)
    wanted, warnings = parse(document)
    if dry_run:
        return await _preview(store, wanted, warnings, moving=bool(around))

    async def work(tx: Transaction) -> Applied:
        await versions.expect(tx, expected)
        state, ids = await tenancy.read_state(tx)
        steps = diff(state, wanted, moving=bool(around))
        out = Applied(dry_run=False, steps=steps, warnings=warnings)
        if out.refused:
            raise ChangeRefused(out.steps)
        if out.changed:
            await check_key(tx, master_key)
            writer = _Writer(tx, master_key, wanted, ids, now_ms)
            await _carried(tx, out.steps, around, state, ids, wanted)
            out.version = await writer.carry_all_out(out.steps, author)
            out.credentials = writer.credentials
        out.version = out.version or await versions.newest(tx)
        return out

    return await transact(store, "tenants.apply", work)


async def _alone(tx: Transaction, steps: list[Step]) -> None:
    """Raise while a join or split goes on, if scopes or where workspaces belong would change."""
    touched = any(s.noun in ("scope", "workspace") and s.action != "leave" for s in steps)
    if touched and await tx.rows(CHANGES_OPEN):
        raise ScopeChangeRefused(what="a join or split goes on; apply again when it is done")


async def _carried(
    tx: Transaction,
    steps: list[Step],
    around: Around | None,
    state: State,
    ids: Ids,
    wanted: Document,
) -> None:
    """Carry people over to rules that change, before the rules do."""
    for step in steps:
        if around is not None and step.noun == "scope" and step.action == "update":
            was, becomes = state.scopes[step.name], wanted.scopes[step.name]
            await around(tx, ids.scopes[step.name], was, becomes)


async def _preview(
    store: Store, wanted: Document, warnings: list[Problem], *, moving: bool
) -> Applied:
    async with store.read() as session:
        state, _ = await tenancy.read_state(session)
        now = await versions.newest(session)
    steps = diff(state, wanted, moving=moving)
    return Applied(dry_run=True, steps=steps, warnings=warnings, version=now)


class _Writer:
    """Carries out steps of one transaction."""

    def __init__(
        self, tx: Transaction, key: MasterKey, wanted: Document, ids: Ids, now_ms: int
    ) -> None:
        self._tx, self._key, self._wanted, self._ids, self._now = tx, key, wanted, ids, now_ms
        self.credentials: list[Credential] = []

    async def carry_all_out(self, steps: list[Step], author: versions.Author) -> int:
        """Write all steps, audited, as a new version of the configuration; return its number."""
        tx, now = self._tx, self._now
        await _alone(tx, steps)
        await versions.found(tx, now)
        done = [s for s in steps if s.action in ("create", "update")]
        for step in done:
            await self.carry_out(step)
            action = f"{step.noun}.{step.action}"
            await audit(tx, now, author.name, action, step.name, step.changes)
        await tenancy.changed(tx)
        return await versions.record(tx, author, [str(s) for s in done], now)

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
    return text_of(state)


async def rollback(
    store: Store,
    master_key: MasterKey,
    number: int,
    *,
    dry_run: bool = False,
    actor: str,
    reason: str = "",
    now_ms: int,
    expected: int | None = None,
) -> Applied:
    """Apply what the configuration was in version `number` again, as a new version.

    The same checks hold as for any document: what would mix or lose people is refused, what was
    made since is left alone. Raises `NoSuchVersion`, and as `apply` does.
    """
    old = await versions.version(store, number)
    return await apply(
        store,
        master_key,
        old.document or "",
        dry_run=dry_run,
        actor=actor,
        reason=reason,
        now_ms=now_ms,
        expected=expected,
        brought_back=number,
    )
