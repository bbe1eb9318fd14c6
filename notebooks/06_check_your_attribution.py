# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Check your attribution
# **Does my own attribution do what the rule says, also where it is awkward?** Most teams attribute with a few lines of
# pandas or SQL. `check_attribution` runs such a function on small logs that aim at the edges of the rule, and shows for
# each law that it breaks the smallest log on which it does.

# %%
import pandas as pd

from justai_sim import testing

DAY = pd.Timedelta(days=1)


def naive(sends, events):
    bought = events[events["kind"] == "conversion"].sort_values("occurred_at")
    pairs = pd.merge_asof(
        bought[["event_id", "user_id", "occurred_at"]], sends[["send_id", "user_id", "sent_at"]].sort_values("sent_at"),
        left_on="occurred_at", right_on="sent_at", by="user_id",
    )  # fmt: skip
    return pairs[(pairs["occurred_at"] - pairs["sent_at"]).between(3 * DAY, 14 * DAY)]


# %% [markdown]
# `features` chooses the complications of the logs; the plainest first: purchases and sends, nothing else.

# %%
first = testing.check_attribution(naive, features=[], max_examples=40)
first


# %% [markdown]
# The window is half-open: `between` counts the instant of day 14. With that mended, the next mistake shows.


# %%
def half_open(sends, events):
    pairs = naive(sends, events)
    return pairs[pairs["occurred_at"] - pairs["sent_at"] < 14 * DAY]


testing.check_attribution(half_open, features=[], max_examples=40)


# %% [markdown]
# The newest send is still in its offset and hides an older one that qualifies. The remedy is to ask for the newest send
# *of at least three days before*.


# %%
def last_qualifying(sends, events):
    bought = events[events["kind"] == "conversion"].sort_values("occurred_at")
    bought = bought.assign(latest=bought["occurred_at"] - 3 * DAY)
    pairs = pd.merge_asof(
        bought[["event_id", "user_id", "latest"]], sends[["send_id", "user_id", "sent_at"]].sort_values("sent_at"),
        left_on="latest", right_on="sent_at", by="user_id",
    )  # fmt: skip
    return pairs[pairs["latest"] - pairs["sent_at"] < 11 * DAY]


testing.check_attribution(last_qualifying, features=[], max_examples=40)

# %% [markdown]
# Plain logs are right now. Real ones hold sends at the same instant, and rows that were delivered twice.

# %%
testing.check_attribution(last_qualifying, features=["ties", "duplicates"], max_examples=40)


# %% [markdown]
# Ties go to the larger id, and copies must go: rows with the same event id, and orders under a second one.


# %%
def without_copies(sends, events):
    sends = sends.sort_values("send_id").drop_duplicates("send_id")
    events = events.sort_values(["occurred_at", "event_id"]).drop_duplicates(["user_id", "event_id"])
    again = events["order_id"].notna() & events.duplicated(["user_id", "name", "order_id"])
    return last_qualifying(sends.sort_values("sent_at", kind="stable"), events[~again])


repaired = testing.check_attribution(without_copies, features=["ties", "duplicates"], max_examples=40)
repaired

# %% [markdown]
# ## The same in SQL
# A join has no newest row of its own: each send in the window earns the purchase.

# %%
join = """
SELECT e.event_id, s.send_id FROM events e JOIN sends s ON s.user_id = e.user_id
WHERE e.kind = 'conversion' AND e.occurred_at BETWEEN s.sent_at + INTERVAL 3 DAY AND s.sent_at + INTERVAL 14 DAY
"""
join_report = testing.check_attribution(testing.sql(join), features=["ties"], max_examples=40)
join_report

# %%
last = """
SELECT e.event_id, s.send_id FROM events e JOIN sends s ON s.user_id = e.user_id
WHERE e.kind = 'conversion'
  AND e.occurred_at >= s.sent_at + INTERVAL 3 DAY AND e.occurred_at < s.sent_at + INTERVAL 14 DAY
QUALIFY row_number() OVER (PARTITION BY e.event_id ORDER BY s.sent_at DESC, s.send_id DESC) = 1
"""
last_report = testing.check_attribution(testing.sql(last), features=["ties"], max_examples=40)
last_report

# %% [markdown]
# In a test of your own: `testing.check_attribution(mine).raise_if_broken()`. For another language,
# `justai-sim cases --out cases/` writes such logs with their answers.
#
# ## The answer

# %%
tries = {"a first try": first, "mended": repaired, "a plain join": join_report, "the last of a window": last_report}
for name, report in tries.items():
    print(f"{name}: {str(report).splitlines()[0]}.")
