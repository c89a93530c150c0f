"""The normal distribution of a tensor: a Kronecker covariance plus white noise."""

import functools
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact
from numpyro.distributions import Distribution, constraints

from probkit import linalg
from probkit.distributions.leave_one_out import given_others


class KroneckerNormal(Distribution):
    r"""A tensor $Y$ with $\mathrm{vec}\, Y ∼ N(0, Σ)$, $Σ = G_1 ⊗ … ⊗ G_P + σ² I$.

    $$\log p(y) = -\tfrac12 (M \log 2π + \log|Σ| + y^T Σ^{-1} y)$$

    A complex $Y$ is circular: $\mathrm{E}\, y y^H = Σ$, $\mathrm{E}\, y y^T = 0$, and

    $$\log p(y) = -(M \log π + \log|Σ| + y^H Σ^{-1} y).$$

    Args:
        factors: Hermitian positive semi-definite arrays $G_p$, `(m_p, m_p)`, of any rank.
            Their product is in squared units of $Y$.
        noise: $σ² > 0$, a variance, in squared units of $Y$.
        is_complex: whether $Y$ is complex although all factors are real.
        bases: for each mode None, or $Q_p$ with orthonormal columns, `(M_p, m_p)`. The
            covariance is then $(⊗Q_p)(⊗G_p)(⊗Q_p)^H + σ² I$. The cost of eigenproblems
            follows from the small sizes $m_p$.
        level: if given, an unknown constant with a flat prior is added to all entries, and
            integrated out: the density is that of the differences, of $M - 1$ dimensions.
            It takes one factor, with a basis orthogonal to a constant. Draws have the
            constant `level`, in units of $Y$.

    Values are tensors of shape `(m_1, …, m_P)` (or $M_p$), flattened in C order. First and
    second derivatives of `log_prob` in factors, noise and value are exact also if factors
    have equal eigenvalues.

    Raises:
        ValueError: if a factor is not square, the noise is not one number, or a basis does
            not fit its factor.
    """

    arg_constraints: ClassVar[dict] = {}
    pytree_data_fields = ("covariance", "bases", "level")
    pytree_aux_fields = ("is_complex",)

    def __init__(
        self,
        factors,
        noise,
        *,
        is_complex: bool = False,
        bases=None,
        level=None,
        validate_args: bool | None = None,
    ):
        # Within the span of the bases.
        self.covariance = linalg.KroneckerPlusNoise(factors, noise)
        sizes = tuple(len(G) for G in self.covariance.factors)
        self.bases = (None,) * len(sizes) if bases is None else tuple(bases)
        inside = tuple(
            m if Q is None else Q.shape[1] for Q, m in zip(self.bases, sizes, strict=True)
        )
        if inside != sizes:
            raise ValueError(
                f"`KroneckerNormal(bases=...)` has {inside} columns for factors of sizes "
                f"{sizes}; basis p must have as many columns as factor p."
            )
        if level is not None and (len(sizes) != 1 or self.bases[0] is None):
            raise ValueError(
                "`KroneckerNormal(level=...)` takes one factor, with a basis whose columns "
                "sum to zero."
            )
        self.level = level
        self.is_complex = is_complex or jnp.issubdtype(
            self.covariance.dtype, jnp.complexfloating
        )
        event_shape = tuple(
            m if Q is None else len(Q) for Q, m in zip(self.bases, sizes, strict=True)
        )
        super().__init__((), event_shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=False)
    def support(self):
        entry = constraints.complex if self.is_complex else constraints.real
        return constraints.independent(entry, len(self.event_shape))

    def log_prob(self, value, intermediates=None):
        batch = jnp.shape(value)[: jnp.ndim(value) - len(self.event_shape)]
        form = self._form
        for _ in batch:
            form = jax.vmap(form)
        # A circular complex number is a pair of real ones of half the variance each.
        halves, unit = (2, math.pi) if self.is_complex else (1, 2 * math.pi)
        size, reached = math.prod(self.event_shape), self.covariance.shape[0]
        size = size if self.level is None else size - 1
        constant = size * math.log(unit) + linalg.logdet(self.covariance)
        constant = constant + (size - reached) * jnp.log(self.covariance.noise)
        return -0.5 * halves * (constant + form(jnp.asarray(value)))

    def _form(self, y):
        """$y^H Σ^{-1} y$, summed within the span of the bases and outside it."""
        y = self._centered(y)
        if all(Q is None for Q in self.bases):
            return linalg.inverse_quadratic_form(self.covariance, y.reshape(-1))
        back = [None if Q is None else Q.conj().T for Q in self.bases]
        inside = linalg.mode_products(y, back)
        # Not as a difference of two squared norms, which would cancel.
        beyond = jnp.abs(y - linalg.mode_products(inside, self.bases)) ** 2
        form = linalg.inverse_quadratic_form(self.covariance, inside.reshape(-1))
        return form + beyond.sum() / self.covariance.noise

    def _centered(self, y):
        if self.level is None:
            return y
        y = y - self.level  # first, so that the mean loses no digits
        return y - y.mean()

    def leave_one_out(self, value: Inexact[Array, "..."]) -> Float[Array, "..."]:
        r"""$\log p(y_i \mid y_{-i})$ of each entry given all the others.

        Args:
            value: $Y$, a tensor of shape `event_shape`.

        Returns:
            One log density per entry, of the same shape, in nats: see `given_others`.
        """
        noise = self.covariance.noise
        d, rotation = linalg.eigh(self.covariance)
        pairs = zip(self.bases, rotation.factors, strict=True)
        U = [u if Q is None else Q @ u for Q, u in pairs]
        # Outside the span of the bases there is only noise.
        gain = 1 / d - 1 / noise
        value = self._centered(value)
        rotated = linalg.mode_products(value, [u.conj().T for u in U])
        weighted = value / noise + linalg.mode_products(gain * rotated, U)
        # Without the direction of a constant, the identity has the diagonal 1 - 1/M.
        alone = 1.0 if self.level is None else 1 - 1 / len(value)
        precision = alone / noise + linalg.mode_products(gain, [linalg.abs2(u) for u in U])
        return given_others(weighted, precision, self.is_complex)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()):
        if self.is_complex and not jnp.issubdtype(
            self.covariance.dtype, jnp.complexfloating
        ):
            parts = self._sample(key, (2, *sample_shape))
            return self.mean + jax.lax.complex(*(parts / math.sqrt(2)))
        return self.mean + self._sample(key, sample_shape)

    def _sample(self, key, shape):
        if all(Q is None for Q in self.bases):
            draws = linalg.sample(self.covariance, key, shape)
            return draws.reshape(*shape, *self.event_shape)
        # Signal in the span of the bases, noise everywhere.
        key_signal, key_noise = jax.random.split(key)
        factors, noise = self.covariance.factors, self.covariance.noise
        draws = linalg.sample(linalg.Kronecker(factors), key_signal, shape)
        inside = draws.reshape(-1, *(len(G) for G in factors))
        signal = jax.vmap(lambda s: linalg.mode_products(s, self.bases))(inside)
        signal = signal.reshape(*shape, *self.event_shape)
        white = jax.random.normal(key_noise, signal.shape, signal.dtype)
        return signal + jnp.sqrt(noise) * white

    @property
    def mean(self):
        zero = jnp.zeros(self.event_shape, self.covariance.dtype)
        return zero if self.level is None else zero + self.level

    @property
    def variance(self):
        diagonals = [
            jnp.diagonal(G if Q is None else Q @ G @ Q.conj().T).real
            for G, Q in zip(self.covariance.factors, self.bases, strict=True)
        ]
        return functools.reduce(jnp.multiply.outer, diagonals) + self.covariance.noise
