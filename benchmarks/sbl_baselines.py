"""Rivals of `probkit.models.sbl`, in NumPy. Only those of scikit-learn use a dense matrix.

The two algorithms of He & Joseph (arXiv 2307.14719) follow the authors' rules of start,
pruning and stopping, but compute the posterior from small eigenproblems, so that they are
about a hundred times faster than the published code. Kronecker OMP follows Caiafa &
Cichocki (2013). The decomposed method follows He & Joseph (SPAWC 2024).
"""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from probkit.method import Running
from probkit.models import sbl


class Estimate(NamedTuple):
    x: np.ndarray
    steps: int
    evidence: float = np.nan
    sd: np.ndarray | None = None


def mode_products(tensor: np.ndarray, matrices: Sequence[np.ndarray]) -> np.ndarray:
    for p, matrix in enumerate(matrices):
        tensor = np.moveaxis(np.tensordot(matrix, tensor, axes=(1, p)), 0, p)
    return tensor


def outer(vectors: Sequence[np.ndarray]) -> np.ndarray:
    return reduce(np.multiply.outer, vectors)


def abs2(a: np.ndarray) -> np.ndarray:
    return (a * np.conj(a)).real


# The paper's two algorithms.


def posterior(y, matrices, γ, noise):
    """Mean, variances and log evidence, from one eigenproblem per mode."""
    pairs = [np.linalg.eigh((a * g) @ a.conj().T) for a, g in zip(matrices, γ, strict=True)]
    d = noise + outer([np.maximum(s, 0) for s, _ in pairs])
    z = mode_products(y, [u.conj().T for _, u in pairs])
    bases = [
        g[:, None] * (a.conj().T @ u)
        for a, g, (_, u) in zip(matrices, γ, pairs, strict=True)
    ]
    mean = mode_products(z / d, bases)
    variance = outer(γ) - mode_products(1 / d, [abs2(b) for b in bases])
    cost = np.log(d).sum() + (abs2(z) / d).sum()
    if np.iscomplexobj(y):
        evidence = -(y.size * np.log(np.pi) + cost)
    else:
        evidence = -0.5 * (y.size * np.log(2 * np.pi) + cost)
    return mean, np.maximum(variance, 0), float(evidence)


def alternating(moments, γ, atol=1e-5, rtol=0.0, max_sweeps=1000):
    """An M-step: sweeps over the modes until the variances converge."""
    now = outer(γ)
    for _ in range(max_sweeps):
        for p in range(len(γ)):
            others = [np.ones_like(g) if q == p else 1 / g for q, g in enumerate(γ)]
            axes = tuple(q for q in range(len(γ)) if q != p)
            γ[p] = (moments * outer(others)).mean(axis=axes)
        before, now = now, outer(γ)
        if np.linalg.norm(now - before) <= atol + rtol * np.linalg.norm(before):
            break
    return γ


def singular(moments, γ):
    """An M-step: one singular pair per mode, in absolute values."""
    vectors, rest = [], moments
    for g in γ[:-1]:
        u, s, vh = np.linalg.svd(rest.reshape(len(g), -1), full_matrices=False)
        vectors.append(np.abs(u[:, 0]))
        rest = s[0] * np.abs(vh[0])
    return [*vectors, rest]


def paper_sbl(
    y,
    matrices,
    noise_sd: float,
    m_step: Callable,
    share: float | Sequence[float],
    least: float = 0.0,
    max_steps: int = 150,
    tolerance: float = 1e-4,
) -> Estimate:
    """EM of He & Joseph with known noise. `m_step` is `alternating` or `singular`.

    Before each step, an atom is removed if its variance is below `share` times the largest
    of its mode, or below `least`. The run stops when the relative change of the prior
    variances of all coefficients is at most `tolerance`.
    """
    sizes = [a.shape[1] for a in matrices]
    shares = np.broadcast_to(share, len(sizes))
    kept = [np.arange(n) for n in sizes]
    active, noise = list(matrices), noise_sd**2
    γ = normalised([np.ones(n) for n in sizes])
    now, steps, change = full(γ, kept, sizes), 0, np.inf
    while steps < max_steps and change > tolerance:
        for p, g in enumerate(γ):
            stay = (g >= shares[p] * g.max()) & (g >= least)
            # The published code would fail on an empty mode, so the largest atom stays.
            stay |= g == g.max()
            kept[p], active[p], γ[p] = kept[p][stay], active[p][:, stay], g[stay]
        mean, variance, _ = posterior(y, active, γ, noise)
        γ = normalised(m_step(variance + abs2(mean), γ))
        before, now = now, full(γ, kept, sizes)
        change = np.linalg.norm(now - before) / np.linalg.norm(before)
        steps += 1
    mean, _, evidence = posterior(y, active, γ, noise)
    return Estimate(full_of(mean, kept, sizes), steps, evidence)


def normalised(γ):
    """The same product, with norm one in all modes but the last."""
    norms = [np.linalg.norm(g) for g in γ[:-1]]
    return [*(g / n for g, n in zip(γ[:-1], norms, strict=True)), γ[-1] * np.prod(norms)]


def full_of(tensor, kept, sizes):
    out = np.zeros(sizes, tensor.dtype)
    out[np.ix_(*kept)] = tensor
    return out


def full(γ, kept, sizes):
    return full_of(outer(γ), kept, sizes)


