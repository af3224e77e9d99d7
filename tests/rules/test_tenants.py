"""Documents with their mistakes (tests/scenarios/config_documents.yaml), and what changes."""

from __future__ import annotations

import pathlib
from typing import Any

import msgspec
import pytest
import yaml

from onymous.flows.configure import BadDocument, parse
from onymous.flows.documents import MOST_CHARACTERS, read, write
from onymous.rules import documents
from onymous.rules.strategies import STRATEGIES, ScopeConfig
from onymous.rules.tenants import (
    FEED_KINDS,
    INPUT_KINDS,
    PERMISSIONS,
    Document,
    InputConfig,
    State,
    Step,
    diff,
)

HERE = pathlib.Path(__file__).parent.parent

BASE = """
organization: Acme
scopes:
  people: {strategy: profile_link, login: [customerid], unique: [customerid]}
workspaces:
  Web:
    scope: people
    inputs:
      page: {kind: web, api_key: page-key-1}
      back: {kind: server, api_key: back-key-1, permissions: [explain]}
    feeds:
      crm: {act_as: ios, api_key: feed-key-1}
"""


def table(name: str) -> list[Any]:
    rows = yaml.safe_load((HERE / "scenarios" / name).read_text("utf-8"))
    return [pytest.param(row, id=row["title"]) for row in rows]


@pytest.mark.parametrize("row", table("config_documents.yaml"))
def test_mistakes_in_documents(row: dict[str, Any]) -> None:
    with pytest.raises(BadDocument) as caught:
        parse(row["text"])
    lines = "\n".join(map(str, caught.value.problems))
    assert len(caught.value.problems) == len(row["expect"]), lines
    for problem, expected in zip(caught.value.problems, row["expect"], strict=True):
        field, line, why, *instead = expected
        assert problem.field == field, lines
        assert line is None or problem.line == line, lines
        assert why in problem.why, lines
        assert not instead or instead[0] in problem.instead, lines


@pytest.mark.parametrize("row", table("config_input_warnings.yaml"))
def test_advice_on_inputs(row: dict[str, Any]) -> None:
    text = {"organization": "Acme", "workspaces": {"Web": {"inputs": {"i": row["input"]}}}}
    document, problems = documents.decode(text, {})
    assert document is not None, problems
    found = [p for p in documents.advice(document) if p.field.startswith("workspaces.")]
    assert len(found) == len(row["expect"]), found
    for problem, (field, why, instead) in zip(found, row["expect"], strict=True):
        assert problem.field == f"workspaces.Web.inputs.i.{field}"
        assert why in problem.why and instead in problem.instead


# -- YAML ---------------------------------------------------------------------------------------


def test_advice_names_the_line() -> None:
    _, warnings = parse("organization: Acme\nscopes:\n  people:\n    hot_after: 3\n")
    assert [(w.field, w.line) for w in warnings if "hot" in w.field] == [
        ("scopes.people.hot_after", 4)
    ]


def test_scalars_are_read_as_people_mean_them() -> None:
    text = "[yes, no, NO, on, true, False, 12, -3, 0x1F, 0o7, 017, 1:30, 2024-01-01, 1.5, ~, '7']"
    data, _ = read(text)
    expected = ["yes", "no", "NO", "on", True, False, 12, -3, "0x1F", "0o7", "017", "1:30"]
    assert data == [*expected, "2024-01-01", 1.5, None, "7"]


def test_json_is_a_document_too() -> None:
    document, _ = parse('{"organization": "Acme", "workspaces": {"Web": {}}}')
    assert document.workspaces["Web"].scope == "Web"


def test_a_byte_order_mark_does_not_matter() -> None:
    assert parse("\ufefforganization: Acme")[0].organization == "Acme"


def test_references_are_allowed() -> None:
    text = "organization: Acme\nscopes:\n  a: &x {strategy: default}\n  b: *x\n"
    scopes = parse(text)[0].scopes
    assert scopes["a"] == scopes["b"]


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (BOMB, "more than 200000 values"),
        ("a: &a [*a]", "deep"),
        ("a: " + "[" * 200 + "]" * 200, "deep"),
        ("[" * 5000, "deep"),
        ("x" * (MOST_CHARACTERS + 1), "longer than"),
        ("a: \x00", "characters no text has"),
        ("a: *nobody", "undefined alias"),
        ("a: 'open", "not YAML"),
        ("%TAG ! x\n", "not YAML"),
    ],
)
def test_hostile_text_is_refused_at_once(text: str, why: str) -> None:
    with pytest.raises(BadDocument) as caught:
        parse(text)
    (problem,) = caught.value.problems
    assert why in problem.why


