"""How an identity value is written where not everybody may read it."""

from __future__ import annotations

#: values shorter than this are masked whole
_SHORT = 7


def mask(text: str) -> str:
    """Return a value as it is shown before it is revealed: a***@x.io, ****42."""
    local, at, domain = text.rpartition("@")
    if at and local and "." in domain and "@" not in local:
        return f"{local[0]}***@{domain}"
    return f"****{text[-2:]}" if len(text) >= _SHORT else "****"
