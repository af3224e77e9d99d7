"""Tokens: issued, checked, revoked, signed with keys that rotate."""

from __future__ import annotations

import base64
import json
import pathlib
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, OctKey
from tests.conftest import Place
from tests.web.reading import Reading, now, reading

from onymous.crypto import KeyProblem, MasterKey
from onymous.flows import tokens as tokens_module
from onymous.flows.api_credentials import activate, credentials, delete, issue
from onymous.flows.tokens import COMPATIBLE_AUDIENCE, LIFE_S, SETTLE_MS, Tokens
from onymous.rules.errors import BadRequest, NotFound, Unauthorized


async def status(here: Reading, token: str, mpid: str) -> int:
    """Return the status a read with this token gets."""
    here.tokens["asked"] = token
    return (await here.read(mpid, who="asked")).status_code


async def test_a_token_for_client_credentials(place: Place, tmp_path: pathlib.Path) -> None:
    async with reading(place, tmp_path) as here:
        json_reply = await here.ask_token("all", audience=COMPATIBLE_AUDIENCE)
        assert json_reply.status_code == 200
        assert json_reply.json().keys() == {"access_token", "expires_in", "token_type"}
        assert json_reply.json()["expires_in"] == 28800
        assert json_reply.json()["token_type"] == "Bearer"
        assert json_reply.headers["cache-control"] == "no-store"
        form = {**here.clients["all"], "grant_type": "client_credentials"}
        assert (await here.client.post("/oauth/token", data=form)).status_code == 200
        basic = (here.clients["all"]["client_id"], here.clients["all"]["client_secret"])
        by_header = await here.client.post(
            "/oauth/token", data={"grant_type": "client_credentials"}, auth=basic
        )
        assert by_header.status_code == 200
        jwks = (await here.client.get("/.well-known/jwks.json")).json()
        assert [k["alg"] for k in jwks["keys"]] == ["ES256"]
        assert all("d" not in k for k in jwks["keys"])
        token = json_reply.json()["access_token"]
        found = jwt.decode(token, KeySet.import_key_set(jwks), ["ES256"])
        assert found.claims["aud"] == COMPATIBLE_AUDIENCE
        assert found.claims["exp"] - found.claims["iat"] == LIFE_S
        assert found.claims["sub"] == here.clients["all"]["client_id"]


BAD: list[tuple[dict[str, Any], int, str]] = [
    ({"client_secret": "wrong"}, 401, "invalid_client"),
    ({"client_id": "on-" + "0" * 32}, 401, "invalid_client"),
    ({"client_id": ""}, 401, "invalid_client"),
    ({"grant_type": "password"}, 400, "unsupported_grant_type"),
    ({"audience": "https://elsewhere.example"}, 403, "access_denied"),
    ({"client_secret": 7}, 400, "invalid_request"),
]


async def test_refused_token_requests(place: Place, tmp_path: pathlib.Path) -> None:
    async with reading(place, tmp_path) as here:
        for change, code, word in BAD:
            reply = await here.ask_token("all", **change)
            assert (reply.status_code, reply.json()["error"]) == (code, word), change
            assert here.clients["all"]["client_secret"] not in reply.text
        for body in (b"", b"[]", b"{", b'"x"', b"\xff", b"[" * 5000):
            reply = await here.client.post("/oauth/token", content=body)
            assert reply.status_code == 400, body
        twice = {"grant_type": ["client_credentials", "client_credentials"]}
        assert (await here.client.post("/oauth/token", data=twice)).status_code == 400


