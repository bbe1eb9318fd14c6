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
# # Choosing windows for your delay
# **My users buy d days after a message. From which day on, and until when, should a purchase count?** Two flows that
# differ in nothing but the delay: in one, buyers take a day on average, in the other twelve.

# %%
# %matplotlib inline
import justai_sim as js

DELAYS = {f"{d} days": {f"variants.{v}.delay.mean_days": d for v in range(3)} for d in (1, 12)}
slow = js.simulate(js.read_scenario("fast_converter", DELAYS["12 days"]))
replay = slow.replay()
replay

# %% [markdown]
# ## What your delay is
# A log tells it: purchases that a message adds over the background, by days since it was sent. `js.read_log("folder")`
# reads yours. The tinted days are those that 14/3 counts.

# %%
js.plot_delay(replay.delay).figure

# %% [markdown]
# ## What a window does with it
# The same worlds under four windows and both delays. A wider window sees more of the effect, and more purchases that
# would have come anyway.

# %%
WINDOWS = {"14/3": (14, 3), "0-14": (14, 0), "0-28": (28, 0), "0-2": (2, 0)}
keys = ("program.rule.lookback_days", "program.rule.offset_days")
axes = {"delay": DELAYS, "window": {name: dict(zip(keys, w, strict=True)) for name, w in WINDOWS.items()}}
flow = js.read_scenario("fast_converter", {"replications": 40, "world.signups_per_day": 200}, sweep=axes)
result = js.sweep(flow)
result

# %%
choice = js.recommend(result, "conversions")
js.plot_recommend(choice.table).figure

# %% [markdown]
# ## The answer

# %%
for delay, rows in choice.table.groupby("delay", sort=False):
    good, bad = (rows[rows.verdict.isin(v)].decision.tolist() for v in (["best", "tied"], ["worse"]))
    lost = -rows.difference.min()
    print(f"Buyers take {delay}: choose among {', '.join(good)}" + (f"; not {', '.join(bad)}" if bad else "")
          + f". The worst of the four loses {lost:.0f} purchases of {rows.value.max():.0f}.")  # fmt: skip
print(choice.answer)
