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
# # The heat of the ocean
#
# Deep water is cold because it sank near the poles. It rises slowly, while heat mixes
# downwards. If nothing else happens, the temperature $\theta$ at depth $z$ (downward) obeys
#
# $$\theta_{zz} + \frac{1}{h}\, \theta_z = 0, \qquad h = \frac{\kappa}{w},$$
#
# with mixing $\kappa$ and upward velocity $w$ (Munk 1966). The temperature alone determines
# their ratio, a length. This notebook estimates it from readings, with an *equation whose
# coefficient is unknown*, and then checks whether the equation holds. It does not.
#
# It takes a minute or two. A second run is faster, because compiled programs are kept.

# %%
import jax
import matplotlib.pyplot as plt
import numpy as np
from scipy.optimize import least_squares

import probkit as pk
from probkit import datasets
from probkit.models import pde

pk.enable_x64()  # these equations need float64
pk.use_compilation_cache()
key = jax.random.key(0)
BLUE, RED, GREY = "#4477AA", "#EE6677", "#999999"

# %% [markdown]
# ## The data
#
# December 1984 in the tropical Atlantic, from an ocean *model* into which measurements
# were assimilated (GODAS). They are not direct measurements. We keep the levels from 0.9 to
# 4 km, and take the mean over 48 places. Depths are in km, so that the values are near one.

# %%
water = datasets.atlantic().sel(depth=slice(900, 4000))
z = water.depth.values / 1000
places = ("latitude", "longitude")
theta = water.temperature.mean(places).values

fig, ax = plt.subplots(figsize=(3.8, 4.2), layout="constrained")
profiles = water.temperature.stack(place=places).transpose("depth", "place").values
ax.plot(profiles, z, color=GREY, lw=0.5, alpha=0.6)
ax.plot(theta, z, "o-", color=RED, label="mean")
ax.set(xlabel="temperature (°C)", ylabel="depth (km)")
ax.invert_yaxis()
ax.legend()
plt.show()

# %% [markdown]
# ## Two balances as residuals
#
# The second one has a supply of heat from the sides, which is the same at all depths. Each
# coefficient has a range, and its prior is uniform in this range. There is no boundary
# value. The nine means are observations, whose noise is estimated.

# %%
box, window = {"z": (0.9, 4.0)}, pde.Observations(z, theta)
rate, supply = {"rate": (0, 3)}, {"supply": (-1, 2)}  # 1/km, K/km²


def balance(observed):
    return pde.Problem(
        box,
        lambda u, z, c: u.dzz + c.rate * u.dz,
        observations=observed,
        unknown=rate,
        shape=16,
    )


def supplied(observed):
    return pde.Problem(
        box,
        lambda u, z, c: u.dzz + c.rate * u.dz + c.supply,
        observations=observed,
        unknown=rate | supply,
        shape=16,
    )


# %% [markdown]
# `equation_sd` is the tolerance of the equation, relative to the prior sd of its residual.
# For these readings a tolerance of a thousandth means that the equation holds almost
# exactly. Smooth curves need few waves (`num_nodes`) and few points.

# %%
model = pde.SpectralGP(equation_sd=1e-3, num_nodes=16)
problems = {"balance": balance(window), "with supply": supplied(window)}
fits = {
    name: pk.fit(model, problem, pde.Closed(), key=key)
    for name, problem in problems.items()
}
rests, draws = {}, ("chain", "draw")
for name, fit in fits.items():
    sites = fit.sites()
    rests[name] = theta - pk.predict(fit, z, key=key).u_mean.mean(draws).values
    print(
        f"{name:>12}: h = {1 / sites['rate']:.3f} km, "
        f"noise {1000 * sites['noise_sd']:.1f} mK, "
        f"log evidence {fit.facts['evidence']:.1f}"
    )

# %% [markdown]
# ## Does the equation hold?
#
# The means are smooth to a few thousandths of a degree. The noise
# estimated with the first balance is many times as large, and its misfit is one smooth
# wave:

