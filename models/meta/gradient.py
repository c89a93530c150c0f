r"""The step of the paper: a stochastic gradient of the hierarchy's mean and variances.

The posterior of an episode is optimal for the present hierarchy, so that the gradient of
what the episode costs is the partial one (the envelope theorem):

$$\frac{d}{dm} = -C^{-1} δ^*, \qquad
\frac{d}{d \ln C_k} = \tfrac12 \Bigl(1 - \frac{V^*_k + δ_k^{*2}}{C_k}\Bigr),$$

and no gradient passes through the search for it. Degrees of freedom stay at those of the
prior and of all episodes. If they were learned they would rise without end, because what an
episode pays for not knowing the hierarchy falls with them.

Source: Kim & Hospedales (2024). Departs: the divergence from the prior, over the number of
episodes, is kept, and one gradient step has the quadratic in place of samples.
"""

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from probkit.models.meta.beliefs import Diagonal
from probkit.models.meta.posterior import Gathered, Posterior


class Parameters(NamedTuple):
    """What the gradient moves, per block, with a leading axis of components."""

    loc: tuple[Float[Array, "k d"], ...]
    log_scale: tuple[Float[Array, "k d"], ...]


def parameters(post: Posterior) -> Parameters:
    """The mean and log scale of each block.

    Raises:
        ValueError: for a block with other covariances than one variance per parameter.
    """
    for block in post.blocks:
        if not isinstance(block, Diagonal):
            raise ValueError(
                '`Episodic(step_by="gradient")` moves one variance per parameter; it goes '
                'with `covariance="diagonal"`.'
            )
    blocks: Any = post.blocks
    return Parameters(
        tuple(block.loc for block in blocks),
        tuple(jnp.log(block.scale) for block in blocks),
    )


def with_parameters(post: Posterior, given: Parameters, n: Any, strength: Any) -> Posterior:
    """The posterior with these, and with fixed degrees of freedom."""

    def one(block, loc, log_scale):
        scale = jnp.exp(log_scale)
        return replace(block, loc=loc, scale=scale, dof=n, strength=strength)

    each = zip(post.blocks, given.loc, given.log_scale, strict=True)
    new = tuple(jax.vmap(one)(*parts) for parts in each)
    return replace(post, blocks=new)


def slopes(
    post: Posterior, priors: tuple[Any, ...], found: Gathered, num: Float[Array, ""]
) -> Parameters:
    """The gradient of what an episode costs, and of its share of the divergence.

    Args:
        post: what is believed.
        priors: of the blocks.
        found: what a batch of episodes says.
        num: the number of all episodes.
    """
    blocks: Any = post.blocks

    def divergence(given: Parameters) -> Array:
        here = with_parameters(post, given, blocks[0].dof[0], blocks[0].strength[0])
        each = zip(priors, here.blocks, strict=True)
        return sum(jax.vmap(lambda q, p=p: q.divergence(p))(b).sum() for p, b in each) / num

    of_prior = jax.grad(divergence)(parameters(post))
    loc, log_scale = [], []
    for block, averages in zip(blocks, found.averages, strict=True):
        variance = block.scale / block.dof[:, None]
        loc.append(-averages.first / variance)
        share = averages.share[:, None] - averages.second / variance
        log_scale.append(share / 2)
    own = Parameters(tuple(loc), tuple(log_scale))
    return jax.tree.map(jnp.add, own, of_prior)


def begun(post: Posterior, learning_rate: float) -> Any:
    """What Adam remembers before the first step."""
    return optax.adam(learning_rate).init(parameters(post))


def stepped(
    post: Posterior,
    moved: Posterior,
    priors: tuple[Any, ...],
    found: Gathered,
    num: Float[Array, ""],
    learning_rate: float,
    memory: Any,
) -> tuple[Posterior, Any]:
    """One step of Adam.

    Args:
        post: what is believed.
        moved: the same after a conjugate step, from which all else is taken: the noise, and
            the scales of half-t sds.
        priors: of the blocks.
        found: what a batch of episodes says.
        num: the number of all episodes.
        learning_rate: of Adam.
        memory: what it remembers.
    """
    n, strength = priors[0].degrees() + num, priors[0].strength + num
    here = parameters(post)
    slope = slopes(with_parameters(moved, here, n, strength), priors, found, num)
    update, memory = optax.adam(learning_rate).update(slope, memory, here)
    there = optax.apply_updates(here, update)
    return with_parameters(moved, there, n, strength), memory
