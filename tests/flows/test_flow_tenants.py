"""Applying documents, credentials and the directory, on both engines."""

from __future__ import annotations

import asyncio
import json
import pathlib

import pytest

from conftest import Place
from onymous.crypto import KeyProblem, MasterKey
from onymous.flows.loading import Given, load
from onymous.flows.tenants import (
    BadDocument,
    ChangeRefused,
    Directory,
    apply,
    export,
    has_data,
    issue_secret,
    list_secrets,
    parse,
    revoke_secret,
    starter,
)
from onymous.rules.errors import BadRequest, NotFound
from onymous.rules.strategies import ScopeConfig, compile_plan
from onymous.store import tenants_sql
from onymous.store.port import Store

KEY = MasterKey(b"k" * 32)
DOCUMENT = """
organization: Acme
accounts: [Shops, Fleet]
scopes:
  people: {strategy: profile_link, login: [customerid], unique: [customerid], email_lower: true}
workspaces:
  Web:
    account: Shops
    scope: people
    inputs:
      page:
        kind: web
        cors_origins: ["https://shop.example"]
        config_flags: {cacheIdentity: "True"}
      back: {kind: server, permissions: ["search:any", explain], max_age_s: 60, skew_s: 0}
  App:
    account: Shops
    scope: people
    inputs:
      ios: {kind: ios, api_key: us1-in-the-field}
  Trucks:
    account: Fleet
    feeds:
      crm: {act_as: android}
"""


async def applied(store: Store, text: str = DOCUMENT, key: MasterKey = KEY) -> list[str]:
    """Apply a document and return the lines of what it did."""
    return (await apply(store, key, text, actor="test", now_ms=1000)).lines()


async def table(store: Store, name: str) -> list[tuple[object, ...]]:
    async with store.read() as session:
        return await session.rows(f"SELECT * FROM {name}")


TABLES = ("organization", "account", "scope", "workspace", "input", "secret", "audit", "meta")


async def everything(store: Store) -> dict[str, list[tuple[object, ...]]]:
    return {name: await table(store, name) for name in TABLES}


async def put_person(store: Store, scope: int, environment: str = "production") -> None:
    plan = compile_plan(ScopeConfig())
    pool = scope * 2 + (environment == "development")
    await load(store, pool, plan, [Given(ids={"customerid": ["42"]})])


async def directory(store: Store, key: MasterKey = KEY) -> Directory:
    out = Directory(store, key)
    await out.load()
    return out


# -- apply --------------------------------------------------------------------------------------


async def test_everything_is_created_and_found_again(store: Store) -> None:
    out = await apply(store, KEY, DOCUMENT, actor="test", now_ms=1000)
    assert [c.input for c in out.credentials] == ["page", "back", "ios", "crm"]
    assert len({c.api_key for c in out.credentials} | {c.secret for c in out.credentials}) == 8
    callers = await directory(store)
    assert len(callers) == 4
    for credential in out.credentials:
        caller = callers.find(credential.api_key)
        assert caller is not None
        assert caller.secrets == (credential.secret.encode(),)
        assert (caller.workspace_name, caller.name) == (credential.workspace, credential.input)
        assert callers.by_id(caller.input) is caller
    page, back, ios, crm = callers.callers()
    assert (page.key_only, page.server_side) == (True, False)
    assert page.cors_origins == ("https://shop.example",)
    assert page.config_flags == {"cacheIdentity": "True"}
    assert back.permissions == {"search:any", "explain"} and back.server_side
    assert (back.max_age_s, back.skew_s) == (60, 0)
    assert (page.max_age_s, page.skew_s) == (86_400, 900)
    assert ios.api_key == "us1-in-the-field"
    assert (crm.kind, crm.act_as, crm.server_side) == ("custom_feed", "android", True)
    assert callers.find("nobody") is None and callers.by_id(0) is None


