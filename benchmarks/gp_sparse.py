"""Sparse weights on a grid of frequencies: errors on held-out values, and weights kept.

Eight series of the papers on grid spectral mixtures (Yin et al. 2020; Suwandi et al. 2023)
in the files of the second paper's authors, `github.com/richardcsuwandi/distributed-gsm`.
Each method gets the training values and predicts the 20 that follow (21 for CO2), as their
program does. Without the files, simulated series of two kinds are used.

    python benchmarks/gp_sparse.py --data path/to/distributed-gsm/data

Reading the files needs SciPy only.
"""

import argparse
import time
from pathlib import Path

import jax
import numpy as np
from gp_regression import like_airline, like_co2, scored
from timing import machine, table, write

import probkit as pk
from probkit.models import gp

FILES = {
    "ECG": "ECG_signal",
    "CO2": "CO2",
    "electricity": "electricitydata",
    "employment": "employmentdata",
    "hotel": "hoteldata",
    "passenger": "passengerdata",
    "unemployment": "unemployment",
    "clay": "clay",
}
# Mean squared errors that the authors' repository keeps of its own runs on one machine
# (`fig/d2sca/<file>_rho1e-10_maxiter100_N1.mat`): 500 frequencies, noise fixed beforehand.
THEIRS = {
    "ECG": 0.0118,
    "CO2": 0.451,
    "electricity": 4035.0,
    "employment": 71.8,
    "hotel": 402.0,
    "passenger": 142.0,
    "unemployment": 2248.0,
    "clay": 86.1,
}
HORIZON = 20
LINE = "line, drift and "
METHODS = {
    "grid": (gp.SpectralGrid, gp.SparseWeights()),
    "grid, none taken out": (gp.SpectralGrid, gp.SparseWeights(prune=None)),
    LINE + "grid": (
        lambda: gp.Linear() + gp.Drift() + gp.SpectralGrid(),
        gp.SparseWeights(),
    ),
    "waves": (gp.SpectralMixture, pk.MAP(num_draws=100)),
    LINE + "waves": (
        lambda: gp.Linear() + gp.Drift() + gp.SpectralMixture(),
        pk.MAP(num_draws=100),
    ),
}


def of_file(folder, name):
    from scipy.io import loadmat

    found = loadmat(folder / f"{FILES[name]}.mat")
    names = ("xtrain", "ytrain", "xtest", "ytest")
    x, y, new, values = (found[k].astype(float).ravel() for k in names)
    if name == "CO2":  # their program moves the last value to the others
        x, y, new, values = x[:480], y[:480], np.r_[x[480], new], np.r_[y[480], values]
        return x, y, new[: HORIZON + 1], values[: HORIZON + 1]
    return x, y, new[:HORIZON], values[:HORIZON]


def simulated():
    for name, simulate in (("like co2", like_co2), ("like airline", like_airline)):
        y = simulate(np.random.default_rng(0), 260)
        t = np.arange(260.0)
        yield name, (t[:240], y[:240], t[240:], y[240:])


def by_probkit(kernel, method, x, y, new, values):
    begun = time.perf_counter()
    key = jax.random.key(0)
    fit = pk.fit(gp.Regression(kernel), gp.Observed(x, y), method, key=key, throw=False)
    found = pk.predict(fit, new, key=key)
    noise = fit.posterior["noise_sd"].values[..., None]
    mean, sd = found["mean"].values, np.sqrt(found["sd"].values ** 2 + noise**2)
    mean, sd = (a.reshape(-1, len(new)) for a in (mean, sd))
    failed = [check.name for check in pk.diagnose(fit) if not check.ok]
    weights = {k: fit.facts[k] for k in ("num_weights", "num_possible") if k in fit.facts}
    return (
        scored(mean, sd, values, y.std())
        | {
            "mse": float(np.mean((mean.mean(0) - values) ** 2)),
            "seconds": time.perf_counter() - begun,
            "result": fit.result,
            "failed": failed,
            "steps": int(fit.tree["trace"]["steps"].sum()),
        }
        | weights
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="the folder of the authors' files")
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    pk.enable_x64()
    facts = machine()
    if args.data is None:
        series = dict(simulated())
    else:
        names = ["electricity", "hotel"] if args.quick else list(FILES)
        series = {name: of_file(args.data, name) for name in names}
    rows = []
    for name, (x, y, new, values) in series.items():
        for method, (kernel, how) in METHODS.items():
            found = by_probkit(kernel(), how, x, y, new, values)
            rows.append({"series": name, "n": len(x), "method": method, **found})
            kept = found.get("num_weights", "")
            print(name, method, f"{found['mse']:.4g}", kept, flush=True)
    header = ("series", "n", "method", "MSE", "in 90 % band", "weights kept", "s")
    shown = [
        (
            *(row[k] for k in ("series", "n", "method", "mse", "inside")),
            f"{row['num_weights']} of {row['num_possible']}"
            if "num_weights" in row
            else "",
            row["seconds"],
        )
        for row in rows
    ]
    table(header, shown)
    write(
        "gp_sparse",
        {
            "machine": facts,
            "dtype": "float64",
            "horizon": HORIZON,
            "mse_of_the_authors": THEIRS if args.data is not None else {},
            "rows": rows,
        },
        args.quick or args.data is None,
    )


if __name__ == "__main__":
    main()
