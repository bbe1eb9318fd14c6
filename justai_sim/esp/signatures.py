"""Who sent a webhook: each provider's signature or token, checked on the raw bytes and in constant time.

`verify(esp, headers, body, secrets, now)` takes one or two live secrets, so that one can be changed without a gap.
What a scheme proves differs, and `COVERS` says it: a static token proves nothing about the body, and a Segment
signature over a batch covers its first element only.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Callable, Mapping, Sequence

import msgspec

from justai_sim.clock import SECOND
from justai_sim.errors import UsageError, nearest

MOST_SECRETS = 2
TOLERANCE = 300 * SECOND
"""How far a signed sending time may lie from ours, microseconds. Customer.io alone signs one."""

COVERS = {
    "braze": "a static bearer token: nothing of the body, no protection against replay",
    "customerio": "the whole body and the time at which it was sent",
    "iterable": "a static token: nothing of the body, no protection against replay",
    "segment": "the whole body of a single event; of a batch the first element only, the rest could be anybody's "
    "(X-Segment-Signature, where it is sent, covers all of it); no protection against replay",
    "sfmc": "the whole body; no protection against replay; the call that verifies a callback is not signed",
}
"""What a valid signature proves, by provider."""


class SignatureError(UsageError):
    """The webhook is not proved to come from the provider."""


def verify(
    esp: str, headers: Mapping[str, str], body: bytes, secrets: Sequence[str], now: int, tolerance: int = TOLERANCE
) -> None:
    """Nothing if a webhook is signed with one of the secrets. SignatureError says what is wrong otherwise.

    headers: names in lower case. body: the bytes as received, never decoded and encoded again. now, tolerance:
    microseconds.

    >>> verify("braze", {"authorization": "Bearer new"}, b"", ["new", "old"], 0)
    >>> verify("braze", {}, b"", ["new"], 0)
    Traceback (most recent call last):
    justai_sim.esp.signatures.SignatureError: Authorization: found nothing, expected 'Bearer TOKEN'
    """
    if esp not in _SCHEMES:
        raise UsageError(f"no signature is known of {esp!r}; {nearest(esp, _SCHEMES)}")
    checked(esp, secrets)
    _SCHEMES[esp](headers, body, [s.encode() for s in secrets], now, tolerance)


def checked(esp: str, secrets: Sequence[str]) -> None:
    """UsageError unless there are one or two secrets that are not empty."""
    if not 1 <= len(secrets) <= MOST_SECRETS or not all(secrets):
        raise UsageError(f"secrets of {esp}: found {len(secrets)}, expected one or two that are not empty")


def callback(body: bytes) -> dict[str, str] | None:
    """What Marketing Cloud sends, unsigned, to verify a callback; None for any other body.

    Answer it with 200, and send the same object to /platform/v1/ens-verify within four hours.
    """
    try:
        found = msgspec.json.decode(body, type=_Callback)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return {"callbackId": found.callbackId, "verificationKey": found.verificationKey}


class _Callback(msgspec.Struct, forbid_unknown_fields=True):
    callbackId: str  # noqa: N815
    verificationKey: str  # noqa: N815


# -- schemes ------------------------------------------------------------------------------------------


def _match(header: str, found: bytes, expected: Sequence[bytes]) -> None:
    """All are compared, so that the time taken says nothing of which one it was."""
    same = [hmac.compare_digest(found, e) for e in expected]
    if not any(same):
        raise SignatureError(f"{header}: does not match any live secret")


def _header(headers: Mapping[str, str], name: str, expected: str) -> str:
    value = headers.get(name.lower(), "").strip()
    if not value:
        raise SignatureError(f"{name}: found nothing, expected {expected}")
    return value


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _braze(headers: Mapping[str, str], _body: bytes, secrets: list[bytes], _now: int, _tolerance: int) -> None:
    scheme, _, token = _header(headers, "Authorization", "'Bearer TOKEN'").partition(" ")
    if scheme.lower() != "bearer":
        raise SignatureError("Authorization: found another scheme, expected 'Bearer TOKEN'")
    _match("Authorization", _bytes(token.strip()), secrets)


def _iterable(headers: Mapping[str, str], _body: bytes, secrets: list[bytes], _now: int, _tolerance: int) -> None:
    """The token as typed; with 'OAuth2' or, as some receivers see it, 'Basic' before it."""
    value = _header(headers, "Authorization", "the token of the webhook's settings")
    scheme, _, rest = value.partition(" ")
    token = rest.strip() if scheme.lower() in ("basic", "oauth2") and rest else value
    _match("Authorization", _bytes(token), secrets)


def _customerio(headers: Mapping[str, str], body: bytes, secrets: list[bytes], now: int, tolerance: int) -> None:
    sent = _header(headers, "X-CIO-Timestamp", "Unix seconds")
    signature = _header(headers, "X-CIO-Signature", "64 hex digits")
    if not (sent.isascii() and sent.isdecimal() and len(sent) <= 12):
        raise SignatureError("X-CIO-Timestamp: expected Unix seconds")
    signed = b"v0:" + sent.encode() + b":" + body
    _match("X-CIO-Signature", _bytes(signature), [_hex(s, signed, "sha256") for s in secrets])
    if abs(now - int(sent) * SECOND) > tolerance:
        raise SignatureError(f"X-CIO-Timestamp: more than {tolerance // SECOND} s from now, a replay or a wrong clock")


def _segment(headers: Mapping[str, str], body: bytes, secrets: list[bytes], _now: int, _tolerance: int) -> None:
    if headers.get("x-segment-signature"):
        signature = _header(headers, "X-Segment-Signature", "40 hex digits")
        _match("X-Segment-Signature", _bytes(signature), [_hex(s, body, "sha1") for s in secrets])
        return
    signature = _header(headers, "X-Signature", "40 hex digits")
    signed = _first(body) if body.lstrip()[:1] == b"[" else body
    _match("X-Signature", _bytes(signature), [_hex(s, signed, "sha1") for s in secrets])


def _first(body: bytes) -> bytes:
    """The exact bytes of the first element of a JSON array."""
    try:
        elements = msgspec.json.decode(body, type=list[msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise SignatureError("X-Signature: the body is no JSON array, so its first element cannot be checked") from None
    return bytes(elements[0]) if elements else b""


def _sfmc(headers: Mapping[str, str], body: bytes, secrets: list[bytes], _now: int, _tolerance: int) -> None:
    """The key is used as text by most receivers and base64-decoded by some: either is taken."""
    signature = _header(headers, "X-SFMC-ENS-Signature", "the base64 of 32 bytes")
    keys = list(secrets)
    for s in secrets:
        try:
            keys.append(base64.b64decode(s, validate=True))
        except binascii.Error:
            continue
    expected = [base64.b64encode(hmac.digest(k, body, "sha256")) for k in keys if k]
    _match("X-SFMC-ENS-Signature", _bytes(signature), expected)


def _hex(secret: bytes, signed: bytes, algorithm: str) -> bytes:
    return hmac.digest(secret, signed, algorithm).hex().encode()


_Scheme = Callable[[Mapping[str, str], bytes, list[bytes], int, int], None]
_SCHEMES: dict[str, _Scheme] = {
    "braze": _braze, "customerio": _customerio, "iterable": _iterable, "segment": _segment, "sfmc": _sfmc,
}  # fmt: skip
