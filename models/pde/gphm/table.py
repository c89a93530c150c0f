"""Published errors of a paper, and ours for the same problems."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from probkit.gp.mixture import Envelope

KERNELS: dict[Envelope, str] = {"student_t": "StM", "gaussian": "GM"}
# Relative L2 errors of GP-HM with Student-t and with Gaussian bumps. Source: Fang et al.
# (2024), arXiv 2311.04465, as the run logs in the history of the authors' code have them.
PUBLISHED: dict[str, tuple[float, float]] = {
    "u1": (6.5e-7, 4.0e-7),
    "u2": (2.7e-3, 2.1e-3),
    "u3": (5.5e-6, 1.5e-6),
    "u4": (9.0e-7, 1.6e-6),
    "u5": (4.2e-4, 1.8e-3),
    "u6": (6.9e-5, 6.5e-5),
    "u7": (1.0e-3, 1.1e-3),
    "a1": (4.9e-6, 7.7e-7),
    "a2": (4.8e-6, 4.2e-6),
    "a3": (5.7e-3, 2.6e-3),
    "v1": (1.4e-4, 9.1e-4),
}
QUICK = ("u1", "u3")
# Test points per axis, by dimension. The paper takes 300 in two dimensions as well, because
# it has no intervals, which cost one triangular solve per point.
TEST_POINTS = {1: 300, 2: 100}
NORMAL_95 = 1.959964

ABOUT = """\
GP-HM, a Gaussian process with a spectral mixture for the solution of an equation (Fang et
al. 2024, arXiv 2311.04465): relative L2 errors, the published ones and ours.

The method differs. The paper moves the values of u on the grid, the kernel and the noise
precisions together, by 5e4 to 3e6 steps of Adam. Here u is integrated out in closed form
and the frequencies start at those of the source (`pde.SpectralGP`, `pde.Closed()`, all
settings as they come). `pde.GridGP` with `pde.Adam` is the paper's own way.
"""
LEGEND = """\
published    the smallest error during the run, chosen with the true solution; the error at
             the end was up to 1000 times larger. v1: on [0, 1]^2, with u given on all four
             edges; on the domain used here StM had 3.6e-3. u5: with 200 points.
ours         the error at the end; the true solution is used on the faces only. At 300 even
             points, in two dimensions at 100 per axis (the paper: 300).
coverage     share of these points inside the 95 % interval; the paper has no intervals.
width/error  half-width of the interval over the error, both root mean square.
cold, warm   seconds of processor for fit and prediction, in the first run of a problem with
             compilation, and in the second.\
