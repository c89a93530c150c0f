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
# The components of a mixture have no order: if you swap their names, the predictions stay
# the same. This notebook shows what that does to a sampler, how it differs from a real
# failure, and how to combine EM and NUTS.
#
# The first run takes one or two minutes. Later runs are faster, because compiled programs
# are kept.

# %%
import numpyro

numpyro.set_host_device_count(2)  # so that chains run in parallel; before JAX starts

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
key = jax.random.key(12)

# %% [markdown]
# ## The data
#
# 133 readings from simulated crashes: the acceleration of a rider's head, in g, over the
# time after the impact, in ms. The head is thrown back, then forward, then comes to rest.

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
# Two straight lines, the *experts*, each with its own noise level, and a *gate*: the
# probability $\pi_k(x)$ of each expert at time $x$.
#
# $$p(y \mid x) = \sum_{k=1}^{2} \pi_k(x) \, N(y;\ a_{0k} + a_{1k} x,\ \sigma_k^2),
# \qquad \pi_k(x) = \frac{e^{b_{0k} + b_{1k} x}}{\sum_j e^{b_{0j} + b_{1j} x}}.$$
#
# Two lines are too few for this curve, as the last section shows. They are enough to
# separate the time before the crash from the crash, and to see how labels switch.

# %%
model = moe.MixtureOfExperts(num_experts=2)

# %% [markdown]
# ## EM: one maximum, quickly
#
# EM increases the posterior density from its start until it reaches a maximum. That
# maximum may be local, so EM runs from 16 random starts. By default each start also
# searches: it gives up one expert, splits another, and climbs again. Without these moves
# (`num_moves=0`) one sees how many maxima there are:

# %%
em = pk.fit(model, data, pk.EM(num_draws=512, num_moves=0), key=key)
pk.diagnose(em)

# %%
plots.objective(em)
plt.show()
# %% [markdown]
# Each grey line is a restart. They end at different values, because the density has
# several *different* maxima. This will matter below. Restarts that end at the *same* value
# may still differ: in some the early regime is expert 0, in others it is expert 1, and the
# density is the same.
#
# Two pictures of the best maximum: the interval of new readings, and the probability of
# each expert over time.

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
# ## NUTS: the whole posterior, and a failed check
#
# With `num_draws=512`, EM approximated the posterior by a normal distribution whose
# covariance comes from the curvature at the maximum. NUTS draws from the posterior itself.
# Here are four chains from random starts, with `relabel=False`, so that the draws keep the
# labels of the sampler.

# %%
nuts = pk.NUTS(num_chains=4, num_warmup=400, num_samples=800)
raw = pk.fit(model, data, nuts, key=key, relabel=False)
pk.diagnose(raw)

# %% [markdown]
# R-hat compares the chains with each other. It is 1 where they agree and should be at most
# 1.01. Here it is far too large. These are the slopes of the two experts, one panel per
# chain:

# %%
plots.labels(raw, "coefficient", term="time")
plt.show()
# %% [markdown]
# Within a chain the values are stable. Between chains the colours swap, and the slopes
# themselves differ. These are two separate problems, and only the second is serious: the
# chains are at different optima of the posterior, as the restarts of EM were.
#
# ## Why labels switch
#
# Let a permutation $\tau$ rename the experts: expert $k$ becomes $\tau(k)$, with its line,
# noise and gate. The likelihood is a sum over experts, so the order of the terms does not
# matter. The prior is the same for all experts. Therefore
#
# $$p(\theta_{\tau(1)}, \ldots, \theta_{\tau(K)} \mid \text{data})
#   = p(\theta_1, \ldots, \theta_K \mid \text{data})
#   \quad \text{for each of the } K! \text{ permutations } \tau.$$
#
# Every maximum of the posterior has $K! - 1$ copies of the same density and shape. A chain
# finds a nearby one, so the early regime is expert 0 or expert 1 by chance. Both are
# correct. But "the slope of expert 0" then means different things in different chains, and
# its mean over chains has no meaning.
#
# Quantities without labels are not affected: predictions, LOO, and the log density.
#
# ## Relabelling solves the first problem
#
# Each draw is relabelled: of the $K!$ orders, take the one in which the experts explain the
# same readings as in a reference draw (Stephens, 2000). `fit` does this by default. With
# the same key the draws are the same, except for their labels:

