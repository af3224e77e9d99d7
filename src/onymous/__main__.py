"""`python -m onymous` is the command line."""

from __future__ import annotations

import importlib
import sys

#: commands that must start fast bring only themselves; all others bring the whole command line
ALONE = {"serve": "onymous.commands.serve", "work": "onymous.commands.serve"}


def run() -> None:
    """Run the command that was asked for."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    importlib.import_module(ALONE.get(name, "onymous.cli")).app()


if __name__ == "__main__":
    run()
