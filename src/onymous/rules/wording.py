"""How a mistake in a configuration is told: which field, why, and what to write instead."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from onymous.later import module
from onymous.rules.identifiers import BY_NAME, FOLDED

difflib = module("difflib")


class Problem(msgspec.Struct, frozen=True):
    """One mistake or one piece of advice; never holds an identity value or a secret."""

    #: path in the document, like `scopes.people.priority[2]`
    field: str
    why: str
    #: what to write instead; a full sentence part that can follow "instead: "
    instead: str
    #: line of the document, where known (1 is the first)
    line: int | None = None

    def __str__(self) -> str:
        at = f" (line {self.line})" if self.line else ""
        return f"{self.field}{at}: {self.why}; {self.instead}"


def shorten(text: object, most: int = 40) -> str:
    """Return a name as it may appear in a message: printable, one line, at most `most` long."""
    words = "".join(c if c.isprintable() else "?" for c in str(text))
    return words if len(words) <= most else words[: most - 1] + "…"


def path(*parts: str) -> str:
    """Join the parts of a field path, leaving out empty ones."""
    return ".".join(p for p in parts if p)


def listed(names: Iterable[str]) -> str:
    """Return names as a YAML list, ready to be copied."""
    return "[" + ", ".join(names) + "]"


def meant(word: object, known: Iterable[str]) -> str | None:
    """Return the known word that was probably meant, or None."""
    folded = {k.lower().replace("-", "_"): k for k in known}
    given = str(word).strip().lower().replace("-", "_").replace(" ", "_")[:100]
    if given in folded:
        return folded[given]
    close = difflib.get_close_matches(given, folded, 1, 0.6)
    return folded[close[0]] if close else None


def hint(word: object, known: Iterable[str], *, show: int = 12) -> str:
    """Say what to write instead of an unknown word: the one meant, or all there are."""
    known = tuple(known)
    guess = meant(word, known)
    if guess is not None:
        return f"write {guess}"
    if not known:
        return "leave it out"
    more = ", ..." if len(known) > show else ""
    return f"write one of {', '.join(known[:show])}{more}"


def type_problem(name: str, where: str) -> Problem | None:
    """Return the problem of a name that is no identity type, or None if it is one."""
    if name in BY_NAME:
        return None
    shown = shorten(name)
    if name in FOLDED:
        return Problem(
            where,
            f"{shown} is another interface's spelling",
            f"write {FOLDED[name].name}, its name in the Identity API",
        )
    guess = meant(name, (*BY_NAME, *FOLDED))
    if guess is None:
        instead = "write one of the identity types: " + ", ".join(BY_NAME)
    else:
        instead = f"write {FOLDED[guess].name if guess in FOLDED else guess}"
    return Problem(where, f"{shown} is not an identity type", instead)
