"""HTTP around the engine: webhooks in, choices out, results as a page and as JSON."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hmac
import logging
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from litestar import Litestar, MediaType, Request, Response, asgi, get, post, route
from litestar.datastructures import State
from litestar.exceptions import HTTPException
from litestar.types import Receive, Scope, Send

from justai_sim import clock
from justai_sim.errors import DataError, JustaiError, UsageError, nearest
from justai_sim.esp import signatures
from justai_sim.service.engine import Engine
from justai_sim.service.page import results_page
from justai_sim.service.store import Decision, StoreError
from justai_sim.service.variants import Change, NotFoundError, states

MAX_WEBHOOK = 10_000_000
"""Bytes of a webhook body."""
MAX_REQUEST = 1_000_000
"""Bytes of any other body."""
ESPS = {
    "braze": "braze", "cio": "customerio", "itbl": "iterable", "segment": "segment", "sfmc": "sfmc",
    "events": "generic", "generic": "generic",
}  # fmt: skip
"""Names in the webhook's address, and the adapters that read them."""
HELD_UP = frozenset(("customerio", "iterable", "sfmc"))
"""Adapters whose providers send again what was refused, for up to a week and with everything behind it waiting: no use
for a body that will never be read. Braze sends the events of a refused batch one by one; Segment does not try again."""
Req = Request[Any, Any, State]
_log = logging.getLogger("justai_sim.service")


class HttpError(JustaiError):
    """An answer other than 2xx."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def create_app(engine: Engine, api_key: str = "", secrets: Mapping[str, Sequence[str]] | None = None) -> Litestar:
    """The service. With an `api_key` every address wants it: `X-Api-Key`, a Bearer token or a Basic password.

    `secrets`: one or two by adapter; webhooks of these providers must be signed with one, and need no key then.
    """
    signing = dict(secrets or {})
    for esp, live in signing.items():
        signatures.checked(esp, live)

    def allow(headers: dict[str, str]) -> None:
        if api_key and not any(hmac.compare_digest(k.encode(), api_key.encode()) for k in keys_of(headers)):
            raise HttpError(401, "no valid API key; expected it in X-Api-Key or as Authorization: Bearer KEY")

    async def answer(request: Req, work: Callable[[dict[str, Any]], Any]) -> Response[bytes]:
        allow(dict(request.headers))
        found = query_of(request.scope) | (object_of(await request.body()) if request.method == "POST" else {})
        # In a thread: a commit waits for the disk, and a refresh takes its time.
        return json_response(200, await asyncio.to_thread(work, found))

    @asgi("/api/webhook", is_mount=True, copy_scope=True)
    async def webhook(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            headers = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in scope["headers"]}
            esp, org = address_of(scope)
            if esp not in signing:
                allow(headers)
            body = await body_of(headers, receive)
            if esp == "sfmc" and (asked := signatures.callback(body)) is not None:
                _log.warning("sfmc: send %s to /platform/v1/ens-verify within 4 hours", asked)
                status, found = 200, {"verify": asked}
            else:
                if esp in signing:
                    signatures.verify(esp, headers, body, signing[esp], engine.clock())
                status, found = await take_webhook(engine, esp, org, body)
        except Exception as e:
            await error_response(e).to_asgi_response(None, Request(scope))(scope, receive, send)
            return
        await json_response(status, found).to_asgi_response(None, Request(scope))(scope, receive, send)

    @route("/api/generate/{org_slug:str}", http_method=["GET", "POST"], request_max_body_size=MAX_REQUEST)
    async def generate(request: Req) -> Response[bytes]:
        org = str(request.path_params["org_slug"])
        return await answer(request, lambda found: generated(engine, org, found))

    @get("/api/results")
    async def results(request: Req) -> Response[bytes]:
        return await answer(request, lambda q: engine.results(time_of(q), text_of(q, "org")))

    @post("/api/replay", request_max_body_size=MAX_REQUEST)
    async def replay(request: Req) -> Response[bytes]:
        return await answer(request, lambda found: replayed(engine, found))

    @route("/api/variants", http_method=["GET", "POST"], request_max_body_size=MAX_REQUEST)
    async def variants(request: Req) -> Response[bytes]:
        if request.method == "GET":
            return await answer(request, lambda _: {"variants": states(engine.program)})
        return await answer(request, lambda found: {"variants": states(engine.change(change_of(found)))})

    @get("/")
    async def page(request: Req) -> Response[str]:
        allow(dict(request.headers))
        q = query_of(request.scope)
        html = await asyncio.to_thread(page_of, engine, text_of(q, "org"), time_of(q))
        return Response(html, media_type=MediaType.HTML, headers=PAGE_HEADERS)

    def failed(_: Req, error: Exception) -> Response[bytes]:
        return error_response(error)

    return Litestar(
        [webhook, generate, results, replay, variants, page],
        exception_handlers={Exception: failed, HTTPException: failed},
        openapi_config=None,
        logging_config=None,
    )


PAGE_HEADERS = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'", "Cache-Control": "no-store"}


# -- webhooks --------------------------------------------------------------------------------------------


def address_of(scope: Any) -> tuple[str, str]:
    """(adapter, organisation) of a webhook's address."""
    parts = [p for p in scope["path"].removeprefix("/api/webhook").split("/") if p]
    if scope["type"] != "http" or len(parts) != 2:
        raise HttpError(404, "expected /api/webhook/{esp}/{org_slug}")
    if scope["method"] not in ("POST", "PUT", "PATCH"):  # Segment's webhooks may be set to any of them
        raise HttpError(405, f"found {scope['method']}, expected POST")
    esp, org = parts
    if esp not in ESPS:
        raise HttpError(404, f"esp {esp[:80]!r} is not known; {nearest(esp[:80], ESPS)}")
    return ESPS[esp], org


