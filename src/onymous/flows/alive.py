"""Which process does something, written so that others on the same machine can tell it died.

Only Linux tells enough; elsewhere, and of processes of other machines or containers, nothing is
known, and nothing is said.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib

_PROC = pathlib.Path("/proc")
#: fields of /proc/PID/stat behind the name of the program: state, and ticks since boot at its start
_STATE, _STARTED = 0, 19


def myself() -> str:
    """Return this process as others may know it: place, number, start; empty where unknowable."""
    place, number = _place(), os.getpid()
    stat = _stat(number) if place else []
    return f"{place}.{number}.{stat[_STARTED]}" if stat else ""


def is_gone(who: str) -> bool:
    """Return whether the process `myself` told of has ended for certain."""
    place, _, rest = who.partition(".")
    number, _, started = rest.partition(".")
    if not place or place != _place() or not number.isdigit() or not started.isdigit():
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except OSError:  # it is there, and somebody else's
        pass
    stat = _stat(int(number))
    if not stat:
        return False
    return stat[_STARTED] != started or _ended(int(number), stat)


def _place() -> str:
    """Return what tells from all others the kernel and the space in which numbers are processes'.

    A container has the kernel of its host and its own numbers; its own clock, perhaps.
    """
    try:
        if os.readlink(_PROC / "self") != str(os.getpid()):
            return ""  # what lies there tells of other numbers than ours
        boot = (_PROC / "sys/kernel/random/boot_id").read_text("ascii").strip()
        spaces = [os.readlink(_PROC / "self/ns/pid")]
        with contextlib.suppress(FileNotFoundError):  # kernels before 5.6 have one clock
            spaces.append(os.readlink(_PROC / "self/ns/time"))
    except (OSError, ValueError):
        return ""
    text = " ".join((boot, *spaces, os.uname().nodename))
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def _stat(number: int) -> list[str]:
    try:
        text = (_PROC / str(number) / "stat").read_text("utf-8", "replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()


def _ended(number: int, stat: list[str]) -> bool:
    """Return whether a process only waits to be buried: none of its threads is left."""
    if stat[_STATE] not in "ZX":
        return False
    try:
        return len(os.listdir(_PROC / str(number) / "task")) <= 1
    except OSError:
        return False
