"""What stays masked, what is revealed, and who is seen to have looked."""

from __future__ import annotations

import json
import pathlib
from typing import Any

from tests.console.making import (
    ANNA,
    asked_by,
    audits,
    batch,
    console,
    here,
    someone,
    story,
)

from onymous.console.masking import Handles, masked_json, scrubbed
from onymous.console.site import labelled
from onymous.console.view import Shown, sent, timeline_of
from onymous.flows.history import Changed, Happened
from onymous.flows.timeline import Item, Sent
from onymous.rules.masking import mask


async def test_nothing_is_shown_before_it_is_revealed(tmp_path: pathlib.Path, place: Any) -> None:
    async with console(place, tmp_path) as it, someone(it, "helen") as helen:
        mpid = await story(it)
        home = await here(it)
        page = await helen.get(f"{home}/person/{mpid}")
        assert page.status_code == 200
        assert page.headers["cache-control"] == "no-store"
        for secret in (*ANNA.values(), "Anna", "Malmö", "5da9e5c9", "onerror"):
            assert secret not in page.text, secret
        assert "a***@x.io" in page.text and "****11" in page.text
        search = await helen.get(home)
        assert not any(secret in search.text for secret in ANNA.values())


async def test_reveals_are_exact_and_audited(tmp_path: pathlib.Path, place: Any) -> None:
    async with console(place, tmp_path) as it, someone(it, "helen") as helen:
        mpid = await story(it)
        person = f"{await here(it)}/person/{mpid}"
        page = (await helen.get(person)).text
        handle = page.split("a***@x.io")[0].rpartition('data-v="')[2].partition('"')[0]
        shown = await helen.post(f"{person}/reveal", value=handle)
        assert "anna@x.io" in shown.text and "cust-4711" not in shown.text
        headers = {"accept": "application/json"}
        data = {"csrf": helen.csrf, "value": "all-names"}
        every = await helen.client.post(f"{person}/reveal", data=data, headers=headers)
        assert set(every.json().values()) >= set(ANNA.values())
        assert (await helen.post(f"{person}/reveal", value="made-up")).status_code == 404
        assert (await helen.post(f"{person}/reveal")).status_code == 404
        log = [(w, s, d["field"]) for w, a, s, d in await audits(it) if a == "reveal"]
        assert log[0] == ("console/helen", mpid, "email")
        assert {field for _, _, field in log} >= {"customerid", "device_application_stamp"}
        assert "anna@x.io" not in json.dumps(await audits(it))


async def test_attributes_are_revealed_one_by_one_or_all_of_a_workspace(
    tmp_path: pathlib.Path, place: Any
) -> None:
    async with console(place, tmp_path) as it, someone(it, "helen") as helen:
        mpid = await story(it)
        colours = ["emerald green", "midnight blue", "signal red"]
        await batch(
            it,
            user_identities={"customer_id": ANNA["customerid"]},
            user_attributes={"colours": colours, "VIP": None},
        )
        person = f"{await here(it)}/person/{mpid}"
        page = (await helen.get(person)).text
        one = await helen.post(f"{person}/reveal", value=asked_by(page, "colours"))
        assert all(colour in one.text for colour in colours) and "Malmö" not in one.text
        every = await helen.post(f"{person}/reveal", value=asked_by(page, "all attributes"))
        assert "Malmö" in every.text and colours[2] in every.text and "cust-4711" not in every.text
        assert 'aria-label="Reveal all attributes"' in page
        log = [d["field"] for _, a, _, d in await audits(it) if a == "reveal"]
        assert log[0] == "attribute colours in one" and "attribute $city in one" in log


async def test_place_app_and_names_elsewhere_are_shown_and_masked(
    tmp_path: pathlib.Path, place: Any
) -> None:
    async with console(place, tmp_path) as it, someone(it, "helen") as helen:
        mpid = await story(it)
        await batch(
            it,
            user_identities={"customer_id": ANNA["customerid"]},
            context={"location": {"latitude": 55.6, "longitude": 13, "city_name": "Lomma"}},
            application_info={"application_name": "Shop app", "application_version": "5.1"},
            partner_identities={"Partner_id": "partner-4711"},
            integration_attributes={"77": {"cid": "integration-4711"}},
            events=[{"event_type": "uninstall", "data": {}}],
        )
        person = f"{await here(it)}/person/{mpid}"
        page = (await helen.get(person)).text
        secrets = ("Lomma", "55.6", "partner-4711", "integration-4711")
        assert not any(secret in page for secret in secrets)
        assert "Last place" in page and "Shop app</b> 5.1" in page and "uninstalled" in page
        every = await helen.post(f"{person}/reveal", value=asked_by(page, "all attributes"))
        assert all(secret in every.text for secret in secrets)
        log = {d["field"] for _, a, _, d in await audits(it) if a == "reveal"}
        assert {"location in one", "partner Partner_id in one"} <= log
        assert "integration 77 cid in one" in log