async def body_of(headers: dict[str, str], receive: Receive) -> bytes:
    """The bytes of a webhook as they were before the sender packed them."""
    packed = headers.get("content-encoding", "").lower() not in ("", "identity")
    if packed and headers["content-encoding"].lower() not in ("gzip", "x-gzip"):
        raise HttpError(415, "found another Content-Encoding; expected a body as it is, or gzip")
    length = headers.get("content-length", "")
    if length.isdecimal() and int(length) > MAX_WEBHOOK:
        raise HttpError(413, f"found {int(length):,} bytes, expected at most {MAX_WEBHOOK:,}")
    body = await read_body(receive)
    return unpacked(body) if packed else body


def unpacked(body: bytes) -> bytes:
    """What a gzip body holds, within the bound of any other."""
    stream = zlib.decompressobj(wbits=31)
    try:
        found = stream.decompress(body, MAX_WEBHOOK + 1)
    except zlib.error as e:
        raise HttpError(400, f"the body is not gzip, as its Content-Encoding says ({e})") from None
    if len(found) > MAX_WEBHOOK:
        raise HttpError(413, f"the body unpacks to more than {MAX_WEBHOOK:,} bytes")
    if not stream.eof or stream.unused_data:
        raise HttpError(400, "the gzip body is cut off, or followed by something; expected one whole member")
    return found


async def take_webhook(engine: Engine, esp: str, org: str, body: bytes) -> tuple[int, dict[str, Any]]:
    """Store and count one webhook body: (status, answer)."""
    if not body.strip():
        if esp == "braze":  # how Braze tries out its credentials
            return 200, {"accepted": 0, "rejected": 0, "skipped": 0}
        raise HttpError(400, "the body is empty; expected JSON")
    receipt = await asyncio.to_thread(engine.receive, esp, org, body)
    counts = {"accepted": receipt.accepted, "rejected": receipt.rejected, "skipped": receipt.skipped}
    if receipt.readable:
        return 200, counts
    # It is stored and counted among the rejects either way.
    status = 200 if esp in HELD_UP else 400
    return status, {"error": f"nothing could be read: {receipt.error}"} | counts


