"""Integer codes of what a world makes: sends, events and their copies. Codes grow with the user.

A send is the n-th message of a template to a user; `place` = template + 64 n names it within the user.
"""

from __future__ import annotations

import numpy as np

from justai_sim.tables import CLICK, CONVERSION, I8, KINDS, OPEN

TEMPLATES = 64
TIMES = 128
"""Messages of one template that a user can get."""
ORGANIC, TESTED = TEMPLATES, TEMPLATES + 1
"""Slots of purchases that happen anyway, and of test purchases that nobody made."""
SLOTS = 128
PLACES = 4096
WHATS = 32
LATENCY, AGAIN, MACHINE_OPEN, SCANNER_CLICK = 15, 16, 24, 25
"""After the kinds of events: a send's own webhook; further purchases that a send causes (8); what no person did."""
_KINDS = np.array([*range(len(KINDS)), *[CONVERSION] * (WHATS - len(KINDS))])
_KINDS[[MACHINE_OPEN, SCANNER_CLICK]] = OPEN, CLICK
COPIES = 8
REFUND, RECODED, MISNAMED = 1, 2, 4
"""What the last digit of an event's code adds up to."""
SHARED_ID = PLACES - 1
"""The purchase number whose id stands for all purchases of a user that carry the customer's number as their id."""


def send_code(user: I8, place: I8, templates: int, times: int) -> I8:
    """Each user gets each of `templates` up to `times` times."""
    return (user * templates + place % TEMPLATES) * times + place // TEMPLATES


def event_code(user: I8, place: I8 | int, what: I8 | int) -> I8:
    """`what`: the kind of an event of the send `place`, or AGAIN + j."""
    return purchase_code(user, place % TEMPLATES, place // TEMPLATES * WHATS + what)


def purchase_code(user: I8, slot: I8 | int, k: I8 | int) -> I8:
    """The k-th event of a slot: a template, ORGANIC or TESTED."""
    return ((user * SLOTS + slot) * PLACES + k) * COPIES


def user_of_event(event: I8) -> I8:
    return event // (SLOTS * PLACES * COPIES)


def kinds_of_events(codes: I8) -> I8:
    """The kind that each code stands for."""
    within = codes // COPIES
    slot, what = within // PLACES % SLOTS, within % PLACES % WHATS
    return np.where(slot >= TEMPLATES, CONVERSION, _KINDS[what])
