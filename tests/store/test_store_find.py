"""Finding: what a probe returns, the same on every engine."""

from __future__ import annotations

import unicodedata

import pytest
from making import DEVICE, EMAIL, LOGIN, NOW, POOL, add, crowd, pids, record, see, written

from onymous.store import sql
from onymous.store.packing import slot, unpack_record
from onymous.store.port import FEW, LostRace, Probe, Store


async def test_nothing_is_found_in_an_empty_store(store: Store) -> None:
    found = await see(store, Probe(POOL, {LOGIN: "a", DEVICE: "d"}, previous=1, also=(2,)))
    assert (found.records, found.holders, found.crowded) == ([], {}, {})


async def test_a_probe_without_values_finds_nothing(store: Store) -> None:
    await written(store, record(1, {LOGIN: "a"}))
    assert pids(await see(store, Probe(POOL, {}))) == []
    assert await store.find([]) == []


async def test_every_holder_of_any_value_is_found_with_all_its_values(store: Store) -> None:
    one, two = record(1, {LOGIN: "a", DEVICE: "d"}), record(2, {EMAIL: "e", DEVICE: "d"})
    other = record(3, {LOGIN: "z", DEVICE: "z"})
    await written(store, one, two, other)
    found = await see(store, Probe(POOL, {LOGIN: "a", EMAIL: "none", DEVICE: "d"}))
    assert found.records == [one, two]
    assert found.holders == {(LOGIN, "a"): [1], (DEVICE, "d"): [1, 2]}
    assert found.crowded == {}


async def test_answers_belong_to_their_questions(store: Store) -> None:
    made = [record(n, {LOGIN: f"p{n}", DEVICE: f"d{n % 3}"}) for n in range(1, 8)]
    await written(store, *made)
    probes = [Probe(POOL, {LOGIN: f"p{n}"}) for n in (5, 99, 2)]
    probes += [Probe(POOL, {DEVICE: "d0"}), Probe(POOL, {}), Probe(POOL, {}, also=(7,))]
    founds = await store.find(probes)
    assert [pids(f) for f in founds] == [[5], [], [2], [3, 6], [], [7]]
    async with store.write("find") as tx:
        assert await tx.find(probes) == founds


async def test_the_same_question_twice_gets_the_same_answer_twice(store: Store) -> None:
    await written(store, record(1, {LOGIN: "a"}))
    probe = Probe(POOL, {LOGIN: "a"}, also=(1,))
    one, two = await store.find([probe, probe])
    assert one == two and pids(one) == [1]
    assert one.records[0] is not two.records[0], "answers must not share what may be changed"


async def test_pools_and_types_do_not_mix(store: Store) -> None:
    await written(store, record(1, {LOGIN: "a"}), record(2, {LOGIN: "a"}, pool=POOL + 1))
    assert pids(await see(store, Probe(POOL, {LOGIN: "a"}))) == [1]
    assert pids(await see(store, Probe(POOL + 1, {LOGIN: "a"}))) == [2]
    assert pids(await see(store, Probe(POOL, {EMAIL: "a"}))) == []


async def test_also_adds_records_without_values_in_common(store: Store) -> None:
    await written(store, record(1, {LOGIN: "a"}), record(2, {LOGIN: "b"}), record(3, {}))
    found = await see(store, Probe(POOL, {LOGIN: "a"}, also=(3, 2, 1, 77)))
    assert [r.pid for r in found.records] == [1, 3, 2]
    assert found.holders == {(LOGIN, "a"): [1]}


async def test_previous_is_read_only_for_crowded_values(store: Store) -> None:
    await crowd(store, "hot", 20, people=3)
    await written(store, record(50, {LOGIN: "a", DEVICE: "cold"}))
    assert pids(await see(store, Probe(POOL, {LOGIN: "x", DEVICE: "y"}, previous=50))) == []
    found = await see(store, Probe(POOL, {DEVICE: "hot"}, previous=2))
    assert pids(found) == [2, 13, 14, 15, 16, 17, 18, 19, 20]
    assert 2 not in found.holders[DEVICE, "hot"]


