"""Known answers, and what our fits reach."""

import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from probkit.distributions import NormalInverseWishart
from probkit.models.meta.episodes import Episodes
from probkit.models.meta.episodic import Episodic
from probkit.models.meta.linear import Linear
from probkit.models.meta.niwmeta import sineline
from probkit.models.meta.queries import New

NAMES = ("linear", "5-shot", "10-shot")
QUICK = ("linear", "5-shot")

ABOUT = """\
NIW-Meta, a hierarchical Bayesian model for few-shot learning (Kim & Hospedales 2024):
problems with known answers, and what our fits reach.

The tables of the paper are not here, and no figure of it is quoted: its body and its code
were not available to us, and its image data sets are not part of probkit.\
"""
LEGEND = """\
linear       20 lines of 5 points, whose coefficients have a normal-inverse-Wishart prior.
             Known: the updates by hand; the log evidence by importance sampling; of a value
             of a new line, given two points, mean / variance, with the hierarchy in
             expectation, and averaged over its posterior by Gibbs sampling.
k-shot       sinusoids and lines, of which k of 50 points are known, with noise of sd 0.3.
known        MSE and NLL of 1,000 other such tasks, measured once. MAML and VAMPIRE are
             checkpoints of the public repository few_shot_meta_learning, in which the
             generator is; that NIW-Meta uses the same ranges is not certain. The NLL of
             VAMPIRE is the middle of 10.9 to 12.2.
+-           half the 95 % interval of the MSE over tasks.
NLL          minus the log density of a value, in nats.
in 90 %      share of the values inside the 90 % interval.
s            seconds of processor of the fit, with compilation.\
"""


class Known(NamedTuple):
    """What is known of a predictor, measured once on 1,000 tasks.

    Attributes:
        mse: mean squared error.
        nll: minus the mean log density, in nats; None if not measured.
        cover: of 90 % intervals; None if not measured.
    """

    mse: float
    nll: float | None = None
    cover: float | None = None


KNOWN: dict[tuple[str, str], Known] = {
    ("5-shot", "Bayes-optimal"): Known(0.200, 0.438, 0.89),
    ("5-shot", "one kind"): Known(0.790, 0.876, 0.90),
    ("10-shot", "one kind"): Known(0.151, 0.446),
    ("5-shot", "Gaussian process"): Known(3.32, 1.382, 0.89),
    ("5-shot", "no adaptation"): Known(16.8),
    ("5-shot", "MAML checkpoint"): Known(2.76, 15.1, 0.38),
    ("5-shot", "VAMPIRE checkpoint"): Known(2.44, 11.5, 0.41),
}


def chosen(only: str | None, quick: bool) -> tuple[str, ...]:
    """The problems asked for.

    Args:
        only: names separated by commas, or None.
        quick: whether to choose two only, if `only` is None.

    Raises:
        ValueError: for a name that no problem has.
    """
    if only is None:
        return QUICK if quick else NAMES
    names = tuple(filter(None, (name.strip() for name in only.split(","))))
    if not names or not set(names) <= set(NAMES):
        raise ValueError(
            f"`--only {only}`: the problems are {', '.join(NAMES)}; give one or more, "
            "separated by commas."
        )
    return names


def rows(names: Sequence[str], quick: bool) -> Iterator[str]:
    """The lines of the tables, each as soon as it is known.

    Needs float64, as `pk.enable_x64()` sets it.

    Args:
        names: of the problems.
        quick: whether to use 200 tasks, not 1,000, and as many fewer to learn from.
    """
    for i, name in enumerate(names):
        if i:
            yield ""
        if name == "linear":
            yield from _linear()
        else:
            yield from _shots(name, *((200, 400) if quick else (1000, 2000)))


# Lines with a known posterior.


class Lines(NamedTuple):
    """The answers to the linear problem.

    Attributes:
        mean: of the population mean, `(2,)`.
        scale: $V$ of the inverse Wishart posterior, `(2, 2)`.
        elbo: in nats.
        at_new: mean and variance of a value of a new line at 1.5, given two points, with
            the hierarchy in expectation.
        drawn: the same, averaged over draws of the hierarchy.
    """

    mean: np.ndarray
    scale: np.ndarray
    elbo: float
    at_new: tuple[float, float]
    drawn: tuple[float, float]


# By hand, from the updates; the evidence by importance sampling, 60,000 draws; the exact
# prediction by averaging over the posterior of 30,000 Gibbs sweeps.
BY_HAND = Lines(
    np.array([1.07478, -0.18630]),
    np.array([[11.15080, 2.39165], [2.39165, 3.09544]]),
    -79.98551,
    (0.577, 0.286),
    (0.574, 0.293),
)
LOG_EVIDENCE = -79.678
NEW = New([[1.5]], [[-1.0, 0.5]], [[1.8, 0.9]])


