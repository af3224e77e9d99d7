"""`onymous export-events`: event history as Parquet or JSON Lines."""

from __future__ import annotations

import importlib
import json
import pathlib
from typing import Annotated, Any

import msgspec
import typer

from onymous.app import running
from onymous.commands.common import JsonOption, StoreOption, app, console, run_now, settings_of
from onymous.flows.exporting import EventRow, Exporter
from onymous.readers import FileProblem
from onymous.rules.mapping import time_of

_FIELDS = EventRow.__struct_fields__


@app.command("export-events")
def export_events(
    to: Annotated[pathlib.Path, typer.Argument(help="a .parquet or .jsonl file")],
    since: Annotated[str, typer.Option(help="received from this date or ms on")] = "",
    until: Annotated[str, typer.Option(help="received before this date or ms")] = "",
    workspace: Annotated[str, typer.Option(help="only this workspace")] = "",
    after: Annotated[int, typer.Option(help="only batches after this number")] = 0,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write events for DuckDB or a warehouse, one row per event."""
    bounds = (_time(since, 0), _time(until, 1 << 62))

    async def work() -> tuple[int, int]:
        async with running(settings_of(store=store)) as core:
            exporter = Exporter(core.store, core.bodies, core.mpids, core.directory.names)
            writer = writer_of(to)
            count, last = 0, after
            try:
                async for rows in exporter.rows(
                    after=after, from_ms=bounds[0], to_ms=bounds[1], workspace=workspace
                ):
                    writer.add(rows)
                    count += len(rows)
                    last = rows[-1].batch if rows else last
            finally:
                writer.close()
            return count, last

    count, last = run_now(work())
    if as_json:
        typer.echo(json.dumps({"wrote": str(to), "events": count, "last": last}))
    else:
        console.print(
            f"{count} events, both environments, in {to}; next time: --after {last}",
            highlight=False,
        )


def _time(text: str, default: int) -> int:
    if not text:
        return default
    at = time_of(text)
    if at is None:
        raise typer.BadParameter("write a date like 2026-05-01 or milliseconds")
    return at


class _Lines:
    """JSON Lines."""

    def __init__(self, to: pathlib.Path) -> None:
        self._file = to.open("wb")

    def add(self, rows: list[EventRow]) -> None:
        """Write rows."""
        self._file.write(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))

    def close(self) -> None:
        """Finish the file."""
        self._file.close()


class _Parquet:
    """Parquet, compressed with zstd; one row group per piece."""

    def __init__(self, to: pathlib.Path) -> None:
        try:
            self._arrow: Any = importlib.import_module("pyarrow")
            parquet: Any = importlib.import_module("pyarrow.parquet")
        except ImportError:
            raise FileProblem("Parquet needs the extra `parquet`: onymous[parquet]") from None
        numbers = {"batch", "at_ms", "received_ms"}
        kinds = {True: self._arrow.int64(), False: self._arrow.string()}
        self._schema = self._arrow.schema([(n, kinds[n in numbers]) for n in _FIELDS])
        self._writer = parquet.ParquetWriter(to, self._schema, compression="zstd")

    def add(self, rows: list[EventRow]) -> None:
        """Write rows."""
        if rows:
            columns = {n: [getattr(row, n) for row in rows] for n in _FIELDS}
            self._writer.write_table(self._arrow.table(columns, schema=self._schema))

    def close(self) -> None:
        """Finish the file."""
        self._writer.close()


def writer_of(to: pathlib.Path) -> _Lines | _Parquet:
    """Return what writes a file of this name; raises `FileProblem` for other names."""
    if to.suffix in (".jsonl", ".ndjson"):
        return _Lines(to)
    if to.suffix == ".parquet":
        return _Parquet(to)
    raise FileProblem(f"{to.name}: the name must end in .parquet or .jsonl")
