"""Organization, accounts, scopes, workspaces, inputs and feeds; and what a new document changes.

`onymous.rules.documents` makes a `Document` of what a person wrote; `diff` compares it with the
`State` of the database and refuses what would mix or lose people's data.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec

from onymous.rules.strategies import STRATEGIES, ScopeConfig, login_types, unique_types
from onymous.rules.wording import listed, shorten

#: kinds of inputs: the platforms an SDK runs on, and servers
INPUT_KINDS = (
    "web",
    "ios",
    "tvos",
    "android",
    "roku",
    "alexa",
    "smart_tv",
    "fire",
    "xbox",
    "amp",
    "server",
    "other",
)
FEED_KINDS = ("custom_feed", "partner_feed")
#: kinds whose secret never leaves a server; a secret inside an app is no secret
SERVER_KINDS = ("server", "custom_feed", "other")
#: what a feed may act as
PLATFORMS = tuple(kind for kind in INPUT_KINDS if kind not in ("server", "other"))
PERMISSIONS = (
    "search:any",
    "history:read",
    "explain",
    "merge",
    "alias:any",
    "undo",
    "review",
    "quarantine",
    "delete",
)
_KEY_ONLY = ("web", "amp")
_SERVER_SIDE = ("server", "custom_feed")


class InputConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One input or feed. None means: as usual for its kind (see `resolved`)."""

    kind: str
    #: feeds: treat rows as if this platform had sent them
    act_as: str | None = None
    #: an input that is not active answers 401 to everything
    active: bool = True
    #: the public key; None: generated. To be stated when apps in the field carry one already
    api_key: str | None = None
    #: the key alone suffices (pages cannot keep a secret); such callers are restricted
    key_only: bool | None = None
    #: the secret stays on a server; only such inputs may hold permissions
    server_side: bool | None = None
    #: fold other spellings of identity types in the Identity API instead of refusing them
    fold_keys: bool = False
    #: key-only callers may use Search
    search_key_only: bool = False
    #: callers that showed their secret may use read_only
    allow_read_only: bool = True
    permissions: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ("*",)
    #: seconds clients may keep an identify or login answer
    max_age_s: int = 86_400
    #: seconds a signature's date may be off; 0: not checked
    skew_s: int = 900
    #: requests per second of the whole input; 0: no limit
    requests_per_second: int = 0
    #: the device's IP address stays in the batch
    keep_ip: bool = True
    #: advertising ids of devices that limit ad tracking are not collected
    restrict_device_ids: bool = False
    #: attributes are set by change events alone, never by the map of a batch
    strict_uac: bool = False
    #: partner feeds: the partner whose identities they may state (NAME_...)
    partner: str | None = None
    #: flags handed to SDKs by the config endpoint; SDKs read text, 'True' not true
    config_flags: dict[str, str] = {}

    def resolved(self) -> InputConfig:
        """Return a copy in which nothing depends on the kind's defaults any more."""
        return msgspec.structs.replace(
            self,
            key_only=self.kind in _KEY_ONLY if self.key_only is None else self.key_only,
            server_side=self.kind in _SERVER_SIDE if self.server_side is None else self.server_side,
        )


class Workspace(msgspec.Struct, frozen=True, kw_only=True):
    """One workspace: its account, its one scope, its inputs and feeds by name."""

    account: str
    scope: str
    inputs: dict[str, InputConfig] = {}
    #: GDPR purposes that may be stated; None: any may. Once declared, a purpose stays
    consent_purposes: tuple[str, ...] | None = None


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator wants, complete: nothing is left to defaults."""

    organization: str
    accounts: tuple[str, ...]
    scopes: dict[str, ScopeConfig]
    workspaces: dict[str, Workspace]


class State(msgspec.Struct, kw_only=True):
    """What the database has; inputs are resolved and carry their API key."""

    organization: str | None = None
    accounts: tuple[str, ...] = ()
    scopes: dict[str, ScopeConfig] = {}
    workspaces: dict[str, Workspace] = {}
    #: scopes that hold identities, in production or development
    holding: frozenset[str] = frozenset()


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a plan: what would happen to one thing, or why it must not."""

    action: Literal["create", "update", "refuse", "leave"]
    noun: Literal["organization", "account", "scope", "workspace", "input"]
    #: inputs and feeds: "workspace/input"
    name: str
    changes: tuple[str, ...] = ()
    why: str | None = None
    instead: str | None = None

    def __str__(self) -> str:
        sign = {"create": "+", "update": "~", "refuse": "!", "leave": "="}[self.action]
        text = f"{sign} {self.noun} {self.name}"
        if self.changes:
            text += ": " + ", ".join(self.changes)
        if self.why:
            text += f": {self.why}"
        return text + (f"; {self.instead}" if self.instead else "")


