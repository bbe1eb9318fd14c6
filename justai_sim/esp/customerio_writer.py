"""Customer.io's Parquet export: people, deliveries, their contents, outputs and metrics, and the customer's own events.

The files of a table follow each other, each with what is new since the one before.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from justai_sim.esp import customerio_fields as f
from justai_sim.esp.coding import public_columns
from justai_sim.esp.exports import pieces, plain_line
from justai_sim.esp.jsonbytes import encode
from justai_sim.esp.payloads import order_of_arrival
from justai_sim.tables import Log

WORKSPACE = 1
OWN_EVENTS = "own_events.ndjson"
_METRIC = {kind: metric for metric, kind in f.MEANING.items()}
_T, _I, _S, _B = pa.timestamp("us", "UTC"), pa.int64(), pa.string(), pa.bool_()
Row = tuple[Any, ...]


def _schemas(template: pa.DataType) -> dict[str, pa.Schema]:
    """The columns of each table; `template`: the type of `campaign_id`."""
    return {
        "people": pa.schema([
            ("workspace_id", _I), ("customer_id", _S), ("internal_customer_id", _S), ("deleted", _B),
            ("suppressed", _B), ("created_at", _T), ("updated_at", _T), ("email_addr", _S),
        ]),
        "deliveries": pa.schema([
            ("workspace_id", _I), ("delivery_id", _S), ("internal_customer_id", _S), ("subject_id", _S),
            ("event_id", _S), ("delivery_type", _S), ("campaign_id", template), ("action_id", _I),
            ("newsletter_id", _I), ("content_id", _I), ("trigger_id", _I), ("created_at", _T),
            ("transactional_message_id", _I), ("seq_num", _I),
        ]),
        "delivery_contents": pa.schema([
            ("workspace_id", _I), ("delivery_id", _S), ("type", _S), ("campaign_id", template), ("action_id", _I),
            ("newsletter_id", _I), ("content_id", _I), ("from", _S), ("reply_to", _S), ("bcc", _S), ("recipient", _S),
            ("subject", _S), ("body", _S), ("body_amp", _S), ("body_plain", _S), ("preheader", _S), ("url", _S),
            ("method", _S), ("headers", _S), ("seq_num", _I),
        ]),
        "outputs": pa.schema([
            ("workspace_id", _I), ("output_id", _S), ("subject_name", _S), ("output_type", _S), ("action_id", _I),
            ("explanation", _S), ("delivery_id", _S), ("draft", _B), ("link_tracked", _B), ("split_test_index", _I),
            ("delay_ends_at", _T), ("branch_index", _I), ("manual_segment_id", _I), ("add_to_manual_segment", _B),
            ("created_at", _T), ("seq_num", _I),
        ]),
        "metrics": pa.schema([
            ("event_id", _S), ("workspace_id", _I), ("delivery_id", _S), ("metric", _S), ("reason", _S),
            ("link_id", _I), ("link_url", _S), ("created_at", _T), ("seq_num", _I), ("proxied", _B),
            ("prefetched", _B), ("machine", _B), ("user_agent", _S), ("email_client", _S), ("inbox_domain", _S),
            ("inbox_provider", _S), ("mx_host", _S),
        ]),
    }  # fmt: skip


def write(log: Log, folder: Path, header: str) -> None:
    """The tables of a log, and beside them the events that Customer.io has no metric of, as plain rows.

    `header` is where the variant travels; the split's arm and the action tell it too. Campaigns are whole numbers
    where all templates are.
    """
    _Writer(log, folder, header).write()


class _Writer:
    """The state of one export: who was told of, and the number of the latest row."""

    def __init__(self, log: Log, folder: Path, header: str) -> None:
        self.log, self.folder, self.header = log, folder, header
        self.whole = all(map(_whole, log.names("template")))
        self.schemas = _schemas(_I if self.whole else _S)
        self.variants = len(log.codes["variant"])
        self.told = np.zeros(len(log.codes["user"]), bool)
        self.seq, self.files = 0, 0
        self.rows: dict[str, list[Row]] = defaultdict(list)

    def write(self) -> None:
        with (self.folder / OWN_EVENTS).open("xb") as own:
            for piece in pieces(self.log):
                self._piece(piece, own)
                self.files += 1
                for table, rows in self.rows.items():
                    schema = self.schemas[table]
                    columns = zip(*rows, strict=True)
                    arrays = [pa.array(c, kind) for c, kind in zip(columns, schema.types, strict=True)]
                    name = f"{table}_v4_{WORKSPACE}_{self.files:018d}.parquet"
                    pq.write_table(pa.Table.from_arrays(arrays, schema=schema), self.folder / name)
                self.rows.clear()

    def _piece(self, piece: Log, own: IO[bytes]) -> None:
        sends, events = public_columns(piece, "sends"), public_columns(piece, "events")
        s, (_, order) = piece.sends, order_of_arrival(piece)
        for at in order.tolist():
            self.seq += 1
            row = at - len(s)  # the rows of events follow those of sends
            if at < len(s):
                self._send(sends, at, int(s.user[at]), int(s.template[at]), int(s.variant[at]))
            elif events["kind"][row] == "conversion" or not events["send_id"][row]:
                own.write(plain_line(events, row))
            else:
                self._event(events, row)

    def _send(self, c: dict[str, list[Any]], row: int, user: int, template: int, variant: int) -> None:
        send, who, t, seq = c["send_id"][row], c["user_id"][row], c["sent_at"][row], self.seq
        campaign = int(c["template_id"][row]) if self.whole else c["template_id"][row]
        action = 1 + template * self.variants + variant
        inner = internal(who)
        if not self.told[user]:
            self.told[user] = True
            own = None if who.startswith("cio:") else who
            self.rows["people"].append((WORKSPACE, own, inner, False, False, t, t, None))
        held = c["status"][row] == "held_out"
        subject = f"{inner}-{template}"
        self.rows["deliveries"].append(
            (WORKSPACE, send, inner, subject, None, "email", campaign, action, None, None, None, t, None, seq)
        )
        self.rows["metrics"].append(_metric("drafted" if held else "sent", send, t, seq))
        if held:
            return
        self.rows["delivery_contents"].append(
            (WORKSPACE, send, "email", campaign, action, None, None, "Shop <shop@example.com>", None, None,
             "user@example.com", "Hello", "<p>Hello</p>", None, "Hello", None, None, None,
             encode({self.header: [c["variant_id"][row]]}).decode(), seq)
        )  # fmt: skip
        self.rows["outputs"].append(
            (WORKSPACE, f"o{seq}", subject, "email", action, None, send, False, False, variant + 1, None, None, None,
             None, t, seq)
        )  # fmt: skip

    def _event(self, c: dict[str, list[Any]], row: int) -> None:
        kind, machine = c["kind"][row], c["machine"][row]
        flag = None if machine < 0 else machine == 1
        opened, clicked = (flag if kind == k else None for k in ("open", "click"))
        reason = {"bounce": "550 no such mailbox", "drop": "suppressed"}.get(kind)
        link = (1, "https://www.example.com/") if kind == "click" else (None, None)
        told = _metric(_METRIC[kind], c["send_id"][row], c["occurred_at"][row], self.seq, c["event_id"][row])
        self.rows["metrics"].append((*told[:4], reason, *link, *told[7:9], opened, opened, clicked, *told[12:]))


def _metric(name: str, send: str, t: int, seq: int, event: str = "") -> Row:
    return (event or f"{name}-{send}", WORKSPACE, send, name, None, None, None, t, seq) + (None,) * 8


def _whole(text: str) -> bool:
    """Whether a text is a whole number as it would be written."""
    return text.isascii() and text.isdigit() and len(text) < 19 and str(int(text)) == text


def internal(user: str) -> str:
    """Customer.io's own id of a person; 'cio:' and it stand for a person of whom there is no other.

    >>> internal("cio:a1"), internal("u1") == internal("u1"), len(internal("u1"))
    ('a1', True, 16)
    """
    return (
        user.removeprefix("cio:")
        if user.startswith("cio:")
        else hashlib.blake2b(user.encode(), digest_size=8).hexdigest()
    )
