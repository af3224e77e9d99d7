import ast
import dataclasses
import itertools
import sys
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from onymous.lab import simulate as simulate_module
from onymous.lab.simulate import PRESETS, Step, World, simulate


def run(world: World = PRESETS["retail"], seed: int = 1, people: int = 300, steps: int = 12_000):
    return list(simulate(world, seed, people, steps))


RETAIL = run()
FAMILY = run(PRESETS["family_tv"], seed=3)


def firsts(steps: list[Step]) -> list[Step]:
    """The steps without the repeats."""
    seen: set[str] = set()
    return [s for s in steps if not (s.request_id in seen or seen.add(s.request_id))]


def test_one_seed_one_story():
    assert run() == RETAIL
    assert run(seed=2) != RETAIL


def test_a_longer_run_begins_with_the_shorter_one():
    assert run(steps=500) == RETAIL[:500]


def test_it_is_a_stream():
    endless = simulate(World(), 1, 1000, 10**12)
    assert len(list(itertools.islice(endless, 1000))) == 1000


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_yields_exactly_the_steps_asked_for(name: str):
    steps = run(PRESETS[name], steps=3000)
    assert len(steps) == 3000
    assert {s.op for s in steps} == {"identify", "login", "logout", "modify", "feed"}


@pytest.mark.parametrize("preset", PRESETS)
def test_a_step_is_done_by_an_owner_of_its_client(preset: str):
    for step in run(PRESETS[preset], steps=4000):
        owner = step.client.partition("/")[0]
        assert owner in ("kiosk", "crm") or f"{step.person}.".startswith(f"{owner}.")
        assert (owner == "crm") == (step.op == "feed")


@pytest.mark.parametrize("steps", [RETAIL, FAMILY])
def test_a_replaced_phone_or_lost_cookie_never_comes_back(steps: list[Step]):
    newest: dict[str, int] = {}
    for step in firsts(steps):
        thing, dash, number = step.client.rpartition("-")
        if dash:
            assert int(number) >= newest.get(thing, 1)
            newest[thing] = int(number)
    assert max(newest.values()) > 1


@pytest.mark.parametrize("steps", [RETAIL, FAMILY])
def test_account_values_of_a_step_belong_to_its_person(steps: list[Step]):
    """Nobody acts under the account of somebody else: what signed-in answers mix is a fault."""
    owner: dict[str, str] = {}
    for step in steps:
        value = step.identities.get("customerid")
        if value and value.startswith("c-"):
            assert owner.setdefault(value, step.person) == step.person
            assert value.rpartition("-")[2] == step.person.rpartition("p")[2]
        mail = (step.identities.get("email") or "").strip().lower()
        if "@" in mail and not mail.startswith("family."):
            assert owner.setdefault(mail, step.person) == step.person


def test_signed_in_is_told_truly():
    """Whoever is signed in sends their own account; nobody else does."""
    for step in (*RETAIL, *FAMILY):
        account = str(step.identities.get("customerid")).startswith("c-")
        if account or step.op in ("login", "modify", "feed"):
            assert step.signed_in, step
        if step.op == "logout":
            assert not step.signed_in
    visits = [s for s in RETAIL if s.op == "identify" and s.signed_in]
    assert visits and all("@" in str(s.identities.get("email")) for s in visits)


def test_requests_of_one_client_are_in_order():
    last: dict[str, int] = {}
    for step in firsts(RETAIL):
        if step.op != "feed":
            assert step.at_ms > last.get(step.client, 0)
            last[step.client] = step.at_ms


def test_a_device_stamp_belongs_to_one_client_and_stays():
    stamps: dict[str, str | None] = {}
    for step in RETAIL:
        if step.op in ("identify", "login", "logout"):
            stamp = step.identities["device_application_stamp"]
            assert stamps.setdefault(step.client, stamp) == stamp
    assert len(set(stamps.values())) == len(stamps)


def test_repeats_are_equal_and_as_frequent_as_configured():
    by_id: dict[str, set[int]] = defaultdict(set)
    seen: dict[str, Step] = {}
    for index, step in enumerate(RETAIL):
        by_id[step.request_id].add(index)
        assert seen.setdefault(step.request_id, step) == step
    repeats = sum(len(places) - 1 for places in by_id.values())
    assert 0.005 < repeats / len(RETAIL) < 0.015


