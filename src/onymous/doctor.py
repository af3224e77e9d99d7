"""`onymous doctor`: what an operator would look at first, each with what to do about it."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import pathlib
import shutil
import ssl
import time

import msgspec
from cryptography import x509

from onymous.app import backup_folder, master_key, master_key_path, open_store
from onymous.backups import listed
from onymous.crypto import KeyProblem
from onymous.flows.epochs import how_far, identify_database, went_back
from onymous.flows.jobs import MOST_TRIES
from onymous.flows.keys import list_keys
from onymous.flows.master import opens_all
from onymous.flows.tombstones import JOB, OutsideProblem, Tombstones, read_lines
from onymous.serving import with_console
from onymous.settings import SettingError, Settings
from onymous.store import backup_sql, looking, schema
from onymous.store.port import Session, Store, StoreError

OK, WARN, FAIL = "ok", "warn", "fail"
DAY_MS = 86_400_000
#: days a certificate should still be valid, and two secrets should at most live together
LEAST_DAYS, MOST_DAYS = 14, 30
#: the newest backup should not be older (ms); promised work should not wait longer (ms)
BACKUP_MS, OVERDUE_MS = 2 * DAY_MS, 600_000
#: clocks may differ by this much (ms)
SKEW_MS = 5_000


class Check(msgspec.Struct, frozen=True):
    """One thing that was looked at."""

    name: str
    state: str
    what: str
    #: what to do; empty where all is well
    todo: str = ""


def of_settings(s: Settings) -> list[Check]:
    """Check what can be seen in the settings and on this machine."""
    out = [*_tls(s), *_listening(s), *_disk(s)]
    try:
        for network in s.trusted_proxies.replace(",", " ").split():
            ipaddress.ip_network(network)
    except ValueError as error:
        todo = "write networks like 10.0.0.0/8, apart by commas"
        out.append(Check("proxy", FAIL, f"trusted_proxies: {error}", todo))
    return out


def _tls(s: Settings) -> list[Check]:
    if s.tls_dev and not s.tls_cert:
        todo = "set tls_cert and tls_key, or end https at a proxy"
        return [Check("tls", WARN, "a throw-away certificate is served", todo)]
    if not s.tls_cert:
        return []
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(s.tls_cert, s.tls_key or None)
        found = x509.load_pem_x509_certificate(pathlib.Path(s.tls_cert).read_bytes())
    except (OSError, ValueError) as error:
        todo = "tls_cert is the chain (PEM, own certificate first), tls_key its private key"
        return [Check("tls", FAIL, f"certificate and key do not load: {error}", todo)]
    return [expiry("tls", found.not_valid_after_utc.timestamp())]


def expiry(name: str, until: float) -> Check:
    """Check how long a certificate is valid."""
    days = int((until - time.time()) // 86_400)
    if days < 0:
        return Check(name, FAIL, "the certificate has expired", "renew it, restart the servers")
    if days < LEAST_DAYS:
        return Check(name, WARN, f"the certificate expires in {days} days", "renew it")
    return Check(name, OK, f"the certificate is valid for {days} days")


def _listening(s: Settings) -> list[Check]:
    out = []
    public = not (s.host in ("localhost", "::1") or s.host.startswith("127."))
    if public and not s.tls_cert and not s.trusted_proxies:
        what = f"plain http on {s.host}, and no proxy is trusted"
        todo = "behind a proxy set trusted_proxies (limits count clients); else use tls_cert"
        out.append(Check("proxy", WARN, what, todo))
    with contextlib.suppress(SettingError):
        if public and not s.manage_port:
            shown = "/metrics and the console are" if with_console(s) else "/metrics is"
            todo = "set manage_port: they are then answered on manage_host only"
            out.append(Check("operators", WARN, f"{shown} on the public address", todo))
    return out


def _disk(s: Settings) -> list[Check]:
    out = []
    places = {"disk of backups": backup_folder(s), "disk of the key": master_key_path(s).parent}
    if s.folder is not None:
        places = {"disk of the data": s.folder, **places}
    seen = set()
    for name, place in places.items():
        near = next(p for p in (place.resolve(), *place.resolve().parents) if p.exists())
        if near.stat().st_dev in seen:
            continue
        seen.add(near.stat().st_dev)
        free = shutil.disk_usage(near)
        share = free.free / free.total
        what = f"{free.free >> 20} MiB free ({share:.0%})"
        if free.free < 256 << 20 or share < 0.01:
            out.append(Check(name, FAIL, what, "make room now: a full disk answers 503"))
        elif share < 0.1:
            out.append(Check(name, WARN, what, "make room, or prune backups and events"))
        else:
            out.append(Check(name, OK, what))
    return out


async def of_store(s: Settings) -> list[Check]:
    """Check the database and what lies beside it; changes nothing."""
    try:
        version = await looking.schema_version(s.store)
    except StoreError as error:
        return [Check("store", FAIL, str(error), "is it there, running, and reachable from here?")]
    if version != schema.SCHEMA_VERSION:
        what = f"the schema is version {version}, this Onymous writes {schema.SCHEMA_VERSION}"
        if version > schema.SCHEMA_VERSION:
            return [Check("schema", WARN, what, "upgrade this installation")]
        return [Check("schema", WARN, what, "servers of this version migrate it at their start")]
    out = [Check("schema", OK, f"version {version}")]
    store = open_store(s.store)
    await store.start()
    try:
        async with store.read() as session:
            out += await _clock(session)
            out += await _master_key(session, s)
            out += await _jobs(session)
            out += await _outside(session, s)
            out += _backups(s, await identify_database(session))
        out += await _keys(store)
    except StoreError as error:
        out.append(Check("store", FAIL, str(error), "onymous verify says more"))
    finally:
        await store.close()
    return out


async def _clock(session: Session) -> list[Check]:
    rows = await session.rows(backup_sql.LEDGER_LATEST)
    ahead = rows[0][0] - time.time() * 1000 if rows else 0
    if ahead > SKEW_MS:
        what = f"the latest change is {ahead / 1000:.0f} s in the future"
        return [Check("clock", FAIL, what, "set the clocks of all machines (NTP)")]
    return [Check("clock", OK, "not behind the latest change")]


async def _master_key(session: Session, s: Settings) -> list[Check]:
    try:
        key = master_key(s, make=False)
        await opens_all(session, key)
    except KeyProblem as error:
        if not await session.rows(backup_sql.SEALED_ANY):
            return [Check("master key", OK, "made when there is something to seal")]
        return [Check("master key", FAIL, str(error), "docs/operate/keys.md")]
    if len(key.ids) > 1:
        what = f"{len(key.ids)} keys are at hand"
        return [Check("master key", WARN, what, "finish the rotation: onymous keys retire-master")]
    return [Check("master key", OK, f"{key.id} opens everything")]


async def _jobs(session: Session) -> list[Check]:
    rows = await session.rows(backup_sql.JOBS_GIVEN_UP, MOST_TRIES)
    if rows:
        what = ", ".join(f"{count} x {kind}: {error}" for kind, error, count in rows)
        todo = "mend the cause, then onymous verify --retry"
        return [Check("work", FAIL, f"given up: {what}", todo)]
    late = int(time.time() * 1000) - OVERDUE_MS
    count, _ = (await session.rows(backup_sql.JOBS_OVERDUE, late, MOST_TRIES))[0]
    if count:
        todo = "is `onymous serve` (or `onymous work`) running?"
        return [Check("work", WARN, f"{count} promised jobs are late", todo)]
    return [Check("work", OK, "no promised work is late")]


async def _outside(session: Session, s: Settings) -> list[Check]:
    """Check what is remembered outside the database."""
    database = await identify_database(session)
    outside = Tombstones(backup_folder(s), database)
    far = await how_far(session, 0)
    if went_back(far, outside.mark()):
        todo = "stop every server and run `onymous restore --new-epoch`"
        return [Check("epoch", FAIL, "the database is older than it was", todo)]
    near = next(p for p in (outside.folder, *outside.folder.resolve().parents) if p.exists())
    if not os.access(near, os.W_OK):
        todo = f"make {outside.folder} writable: until then erasures are answered 503"
        return [Check("tombstones", FAIL, "cannot be written", todo)]
    try:
        lines = read_lines(outside.path, database) if outside.path.exists() else []
    except OutsideProblem as error:
        return [Check("tombstones", FAIL, str(error), "without them a restore revives people")]
    waiting = await session.rows(backup_sql.JOBS_OF_KIND, JOB)
    what = f"{len(lines)} lines in {outside.path}"
    if len(waiting) > 100:
        todo = "see the log of the servers; is the backup folder writable for them?"
        return [Check("tombstones", WARN, f"{len(waiting)} lines wait to be written", todo)]
    return [Check("tombstones", OK, what)]


def _backups(s: Settings, database: str) -> list[Check]:
    if s.folder is None:
        todo = "see to it that pg_basebackup or pgBackRest runs: docs/operate/backup.md"
        return [Check("backups", OK, f"PostgreSQL's own; {todo}")]
    folder = backup_folder(s)
    found = [b for b in listed(folder) if b.manifest.database == database]
    out = []
    if not found:
        todo = "run `onymous backup` now, and every night (docs/operate/backup.md)"
        out.append(Check("backups", FAIL, f"there is none in {folder}", todo))
    else:
        age = time.time() * 1000 - found[-1].manifest.made_ms
        what = f"{len(found)}, the newest {age / 3_600_000:.0f} h old"
        late = age > BACKUP_MS
        out.append(Check("backups", WARN if late else OK, what, "run it every night" * late))
    near = next(p for p in (folder.resolve(), *folder.resolve().parents) if p.exists())
    if near.stat().st_dev == s.folder.stat().st_dev:
        todo = "set backup_folder to another disk or machine"
        out.append(Check("backups", WARN, "they lie on the disk of the data", todo))
    return out


async def _keys(store: Store) -> list[Check]:
    out = []
    now_ms = time.time() * 1000
    for row in await list_keys(store):
        live = [s for s in row.secrets if s.revoked_ms is None]
        if len(live) > 1 and live[-1].created_ms < now_ms - MOST_DAYS * DAY_MS:
            todo = f"onymous keys revoke '{row.name}' {live[0].secret_id}, if it is not used"
            what = f"{row.name}: two secrets are live for more than {MOST_DAYS} days"
            out.append(Check("keys", WARN, what, todo))
        if not live and row.kind == "server" and row.active:
            todo = f"onymous keys issue '{row.name}', or switch the input off"
            out.append(Check("keys", WARN, f"{row.name} has no live secret", todo))
    return out or [Check("keys", OK, "nothing to do")]


async def web_key(s: Settings) -> str:
    """Return the API key of some active web input, or empty text."""
    store = open_store(s.store)
    try:
        if await looking.schema_version(s.store) != schema.SCHEMA_VERSION:
            return ""
        await store.start()
        rows = await list_keys(store)
    except StoreError:
        return ""
    finally:
        await store.close()
    return next((row.api_key for row in rows if row.active and row.kind == "web"), "")
