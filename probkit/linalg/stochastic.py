"""Log-determinants by random probes, with an error that covers all of their parts."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from probkit.linalg.masked import MaskedKroneckerPlusNoise
from probkit.linalg.questions import eigh, solve

HIGHEST = jax.lax.Precision.HIGHEST  # a GPU otherwise multiplies ten bits of float32
BLOCK = 16  # rows of the Lanczos basis that are used together
NODES = 256  # points of the integral for the logarithm


class Estimate(NamedTuple):
    """An estimate from random probes.

    Attributes:
        value: the estimate, one number.
        standard_error: its standard error, in the same units: the spread over probes, and
            `bracket`, added as independent errors.
        bracket: the part of the error that comes from the finite number of Lanczos steps.
            The value of these probes after infinitely many steps is within `value` plus or
            minus `bracket`.
    """

    value: Array
    standard_error: Array
    bracket: Array


def stochastic_logdet(
    op: MaskedKroneckerPlusNoise, key: Array, *, num_probes: int = 32, num_steps: int = 200
) -> Estimate:
    r"""An estimate of $\log|A|$ of the observed cells by Lanczos quadrature.

    $\log|A| = \mathrm{E}\, z^H \log(A)\, z$ with random signs $z$. After any number of
    Lanczos steps Gauss quadrature is an upper bound of a term, and Gauss-Radau quadrature
    with one node below the spectrum a lower bound. The eigenvalues of $Σ$ over the whole
    grid enclose those of $A$ and give that node. A term is the middle of its bounds. Steps
    end when half the distance of the bounds is below 1/50 of the standard error that the
    spectrum of $A$ lets expect, or after `num_steps`. Either way it is part of the error.

    The derivative uses the same probes, $\mathrm{mean}\, z^H A^{-1} dA\, z$. It is unbiased
    and costs one `solve` per probe, and is NaN where that is.

    Args:
        op: $A$.
        key: a JAX random key; the same key gives the same probes.
        num_probes: the number of $z$, at least 2; the standard error falls as one over the
            root of it.
        num_steps: the largest number of Lanczos steps. The basis is kept, which takes
            `num_steps` vectors. If $A$ is badly conditioned and they do not suffice, the
            bracket and with it the standard error are large.

    Returns:
        `Estimate(value, standard_error, bracket)`, in nats. All are NaN if $Σ$ is not
        positive definite to rounding.

    Source: Ubaru, Chen & Saad (2017), stochastic Lanczos quadrature; Golub & Meurant
    (2010), chapters 6 and 7, the bounds.
    """
    return _estimate(op, key, num_probes, num_steps)


@functools.partial(jax.jit, static_argnums=(2, 3), inline=True)
def _estimate(op, key, num_probes, num_steps):
    seen = op.mask.reshape(-1)
    signs = jax.random.rademacher(key, (num_probes, *seen.shape), dtype=op.dtype)
    # Cells that are not observed are no part of the determinant and need no probes.
    terms, brackets = _log_forms(num_steps, op, jnp.where(seen, signs, 0))
    spread = terms.std(ddof=1) / num_probes**0.5
    bracket = jax.lax.stop_gradient(brackets.mean())
    return Estimate(terms.mean(), jnp.hypot(spread, bracket), bracket)


def _log_forms_of(num_steps, op, probes):
    d, _ = eigh(op.grid)
    low, high = d.min(), d.max()
    return jax.lax.map(
        lambda z: _log_form(op.mv, z, low, high, num_steps, len(probes)), probes
    )


_log_forms = jax.custom_jvp(_log_forms_of, nondiff_argnums=(0,))


@_log_forms.defjvp
def _(num_steps, primals, tangents):
    # tr(A⁻¹ dA) ≈ mean Re (A⁻¹ z)ᴴ dA z; the probes do not move
    op, probes = primals
    d_op, _ = tangents

    def tangent(z):
        _, moved = jax.jvp(lambda A: A.mv(z), (op,), (d_op,))
        return jnp.vdot(solve(op, z), moved).real

    terms, brackets = _log_forms(num_steps, op, probes)
    return (terms, brackets), (jax.lax.map(tangent, probes), jnp.zeros_like(brackets))


class _State(NamedTuple):
    """After some steps; pivots and entries are those of $T / c + t$, at each node $t$."""

    step: Array
    basis: Array
    vector: Array
    largest: Array  # the largest diagonal entry of T so far
    entry: Array  # (T / c + t)⁻¹ at 1, 1
    weight: Array  # what one over the next pivot adds to the entry
    lost: Array  # what the last row takes from the next pivot
    lost_below: Array  # the same at the node below the spectrum
    bounds: Array  # lower and upper, of log A in the unit c, per unit of |z|²
    variance: Array  # of the logarithms of the spectrum, as z weights them


def _log_form(mv, z, low, high, num_steps, num_probes):
    r"""The middle of the bounds of $z^H \log(A)\, z$, and half their distance.

    With $T$ the matrix of Lanczos, Gauss quadrature is $|z|^2 (\log T)_{11}$, and

    $$\log λ = ∫ \left(\frac{e^u}{1 + e^u} - \frac{e^u}{λ + e^u}\right) du, \qquad
      \log^2 λ = ∫ 2u\, (…)\, du,$$

    so that entries of $(T + t)^{-1}$ suffice. They follow from its pivots, one row at a
    time, and no eigenproblem is solved. The trapezoidal rule is exact to rounding: the
    integrand is analytic in a strip of width $2π$, and the step is below 1/2. Each of its
    terms has derivatives with the signs of those of the logarithm, hence the bounds.
    """
    real = jnp.finfo(z.dtype)
    # Just below the spectrum, because rounding moves the lowest eigenvalue of T.
    low = 0.99 * low
    unit = jnp.sqrt(low) * jnp.sqrt(high)
    end = jnp.log(high / low) / 2 - jnp.log(real.eps)
    u = jnp.linspace(-end, end, NODES)
    t, width = jnp.exp(u), 2 * end / (NODES - 1)
    start = low / unit

    def integrals(entry):
        inside = jax.nn.sigmoid(u) - t * entry
        return width * inside.sum(), width * (2 * u * inside).sum()

    squared = jnp.vdot(z, z).real

    def unfinished(state):
        middle = jnp.abs(state.bounds).max()
        # The standard error of the mean of all probes, if the diagonal of log A is even.
        expected = jnp.sqrt(2 * state.variance / (squared * num_probes))
        limit = jnp.maximum(expected / 50, 1000 * real.eps * (1 + middle))
        half = (state.bounds[1] - state.bounds[0]) / 2
        return (state.step == 0) | ((half > limit) & (state.step < num_steps))

    def advance(s):
        basis = s.basis.at[s.step].set(s.vector)
        w = mv(s.vector) / unit
        alpha = jnp.vdot(s.vector, w).real
        largest = jnp.maximum(s.largest, alpha)
        w = _orthogonal(basis, w, s.step + 1)
        beta = jnp.linalg.norm(w)
        # The basis is complete: what follows has no weight.
        ended = beta <= 100 * real.eps * largest
        beta = jnp.where(ended, 0, beta)
        v = jnp.where(ended, 0, w / jnp.where(ended, 1, beta))
        # T / c + t = L D Lᴴ, with pivots δ_k = α_k + t - β²_{k-1} / δ_{k-1}, and
        # (T / c + t)⁻¹_11 = Σ_k Π_{i<k} (β_i / δ_i)² / δ_k
        pivot = alpha + t - s.lost
        entry = s.entry + s.weight / pivot
        ratio = beta / pivot
        weight, lost = s.weight * ratio**2, beta * ratio
        # Gauss-Radau: one row more, with α so that the lowest eigenvalue is the node below.
        lost_below = beta**2 / (alpha - start - s.lost_below)
        lower, _ = integrals(entry + weight / (start + lost_below + t - lost))
        upper, square = integrals(entry)
        variance = jnp.maximum(square - upper**2, 0)
        bounds = jnp.stack([lower, upper])
        return _State(
            s.step + 1, basis, v, largest, entry, weight, lost, lost_below, bounds, variance
        )

    rows = -(-num_steps // BLOCK) * BLOCK
    zero = jnp.zeros((), real.dtype)
    first = _State(
        step=jnp.zeros((), int),
        basis=jnp.zeros((rows, len(z)), z.dtype),
        vector=z / jnp.sqrt(jnp.where(squared > 0, squared, 1)),
        largest=zero,
        entry=jnp.zeros_like(t),
        weight=jnp.ones_like(t),
        lost=jnp.zeros_like(t),
        lost_below=zero,
        bounds=jnp.zeros(2, real.dtype),
        variance=zero,
    )
    lower, upper = jax.lax.while_loop(unfinished, advance, first).bounds
    middle = (lower + upper) / 2 + jnp.log(unit)
    return squared * middle, squared * jnp.abs(upper - lower) / 2


def _orthogonal(basis, w, count):
    """`w` without its part along the first `count` rows of the basis; the rest are 0."""

    def without(i, w):
        rows = jax.lax.dynamic_slice_in_dim(basis, i % blocks * BLOCK, BLOCK)
        along = jnp.matmul(rows.conj(), w, precision=HIGHEST)
        return w - jnp.matmul(along, rows, precision=HIGHEST)

    blocks = (count + BLOCK - 1) // BLOCK
    # Twice, which is enough against rounding.
    return jax.lax.fori_loop(0, 2 * blocks, without, w)
