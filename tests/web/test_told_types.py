"""Every identity type over the wire, in the spelling of each door, from the type map."""

from __future__ import annotations

import json
import pathlib
from typing import Any

from tests.web.reading import Reading, reading
from tests.web.telling import world

MAP = pathlib.Path(__file__).parent.parent / "cases" / "identity_type_map.jsonl"
ROWS: list[dict[str, Any]] = [json.loads(line) for line in MAP.read_text("utf-8").splitlines()]
#: types whose values have a form of their own
GUID = "5F3C0C1E-8A9B-4D22-9E0F-0000000000{:02}"


def value_of(row: dict[str, Any], number: int) -> str:
    """Return a value nobody else has; advertising ids and stamps look like what they are."""
    return GUID.format(number) if row["class"] == "device" else f"value {number}"


def first(text: str | None) -> str | None:
    return text.split(" ")[0].rstrip("*") if text else None


async def shown(here: Reading, mpid: str) -> list[tuple[str, str]]:
    path = f"/userprofile/v1/{here.path('plainly')}/{mpid}"
    fields = "user_identities,device_identities"
    reply = await here.client.get(path, params={"fields": fields}, headers=here.bearer("plainly"))
    body = reply.json()
    both = body["user_identities"] + body["device_identities"]
    assert all(one["encoding"] == "none" for one in both)
    return [(one["type"], one["value"]) for one in both]


async def find(here: Reading, name: str, value: str) -> str:
    """Search for a value of a type and return who holds it."""
    reply = await here.running.ask("search", {name: value}, who="bareserver")
    assert reply.status_code == 200, (name, reply.text)
    return str(reply.json()["mpid"])


async def test_every_type_comes_in_by_identify_and_modify(
    place: Any, tmp_path: pathlib.Path
) -> None:
    async with reading(place, tmp_path) as here:
        await world(here)
        for number, row in enumerate(ROWS):
            name, value = row["identity_api"], value_of(row, number)
            known = {"customerid": f"holder {number}"} | {name: value}
            reply = await here.running.ask("identify", known, who="bareserver")
            assert reply.status_code == 200, (name, reply.text)
            mpid = reply.json()["mpid"]
            assert await find(here, name, value) == mpid
            wanted = first(row["profile_api"]) or (
                row["events_user_identities"] if row["class"] == "user" else "unknown"
            )
            assert (wanted, value) in await shown(here, mpid), name
            change = [{"identity_type": name, "old_value": value, "new_value": value_of(row, 99)}]
            if name != "customerid":
                reply = await here.running.modify(mpid, change, who="bareserver")
                assert reply.status_code == 200, (name, reply.text)
                assert reply.json()["change_results"], name
                assert await find(here, name, value_of(row, 99)) == mpid


async def test_every_type_comes_in_by_its_field_of_a_batch(
    place: Any, tmp_path: pathlib.Path
) -> None:
    async with reading(place, tmp_path) as here:
        await world(here)
        for number, row in enumerate(ROWS):
            name, value = row["identity_api"], value_of(row, number)
            fields = [row.get("events_user_identities"), *row.get("events_aliases", [])]
            for field in filter(None, fields):
                who = {"customer_id": f"holder {number}"} | {field: value}
                await here.send({"user_identities": who}, "bareserver")
                assert await find(here, name, value)
            field = first(row.get("events_device_info"))
            if field is not None:
                batch = {"user_identities": {"customer_id": f"holder {number}"}}
                batch |= (
                    {field: value} if field == "mp_deviceid" else {"device_info": {field: value}}
                )
                await here.send(batch, "bareserver")
                assert await find(here, name, value)


async def test_every_number_of_the_native_wire(place: Any, tmp_path: pathlib.Path) -> None:
    async with reading(place, tmp_path) as here:
        await world(here)
        for number, row in enumerate(ROWS):
            name, value = row["identity_api"], value_of(row, number)
            code = row["sdk_code"] if row["sdk_code"] is not None else row["ios_mpidentity"]
            if code is None:
                continue
            ui = [{"n": 1, "i": f"holder {number}", "dfs": 1, "f": True}]
            batch = {"dt": "h", "id": f"b{number}", "ui": [*ui, {"n": code, "i": value}]}
            path = "/v2/bareapp-api-key/events"
            headers = here.running.basic("bareapp")
            reply = await here.client.post(path, json=batch, headers=headers)
            assert (reply.status_code, reply.json()) == (202, {})
            assert await find(here, name, value), name


async def test_other_spellings_are_refused_by_name_or_folded(
    place: Any, tmp_path: pathlib.Path
) -> None:
    """The Identity API is strict; an input may fold what events, feeds and requests fold."""
    async with reading(place, tmp_path) as here:
        await world(here)
        names = {row["identity_api"] for row in ROWS}
        for number, row in enumerate(ROWS):
            columns = ("events_user_identities", "events_device_info", "profile_api", "opendsr")
            words = {first(row.get(column)) for column in columns}
            words |= set(row.get("events_aliases", []))
            for word in sorted(w for w in words if w and w not in names):
                value = value_of(row, number)
                reply = await here.running.ask("identify", {word: value}, who="bareserver")
                assert reply.status_code == 400, word
                assert word in reply.json()["message"] and value not in reply.text
                known = {"customerid": f"holder {number}", word: value}
                if row["identity_api"] == "customerid":
                    known = {word: value}
                reply = await here.running.ask("identify", known, who="folding")
                assert reply.status_code == 200, (word, reply.text)
                assert await find(here, row["identity_api"], value)
