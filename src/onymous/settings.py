"""The one table of settings: name, type, default, help.

Sources, the later wins: defaults, a file (`onymous.toml` in the current folder),
environment variables `ONYMOUS_<NAME>`, command line flags.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping
from typing import Any

import msgspec

from onymous.later import module

tomllib = module("tomllib")


class SettingError(ValueError):
    """A setting has a value it cannot have; says which, why and what to write instead."""


class Setting(msgspec.Struct, frozen=True):
    """One row of the table."""

    name: str
    kind: type
    default: Any
    help: str
    least: float | None = None
    most: float | None = None


TABLE: tuple[Setting, ...] = (
    Setting("store", str, "sqlite:./data", "sqlite:FOLDER or postgresql://USER@HOST/DATABASE"),
    Setting("host", str, "127.0.0.1", "address to listen on"),
    Setting("port", int, 8210, "port to listen on; 0 takes a free one", 0, 65535),
    Setting("manage_host", str, "127.0.0.1", "address for /metrics, when manage_port is set"),
    Setting("manage_port", int, 0, "own port for /metrics; 0: the same as port", 0, 65535),
    Setting("console", str, "auto", "pages at /console: on, off; auto: on where host is loopback"),
    Setting("tls_cert", str, "", "certificate chain (PEM) for https"),
    Setting("tls_key", str, "", "private key (PEM) for https"),
    Setting("tls_dev", bool, False, "serve https with a throw-away certificate (development)"),
    Setting("master_key_file", str, "", "key that seals secrets; default: in the data folder"),
    Setting("master_key_command", str, "", "command that prints the master key"),
    Setting("backup_folder", str, "", "backups, and tombstones; default: beside the key"),
    Setting("backup_keep_days", int, 30, "backups older than this are pruned", 1, 3_650),
    Setting("backup_keep_last", int, 3, "so many backups are kept whatever their age", 1, 1_000),
    Setting("trusted_proxies", str, "", "comma-separated networks whose X-Forwarded-For counts"),
    Setting("work", bool, True, "do promised jobs and upkeep here; false: `onymous work` does"),
    Setting("stop_delay_s", float, 0.0, "after SIGTERM go on so long, /readyz says 503", 0, 600),
    Setting("stop_timeout_s", float, 15.0, "wait so long for requests under way", 0, 600),
    Setting("head_timeout_s", float, 20.0, "the head of a request must be whole by then", 0.1),
    Setting("body_timeout_s", float, 20.0, "a body too; 1 s more for each 1024 bytes of it", 0.1),
    Setting("max_identity_body_bytes", int, 262_144, "largest identity body, inflated", 1024),
    Setting("max_event_body_bytes", int, 2_097_152, "largest events body, inflated", 1024),
    Setting("max_identities_per_request", int, 64, "identities or changes in one request", 1, 64),
    Setting("max_identities_per_profile", int, 200, "values one record may hold", 1, 10_000),
    Setting("max_waiting", int, 20_000, "requests that may wait before new ones get 503", 64),
    Setting(
        "max_waiting_event_bytes", int, 67_108_864, "bytes of batches that may wait", 4_194_304
    ),
    Setting("address_requests_per_second", int, 200, "key-only requests from one address", 0),
    Setting("address_values_per_hour", int, 2_000, "distinct login values from one address", 0),
    Setting("value_requests_per_hour", int, 300, "key-only requests for one value and address", 0),
    Setting("address_profiles_per_hour", int, 2_000, "anonymous records one address may make", 0),
    Setting("replay_hours", int, 24, "how long repeats of a request get the same answer", 1, 720),
    Setting(
        "profile_lifetime_days",
        int,
        0,
        "the Profile API knows nobody who was not heard of for so long; 0: for ever",
        0,
        36_500,
    ),
    Setting("event_retention_days", int, 730, "how long batches are kept; 0: for ever", 0, 36_500),
    Setting("quarantine_days", int, 30, "how long batches set aside are kept", 1, 3_650),
    Setting("change_feed_table", bool, False, "write changes readable into a table for SQL"),
    Setting("change_feed_days", int, 30, "how long the feed of changes is kept", 1, 3_650),
    Setting("journal", bool, True, "keep a journal of distinct identity requests for rehearsals"),
    Setting("journal_days", int, 90, "how long the journal keeps a request", 1, 3_650),
    Setting("review_days", int, 90, "how long values held back wait; 0: none are kept", 0, 3_650),
    Setting("explain_requests", int, 1_000_000, "request ids remembered for explain; 0: none", 0),
    Setting("commit_delay_ms", float, 0.0, "wait after a commit, to measure slow disks", 0, 1000),
    Setting("access_log", bool, False, "log every request (without identities)"),
    Setting("log_format", str, "text", "text or json"),
    Setting("otlp_endpoint", str, "", "OTLP/HTTP base URL for traces; empty: no traces"),
    Setting("trace_share", float, 1.0, "share of requests traced where callers do not say", 0, 1),
)
BY_NAME = {s.name: s for s in TABLE}
assert len(BY_NAME) == len(TABLE)


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All settings with their values; see `TABLE` for what each means."""

    store: str
    host: str
    port: int
    manage_host: str
    manage_port: int
    console: str
    tls_cert: str
    tls_key: str
    tls_dev: bool
    master_key_file: str
    master_key_command: str
    backup_folder: str
    backup_keep_days: int
    backup_keep_last: int
    trusted_proxies: str
    work: bool
    stop_delay_s: float
    stop_timeout_s: float
    head_timeout_s: float
    body_timeout_s: float
    max_identity_body_bytes: int
    max_event_body_bytes: int
    max_identities_per_request: int
    max_identities_per_profile: int
    max_waiting: int
    max_waiting_event_bytes: int
    address_requests_per_second: int
    address_values_per_hour: int
    value_requests_per_hour: int
    address_profiles_per_hour: int
    replay_hours: int
    profile_lifetime_days: int
    event_retention_days: int
    quarantine_days: int
    change_feed_table: bool
    change_feed_days: int
    journal: bool
    journal_days: int
    review_days: int
    explain_requests: int
    commit_delay_ms: float
    access_log: bool
    log_format: str
    otlp_endpoint: str
    trace_share: float

    @property
    def folder(self) -> pathlib.Path | None:
        """Return the folder of the embedded engine; None where the store is another one."""
        kind, _, path = self.store.partition(":")
        return pathlib.Path(path) if kind == "sqlite" and path else None


