"""A shop's click stream as identity requests, from the data set inside a package on PyPI.

The wheel of `retentioneering` carries `datasets/ecom.csv.gz`: half a year of sessions of an
electronics shop, 31,106 events of 600 users. Its authors describe it as synthetic, with seasons
and incidents of real shops built in; unlike our simulator it was made by other people for another
purpose. The wheel is read as an archive; nothing of it is installed or run.

The data names a user for every event, which is the truth. The server is told less: a session
begins with the stamp of the browser alone, until the user comes to the account or the checkout.
"""

import csv
import gzip
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from onymous.lab.simulate import Step

PACKAGE = "retentioneering"
VERSION = "5.2.4"
"""The version whose data set and columns this was written for."""
SHA256 = "f4ab91b67c6deed93728bfb6e503adfe304f101a53e9112ee0219b304b0f3b1a"
"""Of the wheel of that version, checked after a download."""
DATA = "retentioneering/datasets/ecom.csv.gz"
COLUMNS = ("user_id", "session_id", "event", "timestamp", "platform")
MAX_BYTES = 64 * 1024 * 1024
"""A larger data set (unpacked) is refused."""
SIGNED_IN_EVENTS = frozenset({"account_page", "shipping_details", "payment_details", "purchase"})
"""Pages that a user reaches only after a login."""
STAYS_SIGNED_IN_S = 14 * 86_400
"""A browser forgets the login after so many seconds without a visit (a modelling choice)."""


