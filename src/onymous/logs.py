"""Logs: one line per event, as text or JSON. They carry no identity values, keys or secrets.

What other libraries log may quote data in its message or exception: of theirs only the first line
is kept, and of every exception only its kind and where it came from.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import sys
import time
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Any

import msgspec

OURS = "onymous"
#: loggers of libraries that are heard too, and from which level on
OTHERS = {
    "uvicorn": logging.WARNING,
    "asyncio": logging.ERROR,
    "py.warnings": logging.WARNING,
    "opentelemetry": logging.WARNING,
}
#: request ids that are told as they are; others might be someone's address, so: a digest
_ID = re.compile(r"[0-9a-fA-F]{8}-?([0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}")
access = logging.getLogger("onymous.access")


class _Named(msgspec.Struct):
    """A body's request id, in both spellings."""

    request_id: str | None = None
    requestId: str | None = None


_named = msgspec.json.Decoder(_Named)


def safe_id(request_id: str) -> str:
    """Return a request id as logs may show it."""
    if _ID.fullmatch(request_id):
        return request_id
    digest = hashlib.blake2b(request_id.encode("utf-8", "replace"), digest_size=16)
    return f"digest:{digest.hexdigest()}"


def request_id_of(body: bytes) -> str:
    """Return the request id of a JSON body as logs may show it, or nothing."""
    if not body.startswith(b"{"):
        return ""
    try:
        named = _named.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    found = named.request_id or named.requestId
    return safe_id(found) if found else ""


def log_request(
    op: str, method: str, status: int, seconds: float, body: bytes, **more: str
) -> None:
    """Log one request: its operation's name, never its path, which may hold an MPID."""
    fields: dict[str, Any] = {"operation": op, "method": method, "status": status}
    fields |= {"ms": round(seconds * 1000, 3), "request_id": request_id_of(body), **more}
    fields = {name: value for name, value in fields.items() if value != ""}
    words = " ".join(f"{name}={value}" for name, value in fields.items())
    access.info(words, extra={"fields": fields})


class Bare(logging.Formatter):
    """A line of text without anything that could be data."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line; where an error came from goes behind it."""
        head = f"{_at(record)} {record.levelname} {record.name} {said(record)}"
        where = came_from(record)
        return head + (f" [{' < '.join(where)}]" if where else "")


class JsonFormatter(logging.Formatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as JSON."""
        fields = getattr(record, "fields", None)
        line: dict[str, Any] = {
            "at": _at(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            **(fields if isinstance(fields, dict) else {"message": said(record)}),
        }
        where = came_from(record)
        if where:
            line["trace"] = where
        return json.dumps(line, ensure_ascii=True)


def said(record: logging.LogRecord) -> str:
    """Return what a record says, on one line; of other libraries' words only the first line."""
    lines = record.getMessage().splitlines() or [""]
    if not record.name.startswith(OURS):
        return lines[0][:200]
    return " ".join(lines)


def came_from(record: logging.LogRecord) -> list[str]:
    """Return the kind of a record's exception and the places it passed, innermost first."""
    if not record.exc_info or record.exc_info[0] is None:
        return []
    kind, _, trace = record.exc_info
    frames = traceback.extract_tb(trace)[-12:]
    places = [f"{f.filename.rpartition('/')[2]}:{f.lineno} {f.name}" for f in reversed(frames)]
    return [kind.__name__, *places]


def _at(record: logging.LogRecord) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + (
        f".{int(record.msecs):03d}Z"
    )


def set_up_logging(form: str) -> None:
    """Log to standard error as text or JSON lines: ours, and what libraries complain about."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else Bare())
    logging.captureWarnings(True)
    for name, level in {OURS: logging.INFO, **OTHERS}.items():
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.setLevel(level)
        logger.propagate = False
    sys.excepthook = _fatal(logging.getLogger(OURS))


def _fatal(
    log: logging.Logger,
) -> Callable[[type[BaseException], BaseException, TracebackType | None], None]:
    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        log.critical("ended by an error nobody expected", exc_info=(kind, error, trace))

    return hook
