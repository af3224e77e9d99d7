"""Statements in PostgreSQL's words: numbered arguments, and many rows in one statement.

One statement with an array per column does the work of many in one round through the server.
"""

from __future__ import annotations

import functools
import itertools
import re

import msgspec

_INSERT = re.compile(r"INSERT INTO (\w+) \(([^)]*)\) VALUES \(([^)]*)\)(.*)", re.DOTALL)
_UPDATE = re.compile(r"UPDATE (\w+) SET (.*) WHERE (.*)", re.DOTALL)
_DELETE = re.compile(r"DELETE FROM (\w+) WHERE (.*)", re.DOTALL)


@functools.cache
def numbered(statement: str) -> str:
    """Return a statement with `$1`, `$2` ... for its `?`; our literals hold no question marks."""
    return _counted(statement, "$")


def _counted(text: str, prefix: str) -> str:
    count = itertools.count(1)
    return re.sub(r"\?", lambda _: f"{prefix}{next(count)}", text)


class Batch(msgspec.Struct, frozen=True):
    """A statement that does for arrays what the original does for one row."""

    text: str
    #: positions of the arguments that name the row concerned: rows that agree in them must not
    #: share a statement, because it would change such a row only once
    key: tuple[int, ...]


@functools.cache
def inserted(statement: str) -> tuple[str, list[str]]:
    """Return the table and the columns of a plain INSERT."""
    match = _INSERT.fullmatch(statement)
    if match is None or match[3].replace("?", "").strip(", ") or match[4]:
        raise ValueError("not a plain INSERT")
    return match[1], [column.strip() for column in match[2].split(",")]


def looked_up(statement: str, types: list[str]) -> str:
    """Return the form of a SELECT that answers arrays of its arguments; rows start with the
    place (from 1) of the arguments they answer.
    """
    names = ", ".join(f"c{n}" for n in range(1, len(types) + 1))
    arrays = ", ".join(f"${n}::{kind}[]" for n, kind in enumerate(types, 1))
    return (
        f"SELECT u.n, q.* FROM unnest({arrays}) WITH ORDINALITY AS u({names}, n)"
        f" CROSS JOIN LATERAL ({_counted(statement, 'u.c')}) q"
    )


def batched(statement: str, types: list[str]) -> Batch | None:
    """Return the array form of a statement whose arguments have these types, where there is one."""
    names = ", ".join(f"c{n}" for n in range(1, len(types) + 1))
    arrays = ", ".join(f"${n}::{kind}[]" for n, kind in enumerate(types, 1))
    source = f"unnest({arrays}) AS u({names})"
    text = _counted(statement, "u.c")
    if match := _INSERT.fullmatch(text):
        table, columns, values, rest = match.groups()
        if "WHERE" in rest and "DO UPDATE" in rest:
            return None
        key = _conflict_key(columns, values, rest) if "DO UPDATE" in rest else ()
        return Batch(f"INSERT INTO {table} ({columns}) SELECT {values} FROM {source}{rest}", key)
    if match := _UPDATE.fullmatch(text):
        table, changes, where = match.groups()
        key = tuple(int(n) - 1 for n in re.findall(r"\w+ = u\.c(\d+)", where))
        return Batch(f"UPDATE {table} SET {changes} FROM {source} WHERE {where}", key)
    if match := _DELETE.fullmatch(text):
        return Batch(f"DELETE FROM {match[1]} USING {source} WHERE {match[2]}", ())
    return None


def _conflict_key(columns: str, values: str, rest: str) -> tuple[int, ...]:
    """Return the positions of the arguments that stand in the ON CONFLICT columns."""
    conflict = re.search(r"ON CONFLICT \(([^)]*)\)", rest)
    wanted = {c.strip() for c in conflict[1].split(",")} if conflict else set()
    pairs = zip(columns.split(","), values.split(","), strict=True)
    given = [v.strip() for c, v in pairs if c.strip() in wanted]
    return tuple(int(v.removeprefix("u.c")) - 1 for v in given if v.startswith("u.c"))
