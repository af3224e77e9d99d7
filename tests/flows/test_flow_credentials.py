"""Secrets of inputs, on both engines: rotation, revocation, sealing, the master key."""

from __future__ import annotations

import asyncio
import pathlib
from typing import TYPE_CHECKING

import pytest
from applying import DOCUMENT, KEY, applied, directory, everything, table

from onymous.crypto import KeyProblem, MasterKey
from onymous.flows.tenants import apply, issue_secret, list_secrets, revoke_secret
from onymous.rules.errors import BadRequest, NotFound
from onymous.store import tenants_sql
from onymous.store.port import Store

if TYPE_CHECKING:
    from conftest import Place


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