"""
SHORT = "Two problems of eleven (--quick). All eleven take some minutes."


class Outcome(NamedTuple):
    """The result for one problem.

    Attributes:
        problem: its name in `pde.examples`.
        envelope: envelope of the kernel.
        published: the paper's error, relative L2.
        error: ours, relative L2 at the test points.
        coverage: share of the test points inside the 95 % interval.
        width_ratio: half-width of the interval over the error, both root mean square.
        cold_s: seconds of processor for fit and prediction, in a first run.
        warm_s: the same in a second run.
        settled: whether the result of the fit is `successful`.
        concerns: checks of `pk.diagnose` that need a look.
    """

    problem: str
    envelope: Envelope
    published: float
    error: float
    coverage: float
    width_ratio: float
    cold_s: float
    warm_s: float
    settled: bool
    concerns: tuple[str, ...]


def attempt(name: str, envelope: Envelope, num: int | None = None) -> Outcome:
    """Fit one of the paper's problems twice, and compare with its solution.

    Needs float64, as `pk.enable_x64()` sets it.

    Args:
        name: name of the problem in `pde.examples`.
        envelope: envelope of the kernel.
        num: grid points per axis, 8 or more; by default the paper's.

    Returns:
        Errors, intervals and times of both runs.

    Raises:
        ValueError: for fewer than 8 points, and in float32.
    """
    import jax

    import probkit as pk
    from probkit.models import pde

    make = getattr(pde.examples, name)
    problem, exact = make() if num is None else make(num)
    grid = even_points(problem)
    points = np.stack([a.reshape(-1) for a in np.meshgrid(*grid, indexing="ij")], axis=-1)
    model, key = pde.SpectralGP(envelope=envelope), jax.random.key(0)

    def run():
        fit = pk.fit(model, problem, pde.Closed(), key=key, throw=False, progress=False)
        found = pk.predict(fit, points, key=key)
        return fit, *(found[part].values.reshape(-1) for part in ("u_mean", "u_sd"))

    cold_s, (fit, mean, sd) = _processor_seconds(run)
    warm_s, _ = _processor_seconds(run)
    truth = np.asarray(exact(problem.coordinates(grid))).reshape(-1)
    off, half = mean - truth, NORMAL_95 * sd
    checks = pk.diagnose(fit)
    return Outcome(
        problem=name,
        envelope=envelope,
        published=PUBLISHED[name][list(KERNELS).index(envelope)],
        error=_length(off) / _length(truth),
        coverage=float(np.mean(np.abs(off) <= half)),
        width_ratio=_length(half) / _length(off),
        cold_s=cold_s,
        warm_s=warm_s,
        settled=fit.result == "successful",
        concerns=tuple(check.name for check in checks if not check.ok),
    )


def even_points(problem) -> list[np.ndarray]:
    """Even test points along each axis, both ends included, one array per axis."""
    num = TEST_POINTS[len(problem.axes)]
    return [np.linspace(float(x[0]), float(x[-1]), num) for x in problem.grid]


def rows(names: Sequence[str], kernel: str | None = None) -> Iterator[str]:
    """The lines of the table, each as soon as it is known.

    Args:
        names: names of the problems.
        kernel: "StM" or "GM"; both by default.
    """
    heads = ("problem", "kernel", "published", "ours", "coverage", "width/error")
    yield _line(*heads, "cold s", "warm s")
    for name in names:
        for envelope, word in KERNELS.items():
            if kernel in (None, word):
                yield line(attempt(name, envelope))


def line(outcome: Outcome) -> str:
    """One problem and kernel, as a row of the table."""
    remark = "" if outcome.settled else "not settled"
    if outcome.concerns:
        remark = "; ".join(filter(None, [remark, "LOOK: " + ", ".join(outcome.concerns)]))
    return _line(
        outcome.problem,
        KERNELS[outcome.envelope],
        f"{outcome.published:.1e}",
        f"{outcome.error:.1e}",
        f"{outcome.coverage:.3f}",
        f"{outcome.width_ratio:.1f}",
        f"{outcome.cold_s:.1f}",
        f"{outcome.warm_s:.1f}",
        remark,
    )


def chosen(only: str | None, quick: bool) -> tuple[str, ...]:
    """The problems asked for.

    Args:
        only: names separated by commas, or None.
        quick: whether to choose two problems only, if `only` is None.

    Returns:
        Names in `pde.examples`.

    Raises:
        ValueError: for a name that no problem has.
    """
    if only is None:
        return QUICK if quick else tuple(PUBLISHED)
    names = tuple(filter(None, (name.strip() for name in only.split(","))))
    unknown = [name for name in names if name not in PUBLISHED]
    if unknown or not names:
        raise ValueError(
            f"`--only {only}`: the problems are {', '.join(PUBLISHED)}; give one or more, "
            "separated by commas."
        )
    return names


def _line(*cells: str) -> str:
    widths = (7, 6, 9, 7, 8, 11, 6, 6, 0)
    padded = [f"{c:<{w}}" for c, w in zip(cells, widths, strict=False)]
    return "  ".join(padded).rstrip()


def _processor_seconds(run: Callable[[], Any]) -> tuple[float, Any]:
    before = time.process_time()
    value = run()
    return time.process_time() - before, value


def _length(vector: np.ndarray) -> float:
    return float(np.linalg.norm(vector))
