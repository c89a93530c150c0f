r"""Linear regression per episode, with coefficients that come from one distribution."""

from typing import Any, ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Float
from numpyro.distributions.transforms import AffineTransform

from probkit.distributions import (
    Congruence,
    InUnits,
    NormalInverseWishart,
    RootAffine,
    half_t,
)
from probkit.method.keys import two_keys
from probkit.model.density import Sites
from probkit.models.meta import coordinates
from probkit.models.meta.axes import coords_at, coords_of, dims_of
from probkit.models.meta.beliefs import DF, Averages, DiagonalPrior, FullPrior
from probkit.models.meta.checks import checks
from probkit.models.meta.components import in_order
from probkit.models.meta.episodes import Episodes
from probkit.models.meta.evidence import (
    Believed,
    EpisodeNormal,
    Rows,
    drawn_coefficients,
    locals_of,
    predicted,
)
from probkit.models.meta.features import learned_of
from probkit.models.meta.local import Local
from probkit.models.meta.noise import Noise
from probkit.models.meta.posterior import (
    CONCENTRATION,
    AbstractHierarchy,
    Gathered,
    Posterior,
)
from probkit.models.meta.queries import Queries, queries
from probkit.models.meta.starts import kinds_of
from probkit.validate import as_flag, optional, positive, short, whole

Covariance = Literal["full", "diagonal"]
# Axes of coefficients, and of the columns of their covariance.
AXES, OTHER = ["term"], "other_term"
# The mean of all episodes is known beforehand as from so many of them: as good as nothing.
STRENGTH = 1e-3


def _covariance(value: Any) -> Covariance:
    if value not in ("full", "diagonal"):
        raise ValueError(
            f"`Linear(covariance={short(value)})`: it takes 'full' or 'diagonal'."
        )
    return value


