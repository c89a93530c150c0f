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
# # What do the schools share?
#
# Pupils in schools, patients in hospitals, homes in counties: many small data sets of the
# same kind. There are three ways to learn from them.
#
# - *Complete pooling*: one regression for all. It misses how groups differ.
# - *No pooling*: a regression per group. A group of three teaches little, and a new one
#   nothing.
# - *Partial pooling*: a regression per group, whose coefficients come from one
#   distribution, and this distribution is learned too.
#
# $$y_{ij} = \alpha_i + \beta_i x_{ij} + \varepsilon_{ij}, \qquad
#   (\alpha_i, \beta_i) \sim N(\mu, \Sigma), \qquad \varepsilon_{ij} \sim N(0, \sigma^2).$$
#
# This notebook shows the third: what a group takes from the others, what is known of a new
# one after three observations, and whether it predicts better.
#
# It takes a minute or less. A second run is faster, because compiled programs are kept.

# %%
import jax
import matplotlib.pyplot as plt
import numpy as np
import scipy.stats

import probkit as pk
from probkit.models import meta
from probkit.plots.style import COLOURS, GREY, INK, PALE, finish

pk.enable_x64()
pk.use_compilation_cache()
key = jax.random.key(0)

# %% [markdown]
# ## The data
#
# Our schools are the 85 counties of Minnesota, and our pupils are 919 homes in which the
# radon was measured (US Environmental Protection Agency, public domain; the example is that
# of Gelman & Hill, 2007). Radon is a gas that comes out of the soil, so that a reading on
# the first floor is lower than one in the basement.
#
# `from_table` makes one data set per county.

# %%
homes = pk.datasets.radon()
data = meta.Episodes.from_table(homes, group="county", x="floor", y="log_radon")
sizes = np.asarray(data.sizes())
print(f"{len(data)} counties, {sizes.sum():.0f} homes; of a county {sizes.min():.0f} to")
print(f"{sizes.max():.0f}, in half of them {np.median(sizes):.0f} or fewer")

# %% [markdown]
# ## The fit

# %%
method = meta.Episodic(num_draws=400)
fitted = pk.fit(meta.Linear(), data, method, key=key)
pk.diagnose(fitted)

# %% [markdown]
# One thing may need a look, depending on the draws: the homes of Carver are improbable
# for a county like the others.
#
# What do the counties share? The mean of their coefficients, and how much they differ:

# %%
posterior = fitted.posterior
for term in ("intercept", "floor"):
    mean = posterior["population_mean"].sel(term=term)
    between = np.sqrt(posterior["covariance"].sel(term=term, other_term=term))
    print(f"{term:>9}: mean {mean.mean():5.2f}, sd between counties {between.mean():.2f}")
print(f"homes of a county: sd {posterior['noise_sd'].mean():.2f}")

# %% [markdown]
# On the scale of logarithms, homes of the same county differ about twice as much as the
# levels of counties do. A few homes are therefore a poor estimate of their county, and the
# others are needed.
#
# ## Shrinkage
#
# The level of a county (its intercept: a reading in the basement), by a regression of its
# own homes, and by partial pooling. A line joins the two of a county. We ask for a basement
# and a first floor in each.

# %%
both = {name: [[0.0], [1.0]] for name in data.names}
found = pk.predict(fitted, both, key=key)
pooled = found["mean"].isel(row=0).mean(("chain", "draw")).values
y, seen = np.asarray(data.y), np.asarray(data.seen)
floor = np.asarray(data.x[..., 0])


def regression(floor, y, new, value):
    """A t distribution per row of `new`, or None where the rows do not determine it."""
    X, Z = (np.stack([np.ones_like(one), one], 1) for one in (floor, new))
    degrees = len(y) - (np.linalg.matrix_rank(X) if len(X) else 0)
    if degrees < 1:
        return None
    back = np.linalg.pinv(X)
    if np.abs(Z - Z @ back @ X).max() > 1e-9:
        return None
    spread = np.sum((y - X @ back @ y) ** 2) / degrees
    error = np.einsum("mp,pq,mq->m", Z, back @ back.T, Z)
    return scipy.stats.t(degrees, Z @ back @ y, np.sqrt(spread * (value + error)))


one = regression(floor[seen], y[seen], np.zeros(1), 0)
alone = [
    regression(a[s], b[s], np.zeros(1), 0) for a, b, s in zip(floor, y, seen, strict=True)
]

