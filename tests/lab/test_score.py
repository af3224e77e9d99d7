import io
import json

import pytest
from rich.console import Console

from onymous.lab.score import Example, render, score


def test_perfect():
    result = score([("ann", "1", True), ("ann", "1", False), ("ben", "2", True)])
    assert (result.requests, result.people_true, result.people_found) == (3, 2, 2)
    assert (result.known_people_true, result.known_people_found) == (2, 2)
    assert (result.precision, result.recall) == (1.0, 1.0)
    assert (result.mixed, result.split, result.known_mixed, result.known_split) == (0, 0, 0, 0)
    assert result.mixed_examples == result.split_examples == ()


def test_nothing_to_judge_is_no_fault():
    result = score([])
    assert (result.requests, result.precision, result.recall) == (0, 1.0, 1.0)


def test_mixed_exact():
    # MPID 1 has 3 of ann and 1 of ben: 6 pairs, 3 of them right. ben has 2: 1 pair, not together.
    seen = [("ann", "1", True)] * 3 + [("ben", "1", False), ("ben", "2", True)]
    result = score(seen)
    assert result.precision == pytest.approx(3 / 6)
    assert result.recall == pytest.approx(3 / 4)
    assert (result.mixed, result.known_mixed, result.split, result.known_split) == (1, 0, 1, 0)
    assert (result.known_precision, result.known_recall) == (1.0, 1.0)
    assert result.mixed_examples == (Example("1", (("ann", 3), ("ben", 1)), False),)
    assert result.split_examples == (Example("ben", (("1", 1), ("2", 1)), False),)


def test_known_people_mixed_is_told_apart():
    seen = [("ann", "1", True), ("ben", "1", True), ("cem", "2", False), ("dan", "2", False)]
    result = score(seen)
    assert (result.mixed, result.known_mixed) == (2, 1)
    assert (result.precision, result.known_precision) == (0.0, 0.0)
    assert [e.who for e in result.mixed_examples] == ["1", "2"]
    assert [e.known for e in result.mixed_examples] == [True, False]


def test_split_exact():
    # ann: 2 + 2 over two MPIDs, signed in: 6 pairs, 2 together.
    result = score([("ann", "1", True), ("ann", "2", True)] * 2)
    assert result.recall == result.known_recall == pytest.approx(2 / 6)
    assert (result.precision, result.split, result.known_split) == (1.0, 1, 1)


def test_against_the_slow_definition():
    seen = [(f"p{i * 7 % 5}", str(i * i % 6), i % 3 == 0) for i in range(60)]
    same_person = same_mpid = both = 0
    for i, (person, mpid, _) in enumerate(seen):
        for other, theirs, _ in seen[:i]:
            same_person += person == other
            same_mpid += mpid == theirs
            both += person == other and mpid == theirs
    result = score(seen)
    assert result.precision == pytest.approx(both / same_mpid)
    assert result.recall == pytest.approx(both / same_person)


def test_examples_are_the_worst_and_bounded():
    seen = [(f"p{i}", "big", False) for i in range(9)]
    seen += [(f"q{i}", f"m{i // 2}", False) for i in range(20)]
    result = score(seen, examples=3)
    assert result.mixed == 11
    assert len(result.mixed_examples) == 3
    assert result.mixed_examples[0].who == "big"


def test_table_and_json():
    result = score([("ann", "1", True), ("ben", "1", True), ("ben", "1", False)])
    console = Console(record=True, width=120, file=io.StringIO())
    console.print(render(result))
    text = console.export_text()
    assert "precision" in text and "33.33%" in text and "profiles mixed" in text
    plain = json.loads(json.dumps(result.as_dict()))
    assert plain["known_mixed"] == 1
    assert plain["mixed_examples"][0]["parts"] == [["ben", 2], ["ann", 1]]


def test_people_mixed_and_strangers_inside():
    # MPID 1: ann signed in, ben only visited. MPID 2: cem and dan signed in, eve visited.
    seen = [("ann", "1", True), ("ben", "1", False), ("cem", "2", True), ("dan", "2", True)]
    seen += [("eve", "2", False), ("fay", "3", False), ("gil", "3", False), ("ann", "4", True)]
    result = score(seen)
    assert (result.people_mixed, result.known_people_mixed) == (7, 2)
    assert result.strangers_inside == 2
    assert (result.split, result.known_split) == (1, 1)
