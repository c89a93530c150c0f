"""The models: a surface as a level, main effects, and a low-rank interaction."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Float
from numpyro.distributions.transforms import AffineTransform

from probkit.distributions import InUnits
from probkit.gp.mixture import is_known
from probkit.model import AbstractModel
from probkit.model.density import Sites
from probkit.model.labels import counted
from probkit.models.tucker.checks import checks, spreads
from probkit.models.tucker.entries import Entries
from probkit.models.tucker.labels import order_and_signs, relabelled
from probkit.models.tucker.modes import AbstractMode, Parameters, mode_of
from probkit.models.tucker.observations import (
    AbstractObservation,
    Normal,
    Poisson,
    noise_prior,
)
from probkit.models.tucker.priors import AbstractPrior
from probkit.models.tucker.queries import queries
from probkit.validate import short, whole

# The mean of the prior of a scale, in sds of the values.
SCALE = 0.5
# What queries are answered by.
ANSWERS = ("y", "surface", "mean", "sd")
# A priori sd of the level where the surface has no units: of logits, and of log rates.
LEVEL = 3.0


class Units(NamedTuple):
    """Of the values: what is subtracted from them, and what they are divided by."""

    loc: Float[Array, ""]
    scale: Float[Array, ""]


def _modes(given: Any) -> tuple[tuple[str, AbstractMode], ...]:
    if given is None:
        return ()
    if isinstance(given, tuple) and all(isinstance(pair, tuple) for pair in given):
        return given  # of an existing model
    if not isinstance(given, Mapping) or not all(
        isinstance(m, AbstractMode) for m in given.values()
    ):
        raise ValueError(
            f"`modes={short(given)}`: it takes the modes by their names, such as "
            '`{"time": tucker.Smooth(2.5)}`.'
        )
    return tuple(given.items())


def _observation(given: Any) -> AbstractObservation:
    if not isinstance(given, AbstractObservation):
        raise ValueError(
            f"`observation={short(given)}`: it takes `tucker.Normal()`, `StudentT()`, "
            "`Bernoulli()` or `Poisson()`."
        )
    return given


def scale_prior(count: int | None, unit: Float[Array, ""]) -> dist.Distribution:
    """Of scales: exponential, so that a component that is not needed has a small one."""
    one = jnp.ones(() if count is None else (count,), unit.dtype)
    base = dist.Exponential(one).to_event(one.ndim)
    scale = SCALE * unit
    return InUnits(base, [AffineTransform(0.0, scale, dist.constraints.positive)])


class AbstractTucker(AbstractModel):
    """What both forms of the interaction have in common."""

    modes: eqx.AbstractVar[tuple[tuple[str, AbstractMode], ...]]
    observation: eqx.AbstractVar[AbstractObservation]
    effects: eqx.AbstractVar[bool]

    # The program.

    def __call__(self, data: Entries) -> None:
        sites = {}
        for name, prior in self.priors(data).items():
            sites[name] = numpyro.sample(name, prior)
        for k, axis in enumerate(data.axes):
            shape = self.prior(sites, data, k).white_shape
            white = dist.Normal(jnp.zeros(shape, data.dtype), 1.0).to_event(len(shape))
            sites[f"white_{axis.name}"] = numpyro.sample(f"white_{axis.name}", white)
        f = self.surface(sites, data, self.factors(sites, data), data.places)
        f = f + self.offset(data)
        with numpyro.plate("entry", len(data)):
            noise = sites.get("noise_sd")
            numpyro.sample("y", self.observation.likelihood(f, noise), obs=data.y)

    def offset(self, data: Entries) -> Array | float:
        """What is added to the surface at each entry: the log of the exposure."""
        return 0.0 if data.exposure is None else jnp.log(data.exposure)

    def priors(self, data: Entries) -> dict[str, dist.Distribution]:
        """The prior of each site except the white noise, in the units of the data."""
        self.refuse(data)
        unit = self.units(data)
        spread = unit.scale if self.observation.in_units else LEVEL * unit.scale
        standard = dist.Normal(jnp.zeros_like(unit.scale), 1.0)
        priors: dict[str, dist.Distribution] = {
            "level": InUnits(standard, [AffineTransform(unit.loc, spread)])
        }
        if self.observation.in_units:
            priors["noise_sd"] = noise_prior(unit.scale)
        priors |= self.priors_of_interaction(data)
        for axis in data.axes:
            parameters = self.mode(axis).parameters(axis)
            priors |= {f"{p}_{axis.name}": d for p, d in parameters.items()}
            if self.effects:
                priors[f"sd_effect_{axis.name}"] = scale_prior(None, unit.scale)
                priors |= {f"{p}_effect_{axis.name}": d for p, d in parameters.items()}
        return priors

    @abstractmethod
    def priors_of_interaction(self, data: Entries) -> dict[str, dist.Distribution]:
        """Those of the scales, and of the core."""

    @abstractmethod
    def interact(self, sites: Sites, data: Entries, components: list[Array]) -> Array:
        """$I$ at each entry, in units of the surface.

        Args:
            sites: one draw.
            data: the data.
            components: $u_k$ at each entry, `(n, R_k)`, one array per mode.
        """

    @abstractmethod
    def ranks(self, count: int) -> tuple[int, ...]:
        """The number of components of each of `count` modes."""

    # The parts of the surface.

    def units(self, data: Entries) -> Units:
        """Those of the values, or zero and one where the surface has none."""
        if self.observation.in_units:
            return Units(data.y_mean, data.y_sd)
        one = jnp.ones((), data.dtype)
        return Units(0 * one, one)

    def mode(self, axis: Any) -> AbstractMode:
        """The prior of the functions along an axis."""
        return mode_of(dict(self.modes).get(axis.name), axis)

    def parameters(self, sites: Sites, data: Entries, k: int) -> list[Parameters]:
        """Those of the components of a mode, and those of its main effect."""
        axis = data.axes[k]
        names = self.mode(axis).parameters(axis)
        kinds = ("", "effect_") if self.effects else ("",)
        return [{p: sites[f"{p}_{kind}{axis.name}"] for p in names} for kind in kinds]

    def prior(self, sites: Sites, data: Entries, k: int) -> AbstractPrior:
        """The joint prior of components and main effect of a mode, of variance one."""
        counts = (self.ranks(len(data.axes))[k], 1)
        groups = list(zip(self.parameters(sites, data, k), counts, strict=False))
        axis = data.axes[k]
        return self.mode(axis).prior(groups, axis)

    def factors(self, sites: Sites, data: Entries) -> list[Float[Array, "p c"]]:
        """Components and main effect at the points of each mode, of variance one."""
        return [
            self.prior(sites, data, k).color(sites[f"white_{axis.name}"])
            for k, axis in enumerate(data.axes)
        ]

    def surface(
        self, sites: Sites, data: Entries, factors: list[Array], places: Array
    ) -> Float[Array, " n"]:
        """$f$ at entries.

        Args:
            sites: one draw.
            data: the data of the fit.
            factors: components and main effect at the points of each mode.
            places: which point of each mode an entry is at, `(n, K)`.
        """
        ranks = self.ranks(len(data.axes))
        at = [u[places[:, k]] for k, u in enumerate(factors)]
        f = sites["level"]
        f = f + self.interact(
            sites, data, [u[:, :r] for u, r in zip(at, ranks, strict=True)]
        )
        if self.effects:
            for axis, u in zip(data.axes, at, strict=True):
                f = f + sites[f"sd_effect_{axis.name}"] * u[:, -1]
        return f

    def coords(self, data: Entries) -> dict[str, Any]:
        return dict(counted(self, data, self.dims(data))) | data.coords()

    # What it answers.

    def inputs(self, given, data):
        """The queries, and the data of the fit."""
        return queries(data, given), data

    def predict(self, sites, inputs, key):
        """At queries: `surface`, a joint draw of it, and `y`, new values with noise.

        Both have the axes of the queries: those of a grid, or one row per listed query.
        For counts with exposure, `y` is for an exposure of one.
        """
        asked, data = inputs
        key_y, *keys = jax.random.split(key, 1 + len(data.axes))
        factors = [
            self.prior(sites, data, k).between(
                sites[f"white_{axis.name}"], asked.axes[k].points, asked.seen[k], keys[k]
            )
            for k, axis in enumerate(data.axes)
        ]
        f = self.surface(sites, data, factors, asked.places)
        new = self.observation.likelihood(f, sites.get("noise_sd"))
        found = {"surface": f, "y": new.sample(key_y)}
        return {name: values.reshape(asked.shape) for name, values in found.items()}

    def dims_at(self, inputs, data):
        asked, _ = inputs
        return dict.fromkeys(ANSWERS, asked.dims)

    def coords_at(self, inputs):
        asked, _ = inputs
        return asked.coords()

    def moments(self, approximation, inputs, data):
        """At queries: `mean` and `sd` of the surface, exact under the approximation."""
        if not hasattr(approximation, "factors"):
            return None
        asked, _ = inputs
        mean, variance = approximation.moments(self, data, asked)
        found = {"mean": mean, "sd": jnp.sqrt(variance)}
        return {name: values.reshape(asked.shape) for name, values in found.items()}

    def recover(self, sites, data, key):
        """The curves of each mode at its points: `factor_<mode>`, of variance one a priori,
        and `effect_<mode>`, in the units of the surface; and `surface` at the entries.
        """
        curves, factors = {}, self.factors(sites, data)
        for axis, rank, u in zip(
            data.axes, self.ranks(len(data.axes)), factors, strict=True
        ):
            curves[f"factor_{axis.name}"] = u[:, :rank]
            if self.effects:
                curves[f"effect_{axis.name}"] = sites[f"sd_effect_{axis.name}"] * u[:, -1]
        return curves | {"surface": self.surface(sites, data, factors, data.places)}

    @abstractmethod
    def shares(
        self, sites: Sites, data: Entries, factors: list[Array]
    ) -> dict[str, Float[Array, " r"]]:
        """The sd of the part of each component over the entries, relative to the surface.

        Args:
            sites: one draw.
            data: the data.
            factors: components and main effect at the points of each mode.

        Returns:
            `{ending of a name: one number per component}`, one entry per set of them.
        """

    def checks(self, sites, data):
        return checks(self, sites, data)

    def refuse(self, data: Any) -> None:
        """Refuse data of another family, and settings that do not fit these data."""
        if not isinstance(data, Entries):
            raise ValueError(
                f"`{type(self).__name__}` takes `tucker.Entries`, not "
                f"`{type(data).__name__}`."
            )
        names = [axis.name for axis in data.axes]
        unknown = [name for name, _ in self.modes if name not in names]
        if unknown:
            raise ValueError(
                f"`{type(self).__name__}(modes=...)` names {', '.join(unknown)}; the data "
                f"have the modes {', '.join(names)}."
            )
        for axis, rank in zip(data.axes, self.ranks(len(names)), strict=True):
            self.mode(axis)
            if rank > len(axis.points):
                raise ValueError(
                    f"`{type(self).__name__}`: rank {rank} is above the "
                    f"{len(axis.points)} distinct values of `{axis.name}`; lower it."
                )
        wanted = self.observation.wanted(np.asarray(data.y)) if is_known(data.y) else ""
        if wanted:
            kind = type(self.observation).__name__
            raise ValueError(
                f"`Entries(y=...)`: `observation=tucker.{kind}()` takes {wanted}."
            )
        if data.exposure is not None and not isinstance(self.observation, Poisson):
            raise ValueError(
                f"`{type(self).__name__}`: the data have an exposure, which is for counts; "
                "use `observation=tucker.Poisson()`, or leave `exposure` out."
            )


class CP(AbstractTucker):
    r"""$f(i) = l + \sum_k g_k(i_k) + \sum_r s_r \prod_k u_{kr}(i_k)$.

    The functions $u_{kr}$ are independent Gaussian processes of variance one, with one
    kernel per mode. The main effects $g_k$ are such processes times `sd_effect_<mode>`.

    Sites: `level` $l$; `noise_sd`, for observations that have one; `scale` $s$, one per
    component; `lengthscale_<mode>` of the components and `lengthscale_effect_<mode>` of
    the main effect, in units of the coordinate; `sd_effect_<mode>`; and `white_<mode>`,
    standard normal, from which the functions are made. The surface is in the units of the
    values (log odds for `Bernoulli`, logs for `Poisson`).

    Args:
        rank: the number of components.
        modes: `{name: mode}` for those that are not the default of their kind:
            `Smooth()` for a line, `Space()` for several coordinates, `Exchangeable()` for
            labels.
        observation: `Normal()`, `StudentT()`, `Bernoulli()` or `Poisson()`.
        effects: whether there is a main effect per mode.

    Raises:
        ValueError: for other settings; in `pk.fit`, for a rank above the number of points
            of a mode, or modes that the data lack.

    Source: Fang et al. (2024), arXiv 2311.04829, FunBaT-CP; main effects and learned scales
    are ours.
    """

    rank: int = eqx.field(default=2, converter=whole("CP(rank", 1))
    modes: tuple[tuple[str, AbstractMode], ...] = eqx.field(default=(), converter=_modes)
    observation: AbstractObservation = eqx.field(default=Normal(), converter=_observation)
    effects: bool = True

    def ranks(self, count):
        return (self.rank,) * count

    def priors_of_interaction(self, data):
        return {"scale": scale_prior(self.rank, self.units(data).scale)}

    def interact(self, sites, data, components):
        product = components[0]
        for u in components[1:]:
            product = product * u
        return product @ sites["scale"]

    def canonical(self, sites, data, reference=None):
        """Components in the order and with the signs of `reference`, or by their scales."""
        r = self.rank
        if reference is None:
            signs = jnp.ones((len(data.axes), r), data.dtype)
            return self._relabelled(sites, data, jnp.argsort(-sites["scale"]), signs)
        ours, theirs = (
            [u[:, :r] for u in self.factors(s, data)] for s in (sites, reference)
        )
        return self._relabelled(sites, data, *order_and_signs(ours, theirs))

    def _relabelled(self, sites, data, order, signs):
        count = self.rank + self.effects
        whites = {
            f"white_{axis.name}": relabelled(sites[f"white_{axis.name}"], order, s, count)
            for axis, s in zip(data.axes, signs, strict=True)
        }
        return sites | {"scale": sites["scale"][order]} | whites

    def shares(self, sites, data, factors):
        f = self.surface(sites, data, factors, data.places)
        product = sites["scale"]
        for k, u in enumerate(factors):
            product = product * u[data.places[:, k], : self.rank]
        return {"": spreads(product, f)}

    def dims(self, data):
        return _dims(self, data) | {"scale": ("component",)}


def _ranks(given: Any) -> int | tuple[int, ...]:
    one = whole("Tucker(rank", 1)
    return tuple(map(one, given)) if isinstance(given, tuple | list) else one(given)


class Tucker(AbstractTucker):
    r"""$f(i) = l + \sum_k g_k(i_k) + \sum W_{r_1 … r_K} \prod_k s_{k r_k} u_{k r_k}(i_k)$.

    As `CP`, with a core $W$ of independent standard normal numbers (in sds of the values),
    and with one scale per mode and component, `scale_<mode>`. The axes of `core` are the
    modes, in their order in the data.

    Args:
        ranks: the number of components, one for all modes or one per mode.
        modes: as for `CP`.
        observation: as for `CP`.
        effects: as for `CP`.

    Raises:
        ValueError: as for `CP`; and for another number of ranks than modes.

    Source: Fang et al. (2024), arXiv 2311.04829, FunBaT. The core prior is the paper's;
    the scales are ours.
    """

    rank: int | tuple[int, ...] = eqx.field(default=2, converter=_ranks)
    modes: tuple[tuple[str, AbstractMode], ...] = eqx.field(default=(), converter=_modes)
    observation: AbstractObservation = eqx.field(default=Normal(), converter=_observation)
    effects: bool = True

    def ranks(self, count):
        ranks = (self.rank,) * count if isinstance(self.rank, int) else self.rank
        if len(ranks) != count:
            raise ValueError(
                f"`Tucker(rank={self.rank})` has {len(ranks)} ranks; the data have {count} "
                "modes."
            )
        return ranks

    def priors_of_interaction(self, data):
        one, ranks = jnp.ones((), data.dtype), self.ranks(len(data.axes))
        priors: dict[str, dist.Distribution] = {
            f"scale_{axis.name}": scale_prior(r, one / SCALE)
            for axis, r in zip(data.axes, ranks, strict=True)
        }
        core = dist.Normal(jnp.zeros(ranks, data.dtype), 1.0).to_event(len(ranks))
        return priors | {"core": core}

    def interact(self, sites, data, components):
        args: list[Any] = [sites["core"], list(range(len(components)))]
        for k, (axis, u) in enumerate(zip(data.axes, components, strict=True)):
            args += [u * sites[f"scale_{axis.name}"], [len(components), k]]
        unit = self.units(data).scale
        return unit * jnp.einsum(*args, [len(components)], optimize="greedy")

    def shares(self, sites, data, factors):
        f = self.surface(sites, data, factors, data.places)
        ranks = self.ranks(len(data.axes))
        at = [
            u[data.places[:, k], :r]
            for (k, u), r in zip(enumerate(factors), ranks, strict=True)
        ]

        def parts(k):
            """The part of the interaction that goes through each component of a mode."""
            one = [
                self.interact(sites, data, [*at[:k], at[k] * hot, *at[k + 1 :]])
                for hot in jnp.eye(ranks[k], dtype=data.dtype)
            ]
            return jnp.stack(one, 1)

        named = enumerate(data.axes)
        return {f" along {axis.name}": spreads(parts(k), f) for k, axis in named}

    def dims(self, data):
        names = [f"component_{axis.name}" for axis in data.axes]
        scales = {f"scale_{a.name}": (n,) for a, n in zip(data.axes, names, strict=True)}
        return _dims(self, data) | scales | {"core": tuple(names)}


def _dims(model: AbstractTucker, data: Entries) -> dict[str, tuple[str, ...]]:
    dims: dict[str, tuple[str, ...]] = {
        name: () for name, d in model.priors(data).items() if d.event_dim == 0
    }
    several = {axis.name: f"component_{axis.name}" for axis in data.axes}
    if isinstance(model, CP):
        several = dict.fromkeys(several, "component")
    for k, axis in enumerate(data.axes):
        shape = jax.eval_shape(lambda k=k: _white(model, data, k)).shape
        tail = tuple(f"state_{axis.name}" for _ in shape[1:])
        dims[f"white_{axis.name}"] = (axis.name, *tail)
        dims[f"factor_{axis.name}"] = (axis.name, several[axis.name])
        dims[f"effect_{axis.name}"] = (axis.name,)
    by_entry = dict.fromkeys(ANSWERS, ("entry",))
    return data.dims() | dims | by_entry


def _white(model: AbstractTucker, data: Entries, k: int) -> Array:
    """An array of the shape of the white noise of a mode."""
    key = jax.random.key(0)
    sites = {name: d.sample(key) for name, d in model.priors(data).items()}
    return jnp.zeros(model.prior(sites, data, k).white_shape)