fig, ax = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
# Counties of the same size are moved apart.
across = sizes * np.exp(np.random.default_rng(0).uniform(-0.06, 0.06, len(sizes)))
for size, own, after in zip(across, alone, pooled, strict=True):
    if own is not None:
        ax.plot([size, size], [own.median()[0], after], color=PALE, lw=0.8, zorder=1)
there = np.array([own is not None for own in alone])
own = np.array([own.median()[0] for own in alone if own is not None])
ax.scatter(across[there], own, s=14, color=GREY, label="no pooling")
ax.scatter(across, pooled, s=14, color=COLOURS[0], label="partial pooling", zorder=2)
ax.axhline(one.median()[0], color=COLOURS[1], lw=1.2, label="complete pooling")
ax.set(xscale="log", xlabel="homes of the county", ylabel="level (log of pCi/L)")
ax.set_xticks([1, 2, 5, 10, 20, 50, 100], labels=[1, 2, 5, 10, 20, 50, 100])
finish(ax, legend=True)
plt.show()
print(f"{(~there).sum()} counties have no such regression of their own")

# %% [markdown]
# Levels from few homes scatter most, and move most. Those from many homes stay where they
# are. The amount is not set by hand: it follows from $\Sigma$ and $\sigma$, which all
# counties determine together. They do not move to the line of complete pooling, which lies
# below most of them: it is the regression of the average home, and the largest counties
# have low levels.
#
# ## A new county
#
# We leave out Stearns with its 25 homes, fit the others, and let its homes arrive one by
# one. `meta.New` takes what is known of a new data set. Here there are sixteen of them: the
# same county, of which nothing, one home, two homes, ... are known.

# %%
place = data.names.index("Stearns")
others = np.array(seen)
others[place] = False
rest = meta.Episodes(data.x, data.y, others, names=data.names, columns=data.columns)
without = pk.fit(meta.Linear(), rest, method, key=key)

most = 15
order = np.random.default_rng(1).permutation(int(sizes[place]))
x_new, y_new = np.asarray(data.x[place])[order], y[place][order]
arrived = np.arange(most) < np.arange(most + 1)[:, None]
asked = meta.New(
    np.zeros((most + 1, 1, 1)),  # a basement
    np.broadcast_to(x_new[:most], (most + 1, most, 1)),
    np.where(arrived, y_new[:most], np.nan),
)
new = pk.predict(without, asked, key=key).isel(row=0)

# %%
fig, ax = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
known = np.arange(most + 1)
for name, alpha, label in (("y", 0.15, "a new home"), ("mean", 0.4, "level of county")):
    low, high = new[name].quantile([0.05, 0.95], ("chain", "draw")).values
    ax.fill_between(known, low, high, color=COLOURS[0], alpha=alpha, lw=0, label=label)
ends = [regression(x_new[:k, 0], y_new[:k], np.zeros(1), 0) for k in known]
for k, own in zip(known, ends, strict=True):
    if own is not None:
        label = "level, no pooling" if k == most else None
        ax.plot([k, k], np.ravel(own.interval(0.9)), color=GREY, lw=1.2, label=label)
basement = x_new[:most, 0] == 0
reading = y_new[:most][basement]
ax.scatter(known[1:][basement], reading, s=14, color=INK, zorder=3, label="reading")
ax.set(xlabel="homes known", ylabel="log of pCi/L", ylim=(-2, 5))
finish(ax, legend=True)
plt.show()
for k in (0, 1, 3, 15):
    low, high = new["mean"].isel(group=k).quantile([0.05, 0.95], ("chain", "draw")).values
    own = ends[k] and np.ravel(ends[k].interval(0.9))
    text = "none" if own is None else f"{own[0]:.2f} to {own[1]:.2f}"
    print(f"{k:>2} homes: level {low:.2f} to {high:.2f}; without the others {text}")

# %% [markdown]
# The dots are the readings in basements, as they arrive. Bands and lines are 90 %
# intervals. With no home known the county has the level of some county, and that is already
# a useful interval. One home moves it, and three homes narrow it a little, no more: homes
# of the same county differ twice as much as counties do. Without the others the interval
# from three homes is useless. After fifteen the two agree about the level. The band of a
# single new home has hardly changed by then, because homes differ, however many are known.
#
# ## Does it predict better?
#
# We hold out half of the homes at random, three times, and predict them. The score is the
# mean log density of the held-out readings, with the sign changed (NLL, lower is better).


