r"""Classification from a few examples: each class is a normal distribution of features.

With features $φ$, class means $θ_c \sim N(μ, Σ)$ and examples $φ(x) \sim N(θ_c, W)$, the
mean of a class given $K$ examples, and the density of another one of the class, are

$$m_c = μ + Σ (Σ + W/K)^{-1} (\bar φ_c - μ), \qquad
φ(x) \sim N(m_c, W + Σ - Σ (Σ + W/K)^{-1} Σ).$$

The covariance is the same for all classes, so that the probabilities of the classes follow
from distances.
"""

import math
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Float
from numpyro.distributions import Distribution, constraints

from probkit.distributions import Congruence, HalfTCovariance, InUnits, RootAffine
from probkit.method.batches import map_in_batches
from probkit.method.programs import jit_for_one_run
from probkit.model.density import Sites
from probkit.models.meta.beliefs import DF, Averages, FullPrior, Within
from probkit.models.meta.checks import MORE_THAN_COEFFICIENTS, check_gain, some_of
from probkit.models.meta.features import learned_of, of_each, size_of
from probkit.models.meta.posterior import (
    CONCENTRATION,
    AbstractHierarchy,
    Gathered,
    Posterior,
)
from probkit.models.meta.tasks import Shots
from probkit.validate import as_array, as_flag

# The mean of all classes is known beforehand as from so many of them: as good as nothing.
STRENGTH = 1e-3
AXES, OTHER = ["feature"], "other_feature"
# Where fits begin: sds within classes, in units of the scale of their prior.
BEGIN = 0.5


