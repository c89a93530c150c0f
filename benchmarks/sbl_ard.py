"""Regression on a table: `SparseBayesRegressor` and scikit-learn's `ARDRegression`.

Both sides are estimators and get the same tables, with standardised columns, in turn. Three
problems have known coefficients, one has a known function, and the last is real.
"""

import argparse
from typing import Any, NamedTuple

import numpy as np
from scipy import stats
from sklearn.datasets import load_diabetes, make_friedman1
from sklearn.linear_model import ARDRegression
from sklearn.preprocessing import PolynomialFeatures, StandardScaler
from timing import alternate, machine, median, table, timed, write

from probkit.models import sbl
from probkit.sklearn import SparseBayesRegressor

LEVEL = 0.9
HALF = stats.norm.ppf(0.5 + LEVEL / 2)
SIDES = {
    "TypeII": lambda: SparseBayesRegressor(method=sbl.TypeII(), random_state=0),
    "Sequential": lambda: SparseBayesRegressor(method=sbl.Sequential(), random_state=0),
    "Sequential, no price": lambda: SparseBayesRegressor(
        method=sbl.Sequential(prune=0), random_state=0
    ),
    "ARDRegression": ARDRegression,
}


class Problem(NamedTuple):
    """A table to fit, rows to predict, and what is known of the truth.

    Attributes:
        X, y: what is fitted, `(n, p)` and `(n,)`.
        X_new: rows to predict, `(m, p)`.
        y_new: observations there, with noise, `(m,)`.
        mean_new: their true mean, or None if it is not known.
        coefficient: the true coefficients, `(p,)`, or None.
    """

    X: np.ndarray
    y: np.ndarray
    X_new: np.ndarray
    y_new: np.ndarray
    mean_new: np.ndarray | None
    coefficient: np.ndarray | None


def linear(seed: int, n: int, p: int, active: int, correlation: float) -> Problem:
    """`active` coefficients of size one half to two, noise sd 0.5.

    Neighbouring columns have the given correlation, and all have variance one.
    """
    rng = np.random.default_rng(seed)
    m = 500
    white = rng.normal(size=(n + m, p))
    X = white.copy()
    for j in range(1, p):
        X[:, j] = correlation * X[:, j - 1] + np.sqrt(1 - correlation**2) * white[:, j]
    x = np.zeros(p)
    x[rng.choice(p, active, replace=False)] = rng.choice([-1, 1], active) * rng.uniform(
        0.5, 2.0, active
    )
    mean = X @ x
    y = mean + 0.5 * rng.normal(size=n + m)
    return Problem(X[:n], y[:n], X[n:], y[n:], mean[n:], x)


def friedman(seed: int) -> Problem:
    """Friedman 1, noise sd one: 10 inputs, 5 of which matter, and their products."""
    inputs, mean = make_friedman1(600, noise=0.0, random_state=seed)
    y = mean + np.random.default_rng(seed).normal(size=600)
    X, X_new = quadratic(inputs[:100], inputs[100:])
    return Problem(X, y[:100], X_new, y[100:], mean[100:], None)


