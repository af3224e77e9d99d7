"""From what a person wrote to a `Document`: strict, complete, every mistake told at once.

The text is already plain lists, mappings and scalars here (`onymous.flows.documents` reads YAML);
`lines` maps field paths to line numbers for the messages.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Mapping
from typing import Any

import msgspec

from onymous.rules import checks
from onymous.rules.consent import MOST_PURPOSE, MOST_PURPOSES
from onymous.rules.identifiers import DEFAULT_PRIORITY
from onymous.rules.inputs import input_problems, input_warnings
from onymous.rules.strategies import STRATEGIES, Blocked, ScopeConfig, login_types
from onymous.rules.tenants import FEED_KINDS, Document, InputConfig, Workspace
from onymous.rules.wording import Problem, hint, path, shorten

#: most characters of a name
MOST_NAME = 64
_SECRET = re.compile(r"secret|passw(or)?d|passphrase|token|private_?key|credential", re.I)
_KINDS = {
    "bool": "true or false",
    "int": "a whole number",
    "str": "text",
    "array": "a list",
    "object": "a mapping (name: value)",
    "null": "nothing",
    "float": "a number",
}
_TOP = ("organization", "accounts", "scopes", "workspaces")
_WORKSPACE = ("account", "scope", "consent_purposes", "inputs", "feeds")


def decode(data: object, lines: Mapping[str, int]) -> tuple[Document | None, list[Problem]]:
    """Return the document, or None and the problems that keep it from being one."""
    reader = _Reader(lines)
    document = reader.document(data)
    if reader.problems:
        return None, reader.problems
    return document, []


def at_lines(problems: list[Problem], lines: Mapping[str, int]) -> list[Problem]:
    """Return the problems with the line of their field, or of what the field stands in."""
    out = []
    for p in problems:
        at = p.field
        while at and at not in lines:
            at = at[: max(at.rfind("."), at.rfind("["), 0)]
        out.append(msgspec.structs.replace(p, line=p.line or lines.get(at)))
    return out


class _Reader:
    """Collects problems while it reads one document."""

    def __init__(self, lines: Mapping[str, int]) -> None:
        self._lines = lines
        self.problems: list[Problem] = []

    def problem(self, field: str, why: str, instead: str) -> None:
        """Note a problem."""
        self.add([Problem(field, why, instead)])

    def add(self, problems: list[Problem]) -> None:
        """Note problems found elsewhere, with the lines of their fields."""
        self.problems += at_lines(problems, self._lines)

    # -- the document ------------------------------------------------------------------------

    def document(self, data: object) -> Document | None:
        """Read the whole document."""
        if not isinstance(data, dict):
            self.problem(
                "(document)", "this is no mapping", "start with `organization: NAME`, or run init"
            )
            return None
        self.known(data, _TOP, "")
        organization = self.organization(data.get("organization"))
        accounts = self.accounts(data.get("accounts"), organization)
        raw = self.named(data.get("scopes"), "scopes")
        scopes = {name: self.scope(body, f"scopes.{name}") for name, body in raw.items()}
        workspaces: dict[str, Workspace] = {}
        for name, body in self.named(data.get("workspaces"), "workspaces").items():
            where = f"workspaces.{name}"
            fields = self.mapping(body, where)
            self.known(fields, _WORKSPACE, where)
            workspaces[name] = Workspace(
                account=self.account_of(fields.get("account"), accounts, where),
                scope=self.scope_of(fields, name, scopes, where),
                inputs=self.inputs(fields, where),
                consent_purposes=self.purposes(fields.get("consent_purposes"), where),
            )
        self.keys(workspaces)
        return Document(
            organization=organization, accounts=accounts, scopes=scopes, workspaces=workspaces
        )

    def organization(self, name: object) -> str:
        """Read the organization's name."""
        if name is None:
            self.problem("organization", "it is missing", "write organization: YOUR COMPANY")
            return ""
        self.name(name, "organization")
        return str(name)

    def accounts(self, data: object, organization: str) -> tuple[str, ...]:
        """Read the accounts; without any there is one, called like the organization."""
        if data is None:
            return (organization,)
        if not isinstance(data, list) or not data:
            self.problem("accounts", "this is no list", "write accounts: [NAME, NAME]")
            return ()
        for n, name in enumerate(data):
            self.name(name, f"accounts[{n}]")
            if name in data[:n]:
                self.problem(
                    f"accounts[{n}]", f"{shorten(name)} stands there twice", "remove the second"
                )
        return tuple(map(str, data))

    def account_of(self, name: object, accounts: tuple[str, ...], where: str) -> str:
        """Read which account a workspace belongs to; may be left out where there is only one."""
        if name is None and len(accounts) == 1:
            return accounts[0]
        if name is None:
            self.problem(path(where, "account"), "it is missing", hint("", accounts))
        elif name not in accounts:
            why = f"{shorten(name)} is not in accounts"
            self.problem(path(where, "account"), why, hint(name, accounts))
        return str(name)

    def scope_of(
        self, fields: dict[str, Any], name: str, scopes: dict[str, ScopeConfig], where: str
    ) -> str:
        """Read which scope a workspace belongs to; without one it has a bare one of its own."""
        given, at = fields.get("scope"), path(where, "scope")
        if given is None:
            if name in scopes:
                why = f"it is missing, and there is a scope called {shorten(name)}"
                self.problem(at, why, f"write scope: {name} if that one is meant")
            scopes[name] = with_presets(ScopeConfig())
            return name
        if not isinstance(given, str):
            self.problem(at, "a workspace has exactly one scope", "write the name of one scope")
        elif given not in scopes:
            self.problem(at, f"{shorten(given)} is not in scopes", hint(given, scopes))
        return str(given)

    def scope(self, body: object, where: str) -> ScopeConfig:
        """Read a scope's configuration and check it."""
        before = len(self.problems)
        fields = self.mapping(body, where)
        blocked = fields.get("blocked")
        for n, entry in enumerate(blocked if isinstance(blocked, list) else ()):
            if isinstance(entry, dict):
                self.known(entry, Blocked.__struct_fields__, f"{where}.blocked[{n}]")
        config = with_presets(self.struct(ScopeConfig, fields, where))
        if len(self.problems) == before:
            self.add(checks.problems(config, where))
        return config

    def inputs(self, fields: dict[str, Any], where: str) -> dict[str, InputConfig]:
        """Read the inputs and feeds of a workspace."""
        out: dict[str, InputConfig] = {}
        for group in ("inputs", "feeds"):
            for name, body in self.named(fields.get(group), path(where, group)).items():
                at = f"{where}.{group}.{name}"
                settings = dict(self.mapping(body, at))
                if group == "feeds":
                    settings.setdefault("kind", FEED_KINDS[0])
                if name in out:
                    self.problem(at, "an input has this name already", "choose another name")
                before = len(self.problems)
                config = self.struct(InputConfig, settings, at, {"kind": "other"}).resolved()
                if len(self.problems) == before:
                    self.add(input_problems(config, at, feed=group == "feeds"))
                out[name] = config
        return out

    def purposes(self, data: object, where: str) -> tuple[str, ...] | None:
        """Read the declared GDPR purposes, as they are compared."""
        if data is None:
            return None
        at = path(where, "consent_purposes")
        if not isinstance(data, list):
            self.problem(at, "this is no list", "put it in brackets: [analytics, marketing]")
            return None
        out: list[str] = []
        for n, given in enumerate(data):
            purpose = given.strip().lower() if isinstance(given, str) else ""
            if not purpose or len(purpose) > MOST_PURPOSE:
                why = f"a purpose is text of 1 to {MOST_PURPOSE} characters"
                self.problem(f"{at}[{n}]", why, "put it in quotes, or remove it")
            elif purpose in out:
                self.problem(f"{at}[{n}]", f"{shorten(given)} stands there twice", "remove it")
            else:
                out.append(purpose)
        if len(out) > MOST_PURPOSES:
            self.problem(at, f"more than {MOST_PURPOSES} purposes", "remove some")
        return tuple(out)

    def keys(self, workspaces: dict[str, Workspace]) -> None:
        """Check that no API key is given twice."""
        seen: dict[str, str] = {}
        for name, workspace in workspaces.items():
            for child, config in workspace.inputs.items():
                group = "feeds" if config.kind in FEED_KINDS else "inputs"
                at = f"workspaces.{name}.{group}.{child}"
                if config.api_key is not None and config.api_key in seen:
                    why = f"this key is that of {seen[config.api_key]} too"
                    self.problem(f"{at}.api_key", why, "leave one of them out")
                elif config.api_key is not None:
                    seen[config.api_key] = at

    # -- pieces ------------------------------------------------------------------------------

    def name(self, name: object, at: str) -> None:
        """Check a name a person gave."""
        if not isinstance(name, str):
            self.problem(at, "a name must be text", 'put it in quotes, like "2024"')
        elif (
            not name.isprintable()
            or name != name.strip()
            or "/" in name
            or not 0 < len(name) <= MOST_NAME
        ):
            why = f"a name is 1 to {MOST_NAME} printable characters, no /, no spaces around it"
            self.problem(at, why, "choose another name")

    def named(self, data: object, where: str) -> dict[str, Any]:
        """Read a mapping of names to things."""
        out = {}
        for name, body in self.mapping(data, where).items():
            self.name(name, path(where, shorten(name)))
            out[str(name)] = body
        return out

    def mapping(self, data: object, where: str) -> dict[Any, Any]:
        """Read a mapping; nothing at all is an empty one."""
        if data is None:
            return {}
        if not isinstance(data, dict):
            self.problem(where, "this is no mapping (name: value)", "write it as `name: value`")
            return {}
        return data

    def known(self, fields: dict[Any, Any], names: tuple[str, ...], where: str) -> None:
        """Check that every key is known, and none is a place for a secret."""
        for key in fields:
            if key in names:
                continue
            at = path(where, shorten(key))
            if _SECRET.search(str(key)):
                self.problem(
                    at,
                    "secrets are never in this file",
                    "remove it (and renew it): secrets are generated and shown once by apply",
                )
            else:
                self.problem(at, "there is no such field", hint(key, names))

    def struct(
        self,
        cls: type[Any],
        fields: dict[Any, Any],
        where: str,
        instead_of: dict[str, object] | None = None,
    ) -> Any:
        """Read the fields of a struct one by one, so that every mistake is told."""
        self.known(fields, cls.__struct_fields__, where)
        types = msgspec.structs.fields(cls)
        values: dict[str, Any] = {}
        for field in types:
            if field.name in fields:
                value = fields[field.name]
                try:
                    values[field.name] = msgspec.convert(value, field.type)
                except msgspec.ValidationError as error:
                    at = path(where, field.name)
                    self.add([_mistyped(at, str(error), value, field.type)])
            elif field.required:
                self.problem(path(where, field.name), "it is missing", f"write {field.name}: ...")
        for name, value in (instead_of or {}).items():
            values.setdefault(name, value)
        return cls(**values)


