"""Functional Tucker models and rivals on air quality, land temperature and a simulation.

    python benchmarks/funbat.py --data path/to/the/files

The folder has `beijing_daily.npz` and `us_temp.npz`; neither is part of probkit, and the
README beside this file says what they hold. All sides get the same rows in one run. Besides
the published random folds there are splits in which no row of the test set has a near copy
in the training set. Rows are written as they come, and a run that was cut off goes on.
"""

import argparse
import functools
import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from funbat_sides import SIDES
from timing import RESULTS, machine, table, timed, write

import probkit as pk
from probkit.models import tucker
from probkit.models.tucker.funbat import fits
from probkit.models.tucker.funbat.data import (
    AIR,
    SIMULATED,
    SPLITS,
    Rows,
    is_missing,
    read,
    surface,
)
from probkit.record import write_atomically

SETS = (*SIMULATED, *AIR, "us_temp")
OURS = ("probkit", "probkit, modes only")
NEEDS = {"TensorLy": "tensorly", "extra": "sklearn"}
# Sides that take minutes, which run on the first published fold alone.
SLOW = ("GPJax", "authors")
# What a table of two modes and no station has no use for.
SIMPLE = ("probkit", "mean", "extra trees, modes only", "GPJax")


# The sides.


def errors(center, y):
    return {
        "rmse": float(np.sqrt(np.mean((y - center) ** 2))),
        "mae": float(np.mean(np.abs(y - center))),
    }


def of_normal(center, sd, y):
    """The mean negative log density of a normal prediction, and coverage."""
    z = (y - center) / sd
    return {
        "nlpd": float(np.mean(z**2 / 2 + np.log(sd) + np.log(2 * np.pi) / 2)),
        "in_90": float(np.mean(np.abs(z) < 1.6448536269514722)),
    }


power_of = functools.lru_cache(maxsize=1)(fits.power_of)  # two sides ask for it


def by_probkit(train: Rows, test: Rows, side: str):
    """Scores are those of the mixture of the draws."""
    power, station = power_of(train), not side.endswith("modes only")
    found = fits.predicted(train, test, power, station=station)
    facts = {k: float(found.facts[k]) for k in ("elbo", "effective_draws")}
    return found.center(), lambda y: found.scores(y) | {"power": power} | facts


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


def seconds_per_sweep(args, name: str) -> dict[str, float]:
    """Ours at the rank of the authors' code: long runs less short ones, compiled before."""
    train = read(args.data, name).rows.take(read(args.data, name).split("published", 0)[0])
    data, _ = fits.entries_of(train, fits.Scale.of(train, power_of(train)))
    model = tucker.CP(args.rank, modes=fits.ROUGH, observation=tucker.StudentT())
    seconds = {}
    for sweeps in 2 * (10, 40):  # the first two runs compile
        how = {"draws": "approximation", "num_draws": 1, "num_starts": 1}
        method = tucker.MessagePassing(max_steps=sweeps, **how)
        fit = functools.partial(pk.fit, model, data, method, key=jax.random.key(0))
        seconds[sweeps], _ = timed(lambda fit=fit: fit(throw=False, progress=False))
    return {k: (v - seconds[10][k]) / 30 for k, v in seconds[40].items()}


def run(side, train: Rows, test: Rows, y, truth):
    """The scores of one side; the errors of a simulation are from its surface."""
    seconds, (center, spread, *more) = timed(lambda: side(train, test))
    found = errors(center, y if truth is None else truth)
    found |= spread(y) if callable(spread) else of_normal(center, spread, y)
    return found | seconds | (more[0] if more else {})


def chosen(side: str, args, name: str):
    """The function of a side."""
    if side in OURS:
        return lambda train, test: by_probkit(train, test, side)
    if side.startswith("authors"):
        kind = side.split()[-1]
        return lambda train, test: by_reference(train, test, args, name, kind)
    return SIDES[side]


def is_absent(side: str) -> bool:
    module = NEEDS.get(side.split()[0])
    return module is not None and importlib.util.find_spec(module) is None


def is_asked(side: str, name: str, kind: str, fold: int) -> bool:
    """Whether a side has a row on this fold."""
    if side.startswith(SLOW) and (kind != "published" or fold > 0):
        return False
    if name == "us_temp" and kind in ("days", "stations"):  # as large as all else
        return False
    if name in SIMULATED:
        return side.startswith(SIMPLE) and side != "probkit, modes only"
    # Without the station as a mode: as the paper has it, and for stations never seen.
    fits_modes = name in AIR and kind in ("published", "stations")
    return side != "probkit, modes only" or fits_modes


# Smooth functions without noise, at points of one's own choice.


def _two(p):
    return surface(p[..., 0], p[..., 1], jnp)


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


class Rowed:
    """The rows of a run, written as they come, so that one that is cut off can go on.

    It does not go on with rows of code that was changed since the last commit, or of other
    settings.

    Attributes:
        rows: those that are done.
    """

    def __init__(self, quick: bool, settings: dict):
        self.path = RESULTS / f"funbat{'_quick' if quick else ''}_unfinished.json"
        self.settings = settings
        self.rows: list[dict] = []
        if self.path.exists():
            earlier = json.loads(self.path.read_text())
            if earlier["settings"] == settings and not settings["commit"].endswith("+"):
                self.rows = earlier["rows"]
                print(f"goes on after {len(self.rows)} rows of {self.path.name}")

    def has(self, row: dict) -> bool:
        return any(row.items() <= one.items() for one in self.rows)

    def add(self, row: dict) -> None:
        self.rows.append(row)
        found = {"settings": self.settings, "rows": self.rows}
        text = json.dumps(found, indent=1, default=float).encode()
        RESULTS.mkdir(exist_ok=True)
        write_atomically(self.path, lambda file: file.write(text))


