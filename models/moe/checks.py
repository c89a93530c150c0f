"""What can go wrong in a mixture of experts."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from probkit.model.check import Check
from probkit.model.density import Sites, log_densities
from probkit.model.sensitivity import pulls

# A gate with more logits per scale of x than this switches within a hundredth of it. The
# data are then separated, and without a prior the likelihood has no maximum in the slope.
STEEP = 200.0
# A prior that costs more log likelihood than this, in nats, disagrees with the data. Where
# the inputs separate two experts, the prior alone bounds the gate, for one to three nats.
PULL = 5.0
# Rounding to multiples of one has an sd of 0.29.
ROUNDED = 0.29


def check_steep(gate: Float[Array, "t k"]) -> Check:
    """Check that the gate is not steeper than the data can say.

    Args:
        gate: the coefficients of the logits, standardised.
    """
    slope = gate[1:]
    contrast = (slope.max(1) - slope.min(1)).max()
    return Check(
        "steepest gate",
        float(contrast),
        "at most",
        STEEP,
        "the inputs separate the experts, so that the likelihood has no maximum in "
        'the slope: keep the prior (`maximise="posterior"`)',
        "logits per scale of the input",
    )


def check_size(r: Float[Array, "n k"], terms: int) -> Check:
    """Check that each expert has more observations than coefficients.

    Args:
        r: responsibilities.
        terms: the number of coefficients of an expert.
    """
    return Check(
        "observations of the smallest expert",
        float(r.sum(0).min()),
        "at least",
        terms + 1,
        "an expert has too few observations: use fewer experts",
        "sum of its responsibilities",
    )


def check_rounded(noise_sd: Float[Array, " k"], y: Float[Array, " n"]) -> Check:
    """Check that no expert has less noise than the rounding of the outputs.

    Rounded values may lie on a line exactly, and an expert that holds them has any density.

    Args:
        noise_sd: of each expert, in units of the output.
        y: the outputs.
    """
    values = np.unique(np.asarray(y))
    step = float(np.diff(values).min()) if len(values) > 1 else 0.0
    ratio = float(jnp.min(noise_sd)) / step if step > 0 else np.inf
    return Check(
        "least noise over the step between outputs",
        ratio,
        "at least",
        ROUNDED,
        "an expert holds rounded values that are on a line by chance: use fewer experts",
        "sd of the noise over the smallest difference of two outputs",
    )


def check_pull(model, sites: Sites, data) -> Check:
    """Check that no prior holds a parameter away from where the data would have it.

    Args:
        model: the model.
        sites: a typical draw, from which the nearest optimum is found; or the optimum.
        data: the data of the fit.
    """
    worst = pulls(model, data, _climbed(model, sites, data))[0]
    return Check(
        "strongest pull of a prior",
        worst.nats,
        "at most",
        PULL,
        f"the prior of `{worst.prior}` holds `{worst.site}` away from what the data say: "
        "give it a wider scale or fewer degrees of freedom",
        f"nats of log likelihood that the prior of `{worst.prior}` costs, about; it moves "
        f"`{worst.site}` by {worst.sds:.2g} posterior sds",
    )


@eqx.filter_jit
def _climbed(model, sites: Sites, data) -> Sites:
    """The end of steps of EM, until one gains little."""

    def going(carry):
        *_, gain, num = carry
        return (gain > 1e-4) & (num < 100)

    def step(carry):
        sites, last, _, num = carry
        moments, objective = model.e_step(sites, data)
        objective = objective + log_densities(model, data, sites)[0]
        return (
            model.m_step(moments, sites, data, True),
            objective,
            objective - last,
            num + 1,
        )

    own = {name: sites[name] for name in model.priors(data)}
    low = -jnp.inf * jnp.ones((), data.y.dtype)
    return jax.lax.while_loop(going, step, (own, low, -low, 0))[0]