async def test_workspaces_of_one_scope_share_pools_and_others_do_not(store: Store) -> None:
    await applied(store)
    page, back, ios, crm = (await directory(store)).callers()
    assert page.scope == back.scope == ios.scope != crm.scope
    assert page.plan is ios.plan and page.plan.folding.email_lower
    assert crm.scope_name == "Trucks" and not crm.plan.folding.email_lower
    pools = {c.pool(e) for c in (page, ios, crm) for e in ("production", "development")}
    assert len(pools) == 4 and 0 not in pools and 1 not in pools


async def test_names_for_histories(store: Store) -> None:
    await applied(store)
    callers = await directory(store)
    page = callers.callers()[0]
    assert callers.names.input(page.input) == "page"
    assert callers.names.workspace(page.workspace) == "Web"
    assert callers.names.input(0) == callers.names.workspace(0) == "local"
    assert callers.names.input(999) == "input 999"


async def test_a_second_time_nothing_changes(store: Store) -> None:
    await applied(store)
    before = await everything(store)
    out = await apply(store, KEY, DOCUMENT, actor="test", now_ms=2000)
    assert out.lines() == [] and not out.changed and out.credentials == []
    assert await everything(store) == before


async def test_a_dry_run_writes_nothing(store: Store) -> None:
    before = await everything(store)
    out = await apply(store, KEY, DOCUMENT, dry_run=True, actor="test", now_ms=1000)
    assert out.dry_run and out.changed and out.credentials == []
    assert await everything(store) == before
    real = await apply(store, KEY, DOCUMENT, actor="test", now_ms=1000)
    assert real.steps == out.steps


async def test_a_bad_document_writes_nothing(store: Store) -> None:
    before = await everything(store)
    with pytest.raises(BadDocument) as caught:
        await applied(store, DOCUMENT.replace("kind: web", "kind: wep"))
    assert caught.value.status == 400 and "1 problems" in str(caught.value)
    assert await everything(store) == before


async def test_one_refused_change_stops_all(store: Store) -> None:
    await applied(store)
    scope = (await directory(store)).callers()[0].scope
    await put_person(store, scope)
    before = await everything(store)
    new = DOCUMENT.replace("email_lower: true", "email_lower: false")
    new = new.replace("max_age_s: 60", "max_age_s: 90")
    with pytest.raises(ChangeRefused) as caught:
        await applied(store, new)
    assert caught.value.status == 409
    assert [s.noun for s in caught.value.refused] == ["scope"]
    assert [s.noun for s in caught.value.steps] == ["scope", "input"]
    assert await everything(store) == before
    out = await apply(store, KEY, new, dry_run=True, actor="test", now_ms=2000)
    assert [s.action for s in out.steps] == ["refuse", "update"]
    assert [s.action for s in out.refused] == ["refuse"]


@pytest.mark.parametrize("environment", ["production", "development"])
async def test_data_of_either_environment_counts(store: Store, environment: str) -> None:
    await applied(store)
    page, _, _, crm = (await directory(store)).callers()
    assert not await has_data(store, page.scope)
    await put_person(store, page.scope, environment)
    assert await has_data(store, page.scope)
    for other in (crm.scope, page.scope + 1, page.scope - 1):
        assert other == page.scope or not await has_data(store, other)


async def test_an_empty_scope_may_change_and_its_neighbour_keeps_its_own(store: Store) -> None:
    await applied(store)
    page, _, _, crm = (await directory(store)).callers()
    await put_person(store, crm.scope)
    new = DOCUMENT.replace("email_lower: true", "email_lower: false, login_conflict: return_match")
    assert await applied(store, new) == [
        "~ scope people: login_conflict: new_record -> return_match, email_lower: true -> false"
    ]
    callers = await directory(store)
    changed = callers.by_id(page.input)
    assert changed is not None and not changed.plan.folding.email_lower


