r"""Fixed waves in the place of the covariance matrix, for many observations on a line.

A stationary kernel that repeats after a length $B$ is a sum of waves,

$$\sum_p k(d + p B) = c_0 + 2 \sum_{j ≥ 1} c_j \cos(2π j d / B), \qquad
  c_j = \frac1B S(j / B) ≥ 0,$$

with $S$ the spectrum of $k$, so that with $j$ up to $m$ the function is a sum of $2m + 1$
waves with independent normal weights of variances $c_j$. The waves do not depend on the
kernel: their products, summed over the observations, are computed once, and an evaluation
of the density costs $O(m^3 + n m)$.

It departs from the kernel in two ways. What the function has at frequencies above $m / B$
counts as independent from place to place, as noise does: without it, a kernel of fast
waves only would be free of cost. And the function repeats, so that the kernel at a lag $d$
gets what it is at $B - d$; its variance is held at $k(0)$. `error` measures both.

Source: Greengard, Rachh & Barnett (2022), "Equispaced Fourier representations for
efficient Gaussian process regression from a billion data points", arXiv 2210.10210.
Departs: the spectrum is the Fourier transform of the repeated kernel, so that products of
kernels have one.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from probkit.distributions import FeatureNormal
from probkit.gp.mixture import is_known
from probkit.model.density import Sites
from probkit.models.gp.kernels import (
    AbstractStationary,
    Linear,
    Structure,
    columns_of,
    title,
)
from probkit.models.gp.ring import AROUND, Features, gram

# Lags per wave of the Fourier transform, and how often the kernel is repeated.
FINENESS, REPEATS = 8, 10
# A kernel that does not decay is made to, so that its repetitions end: the sd of a bell
# that multiplies all kernels, in lengths of the ring. At a lag of the length of the data
# the kernel is lowered by 0.35 %.
BELL = 2.0
# Variances are at least this share of the largest, so that their roots have derivatives.
LEAST = 1e-14


def refuse_no_waves(structure: Structure, num: int) -> None:
    """Refuse kernels that are no function of the lag, besides a line alone."""
    for term in structure.terms:
        leaves = [structure.leaves[name] for name in term]
        if len(leaves) == 1 and isinstance(leaves[0], Linear):
            continue
        for leaf in leaves:
            if not isinstance(leaf, AbstractStationary):
                raise ValueError(
                    f"`Regression` got `{type(leaf).__name__}()` for {num:,} observations "
                    "by `num_waves`; it takes functions of the lag, such as `gp.Matern()`, "
                    "and `gp.Linear()` as a term of its own."
                )


def refuse_too_far(x: Float[Array, " m"], data: Any) -> None:
    """Refuse places where the waves repeat. Traced ones are not checked."""
    if not (is_known(x) and is_known(data.ring.low)):
        return
    places, low = np.asarray(x), float(data.ring.low)
    extent = float(data.ring.length) / AROUND
    if ((places < low - extent) | (places > low + 2 * extent)).any():
        raise ValueError(
            "`predict(..., inputs)` has places further from the data than their length, "
            f"{extent:.4g}, where fixed waves repeat; predict nearer ones, or fit "
            "10,000 observations or fewer without `num_waves`."
        )


def variances(structure: Structure, sites: Sites, data: Any) -> Float[Array, "t p"]:
    """The variances of the waves and of the line, of each term."""
    ring, m = data.ring, data.ring.num_waves
    size = FINENESS * m
    lags = jnp.arange(REPEATS * size + size // 2 + 1, dtype=data.y.dtype)
    every = []
    for term in structure.terms:
        own = structure.has_own_sd(term)
        scale = 1.0 if own else sites[f"sd_{title(term)}"] ** 2
        if isinstance(structure.leaves[term[0]], Linear):
            line = jnp.zeros(2 * m + 2, data.y.dtype).at[-1].set(scale)
            every.append(line)
            continue
        k = _at(structure, term, sites, data, lags * (ring.length / size))
        k = k * jnp.exp(-0.5 * (lags / (BELL * size)) ** 2)
        r = jnp.arange(size // 2 + 1)
        again = [k[p * size + r] + k[p * size - r] for p in range(1, REPEATS + 1)]
        half = k[r] + sum(again)
        whole = jnp.concatenate([half, half[-2:0:-1]])
        c = jnp.fft.rfft(whole).real[: m + 1] / size
        c = jnp.maximum(c, 0.0)  # below zero by what the last repetition cuts off
        # A wave that lasts for longer than the ring would get the variance of all its
        # repetitions, and more variance for a longer time.
        total = c[0] + 2 * c[1:].sum()
        c = c * jnp.where(total > k[0], k[0] / jnp.where(total > 0, total, 1.0), 1.0)
        every.append(scale * jnp.concatenate([c, c[1:], jnp.zeros(1, c.dtype)]))
    return jnp.stack(every)


def _at(structure, term, sites, data, lags):
    """The product of the correlations of a term at lags."""
    value = jnp.ones_like(lags)
    for name in term:
        leaf = structure.leaves[name]
        column = columns_of(leaf, data)
        θ = {p: sites[f"{p}_{name}"] for p in leaf.priors(column)}
        value = value * leaf.at(θ, column, lags[:, None])
    return value


def left_out(structure: Structure, sites: Sites, data: Any, λ) -> Float[Array, ""]:
    """The variance of the function at frequencies above the highest wave."""
    nowhere = jnp.zeros(1, data.y.dtype)
    total = jnp.zeros((), data.y.dtype)
    for term, own_λ in zip(structure.terms, λ, strict=True):
        if not isinstance(structure.leaves[term[0]], Linear):
            own = structure.has_own_sd(term)
            scale = 1.0 if own else sites[f"sd_{title(term)}"] ** 2
            whole = scale * _at(structure, term, sites, data, nowhere)[0]
            # cos² and sin² of a wave add up to one
            total = total + jnp.maximum(whole - own_λ[:-1].sum(), 0.0)
    return total


def evidence(structure: Structure, sites: Sites, data: Any, noise_sd) -> FeatureNormal:
    """$p(y)$ given the sites, with the waves integrated out."""
    every = variances(structure, sites, data)
    λ = every.sum(0)
    return FeatureNormal(
        sites["level"],
        gram(data.ring),
        jnp.maximum(λ, LEAST * λ.max()),
        noise_sd**2 + left_out(structure, sites, data, every),
        Features(data.x[:, 0], data.ring),
        len(data),
    )


def predict(structure: Structure, sites: Sites, data: Any, x, noise_sd, key) -> Sites:
    """At new places: a joint draw with noise, and mean and sd without."""
    known = evidence(structure, sites, data, noise_sd)
    mean, root = known.weights(data.y)
    of_weights, of_noise = jax.random.split(key)
    there = Features(x[:, 0], data.ring)
    drawn = jax.random.normal(of_weights, mean.shape, mean.dtype)
    moved = jax.scipy.linalg.solve_triangular(root, drawn, lower=True, trans=1)
    moved = jnp.sqrt(known.noise) * moved
    noise = jnp.sqrt(known.noise) * jax.random.normal(of_noise, (len(x),), mean.dtype)

    def signal(w):
        return sites["level"] + there.expand(known.root_variance * w)

    variance = known.variances(root, there)
    return {
        "y": signal(mean + moved) + noise,
        "mean": signal(mean),
        # What is left out is a part of the function.
        "sd": jnp.sqrt(variance + known.noise - noise_sd**2),
    }


def terms(structure: Structure, sites: Sites, data: Any, noise_sd) -> Sites:
    """The mean of each term at the data, exact given the waves."""
    known = evidence(structure, sites, data, noise_sd)
    weights = variances(structure, sites, data) * known.precision_times(data.y)
    return {"term_mean": jax.lax.map(known.features.expand, weights)}


def error(structure: Structure, sites: Sites, data: Any) -> Float[Array, ""]:
    """The largest error of the kernel at lags of the data, relative to its variance."""
    ring, m = data.ring, data.ring.num_waves
    λ = variances(structure, sites, data)
    # Even lags from zero to the length of the data: 1,000, and not those of the sum.
    lags = jnp.linspace(0.0, ring.length / AROUND, 1000, dtype=data.y.dtype)
    waves = jnp.cos(2 * math.pi * lags[:, None] * jnp.arange(m + 1) / ring.length)
    scale = jnp.where(jnp.arange(m + 1) == 0, 1.0, 2.0)
    wrong, total = jnp.zeros_like(lags), jnp.zeros((), lags.dtype)
    for term, own_λ in zip(structure.terms, λ, strict=True):
        if isinstance(structure.leaves[term[0]], Linear):
            continue
        own = structure.has_own_sd(term)
        variance = 1.0 if own else sites[f"sd_{title(term)}"] ** 2
        exact = variance * _at(structure, term, sites, data, lags)
        wrong = wrong + waves @ (scale * own_λ[: m + 1]) - exact
        total = total + exact[0]
    return jnp.max(jnp.abs(wrong)) / jnp.where(total > 0, total, 1.0)
