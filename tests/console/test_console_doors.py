"""The doors of the console: strangers, forged forms and cookies, failed tries, links."""

from __future__ import annotations

import pathlib
from typing import Any

import httpx
import pytest
from tests.console.making import (
    PASSWORD,
    Someone,
    audits,
    console,
    here,
    someone,
    token,
)
from tests.web.serving import running

from onymous.console.app import console_app
from onymous.console.site import Rooms
from onymous.flows.people import TRIES_HERE, TRIES_S, Attempts, People, PeopleProblem
from onymous.serving import with_console
from onymous.settings import SettingError, load

OPEN = {"/console/sign-in", "/console/welcome/{token}", "/console/static"}


def routes() -> list[tuple[str, str]]:
    """Return (method, path) of every route of the console, as its own table has them."""
    rooms: Any = Rooms(**dict.fromkeys(Rooms.__struct_fields__))
    app: Any = console_app(rooms, b"k" * 32)
    out = []
    for route in app.routes:
        if route.path in OPEN:
            continue
        path = route.path
        for name, value in (("scope:int", "1"), ("environment", "production"), ("mpid", "5")):
            path = path.replace("{" + name + "}", value)
        for name in ("batch:int", "number", "number:int"):
            path = path.replace("{" + name + "}", "1")
        path = path.replace("{entry}", "v1")
        assert "{" not in path
        out += [(method, path) for method in sorted(route.methods - {"HEAD"})]
    return out


async def test_strangers_see_nothing_but_the_door(tmp_path: pathlib.Path, place: Any) -> None:
    assert len(routes()) >= 15
    async with console(place, tmp_path) as it:
        for method, path in [*routes(), ("GET", "/console/no/such/page")]:
            answer = await it.client.request(method, path)
            assert answer.status_code == 303, (method, path)
            assert answer.headers["location"].startswith("/console/sign-in"), path
            assert answer.headers["cache-control"] == "no-store"
            assert "access-control-allow-origin" not in answer.headers
        asked = await it.client.get(
            "/console/1/production/live/stream", headers={"accept": "text/event-stream"}
        )
        assert asked.status_code == 401


async def test_forms_need_the_token_of_their_session(tmp_path: pathlib.Path, place: Any) -> None:
    async with console(place, tmp_path) as it, someone(it, "helen") as helen:
        for method, path in routes():
            if method != "POST":
                continue
            for csrf in ({}, {"csrf": "wrong"}, {"csrf": ""}):
                answer = await helen.client.post(path, data={"q": "x", **csrf})
                assert answer.status_code == 403, path
                assert "no longer valid" in answer.text
        home = await here(it)
        foreign = await helen.client.post(
            f"{home}/search",
            data={"csrf": helen.csrf, "q": "x"},
            headers={"sec-fetch-site": "cross-site"},
        )
        assert foreign.status_code == 403
        # the token of another session is of no use
        async with someone(it, "boss") as boss:
            answer = await helen.client.post(f"{home}/search", data={"csrf": boss.csrf, "q": "x"})
            assert answer.status_code == 403


async def test_signing_in_and_out(tmp_path: pathlib.Path, place: Any) -> None:
    async with console(place, tmp_path) as it:
        who = Someone(it.url)
        async with who.client:
            answer = await who.sign_in("helen", "not her password")
            assert answer.status_code == 401 and "do not belong together" in answer.text
            assert (await who.sign_in("nobody", PASSWORD)).status_code == 401
            answer = await who.sign_in(" Helen ")
            assert answer.status_code == 303
            cookie = answer.headers["set-cookie"]
            for word in ("HttpOnly", "SameSite=strict", "Path=/console"):
                assert word in cookie
            assert "Secure" not in cookie
            again = await who.get("/console/sign-in")
            assert again.status_code == 303
            stolen = dict(who.client.cookies)
            assert (await who.post("/console/sign-out")).status_code == 303
            async with httpx.AsyncClient(base_url=it.url, cookies=stolen, trust_env=False) as thief:
                late = await thief.get("/console")
                assert late.headers["location"] == "/console/sign-in?over=1"
                assert "session has ended" in (await thief.get(late.headers["location"])).text
        log = await audits(it)
        assert ("console/helen", "sign in", "helen", {}) in log


async def test_a_cookie_cannot_be_made_up(tmp_path: pathlib.Path, place: Any) -> None:
    async with console(place, tmp_path) as it, someone(it, "rita") as rita:
        cookie = rita.client.cookies["onymous_console"]
        head, _, tail = cookie.partition(".")
        for forged in (head, f"{head}A.{tail}", "", "WzEsMSwieCJd.aaaa.bbbb", "ü".encode().hex()):
            async with httpx.AsyncClient(
                base_url=it.url, cookies={"onymous_console": forged}, trust_env=False
            ) as thief:
                assert (await thief.get("/console")).status_code == 303


async def test_tries_are_counted(tmp_path: pathlib.Path, place: Any) -> None:
    async with console(place, tmp_path) as it:
        who = Someone(it.url)
        async with who.client:
            for _ in range(TRIES_HERE):
                assert (await who.sign_in("helen", "wrong password")).status_code == 401
            answer = await who.sign_in("helen")
            assert answer.status_code == 429 and int(answer.headers["retry-after"]) > 0
            assert (await who.sign_in("rita")).status_code == 303


