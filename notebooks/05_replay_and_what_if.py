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
# # Replaying an export, and asking what-if
# **What would other shares have earned on my log, and does the answer depend on the window?** With an export of yours
# the steps are the same: load, examine, replay, ask. This one is a simulated world, written as a Customer.io export, so
# that we can look at the truth in the end.

# %%
# %matplotlib inline
import tempfile
from pathlib import Path

import justai_sim as js

folder = Path(tempfile.mkdtemp())
world = js.simulate("fast_converter")
js.export(world.log, "customerio", folder / "export")
sorted(p.name for p in (folder / "export").iterdir())

# %% [markdown]
# ## Load it once
# Yours: `js.load("export/", "customerio", "log/")`. Rows that cannot be read are counted with their reason.

# %%
js.load(folder / "export", "customerio", folder / "log")
log = js.read_log(folder / "log")
log

# %% [markdown]
# ## What is wrong with it?

# %%
print(js.doctor(log, goals=["purchase"]))

# %% [markdown]
# ## What does it say?
# Counts until day 14, ignores the first 3 days.

# %%
published = js.replay(log, goals=["purchase"])
published

# %% [markdown]
# Ship, wait, or stop? The intervals hold for every day on which one looks, and seven checks say whether to trust them.

# %%
verdict = js.verdict(published)
verdict

# %% [markdown]
# The age figure shows what these days hide.

# %%
js.plot_age(published.age()).figure

# %% [markdown]
# ## What if?
# Every send of one variant, or equal shares: valued by the draws that the log holds, each with its interval.

# %%
as_published = js.what_if(log, goals=["purchase"])
js.plot_what_if(as_published.estimates).figure

# %% [markdown]
# The same question, counted from day 0 until day 7.

# %%
from_day_0 = js.what_if(log, goals=["purchase"], lookback_days=7, offset_days=0)
js.plot_what_if(from_day_0.estimates).figure

# %% [markdown]
# ## The answer
# What the simulator knows, and no log does, is in the last line.

# %%
truth = {v.id: v.conversion_rate for v in world.scenario.variants}
print(f"Verdict under 14/3: {verdict.sentence}\n14/3: {as_published.headline}\n0-7: {from_day_0.headline}")
print(f"True rates: {', '.join(f'{v} {r:.1%}' for v, r in truth.items())}; {max(truth, key=truth.get)} is the best.")
