"""Text that JSON cannot carry: lone surrogates and broken UTF-8 of pages and apps.

A client that cuts an emoji in two would otherwise lose a whole batch, or send it for ever.
"""

from __future__ import annotations

import json


def repaired(body: bytes) -> bytes | None:
    """Return a body with what is no text replaced by U+FFFD, or None where that is no help."""
    try:
        value = json.loads(body.decode("utf-8", "replace"), parse_constant=_no_constant)
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (ValueError, RecursionError):
        return None
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()


def _no_constant(name: str) -> object:
    raise ValueError("NaN and Infinity are no JSON")
