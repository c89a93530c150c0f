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
# # An equation with two scales
#
# $u'' = f$ on $[0, 2\pi]$, with $u = \sin 6x \cos 100x$: fast waves whose amplitude changes
# slowly. A Gaussian process can solve such an equation if its kernel has these frequencies.
# This notebook finds them, solves the equation, and checks whether the 95 % intervals of
# the solution cover the error.
#
# It takes a minute or less. A second run is faster, because compiled programs are kept.

# %%
import warnings

import jax
import matplotlib.pyplot as plt
import numpy as np

import probkit as pk
from probkit.models import pde
from probkit.models.pde.spectrum import power

pk.enable_x64()  # these equations need float64
pk.use_compilation_cache()
key = jax.random.key(0)
BLUE, RED, GREY = "#4477AA", "#EE6677", "#999999"

# %% [markdown]
# ## The problem
#
# An equation is given by its *residual*, which is zero for the solution. Here the residual
# has to vanish at 400 points, and the values at both ends are given.


# %%
def exact(x):
    return np.sin(6 * x) * np.cos(100 * x)


def source(x):
    # sin 6x cos 100x = (sin 106x - sin 94x) / 2
    return (94**2 * np.sin(94 * x) - 106**2 * np.sin(106 * x)) / 2


def poisson(num):
    return pde.Problem(
        domain={"x": (0, 2 * np.pi)},
        residual=lambda u, x: u.dxx - source(x),
        boundary=pde.Dirichlet(exact),
        shape=num,
    )


problem = poisson(400)

# %% [markdown]
# ## Frequencies, before any fit
#
# An equation with constant coefficients changes the amplitude of a wave, not its frequency.
# The source therefore has the frequencies of the solution, and its spectrum shows them: 94
# and 106 over $2\pi$. The fit starts there.

# %%
fine, length = np.asarray(problem.fine_source), problem.length[0]
frequency, level = power(fine[None], length, padding=8)
found = np.asarray(problem.tones[0].frequency)

fig, ax = plt.subplots(figsize=(6.4, 2.8), layout="constrained")
ax.semilogy(frequency, level / level.max(), color=GREY)
for s in found:
    ax.axvline(s, color=RED, lw=1, ls="--")
ax.set(xlim=(10, 22), ylim=(1e-10, 2), xlabel="cycles per unit of x", ylabel="power")
plt.show()
print("found:", np.sort(found), "  true:", np.array([94, 106]) / (2 * np.pi))

# %% [markdown]
# ## A kernel with one scale is not enough
#
# A kernel that has only a *trend*, which is a component at frequency zero, cannot explain
# this source. We keep the same 400 points and give the kernel no other frequencies. With
# `learn=False` the kernel stays at its start.

# %%
smooth = pde.SpectralGP(frequencies=(("x", ()),))
one_scale = pk.fit(smooth, problem, pde.Closed(learn=False), key=key, throw=False)
pk.diagnose(one_scale)

# %% [markdown]
# The residual between the points is many thousands of times its prior sd under this kernel,
# so the equation is not solved.
#
# ## The fit
#
# With one tone per peak of the spectrum, the solution for a given kernel is one
# least-squares problem. `Closed` solves it, and maximises the evidence times the prior to
# estimate the weights, frequencies and lengthscales.

# %%
fit = pk.fit(pde.SpectralGP(), problem, pde.Closed(), key=key)
pk.diagnose(fit)

# %%
sites = fit.sites()
for s, w in zip(sites["frequency_x"], sites["weight_x"], strict=True):
    print(f"2π × frequency {2 * np.pi * s:10.5f}   weight {w:.3f}")

# %% [markdown]
# The frequencies are 94 and 106, and component 0, at zero, is the trend. Here is the
# solution at 1000 points, most of which are not on the grid:

# %%
x = np.linspace(0, 2 * np.pi, 1000)
truth = exact(x)


def relative_error(values):
    return np.linalg.norm(values - truth) / np.linalg.norm(truth)


solved = pk.predict(fit, x, key=key)
mean, sd = solved.u_mean.values.ravel(), solved.u_sd.values.ravel()
error = mean - truth

fig, axes = plt.subplots(2, 1, figsize=(6.4, 4.6), layout="constrained")
part = x < 1.2
axes[0].plot(x[part], truth[part], color=GREY, lw=4, alpha=0.5, label="exact")
axes[0].plot(x[part], mean[part], color=BLUE, lw=1, label="solved")
axes[0].legend(loc="upper right", ncols=2)
axes[0].set(ylabel="u", ylim=(-1.1, 1.7))
axes[1].fill_between(x, -1.96 * sd, 1.96 * sd, color=BLUE, alpha=0.25, lw=0)
axes[1].plot(x, error, color=RED, lw=0.8)
axes[1].set(xlabel="x", ylabel="error, 95 % interval")
plt.show()

