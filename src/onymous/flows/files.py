"""What an import is given and what it tells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec

from onymous.flows.newcomers import Looked, Newcomer
from onymous.flows.taking import Take
from onymous.flows.tenants import Caller


class Rejected(msgspec.Struct):
    """A row that changed nothing, and why; `mpids` of a conflict are the people it belongs to."""

    row: int
    why: str
    mpids: list[str] = []


class Report(msgspec.Struct, kw_only=True):
    """What an import did, or (dry run) would do."""

    rows: int = 0
    #: rows skipped because an earlier run did them, or because they are repeats of a call
    before: int = 0
    applied: int = 0
    #: people made by this run
    created: int = 0
    conflicts: int = 0
    rejected: int = 0
    dry_run: bool = False
    #: reasons of rejected rows and of dropped parts, counted
    reasons: dict[str, int] = {}

    def count(self, rejected: Sequence[Rejected]) -> None:
        """Count rejected rows."""
        for item in rejected:
            if item.why == "conflict":
                self.conflicts += 1
            else:
                self.rejected += 1
                self.reasons[item.why] = self.reasons.get(item.why, 0) + 1


class Job(msgspec.Struct, kw_only=True):
    """One file to import."""

    caller: Caller
    #: what tells the file and its mapping from others
    name: bytes
    now_ms: int
    development: bool = False
    replace_values: bool = False
    dry_run: bool = False
    max_values: int = 200


class Rejects(Protocol):
    """Where rejected rows go. They are kept before the piece they belong to is committed."""

    def begin(self, row: int) -> None:
        """Start: rows up to this one were done by an earlier run."""

    def keep(self, rows: Sequence[Rejected]) -> None:
        """Keep the rejected rows of a piece, in order."""

    def undo(self) -> None:
        """Drop those of the last piece: it was not committed and comes again."""


class NoRejects:
    """Keeps none."""

    def begin(self, row: int) -> None:
        """Nothing."""

    def keep(self, rows: Sequence[Rejected]) -> None:
        """Nothing."""

    def undo(self) -> None:
        """Nothing."""


#: line of the file; a row as a batch of the Events API, or why it is none; its own time
Ready = tuple[int, Mapping[str, Any] | str, int | None]


class Row(msgspec.Struct, gc=False):
    """A row on its way: `why` it is rejected, or what it says."""

    number: int
    line: int
    why: str = ""
    raw: Mapping[str, Any] = {}
    at_ms: int = 0
    body: bytes = b""
    #: what it is looked up by
    looked: Looked = ()
    #: one of the two, unless it is rejected
    newcomer: Newcomer | None = None
    work: Take | None = None
