r"""The posterior as a value: what is believed of the hierarchy, not of episodes."""

from abc import abstractmethod
from typing import Any, ClassVar, NamedTuple

import jax
from jax.scipy.special import digamma, gammaln
from jaxtyping import Array, Float, PRNGKeyArray
from numpyro.distributions import constraints

from probkit.method.approximation import AbstractApproximation
from probkit.method.batches import map_in_batches
from probkit.model import AbstractModel
from probkit.models.meta.beliefs import AbstractBelief, Averages
from probkit.models.meta.episodes import Episodes

# Of the Dirichlet prior of the weights of a mixture.
CONCENTRATION = 1.0


class Posterior(AbstractApproximation):
    r"""$q(μ, Σ)$ per block of parameters and component, $q(π)$ and $q(σ)$, standardised.

    Attributes:
        blocks: beliefs about the blocks, each with a leading axis of components.
        concentration: of the Dirichlet of the weights of the components, `(k,)`.
        noise: what is believed of the noise (`Noise`), or of the covariance of rows within
            episodes (`Within`); None if there is none or it is known.
    """

    blocks: tuple[AbstractBelief, ...]
    concentration: Float[Array, " k"]
    noise: Any

    def mean_log_weight(self) -> Float[Array, " k"]:
        r"""$E[\ln π_k]$."""
        return digamma(self.concentration) - digamma(self.concentration.sum())

    def penalty(self) -> Float[Array, " k"]:
        """What an episode pays for what is not known of each component, in nats."""
        return sum(jax.vmap(lambda b: b.penalty())(block) for block in self.blocks)

    def moved(
        self,
        priors: tuple[Any, ...],
        noise_sd: Array,
        found: "Gathered",
        num: Array,
        rate: Array,
    ) -> "Posterior":
        """A step towards the posterior given the episodes.

        Args:
            priors: of the blocks, for all components.
            noise_sd: the scale of the prior of the noise.
            found: what a batch of episodes says.
            num: the number of all episodes, for which the batch stands.
            rate: the length of the step.
        """
        blocks = tuple(
            jax.vmap(lambda q, a, p=prior: q.moved(p, a, num, rate))(block, averages)
            for prior, block, averages in zip(
                priors, self.blocks, found.averages, strict=True
            )
        )
        count = CONCENTRATION + num * found.averages[0].share
        weights = self.concentration + rate * (count - self.concentration)
        noise = self.noise
        if noise is not None:
            noise = noise.moved(noise_sd, num * found.rows, num * found.misfit, rate)
        return Posterior(blocks, weights, noise)

    def divergence(self, priors: tuple[Any, ...], noise_sd: Array) -> Float[Array, ""]:
        """Kullback-Leibler divergence from the prior, in nats."""
        found = sum(
            jax.vmap(lambda q, p=prior: q.divergence(p))(block).sum()
            for prior, block in zip(priors, self.blocks, strict=True)
        )
        if len(self.concentration) > 1:
            found = found + _of_dirichlets(self.concentration, CONCENTRATION)
        if self.noise is not None:
            found = found + self.noise.divergence(noise_sd)
        return found

    def supports(self) -> list[constraints.Constraint]:
        """What each of the arrays may be, in their order."""
        found = [one for block in self.blocks for one in block.supports()]
        found.append(constraints.positive)
        return found if self.noise is None else [*found, *self.noise.supports()]

    def sample(self, model, data, key, num):
        keys = jax.random.split(key, num)
        return map_in_batches(lambda key: model.draw(self, data, key), keys)


class Gathered(NamedTuple):
    """What a batch of episodes says of the hierarchy. Means are over the batch.

    Attributes:
        bound: the log evidence of each episode, or a bound of it, in nats, `(n,)`.
        averages: per block, with a leading axis of components.
        rows: the mean number of values.
        misfit: the mean of the expected sum of squared residuals, or of their outer
            products.
    """

    bound: Float[Array, " n"]
    averages: tuple[Averages, ...]
    rows: Float[Array, ""]
    misfit: Float[Array, "..."]


class AbstractHierarchy(AbstractModel):
    """A model of episodes whose parameters come from one normal distribution, or a few."""

    exact: ClassVar[bool] = True
    """Whether the bound of an episode is its evidence given the expectations."""

    @property
    @abstractmethod
    def kinds(self) -> int:
        """The number of components of the mixture that parameters come from."""

    @abstractmethod
    def refuse(self, data: Any) -> None:
        """Refuse data that the model cannot use.

        Raises:
            ValueError: with what fits instead.
        """

    @abstractmethod
    def block_priors(self, data: Episodes) -> tuple[Any, ...]:
        """The prior of each block of parameters, standardised."""

    @abstractmethod
    def noise_scale(self, data: Episodes) -> Float[Array, ""]:
        """The scale of the half-t prior of the noise, standardised."""

    @abstractmethod
    def first(self, data: Episodes, key: PRNGKeyArray, start: Any) -> Posterior:
        """Where a run begins.

        Args:
            data: the data, or those of the first step.
            key: a JAX random key.
            start: draws of an earlier fit, or None.
        """

    @abstractmethod
    def gather(self, data: Episodes, post: Posterior, key: PRNGKeyArray) -> Gathered:
        """What episodes say, given what is believed.

        Args:
            data: the episodes.
            post: what is believed.
            key: a JAX random key, for posteriors of episodes that are found by sampling.
        """

    def least_episodes(self, data: Any) -> int | None:
        """The fewest episodes from which covariances can be learned.

        Args:
            data: the data.

        Returns:
            Their number, or None (by default) if the checks of the model see to that.
        """
        return None

    def learned(self) -> Any:
        """Which arrays of the model are learned by the gradient of `loss`.

        Returns:
            A tree like the model, True for these arrays and False for all else; or None
            (by default) if there are none.
        """
        return None

    def loss(self, data: Any, post: Posterior, found: Gathered) -> Float[Array, ""]:
        """What learned arrays minimise, the mean over episodes, in nats.

        By default it is minus the bound. A model whose arrays could rescale the values that
        the bound is of needs another one.

        Args:
            data: the episodes.
            post: what is believed.
            found: what the episodes say, by `gather`.
        """
        return -found.bound.mean()

    @abstractmethod
    def draw(self, post: Posterior, data: Episodes, key: PRNGKeyArray) -> dict[str, Array]:
        """One draw of the sites of the program.

        Args:
            post: what is believed.
            data: the data, for their units.
            key: a JAX random key.
        """


def _of_dirichlets(a: Float[Array, " k"], before: float) -> Float[Array, ""]:
    total, k = a.sum(), len(a)
    return (
        gammaln(total)
        - gammaln(a).sum()
        - gammaln(k * before)
        + k * gammaln(before)
        + ((a - before) * (digamma(a) - digamma(total))).sum()
    )
