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
# # What a kernel says
#
# A Gaussian process has one decision in it, the kernel. Inside the data many kernels give
# nearly the same curve. Beyond the data they differ, because there a kernel says what goes
# on: a trend, a season, or nothing. This notebook fits one series by three kernels, looks
# at what each continues, and at how the diagnosis shows the wrong ones.
#
# It takes a minute or two.

# %%
import jax
import matplotlib.pyplot as plt
import numpy as np

import probkit as pk
from probkit.models import gp

pk.enable_x64()
pk.use_compilation_cache()
key = jax.random.key(0)
BLUE, RED, GREY = "#4477AA", "#EE6677", "#999999"

# %% [markdown]
# ## The series
#
# Ten years of monthly values, simulated: a slope that changes, a season whose shape stays,
# and noise of sd 0.3. We fit the first seven years and keep the last three to compare.

# %%
rng = np.random.default_rng(3)
year = np.arange(120) / 12
slope = 0.8 + np.cumsum(0.03 * rng.normal(size=120))
trend = np.cumsum(slope) / 12
season = 1.2 * np.sin(2 * np.pi * year) + 0.5 * np.cos(4 * np.pi * year)
value = 10 + trend + season + 0.3 * rng.normal(size=120)
known, later = year < 7, year >= 7
data = gp.Observed(year[known], value[known])

fig, ax = plt.subplots(figsize=(6.4, 2.6), layout="constrained")
ax.plot(year[known], value[known], ".", color=GREY, label="fitted")
ax.plot(year[later], value[later], ".", color=RED, label="kept for later")
ax.set(xlabel="year", ylabel="value")
ax.legend()
plt.show()

# %% [markdown]
# ## Three kernels
#
# - *smooth*: `SquaredExponential()`. Near values are alike, and nothing else.
# - *season*: `Periodic(1.0)`. Every year is the same. There is no trend.
# - *both*: `Linear() + Drift() + Periodic(1.0)`. A line whose slope wanders, and a season.

# %%
KERNELS = {
    "smooth": gp.SquaredExponential(),
    "season": gp.Periodic(1.0),
    "both": gp.Linear() + gp.Drift() + gp.Periodic(1.0),
}
fits = {
    name: pk.fit(gp.Regression(kernel), data, pk.MAP(4, num_draws=100), key=key)
    for name, kernel in KERNELS.items()
}

# %% [markdown]
# `predict` gives new values with their noise (`y`), and the mean and sd of the function.
# The band holds 90 % of the new values, if the kernel is right.

# %%
fig, axes = plt.subplots(3, 1, figsize=(6.4, 7), sharex=True, layout="constrained")
found = {}
for ax, (name, fit) in zip(axes, fits.items(), strict=True):
    new = pk.predict(fit, year, key=key)
    low, high = new["y"].quantile([0.05, 0.95], ("chain", "draw")).values
    mean = new["mean"].mean(("chain", "draw")).values
    ax.fill_between(year, low, high, color=BLUE, alpha=0.25, lw=0)
    ax.plot(year, mean, color=BLUE)
    ax.plot(year[known], value[known], ".", color=GREY)
    ax.plot(year[later], value[later], ".", color=RED)
    ax.set(ylabel=name)
    inside = (low < value) & (value < high)
    error = np.sqrt(np.mean((mean - value)[later] ** 2))
    found[name] = error, inside[known].mean(), inside[later].mean()
axes[-1].set(xlabel="year")
plt.show()
for name, (error, before, after) in found.items():
    print(
        f"{name:>7}: error {error:.2f} later; in the band {before:.0%}, later {after:.0%}"
    )

# %% [markdown]
# *Smooth* follows the fitted years. Beyond them it returns to its level within one
# lengthscale, and its band is that of all values. *Season* repeats the year, and explains
# the trend as noise, so that its band is wide, and still too low later. *Both* goes on
# along the last slope with the season on top, in a band that widens.
#
# ## How the diagnosis shows it
#
# Inside the data the curves look alike, so a look at the fit says little. `diagnose` asks
# what a wrong kernel leaves behind. Residuals that look like their neighbours are a pattern
# that the kernel does not have. An end of the data that the rest does not predict will not
# be predicted beyond it, either.

# %%
for name, fit in fits.items():
    report = pk.diagnose(fit)
    failed = [check for check in report if not check.ok]
    print(f"{name}: {'no complaint' if not failed else ''}")
    for check in failed:
        print(f"   {check.name} = {check.value:.2f} ({check.side} {check.limit:.2f})")

# %% [markdown]
# *Season* is refused: its residuals are the trend. *Smooth* may pass every check. It is
# not wrong about the years that it saw; it only has nothing to say about later ones. No
# check of a fit can know what the future does. A comparison on values that were kept back
# can show it, as above. So can the log density of each value given the others, which is
# higher for the kernel that knows more:

# %%
for name, fit in fits.items():
    sites = {k: jax.numpy.asarray(v) for k, v in fit.sites().items()}
    each = fit.model.pointwise(sites, data)["y"]
    print(f"{name:>7}: {float(each.mean()):6.2f} nats per value, given all others")

# %% [markdown]
# ## The parts
#
# A sum of kernels is a sum of functions. `recover` gives each of them, with its sd, so that
# one can look at the trend without the season.

# %%
parts = pk.recover(fits["both"], key=key)
fig, axes = plt.subplots(3, 1, figsize=(6.4, 5), sharex=True, layout="constrained")
for ax, name in zip(axes, parts["term"].values, strict=True):
    part = parts.sel(term=name).mean(("chain", "draw"))
    mean, sd = part["term_mean"].values, part["term_sd"].values
    ax.fill_between(year[known], mean - 1.64 * sd, mean + 1.64 * sd, color=BLUE, alpha=0.25)
    ax.plot(year[known], mean, color=BLUE)
    ax.set(ylabel=name)
axes[-1].plot(year[known], season[known], color=GREY, ls="--", label="simulated")
axes[-1].legend(loc="upper right")
axes[-1].set(xlabel="year")
plt.show()

# %% [markdown]
# To try:
#
# 1. `gp.Periodic(1.0) * gp.Matern()` in place of the season: one that changes slowly. How
#    wide is the band after three years?
# 2. `gp.SpectralMixture()` in place of the season, which looks for the waves itself.
# 3. Leave out the `Drift()`. Which check, if any, shows that the slope changes?
# 4. `pk.NUTS()` in place of `pk.MAP()`. Is the band wider?
