"""The normal distribution of a tensor: a Kronecker covariance plus white noise."""

import math
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array
from numpyro.distributions import Distribution, constraints

from probkit import linalg


class KroneckerNormal(Distribution):
    r"""A tensor $Y$ with $\mathrm{vec}\, Y ∼ N(0, Σ)$, $Σ = G_1 ⊗ … ⊗ G_P + σ² I$.

    $$\log p(y) = -\tfrac12 (M \log 2π + \log|Σ| + y^T Σ^{-1} y)$$

    or, where complex, circular: $\mathrm{E}\, y y^H = Σ$, $\mathrm{E}\, y y^T = 0$, and

    $$\log p(y) = -(M \log π + \log|Σ| + y^H Σ^{-1} y).$$

    Args:
        factors: Hermitian positive semi-definite arrays $G_p$, `(m_p, m_p)`, of any rank.
        noise: $σ² > 0$, a variance.
        is_complex: whether $Y$ is complex though no factor is.

    Values are tensors of shape `(m_1, …, m_P)`, flattened in C order. Derivatives of
    `log_prob` in factors, noise and value are right to second order also where factors have
    equal eigenvalues.

    Raises:
        ValueError: if a factor is not square or the noise is not one number.
    """

    arg_constraints: ClassVar[dict] = {}
    pytree_data_fields = ("covariance",)
    pytree_aux_fields = ("is_complex",)

    def __init__(
        self, factors, noise, *, is_complex: bool = False, validate_args: bool | None = None
    ):
        self.covariance = linalg.KroneckerPlusNoise(factors, noise)
        self.is_complex = is_complex or jnp.issubdtype(
            self.covariance.dtype, jnp.complexfloating
        )
        event_shape = tuple(len(G) for G in self.covariance.factors)
        super().__init__((), event_shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=False)
    def support(self):
        entry = constraints.complex if self.is_complex else constraints.real
        return constraints.independent(entry, len(self.event_shape))

    def log_prob(self, value, intermediates=None):
        batch = jnp.shape(value)[: jnp.ndim(value) - len(self.event_shape)]
        flat = jnp.reshape(value, (*batch, self.covariance.shape[0]))
        form = linalg.inverse_quadratic_form
        for _ in batch:
            form = jax.vmap(form, (None, 0))
        # A circular complex number is a pair of real ones of half the variance each.
        halves, unit = (2, math.pi) if self.is_complex else (1, 2 * math.pi)
        constant = flat.shape[-1] * math.log(unit) + linalg.logdet(self.covariance)
        return -0.5 * halves * (constant + form(self.covariance, flat))

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()):
        if self.is_complex and not jnp.iscomplexobj(self.mean):
            parts = linalg.sample(self.covariance, key, (2, *sample_shape))
            draws = jax.lax.complex(*(parts / math.sqrt(2)))
        else:
            draws = linalg.sample(self.covariance, key, sample_shape)
        return draws.reshape(*sample_shape, *self.event_shape)

    @property
    def mean(self):
        return jnp.zeros(self.event_shape, self.covariance.dtype)

    @property
    def variance(self):
        return linalg.diagonal(self.covariance).real.reshape(self.event_shape)
