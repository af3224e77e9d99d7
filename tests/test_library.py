"""The library face: the same rules in-process, without a server."""

from __future__ import annotations

import concurrent.futures
import pathlib
import re
import subprocess
import sys

import pytest

import onymous
from onymous.rules.errors import ImmutableChange, NotFound, Refusal


def test_one_person_many_names(tmp_path: pathlib.Path) -> None:
    with onymous.open(str(tmp_path / "data")) as ids:
        visitor = ids.identify({"device_application_stamp": "S"})
        anna = ids.login({"device_application_stamp": "S", "customerid": "42", "email": "A@b.c"})
        assert anna.mpid == visitor.mpid
        assert (visitor.is_logged_in, anna.is_logged_in) == (False, True)
        again = ids.identify({"email": "a@B.c"}, explain=True)
        assert again.mpid == anna.mpid
        assert any("found by email" in line for line in again.why())
        assert ids.modify(anna.mpid, {"email": ("a@b.c", "new@b.c")}) == [("email", anna.mpid)]
        with pytest.raises(NotFound):
            ids.search({"email": "a@b.c"})
        assert ids.find({"email": "new@b.c"})[0].mpid == anna.mpid
        assert [e.operation for e in ids.history(anna.mpid).entries] == [
            "modify",
            "login",
            "identify",
        ]
    with onymous.open(str(tmp_path / "data")) as ids:
        assert ids.identify({"customerid": "42"}).mpid == anna.mpid


def test_refusals_are_exceptions(tmp_path: pathlib.Path) -> None:
    config = {"login": ("customerid",), "unique": ("customerid",), "immutable": ("customerid",)}
    with onymous.open(str(tmp_path), **config) as ids:
        with pytest.raises(Refusal):
            ids.identify({})
        mpid = ids.login({"customerid": "1"}).mpid
        with pytest.raises(ImmutableChange):
            ids.modify(mpid, {"customerid": ("1", "2")})


def test_threads_share_one_folder(tmp_path: pathlib.Path) -> None:
    with onymous.open(str(tmp_path)) as ids, concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = set(
            pool.map(lambda n: ids.login({"customerid": "7", "other": str(n % 3)}).mpid, range(80))
        )
        assert len(found) == 1


def test_the_example_of_the_readme(tmp_path: pathlib.Path) -> None:
    """As it stands there, and by who forgets to close: nothing but the answer is said."""
    readme = (pathlib.Path(__file__).parents[1] / "README.md").read_text("utf-8")
    (example,) = re.findall(r"^```python\n(.*?)^```$", readme, re.M | re.S)
    forgetful = 'import onymous\nids = onymous.open("./people")\n'
    forgetful += 'print(ids.login({"customerid": "42"}).mpid)\n'
    said = []
    for code in (example, forgetful):
        words = [sys.executable, "-c", code]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        said.append(done.stdout.split()[0])
    assert said[0] == said[1]
