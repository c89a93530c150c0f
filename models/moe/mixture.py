r"""Mixtures of experts.

$$p(y \mid x) = \sum_k π_k(x) \, p_k(y \mid x)$$

The gate gives the share $π_k$ of each expert at an input, and each expert a distribution
of the output. With a softmax gate and lines with normal noise it fits data with several
regimes, such as the phases of a crash test or the species of penguins, which one
regression would average.

Source: Jacobs, Jordan, Nowlan & Hinton (1991), "Adaptive mixtures of local experts";
gauge and guards follow Nguyen, Nguyen & Ho (2023), arXiv 2305.03288.
"""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Float

from probkit.model import AbstractEMModel
from probkit.model.density import Sites
from probkit.models.moe import checks, starts, terms
from probkit.models.moe.experts import AbstractExperts, Normal
from probkit.models.moe.gates import AbstractGate, Softmax
from probkit.models.moe.labels import order_by_input, order_like
from probkit.models.moe.pairs import Inputs, Pairs, default_names, refuse_other_names
from probkit.validate import as_array, column_names, whole


class MixtureOfExperts(AbstractEMModel):
    r"""Experts under a gate, $p(y | x) = \sum_k π_k(x) p_k(y | x)$.

    Sites are those of the gate and of the experts, whose last axis is `expert`. Priors
    are set for standardised data (`Units`). If you rescale the data, the fit is therefore
    the same up to that rescaling.

    Attributes:
        num_experts: $K \ge 1$.
        gate: the shares of the experts, such as `moe.Softmax()`.
        experts: the distribution of the output, such as `moe.Normal()`.
    """

    interchangeable: ClassVar[str | None] = "expert"

    num_experts: int = eqx.field(converter=whole("MixtureOfExperts(num_experts", 1))
    gate: AbstractGate = Softmax()
    experts: AbstractExperts = Normal()

    def __check_init__(self):
        for name, kind, example in (
            ("gate", AbstractGate, "moe.Softmax()"),
            ("experts", AbstractExperts, "moe.Normal()"),
        ):
            given = getattr(self, name)
            if not isinstance(given, kind):
                raise ValueError(
                    f"`MixtureOfExperts({name}=...)` got a value of type "
                    f"`{type(given).__name__}`; it takes one such as `{example}`."
                )

    # The program.

    def __call__(self, data: Pairs) -> None:
        self._refuse_misfit(data)
        priors = self.priors(data)
        sites = {name: numpyro.sample(name, prior) for name, prior in priors.items()}
        with numpyro.plate("observation", len(data)):
            numpyro.sample("y", self.conditional(sites, data.x), obs=data.y)

    def priors(self, data: Pairs) -> dict[str, dist.Distribution]:
        """The prior of each site, in the units of the data.

        Args:
            data: the data, of which only units and shapes are used.

        Returns:
            `{site: distribution}`.
        """
        K, units = self.num_experts, data.units
        return self.gate.priors(K, units) | self.experts.priors(K, units)

    def conditional(self, sites: Sites, x: Float[Array, "n d"]) -> dist.Distribution:
        """$p(y | x)$ at each row of `x`, given one draw of the sites.

        Args:
            sites: one draw.
            x: inputs, in units of the data.

        Returns:
            A distribution of `n` outputs.
        """
        share = dist.Categorical(logits=self.gate.log_share(sites, x))
        return dist.MixtureSameFamily(share, self.experts.conditional(sites, x))

    def _refuse_misfit(self, data: Any) -> None:
        if not isinstance(data, Pairs):
            raise ValueError(
                f"`MixtureOfExperts` takes `moe.Pairs`, not `{type(data).__name__}`."
            )
        if data.unfit:
            raise ValueError(data.unfit)
        if len(data) < self.num_experts:
            raise ValueError(
                f"`MixtureOfExperts(num_experts={self.num_experts})` got {len(data)} "
                "observations, in all or in a batch; it takes at least one per expert, and "
                "needs many more to be useful."
            )
        if not isinstance(data.y, jax.core.Tracer):
            self.experts.refuse(data.y)

    # EM.

    def start(self, data, key):
        """Sites fitted to observations that are dealt out to experts; see `starts`."""
        self._refuse_misfit(data)
        K, (x, y) = self.num_experts, self._standard_data(data)
        return self._fitted_to(starts.dealt(x, y, K, key), data)

    def moved(self, sites, data, key):
        """Sites fitted after one expert is given up and another is split; see `starts`."""
        if self.num_experts == 1:
            return None
        x, y = self._standard_data(data)
        log_r = self._log_responsibility(sites, data.x, data.y)
        return self._fitted_to(starts.moved(x, y, log_r, key), data)

    def _fitted_to(self, r: Float[Array, "n k"], data: Pairs) -> Sites:
        K, even = self.num_experts, jnp.full_like(r, 1 / self.num_experts)
        same = self.gate.even(K, data.units) | self.experts.same(K, data.units)
        return self.m_step((r, even), self._in_units(same, data), data, use_prior=True)

    def e_step(self, sites, data):
        """Responsibilities $p(k | x_i, y_i)$ and shares $π_k(x_i)$ of the experts."""
        log_share = self.gate.log_share(sites, data.x)
        densities = self.experts.conditional(sites, data.x).log_prob(data.y[:, None])
        log_joint = log_share + densities
        log_density = jax.nn.logsumexp(log_joint, axis=-1, keepdims=True)
        return (jnp.exp(log_joint - log_density), jnp.exp(log_share)), log_density.sum()

    def m_step(self, moments, sites, data, use_prior):
        """Experts and then the gate, each by a step that does not lower the objective."""
        (r, share), (x, _) = moments, self._standard_data(data)
        y, old = self.experts.standard(data.y, data.units), self._in_standard(sites, data)
        new = self.experts.better(old, x, y, r, use_prior)
        log_density = self.experts.conditional(new, x).log_prob(y[:, None])
        new = new | self.gate.better(old, x, r, share, log_density, use_prior)
        return self._in_units({name: new[name] for name in sites}, data)

    def degenerate(self, sites, data):
        """Whether the noise of an expert has reached its lower limit."""
        return self.experts.on_floor(sites, data.units)

    # Units.

    def _standard_data(self, data: Pairs):
        u = data.units
        return (data.x - u.x_center) / u.x_scale, (data.y - u.y_center) / u.y_scale

    def _to_units(self, data: Pairs):
        return self.gate.to_units(data.units) | self.experts.to_units(data.units)

    def _in_units(self, standard: Sites, data: Pairs) -> Sites:
        to_units = self._to_units(data)
        return {name: to_units[name](value) for name, value in standard.items()}

    def _in_standard(self, sites: Sites, data: Pairs) -> Sites:
        to_units = self._to_units(data)
        return {name: map_.inv(sites[name]) for name, map_ in to_units.items()}

    # Functions of a draw.

    def canonical(self, sites, data, reference=None):
        """Experts in the order that agrees best with the responsibilities of `reference`.

        Without a reference, they are sorted by the first input.
        """
        # A thousand observations are enough to distinguish the experts.
        thin = data.take(jnp.arange(0, len(data), max(1, len(data) // 1000)))
        log_r = self._log_responsibility(sites, thin.x, thin.y)
        if reference is None:
            order = order_by_input(log_r, thin.x)
        else:
            theirs = self._log_responsibility(reference, thin.x, thin.y)
            order = order_like(log_r, theirs)
        return {
            name: jnp.take(sites[name], order, axis=axes.index("expert"))
            if "expert" in axes
            else sites[name]
            for name, axes in self._dims_of_sites().items()
        }

    def _dims_of_sites(self) -> dict[str, tuple[str, ...]]:
        same = self.gate.degree == self.experts.degree
        return self.gate.dims("term" if same else "gate_term") | self.experts.dims("term")

    def _log_responsibility(self, sites, x, y) -> Float[Array, "n k"]:
        densities = self.experts.conditional(sites, x).log_prob(y[:, None])
        return jax.nn.log_softmax(self.gate.log_share(sites, x) + densities, axis=-1)

    def recover(self, sites, data, key):
        """`label`: a draw of the expert of each observation, `(n,)`."""
        logits = self._log_responsibility(sites, data.x, data.y)
        return {"label": jax.random.categorical(key, logits, axis=-1)}

    def inputs(self, given: Any, data: Pairs) -> Inputs:
        return inputs_like(given, data)

    def predict(self, sites, inputs, key):
        """At each input a draw of `y`, `mean` E[y|x] and `membership` p(expert|x).

        `y` and `mean` are in units of the output. For `Pairs` instead of inputs,
        `membership` is p(expert|x, y), and `log_density`, log p(y|x), is added.
        """
        mixture = self.conditional(sites, inputs.x)
        gate = mixture.mixing_distribution.probs
        out = {"y": mixture.sample(key), "mean": mixture.mean, "membership": gate}
        if inputs.y is not None:
            out["membership"] = jnp.exp(self._log_responsibility(sites, inputs.x, inputs.y))
            out["log_density"] = mixture.log_prob(inputs.y)
        return out

    def dims(self, data):
        return self._dims_of_sites() | {
            "x": ("observation", "input"),
            "y": ("observation",),
            "label": ("observation",),
            "mean": ("observation",),
            "membership": ("observation", "expert"),
            "log_density": ("observation",),
        }

    def coords(self, data):
        return {
            "term": terms.names(data.inputs, self.experts.degree),
            "gate_term": terms.names(data.inputs, self.gate.degree),
            "expert": np.arange(self.num_experts),
            "input": data.inputs,
            "observation": np.arange(len(data)),
        }

    def checks(self, sites, data):
        standard = self._in_standard(sites, data)
        r = jnp.exp(self._log_responsibility(sites, data.x, data.y))
        count = len(terms.exponents(data.x.shape[1], self.experts.degree))
        found = [checks.check_size(r, count), checks.check_pull(self, sites, data)]
        if "gate" in standard:
            found.append(checks.check_steep(standard["gate"]))
        if "noise_sd" in sites:
            found.append(checks.check_rounded(sites["noise_sd"], data.y))
        return tuple(found)


def SoftmaxMoE(
    num_experts: int,
    gate_scale: float = 2.5,
    coefficient_scale: float = 2.5,
    noise_shape: float | None = None,
    noise_rate: float | None = None,
) -> MixtureOfExperts:
    """Lines with normal noise under a softmax gate, by the settings of the first version.

    Args:
        num_experts: as of `MixtureOfExperts`.
        gate_scale: `scale` of `Softmax`.
        coefficient_scale: of `Normal`.
        noise_shape, noise_rate: if given, the priors of the first version, in which gate
            and coefficients were normal, and variances inverse gamma with these, in scales
            of the output squared. They bend data with little noise, and files of that
            version have them.
    """
    if noise_shape is None or noise_rate is None:
        experts = Normal(coefficient_scale)
        return MixtureOfExperts(num_experts, Softmax(gate_scale), experts)
    far = 1e6  # degrees of freedom at which a t prior is normal, and an F inverse gamma
    experts = Normal(
        coefficient_scale,
        coefficient_df=far,
        noise_scale=(noise_rate / noise_shape) ** 0.5,
        noise_df=far,
        noise_tail_df=2 * noise_shape,
    )
    return MixtureOfExperts(num_experts, Softmax(gate_scale, df=far), experts)


def inputs_like(given: Any, data: Pairs) -> Inputs:
    """The inputs of a prediction, checked against the data of the fit."""
    d, dtype = data.x.shape[1], data.x.dtype
    if isinstance(given, Pairs):
        x, y = given.x, given.y.astype(dtype)
    else:
        x, y = as_array(given, "predict(..., inputs)"), None
    if x.ndim == 1 and d == 1:
        x = x[:, None]
    if x.ndim != 2 or x.shape[1] != d:
        raise ValueError(
            f"`predict(..., inputs)` has shape {x.shape}; the fit has the inputs "
            f"{', '.join(data.inputs)}, so it takes shape (m, {d})."
        )
    if len(x) == 0:
        raise ValueError("`predict(..., inputs)` has no rows; give one or more.")
    if isinstance(given, Pairs):
        own = given.inputs != default_names(d)
        refuse_other_names(given.inputs if own else None, data.inputs)
    elif np.ndim(given) == 2:
        refuse_other_names(column_names(given, d), data.inputs)
    return Inputs(x.astype(dtype), y)
