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
# # First look
# **Which attribution window finds the best variant of a welcome flow?** Eight simulated worlds with known truth, four
# windows, two policies (the report of `justai-sim demo` takes a hundred worlds).

# %%
# %matplotlib inline
import justai_sim as js

result = js.sweep("welcome", replications=8)
result

# %% [markdown]
# What each day after a message brings, and what the window in use sees of it.

# %%
js.plot_age(result.age).figure

# %% [markdown]
# Every window at once: which variant leads in it.

# %%
js.plot_window_map(result.windows, best="story", groups_are_worlds=True).figure

# %% [markdown]
# How long until the right variant leads, and what waiting costs.

# %%
js.plot_race(result.race[result.race.policy == "weighted_thompson"]).figure

# %%
js.report(result, "../reports/first_look")

# %% [markdown]
# The same modules read a log. Here it is one simulated world; `js.read_log("folder")` reads yours.

# %%
run = js.simulate("welcome")
js.replay(run.log, goals=["purchase"], lookback_days=7, offset_days=0)

# %% [markdown]
# ## The answer

# %%
print(result.answer)
