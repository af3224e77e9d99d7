"""The Profile API: what a profile says of places, apps and names elsewhere."""

from __future__ import annotations

import pathlib

from tests.conftest import Place
from tests.web.reading import reading
from tests.web.test_profile_api import BASE


async def test_place_app_and_what_others_call_a_person(
    place: Place, tmp_path: pathlib.Path
) -> None:
    fields = "location,apps,partner_identities,integration_attributes"
    began = {
        "timestamp_unixtime_ms": 1_700_000_000_000,
        "application_transition_type": "application_initialized",
        "is_first_run": True,
        "location": {"latitude": "59.91", "longitude": 10.75, "city_name": "Oslo"},
    }
    async with reading(place, tmp_path) as here:
        mpid = await here.identify({"customerid": "a"})
        empty = (await here.read(mpid, fields)).json()
        assert (empty["location"], empty["apps"]) == (None, [])
        assert (empty["partner_identities"], empty["integration_attributes"]) == ({}, {})
        await here.send(
            {
                "mpid": mpid,
                "device_info": {"platform": "iOS"},
                "application_info": {"application_version": "5.1", "package": "io.shop"},
                "partner_identities": {"Partner_id": "p1"},
                "integration_attributes": {"77": {"cid": "x"}},
                "events": [{"event_type": "application_state_transition", "data": began}],
            }
        )
        found = (await here.read(mpid, fields)).json()
        at = found["location"]
        assert (at["latitude"], at["longitude"], at["city_name"]) == (59.91, 10.75, "Oslo")
        assert at["timestamp_unixtime_ms"] == 1_700_000_000_000
        (app,) = found["apps"]
        assert (app["platform"], app["application_version"]) == ("ios", "5.1")
        assert (app["installed_ms"], app["uninstalled_ms"]) == (1_700_000_000_000, None)
        assert found["partner_identities"] == {"Partner_id": "p1"}
        assert found["integration_attributes"] == {"77": {"cid": "x"}}
        # they belong to the workspace that was told
        elsewhere = (await here.read(mpid, fields, workspace="sister")).json()
        assert {k: elsewhere[k] for k in empty.keys() - BASE} == {
            k: empty[k] for k in empty.keys() - BASE
        }
