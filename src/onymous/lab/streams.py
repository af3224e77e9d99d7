"""Streams of identity requests and their truth as files: JSON Lines, one request a line.

The stream holds what a server is told and nothing that gives the truth away: clients are numbered
in the order of their arrival. The truth holds who it really was, by request id.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Iterator
from typing import TypeVar

import msgspec

from onymous.lab.simulate import Step

T = TypeVar("T")


class Request(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One line of a stream; a repeat is the same line again."""

    request_id: str
    at_ms: int
    #: identify, login, logout, modify, or feed (a row of a CRM, sent by a server)
    op: str
    #: one app installation or browser storage: it remembers the last MPID it was answered
    client: str
    platform: str = "other"
    known_identities: dict[str, str | None] = {}
    identity_changes: list[dict[str, str | None]] = []


class Truth(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One line of a truth."""

    request_id: str
    person: str
    #: whether the person acted under their account
    signed_in: bool = False
    note: str = ""


class Resolved(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One line of a result: whom a resolver took it for. `mpid` None: it gave no answer."""

    request_id: str
    mpid: str | None
    is_logged_in: bool = False


class BadLine(ValueError):
    """A line of a file is not what it should be; says which and why."""


class Writer:
    """Turns the steps of a simulation into a stream and its truth."""

    def __init__(self) -> None:
        self._clients: dict[str, str] = {}

    def request(self, step: Step) -> Request:
        """Return what a server is told of a step."""
        number = len(self._clients) + 1
        client = self._clients.setdefault(step.client, f"client-{number}")
        return Request(
            request_id=step.request_id,
            at_ms=step.at_ms,
            op=step.op,
            client=client,
            platform=step.platform,
            known_identities=step.identities,
            identity_changes=step.changes,
        )

    def truth(self, step: Step) -> Truth:
        """Return who really did it."""
        return Truth(
            request_id=step.request_id,
            person=step.person,
            signed_in=step.signed_in,
            note=f"{step.note} ({step.client})",
        )


def write(steps: Iterable[Step], stream: pathlib.Path, truth: pathlib.Path) -> Iterator[Step]:
    """Write steps to two files, and pass them on one by one; a repeat has one truth."""
    writer, encode, seen = Writer(), msgspec.json.Encoder().encode, set[str]()
    with stream.open("wb") as told, truth.open("wb") as true:
        for step in steps:
            told.write(encode(writer.request(step)) + b"\n")
            if step.request_id not in seen:
                seen.add(step.request_id)
                true.write(encode(writer.truth(step)) + b"\n")
            yield step


def read(path: pathlib.Path, kind: type[T]) -> Iterator[T]:
    """Read a file of `Request`, `Truth` or `Resolved` line by line; raises `BadLine`."""
    decode = msgspec.json.Decoder(kind).decode
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    try:
                        yield decode(line)
                    except (msgspec.DecodeError, UnicodeDecodeError) as error:
                        raise BadLine(f"{path.name}:{number}: {error}") from None
    except OSError as error:
        raise BadLine(f"{path.name} cannot be read: {error.strerror}") from None
