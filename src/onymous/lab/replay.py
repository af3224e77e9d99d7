"""Drive a running server with identity steps over HTTP, and keep what it answered.

A step is sent when every earlier step of its client, and of its person, is answered; everything
else runs side by side. So one list of steps gives one result, however many connections there are.
"""

import asyncio
import base64
import ssl
import time
from array import array
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import msgspec

from onymous.lab.replay_http import Line, Reply, ServerUnreachable, Target
from onymous.lab.score import Observation
from onymous.lab.simulate import Step

__all__ = ["Credentials", "Refused", "Replay", "ServerUnreachable", "replay"]

MEMORY_OF_REPEATS = 65_536
"""So many of the last requests are remembered, to know a repeat by its request id."""
MAX_TRIES = 6
"""A request that is answered 429 or 503 is sent at most so often."""
MAX_PAUSE_S = 30.0
"""A longer `Retry-After` is cut to this."""
PROGRESS_EVERY = 64


class Refused(Exception):
    """The server refused the credentials (401 or 403); the message names the kind of traffic."""


@dataclass(frozen=True, slots=True, repr=False)
class Credentials:
    """Key and secret of an app input, and of a server-side input or feed for CRM rows."""

    app_key: str
    app_secret: str
    feed_key: str
    feed_secret: str


@dataclass(slots=True)
class Replay:
    """What came of it. Times are wall-clock."""

    observations: list[Observation] = field(default_factory=list)
    """For `score`: one per answered request that names an MPID; repeats are left out."""
    statuses: Counter[int] = field(default_factory=Counter)
    """Every HTTP answer by its status, also those that were tried again."""
    steps: int = 0
    """Steps that were answered for good, with whatever status."""
    repeats: int = 0
    """Steps that were repeats of an earlier request."""
    mismatches: int = 0
    """Repeats whose answer (status or body) was not that of the first one. Must be 0."""
    retries: int = 0
    """Requests sent again after 429 or 503."""
    skipped: int = 0
    """Modify steps not sent, because their client has no MPID yet."""
    unreadable: int = 0
    """Answers 200 that are not the JSON that was promised. Must be 0."""
    seconds: float = 0.0
    p50_ms: float = 0.0
    """Half of the HTTP exchanges took no longer, in milliseconds."""
    p99_ms: float = 0.0
    """99 of 100 HTTP exchanges took no longer, in milliseconds."""

    @property
    def requests_per_s(self) -> float:
        """HTTP answers per second."""
        return self.statuses.total() / self.seconds if self.seconds else 0.0


async def replay(
    steps: Iterable[Step],
    base_url: str,
    credentials: Credentials,
    *,
    environment: str = "development",
    concurrency: int = 32,
    on_progress: Callable[[int], None] | None = None,
    tls: ssl.SSLContext | None = None,
    timeout_s: float = 30.0,
) -> Replay:
    """Send all steps to `base_url` over `concurrency` connections; `steps` is read as needed.

    `on_progress` gets the number of steps done, every 64 steps and at the end. Other refusals than
    credentials are counted, not raised. ServerUnreachable, Refused, and ValueError for a bad
    address or concurrency below 1.
    """
    if concurrency < 1:
        raise ValueError("concurrency must be at least 1")
    run = _Run(steps, Target.parse(base_url, tls), credentials, environment, concurrency)
    run.on_progress = on_progress
    started = time.perf_counter()
    lines = [Line(run.target, timeout_s) for _ in range(concurrency)]
    workers = [asyncio.create_task(run.work(line)) for line in lines]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        for line in lines:
            line.close()
    return run.finish(time.perf_counter() - started)


class _Node:
    """A step waiting for its turn."""

    __slots__ = ("followers", "step", "waits")

    def __init__(self, step: Step) -> None:
        self.step = step
        self.waits = 0
        self.followers: list[_Node] = []


class _Order:
    """Which step may go: reads up to `window` steps ahead, keeps clients and people in order."""

    def __init__(self, steps: Iterable[Step], window: int) -> None:
        self._steps, self._window = iter(steps), window
        self._ready: deque[_Node] = deque()
        self._tails: dict[tuple[str, str], _Node] = {}
        self._open = 0
        self._read_all = False
        self._idle: deque[asyncio.Future[None]] = deque()

    async def take(self) -> _Node | None:
        """The next step that may go; waits for one; None when all are done."""
        while True:
            while not self._ready and not self._read_all and self._open < self._window:
                self._read()
            if self._ready:
                return self._ready.popleft()
            if self._read_all and not self._open:
                self._wake(len(self._idle))
                return None
            idle: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._idle.append(idle)
            await idle

    def done(self, node: _Node) -> None:
        """Let those go that waited for this step."""
        self._open -= 1
        for key in _keys(node.step):
            if self._tails.get(key) is node:
                del self._tails[key]
        for follower in node.followers:
            follower.waits -= 1
            if not follower.waits:
                self._ready.append(follower)
        # The reporting worker takes one itself; the room it made may let one more be read.
        self._wake(max(1, len(self._ready)))

    def _read(self) -> None:
        step = next(self._steps, None)
        if step is None:
            self._read_all = True
            return
        node = _Node(step)
        self._open += 1
        for key in _keys(step):
            before = self._tails.get(key)
            if before is not None:
                before.followers.append(node)
                node.waits += 1
            self._tails[key] = node
        if not node.waits:
            self._ready.append(node)

    def _wake(self, number: int) -> None:
        while number > 0 and self._idle:
            idle = self._idle.popleft()
            if not idle.done():
                idle.set_result(None)
                number -= 1


