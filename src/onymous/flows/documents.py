"""YAML in and out: text to plain values with line numbers, within bounds.

Stricter than YAML at large, because people's identities hang on it: only `true` and `false` are
booleans (not `no`, Norway's region), nothing becomes a date, names do not stand twice, and
references to other parts of the text are limited.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any

from onymous.later import module
from onymous.rules.wording import Problem, path, shorten

if TYPE_CHECKING:
    import yaml
else:
    yaml = module("yaml")

#: largest text, in characters
MOST_CHARACTERS = 1 << 20
#: most values of a document, those repeated through references included
MOST_VALUES = 200_000
#: deepest nesting; documents need six
MOST_DEEP = 20

_BOOL = {f(word): word == "true" for word in ("true", "false") for f in (str, str.title, str.upper)}
_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?[0-9]+\.[0-9]+([eE][-+]?[0-9]+)?")


class Unreadable(Exception):
    """The text is no YAML document that could be read; `problem` says where and why."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


def read(text: str) -> tuple[Any, dict[str, int]]:
    """Return the values of a YAML (or JSON) text and the line of each field path.

    Raises `Unreadable` for text that is too large, not YAML, or has a name twice.
    """
    if len(text) > MOST_CHARACTERS:
        why = f"longer than {MOST_CHARACTERS} characters"
        raise Unreadable(Problem("(document)", why, "split it by scope and apply each part"))
    try:
        node = yaml.compose(text.removeprefix("\ufeff"), Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        why = (error.problem or error.context or "not YAML").replace("'\\t'", "a tab")
        line = mark.line + 1 if mark else None
        fix = "check indentation, colons and quotes of this line and the one before"
        raise Unreadable(Problem("(document)", f"not YAML: {why}", fix, line)) from None
    except (yaml.YAMLError, ValueError):
        why, fix = "not YAML: it holds characters no text has", "save it as UTF-8 text"
        raise Unreadable(Problem("(document)", why, fix)) from None
    except RecursionError:
        raise Unreadable(_too_deep("(document)", None)) from None
    reader = _Reader()
    return (None if node is None else reader.value(node, "", 0)), reader.lines


def _too_deep(field: str, line: int | None) -> Problem:
    return Problem(field, f"nested more than {MOST_DEEP} deep", "compare it with the manual", line)


class _Reader:
    """Turns YAML nodes into plain values."""

    def __init__(self) -> None:
        self.lines: dict[str, int] = {}
        self._left = MOST_VALUES

    def value(self, node: yaml.Node, where: str, depth: int) -> Any:
        """Return the plain value of a node."""
        line = node.start_mark.line + 1
        self.lines.setdefault(where, line)
        self._left -= 1
        if self._left < 0:
            why = f"more than {MOST_VALUES} values, references (*name) counted in full"
            raise Unreadable(Problem("(document)", why, "write it with fewer references", line))
        if depth > MOST_DEEP:
            raise Unreadable(_too_deep(where, line))
        if node.tag not in _TAGS:
            why = f"the tag {shorten(node.tag)} is not used here"
            raise Unreadable(Problem(where or "(document)", why, "remove the tag", line))
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, where, depth)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(n, f"{where}[{i}]", depth + 1) for i, n in enumerate(node.value)]
        return _scalar(node)

    def _mapping(self, node: yaml.MappingNode, where: str, depth: int) -> dict[Any, Any]:
        out: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                why = "a name must be text, not a list or mapping"
                raise Unreadable(Problem(where or "(document)", why, "write name: value", line))
            key = _scalar(key_node)
            at = path(where, shorten(key))
            if key in out:
                why = "this name stands there twice; only one could count"
                raise Unreadable(Problem(at, why, "remove one or merge them", line))
            self.lines[at] = line
            out[key] = self.value(value_node, at, depth + 1)
        return out


def _scalar(node: yaml.Node) -> Any:
    """Return a scalar as YAML 1.2 reads it: no dates, no octal numbers, no yes and no."""
    text: str = node.value
    if node.tag == _STR_TAG:
        return text
    if text in _BOOL:
        return _BOOL[text]
    if text in ("", "~", "null", "Null", "NULL"):
        return None
    if _INT.fullmatch(text) and len(text) < 19:
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


_STR_TAG = "tag:yaml.org,2002:str"
_TAGS = frozenset(
    f"tag:yaml.org,2002:{name}"
    for name in ("str", "bool", "int", "float", "null", "timestamp", "merge", "value", "map", "seq")
)


def write(data: Any) -> str:
    """Return plain values as YAML that `read` reads back the same."""
    return yaml.dump(
        data, Dumper=_dumper(), sort_keys=False, allow_unicode=True, width=99, indent=2
    )


@functools.cache
def _dumper() -> type[yaml.SafeDumper]:
    """Return what writes lists of names in brackets, as people do."""

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            """Write everything out; references are hard to read."""
            return True

    Dumper.add_representer(list, _list)
    return Dumper


def _list(dumper: yaml.SafeDumper, data: Any) -> yaml.Node:
    flow = all(isinstance(item, str) for item in data)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=flow)