def diabetes(seed: int) -> Problem:
    """The diabetes data, half of them held out: 10 inputs and their products."""
    inputs, y = load_diabetes(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(y))
    here, there = order[: len(y) // 2], order[len(y) // 2 :]
    X, X_new = quadratic(inputs[here], inputs[there])
    return Problem(X, y[here], X_new, y[there], None, None)


def quadratic(inputs: np.ndarray, new: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    products = PolynomialFeatures(2, include_bias=False).fit(inputs)
    scaler = StandardScaler().fit(products.transform(inputs))
    one, other = (scaler.transform(products.transform(rows)) for rows in (inputs, new))
    return one, other


PROBLEMS = {
    "60 x 120, 6 active": lambda seed: linear(seed, 60, 120, 6, 0.0),
    "100 x 60, 6 active, correlation 0.95": lambda seed: linear(seed, 100, 60, 6, 0.95),
    "60 x 40, noise only": lambda seed: linear(seed, 60, 40, 0, 0.0),
    "Friedman 1, 100 x 65": friedman,
    "diabetes, 221 x 65": diabetes,
}


def measured(estimator: Any, problem: Problem) -> dict[str, Any]:
    """Time, errors and coverage of one fit. What is not known is NaN."""
    seconds, _ = timed(lambda: estimator.fit(problem.X, problem.y))
    mean, sd = estimator.predict(problem.X_new, return_std=True)
    kept = estimator.coef_ != 0
    row = dict.fromkeys(("error", "nmse", "support_recovery", "hits", "of"), np.nan)
    row |= seconds | {
        "kept": int(kept.sum()),
        "rmse": float(np.sqrt(np.mean((mean - problem.y_new) ** 2))),
        "coverage_new": float(np.mean(np.abs(mean - problem.y_new) <= HALF * sd)),
    }
    if problem.mean_new is not None:
        row["error"] = float(np.sqrt(np.mean((mean - problem.mean_new) ** 2)))
    x = problem.coefficient
    if x is None:
        return row
    row["support_recovery"] = float(sbl.support_recovery(kept, x != 0))
    if x.any():
        half = HALF * coefficient_sd(estimator, kept)
        inside = np.abs(estimator.coef_ - x) <= half
        row["nmse"] = float(sbl.nmse(estimator.coef_, x))
        row |= {"hits": int(inside[x != 0].sum()), "of": int((x != 0).sum())}
    return row


def coefficient_sd(estimator: Any, kept: np.ndarray) -> np.ndarray:
    if isinstance(estimator, SparseBayesRegressor):
        return estimator.coef_sd_
    sd = np.zeros(len(kept))
    sd[estimator.lambda_ < estimator.threshold_lambda] = np.sqrt(np.diag(estimator.sigma_))
    return sd


def compared(make_problem, repeats: int) -> dict[str, list[dict]]:
    """Each side on each data set, in turn. The first fit of a shape compiles."""
    first = {
        name: timed(lambda make=make: make().fit(*make_problem(0)[:2]))[0]
        for name, make in SIDES.items()
    }
    calls = {
        name: lambda seed, make=make: measured(make(), make_problem(seed))
        for name, make in SIDES.items()
    }
    rows = alternate(calls, repeats)
    for name, seconds in first.items():
        rows[name][0]["first"] = seconds
    return rows


def average(rows: list[dict], name: str) -> float:
    return float(np.mean([row[name] for row in rows]))


def line(problem: str, name: str, rows: list[dict]) -> tuple:
    hits, of = (sum(row[key] for row in rows) for key in ("hits", "of"))
    return (
        problem,
        name,
        median(rows, "nmse"),
        average(rows, "error"),
        average(rows, "rmse"),
        average(rows, "kept"),
        average(rows, "support_recovery"),
        hits / of if of else np.nan,
        average(rows, "coverage_new"),
        1e3 * median(rows, "cpu_s"),
        rows[0]["first"]["cpu_s"],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="2 data sets per problem")
    parser.add_argument("--datasets", type=int, help="data sets per problem (default: 30)")
    args = parser.parse_args()
    repeats = args.datasets or (2 if args.quick else 30)
    where, results = machine(), {}
    for problem, make_problem in PROBLEMS.items():
        results[problem] = compared(make_problem, repeats)
        print(f"{problem}: done", flush=True)
    table(
        (
            "problem",
            "side",
            "nmse (median)",
            "error of mean",
            "rmse",
            "kept",
            "recovery",
            "coefs in 90 %",
            "new y in 90 %",
            "ms",
            "first, s",
        ),
        [
            line(problem, name, rows)
            for problem, sides in results.items()
            for name, rows in sides.items()
        ],
    )
    write(
        "sbl_ard",
        {"machine": where, "dtype": "float64", "level": LEVEL, "problems": results},
        args.quick,
    )


if __name__ == "__main__":
    main()
