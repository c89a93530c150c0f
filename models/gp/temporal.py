"""The model of a series: a Gaussian process of time that is a Markov chain."""

from collections.abc import Mapping
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Float

from probkit.gp.state_space import (
    AbstractProcess,
    Independent,
    at,
    between,
    bridge,
    color,
    sample_white,
    smooth,
)
from probkit.model import AbstractModel
from probkit.model.density import Sites as Draw
from probkit.models.gp.chain import added, apart, refuse_no_chain, terms_of
from probkit.models.gp.checks import checks_of_series
from probkit.models.gp.kernels import (
    AbstractKernel,
    Priors,
    Structure,
    as_kernel,
    level_prior,
    title,
    unsigned,
)
from probkit.models.gp.likelihoods import AbstractLikelihood, Normal, as_likelihood
from probkit.models.gp.marginal import Marginal, Terms
from probkit.models.gp.series import Series, as_exposure
from probkit.models.gp.times import as_dates, as_times
from probkit.validate import short, whole

Function = Literal["integrated", "sampled"]


def _function(value: Any) -> Function:
    if value not in ("integrated", "sampled"):
        raise ValueError(
            f"`Temporal(function={short(value)})`: it takes 'integrated' or 'sampled'."
        )
    return value


class Times(eqx.Module):
    """When to predict.

    Attributes:
        t: times, in units of the data.
        exposure: of the counts there.
        data: the data of the fit.
    """

    t: Float[Array, " m"]
    exposure: Float[Array, " m"]
    data: Series


