"""Rows of files: CSV, JSON Lines and Parquet, compressed or not, read piece by piece."""

from __future__ import annotations

import csv
import gzip
import importlib
import io
import json
import pathlib
import zlib
from collections.abc import Iterator
from typing import Any, TextIO

#: characters of one row; longer ones are rejected
MOST_ROW = 320 * 1024
#: names of files that can be read
_TEXTS = (".csv", ".tsv", ".jsonl", ".ndjson", ".json")
ENDINGS = (*_TEXTS, *(f"{ending}.gz" for ending in _TEXTS), ".parquet", ".pq")
Row = dict[str, Any]


class FileProblem(Exception):
    """A file cannot be read; says which and why."""


def read(path: pathlib.Path) -> tuple[list[str], Iterator[Row]]:
    """Return the columns of a file and its rows; raises `FileProblem`.

    The columns of JSON Lines are those of the first thousand rows.
    """
    name = path.name.lower().removesuffix(".gz")
    if not path.is_file():
        raise FileProblem(f"{path.name} is not a file")
    if name.endswith((".csv", ".tsv")):
        return _csv(path, "\t" if name.endswith(".tsv") else ",")
    if name.endswith((".jsonl", ".ndjson", ".json")):
        return _jsonl(path)
    if name.endswith((".parquet", ".pq")):
        return _parquet(path)
    raise FileProblem(f"{path.name}: the name must end in .csv, .tsv, .jsonl or .parquet (.gz)")


def lines(path: pathlib.Path) -> Iterator[Row]:
    """Return the objects of a JSON Lines file; a line that is none is `{"!": why}`."""
    with _text(path) as file:
        for line in _bounded(file, path.name):
            if line is None:
                yield {"!": "row_too_large"}
                continue
            if not line.strip():
                continue
            try:
                found = json.loads(line)
            except (ValueError, RecursionError):
                yield {"!": "not_json"}
                continue
            yield found if isinstance(found, dict) else {"!": "not_an_object"}


def _text(path: pathlib.Path) -> TextIO:
    try:
        packed = path.name.lower().endswith(".gz")
        raw = gzip.open(path) if packed else path.open("rb")  # noqa: SIM115 (closed by its reader)
        return io.TextIOWrapper(raw, "utf-8-sig", errors="surrogateescape", newline="")
    except OSError as error:
        raise FileProblem(f"{path.name} cannot be read: {error.strerror}") from None


def rows_of(path: pathlib.Path, ends: int) -> int | None:
    """Return how many rows a file has, as far as its line ends tell."""
    name = path.name.lower()
    if name.endswith((".gz", ".parquet", ".pq")):
        return None
    return max(ends - 1, 0) if name.endswith((".csv", ".tsv")) else ends


def _bounded(file: TextIO, name: str) -> Iterator[str | None]:
    """Return lines; None stands for one that is too long, of which no more is held at once."""
    too_long = False
    try:
        while line := file.readline(MOST_ROW):
            ended = len(line) < MOST_ROW or line.endswith("\n")
            if ended:
                yield None if too_long else line
            too_long = not ended
        if too_long:
            yield None
    except (OSError, EOFError, zlib.error) as error:
        raise FileProblem(f"{name} cannot be read to its end: {type(error).__name__}") from None


def _csv(path: pathlib.Path, separator: str) -> tuple[list[str], Iterator[Row]]:
    file = _text(path)
    try:
        first = next(_bounded(file, path.name), None) or ""
        file.seek(0)
        if separator not in first and ";" in first:
            separator = ";"
        # a line that is too long is read as one that has the wrong number of columns
        given = ("\0" if line is None else line for line in _bounded(file, path.name))
        reader = csv.reader(given, delimiter=separator)
        header = next(reader, None)
        if not header:
            raise FileProblem(f"{path.name} is empty")
    except csv.Error as error:
        file.close()
        raise FileProblem(f"{path.name} cannot be read: {type(error).__name__}") from None
    except FileProblem:
        file.close()
        raise
    names = [h.strip() for h in header]

    def rows() -> Iterator[Row]:
        with file:
            while True:
                try:
                    row = next(reader, None)
                except csv.Error:
                    # a field over the limit of the reader: a quote that is never closed
                    yield {"!": "row_too_large"}
                    continue
                if row is None:
                    return
                if len(row) == len(names):
                    yield dict(zip(names, row, strict=True))
                elif row:
                    yield {"!": "wrong_number_of_columns"}

    return names, rows()


def _jsonl(path: pathlib.Path) -> tuple[list[str], Iterator[Row]]:
    names: dict[str, None] = {}
    for number, row in enumerate(lines(path)):
        if number == 1000:
            break
        names |= dict.fromkeys(n for n in row if n != "!")
    if not names:
        raise FileProblem(f"{path.name} holds no objects")
    return list(names), lines(path)


def _parquet(path: pathlib.Path) -> tuple[list[str], Iterator[Row]]:
    try:
        parquet: Any = importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise FileProblem("Parquet needs the extra `parquet`: install onymous[parquet]") from None
    try:
        file = parquet.ParquetFile(path)
    except Exception as error:
        raise FileProblem(f"{path.name} is not Parquet: {type(error).__name__}") from None

    def rows() -> Iterator[Row]:
        for batch in file.iter_batches(batch_size=5_000):
            for row in batch.to_pylist():
                yield {k: _plain(v) for k, v in row.items()}

    return [str(n) for n in file.schema_arrow.names], rows()


def _plain(value: Any) -> Any:
    """Return dates as text, everything else as it is."""
    return value.isoformat() if hasattr(value, "isoformat") else value