async def test_a_workspace_with_data_does_not_move(store: Store) -> None:
    await applied(store)
    moved = DOCUMENT.replace(
        "  Trucks:\n    account: Fleet", "  Trucks:\n    scope: people\n    account: Fleet"
    )
    crm = (await directory(store)).callers()[3]
    await put_person(store, crm.scope)
    with pytest.raises(ChangeRefused, match="1 changes are not safe"):
        await applied(store, moved)


async def test_a_workspace_without_data_moves(store: Store) -> None:
    await applied(store)
    moved = DOCUMENT.replace(
        "  Trucks:\n    account: Fleet", "  Trucks:\n    scope: people\n    account: Shops"
    )
    assert await applied(store, moved) == [
        "~ workspace Trucks: account: Fleet -> Shops, scope: Trucks -> people",
        "= scope Trucks: not in the document, left alone",
    ]
    callers = (await directory(store)).callers()
    assert callers[3].scope == callers[0].scope


async def test_nothing_is_deleted_by_omission(store: Store) -> None:
    await applied(store)
    lines = await applied(store, "organization: Acme\naccounts: [Shops]\n")
    assert lines and all(line.startswith("= ") and "left alone" in line for line in lines)
    assert len(await directory(store)) == 4


async def test_an_input_is_switched_off_and_on(store: Store) -> None:
    await applied(store)
    off = DOCUMENT.replace("kind: ios,", "kind: ios, active: false,")
    await applied(store, off)
    ios = (await directory(store)).find("us1-in-the-field")
    assert ios is not None and not ios.active and ios.secrets
    await applied(store)
    ios = (await directory(store)).find("us1-in-the-field")
    assert ios is not None and ios.active


async def test_another_organization_is_refused(store: Store) -> None:
    await applied(store)
    with pytest.raises(ChangeRefused) as caught:
        await applied(store, DOCUMENT.replace("Acme", "Other"))
    assert "belongs to Acme" in str(caught.value.refused[0])


async def test_every_change_is_audited_without_secrets(store: Store) -> None:
    out = await apply(store, KEY, DOCUMENT, actor="ann", now_ms=1000)
    await apply(
        store, KEY, DOCUMENT.replace("max_age_s: 60", "max_age_s: 90"), actor="bob", now_ms=2000
    )
    rows = await table(store, "audit")
    told = [(at, actor, action, subject) for _, at, actor, action, subject, _ in rows]
    assert told[0] == (1000, "ann", "organization.create", "Acme")
    assert told[-1] == (2000, "bob", "input.update", "Web/back")
    assert json.loads(bytes(rows[-1][5])) == ["max_age_s: 60 -> 90"]  # type: ignore[call-overload]
    assert len(rows) == len(out.steps) + 1
    text = repr(rows)
    assert not any(c.secret in text for c in out.credentials)


# -- export and starter -------------------------------------------------------------------------


async def test_what_is_exported_changes_nothing(store: Store) -> None:
    await applied(store)
    text = await export(store)
    assert await applied(store, text) == []
    for row in await table(store, "secret"):
        assert str(row[2]) not in text


async def test_an_export_rebuilds_tenancy_elsewhere(store: Store, tmp_path: pathlib.Path) -> None:
    await applied(store)
    text = await export(store)
    other = Place("sqlite", str(tmp_path / "other")).store()
    await other.start()
    try:
        await applied(other, text)
        assert await export(other) == text
        keys = {c.api_key for c in (await directory(other)).callers()}
        assert keys == {c.api_key for c in (await directory(store)).callers()}
    finally:
        await other.close()


async def test_the_starter_works_as_it_is(store: Store) -> None:
    document, warnings = parse(starter())
    assert [w.field for w in warnings] == ["scopes.people.strategy"]  # told in its comments
    assert document.scopes["people"].email_lower and document.scopes["people"].phone_e164
    out = await apply(store, KEY, starter(), actor="test", now_ms=1000)
    kinds = {c.name: c for c in (await directory(store)).callers()}
    assert set(kinds) == {"web", "ios", "android", "server"}
    assert kinds["web"].key_only and not kinds["web"].permissions
    assert kinds["server"].permissions == {"search:any", "history:read", "explain"}
    assert len(out.credentials) == 4


