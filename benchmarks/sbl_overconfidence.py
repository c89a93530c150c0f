"""How overconfident type-II estimation is: how often 90 % intervals contain the truth.

Sparse coefficients on a product support, with two modes and estimated noise. `sbl.TypeII`
treats the best hyperparameters as if they were known, and prunes. With `num_draws` it draws
supports and variances around them: `drawn` are the intervals of the coefficients,
`unshrunk` those with a flat prior on the coefficient in question. NUTS averages over the
hyperparameters, and does not prune. All get the same data. On the support the coefficients
are normal, so that some are smaller than the noise. Off the support they are zero. `oracle`
knows the support, the variances and the noise: no intervals of this length hold more.
"""

import argparse

import jax
import numpy as np
import numpyro
from scipy import stats
from timing import machine, table, write

import probkit as pk
from probkit.models import sbl

numpyro.set_host_device_count(2)  # before the first computation
MODEL = sbl.KroneckerSBL()
SIZES = ((8, 12), (10, 12))  # rows and atoms of each mode
KEPT = 3  # atoms of each mode in the support
NOISE_SDS = (0.1, 0.2)  # columns have length one, coefficients sd one
LEVEL, NUM_DRAWS = 0.9, 200


def simulate(seed: int, noise_sd: float) -> tuple[sbl.Measurements, np.ndarray, np.ndarray]:
    """Data, the true coefficients, and which of them are in the support."""
    rng = np.random.default_rng(seed)
    matrices = [rng.normal(size=size) for size in SIZES]
    first, second = (a / np.linalg.norm(a, axis=0) for a in matrices)
    inside = np.zeros([atoms for _, atoms in SIZES], bool)
    inside[np.ix_(*(rng.choice(atoms, KEPT, replace=False) for _, atoms in SIZES))] = True
    x = np.where(inside, rng.normal(size=inside.shape), 0.0)
    clean = first @ x @ second.T
    y = clean + noise_sd * rng.normal(size=clean.shape)
    return sbl.Measurements(y, [first, second]), x, inside


def by_type_ii(data, key, method) -> tuple[np.ndarray, np.ndarray, bool]:
    """Lower and upper end of each interval, and whether all checks passed."""
    fitted = pk.fit(MODEL, data, method, key=key, progress=False, throw=False)
    post = MODEL.posterior(fitted.sites(), data)
    half = stats.norm.ppf(0.5 + LEVEL / 2) * np.sqrt(post.variances())
    mean = np.asarray(post.mean())
    return mean - half, mean + half, pk.diagnose(fitted).ok


def from_draws(fitted, key, name) -> tuple[np.ndarray, np.ndarray]:
    drawn = pk.recover(fitted, key=key)[name]
    low, high = drawn.quantile([0.5 - LEVEL / 2, 0.5 + LEVEL / 2], ("chain", "draw")).values
    return low, high


def by_draws(data, key, method) -> tuple[np.ndarray, np.ndarray, bool]:
    """The same from draws of supports and variances."""
    fitted = pk.fit(MODEL, data, method, key=key, progress=False, throw=False)
    return *from_draws(fitted, key, "coefficient"), pk.diagnose(fitted).ok


def unshrunk(data, key, method) -> tuple[np.ndarray, np.ndarray, bool]:
    fitted = pk.fit(MODEL, data, method, key=key, progress=False, throw=False)
    return *from_draws(fitted, key, "coefficient_unshrunk"), pk.diagnose(fitted).ok


def by_nuts(data, key, method) -> tuple[np.ndarray, np.ndarray, bool]:
    """From draws of all scales. Here the check is that the chains agree."""
    key_fit, key_draw = jax.random.split(key)
    fitted = pk.fit(MODEL, data, method, key=key_fit, progress=False, throw=False)
    rhat = pk.diagnose(fitted)["R-hat of the log density"].value
    return *from_draws(fitted, key_draw, "coefficient"), rhat < 1.05


def by_the_truth(data, x, inside, noise_sd) -> tuple[np.ndarray, np.ndarray, bool]:
    """The posterior given the support, the variances of one, and the noise."""
    first, second = (np.asarray(a) for a in data.dictionaries)
    rows, columns = inside.any(1), inside.any(0)
    atoms = np.kron(first[:, rows], second[:, columns])
    covariance = np.linalg.inv(np.eye(atoms.shape[1]) + atoms.T @ atoms / noise_sd**2)
    mean = covariance @ atoms.T @ np.ravel(data.y) / noise_sd**2
    half = stats.norm.ppf(0.5 + LEVEL / 2) * np.sqrt(np.diag(covariance))
    low, high = np.zeros(x.shape), np.zeros(x.shape)
    low[inside], high[inside] = mean - half, mean + half
    return low, high, True


