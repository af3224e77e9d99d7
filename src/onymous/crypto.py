"""Secrets, and the MPID cipher."""

from __future__ import annotations

import base64
import hashlib
import os
import pathlib
import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_M64 = (1 << 64) - 1
_M32 = (1 << 32) - 1


class KeyProblem(Exception):
    """A master key that cannot be used; the message says what to do."""


class MpidCipher:
    """Keyed bijection between internal numbers and MPIDs."""

    def __init__(self, key: bytes) -> None:
        parts = hashlib.blake2b(key, digest_size=64, person=b"onymous mpid").digest()
        self._k = tuple(int.from_bytes(parts[i : i + 8], "little") | 1 for i in range(0, 64, 8))

    def _round(self, n: int, x: int) -> int:
        x = (x * self._k[n] + self._k[n + 4]) & _M64
        x ^= x >> 29
        x = (x * 0xBF58476D1CE4E5B9) & _M64
        return (x >> 32) & _M32

    def encode(self, pid: int) -> int:
        """Return the MPID of a number."""
        left, right = pid >> 32, pid & _M32
        for n in range(4):
            left, right = right, left ^ self._round(n, right)
        out = left << 32 | right
        return out - (1 << 64) if out >> 63 else out

    def decode(self, mpid: int) -> int | None:
        """Return the number of an MPID, or None."""
        value = mpid & _M64
        left, right = value >> 32, value & _M32
        for n in (3, 2, 1, 0):
            left, right = right ^ self._round(n, left), left
        pid = left << 32 | right
        return pid if 0 < pid < 1 << 62 else None

    def text(self, pid: int) -> str:
        """Return the MPID as text."""
        return str(self.encode(pid))

    def parse(self, value: object) -> int | None:
        """Return the number of an MPID as it came in, or None."""
        if isinstance(value, str):
            digits = value[1:] if value[:1] == "-" else value
            if not (digits.isascii() and digits.isdigit() and len(digits) < 20):
                return None
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool):
            return None
        if not -(1 << 63) <= value < 1 << 63:
            return None
        return self.decode(value)


class MasterKey:
    """Seals secrets at rest."""

    def __init__(self, key: bytes) -> None:
        self._aead = AESGCM(key)

    @classmethod
    def from_text(cls, text: str) -> MasterKey:
        """Read a key from text."""
        return cls(base64.urlsafe_b64decode(text.strip()))

    @classmethod
    def from_file(cls, path: pathlib.Path) -> MasterKey:
        """Read a key file, made with mode 0600 when missing."""
        if not path.exists():
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(fd, "wb") as f:
                f.write(base64.urlsafe_b64encode(secrets.token_bytes(32)) + b"\n")
        if path.stat().st_mode & 0o077:
            raise KeyProblem("the master key file can be read by others: chmod 600 it")
        return cls.from_text(path.read_text())

    def seal(self, plain: bytes, context: bytes) -> bytes:
        """Seal."""
        nonce = secrets.token_bytes(12)
        return b"\x01" + nonce + self._aead.encrypt(nonce, plain, context)

    def open(self, sealed: bytes, context: bytes) -> bytes:
        """Open what `seal` made."""
        try:
            return self._aead.decrypt(sealed[1:13], sealed[13:], context)
        except InvalidTag:
            raise KeyProblem("the master key does not fit these secrets") from None


def new_key_pair(prefix: str = "") -> tuple[str, str]:
    """Return a new API key and secret."""
    return prefix + secrets.token_hex(16), secrets.token_urlsafe(32)