def diff(current: State, wanted: Document, *, moving: bool = False) -> list[Step]:
    """Return the steps from what is to what is wanted; refused ones say why and what to do.

    `moving`: people are carried over to new rules, so that no rule is unsafe to change.
    Nothing is ever deleted because it is missing in the document: such things are left alone.
    """
    return [
        *_organization(current, wanted),
        *_accounts(current, wanted),
        *_scopes(current, wanted, moving),
        *_workspaces(current, wanted),
        *_inputs(current, wanted),
        *_left(current, wanted),
    ]


def _organization(current: State, wanted: Document) -> Iterator[Step]:
    if current.organization is None:
        yield Step(action="create", noun="organization", name=wanted.organization)
    elif current.organization != wanted.organization:
        yield Step(
            action="refuse",
            noun="organization",
            name=wanted.organization,
            why=f"this database belongs to {shorten(current.organization, 64)}",
            instead="is this the right database? If so, write that name",
        )


def _accounts(current: State, wanted: Document) -> Iterator[Step]:
    for name in wanted.accounts:
        if name not in current.accounts:
            yield Step(action="create", noun="account", name=name)


def _scopes(current: State, wanted: Document, moving: bool) -> Iterator[Step]:
    for name, config in wanted.scopes.items():
        was = current.scopes.get(name)
        if was is None:
            yield Step(action="create", noun="scope", name=name, changes=(config.strategy,))
            continue
        changes = changed_fields(was, config)
        if not changes:
            continue
        refused = False
        for field, why in unsafe(was, config) if name in current.holding and not moving else ():
            refused = True
            yield Step(
                action="refuse",
                noun="scope",
                name=name,
                changes=(next((c for c in changes if c.startswith(field)), field),),
                why=f"the scope holds data, and {why}",
                instead=f"keep {field}, or apply with --reresolve (rehearse it first)",
            )
        if not refused:
            yield Step(action="update", noun="scope", name=name, changes=changes)


def unsafe(was: ScopeConfig, wanted: ScopeConfig) -> list[tuple[str, str]]:
    """Return (field, why) of the changes that must not happen to a scope that holds data."""
    out = []
    if STRATEGIES[was.strategy] is not STRATEGIES[wanted.strategy]:
        out.append(("strategy", "who was joined with whom followed the old strategy"))
    for field, old, new in (
        ("login", login_types(was), login_types(wanted)),
        ("unique", unique_types(was), unique_types(wanted)),
        ("immutable", was.immutable, wanted.immutable),
    ):
        if set(old) != set(new):
            out.append((field, f"its values were stored under other {field} types"))
    # where the ranking was left open it follows the login types: one reason is enough
    follows = any(f in ("login", "immutable") for f, _ in out)
    same_types = sorted(was.priority) == sorted(wanted.priority)
    if was.priority != wanted.priority and not (follows and same_types):
        out.append(("priority", "people were found by the old ranking"))
    if was.email_lower != wanted.email_lower:
        out.append(("email_lower", "stored addresses would no longer be found"))
    old_phone = (was.phone_e164, was.phone_region if was.phone_e164 else None)
    new_phone = (wanted.phone_e164, wanted.phone_region if wanted.phone_e164 else None)
    if old_phone != new_phone:
        field = "phone_e164" if was.phone_e164 != wanted.phone_e164 else "phone_region"
        out.append((field, "stored phone numbers would no longer be found"))
    return out


def changed_fields(was: msgspec.Struct, now: msgspec.Struct) -> tuple[str, ...]:
    """Return `field: old -> new` of each difference; values of block lists are only counted."""
    out = []
    for field in was.__struct_fields__:
        old, new = getattr(was, field), getattr(now, field)
        if old == new:
            continue
        if field == "blocked":
            out.append(f"blocked: {len(old)} -> {len(new)} values")
        else:
            out.append(f"{field}: {_shown(old)} -> {_shown(new)}")
    return tuple(out)


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return listed(map(str, value))
    if isinstance(value, dict):
        return "{" + ", ".join(f"{shorten(k)}: {shorten(v)}" for k, v in value.items()) + "}"
    if isinstance(value, bool):
        return "true" if value else "false"
    return "null" if value is None else shorten(value, 80)