assert list(Settings.__struct_fields__) == [s.name for s in TABLE]


def load(
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    file: pathlib.Path | None = None,
) -> Settings:
    """Collect the settings; raises `SettingError` for one that is unknown or not acceptable."""
    environ = os.environ if environ is None else environ
    values: dict[str, Any] = {s.name: s.default for s in TABLE}
    if file is not None:
        values.update(_from_file(file))
    for setting in TABLE:
        name = f"ONYMOUS_{setting.name.upper()}"
        if name in environ:
            values[setting.name] = _read(setting, environ[name], name)
    for name, value in (flags or {}).items():
        if value is not None:
            values[name] = _read(BY_NAME[name], value, f"--{name.replace('_', '-')}")
    return Settings(**values)


def load_here(
    flags: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None
) -> Settings:
    """Collect the settings of a process that was started here, `onymous.toml` included."""
    file = pathlib.Path("onymous.toml")
    try:
        there = file.exists()
    except OSError as error:
        raise SettingError(
            f"user {os.getuid()} may not look for {file} in {os.getcwd()}: {error.strerror}"
        ) from None
    return load(flags, environ, file if there else None)


def environment(settings: Settings) -> dict[str, str]:
    """Return the environment in which `load` finds the same settings."""
    names = settings.__struct_fields__
    return {f"ONYMOUS_{name.upper()}": str(getattr(settings, name)) for name in names}


def _from_file(file: pathlib.Path) -> dict[str, Any]:
    try:
        data = tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise SettingError(f"the settings file cannot be read: {error.strerror}") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingError(f"the settings file is not valid TOML: {error}") from None
    unknown = sorted(set(data) - set(BY_NAME))
    if unknown:
        raise SettingError(f"unknown setting {unknown[0]}; `onymous settings` lists all")
    return {name: _read(BY_NAME[name], value, name) for name, value in data.items()}


def _read(setting: Setting, value: Any, where: str) -> Any:
    if setting.kind is bool:
        words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
        if isinstance(value, bool):
            return value
        if str(value).lower() in words:
            return words[str(value).lower()]
        raise SettingError(f"{where} must be true or false")
    try:
        out = setting.kind(value)
    except (TypeError, ValueError):
        raise SettingError(f"{where} must be a {setting.kind.__name__}") from None
    if setting.least is not None and out < setting.least:
        raise SettingError(f"{where} must be at least {setting.least:g}")
    if setting.most is not None and out > setting.most:
        raise SettingError(f"{where} must be at most {setting.most:g}")
    return out