# %%
def by_regression(rows, new):
    """Mean, log density, and whether inside the interval, by a regression of `rows`."""
    found = np.full((3, *y.shape), np.nan)
    for level in (0, 1):
        t = regression(floor[rows], y[rows], np.full(1, level), 1)
        if t is not None:
            at = new & (floor == level)
            low, high = t.interval(0.9)
            inside = (low <= y[at]) & (y[at] <= high)
            found[:, at] = np.full(at.sum(), t.median()), t.logpdf(y[at]), inside
    return found


def by_partial_pooling(rows):
    some = meta.Episodes(data.x, data.y, rows, names=data.names, columns=data.columns)
    fit = pk.fit(meta.Linear(), some, method, key=key)
    new = pk.predict(fit, both, key=key)
    draws = new["mean"].values.reshape(-1, len(y), 2)
    ends = new["y"].quantile([0.05, 0.95], ("chain", "draw")).values
    # From a basement and a first floor per county to its homes.
    mean, ends = (
        np.take_along_axis(one, floor[None].astype(int), -1) for one in (draws, ends)
    )
    noise = fit.posterior["noise_sd"].values.reshape(-1, 1, 1)
    density = np.log(np.mean(scipy.stats.norm.pdf(y, mean, noise), 0))
    return np.stack([mean.mean(0), density, (ends[0] <= y) & (y <= ends[1])])


splits = []
for seed in range(3):
    known = seen & (np.random.default_rng(seed).uniform(size=seen.shape) < 0.5)
    own = np.full((3, *y.shape), np.nan)
    for i in range(len(y)):
        here = np.arange(len(y))[:, None] == i
        found = by_regression(known & here, seen & here)
        own = np.where(np.isnan(found), own, found)
    complete = by_regression(known, seen)
    sides = {"partial": by_partial_pooling(known), "complete": complete, "no": own}
    splits.append((known, sides))

# %%
ranges = {"0": (0, 0), "1 to 2": (1, 2), "3 to 5": (3, 5), "more": (6, 200)}
print("homes known  held out  pooling   predicted  error (rms)   NLL  in 90 % interval")
for name, (least, most) in (ranges | {"all": (0, 200)}).items():
    for side in ("partial", "complete", "no"):
        rows, errors, nll, inside = 0, [], [], []
        for known, sides in splits:
            count = known.sum(1)
            which = seen & ~known & ((count >= least) & (count <= most))[:, None]
            mean, density, within = sides[side][:, which]
            there = np.isfinite(mean)
            rows += which.sum()
            errors += [*(mean - y[which])[there]]
            nll += [*-density[there]]
            inside += [*within[there]]
        line = f"{name:>11}  {rows:>8}  {side:<9} {len(nll) / rows:>9.0%}"
        if nll:
            rms = np.sqrt(np.mean(np.square(errors)))
            line += f"  {rms:>11.2f}  {np.mean(nll):>4.2f}  {np.mean(inside):>16.0%}"
        print(line)

# %% [markdown]
# Partial pooling has the lowest NLL of the three here, by different amounts:
#
# - Where nothing is known of a county, it expects a typical county, with the spread of
#   counties. Complete pooling expects the average home, most of which are in a few large
#   counties.
# - With up to five homes it does better than either. A regression of the county's own
#   exists for some of them only, and its NLL is higher than that of complete pooling.
# - With more, a regression of their own comes close, and pooling does no harm.
#
# No pooling is scored on those homes that it can predict at all. All gains are small beside
# the spread of homes within a county, which no pooling explains.
#
# Three splits are few. In twenty, by `benchmarks/meta_groups.py`, complete pooling predicts
# slightly better than partial pooling where one or two homes of a county are known, and
# worse everywhere else. There is also a mixed model by restricted maximum likelihood: with
# 85 counties it predicts as well as this one; with eight groups half of its fits do not
# converge.
#
# ## To take away
#
# - Groups of the same kind lend each other strength. How much is learned from the data.
# - A new group has a prediction before its first observation.
# - Compare NLL, not the error alone. A regression of four homes may not be far off on
#   average, but it does not know how far.
#
# To try:
#
# 1. `x=["floor", "uranium"]`: the uranium in the soil of a county is one number per county,
#    so that one county says nothing of its slope, but all of them together do. What becomes
#    of the sd between counties?
# 2. `meta.Linear(num_components=2)`: are there two kinds of counties? Compare the ELBO,
#    `fitted.facts["elbo"]`.
# 3. Make `homes.log_radon` of one county larger by 3. Which others change?
