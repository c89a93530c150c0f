r"""Updates of the prior variances and the noise variance, given the posterior.

All updates need two tensors: $|q_i|^2$, the squared score of coefficient $i$, and $w_i$,
its leverage. Written in these, no update divides by a variance. So the variance of an atom
that was taken out stays zero, and no update returns NaN because of it.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from probkit.linalg import abs2, outer
from probkit.method.variances import ratio
from probkit.models.sbl.coordinates import Vectors
from probkit.models.sbl.measurements import Measurements
from probkit.models.sbl.posterior import Posterior, contract_others

Rule = Literal["mm", "mackay", "em", "svd", "kl"]
RULES: tuple[Rule, ...] = ("mm", "mackay", "em", "svd", "kl")
# Rules for models with frozen or coupled modes.
GENERAL: tuple[Rule, ...] = ("mm", "mackay", "em")
# Rules under which the evidence never falls.
MONOTONE: tuple[Rule, ...] = ("mm", "em")
# A learned noise variance stays above this share of the mean square of the measurements:
# with more coefficients than measurements, a diffuse prior can explain noise as signal.
NOISE_FLOOR = 1e-6
# Up to so many coefficients, of all restarts, programs are compiled without optimisation:
# what that would save in a fit is less than it takes. Measured for one to three modes.
SMALL = 2**13


class Scales(eqx.Module):
    r"""Prior variances, as squares of the sites: $γ = τ^2\; C_1 g_1 ⊗ … ⊗ C_P g_P$.

    Attributes:
        total: $τ^2$, in squared units of the coefficients.
        local: $g_p = λ_p^2$ of each mode, dimensionless.
        coupling: $C_p ≥ 0$ of each mode, shape `(N_p, len(g_p))`, or None for the identity.
        frozen: whether $g_p$ is held, one per mode.
    """

    total: Float[Array, ""]
    local: Vectors
    coupling: tuple[Float[Array, "_n _k"] | None, ...]
    frozen: tuple[bool, ...] = eqx.field(static=True)

    def at(self, total: Float[Array, ""], local: Sequence[Array]) -> "Scales":
        """Other variances with the same couplings and frozen modes."""
        return Scales(total, tuple(local), self.coupling, self.frozen)

    def spread(self) -> Vectors:
        """$C_p g_p$ of each mode."""
        pairs = zip(self.coupling, self.local, strict=True)
        return tuple(g if c is None else c @ g for c, g in pairs)

    def variance(self) -> Vectors:
        """$γ_p$ of each mode, with the total in the first."""
        first, *others = self.spread()
        return (self.total * first, *others)

    def normalised(self) -> "Scales":
        """The same prior with a largest entry of one in each mode that is not frozen.

        The evidence depends only on the product of the variances. Without priors, how the
        product is split among the modes is a convention.
        """
        total, local = self.total, []
        for g, frozen in zip(self.local, self.frozen, strict=True):
            largest = jnp.ones((), g.dtype) if frozen else g.max()
            largest = jnp.where(largest > 0, largest, 1.0)
            total = total * largest
            local.append(g / largest)
        return self.at(total, local)


class Evidence(eqx.Module):
    """$|q|^2$ and $w$ of every coefficient, which determine the updates."""

    score2: Float[Array, "..."]
    leverage: Float[Array, "..."]

    @classmethod
    def of(cls, post: Posterior) -> "Evidence":
        return cls(abs2(post.score()), post.leverage())


class Penalty(eqx.Module):
    r"""Half-Cauchy priors on the roots: $-\log p = \log(1 + g / s^2)$ for each square $g$.

    This is concave in $g$, so it lies below its tangent. The bound that an update minimises
    gets the slope of the tangent added to the leverage, and stays a bound.

    Attributes:
        total: $s^2$ of $τ^2$.
        noise: $s^2$ of $σ^2$.
        weight: 2 for real data, 1 for complex data, because the cost is $-2 \log p$ for
            real data and $-\log p$ for complex data.
    """

    total: Float[Array, ""]
    noise: Float[Array, ""]
    weight: float = eqx.field(static=True)

    def slope(self, square: Float[Array, "..."], unit) -> Float[Array, "..."]:
        return self.weight / (unit + square)


def bound_sweep(
    scales: Scales,
    evidence: Evidence,
    penalty: Penalty | None = None,
    exponent: Any = 0.5,
) -> Scales:
    r"""Move each mode in turn to the minimum of a bound of the cost; the evidence rises.

    $\log|Σ_y|$ is concave in $γ$ and $y^H Σ_y^{-1} y ≤ \sum_i |μ_i|^2 / γ_i$ + const, with
    equality at the present $γ$. So any $γ$ that lowers $\sum_i (w_i γ_i + |μ_i|^2/γ_i)$
    lowers the cost. In one mode, for $t = C g$ and by convexity of $1/t$,

    $$g ← g ∘ \sqrt{C^T a / (C^T b)}, \quad
      a = \sum_{others} |q|^2 \prod_{q ≠ p} t_{q,old}^2 / t_q, \quad
      b = \sum_{others} w \prod_{q ≠ p} t_q.$$

    With `exponent=1` the root is left out. This is MacKay's fixed point, which is often
    faster but has no bound, so the evidence may fall.
    """
    old = scales.spread()
    new, square = list(old), list(old)  # t and t_old^2 / t
    total, local = scales.total, list(scales.local)
    # Without priors the modes carry the total, unless all of them are frozen.
    if penalty is not None or all(scales.frozen):
        a = jnp.vdot(outer(old), evidence.score2)
        b = jnp.vdot(outer(old), evidence.leverage)
        if penalty is not None:
            b = b + penalty.slope(total, penalty.total)
        total = total * ratio(a, b) ** exponent
    for p, frozen in enumerate(scales.frozen):
        if frozen:
            continue
        a = contract_others(evidence.score2, tuple(square), p) * scales.total**2 / total
        b = contract_others(evidence.leverage, tuple(new), p) * total
        coupling = scales.coupling[p]
        if coupling is not None:
            a, b = coupling.T @ a, coupling.T @ b
        if penalty is not None:
            b = b + penalty.slope(local[p], 1.0)
        local[p] = local[p] * ratio(a, b) ** exponent
        new[p] = local[p] if coupling is None else coupling @ local[p]
        square[p] = old[p] * ratio(old[p], new[p])
    return scales.at(total, local)


def em_sweep(scales: Scales, evidence: Evidence, inner_sweeps: int = 1) -> Scales:
    r"""The M-step: minimise $\sum_i (\log γ_i + D_i/γ_i)$, $D_i = E|x_i|^2$, mode by mode.

    $γ_p ← \frac{N_p}{N} \sum_{others} D / \prod_{q ≠ p} γ_q$, which is tensor scaling: at
    the minimum every marginal of $D/γ$ is constant. One sweep is enough for the evidence to
    rise. A coupled mode takes the multiplicative step of its own bound.

    Source: He & Joseph, arXiv 2307.14719, the alternating minimisation; the coupled step
    is ours.
    """
    old = scales.spread()
    # D / γ without a division: 1 + γ (|q|^2 - w).
    surplus = scales.total * outer(old) * (evidence.score2 - evidence.leverage)
    present = [(t > 0).astype(t.dtype) for t in old]
    moment = jnp.maximum(1 + surplus, 0.0) * outer(present)
    # At least one, so that a prior that has vanished stays where it is.
    count = [jnp.maximum(here.sum(), 1.0) for here in present]
    local, shrunk = list(scales.local), list(present)  # t_old / t
    for _ in range(inner_sweeps):
        for p, frozen in enumerate(scales.frozen):
            if frozen:
                continue
            others = jnp.prod(jnp.stack(count)) / count[p]
            rise = contract_others(moment, tuple(shrunk), p) / others
            coupling = scales.coupling[p]
            if coupling is None:
                local[p] = scales.local[p] * rise
                new = local[p]
            else:
                now = coupling @ local[p]
                known = jnp.where(now > 0, now, 1.0)
                a = coupling.T @ (old[p] * rise / known**2)
                b = coupling.T @ (present[p] / known)
                local[p] = local[p] * jnp.sqrt(ratio(a, b))
                new = coupling @ local[p]
            shrunk[p] = present[p] * ratio(old[p], new)
    total = scales.total
    if all(scales.frozen):
        total = total * moment.sum() / jnp.prod(jnp.stack(count))
    return scales.at(total, local)


def _second_moments(scales: Scales, evidence: Evidence) -> Float[Array, "..."]:
    prior = outer(scales.variance())
    surplus = prior * (evidence.score2 - evidence.leverage)
    return prior * jnp.maximum(1 + surplus, 0.0)


def _from_vectors(scales: Scales, vectors: list[Array]) -> Scales:
    return scales.at(jnp.ones_like(scales.total), vectors).normalised()


def svd_sweep(scales: Scales, evidence: Evidence) -> Scales:
    r"""The second moments $D$, approximated at rank one by one singular vector per mode.

    This is not the M-step. The evidence may fall, and the limit is no optimum of it.

    Source: He & Joseph, arXiv 2307.14719, the SVD-based update.
    """
    rest = _second_moments(scales, evidence)
    vectors: list[Array] = []
    for size in rest.shape[:-1]:
        rows = rest.reshape(size, -1)
        # The top left singular vector, from the small Gram matrix.
        top = jnp.abs(jnp.linalg.eigh(rows @ rows.T)[1][:, -1])
        vectors.append(top)
        rest = top @ rows
    return _from_vectors(scales, [*vectors, rest.reshape(-1)])


def kl_sweep(scales: Scales, evidence: Evidence) -> Scales:
    r"""The rank-one tensor closest to $D$ in Kullback-Leibler divergence: its marginals."""
    moments = _second_moments(scales, evidence)
    axes = range(moments.ndim)
    marginals = [moments.sum(tuple(a for a in axes if a != p)) for p in axes]
    whole = moments.sum()
    first, *others = marginals
    return _from_vectors(scales, [first, *(m / whole for m in others)])


def moved(
    rule: Rule,
    scales: Scales,
    evidence: Evidence,
    inner_sweeps: int = 1,
) -> Scales:
    """The prior variances after one step of a rule, normalised."""
    if rule == "mm":
        new = bound_sweep(scales, evidence)
    elif rule == "mackay":
        new = bound_sweep(scales, evidence, exponent=1.0)
    elif rule == "em":
        new = em_sweep(scales, evidence, inner_sweeps)
    elif rule == "svd":
        new = svd_sweep(scales, evidence)
    else:
        new = kl_sweep(scales, evidence)
    return new.normalised()


def moved_noise(
    rule: Rule, post: Posterior, penalty: Penalty | None = None
) -> Float[Array, ""]:
    r"""$σ^2$ after one step.

    The bound of `bound_sweep` also holds in $σ^2$, where its minimum is
    $σ^2 \sqrt{\|Σ_y^{-1} y\|^2 / \mathrm{tr}\, Σ_y^{-1}}$. "mackay" takes MacKay's fixed
    point. The other rules take the paper's EM step,
    $(\|y - Aμ\|^2 + \mathrm{tr}\, A Σ_x A^H) / M$.
    """
    noise, size = post.noise, post.spectrum.size + post.num_rest
    if rule == "mm":
        trace = post.precision_trace()
        if penalty is not None:
            trace = trace + penalty.slope(noise, penalty.noise)
        return jnp.sqrt(post.residual() / trace)
    if rule == "mackay":
        return post.residual() / (size - post.num_explained())
    return (post.residual() + noise * post.num_explained()) / size


def noise_variance(moved: Float[Array, ""], data: Measurements) -> Float[Array, ""]:
    """$σ^2$ after a step: the known value, or the learned one, kept above its floor."""
    if data.noise_sd is not None:
        return data.noise_sd**2
    return jnp.maximum(moved, NOISE_FLOOR * data.power)


def is_small(data: Measurements, restarts: int = 1) -> bool:
    """Whether programs for these data are compiled as by `jit_for_one_run`."""
    return restarts * math.prod(data.num_atoms) <= SMALL


def bound_step(
    scales: Scales, post: Posterior, data: Measurements
) -> tuple[Scales, Float[Array, ""]]:
    """Variances and noise after one step of the bound, from the posterior at them."""
    new = bound_sweep(scales, Evidence.of(post)).normalised()
    return new, noise_variance(moved_noise("mm", post), data)