# Greedy and decomposed methods, and least squares on a known support.


def on_support(y, matrices, support: Sequence[np.ndarray]) -> Estimate:
    """Least squares on a support that is a product of supports of the modes."""
    inverses = [np.linalg.pinv(a[:, s]) for a, s in zip(matrices, support, strict=True)]
    x = mode_products(y, inverses)
    return Estimate(full_of(x, support, [a.shape[1] for a in matrices]), 1)


def kronecker_omp(
    y, matrices, noise_sd: float | None = None, slack: float = 0.1, most: int = 10
) -> Estimate:
    """Kronecker OMP: the best new coefficient adds an atom to each mode.

    It stops when the misfit R is as small as the noise: `|R|^2 <= (1 + slack) noise_sd^2 M`
    for M measurements. Without `noise_sd` it stops as the reference does, when the norm of
    R is 1e-2 of that of y. Below 40 dB this is less than the noise. A mode has at most
    `most` atoms.
    """
    if noise_sd is None:
        goal = 1e-4 * np.sum(abs2(y))
    else:
        goal = (1 + slack) * noise_sd**2 * y.size
    support: list[list[int]] = [[] for _ in matrices]
    residual, estimate = y, None
    adjoint = [a.conj().T for a in matrices]
    for step in range(1, most * len(matrices) + 1):
        score = np.abs(mode_products(residual, adjoint))
        found = np.unravel_index(np.argmax(score), score.shape)
        grown = False
        for chosen, j in zip(support, found, strict=True):
            if j not in chosen and len(chosen) < most:
                chosen.append(int(j))
                grown = True
        if not grown:
            break
        x = on_support(y, matrices, [np.array(s) for s in support]).x
        estimate = Estimate(x, step)
        residual = y - mode_products(x, matrices)
        if np.sum(abs2(residual)) <= goal:
            break
    return estimate


def rank_one(y) -> list[np.ndarray]:
    """Vectors whose outer product is close to y: one singular pair per mode."""
    vectors, rest = [], y
    for size in y.shape[:-1]:
        u, s, vh = np.linalg.svd(rest.reshape(size, -1), full_matrices=False)
        vectors.append(u[:, 0])
        rest = s[0] * vh[0]
    return [*vectors, rest]


def decomposed(y, matrices, method: Any = None) -> Estimate:
    """Each mode separately, after a fit of rank one. It needs coefficients of rank one."""
    method = sbl.TypeII() if method is None else method
    parts, steps = [], 0
    for vector, matrix in zip(rank_one(y), matrices, strict=True):
        data = sbl.Measurements(vector, matrix)
        estimate = by_probkit(data, method)
        parts.append(estimate.x)
        steps += estimate.steps
    return Estimate(outer(parts), steps)


def by_probkit(data: sbl.Measurements, method: Any, model: Any = None) -> Estimate:
    """One run of probkit, and the exact posterior of the coefficients at its best restart.

    `pk.fit` does the same and then makes a labelled tree. That takes 0.1 to 0.2 s,
    whatever the sizes.
    """
    model = sbl.KroneckerSBL() if model is None else model
    draws = method.run(model, data, jax.random.key(0), None, Running())
    sites = {name: draw[0, 0] for name, draw in draws.sites.items()}
    mean, sd = (np.asarray(a) for a in _moments(model, data, sites))
    steps = draws.trace.get("steps")  # one number per restart
    steps = np.size(draws.trace["objective"]) if steps is None else np.sum(steps)
    return Estimate(mean, int(steps), draws.facts["evidence"], sd)


@eqx.filter_jit
def _moments(model, data, sites):
    post = model.posterior(sites, data)
    return post.mean(), jnp.sqrt(post.variances())


# scikit-learn, on the dense matrix, for real numbers only.


def dense(matrices) -> np.ndarray:
    return reduce(np.kron, matrices)


def sklearn_omp(y, matrices, noise_sd: float) -> Estimate:
    """OMP until the misfit is as small as the noise."""
    from sklearn.linear_model import OrthogonalMatchingPursuit

    omp = OrthogonalMatchingPursuit(tol=noise_sd**2 * y.size, fit_intercept=False)
    omp.fit(dense(matrices), y.ravel())
    shape = [a.shape[1] for a in matrices]
    return Estimate(omp.coef_.reshape(shape), int(omp.n_iter_))


def sklearn_lasso(y, matrices, noise_sd: float) -> Estimate:
    """The lasso with the universal penalty, which noise alone seldom exceeds."""
    from sklearn.linear_model import Lasso

    A = dense(matrices)
    norm = np.sqrt(np.mean(np.sum(A**2, axis=0)))
    α = noise_sd * norm * np.sqrt(2 * np.log(A.shape[1])) / len(A)
    lasso = Lasso(alpha=α, fit_intercept=False, max_iter=5000, tol=1e-4)
    lasso.fit(A, y.ravel())
    return Estimate(lasso.coef_.reshape([a.shape[1] for a in matrices]), lasso.n_iter_)


def sklearn_ard(y, matrix) -> Estimate:
    """One mode, with the noise estimated."""
    from sklearn.linear_model import ARDRegression

    ard = ARDRegression(fit_intercept=False, max_iter=1000, tol=1e-6).fit(matrix, y)
    return Estimate(ard.coef_, ard.n_iter_)
