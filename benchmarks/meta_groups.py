"""Partial pooling of groups: errors on held-out values, by how many are known of a group.

Three sets, each split again and again: radon in the counties of Minnesota (half of the
homes held out), and two simulated ones whose truth is known: 96 groups as the model says,
and 8 small groups with nearly equal slopes. Sides, on the same splits:

- `meta.Linear` by `meta.Episodic`, and on a few splits by NUTS;
- `MixedLM` of statsmodels (REML, random intercepts and slopes): best linear unbiased
  predictions; their errors count those of the mean coefficients, with variances plugged in;
- complete pooling: one regression of all rows, with t intervals;
- no pooling: a regression per group with t intervals, where a group has the rows for it;
- for simulated sets, the prediction of one who knows the hierarchy.

    python benchmarks/meta_groups.py --quick

`MixedLM` runs where statsmodels is installed.
"""

import argparse
import time
import warnings
from typing import NamedTuple

import jax
import numpy as np
import scipy.stats
from timing import machine, table, write

import probkit as pk
from probkit.models import meta

CLASSES = {"0": (0, 0), "1": (1, 1), "2": (2, 2), "3-5": (3, 5), "6-10": (6, 10)}
CLASSES["more"] = (11, 10**9)
LEVEL = 0.9
NUM_DRAWS = 500


class Split(NamedTuple):
    """Rows of groups, `(n, m)`, and which of them are known and which are held out."""

    x: np.ndarray
    y: np.ndarray
    known: np.ndarray
    held: np.ndarray
    truth: tuple | None = None


class Prediction(NamedTuple):
    """Of every row: mean, log density of its value, and ends of the 90 % interval."""

    mean: np.ndarray
    log_density: np.ndarray
    low: np.ndarray
    high: np.ndarray


# Sets.


def radon(rng):
    homes = pk.datasets.radon()
    data = meta.Episodes.from_table(homes, "county", "floor", "log_radon")
    x, y, seen = np.asarray(data.x[..., 0]), np.asarray(data.y), np.asarray(data.seen)
    known = seen & (rng.uniform(size=y.shape) < 0.5)
    return Split(x, y, known, seen & ~known)


def simulated(rng, sizes, mean, covariance, noise, num_held=5):
    n, m = len(sizes), max(sizes) + num_held
    x = rng.normal(size=(n, m))
    theta = rng.multivariate_normal(mean, covariance, n)
    y = theta[:, :1] + theta[:, 1:] * x + noise * rng.normal(size=(n, m))
    place = np.arange(m)
    known = place < np.asarray(sizes)[:, None]
    held = np.broadcast_to(place >= m - num_held, y.shape)
    return Split(x, y, known, held, (np.asarray(mean), np.asarray(covariance), noise))


SETS = {
    "radon": radon,
    "96 groups": lambda rng: simulated(
        rng,
        [1, 2, 3, 5, 8, 15] * 16,
        [1.0, -0.5],
        [[0.5, 0.2], [0.2, 0.3]],
        1.0,
    ),
    "8 groups": lambda rng: simulated(
        rng, [2, 2, 3, 3, 5, 5, 8, 15], [0.0, 1.0], [[1.0, 0.0], [0.0, 0.01]], 1.0, 20
    ),
}


# Sides.


def by_probkit(split, method, key):
    y = np.where(split.known, split.y, np.nan)
    x = split.x[..., None]
    data = meta.Episodes(x, np.where(split.known, split.y, 0.0), split.known)
    fit = pk.fit(meta.Linear(), data, method, key=key, throw=False, progress=False)
    new = pk.predict(fit, meta.New(x, x, y), key=key, num_draws=NUM_DRAWS)
    mean = new["mean"].values.reshape(-1, *y.shape)
    draws = new["y"].values.reshape(-1, *y.shape)
    sd = fit.posterior["noise_sd"].sel(draw=new.draw).values.reshape(-1, 1, 1)
    each = scipy.stats.norm.logpdf(split.y, mean, sd)
    log_density = np.logaddexp.reduce(each, 0) - np.log(len(each))
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    failed = [check.name for check in pk.diagnose(fit) if not check.ok]
    facts = {"result": fit.result, "failed": failed}
    return Prediction(mean.mean(0), log_density, low, high), facts


def normal(split, mean, variance):
    sd = np.sqrt(variance)
    z = scipy.stats.norm.ppf((1 + LEVEL) / 2)
    log_density = scipy.stats.norm.logpdf(split.y, mean, sd)
    return Prediction(mean, log_density, mean - z * sd, mean + z * sd)


