"""The files of deploy/: units systemd accepts, settings and queries that exist."""

from __future__ import annotations

import asyncio
import functools
import json
import pathlib
import re
import shutil
import subprocess
import sys
from typing import Any

import pytest
import yaml
from tests.web.serving import running

from conftest import Place
from onymous.cli import app
from onymous.flows.jobs import work
from onymous.observe import Metrics
from onymous.settings import TABLE
from onymous.store import sql

ROOT = pathlib.Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
METRIC = re.compile(r"\b(onymous_\w+|process_\w+)")
LABEL = re.compile(r"\b(onymous_\w+|process_\w+)\{([^}]*)\}")


@pytest.mark.parametrize("name", ["onymous.service", "onymous-work.service"])
def test_systemd_accepts_the_units(name: str, tmp_path: pathlib.Path) -> None:
    assert shutil.which("systemd-analyze"), "apt-get install systemd"
    text = (DEPLOY / name).read_text("utf-8")
    assert "/opt/onymous/bin/onymous " in text
    unit = tmp_path / name
    unit.write_text(text.replace("/opt/onymous/bin/onymous", sys.executable))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True)
    told = [line for line in done.stderr.splitlines() if name in line]
    assert done.returncode == 0 and told == []


def test_settings_and_commands_named_in_deploy_exist() -> None:
    known = {f"ONYMOUS_{s.name.upper()}" for s in TABLE}
    commands = {c.name or c.callback.__name__ for c in app.registered_commands if c.callback}
    for path in DEPLOY.iterdir():
        text = path.read_text("utf-8")
        named = set(re.findall(r"\bONYMOUS_[A-Z_]+", text))
        assert named <= known, f"{path.name}: {named - known}"
        run = set(re.findall(r"bin/onymous (\w+)", text))
        assert run <= commands, f"{path.name}: {run - commands}"


async def exported(folder: pathlib.Path) -> dict[str, set[str]]:
    """Every metric a process can show, with its labels, after something of each kind happened."""
    place = Place("sqlite", str(folder / "store"))
    async with running(place, folder, address_profiles_per_hour=1, work=False) as it:
        core, metrics = it.server.core, it.server.metrics
        for n in range(3):
            known = {"device_application_stamp": f"stamp number {n}"}
            await it.ask("identify", known, who="web", key_only=True)
        await it.ask("login", {"customerid": "1", "email": " "})
        async with core.store.write("test") as tx:
            for kind in ("bad", "identity_changed"):
                await tx.run(sql.JOB_ADD, kind, 1, b"")
            await tx.run(sql.SPOOL_ADD, 1, "quarantine", 1, 1, 0, None, b"", None)

        async def fails(body: bytes) -> None:
            raise ValueError

        with pytest.raises(RuntimeError):
            async with core.store.write("test"):
                raise RuntimeError
        await work(core.store, {"bad": fails}, 1_000_000_000_000_000, on=metrics.job)
        core.diagnostics.add("test", 1, 1, 1, None, {})
        text = (await it.client.get("/metrics")).text
    out: dict[str, set[str]] = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            name, _, rest = line.partition("{") if "{" in line else (line.split()[0], "", "")
            out.setdefault(name, set()).update(re.findall(r'(\w+)="', rest))
    return out


def queries() -> list[tuple[str, str]]:
    """Where a query stands, and the query."""
    board = json.loads((DEPLOY / "grafana.json").read_text("utf-8"))
    out = [(p["title"], t["expr"]) for p in board["panels"] for t in p.get("targets", [])]
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            out.append((variable["name"], variable["query"]["query"]))
    rules = yaml.safe_load((DEPLOY / "alerts.yml").read_text("utf-8"))
    out += [(r["alert"], r["expr"]) for g in rules["groups"] for r in g["rules"]]
    return out


async def test_every_query_names_what_is_exported(tmp_path: pathlib.Path) -> None:
    shown = await exported(tmp_path)
    asked: set[str] = set()
    for where, query in queries():
        names = set(METRIC.findall(query))
        assert names or where == "OnymousDown", f"{where} asks for nothing of ours"
        for name in names:
            assert name in shown, f"{where}: {name} is not exported"
        for name, labels in LABEL.findall(query):
            wanted = set(re.findall(r"(\w+)\s*(?:=~|!=|=)", labels)) - {"instance", "job"}
            assert wanted <= shown[name], f"{where}: {name} has no {wanted - shown[name]}"
        for by in re.findall(r"by \(([^)]*)\)", query):
            wanted = {w.strip() for w in by.split(",")} - {"instance", ""}
            assert wanted <= set().union(*(shown[n] for n in names)), f"{where}: {by}"
        asked |= names
    ours = {n for n in shown if n.startswith("onymous_")}
    unused = {n for n in ours - asked if not n.endswith(("_created", "_sum", "_bucket", "_count"))}
    assert unused == set(), "every metric is on the dashboard"


