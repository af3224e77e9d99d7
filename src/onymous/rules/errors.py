"""One class per refusal: the docstring is the message; code and status are the wire's.

Messages never hold identity values, keys or secrets; `{name}` is filled from the arguments.
"""

from __future__ import annotations

from typing import ClassVar


class Refusal(Exception):
    """The request was refused."""

    code: ClassVar[str] = "VALIDATION_ERROR"
    status: ClassVar[int] = 400
    #: what to do about it
    hint: ClassVar[str] = "See the reference of this request."

    def __init__(self, **detail: object) -> None:
        self.detail = detail
        text = " ".join(str(type(self).__doc__).split())
        for name, value in detail.items():
            text = text.replace("{" + name + "}", clip(value))
        self.message = text
        super().__init__(text)


def clip(value: object, most: int = 80) -> str:
    """Return a value as one line of printable ASCII of bounded length, for messages."""
    text = str(value)
    text = text if len(text) <= most else text[:most] + "..."
    if not text.isprintable():  # line breaks and escapes could forge lines of a log or terminal
        text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return text.encode("ascii", "backslashreplace").decode("ascii")


class UnknownIdentityType(Refusal):
    """{type} is not an identity type of the Identity API."""

    hint = "Use the spellings of the reference, such as customerid, email or other2."


class IdentityValueNotString(Refusal):
    """The value of {type} is not a string."""

    hint = "Send identity values as JSON strings, or null for none."


class IdentityValueInvalid(Refusal):
    """The value of {type} is not valid text."""

    hint = "NUL characters and lone surrogates cannot be part of an identity."


class LookupRefusal(Refusal):
    """No profile can be looked up with this request."""

    code = "LOOKUP_ERROR"
    hint = "Send at least one usable identity."


class NoIdentities(LookupRefusal):
    """knownIdentities is empty."""

    hint = "Send at least one identity that is not null, empty or a placeholder."


class NothingToAttach(LookupRefusal):
    """None of the identities can be attached to a new profile: other profiles own them."""

    hint = "Add an identity of this person, such as a login id or a device id."


class LoginNeedsLoginId(LookupRefusal):
    """The login names no login id."""

    hint = "Send one of the login types of this scope, or call identify."


class UnknownMpid(LookupRefusal):
    """The MPID is not known here."""

    hint = "Use an MPID of the same scope and environment that was not erased."


class NotFound(Refusal):
    """No profile was found."""

    code, status = "NOT_FOUND_ERROR", 404
    hint = "Nothing was created. A protected search is no evidence that someone does not exist."


class NoSuchThing(NotFound):
    """There is no {what}."""

    hint = "List what there is; an entry of a history is named by its number."


class ImmutableChange(Refusal):
    """{type} is immutable: once set it cannot change, be removed or move."""

    hint = "Nothing of this request was applied. Leave the immutable identity out."


class OldValueMismatch(Refusal):
    """{type} can only be replaced by a request that names its present value as old_value."""

    hint = "Send the present value as old_value, or use a credential with a secret."


class ValueHeldByAnother(Refusal):
    """{type}: another profile owns this value, and a public key cannot take it."""

    hint = "Move it with a server-side credential."


class EnvironmentMissing(Refusal):
    """environment is missing or unknown."""

    hint = 'Send "environment": "production" or "development".'


class TooManyIdentities(Refusal):
    """More than {most} identities in one request."""

    hint = "Send the identities of one person only."


class BadRequest(Refusal):
    """The request is not valid: {what}."""

    code = "BAD_REQUEST"
    hint = "See the reference of this request."


class BadJson(Refusal):
    """The body is not the expected JSON: {what}."""

    code = "BAD_REQUEST"
    hint = "Send JSON of the shape the reference describes."


class BodyTooLarge(Refusal):
    """The body is larger than {most} bytes."""

    code, status = "BAD_REQUEST", 413
    hint = "Send less at once."


class HeadTooLarge(Refusal):
    """The address and headers are larger than {most} bytes."""

    code, status = "BAD_REQUEST", 431
    hint = "Send fewer or shorter headers; identities and events belong in the body."


class RequestTooSlow(Refusal):
    """The request did not arrive in time."""

    code, status = "BAD_REQUEST", 408
    hint = "Send it again; head_timeout_s and body_timeout_s say how long one may take."


class BadHttp(Refusal):
    """This is not a valid HTTP request."""

    code, status = "BAD_REQUEST", 400
    hint = "Send HTTP/1.1; for https serve with --tls-cert, or with --tls-dev while developing."


class NoSuchPath(Refusal):
    """There is nothing at this path."""

    code, status = "NOT_FOUND_ERROR", 404
    hint = "See /openapi.json for the paths served here."


class MethodNotAllowed(Refusal):
    """This path is served with {allowed}."""

    code, status = "BAD_REQUEST", 405
    hint = "Use another method."


class Unauthorized(Refusal):
    """The credentials are missing or not accepted."""

    code, status = "BAD_REQUEST", 401
    hint = "Send key and secret, a fresh signature, or the key of an input that allows it."


class WrongSecret(Refusal):
    """The key or the secret is not accepted."""

    code, status = "BAD_REQUEST", 403
    hint = "Send the key and a live secret of an active input, or a fresh signature."