class GaussianClasses(AbstractHierarchy):
    r"""$φ(x) \sim N(θ_c, W)$ for examples of class $c$, and $θ_c \sim N(μ, Σ)$.

    The means of classes are integrated out. Probabilities of classes for a query are the
    densities $p(φ(x) \mid \text{support of } c)$, normalised; their average over draws is
    the probability given the training data.

    Sites: `population_mean`, `(d,)`, and `covariance`, `(d, d)`, of the means of classes;
    `within`, `(d, d)`, the covariance of examples of one class.

    Priors: sds within and between classes are half-t with two degrees of freedom, with the
    sds of all examples as scales (one, for features of a module); correlations are uniform;
    the mean is as good as unknown.

    With `meta.Episodic` the arrays of an Equinox module of features are learned, together
    with the rest, by the gradient of the log probability of the classes of the queries
    given the support. There is no inner loop, and the examples of a task are in its support
    in turn. The fit has the model with learned arrays.

    Args:
        features: $φ$, an Equinox module or a function from one example to a vector of `d`
            features; by default the examples are vectors of features.
        learn: whether the arrays of a module are learned. Those of
            `meta.principal_components` never are.

    Raises:
        ValueError: for other settings. In `pk.fit`, for other data than `meta.Shots`, or
            examples that are no vectors without `features`.

    Source: Kim & Hospedales (2024), "A hierarchical Bayesian model for few-shot meta
    learning", for the hierarchy; Zhang, Meng, Gouk & Hospedales (2021), "Shallow Bayesian
    meta learning for real-world few-shot recognition", for normal classes. Departs: one
    covariance within all classes.
    """

    features: Any = None
    learn: bool = eqx.field(default=True, converter=as_flag("GaussianClasses(learn"))

    @property
    def kinds(self) -> int:
        return 1

    def __check_init__(self):
        if not (self.features is None or callable(self.features)):
            raise ValueError(
                f"`GaussianClasses(features=...)` got a `{type(self.features).__name__}`; "
                "it takes an Equinox module or a function of one example, or None."
            )

    # The program.

    def __call__(self, data: Shots) -> None:
        (prior,) = self.block_priors(data)
        units = Congruence(jnp.diag(prior.sd))
        base = HalfTCovariance(jnp.ones_like(prior.sd), DF)
        axes = {"event_dims": [*AXES, OTHER]}
        W = numpyro.sample("within", InUnits(base, [units]), infer=axes)
        Σ = numpyro.sample("covariance", InUnits(base, [units]), infer=axes)
        white = dist.Normal(jnp.zeros_like(prior.sd), 1.0).to_event(1)
        root = jnp.linalg.cholesky(Σ)
        μ = numpyro.sample(
            "population_mean",
            InUnits(white, [RootAffine(prior.loc, root / jnp.sqrt(prior.strength))]),
            infer={"event_dims": AXES},
        )
        with numpyro.plate("task", len(data)):
            f = self.embedded(data)
            numpyro.sample(
                "features",
                ClassNormal(μ, Σ, W, f.shape[:3]),
                obs=f,
                infer={"event_dims": ["way", "example", *AXES]},
            )

    def embedded(self, data: Shots) -> Float[Array, "t n m d"]:
        """Features of all examples of each class, support first."""
        every = jnp.concatenate([data.support, data.query], 2)
        return self.features_of(every, 3)

    def features_of(self, x: Array, lead: int) -> Array:
        """Features of examples that have so many axes in front."""
        if self.features is None:
            return x
        return of_each(self.features, x, lead)

    def _num_features(self, data: Shots) -> int:
        if self.features is None:
            return data.shape[0]
        return size_of(self.features, data.support[0, 0, 0], 0, "GaussianClasses")

    def block_priors(self, data):
        self.refuse(data)
        d, dtype = self._num_features(data), data.dtype
        loc, sd = jnp.zeros(d, dtype), jnp.ones(d, dtype)
        if self.features is None:
            loc, sd = data.center, data.spread
        return (FullPrior(loc, jnp.asarray(STRENGTH, dtype), sd=sd),)

    def noise_scale(self, data):
        (prior,) = self.block_priors(data)
        return prior.sd

    def refuse(self, data: Any) -> None:
        if not isinstance(data, Shots):
            raise ValueError(
                f"`GaussianClasses` takes `meta.Shots` or `meta.Tasks`, not "
                f"`{type(data).__name__}`."
            )
        if self.features is None and len(data.shape) != 1:
            raise ValueError(
                f"`GaussianClasses` takes vectors of features; these examples have shape "
                f"{data.shape}. Give `features=`, such as "
                "`meta.principal_components(images, 40)`."
            )

    # What is believed, for the methods of the family.

    def gather(self, data, post, key):
        f = self.embedded(data)
        t, n, m, _ = f.shape
        block = jax.tree.map(lambda a: a[0], post.blocks[0])
        within = post.noise
        μ, Σ, W = block.location(), block.spread(), within.spread()
        mean = f.mean(2)
        scatter = jnp.einsum("tnmi,tnmj->ij", *2 * (f - mean[:, :, None],)) / t
        shrink, V = _shrunk(Σ, W, m)
        shift = (mean - μ) @ shrink.T
        second = n * V + jnp.einsum("tni,tnj->ij", shift, shift) / t
        away = mean - μ - shift
        misfit = scatter + m * (jnp.einsum("tni,tnj->ij", away, away) / t + n * V)
        bound = ClassNormal(μ, Σ, W, (t, n, m)).log_prob(f)
        unknown = m * (within.mean_logdet() - _logdet(W)) / 2 + post.penalty()[0]
        count = jnp.full(1, n, data.dtype)
        averages = Averages(count, shift.sum((0, 1))[None] / t, second[None])
        rows = jnp.asarray(n * m, data.dtype)
        return Gathered(bound - n * unknown, (averages,), rows, misfit)

    def first(self, data, key, start):
        (prior,) = self.block_priors(data)
        wide = jnp.diag(prior.sd**2)
        # The weight of one class, so that the first step decides.
        block = jax.tree.map(lambda a: a[None], prior.belief(wide, 1.0))
        within = Within.at(BEGIN**2 * wide, 1.0)
        return Posterior((block,), jnp.full(1, CONCENTRATION, data.dtype), within)

    def learned(self):
        return learned_of(self)

    def loss(self, data, post, found):
        """Minus the log probability of the classes of the queries given the support, the
        mean over tasks, and over the splits of a task in which its examples are in the
        support in turn. All splits use the same features, with the location and scale that
        are believed: the belief follows them later, and a change of scale meanwhile would
        otherwise change the loss, so that gradients shrink or inflate the features.
        """
        block = jax.tree.map(lambda a: a[0], post.blocks[0])
        # As in `gather`, so that features are computed once for both.
        f, k = self.embedded(data), data.support.shape[2]
        n, m = f.shape[1:3]
        hierarchy = block.location(), block.spread(), post.noise.spread()
        f = _as_believed(f, *hierarchy)
        # Split r has the examples r, ..., r + k - 1 in its support.
        turn = (jnp.arange(m)[:, None] + jnp.arange(k)) % m
        means = f[:, :, turn].mean(3).swapaxes(1, 2)
        query = f.reshape(len(f), 1, n * m, -1)
        log_p = _log_probability(means, query, k, hierarchy).reshape(-1, m, n, m, n)
        own = jnp.einsum("trcjc->trcj", log_p)
        is_query = (jnp.arange(m) - jnp.arange(m)[:, None]) % m >= k
        return -jnp.where(is_query[:, None], own, 0.0).sum() / (len(f) * m)

    def draw(self, post, data, key):
        key_block, key_within = jax.random.split(key)
        block = jax.tree.map(lambda a: a[0], post.blocks[0])
        mean, covariance = block.sample(key_block)
        within = post.noise.sample(key_within)
        return {"population_mean": mean, "covariance": covariance, "within": within}

    # Answers.

    def inputs(self, given: Any, data: Shots) -> "Asked":
        return asked(given, data)

    def predict(self, sites, inputs, key):
        """The `probability` of each class of a task, for each query; and `y`, a draw of the
        class.
        """
        log_p = self.log_probability(sites, inputs)
        y = jax.random.categorical(key, log_p).astype(log_p.dtype)
        return {"probability": jnp.exp(log_p), "y": y}

    def log_probability(self, sites: Sites, inputs: "Asked") -> Float[Array, "t m n"]:
        """Of each class for each query, in nats."""
        hierarchy = sites["population_mean"], sites["covariance"], sites["within"]
        means = self.features_of(inputs.support, 3).mean(2)
        query = self.features_of(inputs.query, 2)
        return _log_probability(means, query, inputs.support.shape[2], hierarchy)

    def pointwise(self, sites, data):
        """Nothing: densities of features cannot be compared with those of other features.
        Compare probabilities of classes.
        """
        return {}

    def least_episodes(self, data):
        return -(-(self._num_features(data) + MORE_THAN_COEFFICIENTS) // data.ways)

    def checks(self, sites, data):
        gain, right = _over_chance(self, sites, data.take(some_of(len(data))))
        return (
            check_gain(
                "log probability of the classes of queries, over chance",
                np.asarray(gain),
                np.ones(len(gain)),
                "the features do not distinguish classes: take others, or let them be "
                "learned for longer (`max_steps`, `learning_rate`)",
                f"nats per query; {float(right):.0%} of the classes of the data are found",
            ),
        )

    # Names of axes.

    def dims(self, data):
        inner = tuple(f"input_{i}" for i in range(len(data.shape)))
        return {
            "population_mean": tuple(AXES),
            **dict.fromkeys(("covariance", "within"), (*AXES, OTHER)),
            "features": ("task", "way", "example", *AXES),
            "probability": ("task", "query", "class"),
            "y": ("task", "query"),
            "support": ("task", "way", "shot", *inner),
            "query": ("task", "way", "other", *inner),
            **dict.fromkeys(("center", "spread"), inner),
        }

    def coords_at(self, inputs):
        t, m = inputs.query.shape[:2]
        return {
            "task": np.arange(t),
            "query": np.arange(m),
            "class": np.arange(inputs.support.shape[1]),
        }

    def coords(self, data):
        numbers = np.arange(self._num_features(data))
        t, n, k = data.support.shape[:3]
        q = data.query.shape[2]
        sizes = {"task": t, "way": n, "shot": k, "other": q, "example": k + q}
        sizes |= {f"input_{i}": size for i, size in enumerate(data.shape)}
        return {"feature": numbers, OTHER: numbers} | {
            axis: np.arange(size) for axis, size in sizes.items()
        }


class Asked(eqx.Module):
    """Queries to classify, and examples of the classes of each task.

    Attributes:
        support: `(t, n, k, *s)`.
        query: `(t, m, *s)`.
    """

    support: Float[Array, "t n k *s"]
    query: Float[Array, "t m *s"]


def asked(given: Any, data: Shots) -> Asked:
    """What the user gave to `pk.predict`, checked against the data of the fit.

    Args:
        given: `meta.Shots`, whose queries are classified; or a dict with `support`,
            `(t, n, k, *s)`, and `query`, `(t, m, *s)`, with any number of queries.
        data: the data of the fit.

    Raises:
        ValueError: for something else, and other shapes.
    """
    if isinstance(given, Asked):
        return given
    if isinstance(given, Shots):
        support, query = given.support, given.queries()
    elif isinstance(given, dict) and set(given) == {"support", "query"}:
        support = as_array(given["support"], "predict(..., support)")
        query = as_array(given["query"], "predict(..., query)")
    else:
        raise ValueError(
            f"`predict(..., inputs)` got a `{type(given).__name__}`; it takes "
            '`meta.Shots`, or `{"support": (t, n, k, *s), "query": (t, m, *s)}`.'
        )
    s = data.shape
    fits = support.ndim == 3 + len(s) and query.ndim == 2 + len(s)
    if not fits or support.shape[3:] != s or query.shape[2:] != s:
        raise ValueError(
            f"`predict(..., inputs)` got support and queries of shapes {support.shape} and "
            f"{query.shape}; for examples of shape {s} they are (t, n, k, *s) and "
            "(t, m, *s)."
        )
    if len(support) != len(query) or 0 in support.shape or support.shape[1] < 2:
        raise ValueError(
            f"`predict(..., inputs)` got support and queries of shapes {support.shape} and "
            f"{query.shape}; give both for each task, and two classes or more."
        )
    return Asked(support.astype(data.dtype), query.astype(data.dtype))


class ClassNormal(Distribution):
    r"""Features of the examples of each class, with the mean of the class integrated out.

    For $m$ examples with mean $\bar φ$ and scatter matrix $S$ the density is
    $N(\bar φ; μ, Σ + W/m)\, m^{-d/2} |2 π W|^{-(m-1)/2} \exp(-\tfrac12 \mathrm{tr}\,
    W^{-1} S)$. One event is one task.

    Args:
        mean: $μ$, `(d,)`.
        covariance: $Σ$, `(d, d)`.
        within: $W$, `(d, d)`.
        sizes: the number of tasks, of classes of a task, and of examples of a class.
    """

    arg_constraints: ClassVar[dict] = {}
    support = constraints.independent(constraints.real, 3)
    pytree_data_fields = ("mean_of_all", "covariance", "within")
    pytree_aux_fields = ("sizes",)

    def __init__(
        self, mean, covariance, within, sizes, *, validate_args: bool | None = None
    ):
        self.mean_of_all, self.covariance, self.within = mean, covariance, within
        self.sizes = tuple(sizes)
        t, n, m = self.sizes
        super().__init__((t,), (n, m, len(mean)), validate_args=validate_args)

    def log_prob(self, value, intermediates=None):
        m, d = value.shape[-2:]
        mean = value.mean(-2)
        own = jnp.linalg.cholesky(self.within)
        outer = jnp.linalg.cholesky(self.covariance + self.within / m)
        inside = _whitened(own, value - mean[..., None, :])
        between = _whitened(outer, mean - self.mean_of_all)
        squares = jnp.sum(inside**2, (-1, -2)) + jnp.sum(between**2, -1)
        logdets = (m - 1) * _half(own) + _half(outer)
        constant = d / 2 * (m * math.log(2 * math.pi) + math.log(m))
        return jnp.sum(-squares / 2 - logdets - constant, -1)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()):
        key_mean, key_own = jax.random.split(key)
        t, n, m = self.sizes
        shape, dtype = (*sample_shape, t, n), self.within.dtype
        d = len(self.mean_of_all)
        white = jax.random.normal(key_mean, (*shape, d), dtype)
        means = self.mean_of_all + white @ jnp.linalg.cholesky(self.covariance).T
        white = jax.random.normal(key_own, (*shape, m, d), dtype)
        return means[..., None, :] + white @ jnp.linalg.cholesky(self.within).T


