"""Applying documents, exporting them and the directory, on both engines."""

from __future__ import annotations

import asyncio
import json
import pathlib
from typing import TYPE_CHECKING

import pytest
from applying import DOCUMENT, KEY, applied, directory, everything, put_person, table

from onymous.flows.tenants import (
    BadDocument,
    ChangeRefused,
    apply,
    export,
    has_data,
    issue_secret,
    parse,
    starter,
)
from onymous.store.port import Store
from onymous.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from conftest import Place

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
    assert caught.value.status == 400 and "1 to correct" in str(caught.value)
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
    with pytest.raises(ChangeRefused, match="1 not safe to change"):
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
    other = SqliteStore(tmp_path / "other")
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