class Forbidden(Refusal):
    """This credential may not do that: {permission}."""

    code, status = "BAD_REQUEST", 403
    hint = "Use a server-side credential that holds the permission."


class AliasNotAvailable(Refusal):
    """Aliasing is not available in this scope's strategy."""

    code, status = "ALIAS_ERROR", 403
    hint = "Aliases exist in the default, conversion and link strategies."


class AliasInvalid(Refusal):
    """The alias names no two different, known profiles, or its window or scope is not valid."""

    code = "ALIAS_ERROR"
    hint = (
        "Send two different MPIDs of this scope, a start that is not after the end, and as scope"
        " mpid, or device with its device_application_stamp."
    )


class InvalidData(Refusal):
    """The payload was malformed JSON or had missing fields: {what}."""

    code = "INVALID_DATA"
    hint = "See the reference of this request."


class BatchTooLarge(Refusal):
    """A batch is larger than {most} bytes."""

    code = "BAD_REQUEST"
    hint = "Send fewer events in a batch."


class MissingEventField(Refusal):
    """Required event field "{field}" is missing or empty."""

    code = "BAD_REQUEST"
    hint = "Each event needs event_type; see the reference of batches."


class RequestIdReused(Refusal):
    """This request_id was used before with another body."""

    status = 409
    hint = "Use a new request_id for a new request."


class RateLimited(Refusal):
    """Too many requests ({exceeded}); try again in {retry_after_s} seconds."""

    code, status = "BAD_REQUEST", 429
    hint = "Wait for Retry-After seconds."


class NotRemembered(Refusal):
    """The person is erased, but this could not be noted outside the database yet."""

    code, status = "INTERNAL_ERROR", 503
    hint = "Make the backup folder writable (onymous doctor), then send the request again."


class Busy(Refusal):
    """Too many requests are waiting; try again."""

    code, status = "INTERNAL_ERROR", 503
    hint = "Nothing was written. Try again after Retry-After seconds."


class Internal(Refusal):
    """An unknown error was encountered."""

    code, status = "INTERNAL_ERROR", 500
    hint = "Nothing was written. Try again; the server's log says more."


class ConfigInvalid(Refusal):
    """The configuration has {count} problems."""

    hint = "Each problem names the field, why it is wrong and what to write instead."


class ConfigChanged(Refusal):
    """The configuration has changed meanwhile: version {now} is in force."""

    status = 412
    hint = "Read it again, look at what changed, and send your change for that version."


class NoSuchVersion(Refusal):
    """The configuration has no version {version}."""

    status = 404
    hint = "List the versions there are with `onymous config log`."


class VersionNeeded(Refusal):
    """A change of the configuration must name the version it was made for."""

    status = 428
    hint = "Send If-Match with the ETag of the configuration you read, or * for any version."


class ScopeChanging(Refusal):
    """The people of this workspace are on their way to another scope."""

    code, status = "INTERNAL_ERROR", 503
    hint = "Send the request again; this takes seconds to minutes."


class ScopeChangeRefused(Refusal):
    """The scopes cannot be changed like this: {what}."""

    status = 409
    hint = "Nothing was changed. See docs/use/scopes.md."


class NoSuchScope(Refusal):
    """There is no such identity scope."""

    status = 404
    hint = "List the scopes there are; a scope is named by its number."


class MergeInvalid(Refusal):
    """These profiles cannot be merged: {what}."""

    code = "INVALID_DATA"
    hint = "See the history of both profiles."


class DependsOn(Refusal):
    """This cannot be undone: {what} stands on it."""

    code = "VALIDATION_ERROR"
    status = 409
    hint = "Undo the later change first."


class MappingInvalid(Refusal):
    """The columns cannot be understood: {what}."""

    code = "INVALID_DATA"
    hint = "Say what a column means with --map HEADER=TYPE, HEADER=@attribute or HEADER=-."


class ChangesForgotten(Refusal):
    """The changes after this cursor are not kept any more."""

    code = "VALIDATION_ERROR"
    status = 410
    hint = "Read the present state, then follow from a call without `after`."


class CannotUndo(Refusal):
    """This entry cannot be undone: {what}."""

    code = "VALIDATION_ERROR"
    status = 409
    hint = "See the history of the profile; later changes may have to be undone first."


class CannotAccept(Refusal):
    """This cannot be accepted: {what}."""

    code = "VALIDATION_ERROR"
    status = 409
    hint = "Look at the entry and the profile again; refuse it, or use modify or merge."


class BeingDecided(Refusal):
    """Somebody else decides this entry, or has decided it."""

    code = "VALIDATION_ERROR"
    status = 409
    hint = "List the review again in a moment."


class SeveralRequests(Refusal):
    """Several requests have this id, from {what}: say whose is meant."""

    code = "VALIDATION_ERROR"
    status = 409
    hint = "Name one by `input` (workspace/input) or `workspace`."


class NotExplained(Refusal):
    """Nothing is known of this request id here."""

    code = "NOT_FOUND_ERROR"
    status = 404
    hint = (
        "Requests are remembered as the settings explain_requests and journal_days say, seconds"
        " after they came; a person's history tells what changed: GET /v1/{mpid}/history."
    )