def test_some_requests_arrive_late():
    latest, late = 0, 0
    for step in firsts(RETAIL):
        late += step.at_ms < latest - 600_000
        latest = max(latest, step.at_ms)
    assert 10 < late < 0.05 * len(RETAIL)


def test_rates_are_roughly_as_configured():
    world = dataclasses.replace(World(), crm_feed=0.3, never_registers=0.5, junk=0.1)
    steps = firsts(run(world, people=1000))
    counts = Counter(step.op for step in steps)
    visits = counts["identify"]  # nearly: one identify opens a visit
    assert 0.25 < counts["feed"] / (counts["feed"] + visits) < 0.35
    accounts = {s.person for s in steps if s.op in ("login", "feed")}
    people = {s.person for s in steps}
    assert 0.15 < len(accounts) / len(people) < 0.5
    junk = [s for s in steps if any(v in _JUNK for v in s.identities.values())]
    bare = [s for s in steps if s.op in ("identify", "logout") and "customerid" not in s.identities]
    assert 0.06 < len(junk) / len(bare) < 0.14


_JUNK = ("null", "undefined", "None", None, "", "(null)")


def test_a_rate_of_zero_means_never():
    off = {"crm_feed", "junk", "placeholder_apps", "late", "repeats", "changes_email", "adds_phone"}
    off |= {"guest_email", "odd_spelling", "loses_cookies", "replaces_phone", "kiosk_visits"}
    steps = run(dataclasses.replace(World(), **dict.fromkeys(off, 0.0)))
    assert {s.op for s in steps} == {"identify", "login", "logout"}
    assert len(firsts(steps)) == len(steps)
    assert not any(s.client.startswith(("kiosk", "crm")) for s in steps)
    assert not any(s.client.endswith("-2") for s in steps)


def test_every_kind_of_trouble_occurs():
    notes = {s.note for s in run(people=500, steps=60_000)}
    for text in (
        "logs somebody else out on the tv",
        "leaves a second e-mail on the browser",
        "changes the e-mail on the phone",
        "adds a phone number on the browser",
        "opens an account on the phone",
        "opens the kiosk",
        "CRM row",
    ):
        assert text in notes
    values = [v for s in RETAIL for v in s.identities.values()]
    assert "00000000-0000-0000-0000-000000000000" in values
    assert World().placeholder_customer_id in values
    assert any(v is not None and v.endswith(" ") for v in values)


def test_a_modify_names_the_change_and_the_crm_follows():
    changes = [s for s in firsts(RETAIL) if s.op == "modify"]
    assert changes and all(not s.identities and len(s.changes) == 1 for s in changes)
    mails = [s for s in changes if s.changes[0]["identity_type"] == "email"]
    first = mails[0]
    later = RETAIL[RETAIL.index(first) :]
    sent = {s.identities["email"] for s in later if s.op == "feed" and s.person == first.person}
    assert first.changes[0]["old_value"] not in sent


def test_a_kiosk_is_used_by_very_many_and_left_signed_out():
    steps = run(dataclasses.replace(World(), kiosk_visits=0.3, repeats=0.0))
    kiosk = [s for s in steps if s.client == "kiosk/0"]
    assert len({s.person for s in kiosk}) > 100
    assert all("c-" not in str(s.identities) for s in kiosk if s.op == "identify")


@pytest.mark.parametrize(
    ("world", "people"),
    [(World(), 0), (dataclasses.replace(World(), junk=1.5), 10)],
)
def test_impossible_numbers_are_refused(world: World, people: int):
    with pytest.raises(ValueError):
        simulate(world, 1, people, 10)


def test_the_simulator_needs_the_standard_library_only():
    folder = Path(simulate_module.__file__).parent
    for path in folder.glob("simulate*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                name = node.module or ""
                assert (
                    name.startswith("onymous.lab.simulate")
                    or name.split(".")[0] in sys.stdlib_module_names
                ), f"{path.name} imports {name}"
            elif isinstance(node, ast.Import):
                assert {alias.name for alias in node.names} <= set(sys.stdlib_module_names)
