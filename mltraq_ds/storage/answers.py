"""What services answer when they refuse, in our words, and whether asking again can help."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator

__all__ = ["code_of", "is_absence", "is_refused", "is_taken", "is_transient", "refusal_of", "status_of"]

_TRANSIENT_STATUS = frozenset([408, 425, 429, 500, 502, 503, 504])
_TRANSIENT_CODES = frozenset(
    [
        "ConditionalRequestConflict",
        "InternalError",
        "OperationAborted",
        "OperationTimedOut",
        "RequestTimeout",
        "ServerBusy",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
    ]
)
_TRANSIENT_ERRNO = frozenset(
    getattr(errno, name)
    for name in [
        "EAGAIN",
        "ECONNABORTED",
        "ECONNREFUSED",
        "ECONNRESET",
        "EHOSTUNREACH",
        "ENETUNREACH",
        "EPIPE",
        "ETIMEDOUT",
    ]
)
# By name, since none of their packages (aiohttp, botocore, azure, paramiko) need be installed.
_TRANSIENT_CLASSES = frozenset(
    [
        "ChunkedEncodingError",
        "ClientConnectionError",
        "ClientPayloadError",
        "ServerDisconnectedError",
        "ServerTimeoutError",
        "ConnectTimeoutError",
        "ConnectionClosedError",
        "ConnectionError",
        "EndpointConnectionError",
        "HTTPClientError",
        "IncompleteReadError",
        "ReadTimeoutError",
        "ResponseParserError",
        "ResponseStreamingError",
        "IncompleteRead",
        "ServiceRequestError",
        "ServiceResponseError",
        "EOFError",
        "NoValidConnectionsError",
        "SSHException",
        "TransportError",
    ]
)
# They are kinds of the above that stay the same however often one asks.
_FINAL_CLASSES = frozenset(
    [
        "ClientConnectorCertificateError",
        "ClientConnectorDNSError",
        "ClientConnectorSSLError",
        "ProxyConnectionError",
        "SSLError",
        "AuthenticationException",
        "BadHostKeyException",
        "PasswordRequiredException",
        "gaierror",
    ]
)
_TAKEN_CODES = frozenset(["BlobAlreadyExists", "ConditionNotMet", "PreconditionFailed"])

_CREDENTIALS = "Look at the credentials: options, environment, profile or the provider's own configuration."
_PERMISSION = "Ask whoever owns it for the permission, or use other credentials."
_BUSY = ("the service is busy and asks us to slow down", "Try again later, or with fewer workers at a time.")
#: Code or name of a class: reason and remedy.
_REFUSALS: dict[str, tuple[str, str]] = {
    "AccessDenied": ("these credentials are not permitted to do that", _PERMISSION),
    "AccountProblem": ("there is a problem with the account", "Ask the provider."),
    "AuthenticationException": ("the server does not accept these credentials", _CREDENTIALS),
    "AuthenticationFailed": ("the credentials are wrong", _CREDENTIALS),
    "AuthorizationFailure": ("these credentials are not permitted to do that", _PERMISSION),
    "AuthorizationPermissionMismatch": ("these credentials are not permitted to do that", _PERMISSION),
    "BadHostKeyException": ("the server has another host key than before", "Find out why before you connect."),
    "ContainerNotFound": ("there is no such container", "Make it, or correct 'datastore.url'."),
    "ExpiredToken": ("the credentials have expired", "Renew them."),
    "InvalidAccessKeyId": ("the service does not know this access key", _CREDENTIALS),
    "InvalidBucketName": ("that is no name of a bucket", "Correct 'datastore.url'."),
    "InvalidToken": ("the credentials are wrong", _CREDENTIALS),
    "NoCredentialsError": ("no credentials were found", _CREDENTIALS),
    "NoSuchBucket": ("there is no such bucket", "Make it, or correct 'datastore.url'."),
    "PartialCredentialsError": ("the credentials are incomplete", _CREDENTIALS),
    "ProfileNotFound": ("there is no such profile", "Correct 'profile' in the options, or AWS_PROFILE."),
    "RequestTimeTooSkewed": (
        "the clock of this machine differs too much from that of the service",
        "Set the clock (NTP).",
    ),
    "ServerBusy": _BUSY,
    "ServiceUnavailable": _BUSY,
    "SignatureDoesNotMatch": ("the secret key is wrong", _CREDENTIALS),
    "SlowDown": _BUSY,
    "Throttling": _BUSY,
    "ThrottlingException": _BUSY,
    "TokenRefreshRequired": ("the credentials have expired", "Renew them."),
}
_BY_STATUS: dict[int, tuple[str, str]] = {
    401: ("the service does not accept these credentials", _CREDENTIALS),
    403: ("the service refuses these credentials", f"They may be wrong or not permitted to do that. {_CREDENTIALS}"),
    405: ("the service does not offer that", "It may be read-only; use another 'datastore.url'."),
    429: _BUSY,
    501: ("the service does not offer that", "Use another service or 'datastore.url'."),
    503: _BUSY,
}


#: How Python refuses what a client's function does not take.
_UNKNOWN_OPTION = re.compile(r"unexpected keyword argument '(\w+)'")


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what caused it: clients wrap what the service has said."""
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        yield found
        found = found.__cause__