async def test_of_a_crowded_value_come_the_latest_that_compete(store: Store) -> None:
    await crowd(store, "hot", 30, people=5)
    await written(store, record(40, {LOGIN: "a", DEVICE: "hot"}, seen=NOW + 999))
    found = await see(store, Probe(POOL, {LOGIN: "a", DEVICE: "hot"}))
    assert found.crowded == {DEVICE: 5}
    # 40 was seen last, but does not compete; it is found through its login
    assert found.holders[DEVICE, "hot"] == [30, 29, 28, 27, 26, 25, 24, 23]
    assert found.holders[LOGIN, "a"] == [40]
    assert len(found.holders[DEVICE, "hot"]) == FEW


async def test_a_crowded_value_nobody_competes_for(store: Store) -> None:
    async with store.write("crowd") as tx:
        await add(tx, *[record(n, {DEVICE: "hot"}) for n in range(1, 12)])
        await tx.run(sql.CROWD_ADD, slot(POOL, DEVICE), "hot", 11)
    found = await see(store, Probe(POOL, {DEVICE: "hot"}))
    assert found.records == [] and found.crowded == {DEVICE: 11}
    assert found.holders == {(DEVICE, "hot"): []}


async def test_competitors_seen_at_the_same_moment_come_in_the_same_order(store: Store) -> None:
    records = [record(n, {DEVICE: "hot"}) for n in range(1, 21)]
    async with store.write("crowd") as tx:
        await add(tx, *records, compete=[DEVICE])
        await tx.run(sql.CROWD_ADD, slot(POOL, DEVICE), "hot", 0)
    found = await see(store, Probe(POOL, {DEVICE: "hot"}))
    assert found.holders[DEVICE, "hot"] == [20, 19, 18, 17, 16, 15, 14, 13]


async def test_the_count_of_a_crowd_follows_its_marker(store: Store) -> None:
    await crowd(store, "hot", 10, people=4)
    key = (slot(POOL, DEVICE), "hot")
    async with store.write("count") as tx:
        await tx.many(sql.CROWD_ADD, [(*key, 1000), (*key, 2000)])
        await tx.many(sql.CROWD_COUNT, [(2, *key), (-1, *key), (5, slot(POOL, EMAIL), "hot")])
    assert (await see(store, Probe(POOL, {DEVICE: "hot"}))).crowded == {DEVICE: 5}
    assert pids(await see(store, Probe(POOL, {EMAIL: "hot"}))) == []


async def test_few_holders_are_all_found_and_competing_does_not_hide_them(store: Store) -> None:
    records = [record(n, {DEVICE: "d"}, seen=NOW - n) for n in range(1, FEW + 1)]
    await written(store, *records, compete=[DEVICE])
    found = await see(store, Probe(POOL, {DEVICE: "d"}))
    assert found.holders == {(DEVICE, "d"): list(range(1, FEW + 1))}
    assert found.records == records


EXACT = [
    ("a", "A"),
    ("a", "a "),
    ("a", " a"),
    ("ß", "ss"),
    ("ı", "i"),
    ("é", unicodedata.normalize("NFD", "é")),
    ("Ω", "\N{OHM SIGN}"),
    ("x" * 256, "x" * 255),
    ("😀", "😁"),
    ("0", "00"),
    ("1", "1.0"),
    ("null", "NULL"),
    ("a%", "a_"),
    ("a\\", "a\\\\"),
    ("o'brien", "obrien"),
    ("中" * 256, "中" * 255),
    ("\N{ZERO WIDTH SPACE}a", "a"),
    ("$1", "?"),
    ("{a}", "{b}"),
    ('"a"', "a,b"),
]


@pytest.mark.parametrize(("one", "other"), EXACT)
async def test_comparison_is_exact(store: Store, one: str, other: str) -> None:
    await written(store, record(1, {LOGIN: one}), record(2, {LOGIN: other}))
    assert pids(await see(store, Probe(POOL, {LOGIN: one}))) == [1]
    found = await see(store, Probe(POOL, {LOGIN: other}))
    assert pids(found) == [2]
    assert found.records[0].values[0].key == other


async def test_a_unique_value_cannot_have_two_owners(store: Store) -> None:
    await written(store, record(1, {LOGIN: "a"}))
    with pytest.raises(LostRace):
        async with store.write("second") as tx:
            await add(tx, record(2, {LOGIN: "a", DEVICE: "d"}))
    found = await see(store, Probe(POOL, {LOGIN: "a", DEVICE: "d"}, also=(2,)))
    assert pids(found) == [1], "nothing of the refused transaction stays"


