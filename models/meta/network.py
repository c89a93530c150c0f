r"""A network per episode, whose weights come from one distribution."""

from functools import partial
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Bool, Float, PRNGKeyArray
from numpyro.distributions.transforms import AffineTransform

from probkit.distributions import InUnits, half_t
from probkit.model.density import Sites
from probkit.models.meta.axes import coords_at, coords_of, dims_of
from probkit.models.meta.beliefs import DF, Averages
from probkit.models.meta.blocks import (
    AbstractBlock,
    Structure,
    as_structure,
    blocks_of,
    check_structure,
    joined,
)
from probkit.models.meta.curvature import (
    AbstractCurvature,
    AbstractLocal,
    GaussNewton,
    Problem,
    as_curvature,
)
from probkit.models.meta.episodes import Episodes
from probkit.models.meta.leaves import Leaves
from probkit.models.meta.network_checks import checks
from probkit.models.meta.noise import Noise
from probkit.models.meta.outcomes import AbstractOutcome, Categorical, Normal
from probkit.models.meta.posterior import (
    CONCENTRATION,
    AbstractHierarchy,
    Gathered,
    Posterior,
)
from probkit.models.meta.queries import Queries, queries
from probkit.models.meta.spreads import AbstractSpread, Blocks, Colored
from probkit.validate import positive, short

# The mean of all episodes is known beforehand as from so many of them.
STRENGTH = 1e-3
# Where fits begin: sds between data sets, in units of the scale of their prior.
BEGIN = 0.3


def _outcome(value: Any) -> AbstractOutcome:
    if not isinstance(value, AbstractOutcome):
        raise ValueError(
            f"`Network(outcome={short(value)})`: it takes `meta.Normal()`, "
            "`meta.Categorical()` or `meta.Poisson()`."
        )
    return value