def _names(error: BaseException) -> set[str]:
    return {kind.__name__ for kind in type(error).__mro__}


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status that an error tells of."""
    for found in _chain(error):
        response = getattr(found, "response", None)
        if isinstance(response, dict):
            candidates = [response.get("ResponseMetadata", {}).get("HTTPStatusCode")]
        else:
            name = next((name for name in ("status_code", "status", "code") if hasattr(found, name)), "")
            candidates = [getattr(found, name, None)]
        for status in candidates:
            if isinstance(found, OSError) and str(found).startswith("Forbidden: "):
                status = 403  # as gcsfs tells it
            if str(status).isdigit() and 100 <= int(str(status)) < 600:
                return int(str(status))
    return None


def code_of(error: BaseException) -> str:
    """Return the word that the service has for its refusal, or ``""``."""
    for found in _chain(error):
        response = getattr(found, "response", None)
        if isinstance(response, dict):
            code = response.get("Error", {}).get("Code")
        else:
            code = getattr(found, "error_code", None)
        if code:
            return str(getattr(code, "value", code))
    return ""


def is_transient(error: BaseException) -> bool:
    """Tell whether the same request may succeed later: throttling, time-outs, resets, 5xx; never 403 or 404."""
    code = code_of(error)
    if code in _TRANSIENT_CODES:
        return True
    found = list(_chain(error))
    if any(_names(one) & _FINAL_CLASSES for one in found):
        return False
    # Before the status: that of an answer that broke off, as a client names it, is none of the service's.
    if any(_breaks_off(one) for one in found):
        return True
    return status_of(error) in _TRANSIENT_STATUS


def _breaks_off(error: BaseException) -> bool:
    if _names(error) & _TRANSIENT_CLASSES or isinstance(error, TimeoutError | ConnectionError):
        return True
    return isinstance(error, OSError) and error.errno in _TRANSIENT_ERRNO


def is_taken(error: BaseException) -> bool:
    """Tell whether a service says that a key, which should be new, exists; each says it in its own way."""
    return isinstance(error, FileExistsError) or status_of(error) == 412 or code_of(error) in _TAKEN_CODES


def is_refused(error: BaseException) -> bool:
    """Tell whether a service says that these credentials, or anybody, may not do that."""
    return isinstance(error, PermissionError) or status_of(error) in (401, 403, 405, 501)


def is_absence(error: BaseException) -> bool:
    """Tell whether a service says that there is no such key; a missing bucket is another matter."""
    if code_of(error) in _REFUSALS:
        return False
    return isinstance(error, FileNotFoundError) or status_of(error) == 404


def refusal_of(error: BaseException) -> tuple[str, str] | None:
    """Return reason and remedy of a refusal that we have words for."""
    code = code_of(error)
    if code in _REFUSALS:
        return _REFUSALS[code]
    for found in _chain(error):
        for name in _names(found):
            if name in _REFUSALS:
                return _REFUSALS[name]
    unknown = _UNKNOWN_OPTION.search(str(error)) if isinstance(error, TypeError) else None
    if unknown is not None:
        return f"there is no storage option {unknown[1]!r}", "Correct 'datastore.storage_options'."
    return _BY_STATUS.get(status_of(error) or 0)
