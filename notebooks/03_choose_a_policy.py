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
# # Choosing a policy for your traffic
# **Is a learning policy worth it with as few users as I have, and which one?** Four policies over the same worlds, with
# 20 and with 400 sign-ups a day, six weeks each: Thompson sampling with late results weighed in (the one in use), even
# shares, always the best so far, and a test that ends in a choice. What counts is what the sends really cause, not what
# is credited.

# %%
# %matplotlib inline
import justai_sim as js

names = {"thompson": "weighted_thompson", "even": "uniform", "greedy": "greedy", "test first": "explore_then_commit"}
policies = {label: {"program.policy.name": name} for label, name in names.items()}
flow = js.read_scenario(
    "fast_converter", {"replications": 30, "days": 42, "program.rule.offset_days": 0},
    sweep={"world.signups_per_day": [20, 400], "policy": policies},
)  # fmt: skip
result = js.sweep(flow)
result

# %% [markdown]
# ## What each policy does with its traffic
# Shares of one world with few users: all that the policy knows is what has come back so far.

# %%
few = js.simulate(js.read_scenario(flow, {"world.signups_per_day": 20}))
js.plot_shares(few.replay().shares).figure

# %% [markdown]
# ## Who comes first, and when
# Every line is a policy; first with 20 sign-ups a day, then with 400.

# %%
js.plot_race(result.race[result.race.point.str.startswith("20 ")]).figure

# %%
js.plot_race(result.race[result.race.point.str.startswith("400 ")]).figure

# %% [markdown]
# ## What it is worth
# Differences are paired: every policy met the same users. "Tied" is what these worlds cannot tell from the best.

# %%
choice = js.recommend(result, "conversions")
js.plot_recommend(choice.table).figure

# %% [markdown]
# ## The answer

# %%
for signups, rows in choice.table.groupby("signups_per_day", sort=False):
    best = rows.loc[rows.value.idxmax()]
    even = rows[rows.decision == "even"].value.item()
    good = rows[rows.verdict.isin(["best", "tied"])].decision.tolist()
    print(f"{signups} sign-ups a day: {', '.join(good)}. The best earns {best.value:,.0f} purchases in six weeks, "
          f"{best.value / even - 1:+.0%} against even shares.")  # fmt: skip
