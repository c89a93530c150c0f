"""Functional Tucker models and rivals on air quality and land temperature.

    python benchmarks/funbat.py --data path/to/the/files

The folder has `beijing_daily.npz` and `us_temp.npz`; neither is part of probkit, and the
README beside this file says what they hold. All sides get the same rows in one run. Besides
the published random folds there are splits in which no row of the test set has a near copy
in the training set.
"""

import argparse
import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from funbat_sides import SIDES, Rows
from timing import machine, table, timed, write

import probkit as pk
from probkit.models import tucker

SETS = ("pm25", "pm10", "so2", "us_temp")
SPLITS = ("published", "distinct", "days", "stations")
HELD_OUT = 0.2
OURS = ("probkit", "probkit, logs", "probkit, modes only")
NEEDS = {"TensorLy": "tensorly", "extra": "sklearn", "random": "sklearn"}


# Functions of the weather and the day need not be smooth, as in the paper.
ROUGH = {name: tucker.Smooth(0.5) for name in ("temp", "pres", "day")}
METHOD = tucker.MessagePassing(
    num_starts=2, max_steps=60, atol=1.0, num_draws=100, num_warmup=50
)


def ours(entries: tucker.Entries, queries: tucker.Queries):
    """Draws of the surface at the queries, and of the sd of the noise."""
    names = [axis.name for axis in entries.axes]
    model = tucker.CP(2, modes={k: v for k, v in ROUGH.items() if k in names})
    key = jax.random.key(0)
    fitted = pk.fit(model, entries, METHOD, key=key, throw=False)
    drawn = pk.predict(fitted, queries, key=key)
    return drawn["surface"].values[0], fitted.posterior["noise_sd"].values[0]


# The tables.


def read(folder: Path, name: str):
    """All rows, the published folds, and how many rows of a fold are for training."""
    if name == "us_temp":
        found = np.load(folder / "us_temp.npz", allow_pickle=False)
        x = np.stack([found["lat"], found["lon_west"], found["year"]], 1).astype(float)
        place = np.unique(x[:, :2], axis=0, return_inverse=True)[1].reshape(-1)
        day, y = found["year"] - found["year"].min(), found["temp_f"].astype(float)
        folds, zero = found["folds"], None
    else:
        found = np.load(folder / "beijing_daily.npz", allow_pickle=False)
        temp, pres = (np.round(found[k], 1) for k in ("temp", "pres"))
        x = np.stack([temp, pres, found["day"].astype(float)], 1)
        place, day, y = found["station"], found["day"], found[name].astype(float)
        zero = -y.mean() / y.std(ddof=1)
        y = (y - y.mean()) / y.std(ddof=1)  # as published
        folds = found[f"folds_{name}"]
    rows = Rows(x, day.astype(int), place.astype(int), y, x.min(0), x.max(0), zero)
    return rows, folds.astype(int), int(found["n_train"])


def split(rows: Rows, folds, num_train: int, kind: str, fold: int):
    """Numbers of the training rows and of the test rows."""
    if kind == "published":
        return folds[fold][:num_train], folds[fold][num_train:]
    rng = np.random.default_rng(1000 + fold)
    if kind == "distinct":
        groups = np.unique(rows.x, axis=0, return_inverse=True)[1].reshape(-1)
    else:
        groups = rows.day if kind == "days" else rows.station
    names = rng.permutation(np.unique(groups))
    held = names[: max(1, round(HELD_OUT * len(names)))]
    test = np.isin(groups, held)
    return np.flatnonzero(~test), np.flatnonzero(test)


def some(rows: Rows, index, hide: bool) -> Rows:
    y = np.full(len(index), np.nan) if hide else rows.y[index]
    parts = (rows.x[index], rows.day[index], rows.station[index])
    return Rows(*parts, y, rows.low, rows.high, rows.zero)


def columns(rows: Rows, name: str):
    """What `tucker.Entries.from_table` takes: columns, and modes."""
    if name == "us_temp":
        found = {"lat": rows.x[:, 0], "lon_west": rows.x[:, 1], "year": rows.x[:, 2]}
        return found, {"place": ["lat", "lon_west"], "year": "year"}
    found = {"temp": rows.x[:, 0], "pres": rows.x[:, 1], "day": rows.x[:, 2]}
    found["station"] = np.char.add("station ", rows.station.astype(str))
    return found, {k: k for k in found}


# The sides.


