"""What may come in at all: consent, opt-out, ad tracking, addresses; on both engines."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest
from tests.flows.test_events_flow import send, view
from tests.web.serving import TENANTS, Running, running

from onymous.flows.configure import BadDocument, ChangeRefused, export
from onymous.flows.tenants import apply

CASES = pathlib.Path(__file__).parents[1] / "cases" / "consent.jsonl"
MORE = (
    TENANTS
    + """
  private:
    consent_purposes: [" Location_Collection", analytics]
    inputs:
      private: {kind: server, api_key: private-api-key, keep_ip: false, restrict_device_ids: true}
    feeds:
      partner: {kind: partner_feed, api_key: partner-api-key}
"""
)
IDFA = "5864e6b0-0d46-4667-a463-21d9493b6c10"
IDFV = "0b4f7a52-1c6e-4e2b-8a2f-3d1c5b7e9f01"


async def with_private(it: Running) -> None:
    core = it.server.core
    out = await apply(core.store, core.key, MORE, actor="test", now_ms=2)
    await core.directory.load()
    it.secrets |= {c.input: c.secret for c in out.credentials}


def case(name: str) -> Any:
    cases = [json.loads(line) for line in CASES.read_text().splitlines()]
    return next(c for c in cases if c["id"] == name)


async def known(it: Running, who: str = "private", **extra: Any) -> Any:
    """Send a batch of one customer and return the profile."""
    batch = {"user_identities": {"customerid": "c"}, **extra}
    assert await send(it, batch, who=who) == 202
    reply = await it.ask("search", {"customerid": "c"}, who="private")
    assert reply.status_code == 200, reply.text
    return await view(it, reply.json()["mpid"])


def consent_of(profile: Any) -> dict[str, bool]:
    return {
        name: consent.consented
        for person in profile.workspaces.values()
        for name, consent in person.consent.items()
    }


async def stored(it: Running) -> str:
    """Every stored batch as text."""
    core = it.server.core
    async with core.store.read() as session:
        rows = await session.rows("SELECT dictionary, body FROM batch")
        bodies = [await core.bodies.unpack(session, row[0], row[1]) for row in rows]
    return b" ".join(bodies).decode()


async def test_partner_feeds_cannot_set_consent(place: Any, tmp_path: pathlib.Path) -> None:
    it_case = case("consent-07")
    async with running(place, tmp_path) as it:
        await with_private(it)
        profile = await known(it, "partner", **it_case["request"])
        assert bool(consent_of(profile)) is it_case["expect"]["stored"]
        profile = await known(it, "private", **it_case["request"])
        assert consent_of(profile) == {"gdpr/location_collection": True}


async def test_older_consent_loses(place: Any, tmp_path: pathlib.Path) -> None:
    it_case = case("consent-08")
    async with running(place, tmp_path) as it:
        await with_private(it)
        await known(it, consent_state=it_case["initial_consent"])
        profile = await known(it, **it_case["request"])
        (said,) = consent_of(profile).values()
        assert (said is False) is it_case["expect"]["stored"]


async def test_an_alias_leaves_consent_where_it_is(place: Any, tmp_path: pathlib.Path) -> None:
    it_case = case("consent-09")
    async with running(place, tmp_path) as it:
        await with_private(it)
        gone = (await it.ask("identify", {"ios_idfv": IDFV}, who="private")).json()["mpid"]
        yes = {"gdpr": {"analytics": {"consented": True}}}
        assert await send(it, {"mpid": gone, "consent_state": yes}, who="private") == 202
        assert consent_of(await view(it, gone)) == {"gdpr/analytics": True}
        here = (await it.ask("identify", {"customerid": "c"}, who="private")).json()["mpid"]
        alias = {
            "request_id": "00000000-0000-4000-8000-000000000001",
            "request_type": "alias",
            "environment": "production",
            "api_key": "private-api-key",
            "data": {
                "source_mpid": gone,
                "destination_mpid": here,
                "start_unixtime_ms": 1,
                "end_unixtime_ms": 9_999_999_999_999,
            },
        }
        reply = await it.client.post(
            "/v1/identity/private-api-key/alias", json=alias, headers=it.basic("private")
        )
        assert reply.status_code == 202, reply.text
        assert (await view(it, here)).aliases_in
        assert (consent_of(await view(it, here)) or None) == it_case["expect"][
            "destination_consent"
        ]


async def test_undeclared_purposes_are_left_out_and_told(
    place: Any, tmp_path: pathlib.Path
) -> None:
    async with running(place, tmp_path) as it:
        await with_private(it)
        said = {
            "gdpr": {"ANALYTICS ": {"consented": True}, "ads": {"consented": True}},
            "ccpa": {"data_sale_opt_out": {"consented": True}},
        }
        profile = await known(it, consent_state=said)
        expected = {"gdpr/analytics": True, "ccpa/data_sale_opt_out": True}
        assert consent_of(profile) == expected
        core = it.server.core
        await core.resolver.diagnostics.flush(core.store)
        async with core.store.read() as session:
            told = await session.rows("SELECT detail FROM diagnostic WHERE kind = 'batch_noted'")
        assert [json.loads(bytes(row[0])) for row in told] == [
            {"reasons": ["consent_purpose_undeclared"]}
        ]
        anywhere = await send(it, {"user_identities": {"customerid": "c"}, "consent_state": said})
        assert anywhere == 202


async def test_addresses_and_advertising_ids_stay_out(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        await with_private(it)
        info = {"limit_ad_tracking": True, "ios_advertising_id": IDFA, "ios_idfv": IDFV}
        profile = await known(it, ip="203.0.113.7", device_info=info)
        names = {n.type for n in profile.device_identities}
        assert "ios_idfv" in names and "ios_idfa" not in names
        text = await stored(it)
        assert "203.0.113.7" not in text and IDFA not in text and IDFV in text
        # another input keeps both: the switches are its own
        batch = {"user_identities": {"customerid": "d"}, "ip": "203.0.113.8", "device_info": info}
        assert await send(it, batch) == 202
        text = await stored(it)
        assert "203.0.113.8" in text and IDFA in text


@pytest.mark.parametrize(
    ("status", "kept"), [("authorized", True), ("denied", False), (None, True)]
)
async def test_apples_id_needs_a_yes(
    place: Any, tmp_path: pathlib.Path, status: str | None, kept: bool
) -> None:
    async with running(place, tmp_path) as it:
        info = {"ios_advertising_id": IDFA, "ios_idfv": IDFV}
        if status is not None:
            info["att_authorization_status"] = status
        batch = {"user_identities": {"customerid": "d"}, "device_info": info}
        assert await send(it, batch) == 202
        assert (IDFA in await stored(it)) is kept
        found = await it.ask("search", {"ios_idfa": IDFA, "customerid": "d"})
        names = {n["identity_type"] for n in found.json().get("identities", [])}
        assert "ios_idfa" not in names or kept


async def test_declared_purposes_stay(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        await with_private(it)
        core = it.server.core

        async def again(line: str) -> Any:
            text = MORE.replace('    consent_purposes: [" Location_Collection", analytics]\n', line)
            return await apply(core.store, core.key, text, actor="test", now_ms=3)

        assert not (await again("")).changed
        with pytest.raises(ChangeRefused) as caught:
            await again("    consent_purposes: [analytics]\n")
        assert "location_collection is missing" in str(caught.value.refused[0].why)
        with pytest.raises(BadDocument, match="stands there twice"):
            await again("    consent_purposes: [a, A]\n")
        more = await again("    consent_purposes: [analytics, location_collection, ads]\n")
        assert more.changed
        assert not (
            await apply(core.store, core.key, await export(core.store), actor="test", now_ms=4)
        ).changed
        await core.directory.load()
        caller = core.directory.find("private-api-key")
        assert caller is not None
        assert caller.purposes == {"analytics", "location_collection", "ads"}