class NoClickStream(Exception):
    """The click stream cannot be read or fetched; the message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Click:
    """One event of the data set."""

    at_ms: int
    """Milliseconds since 1970; the times of the data are taken as UTC."""
    user: str
    session: str
    event: str
    platform: str
    """`desktop`, `mobile` or `tablet`."""


def steps_from_wheel(path: Path | str, limit: int | None = None) -> Iterator[Step]:
    """The identity requests of the data set in this wheel, by time; at most `limit` of them.

    The truth (`person`) is the data's user id. Deterministic. NoClickStream where the file is no
    such wheel.
    """
    clicks = sorted(read_clicks(path), key=lambda click: click.at_ms)
    return steps_from_clicks(clicks, limit)


def read_clicks(path: Path | str) -> list[Click]:
    """All events of the data set, in the order of the file. NoClickStream as above."""
    try:
        with (
            zipfile.ZipFile(path) as wheel,
            wheel.open(DATA) as packed,
            gzip.open(packed) as file,
        ):
            data = file.read(MAX_BYTES + 1)
    except KeyError:
        raise NoClickStream(
            f"{path} holds no {DATA}; version {VERSION} of the wheel does"
        ) from None
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise NoClickStream(f"{path} cannot be read as a wheel: {error}") from error
    if len(data) > MAX_BYTES:
        raise NoClickStream(f"{DATA} is larger than {MAX_BYTES} bytes")
    try:
        rows = csv.DictReader(io.StringIO(data.decode()))
        return [_click(row) for row in rows]
    except (KeyError, ValueError, TypeError) as error:
        text = f"{DATA} lacks a column of {', '.join(COLUMNS)}, or has a bad time"
        raise NoClickStream(text) from error


def _click(row: dict[str, str]) -> Click:
    user, session, event, at, platform = (row[name] for name in COLUMNS)
    moment = datetime.fromisoformat(at).replace(tzinfo=UTC)
    return Click(int(moment.timestamp() * 1000), user, session, event, platform)


@dataclass(slots=True)
class _Browser:
    session: str = ""
    signed_in: bool = False
    last_ms: int = 0


def steps_from_clicks(clicks: Iterable[Click], limit: int | None = None) -> Iterator[Step]:
    """Identity requests for events that come in the order of time. One browser per user and kind
    of device; `identify` at the start of a session, `login` at the first page that needs it,
    `logout` where a session begins after the login has expired.
    """
    browsers: dict[str, _Browser] = {}
    left = limit
    for click in clicks:
        browser = browsers.setdefault(f"{click.user}/{click.platform}", _Browser())
        for step in _of_click(click, browser):
            if left is not None:
                if left <= 0:
                    return
                left -= 1
            yield step
        browser.last_ms = click.at_ms


def _of_click(click: Click, browser: _Browser) -> Iterator[Step]:
    at = click.at_ms
    if click.session != browser.session:
        browser.session = click.session
        if browser.signed_in and at - browser.last_ms > STAYS_SIGNED_IN_S * 1000:
            browser.signed_in = False
            yield _step("logout", click, at, False, "comes back, the login has expired")
        yield _step("identify", click, at, browser.signed_in, f"opens {click.event}")
    if not browser.signed_in and click.event in SIGNED_IN_EVENTS:
        browser.signed_in = True
        yield _step("login", click, at, True, f"logs in for {click.event}")


def _step(op: str, click: Click, at: int, signed_in: bool, note: str) -> Step:
    client = f"{click.user}/{click.platform}"
    identities: dict[str, str | None] = {"device_application_stamp": _uuid(f"stamp {client}")}
    if signed_in:
        identities["customerid"] = click.user
    request_id = _uuid(f"request {client} {click.session} {op} {at}")
    return Step(at, op, client, click.user, "web", request_id, identities, [], note)


def _uuid(name: str) -> str:
    h = hashlib.blake2b(name.encode(), digest_size=16).hexdigest()
    return f"{h[:8]}-{h[8:12]}-8{h[13:16]}-a{h[17:20]}-{h[20:]}"


# -- fetching -------------------------------------------------------------------------------------


def fetch_wheel(cache: Path | None = None) -> Path:
    """The path of the wheel: from the cache folder, or else downloaded into it with pip.

    `cache` defaults to the user's cache folder. NoClickStream when pip is not to be had or fails,
    or the file is not the one expected: then get the wheel by other means and name its path.
    """
    folder = cache or cache_folder()
    path = folder / f"{PACKAGE}-{VERSION}-py3-none-any.whl"
    if path.is_file() and _digest(path) == SHA256:
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as empty:
        _download(Path(empty))
        found = Path(empty) / path.name
        if not found.is_file():
            raise NoClickStream(_advice("the download gave no wheel"))
        if _digest(found) != SHA256:
            raise NoClickStream(_advice("the downloaded wheel is not the expected file"))
        found.replace(path)  # at once: nobody ever sees half a file
    return path


def cache_folder() -> Path:
    """Where downloads are kept: `onymous` in the user's cache folder (XDG_CACHE_HOME honoured)."""
    base = os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "onymous"


def _download(folder: Path) -> None:
    options = ["download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", str(folder)]
    reasons = []
    for pip in _pips():
        command = [*pip, *options, "--disable-pip-version-check", f"{PACKAGE}=={VERSION}"]
        try:
            # A fixed list of arguments, no shell.
            done = subprocess.run(  # noqa: S603 - our own words, no shell
                command, capture_output=True, text=True, timeout=120
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            reasons.append(type(error).__name__)
            continue
        if done.returncode == 0:
            return
        reasons.append((done.stderr.strip().splitlines() or ["no message"])[-1])
    raise NoClickStream(_advice("; ".join(reasons) or "neither pip nor uv is installed"))


def _pips() -> Iterator[list[str]]:
    """Ways to run pip, the nearest first: environments made by uv have none of their own."""
    yield [sys.executable, "-m", "pip"]
    if uv := shutil.which("uv"):
        yield [uv, "tool", "run", "pip"]
    if pip := shutil.which("pip"):
        yield [pip]


def _advice(reason: str) -> str:
    return (
        f"the click stream could not be fetched ({reason}). Get the wheel yourself with "
        f"`pip download --no-deps {PACKAGE}=={VERSION}` and name it with --wheel PATH"
    )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
