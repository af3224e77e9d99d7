"""Serve an application with uvicorn, with the hot routes before ASGI."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import pathlib
import socket
import time
from collections.abc import Callable
from typing import Any

from uvicorn.config import Config

from onymous.app import Core, calm_collector
from onymous.flows.lifetime import Lifetime
from onymous.flows.rules_asked import Rules
from onymous.flows.ties import Ties
from onymous.later import fetch, module
from onymous.limits import Bounds, Limits, Trusted, networks
from onymous.logs import log_request
from onymous.managing import manager, public_only
from onymous.measuring import Measuring
from onymous.observe import Metrics
from onymous.rules.errors import BadHttp, HeadTooLarge
from onymous.settings import SettingError, Settings
from onymous.stopping import Ending, Polite, notify
from onymous.store.port import Store
from onymous.web.about import AboutWeb
from onymous.web.activity import ActivityWeb
from onymous.web.aliases import AliasWeb
from onymous.web.auth import Authenticator
from onymous.web.calls import Call
from onymous.web.changes import ChangesWeb
from onymous.web.events import EventsWeb
from onymous.web.glance import Glances
from onymous.web.guard import Guard
from onymous.web.hot import MOST_HEADERS, HotProtocol, hot_protocol
from onymous.web.identity import IdentityWeb, refused
from onymous.web.merges import MergesWeb
from onymous.web.oauth import OAuthWeb
from onymous.web.operating import OperatingWeb
from onymous.web.platform import PlatformWeb
from onymous.web.profiles import ProfilesWeb
from onymous.web.quarantine import QuarantineWeb
from onymous.web.raw import raw
from onymous.web.review import ReviewWeb
from onymous.web.routes import routes
from onymous.web.rule_changes import RuleChangesWeb
from onymous.web.scope_changes import ScopeChangesWeb
from onymous.web.server import Application, Asgi, Watch
from onymous.web.wire import Reply

#: what a first request may need
SOON = ("phonenumbers", "joserfc.jwt")
pages, tempfile, tls = module("onymous.pages"), module("tempfile"), module("onymous.tls")


def application(
    core: Core,
    metrics: Metrics,
    ending: Callable[[], bool] = lambda: False,
    connections: Callable[[], int] = lambda: 0,
    watch: Watch | None = None,
) -> Application:
    """Return the HTTP application of a started core."""
    s = core.settings
    bounds, limits = _limits(s)
    auth, guard = Authenticator(core.directory), Guard(limits)
    lifetime = Lifetime(core.store, core.resolver.desk.seen, s.profile_lifetime_days)
    identity = IdentityWeb(core.resolver, core.store, core.historian, auth, guard, bounds)
    platform = PlatformWeb(core.store, core.key, core.directory, core.tokens)
    table = routes(
        identity,
        EventsWeb(core.resolver, core.events, auth, guard, bounds),
        AliasWeb(core.resolver, core.store, auth, bounds, guard),
        AboutWeb(core.ready, Measuring(core, metrics, limits, connections).text, ending),
        MergesWeb(core.merging, core.undoing, Ties(core.store, core.mpids), auth, bounds),
        ChangesWeb(core.changes, auth, ending),
        OAuthWeb(core.tokens),
        ProfilesWeb(core.store, core.profiles, core.tokens, core.reads, limits, lifetime),
        ActivityWeb(core.activity, core.profiles, core.tokens, core.reads, core.directory),
        platform,
        ScopeChangesWeb(core.store, core.mpids, core.directory, platform),
        RuleChangesWeb(Rules(core.store), platform),
        OperatingWeb(core.store, core.explainer, core.undoing, auth, bounds),
        ReviewWeb(core.review, auth, bounds),
        QuarantineWeb(core.spool, core.directory, auth, bounds),
        s.max_event_body_bytes,
    )
    core.desk.on_commit = metrics.commit
    trusted = _trusted(s.trusted_proxies)
    if s.access_log or watch is not None:
        both = _both(log_each if s.access_log else None, watch)
        return Application(table, identity, trusted, observe=metrics.request, watch=both)
    glances = Glances(core.resolver, auth, guard, bounds, trusted, metrics.request)
    return Application(table, identity, trusted, observe=metrics.request, glance=glances)


def _both(one: Watch | None, two: Watch | None) -> Watch | None:
    if one is None or two is None:
        return one or two

    def watch(op: str, call: Call) -> Callable[[Reply], None]:
        first, second = one(op, call), two(op, call)

        def done(reply: Reply) -> None:
            first(reply)
            second(reply)

        return done

    return watch


def _tracing(settings: Settings) -> Any:
    """Return what traces, if that is wanted; its libraries are loaded only then."""
    if not settings.otlp_endpoint:
        return None
    try:
        found = importlib.import_module("onymous.tracing")
    except ModuleNotFoundError:
        raise SettingError(
            "otlp_endpoint needs the extra `otel`: install onymous[otel], or empty the setting"
        ) from None
    return found.Tracing(settings.otlp_endpoint, settings.trace_share)


def _limits(s: Settings) -> tuple[Bounds, Limits]:
    bounds = Bounds(
        max_identity_body_bytes=s.max_identity_body_bytes,
        max_event_body_bytes=s.max_event_body_bytes,
        max_identities_per_request=s.max_identities_per_request,
        max_identities_per_profile=s.max_identities_per_profile,
    )
    limits = Limits(
        address_per_second=s.address_requests_per_second,
        values_per_hour=s.address_values_per_hour,
        value_per_hour=s.value_requests_per_hour,
        profiles_per_hour=s.address_profiles_per_hour,
    )
    return bounds, limits


def _trusted(text: str) -> Trusted:
    try:
        return Trusted(networks(text))
    except ValueError as error:
        raise SettingError(f"trusted_proxies: {error}; write 10.0.0.0/8, 192.0.2.7") from None


def log_each(op: str, call: Call) -> Callable[[Reply], None]:
    """Log each request once it is answered."""
    began = time.perf_counter()

    def done(reply: Reply) -> None:
        seconds = time.perf_counter() - began
        log_request(op, call.method, reply.status, seconds, call.body, refused=reply.reason)

    return done


class Console:
    """The pages, made when the first of them is asked for: their libraries take time to load."""

    def __init__(self, core: Core, ending: Callable[[], bool]) -> None:
        self._core, self._ending = core, ending
        self._address = _trusted(core.settings.trusted_proxies).address
        self._made: Asgi | None = None
        self._making = asyncio.Lock()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        if self._made is None:
            async with self._making:
                if self._made is None:
                    await asyncio.to_thread(importlib.import_module, "onymous.pages")
                    self._made = await pages.console(self._core, self._ending, self._address)
        await self._made(scope, receive, send)


def with_console(settings: Settings) -> bool:
    """Return whether the console is served; raises `SettingError` for a word that is none."""
    if settings.console not in ("auto", "on", "off"):
        raise SettingError("console must be auto, on or off")
    host = settings.manage_host if settings.manage_port else settings.host
    loopback = host == "localhost" or host.startswith("127.")
    return settings.console == "on" or (settings.console == "auto" and (loopback or host == "::1"))


def listen(settings: Settings) -> socket.socket:
    """Open the listening socket; raises `SettingError` if the address is taken."""
    return bound(settings.host, settings.port)


def bound(host: str, port: int) -> socket.socket:
    """Open a listening socket; several processes may share its port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise SettingError(
            f"cannot listen on {host}:{port}: {error.strerror}; choose another port"
        ) from None
    sock.listen(2048)
    sock.setblocking(False)
    return sock