def lines_data() -> Episodes:
    """Twenty lines of five points."""
    rng = np.random.default_rng(0)
    spread = [[0.5, 0.2], [0.2, 0.3]]
    theta = rng.multivariate_normal([1, -0.5], spread, size=20)
    x = rng.uniform(-2, 2, (20, 5))
    y = theta[:, :1] + theta[:, 1:] * x + 0.3 * rng.standard_normal((20, 5))
    return Episodes(x, y)


def lines() -> Lines:
    """What a fit answers."""
    import probkit as pk

    data, key = lines_data(), jax.random.key(0)
    prior = NormalInverseWishart(jnp.zeros(2), jnp.ones(()), jnp.eye(2), jnp.asarray(4.0))
    model = Linear(noise_sd=0.3, prior=prior)
    method = Episodic(num_draws=4000, atol=1e-9)
    fitted = pk.fit(model, data, method, key=key)
    post: Any = fitted.approximation
    found = jax.tree.map(lambda a: a[0], post.blocks[0]).niw
    found = found.transformed(*model.to_units(data))
    y = pk.predict(fitted, NEW, key=key)["y"]
    return Lines(
        np.asarray(found.loc),
        np.asarray(found.scale),
        fitted.facts["elbo"],
        _in_expectation(fitted),
        (float(y.mean()), float(y.var())),
    )


def _in_expectation(fitted) -> tuple[float, float]:
    tasks = sineline.Tasks(
        *(np.array([a]) for a in ([-1.0, 0.5], [1.8, 0.9], [1.5], [0.0]))
    )
    weight, mean, variance = sineline.moments(fitted, tasks)
    return float((weight * mean).sum()), float(variance.sum())


def _linear() -> Iterator[str]:
    ours = lines()
    yield f"{'linear':<24}  {'known':>18}  {'ours':>18}"
    for name, known, found in (
        ("mean, intercept", BY_HAND.mean[0], ours.mean[0]),
        ("mean, slope", BY_HAND.mean[1], ours.mean[1]),
        *(
            (f"V[{i}, {j}]", BY_HAND.scale[i, j], ours.scale[i, j])
            for i, j in ((0, 0), (0, 1), (1, 1))
        ),
        ("ELBO, nats", BY_HAND.elbo, ours.elbo),
    ):
        yield f"{name:<24}  {known:>18.5f}  {found:>18.5f}"
    yield f"{'log evidence, nats':<24}  {LOG_EVIDENCE:>18.3f}"
    for name, known, found in (
        ("new line, plug-in", BY_HAND.at_new, ours.at_new),
        ("new line, averaged", BY_HAND.drawn, ours.drawn),
    ):
        pairs = (f"{mean:.3f} / {variance:.3f}" for mean, variance in (known, found))
        yield f"{name:<24}  " + "  ".join(f"{pair:>18}" for pair in pairs)


# Sinusoids and lines.


def _shots(name: str, num_tasks: int, num_training: int) -> Iterator[str]:
    import probkit as pk

    count = int(name.partition("-")[0])
    tasks = sineline.held_out(count, num_tasks)
    data = sineline.training(count, num_training)
    yield _line(name, "known", "NLL", "in 90 %", "ours", "+-", "NLL", "in 90 %", "s")
    yield row(name, "Bayes-optimal", sineline.bayes_optimal(tasks))
    for label, kinds in (("two kinds", 2), ("one kind", 1)):
        model = Linear(num_components=kinds, features=sineline.features)
        begun = time.process_time()
        fitted = pk.fit(
            model, data, Episodic(num_draws=1), key=jax.random.key(0), throw=False
        )
        seconds = time.process_time() - begun
        yield row(name, label, sineline.of_fit(fitted, tasks), seconds)
    yield row(name, "Gaussian process", sineline.gaussian_process(tasks, data))
    yield row(name, "no adaptation", sineline.no_adaptation(tasks, data))
    for label in ("MAML checkpoint", "VAMPIRE checkpoint"):
        if (name, label) in KNOWN:
            yield row(name, label)


def row(name: str, label: str, each=None, seconds: float | None = None) -> str:
    known = KNOWN.get((name, label))
    cells = ["", "", ""] if known is None else [_number(value) for value in known]
    if each is not None:
        found = sineline.summary(each)
        cells += [_number(found[what]) for what in ("mse", "mse_error95", "nll", "cover90")]
        cells += [""] if seconds is None else [f"{seconds:.1f}"]
    return _line(label, *cells)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _line(*cells: str) -> str:
    widths = (18, 7, 7, 7, 9, 7, 7, 7, 5)
    padded = (f"{one:>{w}}" for one, w in zip(cells[1:], widths[1:], strict=False))
    return "  ".join((f"{cells[0]:<{widths[0]}}", *padded)).rstrip()
