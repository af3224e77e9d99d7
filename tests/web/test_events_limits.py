"""Limits of events: waiting bytes, requests of inputs, what a public key or a feed may say."""

from __future__ import annotations

import asyncio
import pathlib
from typing import Any

from tests.flows.test_events_flow import purchase, send, view, who_is
from tests.web.serving import TENANTS, running
from tests.web.test_events_http import ANNA, SERVER, WEB, diagnosed, post

from onymous.flows.tenants import apply

FEED = (
    TENANTS
    + """
    feeds:
      crm: {kind: custom_feed, api_key: crm-api-key}
      partner: {kind: partner_feed, api_key: partner-api-key, partner: Braze}
"""
)


async def test_waiting_batches_are_bounded_in_bytes(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        events = it.server.core.events
        events._most_held = 100_000
        big = {**ANNA, "user_attributes": {"a": "x" * 4000}, "pad": "y" * 40_000}
        replies = await asyncio.gather(*(post(it, SERVER, big) for _ in range(12)))
        codes = {r.status_code for r in replies}
        assert codes == {202, 503}
        assert all(r.headers.get("retry-after") for r in replies if r.status_code == 503)
        assert events.held == 0
        assert await send(it, big) == 202
        web = await asyncio.gather(*(post(it, WEB, big, None) for _ in range(12)))
        assert {r.status_code for r in web} <= {202, 503}
        assert events.held == 0 and await it.server.core.spool.quarantined() == []


async def test_limits_of_inputs_and_of_public_keys(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(
        place,
        tmp_path,
        address_requests_per_second=0,
        address_profiles_per_hour=3,
        address_values_per_hour=3,
    ) as it:
        core = it.server.core
        more = TENANTS.replace(
            "api_key: plain-api-key", "api_key: plain-api-key, requests_per_second: 2"
        )
        await apply(core.store, core.key, more, actor="test", now_ms=2)
        await core.directory.load()
        replies = await asyncio.gather(*(post(it, SERVER, ANNA, "plain") for _ in range(8)))
        late = [r for r in replies if r.status_code == 429]
        assert late and all(r.headers["retry-after"].isdigit() for r in late)
        assert {r.headers["x-mp-rate-limit-exceeded"] for r in late} == {"app"}
        # a public key makes a bounded number of people, whatever MPID it says
        codes = []
        for n in range(8):
            batch = {
                "mp_deviceid": f"4b8d2d52-6e1c-4c42-9d33-a5a1d2c3e4f{n}",
                "mpid": [None, "99"][n % 2],
                "events": [purchase(1)],
            }
            codes.append((await post(it, WEB, batch, None)).status_code)
        assert codes == [202] * 3 + [429] * 5
        # ... but sends on for those it knows
        mpid = await who_is(it, customerid="anna")
        assert (await post(it, WEB, {"mpid": mpid}, None)).status_code == 202
        assert await core.spool.quarantined() == []
    async with running(place, tmp_path, address_values_per_hour=3) as it:
        codes = []
        for n in range(6):
            batch = {"user_identities": {"customer_id": f"new{n}"}}
            codes.append((await post(it, WEB, batch, None)).status_code)
        assert codes == [202] * 3 + [429] * 3


async def test_a_public_key_belongs_to_its_pages(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        core = it.server.core
        more = TENANTS.replace(
            "api_key: web-api-key", 'api_key: web-api-key, cors_origins: ["https://shop.example"]'
        )
        await apply(core.store, core.key, more, actor="test", now_ms=2)
        await core.directory.load()
        for origin, status in (("https://shop.example", 202), ("https://evil.example", 403)):
            assert (await post(it, WEB, ANNA, None, Origin=origin)).status_code == status


async def test_feeds_say_only_what_is_theirs(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        core = it.server.core
        out = await apply(core.store, core.key, FEED, actor="test", now_ms=2)
        await core.directory.load()
        it.secrets |= {c.input: c.secret for c in out.credentials}
        batch = {
            "user_identities": {"customerid": "z"},
            "partner_identities": {"Braze_id": "b", "Other_id": "o"},
            "consent_state": {"ccpa": {"data_sale_opt_out": {"consented": True}}},
        }
        for who, partners, consents in (
            ("partner", {"Braze_id"}, 0),
            ("crm", {"Braze_id", "Other_id"}, 1),
        ):
            reply = await post(it, "/s2s/v2/events", batch, who)
            assert reply.status_code == 202
            found = await it.ask("search", {"customerid": "z"}, who="stranger")
            (person,) = (await view(it, found.json()["mpid"])).workspaces.values()
            assert set(person.partners) == partners and len(person.consent) == consents
        told = [d for kind, _, d in await diagnosed(it) if kind == "batch_noted"]
        assert told == [{"reasons": ["consent_not_allowed", "partner_identity_foreign"]}]
