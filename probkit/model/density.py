"""Questions to a NumPyro program: its densities, its latent sites, its coordinates.

Every function is written for one draw. Their arguments are:

- `program`: a NumPyro program of one argument, the data. A model is one.
- `data`: the data.
- `sites`: one draw, `{site: value}`, in constrained space.
- `position`: the same draw in unconstrained coordinates, `{latent site: value}`.

Log densities are in nats.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray
from numpyro.distributions.transforms import biject_to
from numpyro.infer.util import compute_log_probs, potential_energy
from numpyro.infer.util import constrain_fn as _constrain

Sites = dict[str, Any]
Program = Callable[[Any], Any]


def _trace(program: Program, data, sites: Sites):
    # A deterministic site is computed, never set.
    seeded = numpyro.handlers.seed(program, jax.random.key(0))
    with numpyro.handlers.substitute(data=sites):
        return numpyro.handlers.trace(seeded).get_trace(data)


def is_latent(site: dict) -> bool:
    """Whether an entry of NumPyro's trace is sampled, not observed."""
    return site["type"] == "sample" and not site["is_observed"]


def is_observed(site: dict) -> bool:
    """Whether an entry of NumPyro's trace is conditioned on."""
    return site["type"] == "sample" and site["is_observed"]


class Outline(NamedTuple):
    """What a program says of its sites without their values, in the order of the program.

    Attributes:
        shapes: of the sites that are sampled, observed or deterministic, by name.
        latent: names of the sites that are sampled.
        observed: names of the sites that are conditioned on.
    """

    shapes: dict[str, tuple[int, ...]]
    latent: tuple[str, ...]
    observed: tuple[str, ...]


def outline(program: Program, data) -> Outline:
    """The names and shapes of the sites, from one trace of the program."""
    found: dict[str, dict] = {}

    def look():
        found.update(_trace(program, data, {}))
        return 0

    jax.eval_shape(look)
    return Outline(
        {
            name: jnp.shape(site["value"])
            for name, site in found.items()
            if site["type"] in ("sample", "deterministic")
        },
        tuple(name for name, site in found.items() if is_latent(site)),
        tuple(name for name, site in found.items() if is_observed(site)),
    )


def latent_names(program: Program, data) -> tuple[str, ...]:
    """Names of the sites that a program samples, in the order of the program."""
    return outline(program, data).latent


def observed_names(program: Program, data) -> tuple[str, ...]:
    """Names of the sites that a program conditions on, in the order of the program."""
    return outline(program, data).observed


def site_shapes(program: Program, data) -> dict[str, tuple[int, ...]]:
    """The shape of every site that is sampled, observed or deterministic, by name."""
    return outline(program, data).shapes


def sites_by_row(program: Program, data) -> frozenset[str]:
    """Names of the sites whose shape follows the number of observations.

    The program is traced with one observation more, and these shapes differ.
    """
    now = site_shapes(program, data)
    one_more = jnp.minimum(jnp.arange(len(data) + 1), len(data) - 1)
    more = site_shapes(lambda data: program(data.take(one_more)), data)
    return frozenset(name for name in now if now[name] != more.get(name))


def prior_draw(program: Program, data, key: PRNGKeyArray) -> Sites:
    """One draw of the latent sites from the prior. `key` is a JAX random key."""
    trace = numpyro.handlers.trace(numpyro.handlers.seed(program, key)).get_trace(data)
    return {name: site["value"] for name, site in trace.items() if is_latent(site)}


def log_likelihood(program: Program, data, sites: Sites) -> dict[str, Array]:
    """Log density of each observed value, by site: `{site: array[observation]}`."""
    log_probs, trace = compute_log_probs(program, (data,), {}, sites, sum_log_prob=False)
    return {k: v for k, v in log_probs.items() if is_observed(trace[k])}


def log_densities(
    program: Program, data, sites: Sites
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Log prior density of the latent sites, and log likelihood of the observed ones."""
    log_probs, trace = compute_log_probs(program, (data,), {}, sites)
    prior = [v for k, v in log_probs.items() if is_latent(trace[k])]
    likelihood = [v for k, v in log_probs.items() if is_observed(trace[k])]
    return _total(prior), _total(likelihood)


def _total(parts: list[Array]) -> Float[Array, ""]:
    return sum(parts[1:], parts[0]) if parts else jnp.zeros(())


def constrain(program: Program, data, position: Sites) -> Sites:
    """Values of all sites, deterministic ones too, at unconstrained coordinates."""
    seeded = numpyro.handlers.seed(program, jax.random.key(0))
    return _constrain(seeded, (data,), {}, position, return_deterministic=True)


# A scale of exactly zero, or another value at the edge of its support, has an infinite
# unconstrained coordinate. It is moved to this one: a scale of e^-20 is nearly zero, and
# has a finite logarithm.
EDGE = 20.0


def asked(program: Any, data, key: PRNGKeyArray) -> Any:
    """All functions of a program that the engines use, as one function to trace.

    Args:
        program: a model.
        data: its data.
        key: a JAX random key.

    Returns:
        Arrays. Their values have no use; the traced program does.
    """
    sites = prior_draw(program, data, key)
    answers = [
        log_densities(program, data, sites),
        constrain(program, data, unconstrain(program, data, sites)),
    ]
    if hasattr(program, "e_step"):
        moments, objective = program.e_step(sites, data)
        answers += [objective, program.start(data, key), program.degenerate(sites, data)]
        answers += [program.m_step(moments, sites, data, use) for use in (True, False)]
        answers.append(program.moved(sites, data, key))
    return answers


def off_the_edge(position: Sites) -> Sites:
    """The position with finite coordinates, for a fit that has a scale of exactly zero.

    Only infinite coordinates move, because all others are where the user wants to start.
    """
    return jax.tree.map(lambda a: jnp.where(jnp.isinf(a), jnp.sign(a) * EDGE, a), position)


def unconstrain(program: Program, data, sites: Sites) -> Sites:
    """Unconstrained coordinates of the latent sites."""
    trace = _trace(program, data, sites)
    return {
        name: biject_to(site["fn"].support).inv(site["value"])
        for name, site in trace.items()
        if is_latent(site)
    }


def zero_position(program: Program, data) -> Sites:
    """The position whose coordinates are all zero, for their shapes and their order."""
    key = jax.random.key(0)  # any key will do, because only shapes are used
    shapes = jax.eval_shape(
        lambda: unconstrain(program, data, prior_draw(program, data, key))
    )
    return jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes)


def random_position(program: Program, data, key: PRNGKeyArray) -> Sites:
    """A position uniform on (-2, 2), drawn again while its density is not finite.

    After 100 draws the last one is returned. NumPyro's own search also computes a
    gradient in its loop, which takes seconds to compile and is not needed here.
    """
    flat, unravel = ravel_pytree(zero_position(program, data))

    def draw(key):
        return unravel(jax.random.uniform(key, flat.shape, flat.dtype, -2.0, 2.0))

    def poor(carry):
        tries, _, position = carry
        energy = potential_energy(program, (data,), {}, position)
        return ~jnp.isfinite(energy) & (tries < 100)

    def again(carry):
        tries, key, _ = carry
        key, own = jax.random.split(key)
        return tries + 1, key, draw(own)

    return jax.lax.while_loop(poor, again, again((0, key, None)))[-1]