def given_hierarchy(split, mean, covariance, noise, of_mean=None):
    """Predictions from normal coefficients of known mean, covariance and noise sd.

    `of_mean` is the covariance of the error of an estimated mean.
    """
    found = np.empty((2, *split.y.shape))
    for i, (x, y, known) in enumerate(zip(split.x, split.y, split.known, strict=True)):
        Z = np.stack([np.ones_like(x), x], 1)
        X = Z[known]
        V = X @ covariance @ X.T + noise**2 * np.eye(len(X))
        gain = np.linalg.solve(V, X @ covariance).T
        own = mean + gain @ (y[known] - X @ mean)
        after = covariance - gain @ X @ covariance
        variance = np.einsum("mp,pq,mq->m", Z, after, Z) + noise**2
        if of_mean is not None:
            A = Z - Z @ gain @ X
            variance += np.einsum("mp,pq,mq->m", A, of_mean, A)
        found[:, i] = Z @ own, variance
    return normal(split, *found)


def by_mixedlm(split):
    from statsmodels.regression.mixed_linear_model import MixedLM

    n, m = split.y.shape
    group = np.repeat(np.arange(n), m).reshape(n, m)[split.known]
    X = np.stack([np.ones(split.known.sum()), split.x[split.known]], 1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit = MixedLM(split.y[split.known], X, group, X).fit(reml=True)
    mean, covariance = np.asarray(fit.fe_params), np.asarray(fit.cov_re)
    noise = np.sqrt(fit.scale)
    information = np.zeros((2, 2))
    for i in range(n):
        own = X[group == i]
        V = own @ covariance @ own.T + fit.scale * np.eye(len(own))
        information += own.T @ np.linalg.solve(V, own)
    facts = {"converged": bool(fit.converged), "warnings": len(caught)}
    found = given_hierarchy(split, mean, covariance, noise, np.linalg.inv(information))
    return found, facts


def student(X, y, Z, values):
    """The t predictions of a regression, NaN where the rows do not determine them."""
    rank = np.linalg.matrix_rank(X) if len(X) else 0
    df = len(y) - rank
    empty = np.full((4, len(Z)), np.nan)
    if df < 1:
        return empty
    back = np.linalg.pinv(X)
    coefficient = back @ y
    s2 = np.sum((y - X @ coefficient) ** 2) / df
    scale = np.sqrt(s2 * (1 + np.einsum("mp,pq,mq->m", Z, back @ back.T, Z)))
    mean = Z @ coefficient
    determined = np.abs(Z - Z @ back @ X).max(1) < 1e-9
    if s2 == 0:  # values that are equal by rounding
        return empty
    reach = scipy.stats.t.ppf((1 + LEVEL) / 2, df) * scale
    density = scipy.stats.t.logpdf(values, df, mean, scale)
    return np.where(determined, [mean, density, mean - reach, mean + reach], np.nan)


def designs(split):
    return np.stack([np.ones_like(split.x), split.x], -1)


def by_complete_pooling(split):
    Z = designs(split)
    found = student(Z[split.known], split.y[split.known], Z.reshape(-1, 2), split.y.ravel())
    return Prediction(*found.reshape(4, *split.y.shape)), {}


def by_no_pooling(split):
    each = zip(designs(split), split.y, split.known, strict=True)
    found = [student(Z[known], y[known], Z, y) for Z, y, known in each]
    return Prediction(*np.stack(found, 1)), {}


EPISODIC, NUTS, MIXED = "Linear, Episodic", "Linear, NUTS", "MixedLM"
COMPLETE, NONE, TRUTH = "complete pooling", "no pooling", "hierarchy known"


def sides(with_nuts, num_warmup):
    found = {
        EPISODIC: lambda s, key: by_probkit(s, meta.Episodic(num_draws=NUM_DRAWS), key),
        MIXED: lambda s, key: by_mixedlm(s),
        COMPLETE: lambda s, key: by_complete_pooling(s),
        NONE: lambda s, key: by_no_pooling(s),
        TRUTH: lambda s, key: (given_hierarchy(s, *s.truth), {}),
    }
    if with_nuts:
        nuts = pk.NUTS(num_chains=2, num_warmup=num_warmup, num_samples=num_warmup)
        found[NUTS] = lambda s, key: by_probkit(s, nuts, key)
    return found


# Scores.


def scored(split, found):
    """Sums of each class: rows, rows with a prediction, NLL, squared error, rows inside."""
    count = split.known.sum(1)
    out = {}
    for name, (least, most) in (CLASSES | {"all": (0, 10**9)}).items():
        rows = split.held & ((count >= least) & (count <= most))[:, None]
        given = rows & np.isfinite(found.mean)
        y, low, high = split.y[given], found.low[given], found.high[given]
        out[name] = {
            "rows": int(rows.sum()),
            "given": int(given.sum()),
            "nll": -float(found.log_density[given].sum()),
            "square": float(((y - found.mean[given]) ** 2).sum()),
            "inside": int(((low <= y) & (y <= high)).sum()),
        }
    return out


def summary(runs):
    """Means over the rows of all repetitions, with standard errors over repetitions."""
    out = {}
    for name in runs[0]:
        sums = {k: np.array([run[name][k] for run in runs], float) for k in runs[0][name]}
        given = sums["given"]
        if given.sum() == 0:
            out[name] = {"rows": int(sums["rows"].sum()), "given": 0.0}
            continue
        nll = sums["nll"].sum() / given.sum()
        # Of a ratio of sums over repetitions.
        spread = np.sqrt(np.sum((sums["nll"] - nll * given) ** 2)) / given.sum()
        out[name] = {
            "rows": int(sums["rows"].sum()),
            "given": given.sum() / sums["rows"].sum(),
            "nll": nll,
            "nll_se": spread if len(runs) > 1 else None,
            "rmse": np.sqrt(sums["square"].sum() / given.sum()),
            "inside": sums["inside"].sum() / given.sum(),
        }
    return out


def gaps(runs, other):
    """How much higher the NLL of a side is than that of another on the same splits."""
    n = min(len(runs), len(other))
    each = [
        runs[i]["all"]["nll"] / runs[i]["all"]["given"]
        - other[i]["all"]["nll"] / other[i]["all"]["given"]
        for i in range(n)
        if runs[i]["all"]["given"] == other[i]["all"]["given"] > 0
    ]
    if not each:
        return None
    error = np.std(each, ddof=1) / np.sqrt(len(each)) if len(each) > 1 else None
    return {"mean": np.mean(each), "se": error, "splits": len(each), "each": each}


def studied(name, repeats, num_nuts, num_warmup, has_peer):
    runs: dict[str, list] = {}
    facts: dict[str, list] = {}
    for repeat in range(repeats):
        split = SETS[name](np.random.default_rng([repeat, list(SETS).index(name)]))
        for side, predict in sides(repeat < num_nuts, num_warmup).items():
            if (side == MIXED and not has_peer) or (side == TRUTH and split.truth is None):
                continue
            begun = time.perf_counter()
            found, more = predict(split, jax.random.key(repeat))
            more |= {"seconds": time.perf_counter() - begun}
            runs.setdefault(side, []).append(scored(split, found))
            facts.setdefault(side, []).append(more)
        print(name, repeat + 1, "of", repeats, flush=True)
    return {
        side: {
            "splits": len(one),
            "by_known": summary(one),
            "nll_above_episodic": gaps(one, runs[EPISODIC]),
            "median_seconds": float(np.median([f["seconds"] for f in facts[side]])),
            "facts": facts[side],
        }
        for side, one in runs.items()
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--nuts", type=int, help="splits per set by NUTS (default: 2 or 10)"
    )
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    pk.enable_x64()
    facts = machine()
    try:
        import statsmodels

        peer = statsmodels.__version__
    except ImportError:
        peer = None
        print("statsmodels: not installed, so that `MixedLM` is left out")
    repeats = {"radon": 20, "96 groups": 20, "8 groups": 100}
    num_nuts = {"radon": 2, "96 groups": 2, "8 groups": 10}
    if args.nuts is not None:
        num_nuts = dict.fromkeys(repeats, args.nuts)
    warmup = 100 if args.quick else 500
    if args.quick:
        repeats, num_nuts = dict.fromkeys(repeats, 2), {"8 groups": 1}
    results = {
        name: studied(name, count, num_nuts.get(name, 0), warmup, peer is not None)
        for name, count in repeats.items()
    }
    header = ("set", "known of a group", "rows", "side", "predicted", "NLL", "se")
    numbers = ("given", "nll", "nll_se", "rmse", "inside")
    shown = [
        (
            name,
            known,
            one["rows"],
            side,
            *("" if one.get(k) is None else one[k] for k in numbers),
        )
        for name, result in results.items()
        for known in (*CLASSES, "all")
        for side, found in result.items()
        if (one := found["by_known"][known])["rows"]
    ]
    table((*header, "RMSE", f"in {LEVEL:.0%} interval"), shown)
    print()
    table(
        ("set", "side", "splits", "NLL above Episodic, all rows", "se"),
        [
            (name, side, gap["splits"], gap["mean"], "" if gap["se"] is None else gap["se"])
            for name, result in results.items()
            for side, found in result.items()
            if side != EPISODIC and (gap := found["nll_above_episodic"])
        ],
    )
    write(
        "meta_groups",
        {
            "machine": facts,
            "dtype": "float64",
            "statsmodels": peer,
            "repeats": repeats,
            "nuts": {"splits": num_nuts, "chains": 2, "warmup": warmup, "samples": warmup},
            "sets": results,
        },
        args.quick,
    )


if __name__ == "__main__":
    main()