@pytest.mark.parametrize("name", ['Ann\'s "Shop": 1', "#1", "yes", "2024", "Größe", "{WORKSPACE}"])
def test_the_starter_takes_any_name(name: str) -> None:
    document, _ = parse(starter(name, "My app"))
    assert document.organization == name
    if "{" not in name:
        assert list(parse(starter("Acme", name))[0].workspaces) == [name]


# -- several at once ----------------------------------------------------------------------------


async def test_two_applies_at_once_make_one_tenancy(place: Place) -> None:
    first, second = place.store(), place.store()
    await first.start()
    await second.start()
    try:
        outs = await asyncio.gather(
            *(apply(s, KEY, DOCUMENT, actor="test", now_ms=1000) for s in (first, second) * 4)
        )
        assert sorted(len(o.credentials) for o in outs) == [0] * 7 + [4]
        assert sorted(o.changed for o in outs) == [False] * 7 + [True]
        assert len(await table(first, "input")) == 4
        assert len(await table(first, "secret")) == 4
    finally:
        await first.close()
        await second.close()


async def test_another_process_sees_changes(place: Place) -> None:
    first, second = place.store(), place.store()
    await first.start()
    await second.start()
    try:
        callers = await directory(second)
        version = callers.version
        assert len(callers) == 0 and not await callers.refresh_if_changed()
        await applied(first)
        assert len(callers) == 0
        assert await callers.refresh_if_changed()
        assert len(callers) == 4 and callers.version > version
        version = callers.version
        assert not await callers.refresh_if_changed()
        await applied(first)
        assert not await callers.refresh_if_changed() and callers.version == version
        await issue_secret(first, KEY, "App", "ios", actor="test", now_ms=2000)
        assert await callers.refresh_if_changed()
        ios = callers.find("us1-in-the-field")
        assert ios is not None and len(ios.secrets) == 2
    finally:
        await first.close()
        await second.close()


# -- secrets ------------------------------------------------------------------------------------


async def test_two_secrets_are_live_during_a_rotation(store: Store) -> None:
    await applied(store)
    callers = await directory(store)
    (old,) = callers.callers()[2].secrets
    new = await issue_secret(store, KEY, "App", "ios", actor="ann", now_ms=2000)
    assert new.api_key == "us1-in-the-field" and new.secret not in repr(new)
    assert await callers.refresh_if_changed()
    assert callers.callers()[2].secrets == (old, new.secret.encode())
    with pytest.raises(BadRequest, match="revoke the older one first"):
        await issue_secret(store, KEY, "App", "ios", actor="ann", now_ms=3000)
    first, second = await list_secrets(store, "App", "ios")
    assert (first.created_ms, second.created_ms) == (1000, 2000)
    await revoke_secret(store, "App", "ios", first.secret_id, actor="ann", now_ms=4000)
    assert await callers.refresh_if_changed()
    assert callers.callers()[2].secrets == (new.secret.encode(),)
    assert [s.revoked_ms for s in await list_secrets(store, "App", "ios")] == [4000, None]
    with pytest.raises(NotFound):
        await revoke_secret(store, "App", "ios", first.secret_id, actor="ann", now_ms=5000)
    actions = [row[3] for row in await table(store, "audit")][-2:]
    assert actions == ["secret.issue", "secret.revoke"]


async def test_rotations_at_once_leave_two_live(place: Place) -> None:
    first, second = place.store(), place.store()
    await first.start()
    await second.start()
    try:
        await applied(first)
        outs = await asyncio.gather(
            *(
                issue_secret(s, KEY, "App", "ios", actor="test", now_ms=2000)
                for s in (first, second) * 3
            ),
            return_exceptions=True,
        )
        assert sum(isinstance(o, BadRequest) for o in outs) == 5
        assert len(await list_secrets(first, "App", "ios")) == 2
    finally:
        await first.close()
        await second.close()


