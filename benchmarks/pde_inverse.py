"""Coverage of unknown coefficients and of u by `pde.Closed`, over problems and seeds.

python benchmarks/pde_inverse.py
python benchmarks/pde_inverse.py --seeds 2 --problems decay

Each problem has a known solution. Observations with new noise, and at new places, are
fitted again and again; counted is how often 95 % intervals of each unknown hold the truth,
and which share of the 95 % band of u does. Where all solutions have a formula with a few
parameters, least squares on it fits the same data: what its intervals miss is the luck of
the seeds.
"""

import argparse
import functools
import json
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import NamedTuple

import numpy as np
import scipy.optimize
import scipy.stats
from timing import HERE, fresh_process, machine, table, timed, write

SEEDS, POINTS, DRAWS = 60, 40, 40
# Of problems that take long.
FEWER = {"reaction and diffusion": 30}
WANTED = (0.90, 0.97)


class Case(NamedTuple):
    """A problem without its observations, and what they are simulated from.

    Attributes:
        form: solutions, of an array of points, one row per point, of the unknowns, and of
            `constants`.
        constants: what else the solutions depend on, such as initial values, at the truth.
        complete: whether `form` has all solutions that the problem may have.
    """

    domain: dict
    residual: Callable
    boundary: list
    unknown: dict[str, tuple[float, float]]
    truth: dict[str, float]
    form: Callable
    noise: float
    count: int
    shape: int
    constants: tuple[float, ...] = ()
    complete: bool = True

    @property
    def parameters(self) -> np.ndarray:
        return np.array([*self.truth.values(), *self.constants])

    def exact(self, points):
        return self.form(points, *self.parameters)


