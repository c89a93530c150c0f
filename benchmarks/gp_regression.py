"""Extrapolation of series with a trend and a season, by three libraries.

Real series: atmospheric CO2 at Mauna Loa by month, and the logarithm of airline
passengers, both cut at several origins. Simulated ones of the same kinds, from processes
that are none of the models. Each method gets the past and predicts what follows; it is
scored by its negative log predictive density per held-out value (NLPD, in nats, of
standardised y), and by the share of held-out values in its 90 % bands.

    python benchmarks/gp_regression.py --peer-python /path/to/python
    python benchmarks/gp_regression.py --peer-python /path/to/python --bands

The peer's environment needs gpytorch, statsmodels and pmdarima. Without it, only simulated
series are used, and GPyTorch is left out.
"""

import argparse
import json
import subprocess
import time
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats
from timing import machine, table, write

import probkit as pk
from probkit.models import gp

HERE = Path(__file__).parent
HORIZON = {"co2": 36, "airline": 24, "like co2": 36, "like airline": 36}
# Months of the past that a method gets.
PAST = {"co2": 240, "airline": 144, "like co2": 240, "like airline": 120}
ORIGINS = {"co2": range(168, 480, 36), "airline": range(72, 121, 12)}
KERNELS = {
    "probkit, waves": lambda: gp.SpectralMixture(),
    "probkit, waves and drift": lambda: gp.Linear() + gp.Drift() + gp.SpectralMixture(),
    "probkit, season and drift": lambda: (
        gp.Linear() + gp.Drift() + gp.Periodic() * gp.Matern() + gp.Matern(0.5)
    ),
}
COMPONENTS, STARTS, STEPS = 4, 4, 300


def like_co2(rng, n):
    """A slope that wanders, a season of two waves that change slowly, weather, noise."""
    t = np.arange(n) / 12
    slope = 1.5 + np.cumsum(0.05 * rng.normal(size=n))
    season = sum(
        a * np.cos(2 * np.pi * k * t + np.cumsum(0.02 * rng.normal(size=n)) + k)
        for k, a in ((1, 2.5), (2, 0.7))
    )
    weather = np.zeros(n)
    for i in range(1, n):
        weather[i] = 0.7 * weather[i - 1] + 0.2 * rng.normal()
    return 330 + np.cumsum(slope) / 12 + season + weather + 0.15 * rng.normal(size=n)


def like_airline(rng, n):
    """Harvey's basic structural model: level, slope and twelve seasons all wander."""
    level, slope, seasons = 5.0, 0.01, list(0.12 * rng.normal(size=11))
    y = []
    for _ in range(n):
        level += slope + 0.02 * rng.normal()
        slope += 0.0005 * rng.normal()
        seasons.insert(0, -sum(seasons[:11]) + 0.005 * rng.normal())
        y.append(level + seasons[0] + 0.02 * rng.normal())
    return np.array(y)


def tasks(real, seeds):
    """Name, past and what follows, of every series and origin."""
    for name, given in real.items():
        t, y = np.array(given["t"]), np.array(given["y"])
        for origin in ORIGINS[name]:
            yield name, t, y, origin
    for name, simulate in (("like co2", like_co2), ("like airline", like_airline)):
        for seed in range(seeds):
            n = PAST[name] + HORIZON[name]
            y = simulate(np.random.default_rng(seed), n)
            yield name, np.arange(n) / 12, y, PAST[name]


def cut(name, t, y, origin):
    past = slice(max(0, origin - PAST[name]), origin)
    ahead = slice(origin, origin + HORIZON[name])
    return t[past], y[past], t[ahead], y[ahead]


def scored(mean, sd, y, scale):
    """NLPD and coverage of an even mixture of normals, `(draw, place)`."""
    mean, sd = np.atleast_2d(mean), np.atleast_2d(sd)
    logs = stats.norm.logpdf(y, mean, sd)
    nlpd = -(np.logaddexp.reduce(logs, 0) - np.log(len(logs))) - np.log(scale)
    below = stats.norm.cdf(y, mean, sd).mean(0)
    return {
        "nlpd": float(nlpd.mean()),
        "inside": float(((below > 0.05) & (below < 0.95)).mean()),
        "rmse": float(np.sqrt(np.mean((mean.mean(0) - y) ** 2)) / scale),
    }