# %%
fig, ax = plt.subplots(figsize=(4.6, 3.6), layout="constrained")
for (name, rest), colour in zip(rests.items(), (RED, BLUE), strict=True):
    ax.plot(1000 * rest, z, "o-", color=colour, label=name)
ax.axvline(0, color=GREY, lw=0.8)
ax.set(xlabel="misfit: reading minus fit (mK)", ylabel="depth (km)")
ax.invert_yaxis()
ax.legend()
plt.show()

# %% [markdown]
# That is not noise, because noise is not smooth. An estimated noise level contains all
# errors of the model, so look at the misfit before you trust an interval.
#
# Both equations have solutions in closed form: $a + b\,e^{-(z-1)/h}$, and with a supply $s$
# also $c\,(z - 1)$ with $c = -h\,s$. Ordinary least squares is therefore a check:


# %%
def columns(h, z, extra):
    return np.stack([np.ones_like(z), np.exp(-(z - 1) / h)] + [z - 1] * extra, 1)


def least(z, values, extra, starts=(0.4, 0.8, 1.6)):
    "h, coefficients and misfit of the best curve."

    def rest(log_h):
        X = columns(np.exp(log_h[0]), z, extra)
        return values - X @ np.linalg.lstsq(X, values)[0]

    runs = (least_squares(rest, [np.log(h)]) for h in starts)
    best = min(runs, key=lambda run: run.cost)
    h = np.exp(best.x[0])
    return h, np.linalg.lstsq(columns(h, z, extra), values)[0], best.fun


def left_out(extra):
    "Prediction error at each level, after a fit to the other levels."
    errors = []
    for i in range(z.size):
        others = np.arange(z.size) != i
        h, c, _ = least(z[others], theta[others], extra)
        errors.append(theta[i] - columns(h, z[i : i + 1], extra)[0] @ c)
    return np.array(errors)


for name, extra in {"balance": 0, "with supply": 1}.items():
    h, c, rest = least(z, theta, extra)
    rms = 1000 * np.sqrt(np.mean(rest**2))
    out = 1000 * np.sqrt(np.mean(left_out(extra) ** 2))
    print(
        f"{name:>12}: h = {h:.3f} km, rms {rms:.1f} mK; "
        f"error at a level held out: {out:.1f} mK"
    )
s = -c[2] / h
print(f"supply {s:.3f} K/km² (ours: {fits['with supply'].sites()['supply']:.3f})")

# %% [markdown]
# Least squares agrees. Predictions of held-out levels decide between the two balances: the
# first one fails, and the one with a supply does not. With the supply, $h$ is *half* as
# large. The first $h$ had a narrow interval and was still wrong.
#
# ## The posterior
#
# `Closed` finds the best coefficients, and draws from a normal distribution about them.
# NUTS samples them as they are, together with the kernel and the noise, and starts where
# `Closed` ended. Rate and supply are correlated, so we use a dense mass matrix.

# %%
nuts = pk.NUTS(
    num_chains=2,
    num_warmup=100,
    num_samples=150,
    dense_mass=True,
    max_tree_depth=4,
    chain_method="vectorized",
)
full = pk.fit(
    model, problems["with supply"], nuts, key=key, start=fits["with supply"], throw=False
)
pk.diagnose(full)

# %% [markdown]
# Some checks fail, as they should. This run is short so that it is fast. Nine readings
# hardly determine the sites of the kernel, which do not mix in 150 draws, and trajectories
# reach their longest allowed length. The interval below is therefore only a rough one.
# Check at least that the chains agree on $h$. (The check of the residual is meant for the
# solution of an equation. Here the equation has to hold only to a thousandth.)

# %%
post = full.posterior
print("h by chain:", (1 / post.rate.median("draw")).values.round(4), "km")
h = 1 / post.rate.values.ravel()
low, mid, high = np.quantile(h, [0.05, 0.5, 0.95])
print(f"h = {mid:.3f} km, 90 % from {low:.3f} to {high:.3f}")