def cases() -> dict[str, Case]:
    from probkit.models import pde

    π = np.pi

    def swinging(p, mu, k, cosine, sine):
        t, ω = p[:, 0], np.sqrt(k - mu**2 / 4)
        return np.exp(-mu / 2 * t) * (cosine * np.cos(ω * t) + sine * np.sin(ω * t))

    def pushed(p, mu, k, f, cosine, sine):
        return f / k + swinging(p, mu, k, cosine, sine)

    def moving_front(p, r):
        # Fisher's equation u_t = D u_xx + r u (1 - u) has this front if D = 1.
        rate = np.sqrt(r / 6)
        return (1 + np.exp(rate * (p[:, 0] - 5 * rate * p[:, 1]))) ** -2

    def standing(p, c2, *amplitudes):
        waves = np.arange(1, 1 + len(amplitudes) // 2)
        (x, t), (cosine, sine) = p.T[..., None], np.reshape(amplitudes, (2, -1))
        ωt = π * waves * np.sqrt(c2) * t
        return np.sum(np.sin(π * waves * x) * (cosine * np.cos(ωt) + sine * np.sin(ωt)), 1)

    return {
        "decay": Case(
            {"t": (0, 3)}, lambda u, t, c: u.dt + c.rate * u, [pde.Initial(1.0)],
            {"rate": (0, 10)}, {"rate": 0.8}, lambda p, rate: np.exp(-rate * p[:, 0]),
            0.02, 20, 20,
        ),
        "damped oscillator": Case(
            {"t": (0, 1)}, lambda u, t, c: u.dtt + c.mu * u.dt + c.k * u, [],
            {"mu": (0, 10), "k": (100, 800)}, {"mu": 4.0, "k": 400.0},
            swinging, 0.04, 40, 100, (1.0, 0.0),
        ),
        "heat": Case(
            {"x": (0, 1), "t": (0, 0.5)}, lambda u, p, c: u.dt - c.D * u.dxx,
            [pde.Dirichlet(0.0, on="x"), pde.Initial(lambda p: np.sin(π * p.x))],
            {"D": (0.01, 2)}, {"D": 0.3},
            lambda p, D: np.sin(π * p[:, 0]) * np.exp(-D * π**2 * p[:, 1]), 0.02, 60, 14,
        ),
        "reaction and diffusion": Case(
            {"x": (-4, 4), "t": (0, 0.6)},
            lambda u, p, c: u.dt - u.dxx - c.r * u * (1 - u), [],
            {"r": (1, 15)}, {"r": 6.0}, moving_front, 0.02, 60, 14, (), False,
        ),
        "wave speed": Case(
            {"x": (0, 1), "t": (0, 1)}, lambda u, p, c: u.dtt - c.c2 * u.dxx,
            [pde.Dirichlet(0.0, on="x")], {"c2": (0.2, 4)}, {"c2": 1.69},
            standing, 0.05, 60, 16, (0.0, 1.0, 0.0, 0.0, 0.0, 0.0),
        ),
        "logistic growth": Case(
            {"t": (0, 6)}, lambda u, t, c: u.dt - c.rate * u * (1 - u), [],
            {"rate": (0.1, 4)}, {"rate": 1.3},
            lambda p, rate, odds: 1 / (1 + odds * np.exp(-rate * p[:, 0])),
            0.02, 40, 30, (9.0,),
        ),
        "two unknowns": Case(
            {"t": (0, 3)}, lambda u, t, c: u.dt + c.rate * u - c.inflow,
            [pde.Initial(0.0)], {"rate": (0, 10), "inflow": (0, 10)},
            {"rate": 1.5, "inflow": 3.0},
            lambda p, rate, inflow: inflow / rate * (1 - np.exp(-rate * p[:, 0])),
            0.05, 30, 24,
        ),
        "three unknowns": Case(
            {"t": (0, 4)},
            lambda u, t, c: u.dtt + c.mu * u.dt + c.k * u - c.f, [],
            {"mu": (0, 5), "k": (1, 60), "f": (-50, 50)},
            {"mu": 0.8, "k": 9.16, "f": 9.16},
            pushed, 0.05, 50, 60, (-1.0, 0.0),
        ),
    }  # fmt: skip


def least_squares(case: Case, points, values, at) -> dict[str, float]:
    """Which share of the unknowns, and of u, 95 % intervals of least squares hold."""
    fit = scipy.optimize.least_squares(
        lambda θ: case.form(points, *θ) - values, case.parameters, x_scale="jac"
    )
    left = len(values) - len(fit.x)
    covariance = 2 * fit.cost / left * np.linalg.pinv(fit.jac.T @ fit.jac)
    slopes = scipy.optimize.approx_fprime(fit.x, lambda θ: case.form(at, *θ), 1e-6)
    width = scipy.stats.t.ppf(0.975, left) * np.sqrt(np.diag(covariance))
    off = np.abs(fit.x - case.parameters)[: len(case.truth)]
    apart = np.abs(case.form(at, *fit.x) - case.exact(at))
    band = scipy.stats.t.ppf(0.975, left) * np.sqrt(
        np.sum(slopes @ covariance * slopes, axis=1)
    )
    return {
        "least_squares_unknowns": float(np.mean(off <= width[: len(off)])),
        "least_squares_u": float(np.mean(apart <= band)),
    }


def study(name: str, seeds: int) -> list[dict]:
    """One row per seed."""
    import jax

    import probkit as pk
    from probkit.models import pde

    case = cases()[name]
    low, high = np.array(list(case.domain.values()), float).T
    model = pde.SpectralGP(equation_sd=1e-3)
    rows = []
    for seed in range(seeds):
        random = np.random.default_rng(seed)
        points = random.uniform(low, high, (case.count, len(low)))
        values = case.exact(points) + case.noise * random.normal(size=case.count)
        at = random.uniform(low, high, (POINTS, len(low)))
        key = jax.random.key(seed)

        problem = pde.Problem(
            case.domain,
            case.residual,
            case.boundary,
            shape=case.shape,
            observations=pde.Observations(points, values),
            unknown=case.unknown,
        )
        run = functools.partial(
            pk.fit, model, problem, pde.Closed(), key=key, throw=False, progress=False
        )
        seconds, fit = timed(run)
        found = pk.predict(fit, at, key=key, num_draws=DRAWS)
        mean, sd = (found[v].values.reshape(-1, POINTS) for v in ("u_mean", "u_sd"))
        u, width = mean.mean(0), np.sqrt((sd**2).mean(0) + mean.var(0))
        truth = case.exact(at)
        row = {"seed": seed, "result": str(fit.result), "cpu_s": seconds["cpu_s"]}
        row["error"] = float(np.linalg.norm(u - truth) / np.linalg.norm(truth))
        row["coverage"] = float(np.mean(np.abs(u - truth) < 1.96 * width))
        row["ok"] = pk.diagnose(fit).ok
        if case.complete:
            row |= least_squares(case, points, values, at)
        for site, value in case.truth.items():
            draws = fit.posterior[site].values
            row[site] = float(draws.mean())
            row[f"{site}_sd"] = float(draws.std())
            lower, upper = np.quantile(draws, [0.025, 0.975])
            row[f"{site}_held"] = bool(lower <= value <= upper)
        rows.append(row)
        print(name, row, file=sys.stderr, flush=True)
    return rows


def summary(name: str, rows: list[dict]) -> dict:
    """Coverage, error and time of one problem."""
    held = [v for row in rows for k, v in row.items() if k.endswith("_held")]
    ideal = {
        f"{what} by least squares": float(np.mean([row[key] for row in rows]))
        for what, key in [
            ("unknowns", "least_squares_unknowns"),
            ("u", "least_squares_u"),
        ]
        if key in rows[0]
    }
    return {
        "problem": name,
        "seeds": len(rows),
        "unknowns held": float(np.mean(held)),
        "u held": float(np.mean([row["coverage"] for row in rows])),
        **ideal,
        "median error": float(np.median([row["error"] for row in rows])),
        "largest error": max(row["error"] for row in rows),
        "flagged": sum(not (row["ok"] and row["result"] == "successful") for row in rows),
        "median cpu s": float(np.median([row["cpu_s"] for row in rows])),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--problems", nargs="*", default=list(cases()))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        import probkit as pk

        pk.enable_x64()
        print(json.dumps(study(given.one, given.seeds)))
        return
    script = str(HERE / "pde_inverse.py")

    def run(name):
        seeds = str(min(given.seeds, FEWER.get(name, given.seeds)))
        return fresh_process(script, "--one", name, "--seeds", seeds)

    quick = given.seeds < SEEDS or len(given.problems) < len(cases())
    result = {"machine": machine(), "wanted": WANTED, "summary": [], "rows": {}}
    with ThreadPoolExecutor(2) as pool:
        jobs = {pool.submit(run, name): name for name in given.problems}
        # Kept as they come, because the longest takes a quarter of an hour.
        for job in as_completed(jobs):
            name = jobs[job]
            result["rows"][name] = job.result()
            result["summary"].append(summary(name, job.result()))
            write("pde_inverse", result, quick)
    summaries = result["summary"]
    columns = list(dict.fromkeys(name for one in summaries for name in one))
    table(columns, [[one.get(name, "-") for name in columns] for one in summaries])


if __name__ == "__main__":
    main()
