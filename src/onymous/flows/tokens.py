"""Access tokens of API credentials: signed, short-lived, and revocable at once.

Keys, credentials and revoked tokens are held in memory and read again when any process changed
them. A token is verified once and then remembered: whether it is expired, revoked or its
credential switched off is looked at on every use.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import msgspec

from onymous.crypto import MasterKey
from onymous.flows.api_credentials import ApiCredential, fits, read_credential, transact
from onymous.flows.tenancy import decode_scope
from onymous.flows.tombstones import TOKEN as REVOKED_TOKEN
from onymous.flows.tombstones import Line, promised
from onymous.later import Later, module
from onymous.rules.errors import Forbidden, Unauthorized
from onymous.rules.strategies import Plan, compile_plan
from onymous.store import credentials_sql as sql
from onymous.store.port import Session, Store, Transaction

if TYPE_CHECKING:
    from joserfc import errors as jose
    from joserfc import jwt
    from joserfc.jwk import ECKey
else:
    jose, jwt = module("joserfc.errors"), module("joserfc.jwt")
    ECKey = Later(lambda: module("joserfc.jwk").ECKey)

ALGORITHM, CURVE = "ES256", "P-256"
LIFE_S = 28_800
ISSUER = AUDIENCE = "onymous"
#: what clients of the IDSync family of APIs ask for
COMPATIBLE_AUDIENCE = "https://api.mparticle.com"
AUDIENCES = (AUDIENCE, COMPATIBLE_AUDIENCE)
#: a new key signs once every process has had the time to learn of it
SETTLE_MS = 5_000
#: how long a retired key verifies: all its tokens have expired by then
KEPT_MS = LIFE_S * 1000 + 60_000
#: clocks of several servers differ
LEEWAY_S = 30
#: verified tokens remembered, longest token looked at, live tokens revoked one by one
MOST_REMEMBERED, MOST_TOKEN, MOST_REVOKED = 4_096, 4_096, 10_000


class TokenRefused(Exception):
    """A token request was refused; `error` is one of the words of OAuth 2.0."""

    def __init__(self, error: str, description: str, status: int = 400) -> None:
        super().__init__(description)
        self.error, self.description, self.status = error, description, status


class Workspace(msgspec.Struct, frozen=True):
    """A workspace with what stands above it and the rules of its scope."""

    id: int
    name: str
    account: int
    organization: int
    scope: int
    plan: Plan


class Holder(msgspec.Struct, frozen=True):
    """Who shows a token, and what they may do."""

    id: int
    client_id: str
    permissions: frozenset[str]
    workspaces: frozenset[int]
    requests_per_second: int
    jti: str
    #: seconds since 1970
    expires: int

    def need(self, permission: str) -> None:
        """Raise `Forbidden` unless this credential holds a permission."""
        if permission not in self.permissions:
            raise Forbidden(permission=permission)


class Key(msgspec.Struct, frozen=True):
    """A public key, and when it was made."""

    kid: str
    public: ECKey
    created_ms: int
    retired: bool


class Tokens:
    """Issues, checks and revokes tokens. Call `load` once, then `refresh_if_changed`."""

    def __init__(self, store: Store, master: MasterKey) -> None:
        self._store, self._master = store, master
        self._clients: dict[str, tuple[ApiCredential, bytes]] = {}
        self.workspaces: dict[int, Workspace] = {}
        self._keys: dict[str, Key] = {}
        self._private: dict[str, ECKey] = {}
        self._revoked: set[str] = set()
        self._known: dict[bytes, Holder] = {}
        self._versions: list[bytes] = []
        self._used: dict[int, int] = {}

    # -- what is in memory --------------------------------------------------------------------

    async def load(self, now_ms: int) -> None:
        """Read credentials, workspaces, keys and revoked tokens."""
        async with self._store.read() as session:
            versions = await _versions(session)
            rows = await session.rows(sql.CREDENTIALS)
            workspaces = await session.rows(sql.WORKSPACES)
            keys = await session.rows(sql.KEYS, now_ms - KEPT_MS)
            revoked = await session.rows(sql.REVOKED, now_ms // 1000)
        found = [read_credential(row) for row in rows]
        self._clients = {c.client_id: (c, digest) for c, digest in found}
        self.workspaces = {
            w[0]: Workspace(w[0], w[1], w[2], w[3], w[4], compile_plan(decode_scope(w[5])))
            for w in workspaces
        }
        self._keys = {
            kid: Key(kid, ECKey.import_key(bytes(public)), created, retired is not None)
            for kid, public, created, retired in keys
        }
        self._revoked = {row[0] for row in revoked}
        self._known.clear()
        self._versions = versions

    async def refresh_if_changed(self, now_ms: int) -> bool:
        """Load again if any process changed something; return whether it did."""
        async with self._store.read() as session:
            versions = await _versions(session)
        if versions == self._versions:
            return False
        await self.load(now_ms)
        return True

    async def flush(self) -> None:
        """Write when credentials were last used."""
        used, self._used = self._used, {}
        if used:
            async with self._store.write("credentials.used") as tx:
                rows = [(at, number, at) for number, at in used.items()]
                await tx.many(sql.CREDENTIAL_USED, rows)

    # -- issuing ------------------------------------------------------------------------------

    async def issue(self, client_id: str, secret: str, audience: str | None, now_ms: int) -> str:
        """Return a new token; raises `TokenRefused` the same way for whatever does not fit."""
        credential = await self.client(client_id, secret, now_ms)
        audience = audience or AUDIENCE
        if audience not in AUDIENCES:
            raise TokenRefused("access_denied", "the audience is not served here", 403)
        key = await self._signing(now_ms)
        now = now_ms // 1000
        claims = {
            "iss": ISSUER,
            "sub": credential.client_id,
            "aud": audience,
            "iat": now,
            "exp": now + LIFE_S,
            "jti": f"{credential.id}.{secrets.token_hex(16)}",
            "scope": " ".join(credential.granted.permissions),
            "gty": "client-credentials",
        }
        return jwt.encode({"alg": ALGORITHM, "kid": key.kid}, claims, key, algorithms=[ALGORITHM])

    async def client(self, client_id: str, secret: str, now_ms: int) -> ApiCredential:
        """Return whose secret this is; raises `TokenRefused`."""
        if client_id not in self._clients:
            await self.refresh_if_changed(now_ms)
        known = self._clients.get(client_id)
        if known is None or not fits(secret, known[1]) or not known[0].active:
            raise TokenRefused("invalid_client", "the client is not known or not active", 401)
        self._used[known[0].id] = now_ms
        return known[0]

    async def _signing(self, now_ms: int) -> ECKey:
        """Return the private key that signs; makes the first one."""
        if all(k.retired for k in self._keys.values()):
            await self.rotate(now_ms, first=True)
        # a younger key may be unknown to other processes: until then the one before it signs
        known = sorted(self._keys.values(), key=lambda k: (k.created_ms, k.kid))
        settled = [k for k in known if k.created_ms <= now_ms - SETTLE_MS]
        chosen = settled[-1] if settled else known[0]
        if chosen.kid not in self._private:
            async with self._store.read() as session:
                sealed = (await session.rows(sql.KEY_SEALED, chosen.kid))[0][0]
            plain = self._master.open(bytes(sealed), sealing_context(chosen.kid))
            self._private[chosen.kid] = ECKey.import_key(plain, {"kid": chosen.kid})
        return self._private[chosen.kid]

    async def rotate(self, now_ms: int, *, first: bool = False) -> str:
        """Make a new key pair and return its id; the one before goes on verifying for 8 hours.

        `first`: only where there is none yet.
        """
        made = ECKey.generate_key(CURVE)
        kid = made.thumbprint()
        public, private = made.as_pem(private=False), made.as_pem(private=True)

        async def work(tx: Transaction) -> str:
            live = [row for row in await tx.rows(sql.KEYS, now_ms) if row[3] is None]
            if live and first:
                return str(live[-1][0])
            if live:  # the key of this database must be the one that opens what is there
                sealed = (await tx.rows(sql.KEY_SEALED, live[-1][0]))[0][0]
                self._master.open(bytes(sealed), sealing_context(live[-1][0]))
            await tx.run(
                sql.KEY_ADD, kid, self._master.seal(private, sealing_context(kid)), public, now_ms
            )
            await tx.run(sql.KEYS_RETIRE, now_ms, kid)
            await tx.run(sql.KEYS_DROP, now_ms - KEPT_MS)
            return kid

        kid = await transact(self._store, "credentials.rotate", work)
        await self.load(now_ms)
        return kid

    async def jwks(self, now_ms: int) -> dict[str, object]:
        """Return the public keys tokens may be signed with."""
        await self.refresh_if_changed(now_ms)
        if not self._keys:
            await self._signing(now_ms)
        more = {"use": "sig", "alg": ALGORITHM}
        keys = [k.public.as_dict(private=False) | more | {"kid": k.kid} for k in self.keys]
        return {"keys": keys}

    @property
    def keys(self) -> list[Key]:
        """Return the keys that verify, newest first."""
        return sorted(self._keys.values(), key=lambda k: -k.created_ms)

    # -- checking -----------------------------------------------------------------------------

    def check(self, header: bytes | None, now_ms: int) -> Holder:
        """Return whose `Authorization` header this is; raises `Unauthorized`."""
        if header is None:
            raise Unauthorized()
        holder = self._known.get(header)
        if holder is None:
            holder = self._verified(header, now_ms // 1000)
            if len(self._known) >= MOST_REMEMBERED:
                self._known.clear()
            self._known[header] = holder
        elif holder.expires <= now_ms // 1000 or holder.jti in self._revoked:
            raise Unauthorized()
        self._used[holder.id] = now_ms
        return holder

    async def check_again(self, header: bytes | None, now_ms: int) -> Holder:
        """Check a refused token once more, with what other processes may have changed since."""
        if header is not None:
            await self.refresh_if_changed(now_ms)
        return self.check(header, now_ms)

    def _verified(self, header: bytes, now: int) -> Holder:
        scheme, _, token = header.strip().partition(b" ")
        if scheme.lower() != b"bearer" or len(token) > MOST_TOKEN:
            raise Unauthorized()
        claims = self._claims(token.strip())
        known = self._clients.get(str(claims.get("sub")))
        jti, expires, issued = (claims.get(n) for n in ("jti", "exp", "iat"))
        if known is None or not known[0].active or not isinstance(jti, str):
            raise Unauthorized()
        if type(expires) is not int or type(issued) is not int or jti in self._revoked:
            raise Unauthorized()
        if expires <= now or issued > now + LEEWAY_S or claims.get("iss") != ISSUER:
            raise Unauthorized()
        if claims.get("aud") not in AUDIENCES or not jti.startswith(f"{known[0].id}."):
            raise Unauthorized()
        granted = known[0].granted
        return Holder(
            known[0].id,
            known[0].client_id,
            frozenset(granted.permissions),
            frozenset(granted.workspaces),
            granted.requests_per_second,
            jti,
            expires,
        )

    def _claims(self, token: bytes) -> dict[str, object]:
        """Return the claims of a token that one of our keys signed; raises `Unauthorized`."""
        try:
            decoded = jwt.decode(token, lambda obj: self._named(obj.headers()), [ALGORITHM])
        except (jose.JoseError, ValueError, KeyError, TypeError, RecursionError):
            raise Unauthorized() from None
        return decoded.claims

    def _named(self, header: dict[str, object]) -> ECKey:
        key = self._keys.get(str(header.get("kid")))
        if key is None or header.get("alg") != ALGORITHM:
            raise Unauthorized()
        return key.public

    def name_of(self, holder: Holder) -> str:
        """Return what people call the credential of a holder."""
        found = self._clients.get(holder.client_id)
        return found[0].name if found is not None else ""

    # -- revoking -----------------------------------------------------------------------------

    async def revoke(self, credential: ApiCredential, token: str, now_ms: int) -> bool:
        """Take back a token, or the token of a jti, of this credential; whether it was one.

        Raises `TokenRefused` when very many are revoked one by one.
        """
        jti, until = token, now_ms // 1000 + LIFE_S
        if token.count(".") == 2:
            try:
                claims = self._claims(token.encode("ascii", "replace"))
            except Unauthorized:
                return False
            jti, until = str(claims.get("jti")), int(str(claims.get("exp")))
        own, _, rest = jti.partition(".")
        if own != str(credential.id) or len(rest) != 32 or not rest.isalnum():
            return False

        async def work(tx: Transaction) -> bool:
            await tx.run(sql.REVOKED_FORGET, now_ms // 1000)
            if (await tx.rows(sql.REVOKED_COUNT, credential.id))[0][0] >= MOST_REVOKED:
                return False
            await tx.run(sql.REVOKED_ADD, jti, credential.id, until)
            line = Line(REVOKED_TOKEN, now_ms, credential.id, until, jti)
            await promised(tx, line)
            return True

        if not await transact(self._store, "credentials.revoke_token", work):
            raise TokenRefused("invalid_request", "too many revoked: deactivate the credential")
        await self.load(now_ms)
        return True

    def workspace(self, number: int, holder: Holder) -> Workspace:
        """Return a workspace a credential may read; raises `Forbidden`, also if there is none."""
        found = self.workspaces.get(number)
        if found is None or number not in holder.workspaces:
            raise Forbidden(permission="read this workspace")
        return found

    @staticmethod
    def belongs(workspace: Workspace, organization: int, account: int) -> None:
        """Raise `Forbidden` unless a workspace stands under this organization and account."""
        if (workspace.organization, workspace.account) != (organization, account):
            raise Forbidden(permission="read this workspace")


async def _versions(session: Session) -> list[bytes]:
    return [bytes(row[1]) for row in await session.rows(sql.VERSIONS)]


def sealing_context(kid: str) -> bytes:
    """Return what the private key of a kid is sealed for."""
    return b"signing key " + kid.encode()
