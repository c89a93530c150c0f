"""EM of a softmax-gated mixture of two linear experts: probkit compared with R flexmix.

Both start from the same responsibilities, on the same data. One function computes the
log likelihood of both answers. flexmix runs at its default tolerance and at a smaller one.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from timing import HERE, alternate, fresh_process, machine, median, table, timed, write

import probkit as pk
from probkit.models import moe

MODEL = moe.MixtureOfExperts(num_experts=2)
ONE = pk.EM(num_restarts=1, maximise="likelihood")
TOLERANCES = {"default": 1e-6, "tight": 1e-11}  # flexmix: relative to the log likelihood
TARGETS = {8: 0.10, 1: 0.25}


def truth(d: int) -> dict[str, np.ndarray]:
    """Two planes that cross, and a gate that changes along the diagonal of the inputs.

    With u = sum(x) / sqrt(d), the logit of the gate is 0.5 + 2 u. The experts are 1 + 2 u
    with noise sd 0.5, and -1 - u with noise sd 0.8. The sd of u is the same for every d.
    """
    along = np.full((d, 1), 1 / np.sqrt(d))
    return {
        "gate": np.vstack([[[0.5, 0.0]], along * [[2.0, 0.0]]]),
        "coefficient": np.vstack([[[1.0, -1.0]], along * [[2.0, -1.0]]]),
        "noise_sd": np.array([0.5, 0.8]),
    }


def simulated(n: int, d: int, seed: int) -> moe.Pairs:
    key_x, key_y = jax.random.split(jax.random.key(seed))
    x = jax.random.uniform(key_x, (n, d), minval=-2.0, maxval=2.0)
    return jax.block_until_ready(moe.simulate(key_y, x, **truth(d)))


def log_likelihood(sites, data: moe.Pairs) -> float:
    sites = {name: jnp.asarray(value) for name, value in sites.items()}
    return float(MODEL.conditional(sites, data.x).log_prob(data.y).sum())


def sites_of(fitted: pk.Fit) -> dict[str, np.ndarray]:
    return {k: v.values[0, 0] for k, v in fitted.posterior.data_vars.items()}


def one_start(data: moe.Pairs, seed: int):
    """Where both sides start: a fit after one EM step, and its responsibilities."""
    one_step = pk.EM(1, max_steps=1, maximise="likelihood", num_moves=0)
    key = jax.random.key(seed)
    start = pk.fit(MODEL, data, one_step, key=key, throw=False, progress=False)
    return start, pk.predict(start, data, key=key)["membership"].values[0, 0]


def ours(data: moe.Pairs, method: pk.EM, seed: int, start=None) -> dict:
    def run():
        key = jax.random.key(seed)
        return pk.fit(MODEL, data, method, key=key, start=start, progress=False)

    seconds, fitted = timed(run)
    return seconds | {
        "steps": fitted.tree["trace"]["steps"].values.tolist(),
        "converged": fitted.result == "successful",
        "log_likelihood": log_likelihood(sites_of(fitted), data),
        "reached_best": fitted.facts["reached_best"],
    }


def theirs(data: moe.Pairs, start: np.ndarray, tolerance: float) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        n, d = data.x.shape
        (path / "size.csv").write_text(f"{n},{d}\n")
        for name, array in {"x": data.x, "y": data.y, "start": start}.items():
            np.asarray(array, np.float64).T.tofile(path / f"{name}.bin")
        call = ["Rscript", str(HERE / "flexmix.R"), folder, str(tolerance), "5000"]
        subprocess.run(call, check=True)
        fit = json.loads((path / "fit.json").read_text())
    sites = {name: fit.pop(name) for name in ("gate", "coefficient", "noise_sd")}
    return fit | {"log_likelihood": log_likelihood(sites, data)}


def flexmix_is_here() -> bool:
    if shutil.which("Rscript") is None:
        return False
    probe = "quit(status = !requireNamespace('flexmix', quietly = TRUE))"
    return subprocess.run(["Rscript", "-e", probe]).returncode == 0


def cold(n: int, d: int, cache: str | None) -> None:
    """The first fit of a fresh process, including compilation."""
    if cache:
        pk.use_compilation_cache(cache)
    data = simulated(n, d, seed=1)
    print(json.dumps(ours(data, ONE, seed=1)))


def compare(n: int, d: int, repeats: int, restarts: int, with_flexmix: bool) -> dict:
    many = pk.EM(num_restarts=restarts, maximise="likelihood")
    warm_up = simulated(n, d, seed=0)
    start, _ = one_start(warm_up, seed=0)
    ours(warm_up, ONE, seed=0, start=start)  # compiles; cold runs are timed below
    begins = {}

    def begin(repeat):
        if repeat not in begins:
            data = simulated(n, d, seed=repeat + 1)
            begins[repeat] = (data, *one_start(data, seed=repeat + 1))
        return begins[repeat]

    def probkit(repeat):
        data, start, _ = begin(repeat)
        return ours(data, ONE, seed=repeat, start=start)

    def flexmix(tolerance):
        def run(repeat):
            data, _, membership = begin(repeat)
            return theirs(data, membership, tolerance)

        return run

    sides = {"probkit": probkit}
    if with_flexmix:
        sides |= {f"flexmix {k}": flexmix(v) for k, v in TOLERANCES.items()}
    runs = alternate(sides, repeats)
    runs["probkit restarts"] = [ours(warm_up, many, 0), ours(begin(0)[0], many, 1)]
    with tempfile.TemporaryDirectory() as cache:
        script, size = str(HERE / "em_flexmix.py"), (str(n), str(d))
        runs["probkit cold"] = [
            fresh_process(script, "--cold", *size) for _ in range(repeats)
        ]
        cached = [fresh_process(script, "--cold", *size, cache) for _ in range(repeats + 1)]
        runs["probkit cold, kept programs"] = cached[1:]
    return runs


def summary(runs: dict, d: int, restarts: int) -> dict:
    out = {
        name: {
            "wall_s": median(rows, "wall_s"),
            "cpu_s": median(rows, "cpu_s"),
            "steps": float(np.median([np.max(row["steps"]) for row in rows])),
            "log_likelihood": median(rows, "log_likelihood"),
            "all_converged": all(row["converged"] for row in rows),
        }
        for name, rows in runs.items()
    }
    # The first run with restarts includes compilation.
    out["probkit restarts"] = {
        k: runs["probkit restarts"][-1][k]
        for k in ("wall_s", "cpu_s", "log_likelihood", "reached_best")
    } | {"first_wall_s": runs["probkit restarts"][0]["wall_s"], "restarts": restarts}
    for name in TOLERANCES:
        rival = f"flexmix {name}"
        if rival not in runs:
            continue
        pairs = list(zip(runs["probkit"], runs[rival], strict=True))
        out[rival] |= {
            "ratio_wall": float(np.median([a["wall_s"] / b["wall_s"] for a, b in pairs])),
            "ratio_cpu": float(np.median([a["cpu_s"] / b["cpu_s"] for a, b in pairs])),
            "ratio_wall_cold": out["probkit cold"]["wall_s"] / out[rival]["wall_s"],
            "ratio_wall_kept_programs": out["probkit cold, kept programs"]["wall_s"]
            / out[rival]["wall_s"],
            "ratio_wall_restarts": out["probkit restarts"]["wall_s"]
            / (restarts * out[rival]["wall_s"]),
            "least_gain_in_log_likelihood": min(
                a["log_likelihood"] - b["log_likelihood"] for a, b in pairs
            ),
            "target_ratio": TARGETS[d],
        }
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="n=5000, one repetition")
    parser.add_argument("--n", type=int, help="number of observations (default: 100000)")
    parser.add_argument("--repeats", type=int, help="number of repetitions (default: 3)")
    parser.add_argument("--restarts", type=int, default=16)
    parser.add_argument("--dims", type=int, nargs="+", default=[8, 1], choices=[8, 1])
    parser.add_argument("--cold", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    pk.enable_x64()
    if args.cold:
        n, d, *cache = args.cold
        return cold(int(n), int(d), cache[0] if cache else None)
    n = args.n or (5000 if args.quick else 100_000)
    repeats = args.repeats or (1 if args.quick else 3)
    with_flexmix, where = flexmix_is_here(), machine()
    if not with_flexmix:
        print("R or its package flexmix is not installed, so only probkit is timed.")
    result = {"machine": where, "dtype": "float64", "n": n, "runs": {}, "summary": {}}
    for d in args.dims:
        runs = compare(n, d, repeats, args.restarts, with_flexmix)
        told = summary(runs, d, args.restarts)
        result["runs"][f"d={d}"], result["summary"][f"d={d}"] = runs, told
        print(f"\nn={n}, d={d}, float64, medians of {repeats}")
        table(
            ("side", "wall, s", "cpu, s", "log likelihood", "wall: probkit / side"),
            [
                (
                    name,
                    row["wall_s"],
                    row["cpu_s"],
                    f"{row['log_likelihood']:.4f}",
                    row.get("ratio_wall", ""),
                )
                for name, row in told.items()
            ],
        )
    write("em_flexmix", result, args.quick)
    return None


if __name__ == "__main__":
    sys.exit(main())