async def test_behind_a_proxy_strangers_lock_nobody_out(tmp_path: pathlib.Path, place: Any) -> None:
    async with console(place, tmp_path, trusted_proxies="127.0.0.0/8") as it:
        for address, name, password, status in (
            *[("203.0.113.9", "helen", "a wrong password", 401)] * TRIES_HERE,
            ("203.0.113.9", "helen", PASSWORD, 429),
            # what a client says of itself does not count: the last hop is the proxy's word
            ("203.0.113.10, 203.0.113.9", "helen", PASSWORD, 429),
            ("203.0.113.9, 203.0.113.10", "helen", PASSWORD, 303),
        ):
            who = Someone(it.url)
            who.client.headers["x-forwarded-for"] = address
            async with who.client:
                assert (await who.sign_in(name, password)).status_code == status, address


async def test_a_link_from_elsewhere_is_asked_again_once(
    tmp_path: pathlib.Path, place: Any
) -> None:
    elsewhere = {"sec-fetch-site": "cross-site"}
    async with console(place, tmp_path) as it:
        path = "/console/1/production/person/5?before=1&x=%22%3E%3Cb%3E"
        first = await it.client.get(path, headers=elsewhere)
        assert first.status_code == 200 and "set-cookie" not in first.headers
        assert "url=/console/1/production/person/5?before=1&amp;x=%22%3E%3Cb%3E&amp;again=1" in (
            first.text
        )
        second = await it.client.get(f"{path}&again=1", headers=elsewhere)
        assert second.status_code == 303
        posted = await it.client.post("/console/1/production/search", headers=elsewhere)
        assert posted.status_code == 303


def test_tries_are_forgotten_after_a_while() -> None:
    now = 0.0
    attempts = Attempts(lambda: now)
    for _ in range(TRIES_HERE):
        attempts.failed("1.2.3.4", "Helen")
    assert attempts.wait_s("1.2.3.4", "helen ") > 0
    assert attempts.wait_s("5.6.7.8", "helen") == 0
    now = TRIES_S + 1
    assert attempts.wait_s("1.2.3.4", "helen") == 0


async def test_links_work_once(tmp_path: pathlib.Path, place: Any) -> None:
    async with console(place, tmp_path) as it:
        people = People(it.server.core.store, it.server.core.key)
        key = await people.link("helen", actor="test")
        late = await people.link("rita", actor="test", lasts_ms=-1)
        for word, status in ((key, 303), (key, 410), (late, 410), ("made-up", 410)):
            who = Someone(it.url)
            async with who.client:
                form = await who.get(f"/console/welcome/{word}")
                assert form.status_code == 200
                # looking at the page does not use the link up
                assert (await who.get(f"/console/welcome/{word}")).status_code == 200
                data = {"csrf": token(form.text)}
                answer = await who.client.post(f"/console/welcome/{word}", data=data)
                assert answer.status_code == status


async def test_removing_and_new_passwords_end_sessions(tmp_path: pathlib.Path, place: Any) -> None:
    async with (
        console(place, tmp_path) as it,
        someone(it, "helen") as helen,
        someone(it, "rita") as rita,
    ):
        people = People(it.server.core.store, it.server.core.key)
        await people.remove("helen", actor="test")
        await people.set_password("RITA", "another password", actor="test")
        for who in (helen, rita):
            assert (await who.get("/console")).headers["location"].startswith("/console/sign-in")
        with pytest.raises(PeopleProblem):
            await people.remove("helen", actor="test")
        for name, role, password in (("rita", "admin", PASSWORD), ("x", "king", PASSWORD)):
            with pytest.raises(PeopleProblem):
                await people.add(name, role, password, (), actor="test")
        with pytest.raises(PeopleProblem):
            await people.add("new", "admin", "short", (), actor="test")
        async with it.server.core.store.read() as session:
            rows = await session.rows("SELECT password FROM console_user")
        assert all(row[0].startswith("scrypt$15$8$1$") for row in rows)


async def test_the_console_can_be_switched_off(tmp_path: pathlib.Path, place: Any) -> None:
    async with running(place, tmp_path, console="off") as it:
        assert (await it.client.get("/console")).status_code == 404
    async with running(place, tmp_path, console="on") as it:
        assert (await it.client.get("/console/")).status_code == 303
        # the public API is none of the console's business, and the other way round
        assert (await it.client.get("/consoles")).status_code == 404
        assert (await it.client.get("/console/static/nothing.js")).status_code == 303
        assert (await it.client.get("/console/static/../site.py")).status_code in (303, 404)


async def test_large_forms_are_refused(tmp_path: pathlib.Path, place: Any) -> None:
    async with console(place, tmp_path) as it, someone(it, "helen") as helen:
        answer = await helen.post(f"{await here(it)}/search", q="x" * 100_000)
        assert answer.status_code == 413


def test_by_default_only_this_machine_is_served() -> None:
    def on(**flags: Any) -> bool:
        return with_console(load(flags, environ={}))

    assert on() and on(host="localhost") and on(host="::1") and on(host="0.0.0.0", console="on")
    assert not on(host="0.0.0.0") and not on(host="10.0.0.5") and not on(console="off")
    assert on(host="0.0.0.0", manage_port=9000)
    assert not on(manage_port=9000, manage_host="0.0.0.0")
    with pytest.raises(SettingError):
        on(console="maybe")


async def test_odd_names_and_forms_without_a_cookie(tmp_path: pathlib.Path, place: Any) -> None:
    async with console(place, tmp_path) as it:
        who = Someone(it.url)
        async with who.client:
            form = await who.client.get("/console/sign-in")
            data = {"csrf": token(form.text), "name": "boss\0", "password": PASSWORD}
            assert (await who.client.post("/console/sign-in", data=data)).status_code == 401
        forged = {"csrf": "\0", "name": "boss", "password": PASSWORD}
        async with httpx.AsyncClient(base_url=it.url, trust_env=False) as elsewhere:
            answer = await elsewhere.post("/console/sign-in", data=forged)
            assert answer.status_code == 403
            assert "no longer valid" in answer.text