async def test_every_limit_has_a_metric(tmp_path: pathlib.Path) -> None:
    async with running(Place("sqlite", str(tmp_path / "s")), tmp_path) as it:
        text = (await it.client.get("/metrics")).text
        for setting in TABLE:
            if setting.name.startswith(("max_", "address_", "value_", "head_", "body_")):
                start = f'onymous_limit{{limit="{setting.name}"}} '
                (line,) = [line for line in text.splitlines() if line.startswith(start)]
                assert float(line.split()[-1]) == getattr(it.server.settings, setting.name)


async def test_limits_that_are_met_are_counted_by_their_setting(tmp_path: pathlib.Path) -> None:
    flags: dict[str, Any] = {
        "address_requests_per_second": 1,
        "max_identity_body_bytes": 2000,
        "max_identities_per_request": 2,
    }
    async with running(Place("sqlite", str(tmp_path / "s")), tmp_path, **flags) as it:
        known = [{"device_application_stamp": f"stamp number {n}"} for n in range(8)]
        # all at once: on a slow machine one after the other would be few enough
        await asyncio.gather(*(it.ask("identify", k, who="web", key_only=True) for k in known))
        sent = await it.ask("identify", {"other": "x" * 3000})
        assert sent.status_code == 413
        await it.ask("identify", {"other": "x", "other2": "y", "other3": "z"})
        text = (await it.client.get("/metrics")).text
    for limit in flags:
        (line,) = [
            line
            for line in text.splitlines()
            if line.startswith(f'onymous_limit_exceeded_total{{limit="{limit}"')
        ]
        assert float(line.split()[-1]) >= 1
    assert 'onymous_refusals_total{operation="identify",reason="RateLimited"}' in text


async def test_metrics_and_logs_name_nobody(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = Place("sqlite", str(tmp_path / "s"))
    async with running(place, tmp_path, access_log=True) as it:
        secret = it.secrets["server"]
        given = {"customerid": "known-customer-1", "email": "anna.known@x.io"}
        reply = await it.ask("login", given, request_id="known-request-anna")
        mpid = reply.json()["mpid"]
        await it.client.get(f"/v1/{mpid}/history", headers=it.basic())
        text = (await it.client.get("/metrics")).text
    for value in ("known-customer-1", "anna.known", secret, mpid, "server-api-key", "known-requ"):
        assert value not in text
        assert value not in caplog.text


def test_prometheus_accepts_rules_and_configuration() -> None:
    assert shutil.which("promtool"), "apt-get install prometheus"
    for words in (["check", "rules", "alerts.yml"], ["check", "config", "prometheus.yml"]):
        done = subprocess.run(["promtool", *words], capture_output=True, text=True, cwd=DEPLOY)
        assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_accepts_every_query(tmp_path: pathlib.Path) -> None:
    """Queries of the dashboard as rules: the syntax is Prometheus's own."""
    rules = [
        {"record": f"q{n}", "expr": q.replace("$__rate_interval", "1m").replace("$instance", ".*")}
        for n, (_, q) in enumerate(queries())
        if not q.startswith("label_values")
    ]
    path = tmp_path / "rules.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = subprocess.run(["promtool", "check", "rules", path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


FIRES = """
rule_files: [%s]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - {series: 'onymous_store_up{instance="a"}', values: '1 1 0x10'}
      - {series: 'onymous_jobs{kind="identity_changed",state="given_up"}', values: '0 0 3x10'}
      - {series: 'onymous_waiting_requests{instance="a"}', values: '1 1 15000x10'}
      - {series: 'onymous_limit{instance="a",limit="max_waiting"}', values: '20000x12'}
      - {series: 'onymous_requests_total{instance="a",status="200"}', values: '0+100x30'}
      - {series: 'onymous_requests_total{instance="a",status="500"}', values: '0+10x30'}
    alert_rule_test:
      - {eval_time: 1m, alertname: OnymousStoreDown, exp_alerts: []}
%s
"""


def _label(labels: dict[str, str], found: re.Match[str]) -> str:
    return labels[found[1]]


def test_alerts_fire_when_they_should(tmp_path: pathlib.Path) -> None:
    rules = yaml.safe_load((DEPLOY / "alerts.yml").read_text("utf-8"))
    by_name = {r["alert"]: r for g in rules["groups"] for r in g["rules"]}
    wanted = {
        "OnymousStoreDown": {"instance": "a"},
        "OnymousJobsGivenUp": {"kind": "identity_changed"},
        "OnymousQueueFilling": {"instance": "a"},
        "OnymousServerErrors": {"instance": "a"},
    }
    expected = []
    for name, labels in wanted.items():
        rule = by_name[name]
        said = {
            key: re.sub(r"\{\{ \$labels\.(\w+) \}\}", functools.partial(_label, labels), text)
            for key, text in rule["annotations"].items()
        }
        alert = {"exp_labels": {**labels, **rule["labels"]}, "exp_annotations": said}
        case = {"eval_time": "12m", "alertname": name, "exp_alerts": [alert]}
        expected.append("      - " + json.dumps(case))
    path = tmp_path / "tests.yml"
    path.write_text(FIRES % (DEPLOY / "alerts.yml", "\n".join(expected)))
    done = subprocess.run(["promtool", "test", "rules", path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_metrics_of_a_process_have_a_registry_of_their_own() -> None:
    assert Metrics().registry is not Metrics().registry
