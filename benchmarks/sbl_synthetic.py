"""Sparse coefficients on a product support: `sbl.TypeII` compared with its rivals.

The synthetic setting of He & Joseph (arXiv 2307.14719): N = 15^3 coefficients, M = 8 x 12
x 15 measurements, three atoms per mode, known noise. Amplitudes are of rank one, as in the
paper's figures, or free on the product support.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import equinox as eqx
import jax
import numpy as np
import sbl_baselines as rivals
from threadpoolctl import threadpool_limits
from timing import fresh_process, machine, table, timed, write

import probkit as pk
from probkit.models import sbl
from probkit.models.sbl.metrics import credible_support, nmse, support_recovery

# probkit's methods by name. The first has the default settings.
METHODS = {
    "TypeII": sbl.TypeII(),
    "TypeII, one start": sbl.TypeII(num_restarts=1),
}
OURS = next(iter(METHODS))
# For a million coefficients, each from one start. The last one is the fastest.
LARGE = {
    "one start": sbl.TypeII(num_restarts=1),
    "mackay, one start": sbl.TypeII(update="mackay", num_restarts=1, search=0),
}
FAST = list(LARGE)[-1]
KINDS = ("rank_one", "free")
SNRS = (5, 10, 15, 20, 25, 30)
FAILED = 0.1  # NMSE
LEVEL = 0.999  # of the credible intervals from which a support is taken
TARGETS = {
    "rank_one": ("median_nmse", 1.9e-4),
    "free": ("mean_nmse", 2.1e-4),
    "failed": 0.05,
    "cpu_s_a_step": 2e-3,
    "large_wall_s": 10.0,
    "large_peak_gb": 1.0,
}


class Trial(NamedTuple):
    matrices: list[np.ndarray]
    x: np.ndarray
    y: np.ndarray
    noise_sd: float
    support: list[np.ndarray]


def draw(
    seed: int, kind: str, snr_db: float, rows=(8, 12, 15), atoms: int = 15, active: int = 3
) -> Trial:
    """One trial. At another SNR, a seed gives the same trial with rescaled noise."""
    rng = np.random.default_rng(seed)
    matrices = [rng.standard_normal((m, atoms)) for m in rows]
    support = [np.sort(rng.choice(atoms, active, replace=False)) for _ in rows]
    if kind == "rank_one":
        amplitudes = rivals.outer([rng.standard_normal(active) for _ in rows])
    else:
        amplitudes = rng.standard_normal((active,) * len(rows))
    x = np.zeros((atoms,) * len(rows))
    x[np.ix_(*support)] = amplitudes
    signal = rivals.mode_products(x, matrices)
    noise_sd = float(np.sqrt(np.mean(signal**2) / 10 ** (snr_db / 10)))
    y = signal + noise_sd * rng.standard_normal(signal.shape)
    return Trial(matrices, x, y, noise_sd, support)


def by(method: sbl.TypeII) -> Callable[[Trial], rivals.Estimate]:
    def run(t: Trial):
        data = sbl.Measurements(t.y, t.matrices, noise_sd=t.noise_sd)
        return rivals.by_probkit(data, method)

    return run


def sides() -> dict[str, Callable[[Trial], rivals.Estimate]]:
    known = rivals.paper_sbl
    return {name: by(method) for name, method in METHODS.items()} | {
        "AM (paper)": lambda t: known(
            t.y, t.matrices, t.noise_sd, rivals.alternating, share=1e-2
        ),
        "SVD (paper)": lambda t: known(
            t.y, t.matrices, t.noise_sd, rivals.singular, share=1e-3
        ),
        "decomposed": lambda t: rivals.decomposed(t.y, t.matrices),
        "KOMP": lambda t: rivals.kronecker_omp(t.y, t.matrices, t.noise_sd),
        "KOMP (reference stop)": lambda t: rivals.kronecker_omp(t.y, t.matrices),
        "oracle": lambda t: rivals.on_support(t.y, t.matrices, t.support),
    }


def dense_sides() -> dict[str, Callable[[Trial], rivals.Estimate]]:
    return {
        "OMP (scikit-learn)": lambda t: rivals.sklearn_omp(t.y, t.matrices, t.noise_sd),
        "lasso (scikit-learn)": lambda t: rivals.sklearn_lasso(t.y, t.matrices, t.noise_sd),
    }


def told(estimate: rivals.Estimate, truth: np.ndarray, seconds: dict) -> dict:
    credible = np.nan
    if estimate.sd is not None:
        sure = credible_support(estimate.x, estimate.sd, level=LEVEL)
        credible = float(support_recovery(sure, truth != 0))
    return seconds | {
        "nmse": float(nmse(estimate.x, truth)),
        "support_recovery": float(support_recovery(estimate.x, truth)),
        "credible_recovery": credible,
        "evidence": estimate.evidence,
        "steps": estimate.steps,
    }


def compare(trials: list[Trial], which: dict) -> dict[str, list[dict]]:
    """All sides on the same trials, in turn. The first runs twice, because it compiles."""
    runs: dict[str, list[dict]] = {name: [] for name in which}
    for i, t in enumerate(trials):
        for name, side in which.items():
            if i == 0:
                side(t)
            seconds, estimate = timed(lambda side=side, t=t: side(t))
            runs[name].append(told(estimate, t.x, seconds))
    return runs


def summary(runs: dict[str, list[dict]]) -> dict[str, dict]:
    out = {}
    for name, rows in runs.items():
        column = {key: np.array([row[key] for row in rows]) for key in rows[0]}
        errors = column["nmse"]
        failed = float(np.mean(errors > FAILED))
        out[name] = {
            "median_nmse": float(np.median(errors)),
            "mean_nmse": float(errors.mean()),
            "se_of_mean": float(errors.std(ddof=1) / np.sqrt(len(errors))),
            "failed": failed,
            "se_of_failed": float(np.sqrt(failed * (1 - failed) / len(errors))),
            "support_recovery": float(column["support_recovery"].mean()),
            "credible_recovery": float(column["credible_recovery"].mean()),
            "mean_evidence": float(column["evidence"].mean()),
            "cpu_s": float(np.median(column["cpu_s"])),
            "steps": float(np.median(column["steps"])),
        }
    return out


def show(title: str, rows: dict[str, dict]) -> None:
    print(f"\n{title}")
    names = ("median_nmse", "mean_nmse", "se_of_mean", "failed", "se_of_failed")
    names += ("support_recovery", "credible_recovery", "mean_evidence", "cpu_s", "steps")
    table(("side", *names), [(k, *(row[n] for n in names)) for k, row in rows.items()])


# One mode: classic sparse Bayesian learning, noise unknown.


def classic(repeats: int, rows: int = 60, atoms: int = 120) -> dict[str, list[dict]]:
    trials = [draw(1000 + i, "free", 25, (rows,), atoms, 6) for i in range(repeats)]
    which = {
        name: lambda t, m=method: rivals.by_probkit(sbl.Measurements(t.y, t.matrices), m)
        for name, method in (METHODS | {"Sequential": sbl.Sequential()}).items()
    }
    which["ARD (scikit-learn)"] = lambda t: rivals.sklearn_ard(t.y, t.matrices[0])
    return compare(trials, which)


# Cost of a step, and a large problem, in fresh processes with one core.


def pinned(*arguments: str) -> dict:
    """Run this script in a process that has one core from its start."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    try:
        return fresh_process(__file__, *arguments, OMP_NUM_THREADS="1")
    finally:
        os.sched_setaffinity(0, cores)