async def read_body(receive: Receive) -> bytes:
    chunks, size, more = [], 0, True
    while more:
        message: Any = await receive()
        if message["type"] == "http.disconnect":
            raise HttpError(400, "the connection ended within the body")
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > MAX_WEBHOOK:
            raise HttpError(413, f"found more than {MAX_WEBHOOK:,} bytes")
        chunks.append(chunk)
        more = message.get("more_body", False)
    return b"".join(chunks)


# -- requests --------------------------------------------------------------------------------------------


def keys_of(headers: dict[str, str]) -> list[str]:
    """API keys that a request offers. Basic is there for browsers, which can send nothing else."""
    keys = [headers["x-api-key"]] if "x-api-key" in headers else []
    scheme, _, rest = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        keys.append(rest.strip())
    if scheme.lower() == "basic":
        with contextlib.suppress(binascii.Error):
            keys += base64.b64decode(rest, validate=True).decode("latin-1").split(":", 1)
    return keys


def query_of(scope: Any) -> dict[str, Any]:
    """The query string; `attrs.industry=` fills `attrs`. Of repeated keys the last counts."""
    found: dict[str, Any] = {}
    for key, value in parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True):
        head, dot, tail = key.partition(".")
        if dot and head in ("attrs", "fields"):
            found.setdefault(head, {})[tail] = value
        else:
            found[key] = value
    return found


def object_of(body: bytes) -> dict[str, Any]:
    """A JSON object; an empty body is an empty one."""
    if not body.strip():
        return {}
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError) as e:
        raise UsageError(f"the body is not JSON ({e}); expected an object") from None
    except UnicodeDecodeError:
        raise UsageError("the body is not UTF-8; expected a JSON object") from None
    if not isinstance(found, dict):
        raise UsageError(f"found {_shown(found)}, expected a JSON object")
    return found


def text_of(found: dict[str, Any], field: str, like: tuple[str, ...] = ()) -> str:
    """A text field, '' if it is missing; whole numbers are taken as text. `like`: fields that it may be misspelt as."""
    value = found.get(field)
    if value is None and field not in found and like:
        close = [k for k in found if k not in like and nearest(k, [field]).startswith("did you mean")]
        if close:
            raise UsageError(f"{field} is missing; is {close[0]!r} meant for it?")
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise UsageError(f"{field}: found {_shown(value)}, expected text")
    return str(value)


def object_field(found: dict[str, Any], field: str) -> dict[str, Any]:
    value = found.get(field)
    if value is not None and not isinstance(value, dict):
        raise UsageError(f"{field}: found {_shown(value)}, expected an object")
    return value or {}


def time_of(found: dict[str, Any]) -> int | None:
    """`as_of`: ISO-8601 with an offset or microseconds; None if it is missing."""
    value = found.get("as_of")
    if value is None:
        return None
    try:
        if isinstance(value, str) and not value.strip().isdecimal():
            return clock.parse(value)
        if isinstance(value, str | int) and not isinstance(value, bool):
            return clock.checked(int(str(value)[:25]))
    except DataError:
        pass
    raise UsageError(
        f"as_of: found {_shown(value)}, expected ISO-8601 with an offset (2026-01-05T09:30:00Z) or microseconds"
    )


REQUEST_FIELDS = ("template_id", "user_id", "tracking_id", "fields", "attrs", "copy_id", "epsilon", "eligible")


def generated(engine: Engine, org: str, found: dict[str, Any]) -> dict[str, Any]:
    """The answer to a request for a choice."""
    ids = {f: text_of(found, f, REQUEST_FIELDS) for f in ("template_id", "user_id", "tracking_id", "copy_id")}
    decision: Decision = engine.generate(
        org, attrs=object_field(found, "attrs"), epsilon=share_of(found, "epsilon"),
        eligible=list_of(found, "eligible"), **ids,
    )  # fmt: skip
    return {
        "copy": {"id": decision.variant_id, "vars": {}},
        "tracking_id": decision.tracking_id,
        "template_id": decision.template_id,
        "decision_id": decision.decision_id,
        "decided_at": clock.iso(decision.decided_at),
        "propensity": decision.propensity,
        "mode": decision.mode,
    }


