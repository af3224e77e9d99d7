"""Files whose rows are events: columns below `events.data.`, and which events they are."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest
from tests.flows.test_events_flow import view, who_is
from tests.flows.test_importing import load
from tests.web.serving import running

from onymous.flows.files import Ready
from onymous.readers import read
from onymous.rules.errors import MappingInvalid
from onymous.rules.mapping import batch_of, event_type_of, map_columns, time_of

VIEWS = """\
user_identities.customerid,user_attributes.$FirstName,events.data.event_name,\
events.data.custom_event_type,events.data.timestamp_unixtime_ms,\
events.data.custom_attributes.page.kind,mp_deviceid
c-1,Anna,Viewed,navigation,1700000000000,home,
c-1,Anna,Clicked,other,1700000001000,,
c-2,Ben,Viewed,navigation,2023-11-14T22:13:20Z,home,5da9e5c9-1111-2222
,,Viewed,navigation,1700000000000,home,
c-3,Cleo,,,,,
"""
ORDERS = """\
customer_id;events.data.product_action.action;events.data.product_action.total_amount;\
events.data.product_action.products.id;events.data.product_action.products.price
c-1;purchase;12.50;p-1;12.50
c-1;refund;2.50;p-1;2.50
"""


def ready(file: pathlib.Path) -> list[Ready]:
    """Return the rows of a file as the command reads them."""
    headers, rows = read(file)
    columns = map_columns(headers)
    event, out = event_type_of(file.name, columns), list[Ready]()
    for n, row in enumerate(rows, 1):
        batch = batch_of(columns, row, event)
        stated = batch.pop("timestamp", None)
        out.append((n, batch, time_of(stated) if stated else None))
    return out


def written(folder: pathlib.Path, name: str, text: str) -> pathlib.Path:
    file = folder / name
    file.write_text(text)
    return file


async def test_rows_become_events_of_their_people(place: Any, tmp_path: pathlib.Path) -> None:
    views = ready(written(tmp_path, "shop-custom_event.csv", VIEWS))
    orders = ready(written(tmp_path, "shop-commerce_event.csv", ORDERS))
    async with running(place, tmp_path) as it:
        report, rejected = await load(it, views)
        assert (report.applied, report.created) == (4, 3)
        assert [(r.row, r.why) for r in rejected] == [(4, "no_usable_identity")]
        report, _ = await load(it, orders, b"orders")
        assert (report.applied, report.created) == (2, 0)
        again, _ = await load(it, orders, b"orders")
        assert (again.applied, again.before) == (0, 2)
        anna = await view(it, await who_is(it, customerid="c-1"))
        assert anna.lifetime_value == 10
        (known,) = anna.workspaces.values()
        assert (known.batches, known.events) == (4, 4)
        assert known.first_ms == 1_700_000_000_000
        assert set(known.attributes) == {"$firstname"}, "columns of events are no attributes"
        ben = await view(it, await who_is(it, customerid="c-2"))
        assert [n.value for n in ben.device_identities] == ["5da9e5c9-1111-2222"]
        core = it.server.core
        async with core.store.read() as session:
            rows = await session.rows("SELECT dictionary, body FROM batch ORDER BY id")
            bodies = [json.loads(await core.bodies.unpack(session, *row)) for row in rows]
        # rows that meet nobody are written before those that are decided in order
        told = [body["events"][0] for body in bodies if "events" in body]
        assert {
            "event_type": "custom_event",
            "data": {
                "event_name": "Viewed",
                "custom_event_type": "navigation",
                "custom_attributes": {"page.kind": "home"},
                "timestamp_unixtime_ms": 1_700_000_000_000,
            },
        } in told
        times = {event["data"].get("timestamp_unixtime_ms") for event in told}
        assert times == {1_700_000_000_000, 1_700_000_001_000, None}
        action = next(e["data"]["product_action"] for e in told if "commerce" in e["event_type"])
        assert action["products"] == [{"id": "p-1", "price": "12.50"}]
        assert sum("events" in body for body in bodies) == 5, "a row without one is a person only"


@pytest.mark.parametrize(
    ("file", "headers", "expected"),
    [
        ("a-screen_view.csv", ["email", "events.data.screen_name"], "screen_view"),
        ("a-eventless.csv", ["email", "events.data.event_name"], ""),
        ("a-custom_event.csv", ["email", "plan"], ""),
        ("a-custom_event.csv.gz", ["email", "events.data.event_name"], "custom_event"),
        ("people.csv", ["email", "events.data.screen_name"], "screen_view"),
        ("people.jsonl", ["email", "events.data.product_action.action"], "commerce_event"),
        ("people.csv", ["email", "events.data.event_name", "x"], "custom_event"),
        ("people.csv", ["email", "events.data.timestamp_unixtime_ms"], ""),
    ],
)
def test_which_events_a_file_holds(file: str, headers: list[str], expected: str) -> None:
    assert event_type_of(file, map_columns(headers)) == expected


def test_what_says_nothing_of_its_kind_is_refused() -> None:
    with pytest.raises(MappingInvalid, match="custom_event"):
        event_type_of("people.csv", map_columns(["email", "events.data.custom_attributes.a"]))


def test_a_column_of_any_name_may_be_a_field_of_an_event() -> None:
    columns = map_columns(
        ["mail", "what", "kind"],
        {"mail": "email", "what": "events.data.event_name", "kind": "-"},
    )
    assert batch_of(columns, {"mail": "a@b.c", "what": "Viewed"}, "custom_event")["events"] == [
        {"event_type": "custom_event", "data": {"event_name": "Viewed"}}
    ]