def peak_gb() -> float:
    # Not `ru_maxrss`, because a process may inherit it from the one that started it.
    status = Path("/proc/self/status").read_text().splitlines()
    line = next(line for line in status if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1e6


def step_cost(update: str) -> None:
    """Processor seconds per step at N = 3375: the fastest of five runs of 400 steps."""
    t = draw(0, "rank_one", 25)
    data = sbl.Measurements(t.y, t.matrices, noise_sd=t.noise_sd)
    model, method, steps = sbl.KroneckerSBL(), sbl.TypeII(update=update), 400
    start = method.init(model, data, jax.random.key(0), None)

    @eqx.filter_jit
    def run(data, state):
        def step(_, state):
            return method.step(model, data, state)

        return jax.lax.fori_loop(0, steps, step, state)

    jax.block_until_ready(run(data, start))
    runs = [timed(lambda: jax.block_until_ready(run(data, start))) for _ in range(5)]
    print(json.dumps({"cpu_s_a_step": min(time["cpu_s"] for time, _ in runs) / steps}))


def large(name: str, atoms: int, rows: int) -> None:
    """A fit of `atoms`^3 coefficients, cold (with compilation) and warm."""
    t = draw(0, "rank_one", 25, (rows,) * 3, atoms, 5)
    data = sbl.Measurements(t.y, t.matrices, noise_sd=t.noise_sd)
    before = peak_gb()

    def fit():
        return pk.fit(
            sbl.KroneckerSBL(),
            data,
            LARGE[name],
            key=jax.random.key(0),
            throw=False,
            progress=False,
        )

    cold, _ = timed(fit)
    warm, fitted = timed(fit)
    peak = peak_gb()
    mean = pk.recover(fitted, key=jax.random.key(0))["coefficient_mean"].values[0, 0]
    steps = fitted.tree["trace"]["steps"].values
    print(
        json.dumps(
            {
                "coefficients": atoms**3,
                "measurements": rows**3,
                "cold": cold,
                "warm": warm,
                "steps": steps.ravel().tolist(),
                "nmse": float(nmse(mean, t.x)),
                "result": fitted.result,
                "peak_gb": peak,
                "peak_gb_before": before,
                "peak_gb_with_recover": peak_gb(),
            }
        )
    )


def targets(at_25: dict[str, dict], step: dict, big: dict) -> dict[str, dict]:
    """The value of each target, its limit, and whether it was reached."""
    out = {}

    def aim(name, value, most):
        out[name] = {"value": value, "at_most": most, "reached": bool(value <= most)}

    for kind in KINDS:
        rows, (measure, most) = at_25[kind], TARGETS[kind]
        aim(f"{kind}: {measure}", rows[OURS][measure], most)
        best = min(rows[name]["failed"] for name in ("AM (paper)", "SVD (paper)"))
        aim(f"{kind}: failed", rows[OURS]["failed"], TARGETS["failed"])
        aim(f"{kind}: failed, against the best of the paper", rows[OURS]["failed"], best)
    if step:
        value = step[METHODS[OURS].update]["cpu_s_a_step"]
        aim("cpu_s_a_step", value, TARGETS["cpu_s_a_step"])
    if big:
        aim("large, wall_s warm", big[FAST]["warm"]["wall_s"], TARGETS["large_wall_s"])
        aim("large, wall_s cold", big[FAST]["cold"]["wall_s"], TARGETS["large_wall_s"])
        aim("large, peak_gb", big[FAST]["peak_gb"], TARGETS["large_peak_gb"])
    return out


def costs(quick: bool) -> tuple[dict, dict]:
    step = {update: pinned("--step", update) for update in ("mm", "mackay")}
    atoms, rows = ("30", "15") if quick else ("100", "50")
    big = {name: pinned("--large-fit", name, atoms, rows) for name in LARGE}
    table(
        ("one step, N = 3375", "cpu, s"), [(k, v["cpu_s_a_step"]) for k, v in step.items()]
    )
    table(
        ("large", "cold wall, s", "warm wall, s", "steps", "NMSE", "peak, GB"),
        [
            (
                f"{k}, N = {v['coefficients']}",
                v["cold"]["wall_s"],
                v["warm"]["wall_s"],
                v["steps"],
                v["nmse"],
                v["peak_gb"],
            )
            for k, v in big.items()
        ],
    )
    return step, big


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="10 trials, a smaller fit")
    parser.add_argument("--trials", type=int, help="trials at 25 dB (default: 200)")
    parser.add_argument("--sweep", type=int, help="trials at each other SNR (default: 20)")
    parser.add_argument(
        "--dense", type=int, help="trials with a dense matrix (default: 10)"
    )
    parser.add_argument("--large", action="store_true", help="only cost and memory")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    parser.add_argument("--large-fit", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    pk.enable_x64()
    if args.step:
        return step_cost(args.step)
    if args.large_fit:
        return large(args.large_fit[0], *map(int, args.large_fit[1:]))
    where = machine()
    if args.large:
        costs(args.quick)
        return None
    trials = args.trials or (10 if args.quick else 200)
    sweep = args.sweep or (3 if args.quick else 20)
    dense = args.dense or (2 if args.quick else 10)
    runs: dict[str, dict] = {}
    summaries: dict[str, dict] = {}
    result = {
        "machine": where,
        "dtype": "float64",
        "methods": {name: repr(method) for name, method in METHODS.items()},
        "summary": summaries,
        "runs": runs,
    }

    def keep(name, found):
        runs[name], summaries[name] = found, summary(found)
        show(f"{name}, {len(next(iter(found.values())))} trials", summaries[name])
        write("sbl_synthetic", result, args.quick)

    def study(kind, snr, count, which):
        drawn = [draw(seed, kind, snr) for seed in range(count)]
        return compare(drawn, which)

    with threadpool_limits(1):
        for kind in KINDS:
            keep(f"{kind}, 25 dB", study(kind, 25, trials, sides()))
        result["step"], result["large"] = step, big = costs(args.quick)
        at_25 = {kind: summaries[f"{kind}, 25 dB"] for kind in KINDS}
        result["targets"] = found = targets(at_25, step, big)
        for kind in KINDS:
            for snr in SNRS:
                if snr != 25:
                    keep(f"{kind}, {snr} dB", study(kind, snr, sweep, sides()))
        for kind in KINDS:
            name = f"{kind}, 25 dB, dense matrix"
            keep(name, study(kind, 25, dense, dense_sides()))
        keep("one mode, noise unknown", classic(dense))
    print()
    table(
        ("target", "value", "at most", "reached"),
        [(k, v["value"], v["at_most"], v["reached"]) for k, v in found.items()],
    )
    return None


if __name__ == "__main__":
    sys.exit(main())
