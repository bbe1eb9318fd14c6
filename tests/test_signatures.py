"""Signatures: published vectors, every byte counts, rotation, and what is refused."""

from __future__ import annotations

import base64
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from justai_sim.clock import SECOND
from justai_sim.errors import UsageError
from justai_sim.esp import signatures as sg
from justai_sim.esp.base import PROVIDERS

CIO_KEY, CIO_AT = "cio-test-signing-key-0001", 1613063089
CIO_BODY = (
    b'{"event_id":"01E4C4CT6YDC7Y5M7FE1GWWPQJ","metric":"opened","object_type":"email","timestamp":1613063088,'
    b'"data":{"delivery_id":"RPILAgABcRhIBqSp7kiPekGBIeVh"}}'
)
CIO_HEADERS = {
    "x-cio-timestamp": str(CIO_AT),
    "x-cio-signature": "8378eaa37938097fdefc43ee03d8150d76e6cd83b87e3be00a0efe3a9e76e464",
}
SFMC_KEY = "V27FXfqI3DnhfQW1bhFDeJixpt8eDAY5R24UJI3cK6M="
SFMC_BODY = (
    b'[{"eventCategoryType":"EngagementEvents.EmailOpen","timestampUTC":1600722902000,"mid":1447640,"eid":1447640,'
    b'"composite":{"jobId":"2001071","batchId":"4119","listId":"44609","subscriberId":"135804581"},"info":{}}]'
)
ITERABLE = "J1qK1c18UUGJFAzz9xnH56584l4"
BATCH = b'[{"cool":false},{"cool":true}]'

VECTORS = [
    ("customerio", CIO_HEADERS, CIO_BODY, CIO_KEY),
    ("sfmc", {"x-sfmc-ens-signature": "tuoZaz3bVg7z7w3PPVrbB917hAQH+0Rf3/tz4OepF4E="}, SFMC_BODY, SFMC_KEY),
    ("sfmc", {"x-sfmc-ens-signature": "L2JZa748iY6Wprr/Auc9cF6MUOxIRyedunfqEfAfCcw="}, SFMC_BODY, SFMC_KEY),
    (
        "sfmc",
        {"x-sfmc-ens-signature": "CZXJQ6IjxUUJdlPPghLuXtklikGNnJfj1JRzDOq+g+s="},
        b'[{"eventCategoryType":"TransactionalSendEvents.SmsDelivered"}]',
        SFMC_KEY,
    ),
    ("segment", {"x-signature": "5099cab379b3be52908387457007040cc934ef86"}, b'{"cool":true}', "abc123"),
    ("segment", {"x-signature": "c702b94a2569dd8d2f7185ce0ae951021bef4706"}, BATCH, "abc123"),
    ("segment", {"x-segment-signature": "685cf04ec172d3adcac0b8f25c923bb4d56ed1eb"}, BATCH, "abc123"),
    ("iterable", {"authorization": ITERABLE}, b"{}", ITERABLE),
    ("iterable", {"authorization": f"Basic {ITERABLE}"}, b"{}", ITERABLE),
    ("iterable", {"authorization": f"OAuth2 {ITERABLE}"}, b"{}", ITERABLE),
    ("braze", {"authorization": "Bearer tok.en-1_~"}, b"", "tok.en-1_~"),
]
NOW = CIO_AT * SECOND


@pytest.mark.parametrize(("esp", "headers", "body", "secret"), VECTORS)
def test_published_vectors(esp: str, headers: dict[str, str], body: bytes, secret: str) -> None:
    sg.verify(esp, headers, body, [secret], NOW)
    sg.verify(esp, headers, body, ["another", secret], NOW)  # while one secret follows the other
    with pytest.raises(sg.SignatureError, match="does not match"):
        sg.verify(esp, headers, body, ["another"], NOW)
    with pytest.raises(sg.SignatureError, match="found nothing"):
        sg.verify(esp, {}, body, [secret], NOW)


@pytest.mark.parametrize(("esp", "headers", "body", "secret"), [v for v in VECTORS if v[0] in ("customerio", "sfmc")])
def test_every_byte_is_signed(esp: str, headers: dict[str, str], body: bytes, secret: str) -> None:
    for other in (body + b"\n", body.replace(b":", b": ", 1), body[:-1], b""):
        with pytest.raises(sg.SignatureError):
            sg.verify(esp, headers, other, [secret], NOW)


def test_a_segment_batch_is_signed_in_its_first_element_only() -> None:
    headers = {"x-signature": hmac.new(b"k", b'{"a": 1.0}', "sha1").hexdigest()}
    sg.verify("segment", headers, b' [ {"a": 1.0} , {"forged": true}]', ["k"], 0)  # that is what COVERS warns of
    assert "first element only" in sg.COVERS["segment"]
    for other in (b'[{"a":1.0}]', b'[{"a": 1}]', b"[]", b'[{"a": 1.0}', b"[" * 100_000):
        with pytest.raises(sg.SignatureError):
            sg.verify("segment", headers, other, ["k"], 0)


def test_the_signed_time_may_be_five_minutes_off() -> None:
    for off in (-300, 300):
        sg.verify("customerio", CIO_HEADERS, CIO_BODY, [CIO_KEY], NOW + off * SECOND)
        with pytest.raises(sg.SignatureError, match="300 s from now"):
            sg.verify("customerio", CIO_HEADERS, CIO_BODY, [CIO_KEY], NOW + off * SECOND + (1 if off > 0 else -1))
    with pytest.raises(sg.SignatureError, match="Unix seconds"):
        sg.verify("customerio", CIO_HEADERS | {"x-cio-timestamp": "9" * 40}, CIO_BODY, [CIO_KEY], NOW)


@pytest.mark.parametrize("secrets", [[], ["a", "b", "c"], [""], ["a", ""]])
def test_one_or_two_secrets(secrets: list[str]) -> None:
    with pytest.raises(UsageError, match="one or two"):
        sg.verify("braze", {"authorization": "Bearer "}, b"", secrets, 0)


def test_every_provider_says_what_it_proves() -> None:
    names = {p.split("-")[0] for p in PROVIDERS} - {"generic"}
    assert names <= set(sg.COVERS)
    with pytest.raises(UsageError, match="did you mean 'segment'"):
        sg.verify("segmnt", {}, b"", ["a"], 0)


def test_the_callback_of_marketing_cloud() -> None:
    body = b'{"callbackId": "c-1", "verificationKey": "k-1"}'
    assert sg.callback(body) == {"callbackId": "c-1", "verificationKey": "k-1"}
    for other in (b'{"callbackId": "c"}', b'{"callbackId":"c","verificationKey":"k","info":{}}', b"[]", b"", b"\xff"):
        assert sg.callback(other) is None


@given(
    st.sampled_from(sorted(sg.COVERS)), st.binary(max_size=60), st.text(max_size=40),
    st.sampled_from(["authorization", "x-signature", "x-segment-signature", "x-cio-signature", "x-sfmc-ens-signature"]),
)  # fmt: skip
def test_nothing_but_the_secret_opens(esp: str, body: bytes, value: str, header: str) -> None:
    secret = base64.b64encode(b"a key that no example holds 12345").decode()
    with pytest.raises(sg.SignatureError):
        sg.verify(esp, {header: value, "x-cio-timestamp": "1"}, body, [secret], SECOND)
