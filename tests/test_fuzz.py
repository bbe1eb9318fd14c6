"""Fuzzing of the readers: half a minute in all with each run, ten minutes a provider with `make test-slow`.

`make fuzz PROVIDER=braze SECONDS=600` does one. What it found is below, and in the tests of the provider.
"""

from __future__ import annotations

import random
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from justai_sim.clock import MISSING
from justai_sim.esp import braze, braze_lane
from justai_sim.esp.base import adapter
from justai_sim.esp.jsonbytes import ElementError
from justai_sim.esp.rows import Rows
from tests.esp_rows import read_all
from tests.fuzzing import FORMATS, PROVIDERS, RECEIVED, mutated, one_input, seeds

HARNESS = Path(__file__).with_name("fuzzing.py")
FOUND: list[tuple[str, bytes]] = [
    ("generic", b'\x00"\xff\xff"'),  # a text that is no UTF-8
    ("generic", b'\x00{"table":{"a":1}}'),  # a table that is no text
    ("generic", b'\x00{"table":["events"]}'),
    ("sfmc", b'\x01{"table":[],"event_id":"e"}'),
    ("generic", b'\x00{"event_id":"e","user_id":"u","kind":["open"],"occurred_at":1772668800000000}'),
    # a number that is too large for a decimal
    ("generic", b'\x00{"event_id":"e","value":1e99999999999999999999}'),
    ("generic", b'\x02{"event_id":"e","user_id":"u","value":1e99999999999999999999}'),
    # an event without id of a user that is no UTF-8
    ("generic", b"\x01event_id,user_id,kind,occurred_at\n,\xff,open,1772500000000000\n"),
    # a file in an archive without a name
    ("sfmc", b"\x05PK\x01\x02\x14\x03" + bytes(2 + 38) + b"PK\x05\x06" + bytes(4) + b"\x01\0\x01\0.\0\0\0" + bytes(6)),
    # times that are numbers beyond any
    ("customerio", b'\x03{"delivery_id":"d1","created_at":1e300,"seq_num":1}'),
    ("customerio", b'\x05{"output_id":"o","subject_name":"s","split_test_index":1,"created_at":1e300}'),
    (
        "customerio",
        b'\x06{"internal_customer_id":"c","customer_id":"u","updated_at":"never"}\n'
        b'{"internal_customer_id":"c","customer_id":"u","updated_at":1.5}',
    ),
]
"""Inputs on which something else than a typed error came out."""
ELEMENTS = {"generic": "_elements", "customerio": "_lines"}
"""What takes a body apart, where it is not `elements`."""


def fuzz(provider: str, seconds: int) -> None:
    run = subprocess.run(
        [sys.executable, str(HARNESS), provider, str(seconds)], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr[-4000:]


needs_atheris = pytest.mark.skipif(find_spec("atheris") is None, reason="atheris has no build for this system")


@needs_atheris
@pytest.mark.parametrize("provider", PROVIDERS)
def test_half_a_minute_in_all(provider: str) -> None:
    fuzz(provider, 30 // len(PROVIDERS))


@needs_atheris
@pytest.mark.slow
@pytest.mark.parametrize("provider", PROVIDERS)
def test_ten_minutes(provider: str) -> None:
    fuzz(provider, 600)


@pytest.mark.parametrize(("provider", "data"), FOUND)
def test_what_was_found(provider: str, data: bytes, tmp_path: Path) -> None:
    one_input(provider, data, tmp_path)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_seeds_are_read(provider: str, tmp_path: Path) -> None:
    found = seeds(provider)
    assert {seed[0] for seed in found} == set(range(len(FORMATS[provider])))
    for seed in found:
        one_input(provider, seed, tmp_path)


# ------------------------------------------------------------------------------------------- fast lanes


def test_the_lane_of_segment_reads_as_elements_do(tmp_path: Path) -> None:
    """Whole files by the lane, their lines as bodies without it: the same rows, rejects and counts."""
    rng, esp = random.Random(1), adapter("segment")
    start = [seed for seed in seeds("segment") if seed[0] == 1]
    for i in range(1_500):
        data = start[i % len(start)]
        for _ in range(rng.randrange(6)):
            data = mutated(data, rng)
        lines = [line for line in data[1:].split(b"\n") if line.strip()]
        (tmp_path / "a.ndjson").write_bytes(b'{"type":"page"}\n' + b"\n".join(lines))
        expected = Rows()
        for number, line in enumerate(lines, 2):
            esp.parse(line, expected, f"a.ndjson:{number}", MISSING)
        found = read_all(esp, tmp_path)
        found.skipped["page"] -= 1
        assert (found.sends, found.events) == (expected.sends, expected.events), lines
        assert found.rejects == expected.rejects, lines
        assert +found.skipped == expected.skipped, lines
        delivered = {k: v for k, v in found.notes.items() if "segment-deliveries" not in k}
        assert delivered == expected.notes, lines


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_body_is_read_as_its_elements_are(provider: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With and without the fast lanes of bodies that hold one event: the same rows, rejects and counts."""
    rng, esp = random.Random(3), adapter(provider)
    start, bodies = [seed[1:] for seed in seeds(provider) if not FORMATS[provider][seed[0]].name], list[bytes]()
    for i in range(4_000):
        data = b"\0" + start[i % len(start)]
        for _ in range(rng.randrange(4)):
            data = mutated(data, rng)
        bodies.append(data[1:])

    def read() -> list[Rows]:
        found = list[Rows]()
        for body in bodies:
            found.append(Rows())
            esp.parse(body, found[-1], "body 1", RECEIVED)
        return found

    fast, module = read(), f"justai_sim.esp.{provider}"
    with monkeypatch.context() as patch:
        patch.setattr(f"{module}.{ELEMENTS.get(provider, 'elements')}", lambda *_, **__: [])
        assert sum(map(len, read())) > 500, "no body takes the lane"
    for name in {module, "justai_sim.esp.generic"}:
        monkeypatch.setattr(f"{name}.lone", lambda *_, **__: None)
    monkeypatch.setattr("justai_sim.esp.braze_http.append", lambda *_: False)
    for body, found, expected in zip(bodies, fast, read(), strict=True):
        assert repr(found) == repr(expected), body


def test_the_lane_of_braze_reads_as_elements_do() -> None:
    rng, used, reading = (
        random.Random(2),
        0,
        braze.f.reading(braze.COPY, restated=True, soft_bounces=False, state_changes=False),
    )
    rows = [row for seed in seeds("braze") if seed[0] == 3 for row in _records(seed)]
    for i in range(20_000):
        row = dict(rows[i % len(rows)])
        for _ in range(rng.randrange(3)):
            row = _changed(row, rng)
        kind = row.get("event_type")
        meaning = reading.meaning.get(kind) if isinstance(kind, str) else None
        if not meaning:
            continue
        fast, slow = Rows(), Rows()
        try:
            done = braze_lane.append(kind, meaning, row, fast)
        except ElementError as e:
            raise AssertionError(row) from e
        braze._append(kind, row, row, row.get("properties"), slow, "a.avro:record 1", MISSING, reading)
        used += done
        if done:
            assert repr(fast) == repr(slow), row
        else:
            assert not fast, row
    assert used > 5_000


def _records(seed: bytes) -> list[dict[str, object]]:
    import json

    return [json.loads(line) for line in seed[1:].splitlines()]


def _changed(row: dict[str, object], rng: random.Random) -> dict[str, object]:
    from tests.fuzzing import _HOSTILE

    key = rng.choice(list(row))
    return row | {key: rng.choice(_HOSTILE)} if rng.random() < 0.8 else {k: v for k, v in row.items() if k != key}