def settings_of(args, facts) -> dict:
    """What must be the same for a run to go on."""
    kept = {"commit": facts["commit"], "data": str(args.data), "rank": args.rank}
    return kept | {"sweeps": args.sweeps, "reference": str(args.reference)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="the folder with the two files")
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=SETS)
    parser.add_argument("--splits", nargs="+", default=list(SPLITS), choices=SPLITS)
    parser.add_argument("--folds", type=int, default=5, choices=range(1, 6))
    parser.add_argument(
        "--other-folds",
        type=int,
        default=1,
        choices=range(1, 6),
        help="of the simulations, of us_temp, and of the splits that are not published",
    )
    parser.add_argument("--sides", nargs="+", help="by default all that can be run")
    parser.add_argument("--reference", type=Path, help="the folder of the authors' code")
    parser.add_argument("--peer-python", default=sys.executable, help="with torch")
    parser.add_argument("--rank", type=int, default=2, help="of the authors' code")
    parser.add_argument("--sweeps", type=int, help="of their code; by default theirs")
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    missing = [name for name in args.sets if is_missing(args.data, name)]
    if missing:
        parser.error(
            f"{', '.join(missing)}: the data are not part of probkit; give the folder of "
            "`beijing_daily.npz` and `us_temp.npz` as --data. README.md describes them."
        )
    known = [*OURS, *SIDES]
    if args.reference is not None:
        known += [f"authors, {kind}" for kind in ("CP", "Tucker")]
    asked = args.sides or known
    unknown = [name for name in asked if name not in known]
    if unknown:
        parser.error(f"--sides has {unknown[0]!r}; there are {', '.join(known)}.")
    if args.quick:
        args.sets, args.folds, args.splits = args.sets[:1], 1, args.splits[:2]
    pk.enable_x64()
    jax.block_until_ready(jnp.zeros(()))
    facts = machine()
    rowed = Rowed(args.quick, settings_of(args, facts))
    for name in args.sets:
        every = read(args.data, name)
        for kind in args.splits[:1] if name in SIMULATED else args.splits:
            first = kind == "published" and name in AIR
            for fold in range(args.folds if first else args.other_folds):
                kept, held = every.split(kind, fold)
                train, test = every.rows.take(kept), every.rows.take(held, hide=True)
                truth = None if every.truth is None else every.truth[held]
                for side in asked:
                    row = {"set": name, "split": kind, "fold": fold, "side": side}
                    if not is_asked(side, name, kind, fold) or rowed.has(row):
                        continue
                    if is_absent(side):
                        row["state"] = "not installed"
                    else:
                        row |= {"n_train": len(kept), "n_test": len(held)}
                        side_of = chosen(side, args, name)
                        row |= run(side_of, train, test, every.rows.y[held], truth)
                    rowed.add(row)
                    values = (
                        f"{v:.4g}" if isinstance(v, float) else v for v in row.values()
                    )
                    print(*values, flush=True)
    header = ("set", "split", "folds", "side", "RMSE", "MAE", "NLPD", "in 90 %", "cpu s")
    show(header, rowed.rows)
    smooth = of_smooth_functions(args.quick)
    print()
    keys = ("function", "variables", "nodes", "evaluations", "error", "wall_s")
    table((*keys[:4], "error / sd", "s"), [tuple(r[k] for k in keys) for r in smooth])
    whole = set(args.sets) == set(SETS) and set(args.splits) == set(SPLITS)
    whole = whole and args.folds == 5 and {*OURS, *SIDES} <= set(asked)
    result = {"machine": facts, "dtype": "float64", "rows": rowed.rows, "smooth": smooth}
    if args.reference is not None and args.sets[0] in AIR:
        result["probkit_per_sweep"] = seconds_per_sweep(args, args.sets[0])
        print("seconds per sweep of probkit:", result["probkit_per_sweep"])
    write("funbat", result, args.quick or not whole)
    rowed.path.unlink(missing_ok=True)


def show(header, rows) -> None:
    shown = []
    for name, kind, side in dict.fromkeys((r["set"], r["split"], r["side"]) for r in rows):
        these = [r for r in rows if (r["set"], r["split"], r["side"]) == (name, kind, side)]
        first = (name, kind, len(these), side)
        if "state" in these[0]:
            shown.append((*first, these[0]["state"], *[""] * 4))
            continue
        keys = ("rmse", "mae", "nlpd", "in_90", "cpu_s")
        means = [float(np.mean([r[k] for r in these])) for k in keys]
        error, spread = means[0], np.std([r["rmse"] for r in these])
        text = f"{error:.2e}" if error < 1e-3 else f"{error:.4f} +- {spread:.4f}"
        shown.append((*first, text, *means[1:]))
    table(header, shown)


if __name__ == "__main__":
    main()