async def test_an_error_of_the_engine_tells_no_values(store: Store) -> None:
    secret = "anna@example.com"
    await written(store, record(1, {LOGIN: secret}))
    with pytest.raises(LostRace) as caught:
        async with store.write("second") as tx:
            await add(tx, record(2, {LOGIN: secret}))
    assert secret not in str(caught.value) and caught.value.__suppress_context__


async def only(store: Store, *labels: tuple[int, int, str]) -> list[int | None]:
    """Ask who alone holds values, every way there is."""
    told = await store.only(labels)
    if store.only_now is not None:
        assert store.only_now(labels) == told
    return [None if r is None else r[0] for r in told]


async def test_the_only_holder_of_a_value_is_told_with_all_its_values(store: Store) -> None:
    one, two = record(1, {LOGIN: "a", EMAIL: "e", DEVICE: "d"}), record(2, {EMAIL: "x"})
    await written(store, one, two)
    row = (await store.only([(POOL, EMAIL, "e")]))[0]
    assert row is not None and unpack_record(row) == one
    labels = [(POOL, EMAIL, "x"), (POOL, LOGIN, "a"), (POOL, EMAIL, "x"), (POOL, LOGIN, "e")]
    assert await only(store, *labels) == [2, 1, 2, None]
    assert await only(store) == []


async def test_nobody_alone_holds_what_two_hold(store: Store) -> None:
    await written(store, record(1, {DEVICE: "d"}), record(2, {DEVICE: "d", EMAIL: "e"}))
    await written(store, record(3, {DEVICE: "d"}, pool=POOL + 1))
    labels = [(POOL, DEVICE, "d"), (POOL, EMAIL, "e"), (POOL + 1, DEVICE, "d")]
    assert await only(store, *labels) == [None, 2, 3]


async def test_the_marker_of_a_crowded_value_is_nobody(store: Store) -> None:
    """The marker's row counts people where others have a record's number."""
    await written(store, record(FEW + 40, {EMAIL: "e"}))
    await crowd(store, "shared", FEW + 3, people=FEW + 40)
    async with store.write("left") as tx:
        await tx.many(sql.CROWD_ADD, [(slot(POOL, DEVICE), "left", FEW + 40)])
    labels = [(POOL, DEVICE, "shared"), (POOL, DEVICE, "left"), (POOL, EMAIL, "e")]
    assert await only(store, *labels) == [None, None, FEW + 40]


async def test_a_record_nobody_else_resembles_is_told(store: Store) -> None:
    assert (store.alone_now is None) == (store.only_now is None) == (store.engine != "sqlite")
    if store.alone_now is None:  # an engine that does not answer at once
        return
    one, two = (
        record(1, {LOGIN: "a", EMAIL: "e", DEVICE: "d"}),
        record(2, {EMAIL: "x", DEVICE: "d"}),
    )
    await written(store, one, two)
    probes = [
        Probe(POOL, {LOGIN: "a", EMAIL: "e"}),
        Probe(POOL, {EMAIL: "e", LOGIN: "a"}),
        Probe(POOL, {LOGIN: "a", DEVICE: "d"}),  # the device is another's too
        Probe(POOL, {DEVICE: "d"}),
        Probe(POOL, {LOGIN: "a", EMAIL: "x"}),
        Probe(POOL, {LOGIN: "nobody"}),
        Probe(POOL, {LOGIN: "a", EMAIL: "nobody's"}),
        Probe(POOL, {LOGIN: "nobody", EMAIL: "e"}),
        Probe(POOL + 1, {LOGIN: "a"}),
    ]
    rows = store.alone_now(probes)
    assert [r and r[0] for r in rows] == [1, 1, None, None, None, None, 1, None, None]
    assert rows[0] == (await store.only([(POOL, LOGIN, "a")]))[0]
    crowd = [record(n, {EMAIL: f"e{n}", DEVICE: "c"}) for n in range(10, 30)]
    await written(store, *crowd)
    apart = [Probe(POOL, {EMAIL: "e15"}), Probe(POOL, {EMAIL: "e15", DEVICE: "c"})]
    assert [r and r[0] for r in store.alone_now(apart)] == [15, None]
