"""What it ran on, and the result as text, table and JSON."""

from __future__ import annotations

import os
import pathlib
import platform

import apsw
import msgspec

from onymous.lab.bench.bulk import imports
from onymous.lab.bench.lives import batches, profiles
from onymous.lab.bench.pointers import batch_size, first_page, flat
from onymous.lab.bench.rows import (
    Bench,
    Line,
    identify,
    library,
    on_postgres,
    slow_disk,
    two_processes,
)
from onymous.lab.bench.sizes import (
    disk,
    explain,
    growth,
    hot_value,
    own_python,
    starting,
)

#: every part, in the order of the table of goals
PARTS = {
    "identify": identify,
    "slow-disk": slow_disk,
    "processes": two_processes,
    "postgres": on_postgres,
    "library": library,
    "trace": explain,
    "growth": growth,
    "hot": hot_value,
    "python": own_python,
    "disk": disk,
    "start": starting,
    "batches": batches,
    "profiles": profiles,
    "pointers": flat,
    "history": first_page,
    "batch-size": batch_size,
    "import": imports,
}


class Ground(msgspec.Struct, kw_only=True):
    """What a benchmark ran on."""

    cpu: str
    cores: int
    memory_gb: float
    system: str
    python: str
    sqlite: str
    load_before: float


def ground() -> Ground:
    """Look at the machine."""
    return Ground(
        cpu=_line("/proc/cpuinfo", "model name") or platform.processor(),
        cores=os.cpu_count() or 0,
        memory_gb=round(int((_line("/proc/meminfo", "MemTotal") or "0 kB").split()[0]) / 1e6, 1),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        sqlite=apsw.sqlite_lib_version(),
        load_before=os.getloadavg()[0],
    )


def _line(file: str, name: str) -> str:
    try:
        for line in pathlib.Path(file).read_text().splitlines():
            if line.startswith(name):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return ""


def run(bench: Bench, only: list[str]) -> list[Line]:
    """Run parts of the benchmark; all of them without `only`."""
    out: list[Line] = []
    for name, part in PARTS.items():
        if not only or name in only:
            out += part(bench)
    return out