between = np.linspace(0.9, 4.0, 60)
found = pk.predict(fits["with supply"], between, key=key)
mean = found.u_mean.mean(draws)
# What is unknown for known coefficients, and what the coefficients add.
sd = np.sqrt((found.u_sd**2).mean(draws) + found.u_mean.var(draws))
half = 1000 * 1.645 * sd

fig, axes = plt.subplots(1, 2, figsize=(7.2, 3.6), layout="constrained")
axes[0].scatter(h, post.supply.values.ravel(), s=6, color=BLUE, alpha=0.5)
axes[0].set(xlabel="h (km)", ylabel="supply (K/km²)")
# The 90 % interval is narrow, so the plot shows it and the readings after subtracting the
# mean curve.
axes[1].fill_betweenx(between, -half, half, color=BLUE, alpha=0.3, lw=0)
curve = np.interp(z, between, mean)
axes[1].plot(1000 * (theta - curve), z, "o", color=RED, ms=4)
axes[1].set(xlabel="difference from the mean curve (mK)", ylabel="depth (km)")
axes[1].invert_yaxis()
plt.show()

# %% [markdown]
# ## Can that interval be trusted?
#
# It is right if the balance is exact and the errors of the nine readings are independent.
# But water is much the same at neighbouring places, so 48 places are not 48 independent
# readings. Resample the eight meridional sections instead, each as a whole, and fit the
# means again:

# %%
rng = np.random.default_rng(0)


def resampled(variable, extra, num=100):
    depths = []
    for _ in range(num):
        picked = rng.integers(0, water.longitude.size, water.longitude.size)
        mean = water[variable].isel(longitude=picked).mean(places).values
        depths.append(least(z, mean, extra, starts=(0.8,))[0])
    return np.array(depths)


again = {extra: resampled("temperature", extra) for extra in (0, 1)}
for name, extra in {"balance": 0, "with supply": 1}.items():
    ends = np.quantile(again[extra], [0.05, 0.95])
    print(
        f"{name:>12}: over sections, sd of h {again[extra].std():.3f} km, "
        f"90 % from {ends[0]:.2f} to {ends[1]:.2f}"
    )
print(f"sd of the posterior, with supply: {h.std():.3f} km")

# %% [markdown]
# The posterior is several times too narrow to cover another choice of sections. Use the
# interval over sections for $h$, *given* the balance with a supply.
#
# Is it the right balance? Salt rises and mixes with the same water, so it must have the
# same $h$. Salinity has a maximum in the middle, which $a + b\,e^{-z/h}$ cannot have, so
# the first balance is wrong for salt. We fit salinity with its own supply:

# %%
salt = resampled("salinity", 1)
print(
    f"h of salt: 90 % from {np.quantile(salt, 0.05):.2f} to {np.quantile(salt, 0.95):.2f}"
)
print(f"h of heat: 90 % from {ends[0]:.2f} to {ends[1]:.2f}")

# %% [markdown]
# Salt has a different $h$, so $h$ is not a property of the water. The supply stands for
# currents that differ with depth, as they do in the Atlantic, where water from the north
# lies over water from the south. Munk's balance was made for the Pacific.
#
# ## To take away
#
# - An unknown coefficient is a name in the residual and a range. It gets a posterior.
# - Only ratios are identified here: $\kappa/w$ and supply over $\kappa$. No temperature,
#   however exact, determines $\kappa$ or $w$.
# - A wrong equation gives a wrong answer with a narrow interval. The misfit showed that it
#   was wrong, and the interval did not.
# - A posterior is only as good as its noise model. Resample what is independent, here the
#   sections.
#
# To try:
#
# 1. Let NUTS run until all its checks pass: `num_warmup=1000, num_samples=1000` and the
#    default `max_tree_depth`. It takes a while. Does the interval of $h$ change?
# 2. Observe single places instead of means: `pde.Observations` takes any number of values
#    at one depth. How do the noise, and $h$ in both balances, change?
# 3. `pde.SpectralGP(equation_sd=None)` estimates the tolerance of the equation. Does it
#    show that the balance without a supply is wrong?
# 4. Let $h$ grow with depth: `lambda u, z, c: (c.h + c.growth * (z - 2)) * u.dzz + u.dz`.