class Linear(AbstractHierarchy):
    r"""$y_{ij} = φ(x_{ij})^T θ_i + ε_{ij}$, $θ_i \sim N(μ, Σ)$, $ε_{ij} \sim N(0, σ^2)$.

    The coefficients of each data set are integrated out exactly. `recover` draws them.

    Sites: `population_mean`, `(p,)`, and `covariance`, `(p, p)`, of the coefficients, in
    units of the data; with `covariance="diagonal"` `between_sd`, `(p,)`, in place of the
    latter; and `noise_sd`, unless it is known. With several components the first two have
    an axis more, and there is `weight`.

    Priors: sds within and between data sets are half-t with two degrees of freedom, and
    have scales of one sd of the values (over one sd of the input, for a slope);
    correlations are uniform; the mean is as good as unknown.

    Args:
        covariance: "full", or "diagonal" for coefficients that are independent among data
            sets.
        num_components: the number of kinds of data sets, each with its own mean and
            covariance.
        features: $φ$, a function from inputs `(..., d)` to features `(..., p)`; or an
            Equinox module from the inputs of one row to a vector, such as a network; by
            default an intercept and the inputs. With a module, the mean of the values is
            subtracted from them, so that it needs no constant.
        noise_sd: $σ$, if it is known, in units of the values.
        prior: a normal-inverse-Wishart prior of mean and covariance in units of the data,
            in place of the default one, with `covariance="full"`.
        learn: whether `meta.Episodic` learns the arrays of a module of features, together
            with the rest, by the gradient of the bound: coefficients are integrated out,
            and there is no inner loop. The fit has the model with learned arrays. Those of
            `meta.principal_components` never are.

    Raises:
        ValueError: for other settings. In `pk.fit`, for other data than `meta.Episodes`.

    Source: Kim & Hospedales (2024), "A hierarchical Bayesian model for few-shot meta
    learning", for the hierarchy; Huang & Wand (2013) for the default prior.
    """

    interchangeable: ClassVar[str | None] = "component"

    covariance: Covariance = eqx.field(default="full", converter=_covariance)
    num_components: int = eqx.field(default=1, converter=whole("Linear(num_components", 1))
    features: Any = None
    noise_sd: float | None = eqx.field(
        default=None, converter=optional(positive("Linear(noise_sd"))
    )
    prior: NormalInverseWishart | None = None
    learn: bool = eqx.field(default=True, converter=as_flag("Linear(learn"))

    def __check_init__(self):
        if not (self.features is None or callable(self.features)):
            raise ValueError(
                f"`Linear(features=...)` got a `{type(self.features).__name__}`; it takes "
                "an Equinox module, a function of inputs, or None."
            )
        if self.prior is not None and self.covariance != "full":
            raise ValueError(
                "`Linear(prior=...)` is a prior of a covariance matrix, and goes with "
                '`covariance="full"`.'
            )

    @property
    def kinds(self) -> int:
        return self.num_components

    # The program.

    def __call__(self, data: Episodes) -> None:
        (prior,), k = self.block_priors(data), self.num_components
        sites: Sites = {}
        if k > 1:
            even = dist.Dirichlet(jnp.full(k, CONCENTRATION, data.dtype))
            sites["weight"] = self._sample("weight", even, ["component"])
        T, t = self.to_units(data)
        if self.covariance == "full":
            spread = InUnits(self._each(prior.covariance()), [Congruence(T)])
            sites["covariance"] = self._sample("covariance", spread, [*AXES, OTHER])
            root = jnp.linalg.cholesky(sites["covariance"])
        else:
            scale = AffineTransform(0.0, jnp.diagonal(T))
            base = prior.deviation().to_event(1)
            spread = InUnits(self._each(base), [scale])
            sites["between_sd"] = self._sample("between_sd", spread, AXES)
            root = sites["between_sd"][..., None] * jnp.eye(len(t), dtype=data.dtype)
        shape = (k, len(t)) if k > 1 else (len(t),)
        white = dist.Normal(jnp.zeros(shape, data.dtype), 1.0).to_event(len(shape))
        there = RootAffine(T @ prior.loc + t, root / jnp.sqrt(prior.strength))
        sites["population_mean"] = self._sample(
            "population_mean", InUnits(white, [there]), AXES
        )
        if self.noise_sd is None:
            scale = AffineTransform(0.0, self.value_scale(data))
            noise = InUnits(half_t(self.noise_scale(data), DF), [scale])
            sites["noise_sd"] = numpyro.sample("noise_sd", noise)
        with numpyro.plate("group", len(data)):
            density = EpisodeNormal(
                self.believed(sites, data),
                self.design(data.x, data, data.seen),
                data.seen,
                self.value_center(data),
                self.value_scale(data),
            )
            numpyro.sample("y", density, obs=data.y, infer={"event_dims": ["row"]})

    def _each(self, base: dist.Distribution) -> dist.Distribution:
        """The distribution of one component as that of all of them."""
        k = self.num_components
        return base.expand([k]).to_event(1) if k > 1 else base

    def _sample(self, name: str, prior: dist.Distribution, axes: list[str]) -> Array:
        if self.num_components > 1 and axes != ["component"]:
            axes = ["component", *axes]
        return numpyro.sample(name, prior, infer={"event_dims": axes})

    # Standardised coordinates.

    def value_center(self, data: Episodes) -> Float[Array, ""]:
        """What is subtracted from the values."""
        return coordinates.value_center(self.features, data)

    def value_scale(self, data: Episodes) -> Float[Array, ""]:
        return data.y_sd

    def noise_scale(self, data):
        return jnp.ones((), data.dtype)

    def design(self, x: Array, data: Episodes, rows: Array) -> Float[Array, "n m p"]:
        """Standardised features, zero where there is no row."""
        return coordinates.design(self, x, data, rows)

    def to_units(self, data: Episodes) -> tuple[Float[Array, "p p"], Float[Array, " p"]]:
        """$T$ and $t$: coefficients in units of the data are $T c + t$."""
        return coordinates.to_units(self, data)

    def num_features(self, data: Episodes) -> int:
        """The number of coefficients of a data set."""
        return coordinates.num_features(self.features, data)

    def believed(self, sites: Sites, data: Episodes) -> Believed:
        """The hierarchy of one draw, standardised."""
        return coordinates.standardised(self, sites, data)

    def sites_of(self, believed: Believed, data: Episodes) -> Sites:
        """The sites of a hierarchy, in units of the data."""
        spread = believed.root @ believed.root.swapaxes(1, 2)
        noise = believed.precision**-0.5 if self.noise_sd is None else None
        weight = jnp.exp(believed.log_weight)
        return coordinates.in_units(self, believed.mean, spread, weight, noise, data)

    def block_priors(self, data):
        self.refuse(data)
        p = self.num_features(data)
        if self.prior is not None:
            T, t = self.to_units(data)
            back = jnp.linalg.inv(T)
            own = self.prior.transformed(back, -back @ t)
            return (FullPrior(own.loc, own.strength, own.scale, own.dof),)
        kind = FullPrior if self.covariance == "full" else DiagonalPrior
        loc, one = jnp.zeros(p, data.dtype), jnp.ones(p, data.dtype)
        return (kind(loc, jnp.asarray(STRENGTH, data.dtype), sd=one),)

    def refuse(self, data: Any) -> None:
        """Refuse data that the model cannot use.

        Raises:
            ValueError: for other data than `Episodes`, or a prior of another size.
        """
        if not isinstance(data, Episodes):
            raise ValueError(
                f"`Linear` takes `meta.Episodes`, not `{type(data).__name__}`."
            )
        if self.features is None and data.x.ndim != 3:
            raise ValueError(
                f"`Linear` takes a vector of inputs per row; `Episodes(x=...)` has shape "
                f"{data.x.shape}. Give `features=` to make vectors of them."
            )
        p = self.num_features(data)
        if self.prior is not None and self.prior.size != p:
            raise ValueError(
                f"`Linear(prior=...)` is for {self.prior.size} coefficients; these data "
                f"have {p}: {', '.join(self._coefficients(data))}."
            )

    # What is believed, for the methods of the family.

    def expected(self, post: Posterior, data: Episodes) -> Believed:
        """What an episode needs of a posterior."""
        block = post.blocks[0]
        spread = jax.vmap(lambda b: b.spread())(block)
        mean = jax.vmap(lambda b: b.location())(block)
        if post.noise is None:
            assert self.noise_sd is not None
            sd = self.noise_sd / self.value_scale(data)
            noise = sd**-2, -2 * jnp.log(sd)
        else:
            assert isinstance(post.noise, Noise)
            noise = post.noise.precision, post.noise.mean_log
        weight = post.mean_log_weight() - post.penalty()
        return Believed(weight, mean, jnp.linalg.cholesky(spread), *noise)

    def gather(self, data, post, key):
        rows = self.rows(data)
        believed = self.expected(post, data)
        found = locals_of(rows, believed)
        log_each = believed.log_weight - found.cost
        bound = jax.nn.logsumexp(log_each, 1)
        share = jnp.exp(log_each - bound[:, None])
        return self._gathered(data, rows, post, found, bound, share)

    def _gathered(self, data, rows, post, found: Local, bound, share) -> Gathered:
        block, n = post.blocks[0], len(bound)
        covariance = jnp.einsum("nkpr,nkqr->nkpq", found.root, found.root)
        second = covariance + jnp.einsum("nkp,nkq->nkpq", found.shift, found.shift)
        first = jnp.einsum("nk,nkp->kp", share, found.shift) / n
        second = jnp.einsum("nk,nkpq->kpq", share, second) / n
        reduced = jax.vmap(lambda b, s: b.reduced(s))(block, second)
        averages = Averages(share.mean(0), first, reduced)
        mean = jax.vmap(lambda b: b.location())(block) + found.shift
        residual = rows.y[:, None] - jnp.einsum("nmp,nkp->nkm", rows.design, mean)
        spread = jnp.einsum("nmp,nkpr->nkmr", rows.design, found.root)
        misfit = jnp.sum(residual**2, -1) + jnp.sum(spread**2, (-1, -2))
        sizes = data.sizes()
        bound = bound - sizes * jnp.log(self.value_scale(data))
        return Gathered(bound, (averages,), sizes.mean(), (share * misfit).sum() / n)

    def rows(self, data: Episodes) -> Rows:
        """The rows of the data, standardised."""
        y = (data.y - self.value_center(data)) / self.value_scale(data)
        design = self.design(data.x, data, data.seen)
        return Rows(design, jnp.where(data.seen, y, 0.0), data.seen)

    def first(self, data, key, start):
        (prior,), k = self.block_priors(data), self.num_components
        p, one = len(prior.loc), jnp.ones((), data.dtype)
        wide = jnp.eye(p, dtype=data.dtype)
        wide = wide if self.covariance == "full" else jnp.diagonal(wide)
        # The weight of one episode, so that the first step decides.
        broad = prior.belief(wide, 1.0)
        noise = None if self.noise_sd is not None else Noise.at(one / 2, one)
        if start is not None:
            return self._first_at(self.believed(start, data), prior)
        block = jax.tree.map(lambda a: jnp.broadcast_to(a, (k, *a.shape)), broad)
        post = Posterior((block,), jnp.full(k, CONCENTRATION, data.dtype), noise)
        if k == 1:
            return post
        rows = self.rows(data)
        found = locals_of(rows, self.expected(post, data))
        share = kinds_of(found.shift[:, 0], k, key)
        bound = jnp.zeros(len(data), data.dtype)
        given = self._gathered(data, rows, post, found, bound, share)
        num = jnp.asarray(len(data), data.dtype)
        return post.moved((prior,), self.noise_scale(data), given, num, one)

    def _first_at(self, believed: Believed, prior: Any) -> Posterior:
        """What is believed at a draw of an earlier fit, with the weight of an episode."""
        full = self.covariance == "full"

        def block(mean, root):
            spread = root @ root.T
            own = eqx.tree_at(lambda p: p.loc, prior, mean)
            return own.belief(spread if full else jnp.diagonal(spread), 1.0)

        one, noise = jnp.ones_like(believed.precision), None
        if self.noise_sd is None:
            noise = Noise.at(believed.precision**-0.5, one)
        weight = len(believed.log_weight) * jnp.exp(believed.log_weight)
        blocks = (jax.vmap(block)(believed.mean, believed.root),)
        return Posterior(blocks, CONCENTRATION * weight, noise)

    def learned(self):
        return learned_of(self)

    def draw(self, post, data, key):
        key_block, key_weight, key_noise = jax.random.split(key, 3)
        keys = jax.random.split(key_block, self.num_components)
        mean, spread = jax.vmap(lambda b, key: b.sample(key))(post.blocks[0], keys)
        if self.covariance != "full":
            spread = jax.vmap(jnp.diag)(spread)
        weight = jax.random.dirichlet(key_weight, post.concentration)
        noise = None if post.noise is None else post.noise.sample(key_noise)
        return coordinates.in_units(self, mean, spread, weight, noise, data)

    # Answers.

    def inputs(self, given: Any, data: Episodes) -> Queries:
        return queries(given, data)

    def predict(self, sites, inputs, key):
        """Given the known rows of each data set: `y`, a draw of new values; `mean`, the
        draw of their mean.
        """
        data = inputs.support
        key_own, key_noise = two_keys(key)
        believed = self.believed(sites, data)
        theta, _ = drawn_coefficients(self.rows(data), believed, key_own)
        design = self.design(inputs.x, data, inputs.asked)
        mean = jnp.einsum("nmp,np->nm", design, theta)
        white = jax.random.normal(key_noise, mean.shape, mean.dtype)
        y = mean + white / jnp.sqrt(believed.precision)
        center, scale = self.value_center(data), self.value_scale(data)
        return {
            name: jnp.where(inputs.asked, center + scale * value, jnp.nan)
            for name, value in (("y", y), ("mean", mean))
        }

    def moments(self, approximation, inputs, data):
        """Of the function of each data set given its known rows, under the posterior of the
        hierarchy's expectations: a new data set has a prior covariance $E[Σ^{-1}]^{-1}$.
        """
        if not isinstance(approximation, Posterior):
            return None
        support = inputs.support
        found = predicted(
            self.rows(support),
            self.expected(approximation, data),
            self.design(inputs.x, data, inputs.asked),
        )
        share = found.share[..., None]
        mean = (share * found.mean).sum(1)
        second = (share * (found.variance + found.mean**2)).sum(1)
        center, scale = self.value_center(data), self.value_scale(data)
        sd = scale * jnp.sqrt(jnp.maximum(second - mean**2, 0.0))
        return {
            "mean": jnp.where(inputs.asked, center + scale * mean, jnp.nan),
            "sd": jnp.where(inputs.asked, sd, jnp.nan),
        }

    def recover(self, sites, data, key):
        """The coefficients of each data set, in units of the data, and its component."""
        believed = self.believed(sites, data)
        theta, kind = drawn_coefficients(self.rows(data), believed, key)
        T, t = self.to_units(data)
        found = {"coefficient": theta @ T.T + t}
        return found if self.num_components == 1 else found | {"kind": kind}

    def canonical(self, sites, data, reference=None):
        if self.num_components == 1:
            return sites
        return in_order(self, sites, data, reference)

    def checks(self, sites, data):
        return checks(self, sites, data)

    # Names of axes.

    def _coefficients(self, data: Episodes) -> list[str]:
        p = self.num_features(data)
        if self.features is not None:
            return [f"feature {i}" for i in range(p)]
        return ["intercept", *(data.columns or [f"x{i}" for i in range(p - 1)])]

    def dims(self, data):
        lead = ["component"] if self.num_components > 1 else []
        return {
            "population_mean": (*lead, *AXES),
            "covariance": (*lead, *AXES, OTHER),
            "between_sd": (*lead, *AXES),
            "weight": ("component",),
            "noise_sd": (),
            "coefficient": ("group", *AXES),
            "kind": ("group",),
            **dims_of(data),
        }

    def coords_at(self, inputs):
        return coords_at(inputs)

    def coords(self, data):
        names = self._coefficients(data)
        coords = {"term": names, OTHER: names, "component": np.arange(self.num_components)}
        return coords | coords_of(data)
