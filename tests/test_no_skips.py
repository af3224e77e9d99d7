"""In CI a skipped test is a failed one."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).parent


def outcome(folder: pathlib.Path, **environ: str) -> int:
    (folder / "conftest.py").write_text((HERE / "conftest.py").read_text("utf-8"))
    (folder / "test_it.py").write_text("import pytest\ndef test_it(): pytest.skip('no engine')\n")
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)]
    clean = {k: v for k, v in os.environ.items() if k != "ONYMOUS_CI"}
    return subprocess.run(
        words, env={**clean, **environ}, capture_output=True, cwd=folder
    ).returncode


def test_a_skip_fails_where_everything_must_run(tmp_path: pathlib.Path) -> None:
    assert outcome(tmp_path) == 0
    assert outcome(tmp_path, ONYMOUS_CI="1") == 1
