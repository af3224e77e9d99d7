"""Values on very many records: last seen decides, exactly; too many people, and it finds nobody."""

from __future__ import annotations

import pathlib
from typing import Any

import onymous
from onymous.flows.working import Working
from onymous.rules.records import Record
from onymous.settings import load
from onymous.store.port import FEW, Found, Probe

RULES: dict[str, Any] = {
    "login": ("customerid",),
    "unique": ("customerid",),
    "priority": ("customerid", "ios_idfv", "device_application_stamp"),
}


def opened(place: Any, tmp_path: pathlib.Path, monkeypatch: Any) -> onymous.Onymous:
    """Open a place with the master key in the test's folder."""
    monkeypatch.setattr("onymous.app.master_key_path", lambda _: tmp_path / "master.key")
    assert load({}, environ={})
    return onymous.open(place.url, **RULES)


def test_of_many_visitors_the_last_seen_is_found(
    place: Any, tmp_path: pathlib.Path, monkeypatch: Any
) -> None:
    with opened(place, tmp_path, monkeypatch) as ids:
        first = ids.identify({"ios_idfv": "D"}).mpid
        for _ in range(40):
            last = ids.logout({"ios_idfv": "D"}).mpid
        assert ids.identify({"ios_idfv": "D"}).mpid == last
        assert ids.identify({"ios_idfv": "D"}, previous=first).mpid == first
        assert ids.identify({"ios_idfv": "D"}).mpid == first
    with opened(place, tmp_path, monkeypatch) as ids:
        assert ids.identify({"ios_idfv": "D"}).mpid == first
        assert len(ids.find({"ios_idfv": "D"})) == 41


def test_a_value_of_too_many_people_finds_nobody_but_the_previous_visitor(
    place: Any, tmp_path: pathlib.Path, monkeypatch: Any
) -> None:
    kiosk = {"device_application_stamp": "K"}
    with opened(place, tmp_path, monkeypatch) as ids:
        visitor = ids.identify(kiosk).mpid
        for n in range(100):
            ids.login({"customerid": f"c{n}", "ios_idfv": f"own {n}", **kiosk})
        people = len(ids.find(kiosk))
        again = ids.identify(kiosk, explain=True)
        assert again.trace is not None
        assert not again.trace.hot
        ids.login({"customerid": "one more", "ios_idfv": "own", **kiosk})
        hot = ids.identify(kiosk, explain=True)
        assert hot.trace is not None
        assert hot.trace.hot == ["device_application_stamp"]
        assert hot.mpid not in (visitor, again.mpid)
        assert ids._core.diagnostics.counts["hot_value"] >= 1
        assert ids.identify(kiosk).mpid != hot.mpid
        assert ids.identify(kiosk, previous=hot.mpid).mpid == hot.mpid
        known = ids.login({"customerid": "c7"}).mpid
        assert ids.identify(kiosk, previous=known).mpid != known
        assert ids.identify({"customerid": "c7", **kiosk}).mpid == known
        assert len(ids.find(kiosk)) >= people


def test_of_a_hot_value_the_latest_few_are_looked_at() -> None:
    """Sixty strangers of one tablet in one transaction must not be compared with each other."""
    probe, working = Probe(2, {3: "K"}), Working([])
    found = [Record(pid, 2, 0, 0) for pid in range(FEW, 0, -1)]  # the latest first
    working.load([probe], [Found(found, {(3, "K"): [r.pid for r in found]}, {3: 100})])
    for pid in range(FEW + 1, 61):  # as they come
        working.records[pid] = Record(pid, 2, 0, 0)
        working.by_value[2, 3, "K"].append(pid)
    assert len(working.candidates(probe)) == 60
    assert [r.pid for r in working.candidates(probe, 1 << 3)] == [*range(60, 60 - FEW, -1)]
    assert len(working.candidates(probe, 1 << 4)) == 60
