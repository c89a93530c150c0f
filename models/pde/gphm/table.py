"""Published figures of a paper, and ours for the same problems."""

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
# Test points along an axis, by dimension. The paper takes 300 in two dimensions, too: it
# has no band, which costs a triangular solve a point.
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
published   the least error on the way, chosen with the true solution; where the runs ended
            was up to 1000 times worse. v1: on [0, 1]^2, told on all four edges; on the
            domain taken here StM had 3.6e-3. u5: with 200 points.
ours        the error at the end; nothing has seen the true solution but the faces. At 300
            even points, in two dimensions at 100 an axis (the paper: 300).
coverage    share of these points inside the band of 95 %; the paper has no band.
band/error  half-width of the band over the error, both root mean square.
cold, warm  seconds of processor, fit and prediction, in the first run of a problem with
            compilation, and in the second.\
"""
SHORT = "Two problems of eleven (--quick); without it there are all, in some minutes."


class Outcome(NamedTuple):
    """What became of one problem.

    Attributes:
        problem: its name in `pde.examples`.
        envelope: of the kernel.
        published: the paper's error.
        error: ours, relative L2 at the test points.
        coverage: share of the test points in the band of 95 %.
        width_ratio: half-width of the band over the error, both root mean square.
        cold_s: seconds of processor, fit and prediction, in a first run.
        warm_s: and in a second.
        settled: whether the fit says that it is done.
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
        name: of the problem, in `pde.examples`.
        envelope: of the kernel.
        num: grid points along an axis; by default the paper's.
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
        told = pk.predict(fit, points, key=key)
        return fit, *(told[part].values.reshape(-1) for part in ("u_mean", "u_sd"))

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
    """Even points along each axis, ends included, as the paper takes them."""
    num = TEST_POINTS[len(problem.axes)]
    return [np.linspace(float(x[0]), float(x[-1]), num) for x in problem.grid]


def rows(names: Sequence[str], kernel: str | None = None) -> Iterator[str]:
    """A table's lines, each as soon as it is known; for `kernel` "StM" or "GM", or both."""
    heads = ("problem", "kernel", "published", "ours", "coverage", "band/error")
    yield _line(*heads, "cold s", "warm s")
    for name in names:
        for envelope, word in KERNELS.items():
            if kernel in (None, word):
                yield line(attempt(name, envelope))


def line(told: Outcome) -> str:
    """One problem and kernel, as a row of the table."""
    remark = "" if told.settled else "not settled"
    if told.concerns:
        remark = "; ".join(filter(None, [remark, "LOOK: " + ", ".join(told.concerns)]))
    return _line(
        told.problem,
        KERNELS[told.envelope],
        f"{told.published:.1e}",
        f"{told.error:.1e}",
        f"{told.coverage:.3f}",
        f"{told.width_ratio:.1f}",
        f"{told.cold_s:.1f}",
        f"{told.warm_s:.1f}",
        remark,
    )


def chosen(only: str | None, quick: bool) -> tuple[str, ...]:
    """The problems asked for.

    Args:
        only: names with commas between, or None.
        quick: whether two will do, where none are named.

    Raises:
        ValueError: for a name that is no problem's.
    """
    if only is None:
        return QUICK if quick else tuple(PUBLISHED)
    names = tuple(filter(None, (name.strip() for name in only.split(","))))
    unknown = [name for name in names if name not in PUBLISHED]
    if unknown or not names:
        raise ValueError(
            f"`--only {only}`: the problems are {', '.join(PUBLISHED)}; give one or more, "
            "with commas between."
        )
    return names


def _line(*cells: str) -> str:
    widths = (7, 6, 9, 7, 8, 10, 6, 6, 0)
    padded = [f"{c:<{w}}" for c, w in zip(cells, widths, strict=False)]
    return "  ".join(padded).rstrip()


def _processor_seconds(run: Callable[[], Any]) -> tuple[float, Any]:
    before = time.process_time()
    value = run()
    return time.process_time() - before, value


def _length(vector: np.ndarray) -> float:
    return float(np.linalg.norm(vector))