covered = np.mean(np.abs(error) < 1.96 * sd)
print(
    f"relative error {relative_error(mean):.1e}; "
    f"the 95 % interval covers {covered:.1%} of the points"
)

# %% [markdown]
# ## Where the intervals come from
#
# The posterior treats the residual as if it were measured with a little noise,
# `equation_sd`, which makes the algebra possible. In truth there is no such noise, so the
# intervals of the plain posterior are far too wide:

# %%
plain = pde.SpectralGP(calibrated=False).integrated(sites, problem)
naive = np.asarray(plain.sd_on((x,)))
inside = slice(1, -1)  # at the ends u is given
for name, width in {"plain": naive, "calibrated": sd}.items():
    covered = np.mean(np.abs(error)[inside] < 1.96 * width[inside])
    print(
        f"{name:>10}: median sd {np.median(width[inside]):.1e}, covers {covered:.1%} "
        f"(median error {np.median(np.abs(error)):.1e})"
    )

# %% [markdown]
# The calibrated sds are the plain ones times a factor. The factor comes from a second,
# stricter solution, at other points (the midpoints) and with a hundredth of the tolerance.
# With the factor, 95 % intervals cover 95 % of the differences between the two solutions.
# The true solution is not used. The factor measures a difference between two
# approximations. It is not a bound of the error. If both are wrong in the same way, the
# intervals do not show it. The next section has such a case.
#
# ## Aliases
#
# On 200 points of $[0, 2\pi]$ a wave of more than 15.84 cycles per unit (Nyquist) looks
# like a slower one. The residual then vanishes at *every* grid point for a false solution
# as well. `Problem` warns:

# %%
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    coarse = poisson(200)
print(caught[0].category.__name__, "-", caught[0].message)

# %% [markdown]
# The start frequencies come from the source on a finer grid, so a fit that starts there may
# still be right. Let us start at a false frequency instead. The true frequency
# $\mu$ above Nyquist is mirrored to $2 \cdot 15.84 - \mu$, which is below Nyquist.

# %%
slow, fast = np.array([94, 106]) / (2 * np.pi)
folded = (float(slow), float(2 * coarse.nyquist[0] - fast))
misled = pde.SpectralGP(frequencies=(("x", folded),))
aliased = pk.fit(misled, coarse, pde.Closed(learn=False), key=key, throw=False)
curve = pk.predict(aliased, x, key=key).u_mean.values.ravel()
print(f"frequencies {folded}: relative error {relative_error(curve):.1e}")
pk.diagnose(aliased)

# %% [markdown]
# The check of frequencies passes, because the kernel has none above Nyquist. The residual
# *between* the points shows that the solution is false. The warning gives the number of
# points that is enough.
#
# ## Comparison with a classical solver
#
# For a smooth equation in one dimension an ordinary Chebyshev solver is hard to beat. It
# takes twenty lines.

# %%
from time import perf_counter

from scipy.interpolate import BarycentricInterpolator


def chebyshev(num):
    "u at `x`, by collocation at Chebyshev points."
    k = np.arange(num)
    t = np.cos(np.pi * k / (num - 1))
    c = np.where((k == 0) | (k == num - 1), 2.0, 1.0) * (-1.0) ** k
    gaps = t[:, None] - t + np.eye(num)
    D = np.outer(c, 1 / c) / gaps
    D -= np.diag(D.sum(1))
    at = np.pi * (t + 1)
    A, b = D @ D / np.pi**2, source(at)
    A[[0, -1]] = np.eye(num)[[0, -1]]
    b[[0, -1]] = exact(at[[0, -1]])
    weights = c.copy()
    weights[[0, -1]] /= 4
    return BarycentricInterpolator(at, np.linalg.solve(A, b), wi=weights)(x)


for num in (300, 400):
    began = perf_counter()
    values = chebyshev(num)
    print(
        f"Chebyshev, {num} points: relative error {relative_error(values):.1e}, "
        f"{perf_counter() - began:.2f} s"
    )

# %% [markdown]
# With 400 points it is as accurate, in a fraction of the time, and compiles nothing. A
# Gaussian process does not solve this equation faster. But it estimates the frequencies,
# gives an evidence by which to compare models, and has intervals. The same code takes noisy
# observations in place of boundary values, and unknown coefficients.
# [The heat of the ocean](heat_of_the_ocean.py) shows both.
#
# To try:
#
# 1. `pde.SpectralGP(envelope="gaussian")`. How do the error and the intervals change?
# 2. Add $0.001 \sin 30x$ to the solution. Is it found? At which amplitude is it no longer
#    found?
# 3. Give the boundary value at one end only, and the slope: `pde.Neumann`.
