"""Secrets at rest, and the bijection between internal numbers and MPIDs."""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import os
import pathlib
import secrets
import time
from collections.abc import Callable, Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_M64 = (1 << 64) - 1
_M32 = (1 << 32) - 1
#: internal numbers are below this
MOST = 1 << 62
#: MPIDs remembered as text
MOST_TEXTS = 20_000
#: first byte of a sealed secret: how, and under which generation of key
_MIX = 0xBF58476D1CE4E5B9
_SEAL = b"\x01"
#: seconds between two looks at where a key comes from
AGAIN_S = 2.0
_SHAPE = "a master key is 32 bytes, written in URL-safe base64"


class KeyProblem(Exception):
    """A master key that cannot be used; the message says what to do."""


class MpidCipher:
    """Keyed bijection between internal numbers (from 1) and MPIDs (signed 64-bit, never 0).

    Four Feistel rounds of multiply and xorshift: it hides order and volume, it is no access
    control (docs/decisions/0003).
    """

    def __init__(self, key: bytes) -> None:
        parts = hashlib.blake2b(key, digest_size=64, person=b"onymous mpid").digest()
        self._mul = tuple(int.from_bytes(parts[i : i + 8], "little") | 1 for i in range(0, 32, 8))
        self._add = tuple(int.from_bytes(parts[i : i + 8], "little") for i in range(32, 64, 8))
        #: where the raw permutation sends 0; swapped with it, so that 0 stays fixed and unused
        self._of_zero = self._raw(0)
        #: what was worked out lately: the same people come again and again
        self._texts: dict[int, str] = {}

    def _round(self, n: int, x: int) -> int:
        x = (x * self._mul[n] + self._add[n]) & _M64
        x ^= x >> 29
        return ((x * _MIX) & _M64) >> 32

    def _raw(self, value: int) -> int:
        # four times `_round`, written out: each new person and each rare one costs this
        left, right = value >> 32, value & _M32
        a, b, c, d = self._mul
        e, f, g, h = self._add
        x = (right * a + e) & _M64
        left ^= ((x ^ x >> 29) * _MIX & _M64) >> 32
        x = (left * b + f) & _M64
        right ^= ((x ^ x >> 29) * _MIX & _M64) >> 32
        x = (right * c + g) & _M64
        left ^= ((x ^ x >> 29) * _MIX & _M64) >> 32
        x = (left * d + h) & _M64
        right ^= ((x ^ x >> 29) * _MIX & _M64) >> 32
        return left << 32 | right

    def encode(self, pid: int) -> int:
        """Return the MPID of a number; raises ValueError for one that cannot be."""
        if not 0 < pid < MOST:
            raise ValueError("not an internal number")
        out = self._raw(pid) or self._of_zero
        return out - (1 << 64) if out >> 63 else out

    def decode(self, mpid: int) -> int | None:
        """Return the number of an MPID, or None for one that was never made."""
        value = mpid & _M64
        if value == self._of_zero:
            value = 0
        elif not value:
            return None
        left, right = value >> 32, value & _M32
        for n in (3, 2, 1, 0):
            left, right = right ^ self._round(n, left), left
        pid = left << 32 | right
        return pid if 0 < pid < MOST else None

    def text(self, pid: int) -> str:
        """Return the MPID of a number as decimal text."""
        text = self._texts.get(pid)
        if text is None:
            if len(self._texts) >= MOST_TEXTS:
                self._texts.clear()
            text = self._texts[pid] = str(self.encode(pid))
        return text

    def parse(self, value: object) -> int | None:
        """Return the number of an MPID as it came in (text or JSON integer), or None.

        Exact: no signs but a minus, no leading zeros, no spaces, never through a float.
        """
        if isinstance(value, str):
            digits = value.removeprefix("-")
            if not (0 < len(digits) < 20 and digits.isascii() and digits.isdigit()):
                return None
            if digits[0] == "0":
                return None
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool):
            return None
        if not -(1 << 63) <= value < 1 << 63:
            return None
        return self.decode(value)