class Network(AbstractHierarchy):
    r"""$y_{ij} \sim p(y \mid f(x_{ij}; θ_i))$ with $θ_i \sim N(μ, Σ)$ for a network $f$.

    The Bayesian weights of all arrays are one vector of `d` numbers, along an axis `weight`
    with labels such as `layers.0.weight[1, 2]`. Sites: `population_mean`, `(d,)`;
    `between_sd`, `(d,)`, or `covariance`, `(d, d)`; `theta`, `(n, d)`, of each data set;
    and `noise_sd` for `meta.Normal()`, unless it is known. With several blocks of weights
    there is a site per block, such as `between_sd_layers.0.bias` or
    `covariance_layers.2`; of a matrix with $p$ rows and $q$ columns
    `row_covariance_<array>`, `(p, p)`, and `column_covariance_<array>`, `(q, q)`, whose
    Kronecker product is the covariance.

    Priors: the mean is normal about the weights of `net`, and as good as unknown. The sd of
    each weight between data sets is half-t with two degrees of freedom, and a scale of
    `between` times the root mean square of the array; for a Kronecker product these are the
    sds of rows, and those of columns are half-t with a scale of one. `net` is where fits
    begin, so that data sets find their weights in one basin.

    Args:
        net: an Equinox module from the inputs of one row to a vector of outputs.
        outcome: `meta.Normal()`, `meta.Categorical()` or `meta.Poisson()`.
        bayesian: which arrays of the network differ among data sets: beginnings of their
            names, such as `["layers.2"]`, or a function of a name; by default all. The
            others stay as they are in `net`.
        covariance: "diagonal" for one variance per weight; "full" for few weights;
            "block" for a covariance matrix per array; "kronecker" for one of rows and one
            of columns per matrix, and a covariance matrix per vector; or a dict from
            beginnings of names to these, such as `{"layers.2": "full"}`, which is one
            matrix of all weights of that layer. Arrays that it does not name have one
            variance per weight.
        between: the scale of sds between data sets, relative to the weights.
        curvature: the quadratic that stands for the log likelihood of a data set, in fits
            by `meta.Episodic` and in predictions: `meta.GaussNewton()`, `meta.Fisher()`
            or `meta.Langevin()`.

    Raises:
        ValueError: for other settings, and a network without such arrays.

    Source: Kim & Hospedales (2024), "A hierarchical Bayesian model for few-shot meta
    learning". Departs: the factorised form has one variance per weight with a half-t prior,
    and its degrees of freedom are not learned, because the objective rises with them
    without end.
    """

    exact: ClassVar[bool] = False

    net: Any
    outcome: AbstractOutcome = eqx.field(default_factory=Normal, converter=_outcome)
    bayesian: Any = eqx.field(default=None, static=True)
    covariance: Structure = eqx.field(
        default="diagonal", converter=as_structure, static=True
    )
    between: float = eqx.field(default=1.0, converter=positive("Network(between"))
    curvature: AbstractCurvature = eqx.field(
        default_factory=GaussNewton, converter=as_curvature
    )

    @property
    def kinds(self) -> int:
        return 1

    def __check_init__(self):
        check_structure(self.leaves(), self.covariance)

    def leaves(self) -> Leaves:
        """The Bayesian arrays."""
        return Leaves.of(self.net, self.bayesian)

    # The program.

    def __call__(self, data: Episodes) -> None:
        axes, blocks = ["weight"], self.blocks(data)
        spread = joined(blocks, [block.sampled() for block in blocks])
        loc = jnp.concatenate([block.prior.loc for block in blocks])
        white = dist.Normal(jnp.zeros_like(loc), 1.0).to_event(1)
        vague = dist.Normal(jnp.zeros_like(loc), STRENGTH**-0.5).to_event(1)
        mean = numpyro.sample(
            "population_mean",
            # Known as from so few data sets, in coordinates of one data set, because those
            # of the posterior are not as wide as those of this prior.
            InUnits(vague, [Colored(loc, spread)]),
            infer={"event_dims": axes},
        )
        noise = None
        if self.learns_noise:
            scale = AffineTransform(0.0, self.value_scale(data))
            noise = numpyro.sample("noise_sd", InUnits(half_t(1.0, DF), [scale]))
        with numpyro.plate("group", len(data), dim=-1):
            theta = numpyro.sample(
                "theta", InUnits(white, [Colored(mean, spread)]), infer={"event_dims": axes}
            )
            f = jax.vmap(self.outputs)(theta, data.x)
            density = self.density(f, noise, data).mask(data.seen).to_event(1)
            numpyro.sample("y", density, obs=data.y, infer={"event_dims": ["row"]})

    def outputs(self, theta: Float[Array, " d"], x: Array) -> Float[Array, "m o"]:
        """The outputs of the network of an episode in each row."""
        return jax.vmap(self.leaves().put(self.net, theta))(x)

    def density(self, f: Array, noise: Any, data: Episodes) -> dist.Distribution:
        """Of the values given the outputs, in units of the data."""
        if not isinstance(self.outcome, Normal):
            return self.outcome.distribution(f, None)
        noise = self.outcome.noise_sd if noise is None else noise
        center, scale = self.value_center(data), self.value_scale(data)
        return self.outcome.distribution(center + scale * f, noise)

    @property
    def learns_noise(self) -> bool:
        return isinstance(self.outcome, Normal) and self.outcome.noise_sd is None

    def value_center(self, data: Episodes) -> Float[Array, ""]:
        normal = isinstance(self.outcome, Normal)
        return data.y_mean if normal else jnp.zeros_like(data.y_mean)

    def value_scale(self, data: Episodes) -> Float[Array, ""]:
        normal = isinstance(self.outcome, Normal)
        return data.y_sd if normal else jnp.ones_like(data.y_sd)

    def noise_scale(self, data):
        return jnp.ones((), data.dtype)

    def block_priors(self, data):
        return tuple(block.prior for block in self.blocks(data))

    def blocks(self, data: Episodes) -> tuple[AbstractBlock, ...]:
        """The blocks of weights, each with its prior, standardised."""
        self.refuse(data)
        leaves, dtype = self.leaves(), data.dtype
        loc = leaves.vector(self.net).astype(dtype)
        size = {name: jnp.sqrt(jnp.mean(a**2)) for name, a in leaves.split(loc).items()}
        # An array of zeros, such as a bias, has no size of its own.
        least = jnp.max(jnp.stack(list(size.values())))
        sd = leaves.joined(
            {
                name: jnp.full(shape, jnp.where(size[name] > 0, size[name], least))
                for name, shape in zip(leaves.names, leaves.shapes, strict=True)
            }
        )
        strength = jnp.asarray(STRENGTH, dtype)
        return blocks_of(leaves, self.covariance, loc, self.between * sd, strength)

    def refuse(self, data: Any) -> None:
        if not isinstance(data, Episodes):
            raise ValueError(
                f"`Network` takes `meta.Episodes`, not `{type(data).__name__}`."
            )

    # What is believed, for the methods of the family.

    def locals_of(
        self,
        data: Episodes,
        mean: Float[Array, " d"],
        spread: AbstractSpread,
        noise: tuple[Array, Array],
        key: PRNGKeyArray,
    ) -> tuple[AbstractLocal, Float[Array, " n"]]:
        """The posterior of each episode, and its expected sum of squared residuals.

        Args:
            data: the episodes.
            mean: of their parameters beforehand.
            spread: their covariance beforehand.
            noise: its precision and the logarithm of it.
            key: a JAX random key.
        """

        def one(x, y, seen, key):
            problem = self.problem(x, y, seen, noise)
            found, f, jacobian = self.curvature.local(problem, mean, spread, key)
            variance = found.variance(spread, jacobian[:, 0])
            return found, (problem.seen * ((y - f[:, 0]) ** 2 + variance)).sum()

        keys = jax.random.split(key, len(data))
        return jax.vmap(one)(data.x, self.standardised(data), data.seen, keys)

    def standardised(self, data: Episodes) -> Float[Array, "n m"]:
        """The values, zero where there are none."""
        y = (data.y - self.value_center(data)) / self.value_scale(data)
        return jnp.where(data.seen, y, 0.0)

    def problem(
        self,
        x: Array,
        y: Float[Array, " m"],
        seen: Bool[Array, " m"],
        noise: tuple[Array, Array],
    ) -> Problem:
        """One episode, of standardised values."""
        outputs = partial(self.outputs, x=x)
        return Problem(outputs, self.outcome, y, seen.astype(y.dtype), *noise)

    def _noise(self, post: Posterior, data: Episodes) -> tuple[Array, Array]:
        if isinstance(post.noise, Noise):
            return post.noise.precision, post.noise.mean_log
        return self._known_noise(None, data)

    def _known_noise(self, sd: Any, data: Episodes) -> tuple[Array, Array]:
        if not isinstance(self.outcome, Normal):
            return jnp.ones((), data.dtype), jnp.zeros((), data.dtype)
        sd = self.outcome.noise_sd if sd is None else sd
        sd = sd / self.value_scale(data)
        return sd**-2, -2 * jnp.log(sd)

    def _believed(
        self, post: Posterior, data: Episodes
    ) -> tuple[Float[Array, " d"], AbstractSpread, tuple[Array, Array]]:
        """Mean and covariance of the weights of an episode, and the noise."""
        blocks = jax.tree.map(lambda a: a[0], post.blocks)
        mean = jnp.concatenate([block.location() for block in blocks])
        parts = [block.prior_of_episode() for block in blocks]
        return mean, joined(self.blocks(data), parts), self._noise(post, data)

    def gather(self, data, post, key):
        mean, spread, noise = self._believed(post, data)
        found, misfit = self.locals_of(data, mean, spread, noise, key)
        second = jax.vmap(lambda own: own.second(spread))(found)
        seconds = second if isinstance(spread, Blocks) else (second,)
        first = found.shift.mean(0)
        firsts = spread.split(first) if isinstance(spread, Blocks) else (first,)
        averages = tuple(
            jax.tree.map(lambda a: a[None], Averages(jnp.ones((), data.dtype), *own))
            for own in zip(firsts, jax.tree.map(lambda a: a.mean(0), seconds), strict=True)
        )
        sizes = data.sizes()
        bound = -found.cost - post.penalty()[0]
        bound = bound - sizes * jnp.log(self.value_scale(data))
        return Gathered(bound, averages, sizes.mean(), misfit.mean())

    def first(self, data, key, start):
        one = jnp.ones((), data.dtype)
        begun = tuple(block.begun(BEGIN) for block in self.blocks(data))
        blocks = jax.tree.map(lambda a: a[None], begun)
        noise = Noise.at(one / 2, one) if self.learns_noise else None
        return Posterior(blocks, jnp.full(1, CONCENTRATION, data.dtype), noise)

    def draw(self, post, data, key):
        key_block, key_noise, key_theta = jax.random.split(key, 3)
        beliefs = jax.tree.map(lambda a: a[0], post.blocks)
        sites: dict[str, Array] = {}
        means = []
        keys = jax.random.split(key_block, len(beliefs))
        for block, belief, own in zip(self.blocks(data), beliefs, keys, strict=True):
            mean, covariance = belief.sample(own)
            sites |= block.drawn(covariance)
            means.append(mean)
        sites["population_mean"] = jnp.concatenate(means)
        if post.noise is not None:
            sites["noise_sd"] = post.noise.sample(key_noise) * self.value_scale(data)
        theta = self._drawn(data, *self._believed(post, data), key_theta)
        return sites | {"theta": theta}

    def _drawn(self, data, mean, spread, noise, key) -> Float[Array, "n d"]:
        """A draw of the parameters of each episode given its rows."""
        key_local, key_draw = jax.random.split(key)
        found, _ = self.locals_of(data, mean, spread, noise, key_local)
        keys = jax.random.split(key_draw, len(data))
        return mean + jax.vmap(lambda own, key: own.drawn(spread, key))(found, keys)

    def given(
        self, sites: Sites, data: Episodes
    ) -> tuple[Float[Array, " d"], AbstractSpread, tuple[Array, Array]]:
        """Mean and covariance of the weights of an episode, and the noise, of one draw."""
        blocks = self.blocks(data)
        spread = joined(blocks, [block.spread(sites) for block in blocks])
        noise = self._known_noise(sites.get("noise_sd"), data)
        return sites["population_mean"], spread, noise

    # Answers.

    def inputs(self, given: Any, data: Episodes) -> Queries:
        return queries(given, data)

    def predict(self, sites, inputs, key):
        """Given the known rows of each data set: `y`, a draw of new values, and `mean`, a
        draw of their mean; with classes `probability`, a draw of it, in its place.
        """
        data = inputs.support
        key_own, key_noise = jax.random.split(key)
        theta = self._drawn(data, *self.given(sites, data), key_own)
        f = jax.vmap(self.outputs)(theta, inputs.x)
        density = self.density(f, sites.get("noise_sd"), data)
        y = density.sample(key_noise).astype(data.dtype)
        found = {"y": jnp.where(inputs.asked, y, jnp.nan)}
        if isinstance(self.outcome, Categorical):
            p = jax.nn.softmax(f)
            return found | {"probability": jnp.where(inputs.asked[..., None], p, jnp.nan)}
        return found | {"mean": jnp.where(inputs.asked, density.mean, jnp.nan)}

    def least_episodes(self, data):
        return max(block.least_episodes() for block in self.blocks(data))

    def checks(self, sites, data):
        return checks(self, sites, data)

    # Names of axes.

    def dims(self, data):
        return {
            "population_mean": ("weight",),
            **{name: d for b in self.blocks(data) for name, d in b.dims().items()},
            "theta": ("group", "weight"),
            "noise_sd": (),
            "probability": ("group", "row", "class"),
            **dims_of(data),
        }

    def coords_at(self, inputs):
        return coords_at(inputs)

    def coords(self, data):
        coords = {"weight": self.leaves().labels()}
        for block in self.blocks(data):
            coords |= block.coords()
        return coords | coords_of(data)
