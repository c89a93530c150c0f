r"""Draws of support, variances and noise around an optimum, by Gibbs sampling.

At the maximum of the evidence an atom is either in the model or out of it, and all
variances are numbers. Intervals from there leave out that other supports and other
variances explain the data nearly as well. Here a Markov chain begins at the optimum and
visits them. Each atom of each mode is in, with $g_i = λ_i^2$, or out, with $g_i = 0$. The
priors are

- of the support: even over the numbers of atoms, and over the supports of each number. The
  extended Bayesian information criterion, by which `TypeII` prunes, approximates it.
- of $λ_i$ of an atom that is in, of $τ$ and of $σ$: those of `KroneckerSBL`. The unit of
  $τ$ is that of a dictionary of only those atoms that are in.

In the eigenvectors of all other modes the covariance of `y` is block diagonal, with one
block $σ^2 I + s_k G$ of the size of the mode per eigenvalue $s_k$ of the others, and
$G = A \,\mathrm{diag}(g)\, A^H$. A new variance of one atom changes each block by a matrix
of rank one. So the evidence of all its variances follows from two numbers per block. With
$M$ measurements, $m$ of them along the mode, a visit of an atom costs $O(M m)$.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact, PRNGKeyArray
from numpyro.diagnostics import effective_sample_size

from probkit.linalg import abs2, mode_products, outer
from probkit.method import repeated
from probkit.model.check import Check
from probkit.model.density import Sites
from probkit.models.sbl.coordinates import Reduced, Vectors
from probkit.models.sbl.kronecker import KroneckerSBL
from probkit.models.sbl.measurements import Measurements
from probkit.models.sbl.updates import NOISE_FLOOR, Scales

# Sweeps before the first draw, and per draw.
WARMUP, THIN = 50, 2
# Log variances of an atom that are compared: how many, how far apart, and the lowest.
COUNT, APART, LOWEST = 32, 1.0, -16.0
# Exchanges of two atoms that are tried per mode and sweep.
SWAPS = 8
# Values of the total and of the noise that are compared in a move, and the range of the
# distances between their logs.
VALUES, NEAREST, FARTHEST = 16, 0.01, 0.5
# The inverses of the blocks have at most so many entries.
MOST_ENTRIES = 2**26
# With fewer effective draws the ends of intervals are too uncertain.
LEAST_EFFECTIVE = 20


class Place(NamedTuple):
    """A state of the chain.

    Attributes:
        total: $τ^2$, in squared units of the coefficients.
        local: $g_p$ of each mode, zero for an atom that is out.
        noise: $σ^2$, in squared units of `y`.
        offsets: of each atom, in [0, 1): where its grid of log variances begins.
    """

    total: Float[Array, ""]
    local: Vectors
    noise: Float[Array, ""]
    offsets: Vectors


Seen = tuple[Inexact[Array, "k m"], Float[Array, " k"], Float[Array, " k"]]


class Blocks(NamedTuple):
    """The measurements as one mode sees them, in the eigenvectors of the others.

    Attributes:
        atoms: dictionary of the mode.
        inverse: inverse of each block of the covariance.
        y: the measurements.
        weight: $s_k$ of each block, with the total.
    """

    atoms: Inexact[Array, "m n"]
    inverse: Inexact[Array, "k m m"]
    y: Inexact[Array, "k m"]
    weight: Float[Array, " k"]

    def seen(
        self, i
    ) -> tuple[Inexact[Array, "k m"], Float[Array, " k"], Float[Array, " k"]]:
        """`inverse @ a`, and leverage and squared score of atom `i` in each block."""
        atom = self.atoms[:, i]
        reach = self.inverse @ atom
        leverage = jnp.real(reach @ atom.conj())
        score = (reach.conj() * self.y).sum(1)
        return reach, self.weight * leverage, self.weight * abs2(score)

    def changed(self, reach, leverage, change) -> "Blocks":
        """With another variance of the atom that `seen` was called for."""
        share = change * self.weight / (1 + change * leverage)
        step = share[:, None, None] * reach[:, :, None] * reach.conj()[:, None, :]
        return self._replace(inverse=self.inverse - step)


def rise(change, leverage, score2) -> Float[Array, "..."]:
    r"""By how much $\log|Σ_y| + y^H Σ_y^{-1} y$ rises when a variance changes."""
    grown = 1 + change * leverage
    return (jnp.log(grown) - change * score2 / grown).sum(-1)


def log_prior(log_square, log_unit) -> Float[Array, "..."]:
    """Log density of the log of a square, if its root is half-Cauchy with this scale."""
    half = 0.5 * (log_square - log_unit)
    return -jnp.logaddexp(half, -half) - math.log(math.pi)


def refuse_draws(method: Any, model: KroneckerSBL, data: Measurements) -> None:
    """Refuse more than one draw where there is no rule, or no room, for them."""
    if method.num_draws == 1:
        return
    what = f"{type(method).__name__}(num_draws={method.num_draws})"
    if model.coupling:
        raise ValueError(
            f"`{what}` has no rule for coupled modes; use `num_draws=1`, or `pk.NUTS()`."
        )
    if not isinstance(data.reduced, Reduced):
        raise ValueError(
            f"`{what}` has no rule for several modes with unseen entries; use "
            "`num_draws=1`, or `pk.NUTS()`."
        )
    entries = data.reduced.y.size * max(data.reduced.y.shape)
    if entries > MOST_ENTRIES:
        raise ValueError(
            f"`{what}` would need {entries * data.y.itemsize / 2**30:.0f} GiB for these "
            "data; use `num_draws=1`."
        )


def drawn(
    method: Any,
    model: KroneckerSBL,
    data: Measurements,
    sites: Sites,
    scales: Scales,
    noise: Any,
    key: PRNGKeyArray,
) -> tuple[Sites, dict[str, float]]:
    """The optimum, and `num_draws - 1` draws around it.

    Returns:
        `{site: array[1, draw, ...]}`, and facts for `check_draws`.
    """
    one = repeated(sites, 1)
    if method.num_draws == 1:
        return one, {}
    key = jax.random.fold_in(key, 1)  # restarts have used the key itself
    around = draws_around(model, data, scales, noise, method.num_draws - 1, key)
    more, evidence = jax.device_get(around)
    draws = {name: np.concatenate([a, more[name][None]], 1) for name, a in one.items()}
    if len(evidence) < 4 or np.ptp(evidence) == 0:
        return draws, {}
    # The estimate may be larger than their number, most of all if they are few.
    effective = min(effective_sample_size(evidence[None]), len(evidence))
    return draws, {"effective_draws": float(effective)}


def check_draws(facts: Mapping[str, Any]) -> tuple[Check, ...]:
    """Check that the draws differ enough to compute intervals from.

    Args:
        facts: with `effective_draws`, unless there is one draw alone.
    """
    if "effective_draws" not in facts:
        return ()
    return (
        Check(
            "effective draws of the evidence",
            facts["effective_draws"],
            "at least",
            LEAST_EFFECTIVE,
            "raise `num_draws`",
        ),
    )


@eqx.filter_jit
def draws_around(
    model: KroneckerSBL,
    data: Measurements,
    scales: Scales,
    noise: Float[Array, ""],
    num_draws: int,
    key: PRNGKeyArray,
) -> tuple[Sites, Float[Array, " draws"]]:
    """Draws of the sites, begun at an optimum.

    Args:
        model: without coupled modes.
        data: the measurements.
        scales: prior variances at the optimum.
        noise: $σ^2$ there, in squared units of `y`.
        num_draws: the number of draws.
        key: a JAX random key.

    Returns:
        `{site: array[draw, ...]}`, and the evidence of each draw in nats.
    """
    chain = Chain.of(model, data, scales.frozen)
    key_offset, key_run = jax.random.split(key)
    place = Place(scales.total, scales.local, noise, _offsets(scales.local, key_offset))

    def step(place, key):
        place, evidence = chain.sweep(key, place)
        return place, (place, evidence)

    # One loop, so that a sweep is compiled once.
    keys = jax.random.split(key_run, WARMUP + THIN * num_draws)
    _, every = jax.lax.scan(step, place, keys)
    places, evidence = jax.tree.map(lambda a: a[WARMUP + THIN - 1 :: THIN], every)

    def sites(place):
        here = scales.at(place.total, place.local).normalised()
        return model.sites(here, place.noise, data)

    return jax.vmap(sites)(places), evidence


class Chain(eqx.Module):
    """The moves of the chain.

    Attributes:
        data: the measurements.
        frozen: whether the variances of each mode are held.
        log_power: log of the power that the prior of $τ$ explains, times its scale.
        log_rms: log of the squared scale of the prior of $σ$.
        powers: squared length of each atom.
        likeness: how much two atoms of a mode resemble each other; zero on the diagonal.
    """

    data: Measurements
    frozen: tuple[bool, ...] = eqx.field(static=True)
    log_power: Float[Array, ""]
    log_rms: Float[Array, ""]
    powers: Vectors
    likeness: tuple[Float[Array, "_n _n"], ...]

    @classmethod
    def of(cls, model: KroneckerSBL, data: Measurements, frozen) -> "Chain":
        unit, rms = model.prior_units(data)
        powers = tuple(abs2(a).sum(0) for a in data.reduced.dictionaries)
        whole = sum(jnp.log(power.sum()) for power in powers)
        log_power = 2 * jnp.log(model.global_scale * unit) + whole
        log_rms = 2 * jnp.log(model.noise_scale * rms)
        likeness = tuple(_likeness(a) for a in data.reduced.dictionaries)
        return cls(data, frozen, log_power, log_rms, powers, likeness)

    @property
    def half(self) -> float:
        """From the cost to nats."""
        return 1.0 if self.data.is_complex else 0.5

    def sweep(self, key, place: Place) -> tuple[Place, Float[Array, ""]]:
        """All moves once; the evidence after them."""
        eigen = [_eigen(gram) for gram in self.data.reduced.grams(place.local)]
        keys = jax.random.split(key, len(eigen) + 1)
        for p, frozen in enumerate(self.frozen):
            if frozen:
                continue
            key_visit, key_swap = jax.random.split(keys[p])
            blocks, place = self.visits(key_visit, p, self.blocks(p, eigen, place), place)
            place = self.swaps(key_swap, p, blocks, place)
            atoms = self.data.reduced.dictionaries[p]
            eigen[p] = _eigen((atoms * place.local[p]) @ atoms.conj().T)
        return self.scale_moves(keys[-1], eigen, place)

    def blocks(self, p: int, eigen, place: Place) -> Blocks:
        core, (own, basis) = self.data.reduced, eigen[p]
        others = [s if q != p else jnp.ones(1, s.dtype) for q, (s, _) in enumerate(eigen)]
        weight = place.total * outer(tuple(others)).reshape(-1)
        turns = [u.conj().T if q != p else None for q, (_, u) in enumerate(eigen)]
        y = jnp.moveaxis(mode_products(core.y, turns), p, -1).reshape(-1, own.size)
        spectrum = place.noise + weight[:, None, None] * own
        inverse = (basis / spectrum) @ basis.conj().T
        return Blocks(core.dictionaries[p], inverse, y, weight)

    def log_unit(self, p: int, power, local: Vectors) -> Float[Array, ""]:
        """Log of the squared unit of $τ$, if the atoms of mode `p` have this power."""
        logs = [jnp.log(self.power(q, g) if q != p else power) for q, g in enumerate(local)]
        return self.log_power - sum(logs)

    def power(self, p: int, g) -> Float[Array, ""]:
        """Of the atoms of a mode that are in, and of at least one."""
        power = self.powers[p]
        return jnp.maximum(((g > 0) * power).sum(), power.min())

    def visits(self, key, p: int, blocks: Blocks, place: Place) -> tuple[Blocks, Place]:
        """Whether each atom is in, and with which variance, given all the others."""
        size, half = place.local[p].size, self.half

        def visit(carry, given):
            blocks, g, u = carry
            i, key = given
            key_offset, key_choice = jax.random.split(key)
            reach, leverage, score2 = blocks.seen(i)
            without = 1 - g[i] * leverage
            # A second grid, so that the variances are not bound to the first.
            both = jnp.stack([u[i], jax.random.uniform(key_offset, dtype=g.dtype)])
            logs = LOWEST + APART * (jnp.arange(COUNT, dtype=g.dtype)[:, None] + both)
            cost = rise(jnp.exp(logs)[..., None], leverage / without, score2 / without**2)
            others = g.at[i].set(0.0)
            count, power = (others > 0).sum(), self.power(p, others)
            more = jnp.where(count > 0, power, 0.0) + self.powers[p][i]
            log_total = jnp.log(place.total)
            odds = (
                jnp.log((count + 1) / (size - count))
                + log_prior(log_total, self.log_unit(p, more, place.local))
                - log_prior(log_total, self.log_unit(p, power, place.local))
            )
            inside = odds + math.log(APART) + log_prior(logs, 0.0) - half * cost
            every = jnp.concatenate([jnp.zeros((1, 2), g.dtype), inside])
            row, column = jnp.divmod(
                jax.random.categorical(key_choice, every.reshape(-1)), 2
            )
            new = jnp.where(row > 0, jnp.exp(logs[row - 1, column]), 0.0)
            blocks = blocks.changed(reach, leverage, new - g[i])
            return (blocks, g.at[i].set(new), u.at[i].set(both[column])), None

        carry = (blocks, place.local[p], place.offsets[p])
        steps = (jnp.arange(size), jax.random.split(key, size))
        (blocks, g, u), _ = jax.lax.scan(visit, carry, steps)
        return blocks, _with(place, p, g, u)

    def swaps(self, key, p: int, blocks: Blocks, place: Place) -> Place:
        """Exchange an atom that is in with one that resembles it, by Metropolis."""
        likeness, log_total = self.likeness[p], jnp.log(place.total)
        if len(likeness) == 1:
            return place
        chances = likeness.sum(1)

        def of_total(g):
            return log_prior(log_total, self.log_unit(p, self.power(p, g), place.local))

        def swap(carry, key):
            blocks, g, u = carry
            key_out, key_into, key_accept = jax.random.split(key, 3)
            inside = (g > 0) | ~jnp.any(g > 0)
            i = jax.random.categorical(key_out, jnp.where(inside, 0.0, -jnp.inf))
            j = jax.random.categorical(key_into, jnp.log(likeness[i]))
            change = g[i] - g[j]
            reach, leverage, score2 = blocks.seen(j)
            cost = rise(change, leverage, score2)
            half_way = blocks.changed(reach, leverage, change)
            reach, leverage, score2 = half_way.seen(i)
            cost = cost + rise(-change, leverage, score2)
            there = half_way.changed(reach, leverage, -change)
            here, back = jnp.stack([i, j]), jnp.stack([j, i])
            new_g, new_u = g.at[here].set(g[back]), u.at[here].set(u[back])
            log_odds = of_total(new_g) - of_total(g) - self.half * cost
            log_odds = log_odds + jnp.log(chances[i] / chances[j])
            accept = jnp.log(jax.random.uniform(key_accept, dtype=g.dtype)) < log_odds
            new = (there, new_g, new_u)
            return jax.tree.map(lambda a, b: jnp.where(accept, a, b), new, carry), None

        carry = (blocks, place.local[p], place.offsets[p])
        (_, g, u), _ = jax.lax.scan(swap, carry, jax.random.split(key, SWAPS))
        return _with(place, p, g, u)

    def scale_moves(self, key, eigen, place: Place) -> tuple[Place, Float[Array, ""]]:
        """Total and noise, each from values around the present one."""
        data, core = self.data, self.data.reduced
        signal = outer(tuple(s for s, _ in eigen))
        rotated = abs2(mode_products(core.y, [u.conj().T for _, u in eigen]))
        size = rotated.size + core.num_rest
        norm = size * math.log(math.pi if data.is_complex else 2 * math.pi)

        def evidence(total, noise):
            spectrum = noise + total * signal
            log_det = jnp.log(spectrum).sum() + core.num_rest * jnp.log(noise)
            square = (rotated / spectrum).sum() + core.rest / noise
            return -self.half * (norm + log_det + square)

        log_unit = self.log_unit(0, self.power(0, place.local[0]), place.local)
        floor = jnp.log(NOISE_FLOOR * data.power)

        def of_total(log):
            return evidence(jnp.exp(log), place.noise) + log_prior(log, log_unit)

        key_total, key_noise = jax.random.split(key)
        total = jnp.exp(_nearby(key_total, jnp.log(place.total), of_total))

        def of_noise(log):
            density = evidence(total, jnp.exp(log)) + log_prior(log, self.log_rms)
            return jnp.where(log >= floor, density, -jnp.inf)

        noise = place.noise
        if data.noise_sd is None:
            noise = jnp.exp(_nearby(key_noise, jnp.log(noise), of_noise))
        return place._replace(total=total, noise=noise), evidence(total, noise)


def _with(place: Place, p: int, g, u) -> Place:
    """With other variances and offsets of mode `p`."""

    def at(parts, new):
        return (*parts[:p], new, *parts[p + 1 :])

    return place._replace(local=at(place.local, g), offsets=at(place.offsets, u))


def _offsets(local: Vectors, key: PRNGKeyArray) -> Vectors:
    """Of an atom that is in, its offset follows from its variance; else it is random."""
    keys = jax.random.split(key, len(local))
    free = [
        jax.random.uniform(k, g.shape, g.dtype) for k, g in zip(keys, local, strict=True)
    ]
    logs = [jnp.log(jnp.where(g > 0, g, 1.0)) for g in local]
    return tuple(
        jnp.where(g > 0, (log - LOWEST) / APART % 1.0, u)
        for g, log, u in zip(local, logs, free, strict=True)
    )


def _nearby(key, now, log_density) -> Float[Array, ""]:
    """One of several equidistant values, among which the present one has a random place.

    From each of them the same values are as probable, so that the density is left as it is.
    """
    key_apart, key_first, key_choice = jax.random.split(key, 3)
    low, high = math.log(NEAREST), math.log(FARTHEST)
    apart = jnp.exp(jax.random.uniform(key_apart, (), now.dtype, low, high))
    first = jax.random.randint(key_first, (), 0, VALUES)
    values = now + apart * (jnp.arange(VALUES, dtype=now.dtype) - first)
    return values[jax.random.categorical(key_choice, jax.vmap(log_density)(values))]


def _eigen(gram):
    values, vectors = jnp.linalg.eigh(gram)
    return jnp.maximum(values, 0.0), vectors


def _likeness(dictionary) -> Float[Array, "n n"]:
    atoms = dictionary / jnp.sqrt(abs2(dictionary).sum(0))
    size = atoms.shape[1]
    # Plus a little, so that every pair may be chosen.
    same = abs2(atoms.conj().T @ atoms) + 1 / size**2
    return same * (1 - jnp.eye(size, dtype=same.dtype))
