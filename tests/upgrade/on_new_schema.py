"""A plugin for the suite of the previous release: its places come with today's schema.

It runs inside the older work tree; today's source is used in processes of its own only.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from typing import Any

NEW = os.environ["ONYMOUS_NEW_SOURCE"]
MIGRATE = """
import asyncio, sys
from onymous.app import open_store
async def main():
    store = open_store(sys.argv[1])
    await store.start()
    await store.close()
asyncio.run(main())
"""
_made: dict[str, Any] = {}


def migrated(url: str) -> None:
    """Let today's code make the schema."""
    environ = {**os.environ, "PYTHONPATH": NEW}
    subprocess.run([sys.executable, "-c", MIGRATE, url], check=True, env=environ)


def pytest_collection_modifyitems() -> None:
    """Every new place begins as a copy of one that today's code made."""
    conftest: Any = sys.modules["conftest"]
    plain_database, plain_init = conftest.Postgres.database, conftest.Place.__init__

    def database(self: Any) -> str:
        server = f"postgresql {id(self)}"
        if server not in _made:
            _made[server] = plain_database(self)
            migrated(_made[server])
        name = plain_database(self)
        template = _made[server].rpartition("/")[2]
        self._ask(f"DROP DATABASE {name.rpartition('/')[2]}")
        self._ask(f"CREATE DATABASE {name.rpartition('/')[2]} TEMPLATE {template}")
        return str(name)

    def init(self: Any, engine: str, url: str) -> None:
        plain_init(self, engine, url)
        if engine == "sqlite":
            if "sqlite" not in _made:
                _made["sqlite"] = pathlib.Path(tempfile.mkdtemp(prefix="onymous-new-"))
                migrated(f"sqlite:{_made['sqlite']}")
            shutil.copytree(_made["sqlite"], url)

    conftest.Postgres.database, conftest.Place.__init__ = database, init


def pytest_unconfigure() -> None:
    """Leave nothing behind."""
    if "sqlite" in _made:
        shutil.rmtree(_made["sqlite"], ignore_errors=True)
