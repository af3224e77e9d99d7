"""The table of routes: every operation under its bare path and the paths SDKs use."""

from __future__ import annotations

from onymous.web.about import AboutWeb
from onymous.web.activity import ActivityWeb
from onymous.web.aliases import AliasWeb
from onymous.web.changes import ChangesWeb
from onymous.web.events import EventsWeb
from onymous.web.identity import IdentityWeb
from onymous.web.merges import MergesWeb
from onymous.web.oauth import MOST_BODY, OAuthWeb
from onymous.web.operating import OperatingWeb
from onymous.web.platform import MOST_BODY as MOST_DOCUMENT
from onymous.web.platform import PlatformWeb
from onymous.web.profiles import ProfilesWeb
from onymous.web.quarantine import QuarantineWeb
from onymous.web.review import ReviewWeb
from onymous.web.rule_changes import RuleChangesWeb
from onymous.web.scope_changes import ScopeChangesWeb
from onymous.web.server import Route, identity_handler


def routes(
    identity: IdentityWeb,
    events: EventsWeb,
    aliases: AliasWeb,
    about: AboutWeb,
    merges: MergesWeb,
    changes: ChangesWeb,
    oauth: OAuthWeb,
    profiles: ProfilesWeb,
    activity: ActivityWeb,
    platform: PlatformWeb,
    scopes: ScopeChangesWeb,
    rules: RuleChangesWeb,
    operating: OperatingWeb,
    review: ReviewWeb,
    quarantine: QuarantineWeb,
    max_event_body: int,
) -> list[Route]:
    """Return all routes; earlier ones win."""
    return [
        *_profiles(profiles),
        *_identity(identity),
        *_aliases(aliases),
        *_events(events, max_event_body),
        *_config(events),
        *_merges(merges),
        *_oauth(oauth),
        *_activity(activity),
        *_platform(platform),
        *_scopes(scopes),
        *_rules(rules),
        *_operating(operating),
        *_review(review),
        *_quarantine(quarantine),
        *_changes(changes),
        *_about(about),
    ]


def _changes(web: ChangesWeb) -> list[Route]:
    return [
        Route("GET", ("/v1/changes",), web.page, "changes"),
        Route("GET", ("/v1/changes/stream",), web.stream, "changes_stream"),
    ]


def _about(web: AboutWeb) -> list[Route]:
    return [
        Route("GET", ("/healthz",), web.health, "health"),
        Route("GET", ("/readyz",), web.ready, "ready"),
        Route("GET", ("/metrics",), web.metrics, "metrics"),
        Route("GET", ("/openapi.json",), web.openapi, "openapi"),
        Route("GET", ("/docs", "/"), web.page, "docs"),
    ]


def _profiles(web: ProfilesWeb) -> list[Route]:
    base = "{org}/{account}/{workspace}"
    by_mpid, resolve = f"/userprofile/v1/{base}/{{mpid}}", f"/userprofile/v1/resolve/{base}"
    return [
        Route("GET", (by_mpid,), web.read, "profile", start=web.start),
        Route("POST", (resolve,), web.resolve, "resolve", start=web.start),
        Route("POST", (by_mpid,), web.read, "profile", start=web.start),
    ]


def _activity(web: ActivityWeb) -> list[Route]:
    path = "/v1/activity/{workspace}/{mpid}"
    return [
        Route("GET", (path,), web.page, "activity"),
        Route("GET", (f"{path}/batches/{{id}}",), web.batch, "activity_batch"),
    ]


def _platform(web: PlatformWeb) -> list[Route]:
    base = "/platform/v2/organizations/{org}"
    whole, scopes, most = f"{base}/configuration", f"{base}/identity_scopes", MOST_DOCUMENT
    listed = f"{whole}/versions"
    return [
        Route("GET", (whole,), web.read, "configuration"),
        Route("PUT", (whole,), web.put, "configure", max_body=most),
        Route("POST", (f"{whole}/dry_run",), web.dry_run, "configure_dry_run", max_body=most),
        Route("POST", (f"{whole}/rollback",), web.rollback, "configure_rollback"),
        Route("GET", (listed,), web.versions, "configuration_versions"),
        Route("GET", (f"{listed}/{{version}}",), web.version, "configuration_version"),
        Route("GET", (scopes,), web.scopes, "identity_scopes"),
        Route("PUT", (scopes,), web.put_scopes, "put_identity_scopes", max_body=most),
        Route("GET", (f"{scopes}/{{id}}",), web.scope, "identity_scope"),
        Route("PUT", (f"{scopes}/{{id}}",), web.put_scope, "put_identity_scope", max_body=most),
    ]


def _operating(web: OperatingWeb) -> list[Route]:
    return [
        Route("GET", ("/v1/explain",), web.explain, "explain"),
        Route("GET", ("/v1/diagnostics",), web.diagnostics, "diagnostics"),
        Route("POST", ("/v1/undo",), web.undo, "undo"),
    ]


def _review(web: ReviewWeb) -> list[Route]:
    return [
        Route("GET", ("/v1/review",), web.page, "review"),
        Route("GET", ("/v1/review/{id}",), web.show, "review_entry"),
        Route("POST", ("/v1/review/{id}/accept",), web.accept, "review_accept"),
        Route("POST", ("/v1/review/{id}/refuse",), web.refuse, "review_refuse"),
    ]


