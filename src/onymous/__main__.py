"""`python -m onymous` is the command line."""

from __future__ import annotations

import importlib
import os
import sys

from onymous import early

#: commands that must start fast bring only themselves; all others bring the whole command line
ALONE = {"serve": "onymous.commands.serve", "work": "onymous.commands.serve"}


def run() -> None:
    """Run the command that was asked for."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name in ALONE:
        early.begin(sys.argv[2:], os.environ)
    importlib.import_module(ALONE.get(name, "onymous.cli")).app()


if __name__ == "__main__":
    run()