def test_huge_numbers_stay_text() -> None:
    with pytest.raises(BadDocument) as caught:
        parse(f"organization: Acme\nscopes: {{a: {{hot_after: {'9' * 5000}}}}}")
    assert "whole number" in caught.value.problems[0].why


def test_what_is_written_reads_back_the_same() -> None:
    data = {"a": ["yes", "NO", "12", "", "null", "ü"], "b": {"c": True, "d": None, "e": 7}}
    assert read(write(data))[0] == data


# -- defaults -----------------------------------------------------------------------------------


def test_what_is_left_out() -> None:
    document, _ = parse("organization: Acme\nworkspaces: {Web: , App: {inputs: {a: {kind: tvos}}}}")
    assert document.accounts == ("Acme",)
    assert {w.scope for w in document.workspaces.values()} == {"Web", "App"}
    assert document.scopes["Web"].strategy == "default"
    assert document.scopes["Web"].email_lower is False


FLAGS = {
    "web": (True, False),
    "amp": (True, False),
    "ios": (False, False),
    "server": (False, True),
    "other": (False, False),
}


@pytest.mark.parametrize("kind", FLAGS)
def test_flags_follow_the_kind(kind: str) -> None:
    text = f"organization: Acme\nworkspaces: {{W: {{inputs: {{i: {{kind: {kind}}}}}}}}}"
    config = parse(text)[0].workspaces["W"].inputs["i"]
    assert (config.key_only, config.server_side) == FLAGS[kind]
    assert (config.max_age_s, config.skew_s, config.requests_per_second) == (86_400, 900, 0)
    assert config.cors_origins == ("*",) and not config.search_key_only and not config.fold_keys


def test_custom_feeds_are_server_side_and_partner_feeds_are_not() -> None:
    text = "organization: A\nworkspaces: {W: {feeds: {c: , p: {kind: partner_feed}}}}"
    feeds = parse(text)[0].workspaces["W"].inputs
    assert feeds["c"].kind == "custom_feed" and feeds["c"].server_side
    assert not feeds["p"].server_side and not feeds["p"].key_only


# -- what changes -------------------------------------------------------------------------------


def state_of(document: Document, *holding: str) -> State:
    return State(
        organization=document.organization,
        accounts=document.accounts,
        scopes=document.scopes,
        workspaces=document.workspaces,
        holding=frozenset(holding),
    )


def steps(old: str, new: str, *holding: str) -> list[Step]:
    return diff(state_of(parse(old)[0], *holding), parse(new)[0])


def test_everything_is_created_in_order() -> None:
    found = diff(State(), parse(BASE)[0])
    assert [(s.action, s.noun, s.name) for s in found] == [
        ("create", "organization", "Acme"),
        ("create", "account", "Acme"),
        ("create", "scope", "people"),
        ("create", "workspace", "Web"),
        ("create", "input", "Web/page"),
        ("create", "input", "Web/back"),
        ("create", "input", "Web/crm"),
    ]


def test_nothing_changes_the_second_time() -> None:
    assert steps(BASE, BASE, "people") == []


#: what is written, what is written instead, on an empty scope, on one that holds data
CHANGES = [
    ("strategy: profile_link", "strategy: profile_isolation", "update", "refuse"),
    ("login: [customerid]", "login: [customerid, email]", "update", "refuse"),
    ("unique: [customerid]", "unique: [customerid, email]", "update", "refuse"),
    ("unique: [customerid]}", "unique: [customerid], immutable: [customerid]}", "update", "refuse"),
    ("unique: [customerid]}", "unique: [customerid], priority: [customerid]}", "update", "refuse"),
    ("unique: [customerid]}", "unique: [customerid], email_lower: true}", "update", "refuse"),
    ("unique: [customerid]}", "unique: [customerid], phone_e164: true}", "update", "refuse"),
    ("unique: [customerid]}", "unique: [customerid], phone_region: DE}", "update", "update"),
    ("unique: [customerid]}", "unique: [customerid], hot_after: 50}", "update", "update"),
    ("unique: [customerid]}", "unique: [customerid], sticky_known: false}", "update", "update"),
    ("scope: people", "scope: other", "update", "refuse"),
    ("kind: web,", "kind: amp,", "refuse", "refuse"),
    ("api_key: page-key-1", "api_key: page-key-2", "refuse", "refuse"),
    (", api_key: page-key-1", "", None, None),
    ("permissions: [explain]", "permissions: [explain, merge]", "update", "update"),
    ("kind: web,", "kind: web, active: false,", "update", "update"),
    ("kind: web,", "kind: web, max_age_s: 60,", "update", "update"),
    ("act_as: ios", "act_as: android", "update", "update"),
    ("organization: Acme", "organization: Other\naccounts: [Acme]", "refuse", "refuse"),
]