class Temporal(AbstractModel):
    r"""A series $y_i$ at times $t_i$ whose level $m + f(t)$ has $f \sim GP(0, k)$.

    The kernel is that of a Markov chain, so that an evaluation of the density, a prediction
    and a draw cost $O(n d^3)$ for $n$ times and a state of $d$ numbers: 3 for
    `Matern(2.5)`, 15 for `Periodic()`, their sum for a sum and their product for a product.

    With normal noise $f$ is integrated out exactly, as by `Regression`. With other
    observations it is integrated out by Laplace's approximation, or, with
    `function="sampled"`, drawn with all other unknowns, which is exact under `pk.NUTS` and
    takes longer.

    Sites: those of `Regression`, `level` and `noise_sd` included, where there is noise; for
    `gp.Poisson` and `gp.Bernoulli` level and sds are those of the logarithm of the rate and
    of the logit. A function that is sampled has `white`, `(n, d)`, standard normal.

    Priors are those of `Regression`. The function of `gp.Poisson` and `gp.Bernoulli` has a
    scale of 1 in the place of the sd of the data, about the logarithm of their mean, or its
    logit.

    Args:
        kernel: $k$: `Matern`, `Periodic`, `SpectralMixture(envelope="student_t")`, or sums
            and products of them.
        observations: `gp.Normal()`, `gp.StudentT()`, `gp.Poisson()` or `gp.Bernoulli()`.
        function: "integrated" or "sampled".
        num_waves: how many waves stand for a function that repeats, see
            `probkit.gp.state_space.Periodic`.

    Raises:
        ValueError: for what is no kernel, a kernel without a Markov state, and other
            settings. In `pk.fit`, for other data than `gp.Series`, and for values that the
            observations cannot have.

    Source: Hartikainen & Särkkä (2010), "Kalman filtering and smoothing solutions to
    temporal Gaussian process regression models"; Rasmussen & Williams (2006), section 3.4.
    """

    kernel: AbstractKernel = eqx.field(converter=as_kernel("Temporal"))
    observations: AbstractLikelihood = eqx.field(
        default_factory=Normal, converter=as_likelihood
    )
    function: Function = eqx.field(default="integrated", converter=_function)
    num_waves: int = eqx.field(default=7, converter=whole("Temporal(num_waves", 1))

    def __check_init__(self):
        refuse_no_chain(self.structure())

    # The program.

    def __call__(self, data: Series) -> None:
        draw = {name: numpyro.sample(name, p) for name, p in self.priors(data).items()}
        if self.function == "integrated":
            numpyro.sample("y", self.evidence(draw, data), obs=data.y)
            return
        n, d = len(data), self.process(draw, data).readout().shape[1]
        white = dist.Normal(jnp.zeros((n, d), data.t.dtype), 1.0).to_event(2)
        draw["white"] = numpyro.sample(
            "white", white, infer={"event_dims": ["time", "state"]}
        )
        with numpyro.plate("time", n), numpyro.handlers.mask(mask=data.seen):
            density = self.terms(draw, data).density(self._sampled(draw, data))
            numpyro.sample("y", density, obs=data.y)

    def priors(self, data: Series) -> Priors:
        """The prior of each site but `white`, `{site: distribution}`."""
        if not isinstance(data, Series):
            raise ValueError(f"`Temporal` takes `gp.Series`, not `{type(data).__name__}`.")
        self.observations.refuse(data)
        scaled = self.scaled(data)
        return (
            {"level": level_prior(scaled.units)}
            | self.structure().priors(scaled)
            | self.observations.priors(data)
        )

    def structure(self) -> Structure:
        """The kernel as a sum of products."""
        return Structure.of(self.kernel)

    def scaled(self, data: Series) -> Series:
        """The data with the units of the function, which those of the values may not be."""
        return eqx.tree_at(lambda d: d.units, data, self.observations.units(data))

    def processes(self, draw: Draw, data: Series) -> tuple[AbstractProcess, ...]:
        """The process of each term of the kernel."""
        return terms_of(self.structure(), draw, self.scaled(data), self.num_waves)

    def process(self, draw: Draw, data: Series) -> AbstractProcess:
        """The process of the function about its level."""
        return added(self.processes(draw, data))

    def terms(self, draw: Draw, data: Series) -> Terms:
        """The densities of the observations given the function."""
        one = jnp.ones_like(data.t)
        exposure = one if data.exposure is None else data.exposure
        noise, seen = self.noise_sd(draw, data), data.seen.astype(data.t.dtype)
        return Terms(self.observations, draw["level"], noise, exposure, seen)

    def noise_sd(self, draw: Draw, data: Series) -> Float[Array, ""] | None:
        """$σ$, estimated or known, in units of the output; None if there is no noise."""
        return draw.get("noise_sd", data.noise_sd)

    def evidence(self, draw: Draw, data: Series) -> Marginal:
        """$p(y)$ given one draw of the sites, with the function integrated out."""
        return Marginal(self.process(draw, data), data.t, self.terms(draw, data))

    def _sampled(self, draw: Draw, data: Series) -> Float[Array, " n"]:
        """The function about its level that white noise makes."""
        return color(self.process(draw, data), data.t, draw["white"])[:, 0]

    # The function.

    def inputs(self, given: Any, data: Series) -> Times:
        if isinstance(given, Series):
            ones = jnp.ones_like(given.t)
            exposure = ones if given.exposure is None else given.exposure
            return Times(given.t, exposure, data)
        named = dict(given) if isinstance(given, Mapping) else {"t": given}
        if "t" not in named or not set(named) <= {"t", "exposure"}:
            raise ValueError(
                f"`predict(..., inputs)` has {', '.join(map(str, named)) or 'nothing'}; it "
                "takes `t`, and `exposure` for counts."
            )
        what = "predict(..., inputs)"
        if (as_dates(named["t"], what) is None) != (data.origin is None):
            has, wanted = ("numbers", "dates") if data.origin else ("dates", "numbers")
            raise ValueError(f"`{what}` has {has} as times; the fit has {wanted}.")
        t = as_times(named["t"], data.origin, what)[0].astype(data.t.dtype)
        if t.ndim != 1 or not len(t):
            raise ValueError(f"`{what}` has times of shape {t.shape}; it takes (m,).")
        if "exposure" not in named:
            return Times(t, jnp.ones_like(t), data)
        exposure = as_exposure(named["exposure"], t.shape, f"{what}[exposure]")
        return Times(t, exposure.astype(t.dtype), data)

    def predict(self, draw, inputs, key):
        """At new times: `y`, one joint draw of observations; `mean` and `sd` of $m + f$.

        Given the sites, mean and sd are exact for normal noise, and otherwise those of
        Laplace's approximation, or those given the states of one draw at the times of the
        data. With `gp.Poisson` and `gp.Bernoulli` they are those of the logarithm of the
        rate and of the logit.
        """
        data, process = inputs.data, self.process(draw, inputs.data)
        of_function, of_new, of_noise = jax.random.split(key, 3)
        if self.function == "sampled":
            white = draw["white"]
            mean, covariance = between(process, data.t, white, inputs.t)
        else:
            sites = self.evidence(draw, data).sites(data.y)
            white = sample_white(process, data.t, sites, of_function)
            mean, covariance, _ = at(process, data.t, sites, inputs.t)
        u = bridge(process, data.t, white, inputs.t, of_new)[:, 0]
        noise = self.noise_sd(draw, data)
        density = self.observations.density(draw["level"] + u, noise, inputs.exposure)
        return {
            "y": density.sample(of_noise).astype(inputs.t.dtype),
            "mean": draw["level"] + mean[:, 0],
            "sd": jnp.sqrt(jnp.maximum(covariance[:, 0, 0], 0.0)),
        }

    def recover(self, draw, data, key):
        """Each term of the function at the times of the data: its mean and sd."""
        terms = self.processes(draw, data)
        if self.function == "sampled":  # all of it is known
            values = color(Independent(terms), data.t, draw["white"])
            return {"term_mean": values.T, "term_sd": jnp.zeros_like(values.T)}
        process, sites = apart(terms, self.evidence(draw, data).sites(data.y))
        found = smooth(process, data.t, sites)
        variance = jnp.diagonal(found.covariance, axis1=1, axis2=2).T
        return {
            "term_mean": found.mean.T,
            "term_sd": jnp.sqrt(jnp.maximum(variance, 0.0)),
        }

    def pointwise(self, draw, data):
        r"""$\log p(y_i \mid y_{-i})$, zero where nothing was observed.

        If the function is sampled, $\log p(y_i \mid f(t_i))$.
        """
        if self.function == "integrated":
            return {"y": self.evidence(draw, data).leave_one_out(data.y)}
        return {"y": self.terms(draw, data).log_density(data.y, self._sampled(draw, data))}

    def canonical(self, draw, data, reference=None):
        """Frequencies without their signs, which the kernel does not have."""
        return unsigned(draw)

    # Names of axes, and checks.

    def dims(self, data):
        dims: dict[str, tuple[str, ...]] = dict.fromkeys(self.priors(data), ())
        dims["noise_sd"] = ()
        dims |= self.structure().dims(self.scaled(data))
        dims |= dict.fromkeys(("t", "y", "exposure", "mean", "sd"), ("time",))
        dims |= dict.fromkeys(("term_mean", "term_sd"), ("term", "time"))
        return dims | {"white": ("time", "state")}

    def coords(self, data):
        structure, scaled = self.structure(), self.scaled(data)
        coords = {"time": data.labels(), "term": [title(t) for t in structure.terms]}
        if self.function == "sampled":
            coords["state"] = np.arange(self._size(data))
        return coords | structure.coords(scaled)

    def _size(self, data: Series) -> int:
        """How many numbers a state has."""

        def state():
            key = jax.random.key(0)
            draw = {name: p.sample(key) for name, p in self.priors(data).items()}
            return self.process(draw, data).stationary()

        return len(jax.eval_shape(state))

    def coords_at(self, inputs):
        return {"time": inputs.data.labels(inputs.t)}

    def checks(self, draw, data):
        return checks_of_series(self, draw, data)
