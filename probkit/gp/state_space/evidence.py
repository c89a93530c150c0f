"""The log evidence of a chain, its derivatives, and the values of the process."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from probkit.gp.state_space import passes, square_root
from probkit.gp.state_space.passes import Chain, Place
from probkit.gp.state_space.small import (
    apply,
    identity,
    outer,
    product,
    sandwich,
    transpose,
)


def _form(chain: Chain):
    """Float32 has too few digits for differences of covariances."""
    return square_root if chain.noise.dtype == jnp.float32 else passes


def read_all(chain: Chain, read: Callable[..., Any]) -> tuple[Float[Array, ""], Any]:
    """The log evidence, and what a function makes of each place; see `passes.read_all`."""
    return _form(chain).read_all(chain, read)


def values(H, place: Place, λ, Ξ, covariance, site):
    """Mean and covariance of the values at one place, given all sites."""
    PH = product(place.covariance, transpose(H))
    return apply(H, place.mean) + apply(transpose(PH), λ), covariance(H)


def before(H, place: Place, λ, Ξ, covariance, site):
    """Mean and covariance of the values at one place, given the sites of earlier ones."""
    return apply(H, place.mean), sandwich(H, place.covariance)


def score(H, place: Place, λ, Ξ, covariance, site):
    """The derivative of the log evidence by the predicted mean of a state."""
    return λ


def _slopes(H, place: Place, λ, Ξ, covariance, site) -> Chain:
    """Derivatives of the log evidence by the parts of a chain at one place."""
    Λ, η = site
    by_P = outer(λ, λ) - Ξ
    mean = place.mean + apply(place.covariance, λ)
    seen = product(H, covariance(identity(Ξ)) + outer(mean, mean))
    return Chain(
        outer(λ, place.before) + product(by_P, place.cross),
        by_P / 2,
        product(seen, transpose(H)) / -2,
        apply(H, mean),
        outer(η, mean) - product(Λ, seen),
    )


@jax.custom_jvp
def log_evidence(chain: Chain) -> Float[Array, ""]:
    r"""$\log \int \prod_s \exp(-\tfrac12 u_s^T Λ_s u_s + η_s^T u_s)\, p(u)\, du$, in nats.

    Its derivatives are moments of the smoothed states, which take one pass back.
    """
    return _form(chain).evidence_of_sites(chain)


@log_evidence.defjvp
def _(primals, tangents):
    (chain,), (by,) = primals, tangents
    total, slopes = read_all(chain, _slopes)
    return total, _change(slopes, by)


@jax.custom_jvp
def with_values(chain: Chain) -> tuple[Float[Array, ""], tuple[Array, Array]]:
    """The log evidence, and mean and covariance of the values at each place.

    One pass back gives the derivatives of the log evidence too. The values count as
    constants.
    """
    return read_all(chain, values)


@with_values.defjvp
def _(primals, tangents):
    (chain,), (by,) = primals, tangents
    total, (found, slopes) = read_all(chain, lambda *at: (values(*at), _slopes(*at)))
    still = jax.tree.map(jnp.zeros_like, found)
    return (total, found), (_change(slopes, by), still)


def _change(slopes: Chain, by: Chain) -> Float[Array, ""]:
    H = slopes.readout.sum(0)
    slopes = slopes._replace(readout=H if H.ndim == 2 else H.sum(-1, keepdims=True))
    first, *others = (jnp.vdot(a, b) for a, b in zip(slopes, by, strict=True))
    return sum(others, start=first)