@jit_for_one_run
def _over_chance(
    model: GaussianClasses, sites: Sites, data: Shots
) -> tuple[Float[Array, " t"], Float[Array, ""]]:
    """Of the classes of the queries of each task given its support: the mean log
    probability less that of a guess; and the share of all that are the most probable.
    """
    own = jnp.asarray(data.classes())

    def one(task):
        asked = Asked(*jax.tree.map(lambda a: a[None], task))
        log_p = model.log_probability(sites, asked)[0]
        right = (log_p.argmax(-1) == own).mean()
        return log_p[jnp.arange(len(own)), own].mean() + math.log(data.ways), right

    gain, right = map_in_batches(one, (data.support, data.queries()))
    return gain, right.mean()


def _log_probability(
    means: Float[Array, "*t n d"],
    query: Float[Array, "*u m d"],
    count: int,
    hierarchy: tuple[Array, Array, Array],
) -> Float[Array, "*t m n"]:
    """Of each class for each query.

    Args:
        means: of the features of the support of each class.
        query: features of the queries.
        count: the number of examples of which `means` are.
        hierarchy: mean and covariance of the means of classes, and that within classes.
    """
    μ, Σ, W = hierarchy
    shrink, V = _shrunk(Σ, W, count)
    root = jnp.linalg.cholesky(V + W)
    center = _whitened(root, (means - μ) @ shrink.T)
    # Of the squared distance, what differs among the classes.
    product = _whitened(root, query - μ) @ center.swapaxes(-1, -2)
    return jax.nn.log_softmax(product - jnp.sum(center**2, -1)[..., None, :] / 2, -1)