class MasterKey:
    """Seals secrets at rest with AES-256-GCM (docs/decisions/0004).

    Holds one key or several: the first seals, all open, so that keys can be rotated. `again`
    reads them anew where they come from; it is asked when something does not open.
    """

    def __init__(self, *keys: bytes, again: Callable[[], str] | None = None) -> None:
        self._again = again
        self._asked = -AGAIN_S
        self._set(keys)

    def _set(self, keys: Sequence[bytes]) -> None:
        if not keys or any(len(key) != 32 for key in keys):
            raise KeyProblem(_SHAPE)
        self._keys = tuple(keys)
        self._aeads = [AESGCM(key) for key in keys]
        #: what tells keys apart; nothing of the key can be read from it
        self.ids = tuple(key_id(key) for key in keys)

    @property
    def id(self) -> str:
        """Return the id of the key that seals."""
        return self.ids[0]

    @classmethod
    def from_text(cls, text: str, again: Callable[[], str] | None = None) -> MasterKey:
        """Read keys from text, apart by spaces or lines; raises `KeyProblem` for text that is none.

        The first one seals.
        """
        return cls(*_keys(text), again=again)

    @classmethod
    def from_file(cls, path: pathlib.Path, *, make: bool = True) -> MasterKey:
        """Read a key file; made with mode 0600 where it is missing, unless `make` is off.

        Raises `KeyProblem` for a file others can read or that holds no key.
        """
        if make and not path.exists():
            _make(path)
        return cls.from_text(_read_key_file(path), lambda: _read_key_file(path))

    def first_only(self) -> MasterKey:
        """Return the key that seals alone."""
        return MasterKey(self._keys[0])

    def text(self) -> str:
        """Return the keys as they stand in a key file. For key files only."""
        return "".join(base64.urlsafe_b64encode(key).decode() + "\n" for key in self._keys)

    def seal(self, plain: bytes, context: bytes) -> bytes:
        """Seal a secret; it opens only with the same context."""
        nonce = secrets.token_bytes(12)
        return _SEAL + nonce + self._aeads[0].encrypt(nonce, plain, _SEAL + context)

    def open(self, sealed: bytes, context: bytes) -> bytes:
        """Open what `seal` made; raises `KeyProblem` if key or context differ."""
        if sealed[:1] != _SEAL or len(sealed) < 29:
            raise KeyProblem("a stored secret is damaged or of a newer version")
        plain = self._open(sealed, context)
        if plain is None and self._read_again():
            plain = self._open(sealed, context)
        if plain is None:
            raise KeyProblem(
                "the master key does not open the stored secrets: is it the key of this database?"
            )
        return plain

    def _open(self, sealed: bytes, context: bytes) -> bytes | None:
        for aead in self._aeads:
            with contextlib.suppress(InvalidTag):
                return aead.decrypt(sealed[1:13], sealed[13:], _SEAL + context)
        return None

    def _read_again(self) -> bool:
        """Read the keys where they come from; return whether they are others now."""
        if self._again is None or time.monotonic() - self._asked < AGAIN_S:
            return False
        self._asked = time.monotonic()
        try:
            keys = _keys(self._again())
        except KeyProblem:
            return False
        if keys == list(self._keys):
            return False
        self._set(keys)
        return True

    def __repr__(self) -> str:
        return f"MasterKey({self.id})"


def key_id(key: bytes) -> str:
    """Return what a master key is recognised by."""
    return hashlib.blake2b(key, digest_size=4, person=b"onymous key").hexdigest()


def new_master_key() -> str:
    """Return the text of a new master key."""
    return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()


def _keys(text: str) -> list[bytes]:
    try:
        keys = [base64.urlsafe_b64decode(word) for word in text.split()]
    except (binascii.Error, ValueError):
        raise KeyProblem(_SHAPE) from None
    if not keys or any(len(key) != 32 for key in keys):
        raise KeyProblem(_SHAPE)
    return keys


def _read_key_file(path: pathlib.Path) -> str:
    try:
        if os.name == "posix" and path.stat().st_mode & 0o077:
            raise KeyProblem("the master key file can be read by others: chmod 600 it")
        return path.read_text("ascii")
    except UnicodeDecodeError:
        raise KeyProblem("the master key file holds no key") from None
    except OSError as error:
        raise KeyProblem(
            f"the master key file {path} cannot be read ({error.strerror}): a backup never holds"
            " it; put your copy of it there"
        ) from None


def write_key_file(path: pathlib.Path, text: str) -> None:
    """Replace a key file at once: whoever reads it finds the old keys or the new ones."""
    mine = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    _write(mine, text.encode("ascii"))
    mine.replace(path)


def _make(path: pathlib.Path) -> None:
    """Write a new key beside its place and link it there: whoever comes second reads the first."""
    mine = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    _write(mine, new_master_key().encode() + b"\n")
    with contextlib.suppress(FileExistsError):
        os.link(mine, path)
    mine.unlink()


def _write(path: pathlib.Path, text: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def new_key_pair(prefix: str = "") -> tuple[str, str]:
    """Return a new API key (32 hex digits after the prefix) and secret (256 bits)."""
    return prefix + secrets.token_hex(16), secrets.token_urlsafe(32)
