"""Documents applied for tests, and what the database then holds."""

from __future__ import annotations

from onymous.crypto import MasterKey
from onymous.flows.loading import Given, load
from onymous.flows.tenants import Directory, apply
from onymous.rules.strategies import ScopeConfig, compile_plan
from onymous.store.port import Store

KEY = MasterKey(b"k" * 32)
DOCUMENT = """
organization: Acme
accounts: [Shops, Fleet]
scopes:
  people: {strategy: profile_link, login: [customerid], unique: [customerid], email_lower: true}
workspaces:
  Web:
    account: Shops
    scope: people
    inputs:
      page:
        kind: web
        cors_origins: ["https://shop.example"]
        config_flags: {cacheIdentity: "True"}
      back: {kind: server, permissions: ["search:any", explain], max_age_s: 60, skew_s: 0}
  App:
    account: Shops
    scope: people
    inputs:
      ios: {kind: ios, api_key: us1-in-the-field}
  Trucks:
    account: Fleet
    feeds:
      crm: {act_as: android}
"""


async def applied(store: Store, text: str = DOCUMENT, key: MasterKey = KEY) -> list[str]:
    """Apply a document and return the lines of what it did."""
    return (await apply(store, key, text, actor="test", now_ms=1000)).lines()


async def table(store: Store, name: str) -> list[tuple[object, ...]]:
    async with store.read() as session:
        return await session.rows(f"SELECT * FROM {name}")


TABLES = ("organization", "account", "scope", "workspace", "input", "secret", "audit", "meta")


async def everything(store: Store) -> dict[str, list[tuple[object, ...]]]:
    return {name: await table(store, name) for name in TABLES}


async def put_person(store: Store, scope: int, environment: str = "production") -> None:
    plan = compile_plan(ScopeConfig())
    pool = scope * 2 + (environment == "development")
    await load(store, pool, plan, [Given(ids={"customerid": ["42"]})])


async def directory(store: Store, key: MasterKey = KEY) -> Directory:
    out = Directory(store, key)
    await out.load()
    return out