# %%
relabelled = pk.fit(model, data, nuts, key=key)
plots.labels(relabelled, "coefficient", term="time")
plt.show()
# %% [markdown]
# The chains at the higher maximum now have one colour for the early regime and one for the
# late regime. The chains at the lower maximum divide time differently: their regimes do not
# correspond to those of the reference draw, and their colours may still switch. This is
# expected, because no relabelling turns one maximum into the other.
#
# For the chains at the higher maximum alone, relabelling corrects R-hat:

# %%
lp = raw.tree["sample_stats"]["lp"].mean("draw")
higher = (lp > lp.mean()).values
for name, fit in {"not relabelled": raw, "relabelled": relabelled}.items():
    rhat = az.rhat(fit.posterior.isel(chain=higher))
    worst = max(float(array.max()) for array in rhat.data_vars.values())
    print(f"{higher.sum()} chains at the higher maximum, {name}: highest R-hat {worst:.2f}")

# %% [markdown]
# ## A good start solves the second
#
# The chains at the lower maximum stay there, because the density between the maxima is too
# low for a chain to cross. So the number of chains at a maximum does not estimate the
# probability of the region around it. The check *R-hat of the log density* detects this
# problem and not the first one, because the log density does not depend on labels. Read it
# first.

# %%
for name, fit in {"not relabelled": raw, "relabelled": relabelled}.items():
    check = pk.diagnose(fit)["R-hat of the log density"]
    print(f"{name}: R-hat of the log density {check.value:.2f}")
print("mean log density of each chain:", np.round(lp.values, 1))

# %% [markdown]
# EM and NUTS complement each other. EM approximates the width of the posterior only
# roughly, but it has compared 16 restarts and kept the best. NUTS samples around the
# maximum where it starts. So start the chains from the draws of EM:

# %%
full = pk.fit(model, data, nuts, key=key, start=em, log_likelihood=True)
pk.diagnose(full)

# %% [markdown]
# All checks are ok. The lower maximum was left out on purpose, so mention that when you
# report this fit. The mean log density around it is about twenty nats lower. If the
# posterior is about as wide around both maxima, the probability of the lower one is
# negligible. Several maxima are also a frequent sign of a model that does not fit, as the
# last section shows.
#
# ## EM against NUTS
#
# The draws of EM come from a normal distribution around the maximum. Those of NUTS come
# from the posterior around that maximum, which may be skewed.

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
# Leave-one-out cross-validation (LOO) scores the prediction of each reading by a model
# fitted without it; higher is better. It does not depend on labels.
# We compare two experts with four:

# %%
four = moe.MixtureOfExperts(num_experts=4)
em_four = pk.fit(four, data, pk.EM(), key=key)
full_four = pk.fit(four, data, nuts, key=key, start=em_four, log_likelihood=True)
print("all checks ok:", pk.diagnose(full_four).ok)
scores = az.compare({"two": az.loo(full.tree), "four": az.loo(full_four.tree)})
scores[["elpd", "se", "elpd_diff", "dse"]]

# %% [markdown]
# Four experts predict better: the difference in the score `elpd` is several times its
# standard error `dse`. The regimes are calm, braking, rebound and rest:

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
# - R-hat far above 1.01 in a mixture has two possible causes. *Switched labels* are
#   harmless, and relabelling corrects them. *Different maxima* are serious, and
#   relabelling does not help.
# - R-hat of the log density distinguishes the two.
# - EM finds a good maximum, and NUTS samples around it: use `start=`.
#
# To try: fit three experts, and read the table of checks before you use its LOO.