def scored(mean, sd, y):
    """Errors, the mean negative log density of a normal prediction, and coverage."""
    z = (y - mean) / sd
    return {
        "rmse": float(np.sqrt(np.mean((y - mean) ** 2))),
        "mae": float(np.mean(np.abs(y - mean))),
        "nlpd": float(np.mean(z**2 / 2 + np.log(sd) + np.log(2 * np.pi) / 2)),
        "in_90": float(np.mean(np.abs(z) < 1.6448536269514722)),
    }


def by_probkit(train: Rows, test: Rows, name: str, side: str):
    """Scores are those of the draws: the mean density, and quantiles."""
    found, modes = columns(train, name)
    if side.endswith("modes only"):
        modes.pop("station", None)
    logs = side.endswith("logs")
    if logs and train.zero is None:
        return None
    values = np.log(train.y - train.zero) if logs else train.y
    entries = tucker.Entries.from_table(found | {"value": values}, modes, "value")
    f, noise = ours(entries, tucker.queries(entries, columns(test, name)[0]))
    noise = noise[:, None]
    rng = np.random.default_rng(0)
    new = f + noise * rng.normal(size=f.shape)
    new = np.exp(new) + train.zero if logs else new

    def of_draws(y):
        low, high = np.quantile(new, [0.05, 0.95], axis=0)
        value = np.log(y - train.zero) if logs else y
        log_p = -(((value - f) / noise) ** 2) / 2 - np.log(noise) - np.log(2 * np.pi) / 2
        slope = value if logs else 0.0  # log dy/dvalue
        nlpd = slope - np.logaddexp.reduce(log_p, axis=0) + np.log(len(f))
        return {"nlpd": float(nlpd.mean()), "in_90": float(np.mean((low < y) & (y < high)))}

    return new.mean(0), new.std(0), of_draws