def summary(rounds: list[dict]) -> dict[str, dict[str, float]]:
    """Coverage over all rounds, with two standard errors.

    `binomial_se` treats the coefficients as independent. `se` comes from the spread between
    data sets, and allows for misses that occur together.
    """
    out = {}
    for where in rounds[0]["counts"] if rounds else ():
        hits = np.array([r["counts"][where]["hits"] for r in rounds], float)
        of = np.array([r["counts"][where]["of"] for r in rounds], float)
        if of.sum() == 0:
            continue
        share = hits.sum() / of.sum()
        spread = np.sqrt(np.sum((hits - share * of) ** 2))
        out[where] = {
            "coverage": share,
            "binomial_se": np.sqrt(share * (1 - share) / of.sum()),
            "se": spread / of.sum(),
            "coefficients": int(of.sum()),
        }
    return out


def counted(low, high, x, inside) -> dict[str, dict[str, int]]:
    covered = (low <= x) & (x <= high)
    groups = {
        "on the support": inside,
        "on it, kept": inside & (high > low),
        "off it": ~inside,
        "off it, kept": ~inside & (high > low),
    }
    return {
        name: {"hits": int(covered[group].sum()), "of": int(group.sum())}
        for name, group in groups.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="8 data sets, 2 by NUTS")
    parser.add_argument("--datasets", type=int, help="number of data sets (default: 100)")
    parser.add_argument("--nuts", type=int, help="how many of them by NUTS (default: 20)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    pk.enable_x64()
    number = args.datasets or (8 if args.quick else 100)
    few = args.nuts if args.nuts is not None else (2 if args.quick else 20)
    nuts = pk.NUTS(num_chains=2, num_warmup=300, num_samples=300)
    averaged = sbl.TypeII(num_draws=NUM_DRAWS)
    sides = {
        "oracle": (None, None, number),
        "TypeII": (by_type_ii, sbl.TypeII(), number),
        "TypeII, drawn": (by_draws, averaged, number),
        "TypeII, unshrunk": (unshrunk, averaged, number),
        "TypeII, unpruned": (by_type_ii, sbl.TypeII(prune=None), number),
        "NUTS": (by_nuts, nuts, few),
    }
    where, results = machine(), {}
    for noise_sd in NOISE_SDS:
        for name, (intervals, method, count) in sides.items():
            rounds = []
            for i in range(count):
                data, x, inside = simulate(args.seed + i, noise_sd)
                if intervals is None:
                    low, high, ok = by_the_truth(data, x, inside, noise_sd)
                else:
                    low, high, ok = intervals(data, jax.random.key(i), method)
                counts = counted(low, high, x, inside)
                rounds.append({"ok": bool(ok), "counts": counts})
            side = {
                "noise_sd": noise_sd,
                "datasets": count,
                "share_ok": np.mean([r["ok"] for r in rounds]) if rounds else None,
                "coverage": summary(rounds),
                # For a fair comparison: only the data sets that NUTS had too.
                "on_those_of_nuts": summary(rounds[:few]),
                "rounds": rounds,
            }
            results[f"{name}, noise {noise_sd}"] = side
            print(f"{name}, noise {noise_sd}: done", flush=True)
    table(
        ("method", "data sets", "coefficients", "number", "coverage", "binomial se", "se"),
        [
            (
                name,
                r["datasets"],
                place,
                s["coefficients"],
                s["coverage"],
                s["binomial_se"],
                s["se"],
            )
            for name, r in results.items()
            for place, s in r["coverage"].items()
        ],
    )
    write(
        "sbl_overconfidence",
        {
            "machine": where,
            "dtype": "float64",
            "sizes": SIZES,
            "support": [KEPT, KEPT],
            "level": LEVEL,
            "chains": nuts.num_chains,
            "steps": [nuts.num_warmup, nuts.num_samples],
            "seed": args.seed,
            "methods": results,
        },
        args.quick,
    )


if __name__ == "__main__":
    main()
