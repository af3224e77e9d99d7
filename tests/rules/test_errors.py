"""Every refusal says what happened, what to do, and which code and status the wire carries."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from onymous.rules import errors
from onymous.rules.errors import Refusal, UnknownIdentityType, clip

CODES = {
    "VALIDATION_ERROR",
    "LOOKUP_ERROR",
    "NOT_FOUND_ERROR",
    "ALIAS_ERROR",
    "INVALID_DATA",
    "BAD_REQUEST",
    "INTERNAL_ERROR",
}


def everyone(kind: type[Refusal]) -> Iterator[type[Refusal]]:
    for each in kind.__subclasses__():
        if each.__module__ == errors.__name__:
            yield each
            yield from everyone(each)


ALL = sorted(set(everyone(Refusal)), key=lambda e: e.__name__)


@pytest.mark.parametrize("kind", ALL, ids=lambda e: e.__name__)
def test_every_refusal_is_complete(kind: type[Refusal]) -> None:
    assert kind.__dict__.get("__doc__")
    assert "hint" in kind.__dict__
    assert kind.hint.endswith(".") or "environment" in kind.hint
    assert kind.code in CODES
    assert 400 <= kind.status < 600
    refusal = kind()
    assert isinstance(refusal.detail, dict)
    assert refusal.message == str(refusal)
    assert "\n" not in refusal.message


WIRE = """
400 VALIDATION_ERROR UnknownIdentityType IdentityValueNotString IdentityValueInvalid
400 VALIDATION_ERROR ImmutableChange EnvironmentMissing TooManyIdentities ConfigInvalid
400 VALIDATION_ERROR OldValueMismatch ValueHeldByAnother
409 VALIDATION_ERROR RequestIdReused
400 LOOKUP_ERROR NoIdentities NothingToAttach LoginNeedsLoginId UnknownMpid
404 NOT_FOUND_ERROR NotFound
400 ALIAS_ERROR AliasInvalid
403 ALIAS_ERROR AliasNotAvailable
400 BAD_REQUEST BadJson
401 BAD_REQUEST Unauthorized
403 BAD_REQUEST Forbidden
413 BAD_REQUEST BodyTooLarge
429 BAD_REQUEST RateLimited
500 INTERNAL_ERROR Internal
"""


@pytest.mark.parametrize("line", WIRE.strip().splitlines())
def test_wire_codes(line: str) -> None:
    status, code, *names = line.split()
    for name in names:
        kind = getattr(errors, name)
        assert (kind.status, kind.code) == (int(status), code), name


def test_known_messages() -> None:
    assert errors.NoIdentities().message.startswith("knownIdentities is empty.")
    assert UnknownIdentityType(type="emial").message.startswith("emial is not an identity type")
    assert errors.ConfigInvalid(count=2).message == "The configuration has 2 problems."
    assert UnknownIdentityType(type="emial").detail == {"type": "emial"}


def test_clip_is_one_bounded_printable_line() -> None:
    assert clip("a\nb\x1b\u202e\ud800\u00e9") == r"a\nb\x1b\u202e\ud800\xe9"
    assert clip("x" * 100, 10) == "x" * 10 + "..."
    assert len(clip("\U0001f600" * 1000)) < 1000
