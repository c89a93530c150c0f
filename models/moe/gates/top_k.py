r"""The sparse softmax gate: at each input only a few experts are in force.

$$π_k(x) = \frac{e^{l_k} [k ∈ S(x)]}{\sum_{j ∈ S(x)} e^{l_j}}, \qquad l = z^\top b,$$

where $S(x)$ holds the experts with the largest logits, as many as `num_selected`. The log
share of all others is exactly minus infinity.

Source: Nguyen, Akbarian, Yan & Ho (2024), "Statistical perspective of top-K sparse softmax
gating mixture of experts", arXiv 2309.13850. Departs: experts are selected by their whole
logit, not by its slope part alone, whose choice would depend on where an input has its
zero.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from probkit.models.moe.gates.base import AbstractGate
from probkit.models.moe.gates.newton import damped, newton_step
from probkit.models.moe.gates.softmax import Softmax
from probkit.validate import whole


class TopK(AbstractGate):
    r"""A softmax over the experts with the largest logits.

    Site: `gate` $b$, as of `Softmax`.

    The likelihood jumps where an observation changes its experts. EM accepts no step
    that lowers it. With one expert selected, responsibilities equal shares and give EM no
    direction: it then only fits experts to the regions of its start.

    Attributes:
        num_selected: the number of experts in force at an input, 1 or more. With as many
            as there are experts, or more, it is the softmax gate.
        softmax: the gate whose logits are compared, with its prior.
    """

    num_selected: int = eqx.field(default=2, converter=whole("TopK(num_selected", 1))
    softmax: Softmax = Softmax()

    @property
    def degree(self) -> int:
        return self.softmax.degree

    def priors(self, num_experts, units):
        return self.softmax.priors(num_experts, units)

    def to_units(self, units):
        return self.softmax.to_units(units)

    def even(self, num_experts, units):
        return self.softmax.even(num_experts, units)

    def log_share(self, sites, x):
        logits = self.softmax.rows(x) @ sites["gate"]
        return self._sparse(logits)

    def _sparse(self, logits: Float[Array, "n k"]) -> Float[Array, "n k"]:
        selected = self.selected(logits)
        # A finite number first, since the slope of minus infinity is not a number.
        kept = jnp.where(selected, logits, jnp.finfo(logits.dtype).min / 2)
        return jnp.where(selected, jax.nn.log_softmax(kept, axis=-1), -jnp.inf)

    def selected(self, logits: Float[Array, "n k"]) -> Bool[Array, "n k"]:
        """Which experts are in force; of equal logits the first."""
        number = jnp.arange(logits.shape[1])
        own, other = logits[:, :, None], logits[:, None, :]
        before = (other > own) | ((other == own) & (number < number[:, None]))
        return before.sum(-1) < self.num_selected

    def better(self, sites, x, r, share, log_density, use_prior):
        """The Newton step for the experts now in force, if it raises the likelihood."""
        gate, z = sites["gate"], self.softmax.rows(x)
        if gate.shape[1] == 1:
            return {"gate": gate}
        precision = self.softmax.precision(gate, use_prior)
        step, slope = newton_step(gate, z, r, share, precision)
        logits, along = z @ gate, z @ step

        def objective(size):
            b, log_share = gate + size * step, self._sparse(logits + size * along)
            mixed = jax.nn.logsumexp(log_share + log_density, axis=1).sum()
            return mixed - 0.5 * (precision * b**2).sum()

        # Without a slope, which a jump makes meaningless: any rise will do.
        return {"gate": gate + damped(objective, jnp.zeros_like(slope)) * step}

    def dims(self, term="term"):
        return self.softmax.dims(term)