def by_reference(train: Rows, test: Rows, args, name: str, kind: str):
    """The authors' code, with its noise alone as the sd, because it has no other."""
    center, scale = 0.0, 1.0
    if name == "us_temp" and kind == "Tucker":  # as in their script
        center, scale = train.y.mean(), train.y.std(ddof=1)
    task = {
        "reference": str(args.reference.resolve()),
        "model": kind,
        "rank": args.rank,
        "sweeps": args.sweeps,
        "config": "US_temp" if name == "us_temp" else f"beijing_{name.upper()}",
        "length": 1.0 if name == "us_temp" else 10.0,
        "x": train.scaled().tolist(),
        "y": ((train.y - center) / scale).tolist(),
        "new": test.scaled().tolist(),
    }
    done = subprocess.run(
        [args.peer_python, str(Path(__file__).with_name("funbat_reference.py"))],
        input=json.dumps(task),
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise RuntimeError(f"`funbat_reference.py` failed:\n{done.stderr[-3000:]}")
    found = json.loads(done.stdout.strip().splitlines()[-1])
    mean = center + scale * np.array(found["mean"])
    more = {
        "sweeps": len(found["seconds_per_sweep"]),
        "s_per_sweep": float(np.median(found["seconds_per_sweep"])),
    }
    return mean, np.full(len(mean), scale * found["noise_sd"]), more


def run(side, train: Rows, test: Rows, y):
    seconds, found = timed(lambda: side(train, test))
    if found is None:
        return None
    mean, sd, *more = found
    extra = (more[0](y) if callable(more[0]) else more[0]) if more else {}
    return scored(mean, sd, y) | seconds | extra


def chosen(side: str, args, name: str):
    """The function of a side."""
    if side in OURS:
        return lambda train, test: by_probkit(train, test, name, side)
    if side.startswith("authors"):
        kind = side.split()[-1]
        return lambda train, test: by_reference(train, test, args, name, kind)
    return SIDES[side]


def is_missing(name: str) -> bool:
    module = NEEDS.get(name.split()[0])
    return module is not None and importlib.util.find_spec(module) is None


# Smooth functions without noise, at points of one's own choice.


def _two(p):
    """The paper's surface of rank one."""
    s, t = p[..., 0], p[..., 1]
    wave = jnp.sin(2 * jnp.pi * s) ** 2 * jnp.cos(2 * jnp.pi * s)
    return wave * jnp.exp(-2 * t) * jnp.sin(1.5 * jnp.pi * t)


def _three(p):
    return 1 / (1 + jnp.sum(p**2, -1))


def _four(p):
    return jnp.exp(-p[..., 0] * p[..., 1]) * jnp.cos(2 * p[..., 2] + p[..., 3])


SMOOTH = {"surface": (_two, 2), "bump": (_three, 3), "wave": (_four, 4)}


def of_smooth_functions(quick: bool):
    rows = []
    rng = np.random.default_rng(0)
    for name, (function, d) in SMOOTH.items():
        points = jnp.asarray(rng.uniform(size=(2000, d)))
        exact = function(points)
        for nodes in (8, 12) if quick else (6, 8, 12, 16, 24):
            begun = time.perf_counter()
            value = tucker.chebyshev(function, [(0, 1)] * d, nodes, tol=1e-12)
            seconds = time.perf_counter() - begun
            error = jnp.sqrt(jnp.mean((value(points) - exact) ** 2) / jnp.var(exact))
            rows.append(
                {
                    "function": name,
                    "variables": d,
                    "nodes": nodes,
                    "evaluations": nodes**d,
                    "ranks": list(value.ranks),
                    "error": float(error),
                    "last": float(value.last.max()),
                    "wall_s": seconds,
                }
            )
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="the folder with the two files")
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=SETS)
    parser.add_argument("--splits", nargs="+", default=list(SPLITS), choices=SPLITS)
    parser.add_argument("--folds", type=int, default=5, choices=range(1, 6))
    parser.add_argument("--sides", nargs="+", help="by default all that can be run")
    parser.add_argument("--reference", type=Path, help="the folder of the authors' code")
    parser.add_argument("--peer-python", default=sys.executable, help="with torch")
    parser.add_argument("--rank", type=int, default=2, help="of the authors' code")
    parser.add_argument("--sweeps", type=int, help="of their code; by default theirs")
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    if args.data is None or not (args.data / "beijing_daily.npz").exists():
        parser.error(
            "the data are not part of probkit; give the folder of `beijing_daily.npz` and "
            "`us_temp.npz` as --data. README.md says what they hold."
        )
    known = [*OURS, *SIDES]
    if args.reference is not None:
        known += [f"authors, {kind}" for kind in ("CP", "Tucker")]
    args.sides = args.sides or known
    unknown = [name for name in args.sides if name not in known]
    if unknown:
        parser.error(f"--sides has {unknown[0]!r}; there are {', '.join(known)}.")
    if args.quick:
        args.sets, args.folds, args.splits = args.sets[:1], 1, args.splits[:2]
    pk.enable_x64()
    jax.block_until_ready(jnp.zeros(()))
    facts, rows = machine(), []
    for name in args.sets:
        everything, folds, num_train = read(args.data, name)
        for kind in args.splits:
            for fold in range(args.folds):
                kept, held = split(everything, folds, num_train, kind, fold)
                train, test = some(everything, kept, False), some(everything, held, True)
                for side in args.sides:
                    row = {"set": name, "split": kind, "fold": fold, "side": side}
                    row |= {"n_train": len(kept), "n_test": len(held)}
                    if is_missing(side):
                        row["state"] = "not installed"
                    else:
                        found = run(
                            chosen(side, args, name), train, test, everything.y[held]
                        )
                        row |= {"state": "not run"} if found is None else found
                    rows.append(row)
                    print(
                        *(f"{v:.4g}" if isinstance(v, float) else v for v in row.values())
                    )
    header = ("set", "split", "side", "RMSE", "MAE", "NLPD", "in 90 %", "s")
    show(header, rows)
    smooth = of_smooth_functions(args.quick)
    print()
    keys = ("function", "variables", "nodes", "evaluations", "error", "wall_s")
    table((*keys[:4], "error / sd", "s"), [tuple(r[k] for k in keys) for r in smooth])
    whole = set(args.sets) == set(SETS) and set(args.splits) == set(SPLITS)
    whole = whole and args.folds == 5 and {*OURS, *SIDES} <= set(args.sides)
    result = {"machine": facts, "dtype": "float64", "rows": rows, "smooth": smooth}
    write("funbat", result, args.quick or not whole)


def show(header, rows) -> None:
    shown = []
    for name, kind, side in dict.fromkeys((r["set"], r["split"], r["side"]) for r in rows):
        these = [r for r in rows if (r["set"], r["split"], r["side"]) == (name, kind, side)]
        if "state" in these[0]:
            shown.append((name, kind, side, these[0]["state"], *[""] * 4))
            continue
        keys = ("rmse", "mae", "nlpd", "in_90", "wall_s")
        means = [float(np.mean([r[k] for r in these])) for k in keys]
        spread = np.std([r["rmse"] for r in these])
        shown.append((name, kind, side, f"{means[0]:.4f} +- {spread:.4f}", *means[1:]))
    table(header, shown)


if __name__ == "__main__":
    main()