def _workspaces(current: State, wanted: Document) -> Iterator[Step]:
    for name, workspace in wanted.workspaces.items():
        was = current.workspaces.get(name)
        if was is None:
            made = [f"account {workspace.account}, scope {workspace.scope}"]
            made += _purposes(None, workspace.consent_purposes)
            yield Step(action="create", noun="workspace", name=name, changes=tuple(made))
            continue
        gone = set(was.consent_purposes or ()) - set(workspace.consent_purposes or ())
        if gone and workspace.consent_purposes is not None:
            yield Step(
                action="refuse",
                noun="workspace",
                name=name,
                changes=tuple(_purposes(was.consent_purposes, workspace.consent_purposes)),
                why=f"consent purposes stay once declared, {shorten(min(gone))} is missing",
                instead="write it again; leaving consent_purposes out changes nothing",
            )
            continue
        changes = []
        if workspace.consent_purposes is not None:
            changes += _purposes(was.consent_purposes, workspace.consent_purposes)
        if was.account != workspace.account:
            changes.append(f"account: {was.account} -> {workspace.account}")
        if was.scope != workspace.scope:
            changes.append(f"scope: {was.scope} -> {workspace.scope}")
            if was.scope in current.holding:
                yield Step(
                    action="refuse",
                    noun="workspace",
                    name=name,
                    changes=(changes[-1],),
                    why=f"scope {was.scope} holds data: people the workspace met would get lost",
                    instead=f"write scope: {was.scope}, or make a new workspace in the other scope",
                )
                continue
        if changes:
            yield Step(action="update", noun="workspace", name=name, changes=tuple(changes))


def _purposes(was: tuple[str, ...] | None, now: tuple[str, ...] | None) -> list[str]:
    if now is None or (set(now) == set(was or ()) and was is not None):
        return []
    old = "any" if was is None else listed(was)
    return [f"consent_purposes: {old} -> {listed(now)}"]


def _inputs(current: State, wanted: Document) -> Iterator[Step]:
    keys = {
        config.api_key: f"{workspace}/{name}"
        for workspace, w in current.workspaces.items()
        for name, config in w.inputs.items()
    }
    for workspace, w in wanted.workspaces.items():
        had = current.workspaces[workspace].inputs if workspace in current.workspaces else {}
        for name, config in w.inputs.items():
            full = f"{workspace}/{name}"
            holder = keys.get(config.api_key) if config.api_key else None
            if holder not in (None, full):
                yield Step(
                    action="refuse",
                    noun="input",
                    name=full,
                    why=f"its api_key belongs to input {holder}",
                    instead="leave api_key out to have a new one generated",
                )
            elif name not in had:
                yield Step(action="create", noun="input", name=full, changes=(config.kind,))
            else:
                yield from _input(full, had[name], config)


def _input(full: str, was: InputConfig, config: InputConfig) -> Iterator[Step]:
    if config.api_key is None:
        config = msgspec.structs.replace(config, api_key=was.api_key)
    changes = changed_fields(was, config)
    refused = {
        "kind": "the secret of an app or page is public, that of a server is not"
        if was.kind != config.kind
        else None,
        "api_key": "clients in the field carry the old key"
        if was.api_key != config.api_key
        else None,
        "server_side": "its secret may have been given to apps"
        if config.server_side and not was.server_side and was.kind == config.kind
        else None,
    }
    why = next(((f, w) for f, w in refused.items() if w), None)
    if why is not None:
        field, reason = why
        yield Step(
            action="refuse",
            noun="input",
            name=full,
            changes=(next(c for c in changes if c.startswith(f"{field}:")),),
            why=f"{field} never changes: {reason}",
            instead="make a new input, then write active: false here",
        )
    elif changes:
        yield Step(action="update", noun="input", name=full, changes=changes)


def _left(current: State, wanted: Document) -> Iterator[Step]:
    """What exists but is not in the document; deleting by omission would lose data."""
    why = "not in the document, left alone"
    for name in current.accounts:
        if name not in wanted.accounts:
            yield Step(action="leave", noun="account", name=name, why=why)
    for name in current.scopes:
        if name not in wanted.scopes:
            yield Step(action="leave", noun="scope", name=name, why=why)
    for name, workspace in current.workspaces.items():
        if name not in wanted.workspaces:
            yield Step(action="leave", noun="workspace", name=name, why=why)
            continue
        for child in workspace.inputs:
            if child not in wanted.workspaces[name].inputs:
                yield Step(
                    action="leave",
                    noun="input",
                    name=f"{name}/{child}",
                    why=why,
                    instead="write it with active: false to switch it off",
                )