def _keys(step: Step) -> tuple[tuple[str, str], tuple[str, str]]:
    return ("client", step.client), ("person", step.person)


class _Answer(msgspec.Struct):
    mpid: str | int | None = None
    is_logged_in: bool = False


@dataclass(slots=True)
class _First:
    """What was sent and answered when a request id was seen for the first time."""

    before: str | None
    status: int = 0
    body: int = 0


class _Run:
    """The state of one replay, shared by its workers (one event loop, so no locks)."""

    on_progress: Callable[[int], None] | None = None

    def __init__(
        self,
        steps: Iterable[Step],
        target: Target,
        credentials: Credentials,
        environment: str,
        concurrency: int,
    ) -> None:
        self.target, self.environment, self.result = target, environment, Replay()
        self.order = _Order(steps, max(64, concurrency * 16))
        self.app_head = _head(target, credentials.app_key, credentials.app_secret)
        self.feed_head = _head(target, credentials.feed_key, credentials.feed_secret)
        self.mpids: dict[str, str] = {}
        self.firsts: dict[str, _First] = {}
        self.millis = array("f")
        self.decode = msgspec.json.Decoder(_Answer).decode
        self.encode = msgspec.json.Encoder().encode

    async def work(self, line: Line) -> None:
        while (node := await self.order.take()) is not None:
            await self.send(line, node.step)
            self.order.done(node)
            result = self.result
            result.steps += 1
            if self.on_progress is not None and result.steps % PROGRESS_EVERY == 0:
                self.on_progress(result.steps)

    async def send(self, line: Line, step: Step) -> None:
        """Send one step, again if it must be, and note what the answer says."""
        first = self.firsts.get(step.request_id)
        before = self.mpids.get(step.client) if first is None else first.before
        if step.op == "modify" and before is None:
            self.result.skipped += 1
            return
        reply = await self.exchange(line, self.request(step, before))
        if first is not None:
            self.result.repeats += 1
            if (first.status, first.body) != (reply.status, hash(reply.body)):
                self.result.mismatches += 1
            return
        self.firsts[step.request_id] = _First(before, reply.status, hash(reply.body))
        if len(self.firsts) > MEMORY_OF_REPEATS:
            del self.firsts[next(iter(self.firsts))]
        if reply.status == 200:
            self.observe(step, reply.body)
        elif reply.status in (401, 403):
            kind = "CRM rows" if step.op == "feed" else "app traffic"
            raise Refused(f"the server refused the key and secret for {kind} ({reply.status})")

    async def exchange(self, line: Line, data: bytes) -> Reply:
        """One request until it is answered with anything but 429 and 503, or too often with it."""
        for attempt in range(1, MAX_TRIES + 1):
            started = time.perf_counter()
            reply = await line.exchange(data)
            self.millis.append((time.perf_counter() - started) * 1000)
            self.result.statuses[reply.status] += 1
            if reply.status not in (429, 503) or attempt == MAX_TRIES:
                break
            self.result.retries += 1
            pause = 1.0 if reply.retry_after is None else reply.retry_after
            await asyncio.sleep(min(pause, MAX_PAUSE_S))
        return reply

    def request(self, step: Step, before: str | None) -> bytes:
        """The whole HTTP request of a step; `before` is the last MPID its client was given."""
        body: dict[str, object] = {
            "client_sdk": {
                "platform": step.platform,
                "sdk_vendor": "onymous-lab",
                "sdk_version": "1",
            },
            "environment": self.environment,
            "context": None,
            "request_id": step.request_id,
            "request_timestamp_ms": step.at_ms,
        }
        path, head = f"/v1/{step.op}", self.app_head
        if step.op == "modify":
            path = f"/v1/{before}/modify"
            body["identity_changes"] = step.changes
        else:
            body["known_identities"] = step.identities
            if step.op == "feed":
                path, head = "/v1/login", self.feed_head
            else:
                body["previous_mpid"] = before
        data = self.encode(body)
        start = f"POST {self.target.prefix}{path} HTTP/1.1\r\nContent-Length: {len(data)}\r\n"
        return start.encode() + head + data

    def observe(self, step: Step, body: bytes) -> None:
        try:
            answer = self.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            self.result.unreadable += 1
            return
        if answer.mpid is None:
            return
        mpid = str(answer.mpid)
        if step.op != "feed":  # a feed is no client: it keeps no MPID
            self.mpids[step.client] = mpid
        self.result.observations.append((step.person, mpid, answer.is_logged_in))

    def finish(self, seconds: float) -> Replay:
        result, times = self.result, sorted(self.millis)
        result.seconds = seconds
        if times:
            result.p50_ms = times[len(times) // 2]
            result.p99_ms = times[min(len(times) - 1, len(times) * 99 // 100)]
        if self.on_progress is not None:
            self.on_progress(result.steps)
        return result


def _head(target: Target, key: str, secret: str) -> bytes:
    """The header lines that all requests with these credentials share, with the blank line."""
    token = base64.b64encode(f"{key}:{secret}".encode()).decode()
    lines = (
        f"Host: {target.authority}",
        f"Authorization: Basic {token}",
        "Content-Type: application/json",
    )
    return "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n"