def by_probkit(kernel, method, past, ahead):
    return fitted_by_probkit(kernel, method, past, ahead)[1]


def fitted_by_probkit(kernel, method, past, ahead, start=None):
    t, y, new, values = past + ahead
    begun = time.perf_counter()
    data, key = gp.Observed(t, y), jax.random.key(0)
    model = gp.Regression(kernel)
    fit = pk.fit(model, data, method, key=key, start=start, throw=False)
    found = pk.predict(fit, new, key=key)
    noise = fit.posterior["noise_sd"].values[..., None]
    mean, sd = found["mean"].values, np.sqrt(found["sd"].values ** 2 + noise**2)
    seconds = time.perf_counter() - begun
    mean, sd = (a.reshape(-1, len(new)) for a in (mean, sd))
    failed = [check.name for check in pk.diagnose(fit) if not check.ok]
    scores = scored(mean, sd, values, y.std())
    return fit, scores | {"seconds": seconds, "failed": failed}


def by_gpjax(past, ahead):
    """An RBF kernel and a constant, from GPJax's own start, for standardised values."""
    import gpjax as gpx

    t, y, new, values = past + ahead
    begun = time.perf_counter()
    center, scale = y.mean(), y.std()
    data = gpx.Dataset(
        X=jnp.asarray(t - t[0])[:, None], y=jnp.asarray((y - center) / scale)[:, None]
    )
    prior = gpx.Prior(kernel=gpx.kernels.RBF(), mean_function=gpx.mean_functions.Constant())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit, _ = gpx.fit_scipy(
            model=prior * gpx.likelihoods.Gaussian(),
            objective=lambda m, d: -gpx.objectives.conjugate_mll(m, d),
            train_data=data,
            verbose=False,
        )
    latent = (fit | data)(jnp.asarray(new - t[0])[:, None])
    predicted = fit.likelihood(latent)
    mean = center + scale * np.asarray(predicted.mean).ravel()
    sd = scale * np.sqrt(np.diag(np.asarray(predicted.covariance_matrix)))
    return scored(mean, sd, values, scale) | {"seconds": time.perf_counter() - begun}


def by_gpytorch(python, initialise, cuts):
    request = [
        {
            "t": (t - t[0]).tolist(),
            "y": y.tolist(),
            "new": (new - t[0]).tolist(),
            "components": COMPONENTS,
            "initialise": initialise,
            "starts": STARTS if initialise == "initialize_from_data" else 1,
            "steps": STEPS,
        }
        for t, y, new, _ in cuts
    ]
    answers = peer(python, "fit", json.dumps(request))
    for (_, y, _, values), answer in zip(cuts, answers, strict=True):
        if answer is None:
            yield None
            continue
        yield {
            which: scored(answer[which]["mean"], answer[which]["sd"], values, y.std())
            | {"seconds": answer["seconds"]}
            for which in ("first", "best")
        }


def bands(python, facts, quick):
    """One kernel by MAP, and by NUTS that begins there, on three cuts of real series."""
    kernel = KERNELS["probkit, waves and drift"]
    nuts = pk.NUTS(num_chains=2, num_warmup=400, num_samples=300)
    rows = []
    real = peer(python, "series")
    chosen = {"airline": (96, 120), "co2": (420,)}
    for name, origins in chosen.items():
        t, y = np.array(real[name]["t"]), np.array(real[name]["y"])
        for origin in origins[:1] if quick else origins:
            past_t, past_y, new, values = cut(name, t, y, origin)
            pairs = (past_t, past_y), (new, values)
            first, found = fitted_by_probkit(kernel(), pk.MAP(num_draws=100), *pairs)
            _, other = fitted_by_probkit(kernel(), nuts, *pairs, start=first)
            for method, scores in (("MAP", found), ("NUTS", other)):
                where = {"series": name, "from": float(new[0]), "method": method}
                rows.append(where | scores)
                print(where | scores, flush=True)
    header = ("series", "from", "method", "NLPD", "in 90 % band", "s")
    keys = ("series", "from", "method", "nlpd", "inside", "seconds")
    table(header, [tuple(row[k] for k in keys) for row in rows])
    write("gp_bands", {"machine": facts, "dtype": "float64", "cuts": rows}, quick)


