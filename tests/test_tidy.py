"""The house rules, as tests: who may import whom, sizes, docstrings, one place for SQL."""

from __future__ import annotations

import ast
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parent.parent
SRC = ROOT / "src" / "onymous"
FILES = sorted(SRC.rglob("*.py"))
CODE = [*FILES, *sorted((ROOT / "tests").rglob("*.py"))]

#: room -> rooms (or single modules) it may import; a room may always import itself
MAY_IMPORT: dict[str, set[str]] = {
    "rules": {"later"},
    "later": set(),
    "outputs": {"rules"},
    "store": {"rules", "later"},
    "crypto": set(),
    "tls": set(),
    "limits": set(),
    "settings": {"later"},
    "early": {"settings", "store.wal"},
    "ready": {"settings"},
    "readers": set(),
    "managing": set(),
    "observe": {"store.port", "rules", "later"},
    "logs": set(),
    "tracing": {"web", "flows", "store.port", "store.sql"},
    "stopping": {"web"},
    "processes": {"settings", "stopping"},
    "measuring": {"app", "flows", "later", "limits", "observe", "settings", "store"},
    "flows": {"rules", "outputs", "crypto", "later"}
    | {"store.port", "store.sql", "store.tenants_sql", "store.packing", "store.history_sql"}
    | {"store.review_sql", "store.rules_sql"}
    | {"store.compression", "store.credentials_sql", "store.console_sql", "store.operation_sql"}
    | {"store.configuration_sql", "store.backup_sql", "store.scopes_sql", "store.steps"},
    "pages": {"*"},
    "web": {"later", "flows", "rules", "limits", "crypto", "observe", "store.port"},
    "console": {"flows", "rules"},
    "worker": {"flows", "store.port"},
    "apart": {"settings"},
    "aside": {"app", "flows", "logs", "settings"},
    "duties": {"apart", "app", "flows"},
    "app": {"*"},
    "serving": {"*"},
    "starting": {"early", "later", "logs", "serving", "settings"},
    "backups": {"*"},
    "restoring": {"*"},
    "checking": {"*"},
    "doctor": {"*"},
    "doctor_url": {"*"},
    "library": {"app", "settings", "flows", "rules"},
    "lab": {"app", "serving", "library", "settings", "flows", "rules", "web.openapi", "crypto"}
    | {"store.sql", "store.history_sql", "store.sqlite", "store.finding", "store.port"}
    | {"store.rules_sql", "store.scratch", "store.scratch_sql", "store.packing"}
    | {"backups", "restoring", "later"},
    "commands": {"app", "serving", "library", "lab", "settings", "logs", "crypto", "flows"}
    | {"store.port", "processes", "rules", "readers", "later", "starting"}
    | {"backups", "restoring", "checking", "doctor", "doctor_url"},
    "cli": {"commands"},
    "__init__": {"library"},
    "__main__": {"early", "later"},
}
#: the lab drives the product from outside; these parts of it know nothing of the product
ALONE = {"lab.simulate", "lab.auditor", "lab.score", "lab.history_auditor"}
THIRD_PARTY_IN_RULES = {"msgspec", "phonenumbers"}


def module_of(path: pathlib.Path) -> str:
    parts = path.relative_to(SRC).with_suffix("").parts
    return ".".join(p for p in parts if p != "__init__") or "__init__"


def imports(path: pathlib.Path) -> set[str]:
    """Full names of what a file imports, type-checking blocks included."""
    out: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            out |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            out |= {f"{node.module}.{a.name}" for a in node.names} | {node.module}
    return out


def packages() -> set[str]:
    """Rooms are named by what is imported from them, not by the room itself."""
    return {module_of(f) for f in FILES if f.name == "__init__.py"}


def ours(names: set[str]) -> set[str]:
    known = {module_of(f) for f in FILES}
    out = set()
    for name in names:
        if name.startswith("onymous."):
            inner = name.removeprefix("onymous.")
            while inner and inner not in known:
                inner = inner.rpartition(".")[0]
            if inner and inner not in packages():
                out.add(inner)
    return out


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_rooms_import_only_what_they_may(path: pathlib.Path) -> None:
    module = module_of(path)
    room = module.split(".")[0]
    allowed = MAY_IMPORT[room]
    if "*" in allowed:
        return
    for name in ours(imports(path)):
        target = name.split(".")[0]
        if target == room:
            continue
        fits = any(name == a or name.startswith(a + ".") for a in allowed)
        assert fits, f"{module} must not import {name}"
    if room == "rules":
        third = {n.split(".")[0] for n in imports(path)} - {"onymous", "__future__"}
        third = {n for n in third if n in THIRD_PARTY_IN_RULES or not is_standard(n)}
        assert third <= THIRD_PARTY_IN_RULES, f"{module} imports {third}"
        if "phonenumbers" in third:
            assert module == "rules.identifiers"