async def test_the_last_secret_can_be_revoked(store: Store) -> None:
    await applied(store)
    (only,) = await list_secrets(store, "App", "ios")
    await revoke_secret(store, "App", "ios", only.secret_id, actor="ann", now_ms=2000)
    ios = (await directory(store)).find("us1-in-the-field")
    assert ios is not None and ios.secrets == ()
    assert [bytes(r[2]) for r in await table(store, "secret") if r[0] == only.secret_id] == [b""]


async def test_a_secret_in_the_field_can_be_taken_over(store: Store) -> None:
    await applied(store)
    theirs = "kept-in-a-million-apps"
    await issue_secret(store, KEY, "App", "ios", actor="ann", now_ms=2000, secret=theirs)
    ios = (await directory(store)).find("us1-in-the-field")
    assert ios is not None and theirs.encode() in ios.secrets
    for bad in ("short", "with spaces in between", "x" * 257, "ünïcödé-is-not-ascii"):
        with pytest.raises(BadRequest):
            await issue_secret(store, KEY, "App", "ios", actor="a", now_ms=1, secret=bad)


async def test_unknown_inputs_have_no_secrets(store: Store) -> None:
    await applied(store)
    for workspace, name in (("App", "page"), ("Nowhere", "ios"), ("", "")):
        with pytest.raises(NotFound):
            await list_secrets(store, workspace, name)
        with pytest.raises(NotFound):
            await issue_secret(store, KEY, workspace, name, actor="a", now_ms=1)
        with pytest.raises(NotFound):
            await revoke_secret(store, workspace, name, 1, actor="a", now_ms=1)
    page = (await list_secrets(store, "Web", "page"))[0]
    with pytest.raises(NotFound):  # of another input
        await revoke_secret(store, "App", "ios", page.secret_id, actor="a", now_ms=1)


async def test_a_wrong_master_key_is_told_and_changes_nothing(store: Store) -> None:
    await applied(store)
    wrong = MasterKey(b"w" * 32)
    before = await everything(store)
    with pytest.raises(KeyProblem, match="does not open the secrets of this database"):
        await directory(store, wrong)
    with pytest.raises(KeyProblem, match="master_key_file"):
        await applied(store, DOCUMENT.replace("max_age_s: 60", "max_age_s: 90"), wrong)
    with pytest.raises(KeyProblem):
        await issue_secret(store, wrong, "App", "ios", actor="a", now_ms=1)
    assert await everything(store) == before
    assert await applied(store, DOCUMENT, wrong) == []  # nothing to seal


async def test_a_directory_that_cannot_load_keeps_what_it_had(store: Store) -> None:
    await applied(store)
    callers = await directory(store)
    async with store.write("spoil") as tx:
        await tx.run("UPDATE secret SET sealed = ?", b"\x01" + b"x" * 40)
        await tx.run(tenants_sql.VERSION_SET, b"99")
    with pytest.raises(KeyProblem):
        await callers.refresh_if_changed()
    assert len(callers) == 4 and callers.callers()[0].secrets


async def test_a_sealed_secret_opens_for_its_own_input_only(store: Store) -> None:
    await applied(store)
    rows = await table(store, "secret")
    async with store.write("swap") as tx:
        await tx.run("UPDATE secret SET sealed = ? WHERE id = ?", rows[1][2], rows[0][0])
    with pytest.raises(KeyProblem):
        await directory(store)


async def test_secrets_cannot_be_read_in_the_database(store: Store, place: Place) -> None:
    out = await apply(store, KEY, DOCUMENT, actor="test", now_ms=1000)
    dump = repr(await everything(store)).encode()
    if place.engine == "sqlite":
        files = [f for f in pathlib.Path(place.url).iterdir() if f.is_file()]
        assert files
        dump += b"".join(f.read_bytes() for f in files)
    for credential in out.credentials:
        assert credential.api_key.encode() in dump
        assert credential.secret.encode() not in dump
