r"""The model of Kronecker-structured sparse Bayesian learning."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Float, PRNGKeyArray
from numpyro.distributions import constraints
from numpyro.distributions.transforms import AffineTransform

from probkit.distributions import InUnits, KroneckerNormal, SeenNormal
from probkit.linalg import abs2, mode_products
from probkit.method.programs import jit_for_one_run
from probkit.model import AbstractEMModel
from probkit.model.check import Check
from probkit.model.density import Sites
from probkit.models.sbl.coordinates import Matrices, grams
from probkit.models.sbl.measurements import Measurements
from probkit.models.sbl.posterior import Posterior, in_units, posterior
from probkit.models.sbl.updates import (
    NOISE_FLOOR,
    Evidence,
    Penalty,
    Scales,
    bound_sweep,
    moved_noise,
    noise_variance,
)
from probkit.validate import as_array, pairs, positive, short, whole

# Where learning the noise starts.
FIRST_NOISE = 0.1

Coupling = float | tuple[tuple[float, ...], ...]


def neighbours(size: int, weight: float) -> np.ndarray:
    """A coupling of each atom with its two neighbours in the list, without wrapping.

    Args:
        size: number of atoms, $N$.
        weight: share of each neighbour's variance that is added to the variance of an
            atom: 0 or a positive number, dimensionless.

    Returns:
        $C$, shape `(N, N)`: ones on the diagonal, `weight` beside it.

    Raises:
        ValueError: if `size` is not a positive whole number, or `weight` is negative.

    Source: the pattern-coupled prior of He & Joseph, arXiv 2307.14719.
    """
    size = whole("neighbours(size", 1)(size)
    weight = positive("neighbours(weight", zero=True)(weight)
    return np.eye(size) + weight * (np.eye(size, k=1) + np.eye(size, k=-1))


def blocks(labels: Any) -> np.ndarray:
    """A coupling in which the atoms of a block share one variance: block SBL.

    Args:
        labels: the block of each atom, shape `(N,)`, all numbers or all text.

    Returns:
        $C$ of zeros and ones, shape `(N, number of blocks)`. Blocks are in the order of
        their sorted labels.

    Raises:
        ValueError: if `labels` is not a list of labels that can be sorted.
    """
    try:
        found, block = np.unique(np.asarray(labels), return_inverse=True)
    except TypeError:  # labels that cannot be sorted
        found = block = np.zeros((), int)
    if block.ndim != 1 or block.size == 0:
        raise ValueError(
            f"`blocks(labels={short(labels)})`: it takes one label per atom in a list, all "
            "numbers or all text, such as `[0, 0, 1]`."
        )
    return np.eye(len(found))[block]


def smooth(places: Any, num_knots: int) -> np.ndarray:
    """A coupling by which the variances of a mode are a smooth function of a place.

    Each knot has one variance, and between two knots the variance of an atom is
    interpolated. With few measurements this keeps a fit from taking noise for signal.

    Args:
        places: a number for each atom, shape `(N,)`, such as the log of its frequency.
        num_knots: number of knots, 2 or more. They are evenly spaced from the smallest to
            the largest place.

    Returns:
        $C$, shape `(N, num_knots)`; its rows sum to one.

    Raises:
        ValueError: if the places are no list of two different numbers or more, or there
            are fewer than two knots, or so many that one has no atom near it.
    """
    at = np.asarray(as_array(places, "smooth(places=...)"))
    count = whole("smooth(num_knots", 2)(num_knots)
    if at.ndim != 1 or len(np.unique(at)) < 2:
        raise ValueError(
            f"`smooth(places=...)` has shape {at.shape}; it takes one number per atom, not "
            "all equal."
        )
    knots = np.linspace(at.min(), at.max(), count)
    C = np.stack([np.interp(at, knots, hat) for hat in np.eye(count)], 1)
    if not C.any(0).all():
        raise ValueError(
            f"`smooth(num_knots={count})`: a knot has no atom within one step of it; use "
            "fewer knots, or places that are more even."
        )
    return C


def _coupling(mode: str, value: Any) -> Coupling:
    what = f"KroneckerSBL(coupling={{{mode!r}: ...}})"
    array = np.asarray(as_array(value, what), float)
    if array.ndim == 0 and 0 <= array <= 1:
        return float(array)
    proper = array.ndim == 2 and array.size > 0 and (array >= 0).all()
    if proper and array.any(1).all() and array.any(0).all():
        return tuple(tuple(row.tolist()) for row in array)
    raise ValueError(
        f"`{what}` takes the weight of both neighbours, in [0, 1], or a matrix of numbers "
        "that are not negative, with one row per atom and no row or column of zeros."
    )


def _names(given: Any) -> tuple[str, ...]:
    if not isinstance(given, str | list | tuple):
        raise ValueError(
            f"`KroneckerSBL(frozen={short(given)})`: it takes names of modes in a list, "
            "such as `['snapshot']`."
        )
    return (given,) if isinstance(given, str) else tuple(map(str, given))


class Inputs(eqx.Module):
    """New rows of the dictionaries, and the data of the fit."""

    rows: Matrices
    data: Measurements


class KroneckerSBL(AbstractEMModel):
    r"""$y = (A_1 ⊗ … ⊗ A_P)\, x + n$, with one variance per atom of each mode.

    $$x_{i_1 … i_P} \sim N\Bigl(0,\; τ^2 \prod_p (C_p λ_p^2)_{i_p}\Bigr), \qquad
      n \sim N(0, σ^2 I),$$

    or circular complex normal if the data are complex. The coefficients $x$ are integrated
    out. `recover` draws them again. One mode is classic sparse Bayesian learning.

    Sites:
        `global_scale`: $τ$, a number, in the units of the coefficients, or of `y` if the
            data normalise their columns.
        `local_scale_<mode>`: $λ_p$ of each mode that is not frozen, one entry per atom or
            per group of atoms, dimensionless.
        `noise_sd`: $σ$, a number, in the units of `y`. No site if the data have it.

    The priors are half-Cauchy. With one mode this is the horseshoe prior. `sbl.TypeII` and
    `EM(maximise="likelihood")` leave the priors out and maximise the evidence
    $p(y \mid τ, λ, σ)$. Then the largest $λ$ of each mode is one by convention.

    Args:
        frozen: names of modes whose $λ_p$ is held at one. If the second mode is the
            snapshots, with an identity dictionary, freezing it gives M-SBL.
        coupling: a dict from modes to the weight of the two neighbours of each atom (a
            number in [0, 1]), or to a matrix $C_p ≥ 0$ with one row per atom. See
            `neighbours`, `blocks` and `smooth`. Modes that are not named are not coupled.
        global_scale: scale of the prior of $τ$, relative to the $τ$ at which the prior
            explains the power of the signal. Dimensionless.
        noise_scale: scale of the prior of $σ$, relative to the root mean square of `y`.
            Dimensionless.

    Raises:
        ValueError: for a scale that is not positive, or a coupling that is neither a
            weight in [0, 1] nor a matrix without negative entries and without a row or
            column of zeros. A mode that the data lack is refused when the model is fitted.

    Source: He & Joseph, arXiv 2307.14719; horseshoe: Carvalho, Polson & Scott (2010).
    Departs: the start is matched to the scale of the data. The paper starts at one.
    """

    frozen: tuple[str, ...] = eqx.field(default=(), converter=_names)
    coupling: tuple[tuple[str, Coupling], ...] = eqx.field(
        default=(),
        converter=pairs(
            "KroneckerSBL(coupling",
            "a mode",
            "a dict from modes to weights or matrices, such as `{'atom': 0.5}`",
            _coupling,
        ),
    )
    global_scale: float = eqx.field(
        default=1.0, converter=positive("KroneckerSBL(global_scale")
    )
    noise_scale: float = eqx.field(
        default=1.0, converter=positive("KroneckerSBL(noise_scale")
    )

    # The program.

    def __call__(self, data: Measurements) -> None:
        priors = self.priors(data)
        sites = {name: numpyro.sample(name, prior) for name, prior in priors.items()}
        numpyro.sample("y", self.evidence(sites, data), obs=data.y)

    def priors(self, data: Measurements) -> dict[str, dist.Distribution]:
        """The prior of each site, `{site: distribution}`, in the units of the data."""
        unit, rms = self.prior_units(data)
        one = jnp.ones_like(unit)
        priors: dict[str, dist.Distribution] = {
            "global_scale": _half_cauchy(self.global_scale * one, unit)
        }
        for mode, size in zip(data.modes, self.num_scales(data), strict=True):
            if mode not in self.frozen:
                each = dist.HalfCauchy(one).expand([size]).to_event(1)
                priors[f"local_scale_{mode}"] = each
        if data.noise_sd is None:
            priors["noise_sd"] = _half_cauchy(self.noise_scale * one, rms)
        return priors

    def evidence(self, sites: Sites, data: Measurements) -> KroneckerNormal | SeenNormal:
        r"""$p(y \mid τ, λ, σ)$, with the coefficients integrated out."""
        variance, noise = self.scales(sites, data).variance(), self.noise(sites, data)
        core, complex_too = data.reduced, data.is_complex
        level = None if core.center is None else core.center.y
        seen = KroneckerNormal(
            core.grams(variance),
            noise,
            is_complex=complex_too,
            bases=core.bases,
            level=level,
        )
        if data.places is None:
            return seen
        factors = grams(data.dictionaries, variance)
        whole = KroneckerNormal(factors, noise, is_complex=complex_too)
        return SeenNormal(whole, seen, data.places)

    def scales(self, sites: Sites, data: Measurements) -> Scales:
        """The prior variances at the sites, of coefficients of normalised columns."""
        coupling, frozen = self.structure(data)
        real, sizes = data.y.real.dtype, self.num_scales(data)
        local = tuple(
            jnp.ones(size, real) if held else jnp.asarray(sites[f"local_scale_{mode}"]) ** 2
            for mode, size, held in zip(data.modes, sizes, frozen, strict=True)
        )
        return Scales(jnp.asarray(sites["global_scale"]) ** 2, local, coupling, frozen)

    def sites(self, scales: Scales, noise: Float[Array, ""], data: Measurements) -> Sites:
        """The sites for given variances: the inverse of `scales` and `noise`."""
        sites = {"global_scale": jnp.sqrt(scales.total)}
        for mode, g, frozen in zip(data.modes, scales.local, scales.frozen, strict=True):
            if not frozen:
                sites[f"local_scale_{mode}"] = jnp.sqrt(g)
        if data.noise_sd is None:
            sites["noise_sd"] = jnp.sqrt(noise)
        return sites

    def noise(self, sites: Sites, data: Measurements) -> Float[Array, ""]:
        """$σ^2$, learned or known, in squared units of `y`."""
        known = sites["noise_sd"] if data.noise_sd is None else data.noise_sd
        return jnp.asarray(known) ** 2

    def structure(
        self, data: Measurements
    ) -> tuple[tuple[Float[Array, "_n _k"] | None, ...], tuple[bool, ...]]:
        """$C_p$ of each mode, None if it is not coupled; and which modes are frozen."""
        given, real = dict(self.coupling), data.y.real.dtype
        pairs = zip(data.modes, self.couplings(data), strict=True)
        coupling = tuple(jnp.asarray(c, real) if m in given else None for m, c in pairs)
        return coupling, tuple(mode in self.frozen for mode in data.modes)

    def num_scales(self, data: Measurements) -> tuple[int, ...]:
        """Number of local scales of each mode: one per atom, or one per group."""
        return tuple(c.shape[1] for c in self.couplings(data))

    def couplings(self, data: Measurements) -> tuple[np.ndarray, ...]:
        """$C_p$ of each mode, or the identity if it is not coupled."""
        given = dict(self.coupling)
        for what, names in (("frozen", self.frozen), ("coupling", tuple(given))):
            for mode in names:
                if mode not in data.modes:
                    raise ValueError(
                        f"`KroneckerSBL({what}=...)` names the mode `{mode}`; the data "
                        f"have {', '.join(data.modes)}."
                    )
        matrices = []
        for mode, size in zip(data.modes, data.num_atoms, strict=True):
            value = given.get(mode)
            if value is None:
                matrix = np.eye(size)
            elif isinstance(value, float):
                matrix = neighbours(size, value)
            else:
                matrix = np.array(value)
            if matrix.shape[0] != size:
                raise ValueError(
                    f"`KroneckerSBL(coupling={{{mode!r}: ...}})` has {matrix.shape[0]} "
                    f"rows, but the mode has {size} atoms; give one row per atom."
                )
            matrices.append(matrix)
        return tuple(matrices)

    def prior_units(self, data: Measurements) -> tuple[Float[Array, ""], Float[Array, ""]]:
        r"""The two scales in which priors are given.

        The sum of the signal's squares over the seen entries $k$ has prior mean
        $τ^2 \sum_k \prod_p \sum_i |A_{p,k_p i}|^2 (C_p 1)_i$ at $λ = 1$.

        Args:
            data: the measurements.

        Returns:
            The $τ$ at which this mean is the power of the signal in the data, in units of
            the coefficients; and the root mean square of `y`, in units of `y`.

        Raises:
            ValueError: if the data are not `sbl.Measurements`.
        """
        if not isinstance(data, Measurements):
            raise ValueError(
                f"`KroneckerSBL` takes `sbl.Measurements`, not `{type(data).__name__}`."
            )
        power = data.power
        noise = FIRST_NOISE * power if data.noise_sd is None else data.noise_sd**2
        grids = data.reduced.dictionaries if data.places is None else data.dictionaries
        pairs = zip(grids, self.couplings(data), strict=True)
        parts = tuple(abs2(a) @ jnp.asarray(c.sum(1), power.dtype) for a, c in pairs)
        expected = data.sum_of_seen(parts) / len(data)
        signal = jnp.maximum(power - noise, 0.01 * power)
        return jnp.sqrt(signal / expected), jnp.sqrt(power)

    # The coefficients.

    def posterior(self, sites: Sites, data: Measurements) -> Posterior:
        """Exact posterior of the coefficients, given one draw of the sites.

        Args:
            sites: one draw, `{site: value}`.
            data: the measurements.
        """
        # Numbers become arrays, so that another draw is not another program.
        return _posterior(self, jax.tree.map(jnp.asarray, sites), data)

    def _posterior(self, sites: Sites, data: Measurements) -> Posterior:
        """The same of the coefficients of normalised columns."""
        variance = self.scales(sites, data).variance()
        return posterior(data, variance, self.noise(sites, data))

    def recover(self, sites, data, key):
        """`coefficient`, one joint draw, and its exact mean and sd given the sites.

        `coefficient_unshrunk` is one draw of each coefficient by itself, with a flat prior
        on it in place of its own, see `Posterior.unshrunk`. If the data have an intercept,
        there are also `intercept`, `intercept_mean` and `intercept_sd`.
        """
        key_x, key_each, key_intercept = jax.random.split(key, 3)
        post = self.posterior(sites, data)
        x, (middle, variance) = post.sample(key_x), post.unshrunk()
        noise = jax.random.normal(key_each, middle.shape, middle.dtype)
        found = {
            "coefficient": x,
            "coefficient_unshrunk": middle + jnp.sqrt(variance) * noise,
            "coefficient_mean": post.mean(),
            "coefficient_sd": jnp.sqrt(post.variances()),
        }
        if not data.intercept:
            return found
        mean, variance = post.at([jnp.zeros((1, *data.num_atoms), x.dtype)])
        return found | {
            "intercept": post.intercept(x, key_intercept),
            "intercept_mean": mean[0],
            "intercept_sd": jnp.sqrt(variance[0]),
        }

    def pointwise(self, sites, data):
        r"""$\log p(y_i \mid y_{-i}, τ, λ, σ)$ of each measurement given all the others.

        It is zero where nothing was measured.
        """
        return {"y": self.evidence(sites, data).leave_one_out(data.y)}

    def inputs(self, given: Any, data: Measurements) -> Inputs:
        if isinstance(given, Measurements):
            given = given.dictionaries
        single = getattr(given, "ndim", None) == 2
        parts = [given] if single else given
        if not isinstance(parts, list | tuple) or len(parts) != len(data.modes):
            raise ValueError(
                f"`predict(..., inputs)` got {short(given)}; it takes a list of one matrix "
                f"of new rows per mode ({', '.join(data.modes)}), None for the rows of the "
                "fit."
            )
        rows = []
        for part, mode, matrix in zip(parts, data.modes, data.dictionaries, strict=True):
            if part is None:
                rows.append(matrix)
                continue
            what = f"predict(..., inputs)[{mode}]"
            new = as_array(part, what, complex_too=data.is_complex)
            if new.ndim != 2 or new.shape[1] != matrix.shape[1] or len(new) == 0:
                raise ValueError(
                    f"`predict(..., inputs)` has rows of shape {new.shape} for `{mode}`; "
                    f"the mode has {matrix.shape[1]} atoms, so it takes "
                    f"(k, {matrix.shape[1]})."
                )
            real = data.y.real.dtype
            rows.append(new.astype(jnp.result_type(new, real) if data.is_complex else real))
        return Inputs(tuple(rows), data)

    def predict(self, sites, inputs, key):
        """At new rows: `y`, one draw with noise, and `mean` and `sd` without noise.

        The mean and sd are exact given the sites. They need no draw.
        """
        key_x, key_intercept, key_noise = jax.random.split(key, 3)
        post = self.posterior(sites, inputs.data)
        mean, variance = post.at(inputs.rows)
        x = post.sample(key_x)
        signal = mode_products(x, inputs.rows) + post.intercept(x, key_intercept)
        noise = jax.random.normal(key_noise, signal.shape, signal.dtype)
        return {
            "y": signal + jnp.sqrt(post.noise) * noise,
            "mean": mean,
            "sd": jnp.sqrt(variance),
        }

    # EM, with the bound of `bound_sweep` in place of the expected log likelihood.

    def start(self, data: Measurements, key: PRNGKeyArray) -> Sites:
        """The flat start, with local scales multiplied by factors of log sd 0.5."""
        return scattered(self.flat_start(data), key, 0.5)

    def flat_start(self, data: Measurements) -> Sites:
        """Equal local scales, at the global scale that matches the power of the data."""
        unit, rms = self.prior_units(data)
        sites = {"global_scale": unit, "noise_sd": math.sqrt(FIRST_NOISE) * rms}
        flat = {
            name: jnp.ones(prior.event_shape, unit.dtype)
            for name, prior in self.priors(data).items()
        }
        return flat | {name: value for name, value in sites.items() if name in flat}

    def e_step(self, sites, data):
        """The posterior of the coefficients, and the log evidence."""
        post = self._posterior(sites, data)
        return post, post.log_evidence()

    def m_step(self, moments, sites, data, use_prior):
        """One sweep of the bound, see `updates.bound_sweep`, and a step of the noise."""
        scales = self.scales(sites, data)
        penalty = None
        if use_prior:
            unit, rms = self.prior_units(data)
            penalty = Penalty(
                (self.global_scale * unit) ** 2,
                (self.noise_scale * rms) ** 2,
                1.0 if data.is_complex else 2.0,
            )
        new = bound_sweep(scales, Evidence.of(moments), penalty)
        noise = noise_variance(moved_noise("mm", moments, penalty), data)
        return self.sites(new if use_prior else new.normalised(), noise, data)

    # Names of axes, and checks.

    def dims(self, data):
        measured = tuple(f"{mode}_measured" for mode in data.modes)
        alone = ["global_scale", "noise_sd", "power"]
        if data.intercept:
            alone += ["intercept", "intercept_mean", "intercept_sd"]
        dims: dict[str, tuple[str, ...]] = dict.fromkeys(alone, ())
        for mode, rows in zip(data.modes, measured, strict=True):
            dims[f"local_scale_{mode}"] = (self._scale_axis(mode),)
            dims[f"dictionary_{mode}"] = (rows, mode)
        of_y = dict.fromkeys(("y", "mean", "sd"), measured)
        of_x = ("", "_mean", "_sd", "_unshrunk")
        return dims | of_y | {f"coefficient{end}": data.modes for end in of_x}

    def _scale_axis(self, mode: str) -> str:
        grouped = not isinstance(dict(self.coupling).get(mode, 0.0), float)
        return f"{mode}_group" if grouped else mode

    def coords(self, data):
        coords = {}
        pairs = zip(data.modes, data.dictionaries, self.couplings(data), strict=True)
        for mode, matrix, coupling in pairs:
            coords[f"{mode}_measured"] = np.arange(matrix.shape[0])
            coords[mode] = np.arange(matrix.shape[1])
            if self._scale_axis(mode) != mode:
                coords[f"{mode}_group"] = np.arange(coupling.shape[1])
        return coords

    def checks(self, sites, data):
        explained, contrast, over_floor = map(float, _health(self, sites, data))
        eps = float(jnp.finfo(data.y.real.dtype).eps)
        checks = [
            Check(
                "share of the measurements taken up by signal",
                explained,
                "at most",
                0.9,
                "too few measurements are left to estimate the noise from: measure more, "
                "couple atoms, or give `noise_sd`",
            ),
            Check(
                "digits lost to the range of signal over noise",
                contrast * eps,
                "at most",
                1e-3,
                "use float64 (`pk.enable_x64()`), or scale the columns of the dictionaries",
                "relative error of the smallest eigenvalue",
            ),
        ]
        if data.noise_sd is None:
            checks.append(
                Check(
                    "noise over its floor",
                    over_floor,
                    "at least",
                    2.0,
                    "the model explains everything, so that the data do not separate noise "
                    "from many small coefficients; give `noise_sd`, or measure more",
                    "ratio of variances",
                )
            )
        return tuple(checks)


@jit_for_one_run
def _posterior(model: KroneckerSBL, sites: Sites, data: Measurements) -> Posterior:
    return in_units(model._posterior(sites, data), data)


@jit_for_one_run
def _health(model: KroneckerSBL, sites: Sites, data: Measurements):
    """Share of the measurements explained, signal over noise, noise over its floor."""
    post = model._posterior(sites, data)
    return (
        post.num_explained() / len(data),
        post.spectrum.max() / post.noise,
        post.noise / (NOISE_FLOOR * data.power),
    )


def _half_cauchy(scale: Float[Array, ""], unit: Float[Array, ""]) -> InUnits:
    stretch = AffineTransform(0.0, unit, constraints.positive)
    return InUnits(dist.HalfCauchy(scale), [stretch])


def scattered(sites: Sites, key: PRNGKeyArray, log_sd: Any) -> Sites:
    """The sites with each local scale multiplied by a random factor.

    Args:
        sites: one draw, `{site: value}`.
        key: a JAX random key.
        log_sd: sd of the normal log factors.
    """
    local = {name: a for name, a in sites.items() if a.ndim}
    if not local:  # all modes are frozen
        return sites
    # One call for all modes: drawing normals is slow to compile.
    sizes = [a.size for a in local.values()]
    noise = jax.random.normal(key, (sum(sizes),), sites["global_scale"].dtype)
    factors = jnp.split(jnp.exp(log_sd * noise), np.cumsum(sizes)[:-1])
    pairs = zip(local.items(), factors, strict=True)
    return sites | {name: a * factor for (name, a), factor in pairs}