def peer(python, what, given=""):
    script = str(HERE / "gp_gpytorch.py")
    done = subprocess.run(
        [python, script, what], input=given, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.strip().splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer-python", help="a Python with gpytorch")
    parser.add_argument("--seeds", type=int, default=4, help="simulated series per kind")
    parser.add_argument("--nuts", action="store_true", help="NUTS as well, for hours")
    parser.add_argument("--bands", action="store_true", help="MAP and NUTS on three cuts")
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    if args.bands and args.peer_python is None:
        parser.error("`--bands` needs the real series: give `--peer-python`")
    pk.enable_x64()
    facts = machine()
    if args.bands:
        return bands(args.peer_python, facts, args.quick)

    real = peer(args.peer_python, "series") if args.peer_python else {}
    every = list(tasks(real, 1 if args.quick else args.seeds))
    if args.quick:
        every = [
            one for i, one in enumerate(every) if one[0] not in [e[0] for e in every[:i]]
        ]
    names, cuts = [name for name, *_ in every], [cut(*one) for one in every]
    rows = [
        {"series": n, "past": len(c[0]), "from": float(c[2][0])}
        for n, c in zip(names, cuts, strict=True)
    ]
    for row, (t, y, new, values) in zip(rows, cuts, strict=True):
        row["GPJax, RBF"] = by_gpjax((t, y), (new, values))
        for name, kernel in KERNELS.items():
            map_method = pk.MAP(num_draws=100)
            row[name] = by_probkit(kernel(), map_method, (t, y), (new, values))
            if args.nuts and name != "probkit, waves":
                nuts = pk.NUTS(num_chains=2, num_warmup=300, num_samples=100)
                found = by_probkit(kernel(), nuts, (t, y), (new, values))
                row[name.replace("probkit", "probkit by NUTS")] = found
        shown = {k: (v["nlpd"], v["inside"]) for k, v in row.items() if isinstance(v, dict)}
        print(
            row["series"],
            round(row["from"], 2),
            {k: tuple(round(a, 2) for a in v) for k, v in shown.items()},
            flush=True,
        )
    if args.peer_python:
        for kind, initialise in (
            ("random", "initialize_from_data"),
            ("spectrum", "initialize_from_data_empspect"),
        ):
            for row, found in zip(
                rows, by_gpytorch(args.peer_python, initialise, cuts), strict=True
            ):
                if kind == "random":
                    row["GPyTorch, one start"] = found and found["first"]
                    row[f"GPyTorch, best of {STARTS}"] = found and found["best"]
                else:
                    row["GPyTorch, from the spectrum"] = found and found["first"]
    methods = [k for k in rows[0] if k not in ("series", "past", "from")]
    summary = []
    for kind in dict.fromkeys(names):
        for method in methods:
            found = [r[method] for r in rows if r["series"] == kind and r[method]]
            if found:
                medians = [
                    float(np.median([f[k] for f in found]))
                    for k in ("nlpd", "rmse", "seconds")
                ]
                means = [float(np.mean([f[k] for f in found])) for k in ("nlpd", "inside")]
                summary.append((kind, method, len(found), *means, *medians))
    header = (
        "series",
        "method",
        "cuts",
        "NLPD",
        "in 90 % band",
        "NLPD, median",
        "RMSE, median",
        "s, median",
    )
    table(header, summary)
    result = {
        "machine": facts,
        "dtype": "float64",
        "components": COMPONENTS,
        "starts": STARTS,
        "steps": STEPS,
        "summary": [dict(zip(header, row, strict=True)) for row in summary],
        "cuts": rows,
    }
    write("gp_regression", result, args.quick)


if __name__ == "__main__":
    main()