def is_standard(name: str) -> bool:
    import_names = __import__("sys").stdlib_module_names
    return name in import_names


@pytest.mark.parametrize("name", sorted(ALONE))
def test_second_models_know_nothing_of_the_product(name: str) -> None:
    parts = [p for p in FILES if module_of(p) == name or module_of(p).startswith(f"{name}_")]
    assert parts
    for path in parts:
        for imported in ours(imports(path)):
            family = any(imported == a or imported.startswith(f"{a}_") for a in ALONE)
            assert family, f"{module_of(path)} must not import {imported}"


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_no_import_inside_a_function(path: pathlib.Path) -> None:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for inner in ast.walk(node):
                assert not isinstance(inner, ast.Import | ast.ImportFrom), f"{path}:{inner.lineno}"


def test_no_import_cycle() -> None:
    graph = {}
    for path in FILES:
        tree = ast.parse(path.read_text("utf-8"))
        guarded = {
            n
            for block in ast.walk(tree)
            if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
            for n in ast.walk(block)
        }
        names: set[str] = set()
        for node in ast.walk(tree):
            if node in guarded:
                continue
            if isinstance(node, ast.Import):
                names |= {a.name for a in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names |= {f"{node.module}.{a.name}" for a in node.names}
        graph[module_of(path)] = ours(names) - {module_of(path)}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail, name))
        if name not in done:
            for other in graph.get(name, ()):
                visit(other, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("path", CODE, ids=lambda p: str(p.relative_to(ROOT)))
def test_sizes(path: pathlib.Path) -> None:
    lines = path.read_text("utf-8").splitlines()
    assert len(lines) <= 400, f"{path} has {len(lines)} lines"
    for number, line in enumerate(lines, 1):
        assert len(line) <= 100, f"{path}:{number} has {len(line)} columns"
    if SRC in path.parents:
        for node in ast.walk(ast.parse("\n".join(lines))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                size = (node.end_lineno or 0) - node.lineno + 1
                assert size <= 40, f"{path}:{node.lineno} {node.name} has {size} lines"


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_every_public_thing_says_what_it_is(path: pathlib.Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    if path.name != "__init__.py" or tree.body:
        assert ast.get_docstring(tree), f"{path} has no docstring"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            public = not node.name.startswith("_")
            nested = _nested(tree, node)
            if public and not nested:
                assert ast.get_docstring(node), f"{path}:{node.lineno} {node.name}"


def _nested(tree: ast.Module, node: ast.AST) -> bool:
    """Whether a definition lives inside a function or a private class."""
    for outer in ast.walk(tree):
        if outer is node:
            continue
        inside = isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef) or (
            isinstance(outer, ast.ClassDef) and outer.name.startswith("_")
        )
        if inside and any(inner is node for inner in ast.walk(outer)):
            return True
    return False


SQL = re.compile(r"\b(SELECT\s.+\sFROM|INSERT INTO|DELETE FROM|UPDATE \w+ SET)\b")


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_sql_stands_in_the_store(path: pathlib.Path) -> None:
    if module_of(path).startswith("store") or module_of(path).startswith("lab"):
        return
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            assert not SQL.search(node.value), f"{path}:{node.lineno}"


#: pieces are joined at run time so that this file does not name what it forbids
FORBIDDEN = [
    re.escape("".join(words))
    for words in (
        ("py", "pi.org"),
        ("registry.", "npmjs"),
        ("files.python", "hosted"),
        ("deb.", "debian.org"),
        ("/wo", "rk/"),
        ("/ro", "ot/"),
        ("mPart", "icle Inc"),
    )
]


def test_nothing_that_does_not_belong_here() -> None:
    skip = {".git", ".venv", "__pycache__", "node_modules", ".mypy_cache", ".ruff_cache"}
    skip |= {".pytest_cache", ".hypothesis", "dist"}
    bad = []
    for path in ROOT.rglob("*"):
        parts = set(path.relative_to(ROOT).parts)
        if parts & skip or not path.is_file() or path.name == "uv.lock":
            continue
        try:
            text = path.read_text("utf-8")
        except UnicodeDecodeError:
            continue
        for pattern in FORBIDDEN:
            if re.search(pattern, text):
                bad.append((str(path.relative_to(ROOT)), pattern))
    assert not bad
    # a setting taken for a folder's name leaves its data here
    assert not [path.name for path in ROOT.iterdir() if ":" in path.name]
