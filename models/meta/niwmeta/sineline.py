"""Sinusoids and lines from a few points: what is best, what is usual, and our fits."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import logsumexp, ndtr

from probkit.model.source import example_of
from probkit.models.meta.episodes import Episodes
from probkit.models.meta.evidence import predicted
from probkit.models.meta.generators import SineLine
from probkit.models.meta.linear import Linear
from probkit.models.meta.queries import New

NOISE = 0.3
POINTS = 50
EDGE = 0.05  # of a 90 % interval


def features(x):
    """Functions of which every sinusoid and every line is a sum."""
    return jnp.concatenate([jnp.sin(x), jnp.cos(x), x, jnp.ones_like(x)], -1)


class Tasks(NamedTuple):
    """Points that are known, `(n, s)`, and points to predict, `(n, q)`."""

    support_x: np.ndarray
    support_y: np.ndarray
    x: np.ndarray
    y: np.ndarray


def held_out(num_support: int, num_tasks: int, key: int = 7) -> Tasks:
    """Tasks of all 50 points, of which the first are known. Their order is random."""
    source = SineLine(jax.random.key(0), num_support=num_support, noise_sd=NOISE)
    found = source.held_out(jax.random.key(key), num_tasks)
    return Tasks(*(np.asarray(array, float) for array in found[:4]))


def training(num_support: int, num_tasks: int, key: int = 0) -> Episodes:
    """Episodes to learn from."""
    source = SineLine(
        jax.random.key(key), num_tasks, num_tasks, num_support, noise_sd=NOISE
    )
    return source.at(0)


# Scores of mixtures of normals: weights, means and variances with components last.


def scores(y, weight, mean, variance) -> dict[str, np.ndarray]:
    """Squared error, minus log density, and whether the 90 % interval has the value.

    Args:
        y: values, `(n, q)`.
        weight: of the components of the prediction of each value, as `mean`.
        mean: `(n, q, k)`.
        variance: as `mean`.

    Returns:
        Means over the values of each task, `(n,)`: `mse`, `nll` in nats, `cover90`.
    """
    center = (weight * mean).sum(-1)
    away = (y[..., None] - mean) / np.sqrt(variance)
    log = np.log(weight + 1e-300) - (away**2 + np.log(2 * np.pi * variance)) / 2
    below = (weight * ndtr(away)).sum(-1)
    return {
        "mse": ((y - center) ** 2).mean(1),
        "nll": -logsumexp(log, -1).mean(1),
        "cover90": ((below > EDGE) & (below < 1 - EDGE)).mean(1),
    }


def summary(each: dict[str, np.ndarray]) -> dict[str, float]:
    """Means over tasks, and the half-width of the 95 % interval of the squared error."""
    found = {name: float(values.mean()) for name, values in each.items()}
    n = len(each["mse"])
    return found | {"mse_error95": float(1.96 * each["mse"].std() / np.sqrt(n))}


def bayes_optimal(tasks: Tasks, num: int = 160) -> dict[str, np.ndarray]:
    """With the distribution of tasks known, by sums over a grid of all of them."""
    middle = (np.arange(num) + 0.5) / num
    x = np.linspace(-5.0, 5.0, POINTS)
    a, b, s = 0.1 + 4.9 * middle, np.pi * middle, -3 + 6 * middle
    sines = a[:, None, None] * np.sin(x + b[None, :, None])
    lines = s[:, None, None] * x + s[None, :, None]
    f = np.concatenate([sines.reshape(-1, len(x)), lines.reshape(-1, len(x))])
    found = []
    for known_x, known_y, asked_x, asked_y in zip(*tasks, strict=True):
        # Inputs are points of the grid up to rounding.
        known, asked = (
            np.rint((z + 5) * (POINTS - 1) / 10).astype(int) for z in (known_x, asked_x)
        )
        log = -((f[:, known] - known_y) ** 2).sum(1) / (2 * NOISE**2)
        weight = np.exp(log - logsumexp(log))
        kept = weight > 1e-7 * weight.max()
        share = weight[kept] / weight[kept].sum()
        mean = f[kept][:, asked].T
        found.append(scores(asked_y[None], share, mean[None], NOISE**2))
    return {name: np.concatenate([one[name] for one in found]) for name in found[0]}


def moments(fitted: Any, tasks: Tasks) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predictions of a fit of `meta.Linear`, with the hierarchy in expectation.

    Returns:
        Weight, `(n, 1, k)`, mean and variance, `(n, q, k)`, of a normal per kind.
    """
    model: Linear = fitted.model
    data = example_of(fitted.data)
    asked = model.inputs(New(tasks.x, tasks.support_x, tasks.support_y), data)

    @jax.jit
    def found(post):
        believed = model.expected(post, data)
        design = model.design(asked.x, data, asked.asked)
        own = predicted(model.rows(asked.support), believed, design)
        center, scale = model.value_center(data), model.value_scale(data)
        mean, variance = (jnp.moveaxis(a, 1, -1) for a in (own.mean, own.variance))
        variance = scale**2 * (variance + 1 / believed.precision)
        return own.share[:, None], center + scale * mean, variance

    weight, mean, variance = map(np.asarray, found(fitted.approximation))
    return weight, mean, variance


def of_fit(fitted: Any, tasks: Tasks) -> dict[str, np.ndarray]:
    """The scores of these predictions."""
    return scores(tasks.y, *moments(fitted, tasks))


def gaussian_process(tasks: Tasks, data: Episodes) -> dict[str, np.ndarray]:
    """Squared exponential with mean zero, whose scales have the highest evidence."""

    def kernel(a, b, length, sd):
        return sd**2 * np.exp(-(((a[..., :, None] - b[..., None, :]) / length) ** 2) / 2)

    x, y = np.asarray(data.x[..., 0], float), np.asarray(data.y, float)
    noise = NOISE**2 * np.eye(x.shape[1])

    def evidence(length, sd):
        C = kernel(x, x, length, sd) + noise
        squares = np.einsum("ni,ni->n", y, np.linalg.solve(C, y[..., None])[..., 0])
        return -(squares + np.linalg.slogdet(C)[1]).sum() / 2

    lengths, sds = np.geomspace(0.5, 10, 16), np.geomspace(1, 30, 16)
    best = max((evidence(a, b), a, b) for a in lengths for b in sds)[1:]
    C = kernel(tasks.support_x, tasks.support_x, *best)
    C = C + NOISE**2 * np.eye(C.shape[-1])
    across = kernel(tasks.x, tasks.support_x, *best)
    solved = np.linalg.solve(C, across.swapaxes(1, 2)).swapaxes(1, 2)
    mean = np.einsum("nqs,ns->nq", solved, tasks.support_y)
    variance = best[1] ** 2 + NOISE**2 - (solved * across).sum(-1)
    ones = np.ones((1, 1, 1))
    return scores(tasks.y, ones, mean[..., None], variance[..., None])


def no_adaptation(tasks: Tasks, data: Episodes) -> dict[str, np.ndarray]:
    """Mean and sd of all values, whatever is known of a task."""
    mean, sd = float(np.mean(data.y)), float(np.std(data.y))
    shape = (*tasks.y.shape, 1)
    return scores(tasks.y, np.ones(1), np.full(shape, mean), np.full(shape, sd**2))
