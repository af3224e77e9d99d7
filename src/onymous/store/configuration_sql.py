"""Statements of the versions of the configuration."""

from __future__ import annotations

VERSION_ADD = (
    "INSERT INTO configuration (version, at, actor, reason, brought_back, steps, document)"
    " VALUES (?, ?, ?, ?, ?, ?, ?)"
)
#: number and document of the newest version
VERSION_NEWEST = "SELECT version, document FROM configuration ORDER BY version DESC LIMIT 1"
#: newest first, before a version
VERSIONS_BEFORE = (
    "SELECT version, at, actor, reason, brought_back, steps FROM configuration"
    " WHERE version < ? ORDER BY version DESC LIMIT ?"
)
VERSION_ONE = (
    "SELECT version, at, actor, reason, brought_back, steps, document FROM configuration"
    " WHERE version = ?"
)