class Server:
    """One serving process: a core, its HTTP application and a socket."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self._tracing = _tracing(settings)
        self.core = Core(settings, watch=self._watched)
        self.ending = Ending()
        self._public: Polite | None = None
        self._manager: Polite | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def run(
        self,
        sock: socket.socket | None,
        started: Callable[[], None] | None = None,
        *,
        signals: bool = False,
    ) -> int:
        """Serve until told to stop (`stop`, or SIGINT and SIGTERM), then answer what waits.

        Returns how many requests had no answer at the end. Without a socket only jobs are done.
        """
        await self.core.start()
        shown = Console(self.core, self.ending) if with_console(self.settings) else None
        calm_collector()
        self.core.on_outdated = self.ending.ask
        self.core.on_job = self.metrics.job
        if self._tracing is not None:
            self._tracing.desk(self.core.desk)
            self.core.around_job = self._tracing.job
        try:
            with self.ending.signals() if signals else contextlib.nullcontext():
                self._make(shown, public=sock is not None)
                await self._serve(sock, started)
        finally:
            notify("STOPPING=1")
            await self.core.close()
            if self._tracing is not None:
                await asyncio.to_thread(self._tracing.close)
        return self._public.cut if self._public is not None else 0

    def _watched(self, store: Store) -> Store:
        store = self.metrics.watch(store)
        return store if self._tracing is None else self._tracing.store(store)

    def stop(self) -> None:
        """Stop accepting, answer what is under way, return from `run`."""
        self.ending.ask()
        if self._public is not None:
            self._public.should_exit = True

    async def _serve(self, sock: socket.socket | None, started: Callable[[], None] | None) -> None:
        jobs = [asyncio.create_task(self.core.work(self.ending))] if self.settings.work else []
        rest = [asyncio.create_task(self._leave()), asyncio.create_task(self._tell(started))]
        managing = None
        if self._manager is not None:
            place = bound(self.settings.manage_host, self.settings.manage_port)
            managing = asyncio.create_task(self._manager.serve([place]))
        if self._public is not None and sock is not None:
            await self._public.serve(sockets=[sock])
        else:
            await self.ending.asked()
        if jobs:  # the round under way is finished: what it holds would have to wait for its lease
            await asyncio.wait(jobs, timeout=self.settings.stop_timeout_s)
        if self._manager is not None and managing is not None:
            self._manager.should_exit = True
            await managing
        for task in (*jobs, *rest):
            task.cancel()
        await asyncio.gather(*jobs, *rest, return_exceptions=True)

    async def _leave(self) -> None:
        """Once asked to end: let go of connections, then stop; asked again: wait for nothing."""
        await self.ending.asked()
        await self.ending.pause(self.settings.stop_delay_s)
        if self._public is None:
            return
        leaving = asyncio.create_task(self._public.let_go(self._protocol))
        again = asyncio.create_task(self.ending.asked(2))
        await asyncio.wait({leaving, again}, return_when=asyncio.FIRST_COMPLETED)
        self._public.should_exit = True
        await again
        self._public.force_exit = True

    async def _tell(self, started: Callable[[], None] | None) -> None:
        servers = [s for s in (self._public, self._manager) if s is not None]
        while not all(server.started for server in servers):
            await asyncio.sleep(0.005)
        notify("READY=1")
        if started is not None:
            started()
        fetch(SOON)

    def _make(self, shown: Asgi | None, *, public: bool) -> None:
        """Make the servers of both listeners."""
        s = self.settings
        cert, key = s.tls_cert, s.tls_key
        watch = None if self._tracing is None else self._tracing.request
        app = application(self.core, self.metrics, self.ending, self._connections, watch)
        app.console = shown
        with contextlib.ExitStack() as until_read:
            if s.tls_dev and not cert:
                made = tempfile.TemporaryDirectory(prefix="onymous-tls-")
                folder = pathlib.Path(until_read.enter_context(made))
                cert, key = map(str, tls.throw_away(folder, s.host))
            # certificates are read now; the folder of a throw-away one goes
            if s.manage_port:
                self._manager = Polite(manager(app, cert, key, self._speaks(app, hot=False)))
            if public:
                self._public = Polite(self._config(app, cert, key))

    def _connections(self) -> int:
        return len(self._public.server_state.connections) if self._public is not None else 0

    def _speaks(self, app: Application, *, hot: bool) -> type[HotProtocol]:
        s = self.settings
        return hot_protocol(
            app.hot() if hot else {},
            s.max_identity_body_bytes,
            app.find_hot if hot else lambda method, path: None,
            too_large=app.too_large,
            head_too_large=raw(refused(HeadTooLarge(most=MOST_HEADERS), None)),
            bad_http=raw(refused(BadHttp(), None)),
            too_slow=(s.head_timeout_s, s.body_timeout_s, app.too_slow),
        )

    def _config(self, app: Application, cert: str, key: str) -> Config:
        self._protocol = self._speaks(app, hot=True)
        config = Config(
            public_only(app) if self.settings.manage_port else app,
            http=self._protocol,
            loop="none",
            lifespan="off",
            ws="none",
            access_log=False,
            log_config=None,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=max(1, round(self.settings.stop_timeout_s)),
            ssl_certfile=cert or None,
            ssl_keyfile=key or None,
        )
        config.load()
        return config