def _as_believed(f: Float[Array, "*n d"], μ: Array, Σ: Array, W: Array) -> Array:
    r"""Features shifted and scaled such that their mean is $μ$, and their mean squared
    distance from it $d$, where distances are those of $Σ + W$.

    Features $a φ + b$ with $a > 0$ give the same.
    """
    mean = f.mean(tuple(range(f.ndim - 1)))
    white = _whitened(jnp.linalg.cholesky(Σ + W), f - mean)
    return μ + (f - mean) / jnp.sqrt(jnp.mean(white**2))


def _shrunk(Σ: Array, W: Array, count: int) -> tuple[Array, Array]:
    r"""$Σ (Σ + W/m)^{-1}$, by which the mean of $m$ examples is shrunk, and the covariance
    $Σ (Σ + W/m)^{-1} W / m$ of the mean of the class.
    """
    root = jnp.linalg.cholesky(Σ + W / count)
    half = jax.lax.linalg.triangular_solve(root, Σ, left_side=True, lower=True)
    shrink = jax.lax.linalg.triangular_solve(
        root, half, left_side=True, lower=True, transpose_a=True
    ).T
    V = shrink @ W / count
    return shrink, (V + V.T) / 2


def _whitened(root: Float[Array, "d d"], x: Array) -> Array:
    r"""$L^{-1} x$ of many vectors, by the inverse, because $d$ is small."""
    eye = jnp.eye(len(root), dtype=root.dtype)
    inverse = jax.lax.linalg.triangular_solve(root, eye, left_side=True, lower=True)
    return x @ inverse.T


def _half(root: Array) -> Array:
    return jnp.log(jnp.diagonal(root)).sum()


def _logdet(matrix: Array) -> Array:
    return 2 * _half(jnp.linalg.cholesky(matrix))