def forged(here: Reading) -> dict[str, str]:
    """Return tokens that must not be accepted, by what is wrong with them."""
    good = here.tokens["all"]
    head, body, signature = good.split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    kid = json.loads(base64.urlsafe_b64decode(head + "=="))["kid"]
    ours = next(iter(here.core.tokens._private.values()))

    def made(key: Any, alg: str = "ES256", header: dict[str, str] | None = None, **c: Any) -> str:
        given = {"alg": alg, "kid": kid, **(header or {})}
        return jwt.encode(given, {**claims, **c}, key, algorithms=[alg])

    def bare(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    public = ours.as_pem(private=False)
    tampered = {**claims, "scope": "platform:admin"}
    other = ECKey.generate_key("P-256")
    secret = OctKey.import_key(base64.urlsafe_b64encode(public).decode())
    return {
        "expired": made(ours, exp=now() // 1000 - 1),
        "from the future": made(ours, iat=now() // 1000 + 600),
        "no expiry": made(ours, exp=None),
        "text expiry": made(ours, exp="9999999999"),
        "other audience": made(ours, aud="https://elsewhere.example"),
        "audience list": made(ours, aud=[COMPATIBLE_AUDIENCE]),
        "other issuer": made(ours, iss="somebody"),
        "other subject": made(ours, sub="on-" + "0" * 32),
        "other credential's jti": made(ours, jti="99." + "0" * 32),
        "no jti": made(ours, jti=None),
        "wrong key": made(other),
        "unknown kid": made(other, header={"kid": "unknown"}),
        "public key as secret": made(secret, "HS256"),
        "alg none": f"{bare({'alg': 'none', 'kid': kid})}.{body}.",
        "alg none with signature": f"{bare({'alg': 'none', 'kid': kid})}.{body}.{signature}",
        "tampered": f"{head}.{bare(tampered)}.{signature}",
        "cut": good[:-4],
        "no signature": f"{head}.{body}.",
        "words": "x.y.z",
        "long": "x" * 100_000,
    }


async def test_forged_tokens_are_401(place: Place, tmp_path: pathlib.Path) -> None:
    async with reading(place, tmp_path) as here:
        mpid = await here.identify({"customerid": "a"})
        for what, token in forged(here).items():
            if what == "long":  # more than any header may hold is refused before it is read
                with pytest.raises(Unauthorized):
                    here.core.tokens.check(b"Bearer " + token.encode(), now())
            else:
                assert await status(here, token, mpid) == 401, what
        assert await status(here, here.tokens["all"], mpid) == 200
        for header in ("Basic eDp5", "Bearer", "Bearer  x", "", here.tokens["all"]):
            reply = await here.read(mpid, headers={"Authorization": header})
            assert reply.status_code == 401, header


async def test_a_remembered_token_expires(place: Place, tmp_path: pathlib.Path) -> None:
    async with reading(place, tmp_path) as here:
        header = b"Bearer " + here.tokens["all"].encode()
        tokens = here.core.tokens
        assert tokens.check(header, now()) is tokens.check(header, now())
        with pytest.raises(Unauthorized):
            tokens.check(header, now() + (LIFE_S + 1) * 1000)


async def test_revoked_tokens(place: Place, tmp_path: pathlib.Path) -> None:
    async with reading(place, tmp_path) as here:
        mpid = await here.identify({"customerid": "a"})
        await here.issue("other", "profile:read", workspaces=("one",))
        first, second = here.tokens["all"], (await here.ask_token("all")).json()["access_token"]
        third = (await here.ask_token("all")).json()["access_token"]
        stranger = {**here.clients["other"], "token": first}
        assert (await here.client.post("/oauth/revoke", json=stranger)).status_code == 200
        assert await status(here, first, mpid) == 200, "not the stranger's to revoke"
        mine = {**here.clients["all"], "token": first}
        assert (await here.client.post("/oauth/revoke", data=mine)).status_code == 200
        assert await status(here, first, mpid) == 401
        jti = json.loads(base64.urlsafe_b64decode(second.split(".")[1] + "=="))["jti"]
        by_jti = {**here.clients["all"], "jti": jti}
        assert (await here.client.post("/oauth/revoke", json=by_jti)).status_code == 200
        assert await status(here, second, mpid) == 401
        assert await status(here, third, mpid) == 200
        nobody = {**here.clients["all"], "client_secret": "wrong", "token": third}
        assert (await here.client.post("/oauth/revoke", json=nobody)).status_code == 401
        assert await status(here, third, mpid) == 200
        # another process knows too
        another = Tokens(here.core.store, here.core.key)
        await another.load(now())
        with pytest.raises(Unauthorized):
            another.check(b"Bearer " + first.encode(), now())


async def test_credentials_are_switched_off_and_deleted(
    place: Place, tmp_path: pathlib.Path
) -> None:
    async with reading(place, tmp_path) as here:
        mpid = await here.identify({"customerid": "a"})
        store, tokens = here.core.store, here.core.tokens
        client = here.clients["all"]["client_id"]
        token = here.tokens["all"]
        await activate(store, client, False, actor="test", now_ms=now())
        assert await tokens.refresh_if_changed(now())
        assert await status(here, token, mpid) == 401
        assert (await here.ask_token("all")).status_code == 401
        await activate(store, client, True, actor="test", now_ms=now())
        await tokens.refresh_if_changed(now())
        assert await status(here, token, mpid) == 200
        await tokens.flush()
        assert (await credentials(store))[0].used_ms
        await delete(store, client, actor="test", now_ms=now())
        await tokens.refresh_if_changed(now())
        assert await status(here, token, mpid) == 401
        with pytest.raises(NotFound):
            await activate(store, client, True, actor="test", now_ms=now())
        assert await credentials(store) == []


async def test_a_credential_issued_elsewhere_works_at_once(
    place: Place, tmp_path: pathlib.Path
) -> None:
    async with reading(place, tmp_path) as here:
        mpid = await here.identify({"customerid": "a"})
        elsewhere = Tokens(here.core.store, here.core.key)
        made = await issue(
            here.core.store, "new", ["profile:read"], ["one"], actor="test", now_ms=now()
        )
        await elsewhere.load(now())
        client, secret = made.credential.client_id, made.client_secret
        token = await elsewhere.issue(client, secret, None, now())
        assert await status(here, token, mpid) == 200


async def test_keys_rotate(place: Place, tmp_path: pathlib.Path) -> None:
    async with reading(place, tmp_path) as here:
        mpid = await here.identify({"customerid": "a"})
        tokens = here.core.tokens
        old = here.tokens["all"]
        kid = await tokens.rotate(now())
        jwks = (await here.client.get("/.well-known/jwks.json")).json()
        assert next(k["kid"] for k in jwks["keys"]) == kid
        assert len(jwks["keys"]) == 2
        client, secret = here.clients["all"].values()

        def signed_with(token: str) -> str:
            return str(json.loads(base64.urlsafe_b64decode(token.split(".")[0] + "=="))["kid"])

        at_once = await tokens.issue(client, secret, None, now())
        later = await tokens.issue(client, secret, None, now() + SETTLE_MS + 1)
        assert signed_with(at_once) == signed_with(old) != kid
        assert signed_with(later) == kid
        for token in (old, at_once, later):
            assert await status(here, token, mpid) == 200
        await tokens.load(now() + (LIFE_S + 120) * 1000)
        assert [k.kid for k in tokens.keys] == [kid]


async def test_two_processes_make_one_key(place: Place, tmp_path: pathlib.Path) -> None:
    store = place.store()
    await store.start()
    try:
        key = MasterKey(b"k" * 32)
        one, two = Tokens(store, key), Tokens(store, key)
        assert await one.jwks(now()) == await two.jwks(now())
        stranger = Tokens(store, MasterKey(b"x" * 32))
        await stranger.load(now())
        with pytest.raises(KeyProblem):
            await stranger._signing(now())
        with pytest.raises(KeyProblem):
            await stranger.rotate(now())
    finally:
        await store.close()


async def test_what_cannot_be_issued(place: Place, tmp_path: pathlib.Path) -> None:
    async with reading(place, tmp_path) as here:
        for name, permissions, workspaces in (
            ("", ["profile:read"], ["one"]),
            ("x\n", ["profile:read"], ["one"]),
            ("x", ["profile:write"], ["one"]),
            ("x", [], ["one"]),
            ("x", ["profile:read"], []),
            ("x", ["profile:read"], ["unheard of"]),
        ):
            with pytest.raises(BadRequest):
                await issue(
                    here.core.store, name, permissions, workspaces, actor="test", now_ms=now()
                )
        async with here.core.store.read() as session:
            rows = await session.rows("SELECT name, settings, hash FROM credential")
        secret = here.clients["all"]["client_secret"]
        assert all(secret.encode() not in bytes(row[2]) for row in rows)


async def test_the_memory_of_tokens_is_bounded(
    place: Place, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens_module, "MOST_REMEMBERED", 3)
    async with reading(place, tmp_path) as here:
        for _ in range(8):
            token = (await here.ask_token("all")).json()["access_token"]
            here.core.tokens.check(b"Bearer " + token.encode(), now())
            assert len(here.core.tokens._known) <= 3