@pytest.mark.parametrize(("before", "after", "empty", "holding"), CHANGES)
def test_safe_changes_are_made_and_unsafe_ones_refused(
    before: str, after: str, empty: str | None, holding: str | None
) -> None:
    assert before in BASE
    new = BASE.replace(before, after)
    if "scope: other" in after:
        new = new.replace("scopes:\n", "scopes:\n  other: {}\n")
    for data, action in (((), empty), (("people",), holding)):
        found = [s for s in steps(BASE, new, *data) if s.action not in ("create", "leave")]
        assert [s.action for s in found] == ([action] if action else [])
        for step in found:
            assert step.changes or step.noun == "organization"
            assert (step.action == "refuse") == bool(step.why and step.instead)


def test_an_input_never_becomes_server_side() -> None:
    old = BASE.replace("page: {kind: web,", "page: {kind: other,")
    (step,) = steps(old, old.replace("kind: other,", "kind: other, server_side: true,"))
    assert step.action == "refuse" and "may have been given to apps" in (step.why or "")
    (step,) = steps(
        old.replace("kind: other,", "kind: other, server_side: true,"),
        old.replace("kind: other,", "kind: other, server_side: false,"),
    )
    assert step.action == "update"


def test_the_order_of_login_types_does_not_matter_to_data() -> None:
    old = BASE.replace(": [customerid]", ": [customerid, email]")
    new = old.replace("login: [customerid, email]", "login: [email, customerid]")
    assert [s.action for s in steps(old, new, "people")] == ["update"]


def test_what_is_missing_is_left_alone() -> None:
    found = steps(BASE, "organization: Acme\naccounts: [New]\n", "people")
    assert [(s.action, s.noun, s.name) for s in found] == [
        ("create", "account", "New"),
        ("leave", "account", "Acme"),
        ("leave", "scope", "people"),
        ("leave", "workspace", "Web"),
    ]
    found = steps(BASE, BASE.replace("      back:", "      back2:").replace("back-key-1", "b" * 8))
    assert [(s.action, s.name) for s in found] == [("create", "Web/back2"), ("leave", "Web/back")]


def test_a_key_of_another_input_is_refused() -> None:
    new = BASE.replace("      page:", "      page2:")
    found = [s for s in steps(BASE, new) if s.action == "refuse"]
    assert [s.name for s in found] == ["Web/page2"]
    assert "belongs to input Web/page" in (found[0].why or "")


def test_block_lists_are_counted_not_shown() -> None:
    blocked = "unique: [customerid], blocked: [{type: customerid, value: guest-account}]}"
    (step,) = steps(BASE, BASE.replace("unique: [customerid]}", blocked), "people")
    assert step.changes == ("blocked: 0 -> 1 values",)
    assert "guest" not in str(step)


def test_a_step_reads_well() -> None:
    (step,) = steps(BASE, BASE.replace("kind: web,", "kind: web, max_age_s: 60,"))
    assert str(step) == "~ input Web/page: max_age_s: 86400 -> 60"
    assert msgspec.json.encode(step)


def test_flags_and_origins_have_limits() -> None:
    flags = {f"f{n}": "x" for n in range(51)}
    page = {"kind": "web", "config_flags": flags, "cors_origins": ["https://a.example"] * 101}
    long = {"kind": "web", "config_flags": {"a": "x" * 257}}
    data = {"organization": "A", "workspaces": {"W": {"inputs": {"p": page, "q": long}}}}
    _, problems = documents.decode(data, {})
    assert [(p.field, p.why) for p in problems] == [
        ("workspaces.W.inputs.p.cors_origins", "more than 100 origins"),
        ("workspaces.W.inputs.p.config_flags", "more than 50 flags"),
        ("workspaces.W.inputs.q.config_flags.a", "a flag has at most 256 characters"),
    ]


def test_workspaces_move_between_accounts_and_flags_are_shown() -> None:
    old = BASE.replace("organization: Acme", "organization: Acme\naccounts: [One, Two]")
    old = old.replace("    scope: people", "    account: One\n    scope: people")
    new = old.replace("account: One", "account: Two")
    new = new.replace("kind: web,", 'kind: web, config_flags: {cacheIdentity: "True"},')
    assert [str(s) for s in steps(old, new, "people")] == [
        "~ workspace Web: account: One -> Two",
        "~ input Web/page: config_flags: {} -> {cacheIdentity: True}",
    ]


def test_the_manual_names_every_field() -> None:
    text = (HERE.parent / "docs" / "use" / "configuration.md").read_text("utf-8")
    for cls in (ScopeConfig, InputConfig):
        for field in cls.__struct_fields__:
            assert f"| `{field}` |" in text, field
    for word in (*STRATEGIES, *INPUT_KINDS, *FEED_KINDS, *PERMISSIONS):
        assert f"`{word}`" in text, word
