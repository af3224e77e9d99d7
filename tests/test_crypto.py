"""MPIDs and secrets at rest."""

from __future__ import annotations

import itertools
import os
import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onymous.crypto import KeyProblem, MasterKey, MpidCipher, new_key_pair

CIPHER = MpidCipher(b"k" * 32)
NUMBERS = st.integers(1, (1 << 62) - 1)


@given(NUMBERS)
def test_every_number_comes_back(pid: int) -> None:
    mpid = CIPHER.encode(pid)
    assert -(1 << 63) <= mpid < 1 << 63
    assert mpid != 0
    assert CIPHER.decode(mpid) == pid
    assert CIPHER.parse(CIPHER.text(pid)) == pid
    assert CIPHER.parse(mpid) == pid


@given(st.integers(-(1 << 63), (1 << 63) - 1))
def test_every_mpid_is_of_one_number_or_none(mpid: int) -> None:
    pid = CIPHER.decode(mpid)
    if pid is not None:
        assert CIPHER.encode(pid) == mpid


def test_mpids_look_random_and_never_meet() -> None:
    mpids = [CIPHER.encode(pid) for pid in range(1, 50_001)]
    assert len(set(mpids)) == len(mpids)
    low = {m & 0xFFFFFFFF for m in mpids}
    assert len(low) > 49_900
    assert 0.48 < sum(m < 0 for m in mpids) / len(mpids) < 0.52
    flips = [bin((a ^ b) & (1 << 64) - 1).count("1") for a, b in itertools.pairwise(mpids)]
    assert 30 < sum(flips) / len(flips) < 34
    assert MpidCipher(b"x" * 32).encode(1) != CIPHER.encode(1)


@pytest.mark.parametrize(
    "value",
    [
        *("", "-", "+1", " 1", "1 ", "1.0", "1e3", "0x1", "1_0", "١", "--1", "9" * 20, "9" * 400),
        *("00", "01", "-0", "-01", "0", None, True, False, 1.0, b"1", 1 << 63, -(1 << 63) - 1, 0),
        [],
        {},
    ],
)
def test_what_is_no_mpid(value: object) -> None:
    assert CIPHER.parse(value) is None


def test_zero_is_no_mpid_of_any_key() -> None:
    for n in range(2000):
        cipher = MpidCipher(n.to_bytes(32, "big"))
        zero = cipher.decode(0)
        assert zero is None
        assert cipher.encode(1) != 0


def test_secrets_are_sealed_and_bound(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "master.key"
    key = MasterKey.from_file(path)
    assert path.stat().st_mode & 0o777 == 0o600
    sealed = key.seal(b"secret", b"input:1")
    assert b"secret" not in sealed
    assert sealed != key.seal(b"secret", b"input:1")
    assert MasterKey.from_file(path).open(sealed, b"input:1") == b"secret"
    for other in (MasterKey.from_file(tmp_path / "other"), key):
        with pytest.raises(KeyProblem):
            other.open(sealed, b"input:2")
    with pytest.raises(KeyProblem):
        key.open(sealed[:-1], b"input:1")
    with pytest.raises(KeyProblem):
        key.open(b"", b"input:1")


def test_a_key_file_others_can_read_is_refused(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "master.key"
    MasterKey.from_file(path)
    os.chmod(path, 0o644)
    with pytest.raises(KeyProblem, match="chmod 600"):
        MasterKey.from_file(path)
    path.write_text("nonsense\n")
    os.chmod(path, 0o600)
    with pytest.raises(KeyProblem):
        MasterKey.from_file(path)
    with pytest.raises(KeyProblem):
        MasterKey.from_text("short")


def test_keys_and_secrets_do_not_repeat() -> None:
    pairs = [new_key_pair() for _ in range(200)]
    assert len({p[0] for p in pairs}) == len({p[1] for p in pairs}) == 200
    assert all(len(secret) >= 32 for _, secret in pairs)
