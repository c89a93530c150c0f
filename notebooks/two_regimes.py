# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Two regimes in a motorcycle crash
#
# A mixture has no first and no second component: swap their names, and nothing that
# can be seen changes. This notebook shows what that does to a sampler, how to tell it
# from a real failure, and how EM and NUTS, which answer different questions, help each
# other out.
#
# It takes a minute or two; a second run is quicker, as compiled programs are kept.

# %%
import numpyro

numpyro.set_host_device_count(2)  # chains side by side; must come before JAX starts

import arviz as az
import jax
import matplotlib.pyplot as plt
import numpy as np

import probkit as pk
import probkit.plots as plots
from probkit import datasets
from probkit.models import moe

pk.enable_x64()
pk.use_compilation_cache()
key = jax.random.key(2)

# %% [markdown]
# ## The data
#
# The head of a rider in simulated crashes: 133 readings of its acceleration, in g, over
# the milliseconds after the impact. It is thrown back, then forward, then comes to rest.

# %%
crash = datasets.motorcycle()
data = moe.Pairs(crash.time, crash.acceleration)

fig, ax = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
ax.scatter(crash.time, crash.acceleration, s=14, color="#777777")
ax.set(xlabel="time (ms)", ylabel="acceleration (g)")
plt.show()
# %% [markdown]
# ## The model
#
# Two straight lines, the *experts*, each with a noise level of its own, and a *gate* that
# says which of them is in force at time $x$:
#
# $$p(y \mid x) = \sum_{k=1}^{2} \pi_k(x) \, N(y;\ a_{0k} + a_{1k} x,\ \sigma_k^2),
# \qquad \pi_k(x) = \frac{e^{b_{0k} + b_{1k} x}}{\sum_j e^{b_{0j} + b_{1j} x}}.$$
#
# Two lines are too few for this curve, and the end of the notebook says so in numbers.
# They are enough to tell the calm from the crash, and to see what labels do.

# %%
model = moe.SoftmaxMoE(num_experts=2)

# %% [markdown]
# ## EM: one answer, quickly
#
# EM climbs the posterior density from wherever it starts and stops at a summit. It cannot
# know of a higher one elsewhere, so 16 restarts climb side by side.

# %%
em = pk.fit(model, data, pk.EM(num_draws=512), key=key)
pk.diagnose(em)

# %%
plots.objective(em)
plt.show()
# %% [markdown]
# Each grey line is a restart. They end at different heights: the density has several
# *different* summits. Remember that; it matters below. Restarts that end at the *same*
# height need not be at the same place: some have the early regime as expert 0, others as
# expert 1, and the height does not tell.
#
# What the best summit means, in two pictures: where new readings would fall, and which
# expert is in force when.

# %%
fig, (above, below) = plt.subplots(
    2, 1, figsize=(6.4, 6.2), sharex=True, layout="constrained"
)
plots.band(em, above, key=key)
plots.memberships(em, below)
above.set(xlabel="", ylabel="acceleration (g)")
below.set_xlabel("time (ms)")
plt.show()
# %% [markdown]
# ## NUTS: the whole posterior, and a shock
#
# A summit has no width. `num_draws=512` had EM guess one from the curvature there; NUTS
# does not guess, it draws from the posterior. Here are four chains from random places,
# with `relabel=False`, which shows the draws as they come.

# %%
nuts = pk.NUTS(num_chains=4, num_warmup=400, num_samples=400)
raw = pk.fit(model, data, nuts, key=key, relabel=False)
pk.diagnose(raw)

# %% [markdown]
# R-hat compares chains with each other; it is 1 where they agree and should not exceed
# 1.01. This one is a disaster. Look at the slopes of the two experts, chain by chain:

# %%
plots.labels(raw, "coefficient", term="time")
plt.show()
# %% [markdown]
# Within a chain all is calm; between chains the colours trade places, and the lines lie
# at different heights. These are two ailments, and only one of them is serious. The one
# behind the heights we have met: hills that differ, as EM's restarts found them.
#
# ## Why labels switch
#
# Let a permutation $\tau$ rename the experts: whoever was $k$ becomes $\tau(k)$, with line,
# noise and gate. The likelihood is a sum over experts and does not change when its terms
# change places. The prior treats all experts alike. So
#
# $$p(\theta_{\tau(1)}, \ldots, \theta_{\tau(K)} \mid \text{data})
#   = p(\theta_1, \ldots, \theta_K \mid \text{data})
#   \quad \text{for each of the } K! \text{ permutations } \tau.$$
#
# Every hill of the posterior has $K! - 1$ mirror images of exactly its height and shape. A
# chain climbs the one that is nearest, and calls its early regime 0 or 1 as chance has it.
# Both are right. But "the slope of expert 0" is then one thing in this chain and another
# in that, and its mean over chains is the slope of nothing.
#
# What mentions no labels is not concerned: predictions, LOO, and the log density itself.
#
# ## Relabelling mends the first ailment
#
# The cure is to rename, draw by draw: of the $K!$ orders take the one under which the
# experts explain the same readings as in a draw of reference (Stephens, 2000). `fit` does
# so unless told not to. The same key makes the same draws, under other names:

# %%
relabelled = pk.fit(model, data, nuts, key=key)
plots.labels(relabelled, "coefficient", term="time")
plt.show()
# %% [markdown]
# The chains on the higher hill now have their early regime in one colour and their late
# regime in the other. Those on the lower hill cut time up differently: their regimes have
# no clear counterparts in the draw of reference, and their colours may still flicker.
# That is as it should be. No renaming turns one hill into another.
#
# Take the chains on the higher hill alone, and relabelling has mended R-hat altogether:

# %%
height = raw.tree["sample_stats"]["lp"].mean("draw")
higher = (height > height.mean()).values
for name, fit in {"as they came": raw, "relabelled": relabelled}.items():
    rhat = az.rhat(fit.posterior.isel(chain=higher))
    worst = max(float(array.max()) for array in rhat.data_vars.values())
    print(f"{higher.sum()} chains on the higher hill, {name}: worst R-hat {worst:.2f}")

# %% [markdown]
# ## A good start mends the second
#
# The chains on the lower hill are lost there. A valley lies between, far too deep for a
# chain to cross in its lifetime, so they will not tell us how much of the posterior
# their hill holds. The check *R-hat of the log density* sees this ailment and not the
# first, as it mentions no labels. Read it first.

# %%
for name, fit in {"as they came": raw, "relabelled": relabelled}.items():
    check = pk.diagnose(fit)["R-hat of the log density"]
    print(f"{name}: R-hat of the log density {check.value:.2f}")
print("mean log density of each chain:", np.round(height.values, 1))

# %% [markdown]
# Here EM and NUTS help each other out. EM cannot say how wide a hill is, but it has seen
# 16 climbs and knows the highest. NUTS measures the hill it stands on. So start the
# chains from EM's draws:

# %%
full = pk.fit(model, data, nuts, key=key, start=em, log_likelihood=True)
pk.diagnose(full)

# %% [markdown]
# All is well. The lower hill has been left out on purpose, and a reader of such a fit
# should hear of it: its chain lies some fifteen nats lower, which for hills of like width
# means next to nothing of the posterior. And several hills are often the first sign of a
# model that does not fit, as the last section shows.
#
# ## EM against NUTS
#
# The draws of EM come from a normal distribution around the summit; those of NUTS from
# the posterior on that hill, with whatever skew it has.

# %%
for name, fit in {"EM": em, "NUTS": full}.items():
    slope = fit.posterior["coefficient"].sel(term="time")
    mean, sd = slope.mean(("chain", "draw")).values, slope.std(("chain", "draw")).values
    print(f"{name:>4}: slopes {mean.round(2)}, sd {sd.round(2)} (g per ms)")

plots.posterior(full)
plt.show()
# %% [markdown]
# ## Are two regimes enough?
#
# Leave-one-out cross-validation (LOO) scores each reading under a model that has not seen
# it; the higher the better. It mentions no labels. Here are two experts against four:

# %%
four = moe.SoftmaxMoE(num_experts=4)
summit = pk.fit(four, data, pk.EM(), key=key)
full_four = pk.fit(four, data, nuts, key=key, start=summit, log_likelihood=True)
print("all checks ok:", pk.diagnose(full_four).ok)
scores = az.compare({"two": az.loo(full.tree), "four": az.loo(full_four.tree)})
scores[["elpd", "se", "elpd_diff", "dse"]]

# %% [markdown]
# Four it is: the difference in `elpd`, the score, is several times its standard error
# `dse`. Calm, braking, rebound, rest:

# %%
fig, (above, below) = plt.subplots(
    2, 1, figsize=(6.4, 6.2), sharex=True, layout="constrained"
)
plots.band(full_four, above, key=key)
plots.memberships(full_four, below)
above.set(xlabel="", ylabel="acceleration (g)")
below.set_xlabel("time (ms)")
plt.show()

# %% [markdown]
# ## To take away
#
# - R-hat far above 1.01 in a mixture has two causes. *Labels switched*: harmless, and
#   relabelling mends it. *Different hills*: serious, and relabelling does not.
# - R-hat of the log density tells them apart.
# - EM finds hills, NUTS measures them: `start=` joins the two.
#
# To try: fit three experts, and read the table before you believe its LOO.