async def test_who_looked_at_whom(tmp_path: pathlib.Path, place: Any) -> None:
    async with (
        console(place, tmp_path) as it,
        someone(it, "rita") as rita,
        someone(it, "boss") as boss,
    ):
        anna = await story(it)
        other = (await it.ask("login", {"email": "ben@x.io"})).json()["mpid"]
        home = await here(it)
        for path in (anna, anna, f"{anna}?show=events", other):
            assert (await rita.get(f"{home}/person/{path}")).status_code == 200
        # somebody who is not there was not looked at
        assert (await rita.get(f"{home}/person/5")).status_code == 404
        views = [(who, whom) for who, did, whom, _ in await audits(it) if did == "view"]
        assert views == [("console/rita", anna), ("console/rita", other)]
        assert "Who looked?" not in (await rita.get(f"{home}/person/{anna}")).text
        page = (await boss.get(f"{home}/person/{anna}")).text
        assert f"/console/audit?of={anna}" in page
        both = {"source": other, "destination": anna, "reason": "one card"}
        assert (await boss.post(f"{home}/merge", **both)).status_code == 303
        told = (await boss.get(f"/console/audit?of={anna}")).text
        assert "console/rita" in told and "one card" in told and "add console user" not in told
        assert (await rita.get(f"/console/audit?of={anna}")).status_code == 403
        assert "add console user" in (await boss.get("/console/audit?of=nobody")).text


async def test_batches_are_masked(tmp_path: pathlib.Path, place: Any) -> None:
    async with console(place, tmp_path) as it, someone(it, "helen") as helen:
        mpid = await story(it)
        person = f"{await here(it)}/person/{mpid}"
        page = (await helen.get(person)).text
        number = page.partition("/batch/")[2].partition('"')[0]
        masked = await helen.get(f"{person}/batch/{number}")
        assert "commerce_event" in masked.text and "purchase" in masked.text
        for secret in ("cust-4711", "Anna", "Malmö"):
            assert secret not in masked.text
        clear = await helen.post(f"{person}/batch/{number}")
        assert "Malmö" in clear.text
        assert ("console/helen", "reveal", mpid) in [(a, b, c) for a, b, c, _ in await audits(it)]
        assert (await helen.get(f"{person}/batch/999999")).status_code == 404


def test_masks() -> None:
    assert mask("anna@x.io") == "a***@x.io"
    assert mask("5551234542") == "****42"
    assert mask("short") == "****" and mask("") == "****"
    assert mask("a@b@c.io") == "****io" and mask("@x.io") == "****"
    raw = {
        "events": [
            {
                "event_type": "custom_event",
                "data": {
                    "event_name": "Go",
                    "custom_attributes": {"name": "Anna Lindqvist", "n": 7},
                },
            },
            {
                "event_type": "user_identity_change",
                "data": {"new": {"identity_type": "email", "identity": "anna@x.io"}},
            },
        ],
        "ip": "10.20.30.40",
        "user_attributes": {"$Age": 34, "name": ["Anna", "Ann"]},
        "mpid": 123456789012345678,
        "strange": {"deep": [{"er": "Anna Lindqvist"}]},
    }
    text = json.dumps(masked_json(raw))
    for secret in ("Anna", 'Ann"', "anna@x.io", "34", "10.20", "1234567", "Lind"):
        assert secret not in text, secret
    for plain in ("custom_event", "Go", '"identity_type": "email"'):
        assert plain in text


def test_names_of_events_may_hold_addresses() -> None:
    for text, shown in (
        ("Viewed basket 12", "Viewed basket 12"),
        ("Mail to anna@x.io sent", "Mail to a***@x.io sent"),
        ("/user/070-123 45 67/orders", "/user/****67/orders"),
        ("Sale 2026-11-28", "Sale 2026-11-28"),
        ("purchase 1,234,567.00", "purchase 1,234,567.00"),
    ):
        assert scrubbed(text) == shown
    raw = {"events": [{"event_type": "screen_view", "data": {"screen_name": "of anna@x.io"}}]}
    assert "anna" not in json.dumps(masked_json(raw))


def test_sentences_name_types_as_people_do() -> None:
    told = labelled("both have a customerid, and not the same")
    assert told == "both have a Customer ID, and not the same"
    plain = "the source is known, the destination is anonymous: merge the other way round?"
    assert labelled(plain) == plain


def test_what_a_timeline_says() -> None:
    shown = Shown(Handles(b"k" * 32), "1", frozenset())

    def item(mpid: str, operation: str, change: Changed) -> Item:
        happened = Happened(
            entry="1", at_ms=1, operation=operation, workspace="w", input="i", changes=[change]
        )
        return Item(at_ms=1, mpid=mpid, change=happened)

    merged = [
        item("1", "merge", Changed(change="merged", mpid="2")),
        item("2", "merge", Changed(change="merged", mpid="1")),
        item("2", "login", Changed(change="created", mpid="3")),
    ]
    told = timeline_of(merged, shown, "1")
    # a merge stands in two ledgers, and is told once
    assert [(t["title"], t["of"]) for t in told] == [("merge", ""), ("login", "2")]
    assert told[1]["changes"][0]["join"] == "beside the anonymous"
    kinds = [("commerce_event", "purchase 99.50", 1)]
    facts = {"id": 1, "mpid": "1", "at_ms": 1, "received_ms": 1, "workspace": "w", "input": "i"}
    assert sent(Sent(**facts, platform="", events=kinds))["title"] == "batch"
