"""The file of rejected rows: which row, why, and of a conflict whose it is; never a value."""

from __future__ import annotations

import csv
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from onymous.flows.files import Rejected
from onymous.readers import FileProblem

HEADER = "row,why,mpids\r\n"
SUFFIX = ".rejects.csv"


class RejectsFile:
    """Rejected rows beside a file, written as they come; nothing is made where there are none."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self._file: BinaryIO | None = None
        self._before = 0

    def begin(self, row: int) -> None:
        """Keep what an earlier run wrote up to a row; what came after it comes again."""
        if not self.path.exists():
            return
        if not row:
            self.path.unlink()
            return
        kept = self.path.with_name(self.path.name + ".part")
        with kept.open("w", newline="", encoding="utf-8") as out:
            out.write(HEADER)
            writer = csv.writer(out)
            writer.writerows(found for found in _rows(self.path) if int(found[0]) <= row)
        kept.replace(self.path)

    def keep(self, rows: Sequence[Rejected]) -> None:
        """Write rejected rows, so that they outlive this process."""
        if self._file is None:
            if not rows:
                return
            self._file = self.path.open("ab")
        self._before = self._file.tell()
        if not self._before:
            self._file.write(HEADER.encode())
        lines = (f"{r.row},{r.why},{' '.join(r.mpids)}\r\n" for r in rows)
        self._file.write("".join(lines).encode())
        self._file.flush()
        os.fsync(self._file.fileno())

    def undo(self) -> None:
        """Take back what was written last."""
        if self._file is not None:
            self._file.truncate(self._before)
            self._file.seek(self._before)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def must_exist(path: pathlib.Path) -> None:
    """Raise `FileProblem` where there is no file of rejected rows."""
    if not path.exists():
        raise FileProblem(f"{path.name} is not there: nothing was rejected, or not imported yet")


def rejected_rows(path: pathlib.Path) -> Iterator[int]:
    """Return the numbers in a file of rejected rows, each once; raises `FileProblem`."""
    last = 0
    must_exist(path)
    for found in _rows(path):
        number = int(found[0])
        if number != last:
            yield number
        last = number


def _rows(path: pathlib.Path) -> Iterator[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        for found in csv.reader(file):
            if found and found[0].isascii() and found[0].isdigit():
                yield found
