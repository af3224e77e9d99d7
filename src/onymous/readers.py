"""Rows of files: CSV, JSON Lines and Parquet, compressed or not, read piece by piece."""

from __future__ import annotations

import csv
import gzip
import importlib
import io
import json
import pathlib
from collections.abc import Iterator
from typing import Any, TextIO

#: bytes of one row
MOST_ROW = 80 * 1024
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
        for line in file:
            if not line.strip():
                continue
            if len(line) > MOST_ROW * 4:
                yield {"!": "row_too_large"}
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


def _csv(path: pathlib.Path, separator: str) -> tuple[list[str], Iterator[Row]]:
    file = _text(path)
    reader = csv.reader(file, delimiter=separator)
    try:
        header = next(reader, None)
    except (csv.Error, OSError, UnicodeDecodeError) as error:
        file.close()
        raise FileProblem(f"{path.name} cannot be read: {type(error).__name__}") from None
    if not header:
        file.close()
        raise FileProblem(f"{path.name} is empty")
    names = [h.strip() for h in header]

    def rows() -> Iterator[Row]:
        with file:
            try:
                for row in reader:
                    if len(row) == len(names):
                        yield dict(zip(names, row, strict=True))
                    elif row:
                        yield {"!": "wrong_number_of_columns"}
            except (csv.Error, OSError, EOFError) as error:
                raise FileProblem(f"{path.name}: {type(error).__name__}") from None

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
