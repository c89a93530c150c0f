r"""The posterior of the coefficients given the variances, from P small eigenproblems.

With prior variances $γ = γ_1 ⊗ … ⊗ γ_P$ and noise variance $σ^2$,

$$Σ_y = σ^2 I + A \,\mathrm{diag}(γ)\, A^H = U \,\mathrm{diag}(d)\, U^H, \quad
  U = ⊗_p U_p, \quad d = σ^2 + ⊗_p s_p, \quad
  A_p \,\mathrm{diag}(γ_p)\, A_p^H = U_p \,\mathrm{diag}(s_p)\, U_p^H.$$

Nothing here is an approximation, because the covariances of signal and noise are both
Kronecker products. With two or more modes, no matrix has a side as long as all measurements
or all coefficients. If measurements are missing, $U$ and $d$ are those of the dense
covariance of the seen ones (see `coordinates`), and all else is the same.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact, PRNGKeyArray

from probkit.linalg import KroneckerPlusNoise, abs2, eigh, mode_products, outer
from probkit.method.programs import jit_for_one_run
from probkit.models.sbl.coordinates import AbstractBasis, Center, Matrices, Vectors
from probkit.models.sbl.measurements import Measurements
from probkit.validate import short


class Posterior(eqx.Module):
    r"""Exact posterior of the coefficients, $x \mid y, γ, σ^2$, and the evidence.

    Attributes:
        variance: prior variances $γ_p$ of each mode, shape `(N_p,)`. Their product is in
            squared units of the coefficients.
        noise: $σ^2$, in squared units of `y`.
        basis: $B = A^H U$.
        spectrum: $d$, eigenvalues of $Σ_y$, shape `(m_1, …, m_P)`, or `(m,)` if
            measurements are missing.
        rotated: $Z = U^H y$, of the same shape.
        rest: squared norm of the part of `y` that no coefficients can change.
        num_rest: number of dimensions of that part.
        center: means of the data, if they have an intercept. Given the coefficients it is
            normal, $b \mid x \sim N(\bar y - \bar a x,\ σ^2 / M)$.

    With $m$ rows and $n$ atoms in each mode, the cost is $O(m^3 + n m^2)$ per mode for the
    eigenproblems and $O(n m^P + … + n^P m)$ per tensor computed from them. If measurements
    are missing, with $m$ seen, it is $O(m^3)$ for the eigenproblem and $m$ times that of a
    tensor for variances.
    """

    variance: Vectors
    noise: Float[Array, ""]
    basis: AbstractBasis
    spectrum: Float[Array, "..."]
    rotated: Inexact[Array, "..."]
    rest: Float[Array, ""]
    num_rest: int = eqx.field(static=True)
    center: Center | None = None

    @property
    def prior_variance(self) -> Float[Array, "..."]:
        """$γ$ as a tensor of shape `(N_1, …, N_P)`."""
        return outer(self.variance)

    # The evidence.

    @jit_for_one_run
    def log_evidence(self) -> Float[Array, ""]:
        r"""$\log p(y \mid γ, σ^2)$, of a normal or a circular complex normal vector."""
        log_det = jnp.log(self.spectrum).sum() + self.num_rest * jnp.log(self.noise)
        square = (abs2(self.rotated) / self.spectrum).sum() + self.rest / self.noise
        size = self.spectrum.size + self.num_rest
        if jnp.iscomplexobj(self.rotated):
            return -(size * math.log(math.pi) + log_det + square)
        return -0.5 * (size * math.log(2 * math.pi) + log_det + square)

    def rounding(self) -> Float[Array, ""]:
        """The error of the evidence by rounding, in nats.

        An eigenvalue has an error of a few units of the largest one, so that the error
        grows with the range of the spectrum.
        """
        eps = jnp.finfo(self.spectrum.dtype).eps
        lost = jnp.minimum(eps * self.spectrum.max() / self.noise, 1.0)
        size = self.spectrum.size + self.num_rest
        return 16 * eps * jnp.abs(self.log_evidence()) + math.sqrt(size) * lost

    def score(self) -> Inexact[Array, "..."]:
        r"""$q = A^H Σ_y^{-1} y$, how each atom correlates with the residual."""
        return self.basis.back(self.rotated / self.spectrum)

    def leverage(self) -> Float[Array, "..."]:
        r"""$w = \mathrm{diag}(A^H Σ_y^{-1} A)$."""
        return self.basis.squares(1 / self.spectrum)

    # The noise.

    def residual(self) -> Float[Array, ""]:
        r"""$\|y - A μ\|^2 = σ^4 \|Σ_y^{-1} y\|^2$."""
        weighted = (abs2(self.rotated) / self.spectrum**2).sum()
        return self.noise**2 * weighted + self.rest

    def precision_trace(self) -> Float[Array, ""]:
        r"""$\mathrm{tr}\, Σ_y^{-1}$."""
        return (1 / self.spectrum).sum() + self.num_rest / self.noise

    def num_explained(self) -> Float[Array, ""]:
        r"""$\mathrm{tr}\, A Σ_x A^H / σ^2$: parameters determined by the data."""
        return (1 - self.noise / self.spectrum).sum()

    # The coefficients.

    @jit_for_one_run
    def mean(self) -> Inexact[Array, "..."]:
        """Posterior mean of the coefficients, shape `(N_1, …, N_P)`."""
        return self.prior_variance * self.score()

    @jit_for_one_run
    def variances(self) -> Float[Array, "..."]:
        r"""Posterior variances, $γ - γ^2 w$; of complex coefficients $E|x - μ|^2$."""
        prior = self.prior_variance
        # By rounding, a well-determined coefficient may have a variance just below zero.
        return jnp.maximum(prior - prior**2 * self.leverage(), 0.0)

    @jit_for_one_run
    def unshrunk(self) -> tuple[Inexact[Array, "..."], Float[Array, "..."]]:
        r"""What the data say of each coefficient by itself: with a flat prior on it alone.

        Its own variance $γ_i$ is left out, and the other coefficients keep theirs. Then
        $x_i$ has mean $q_i/w_i$ and variance $1/w_i - γ_i$. So it is not pulled towards
        zero, and its interval holds for small and for pruned coefficients as well.

        Returns:
            Mean and variance of each coefficient, shape `(N_1, …, N_P)`. They are not
            joint: each has a prior of its own.
        """
        leverage = self.leverage()
        rest = 1 - self.prior_variance * leverage
        return self.score() / leverage, jnp.maximum(rest, 0.0) / leverage

    def covariance(self, one, other) -> Inexact[Array, ""]:
        """The posterior covariance of two coefficients.

        Args:
            one, other: the place of each coefficient, one index per mode.

        Returns:
            A number, in squared units of the coefficients.

        Raises:
            ValueError: for a place that no coefficient has.
        """
        sizes = tuple(len(g) for g in self.variance)
        # As arrays, so that other places are not another program.
        return self._covariance(_place(one, sizes), _place(other, sizes))

    @jit_for_one_run
    def _covariance(self, one: Array | np.ndarray, other: Array | np.ndarray):
        γ, γ_other = (
            math.prod(g[i] for g, i in zip(self.variance, place, strict=True))
            for place in (one, other)
        )
        row, column = self.basis.row(one), self.basis.row(other).conj()
        explained = γ * γ_other * (row * column / self.spectrum).sum()
        same = jnp.all(jnp.asarray(one) == jnp.asarray(other))
        return jnp.where(same, γ, 0.0) - explained

    @jit_for_one_run
    def sample(self, key: PRNGKeyArray) -> Inexact[Array, "..."]:
        """One joint draw of all coefficients, shape `(N_1, …, N_P)`.

        By Matheron's rule: draw coefficients and data from the prior, then add the
        posterior mean for the difference between the real data and the drawn ones. White
        noise stays white under a rotation, so the noise is drawn in rotated coordinates.

        Args:
            key: a JAX random key.
        """
        key_prior, key_noise = jax.random.split(key)
        dtype = self.rotated.dtype
        shape = tuple(g.shape[0] for g in self.variance)
        prior = self.prior_variance
        x = jnp.sqrt(prior) * jax.random.normal(key_prior, shape, dtype)
        noise = jax.random.normal(key_noise, self.rotated.shape, dtype)
        gap = self.rotated - self.basis.forward(x) - jnp.sqrt(self.noise) * noise
        return x + prior * self.basis.back(gap / self.spectrum)

    def at(
        self, rows: Sequence[Any], intercept: bool = True
    ) -> tuple[Inexact[Array, "..."], Float[Array, "..."]]:
        r"""Mean and variance of $b + (R_1 ⊗ … ⊗ R_P)\, x$, without noise.

        Args:
            rows: one matrix $R_p$ per mode, shape `(k_p, N_p)`: new rows of the
                dictionary, or a matrix that maps coefficients to an image.
            intercept: whether $b$ is added, if the data have an intercept.

        Returns:
            Two tensors of shape `(k_1, …, k_P)`.
        """
        rows = tuple(jnp.asarray(r) for r in rows)
        return self._at(rows, self.center if intercept else None)

    @jit_for_one_run
    def _at(self, rows: Matrices, center: Center | None):
        if center is not None:
            rows = (rows[0] - center.row,)
        mean = mode_products(self.mean(), rows)
        prior = mode_products(self.prior_variance, [abs2(r) for r in rows])
        weighted = [r * g for r, g in zip(rows, self.variance, strict=True)]
        explained = self.basis.times(weighted).squares(1 / self.spectrum)
        variance = jnp.maximum(prior - explained, 0.0)
        if center is None:
            return mean, variance
        return mean + center.y, variance + self.noise / center.count

    @jit_for_one_run
    def intercept(self, x: Inexact[Array, "..."], key: PRNGKeyArray) -> Inexact[Array, ""]:
        """A draw of the intercept given the coefficients; zero if the data have none.

        Args:
            x: the coefficients.
            key: a JAX random key.
        """
        if self.center is None:
            return jnp.zeros((), self.rotated.dtype)
        sd = jnp.sqrt(self.noise / self.center.count)
        white = jax.random.normal(key, (), self.rotated.dtype)
        return self.center.y - self.center.row @ x + sd * white


def _place(given: Any, sizes: tuple[int, ...]) -> Array | np.ndarray:
    if any(isinstance(i, jax.core.Tracer) for i in jax.tree.leaves(given)):
        return jnp.asarray(given)
    place = np.asarray(given)
    if place.shape != (len(sizes),) or not np.all((place < sizes) & (place + sizes >= 0)):
        raise ValueError(
            f"`covariance(...)` got the place {short(given)}: it takes one index per mode, "
            f"within the shape {sizes} of the coefficients."
        )
    return place % sizes  # counted from the end if below zero


def posterior(data: Measurements, variance: Vectors, noise: Float[Array, ""]) -> Posterior:
    """The posterior of the coefficients.

    Args:
        data: the measurements.
        variance: prior variances $γ_p$ of each mode, shape `(N_p,)`.
        noise: $σ^2$, in squared units of `y`.
    """
    core = data.reduced
    spectrum, rotation = eigh(KroneckerPlusNoise(core.grams(variance), noise))
    basis = core.basis(rotation.factors)
    rotated = mode_products(core.y, [u.conj().T for u in rotation.factors])
    return Posterior(variance, noise, basis, spectrum, rotated, core.rest, core.num_rest)


def in_units(post: Posterior, data: Measurements) -> Posterior:
    """The posterior of the coefficients of the columns as the user gave them.

    Args:
        post: that of the coefficients of normalised columns.
        data: the measurements.
    """
    core = data.reduced
    variance = tuple(
        g if length is None else g / length**2
        for g, length in zip(post.variance, core.lengths, strict=True)
    )
    basis = post.basis.scaled(core.lengths)
    return dataclasses.replace(post, variance=variance, basis=basis, center=core.center)


def contract_others(
    tensor: Float[Array, "..."], vectors: Vectors, mode: int
) -> Float[Array, " _n"]:
    """Sum over all modes but one, each weighted by its vector."""
    # From the last mode inwards, so that every step is a matrix-vector product.
    for p in reversed(range(mode + 1, len(vectors))):
        tensor = tensor @ vectors[p]
    for p in range(mode):
        tensor = jnp.tensordot(vectors[p], tensor, axes=1)
    return tensor
