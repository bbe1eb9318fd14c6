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
# # Where metrics lie: an atlas of biases
# **How far is a dashboard's number from what the messages caused, and what lies between?** Every packaged scenario, one
# world each. Only a simulator knows the cause of each purchase; `js.bias` books every one of them to a single term, and
# the terms add up exactly.

# %%
# %matplotlib inline
import pandas as pd

import justai_sim as js

worlds = {name: js.bias(js.simulate(name)) for name in js.scenarios().name}
atlas = pd.DataFrame({name: bias.total() for name, bias in worlds.items()}).T.fillna(0)
order = ["caused", *atlas.columns.drop(["caused", "shown"]), "shown"]
atlas[order].style.format("{:,.0f}").background_gradient(axis=1, cmap="Greys", vmax=5000)

# %% [markdown]
# ## Three ways to be wrong
# **Too much.** Customers buy anyway, and the last message takes the credit.

# %%
js.plot_bias(worlds["organic_flood"].table).figure

# %% [markdown]
# **Somebody else's.** In a flow of five messages, what one has caused is booked to the next.

# %%
js.plot_bias(worlds["welcome"].table).figure

# %% [markdown]
# **Too little, and not for all alike.** Most of what the fast variant causes comes before the window opens: it is
# better and looks worse.

# %%
worlds["fast_converter"]

# %%
js.plot_bias(worlds["fast_converter"].table, variant="fast").figure

# %%
js.plot_bias(worlds["fast_converter"].table, variant="slow").figure

# %% [markdown]
# Another window moves the error elsewhere: the same world, counted from day 0.

# %%
js.plot_bias(js.bias(js.simulate("fast_converter"), offset_days=0).table, variant="fast").figure

# %% [markdown]
# What the terms mean.

# %%
pd.Series(worlds["welcome"].meaning).to_frame("what it holds")

# %% [markdown]
# ## The answer

# %%
off = (atlas.shown / atlas.caused - 1).sort_values()
near = off[off.abs() < 0.05]
not_caused = atlas[["organic", "borrowed"]].sum(axis=1) / (atlas.shown - atlas.capped)
most, least = off.index[-1], off.index[0]
print(
    f"In {len(near)} of {len(off)} worlds the dashboard is within 5 % of what the messages caused. It shows "
    f"{1 + off[most]:.0f} times the truth in {most}, and {-off[least]:.0%} too little in {least}. In "
    f"{(not_caused > 0.5).sum()} worlds most credits go to a message that did not cause the purchase "
    f"({', '.join(not_caused.index[not_caused > 0.5])})."
)