def list_of(found: dict[str, Any], field: str) -> list[str] | None:
    """A list of texts, or one text with commas (the GET form); None if it is missing."""
    value = found.get(field)
    if isinstance(value, str):
        return [v.strip() for v in value.split(",") if v.strip()]
    if value is not None and not (isinstance(value, list) and all(isinstance(v, str) for v in value)):
        raise UsageError(f"{field}: found {_shown(value)}, expected a list of texts")
    return value


def change_of(found: dict[str, Any]) -> Change:
    """What a request wants of a variant."""
    fields = Change.__struct_fields__
    for key in found:
        if key not in fields:
            raise UsageError(f"field {key[:80]!r} is not known; {nearest(key[:80], fields)}")
    ids: Any = {f: text_of(found, f) for f in ("action", "template_id", "variant_id")}
    numbers: Any = {f: share_of(found, f, "a number of at least 0") for f in ("sends", "outcomes")}
    return Change(themes=list_of(found, "themes") or [], **ids, **numbers)


def share_of(found: dict[str, Any], field: str, expected: str = "a number from 0 to 1") -> float:
    """A number, or a text of one (the GET form); 0 if it is missing."""
    value = found.get(field)
    try:
        if isinstance(value, bool):
            raise TypeError
        return 0.0 if value is None else float(value)
    except (TypeError, ValueError):
        raise UsageError(f"{field}: found {_shown(value)}, expected {expected}") from None


def replayed(engine: Engine, found: dict[str, Any]) -> dict[str, Any]:
    """The answer to a request for a replay."""
    fields = ("rule", "as_of", "goals", "org")
    for key in found:
        if key not in fields:
            raise UsageError(f"field {key[:80]!r} is not known; {nearest(key[:80], fields)}")
    goals = found.get("goals")
    if goals is not None and not (isinstance(goals, list) and all(isinstance(g, str) for g in goals)):
        raise UsageError(f"goals: found {_shown(goals)}, expected a list of names of conversion events")
    return engine.replay(object_field(found, "rule"), time_of(found), goals, text_of(found, "org"))


def page_of(engine: Engine, org: str, as_of: int | None) -> str:
    orgs = engine.store.orgs()
    chosen = org or (orgs[0] if orgs else "")
    return results_page(engine.results(as_of, chosen), orgs)


def _shown(value: Any) -> str:
    text = repr(value) if not isinstance(value, dict | list) else {dict: "an object", list: "a list"}[type(value)]
    return text if len(text) <= 80 else text[:77] + "..."


# -- answers ---------------------------------------------------------------------------------------------


def json_response(status: int, found: Any, headers: dict[str, str] | None = None) -> Response[bytes]:
    body = msgspec.json.encode(found, enc_hook=_plain)
    return Response(body, status_code=status, media_type=MediaType.JSON, headers=headers)


def _plain(value: Any) -> Any:
    """numpy's scalars as Python's."""
    return value.item()


def error_response(error: Exception) -> Response[bytes]:
    """{"error": ...} with a fitting status; what we did not foresee is logged, not shown."""
    status, message, headers = 500, "the service failed on this request; its log says why", None
    if isinstance(error, HttpError):
        status, message = error.status, str(error)
        headers = {"WWW-Authenticate": 'Basic realm="justai-sim"'} if status == 401 else None
    elif isinstance(error, signatures.SignatureError):
        status, message = 401, str(error)
    elif isinstance(error, NotFoundError):
        status, message = 404, str(error)
    elif isinstance(error, StoreError):
        status, message = 503, str(error)
    elif isinstance(error, UsageError | DataError):
        status, message = 400, str(error)
    elif isinstance(error, HTTPException) and error.status_code < 500:
        status, message = error.status_code, error.detail or type(error).__name__
    else:
        _log.error("request failed", exc_info=error)
    return json_response(status, {"error": message}, headers)