def _quarantine(web: QuarantineWeb) -> list[Route]:
    return [
        Route("GET", ("/v1/quarantine",), web.page, "quarantine"),
        Route("GET", ("/v1/quarantine/{id}",), web.show, "quarantine_batch"),
        Route("POST", ("/v1/quarantine/replay",), web.replay, "quarantine_replay"),
        Route("POST", ("/v1/quarantine/drop",), web.drop, "quarantine_drop"),
    ]


def _scopes(web: ScopeChangesWeb) -> list[Route]:
    path, most = "/platform/v2/organizations/{org}/scope_changes", MOST_DOCUMENT
    return [
        Route("GET", (path,), web.listed, "scope_changes"),
        Route("POST", (path,), web.change, "change_scopes", max_body=most),
        Route("POST", (f"{path}/{{id}}/undo",), web.undo, "undo_scope_change", max_body=most),
    ]


def _rules(web: RuleChangesWeb) -> list[Route]:
    path = "/platform/v2/organizations/{org}/rule_changes"
    return [
        Route("GET", (path,), web.listed, "rule_changes"),
        Route("GET", (f"{path}/{{id}}",), web.one, "rule_change"),
        Route("POST", (f"{path}/{{id}}/undo",), web.undo, "undo_rule_change"),
    ]


def _oauth(web: OAuthWeb) -> list[Route]:
    return [
        Route("POST", ("/oauth/token",), web.token, "oauth_token", max_body=MOST_BODY),
        Route("POST", ("/oauth/revoke",), web.revoke, "oauth_revoke", max_body=MOST_BODY),
        Route("GET", ("/.well-known/jwks.json",), web.jwks, "jwks"),
    ]


def _identity(web: IdentityWeb) -> list[Route]:
    # native SDKs leave the version out where a mapping of hosts overrides the folder
    places = ("/v1", "/identity/v1", "", "/identity")
    out = [
        Route("POST", tuple(f"{p}/{op}" for p in places), identity_handler(web, op), op)
        for op in ("identify", "login", "logout", "search")
    ]
    modify = tuple(f"{p}/{{mpid}}/modify" for p in places)
    history = tuple(f"{p}/{{mpid}}/history" for p in places[:2])
    return [
        *out,
        Route("POST", modify, web.modify, "modify"),
        Route("GET", history, web.history, "history"),
    ]


def _aliases(web: AliasWeb) -> list[Route]:
    prefixes = ("", "/webevents", "/nativeevents")
    paths = tuple(f"{p}{v}/{{key}}/alias" for v in ("/v1/identity", "") for p in prefixes)
    return [Route("POST", paths, web.alias, "alias", ignore_case=True)]


def _merges(web: MergesWeb) -> list[Route]:
    return [
        Route("POST", ("/v1/merge",), web.merge, "merge"),
        Route("POST", ("/v1/merge/{id}/undo",), web.undo, "undo_merge"),
        Route("POST", ("/v1/alias/{id}/undo",), web.undo_alias, "undo_alias"),
        Route("GET", ("/v1/{mpid}/merges",), web.merges, "merges"),
        Route("GET", ("/v1/{mpid}/aliases",), web.aliases, "aliases"),
        Route("POST", ("/v1/{mpid}/history/{id}/undo",), web.undo_entry, "undo_entry"),
    ]


def _events(web: EventsWeb, most: int) -> list[Route]:
    def both(*paths: str) -> tuple[str, ...]:
        return tuple(p for path in paths for p in (path, f"/s2s{path}"))

    server = [
        Route(
            "POST",
            both("/v2/events"),
            web.server,
            "events",
            max_body=most,
            start=web.start,
            remember=web.known_key,
        ),
        Route("POST", both("/v2/bulkevents"), web.bulk, "bulkevents", max_body=most),
        Route(
            "POST",
            both("/v2/bulkevents/historical"),
            web.historical,
            "historical",
            max_body=most,
        ),
    ]
    return [*server, *_sdk_events(web, most)]


def _sdk_events(web: EventsWeb, most: int) -> list[Route]:
    return [
        Route(
            "POST",
            ("/v3/JS/{key}/events", "/webevents/v3/JS/{key}/events"),
            web.web,
            "web_events",
            max_body=most,
            ignore_case=True,
            start=web.start,
            remember=web.known_key,
        ),
        Route(
            "POST",
            (
                "/v2/{key}/events",
                "/nativeevents/v2/{key}/events",
                "/nativeevents/{key}/events",
                # a host of their own without the version in its path
                "/{key}/events",
            ),
            web.native,
            "native_events",
            max_body=most,
            start=web.start,
            remember=web.known_key,
        ),
        Route(
            "POST",
            tuple(
                f"{prefix}/{version}/JS/{{key}}/Forwarding"
                for prefix in ("", "/webevents")
                for version in ("v1", "v2")
            ),
            web.forwarding,
            "forwarding",
            ignore_case=True,
        ),
    ]


def _config(web: EventsWeb) -> list[Route]:
    return [
        Route(
            "GET",
            ("/JS/v2/{key}/config", "/tags/JS/v2/{key}/config"),
            web.web_config,
            "web_config",
            ignore_case=True,
        ),
        Route(
            "GET",
            (
                "/v4/{key}/config",
                "/config/v4/{key}/config",
                "/config/{key}/config",
                "/{key}/config",
            ),
            web.native_config,
            "native_config",
        ),
        Route(
            "GET",
            tuple(f"{p}{v}/{{key}}/audience" for v in ("/v1", "") for p in ("", "/nativeevents")),
            web.audiences,
            "audiences",
        ),
    ]