def with_presets(config: ScopeConfig) -> ScopeConfig:
    """Return a configuration that states what its strategy and ranking leave open.

    Login and unique types that were left out become those the strategy starts with; the default
    ranking puts immutable and login types first, as a stated ranking must.
    """
    strategy = STRATEGIES.get(config.strategy)
    if strategy is None:
        return config
    if strategy.fixed is None:
        config = msgspec.structs.replace(
            config,
            login=strategy.preset if config.login is None else config.login,
            unique=strategy.preset if config.unique is None else config.unique,
        )
    if config.priority != DEFAULT_PRIORITY:
        return config
    logins = login_types(config)
    ranked = sorted(DEFAULT_PRIORITY, key=lambda n: (n not in config.immutable, n not in logins))
    return msgspec.structs.replace(config, priority=tuple(ranked))


def _mistyped(at: str, message: str, value: object, kind: Any) -> Problem:
    """Put msgspec's message into our words."""
    found = re.search(r" - at `\$([^`]*)`$", message)
    if found:
        at += found[1].replace("[...]", "")
        message = message[: found.start()]
    if typing.get_origin(kind) is typing.Literal:
        words = typing.get_args(kind)
        return Problem(at, f"{shorten(value)} is none of {', '.join(words)}", hint(value, words))
    missing = re.fullmatch(r"Object missing required field `(\w+)`", message)
    if missing:
        return Problem(path(at, missing[1]), "it is missing", f"write {missing[1]}: ...")
    match = re.fullmatch(r"Expected `([^`]*)`, got `([^`]*)`", message)
    if match is None:
        return Problem(at, message.rstrip(".").lower(), "see this field in the manual")
    wanted = [_KINDS.get(w.strip(), w.strip()) for w in match[1].split("|")]
    got = _KINDS.get(match[2], match[2])
    instead = f"write {wanted[0]}"
    if match[1].startswith("array") and isinstance(value, str):
        instead = "put it in brackets: [a, b]"
    elif match[1].startswith("str") and match[2] in ("int", "float", "bool"):
        instead = 'put it in quotes: "..."'
    elif match[1] == "bool" and isinstance(value, str):
        instead = f"write {'true' if _yes(value) else 'false'} (without quotes)"
    return Problem(at, f"this is {got}, it must be {' or '.join(wanted)}", instead)


def _yes(value: str) -> bool:
    return value.strip().lower() in ("yes", "y", "on", "true", "1")


def advice(document: Document) -> list[Problem]:
    """Return the linter's warnings on every scope and input of a document."""
    out = [
        problem
        for name, config in document.scopes.items()
        for problem in checks.warnings(config, f"scopes.{name}")
    ]
    for name, workspace in document.workspaces.items():
        for child, settings in workspace.inputs.items():
            group = "feeds" if settings.kind in FEED_KINDS else "inputs"
            out += input_warnings(settings, f"workspaces.{name}.{group}.{child}")
    return out
