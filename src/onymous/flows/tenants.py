"""Temporary."""

from __future__ import annotations

import json
import msgspec

from onymous.crypto import MasterKey, new_key_pair
from onymous.rules.strategies import Plan, ScopeConfig, compile_plan
from onymous.store.port import Store


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Who calls."""

    input: int
    name: str
    kind: str
    workspace: int
    workspace_name: str
    scope: int
    scope_name: str
    plan: Plan
    api_key: str
    secrets: tuple[bytes, ...]
    active: bool = True
    key_only: bool = False
    server_side: bool = False
    fold_keys: bool = False
    search_key_only: bool = False
    permissions: frozenset[str] = frozenset()
    cors_origins: tuple[str, ...] = ("*",)
    max_age_s: int = 86400
    skew_s: int = 900
    requests_per_second: int = 0
    config_flags: dict[str, str] = {}

    def pool(self, environment: str) -> int:
        """Pool."""
        return self.scope * 2 + (environment == "development")


class Names:
    def input(self, i): return str(i)
    def workspace(self, i): return str(i)


class Directory:
    """Directory."""

    def __init__(self, store: Store, key: MasterKey) -> None:
        self.version = 0
        self.names = Names()
        self._by = {}
        plan = compile_plan(ScopeConfig(strategy="profile_conversion", login=("customerid","email"), unique=("customerid","email")))
        for n,(k,ko,ss) in enumerate([("web",True,False),("server",False,True)]):
            self._by[k]=Caller(input=n+1,name=k,kind=k,workspace=1,workspace_name="w",scope=1,scope_name="s",plan=plan,api_key=k,secrets=(b"secret",),key_only=ko,server_side=ss,permissions=frozenset(["search:any","history:read","explain"]) if ss else frozenset())

    async def load(self): pass
    async def refresh_if_changed(self): pass
    def find(self, key): return self._by.get(key)
