"""NUTS through `pk.fit`, compared with the same NumPyro program called by hand.

Both end with labelled draws in an ArviZ tree. A cold measurement is the first call in a
fresh process. A second call in that process, on other data of the same shape, is the warm
measurement. Chains run in parallel on two CPU devices. Rounding is enough to make the
trajectories of the two sides differ, so the cost per gradient is given as well.
"""

import argparse
import json
from pathlib import Path

import jax
import numpy as np
import numpyro
from timing import HERE, alternate, fresh_process, machine, median, table, timed, write

import probkit as pk
from probkit.models import moe

CHAINS = 2
numpyro.set_host_device_count(CHAINS)  # before the first computation
TARGET = 1.05
MODEL = moe.MixtureOfExperts(num_experts=2)


def motorcycle(seed: int) -> moe.Pairs:
    """The motorcycle data, plus normal noise with an sd of 0.001 g times the seed."""
    from probkit import datasets

    crash = datasets.motorcycle()
    noise = np.random.default_rng(seed).normal(size=crash.sizes["reading"])
    return moe.Pairs(crash.time, crash.acceleration.values + 1e-3 * seed * noise)


def simulated(seed: int) -> moe.Pairs:
    """n = 2000, d = 4: two planes that cross, and a gate along the diagonal."""
    d = 4
    key_x, key_y = jax.random.split(jax.random.key(seed))
    x = jax.random.uniform(key_x, (2000, d), minval=-2.0, maxval=2.0)
    along = np.full((d, 1), 1 / np.sqrt(d))
    gate = np.vstack([[[0.5, 0.0]], along * [[2.0, 0.0]]])
    coefficient = np.vstack([[[1.0, -1.0]], along * [[2.0, -1.0]]])
    return moe.simulate(key_y, x, gate, coefficient, [0.5, 0.8])


CASES = {"motorcycle": motorcycle, "simulated": simulated}


def by_probkit(data, steps: int, key):
    method = pk.NUTS(
        num_chains=CHAINS,
        num_warmup=steps,
        num_samples=steps,
        chain_method="parallel",
    )
    return pk.fit(MODEL, data, method, key=key, progress=False).tree


def by_probkit_plain(data, steps: int, key):
    """The same without relabelling, because the run by hand does not relabel either."""
    method = pk.NUTS(
        num_chains=CHAINS,
        num_warmup=steps,
        num_samples=steps,
        chain_method="parallel",
    )
    return pk.fit(MODEL, data, method, key=key, progress=False, relabel=False).tree


def by_hand(data, steps: int, key):
    import arviz as az

    mcmc = numpyro.infer.MCMC(
        numpyro.infer.NUTS(MODEL),
        num_warmup=steps,
        num_samples=steps,
        num_chains=CHAINS,
        chain_method="parallel",
        progress_bar=False,
    )
    mcmc.run(key, data, extra_fields=("num_steps", "energy", "potential_energy"))
    mcmc.get_samples(group_by_chain=True)
    return az.from_numpyro(mcmc, log_likelihood=False)


SIDES = {
    "probkit": by_probkit,
    "probkit, labels as drawn": by_probkit_plain,
    "by hand": by_hand,
}


class Compilations:
    """Counts what JAX traces and compiles after this object is made."""

    def __init__(self):
        self.programs: list[str] = []
        self.traces = 0
        self.seconds = 0.0
        jax.monitoring.register_event_duration_secs_listener(self._listen)

    def _listen(self, event: str, seconds: float, **about):
        if event.endswith("jaxpr_trace_duration"):
            self.traces += 1
        if event.endswith("backend_compile_duration"):
            self.programs.append(str(about.get("fun_name", "?")))
            self.seconds += seconds

    def take(self) -> dict:
        out = {
            "programs": len(self.programs),
            "names": sorted(set(self.programs)),
            "traces": self.traces,
            "compile_s": self.seconds,
        }
        self.programs, self.traces, self.seconds = [], 0, 0.0
        return out


def one_process(side: str, case: str, steps: int) -> None:
    pk.enable_x64()
    import arviz  # noqa: F401  (so that no side is timed with it)

    make, sample = CASES[case], SIDES[side]
    first, second = make(0), make(1)
    jax.block_until_ready((first, second))
    seen, out = Compilations(), {}
    for name, data in (("cold", first), ("warm", second)):
        key = jax.random.key(len(out))
        seconds, tree = timed(lambda data=data, key=key: sample(data, steps, key))
        stats = tree["sample_stats"]
        gradients = stats["n_steps"] if "n_steps" in stats else stats["num_steps"]
        kept = int(gradients.sum())
        out[name] = seconds | seen.take() | {"gradients_kept": kept}
    print(json.dumps(out))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="100 steps, one repetition")
    parser.add_argument("--steps", type=int, help="warm-up steps and draws (default: 1000)")
    parser.add_argument("--repeats", type=int, help="number of repetitions (default: 5)")
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--process", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.process:
        side, case, steps = args.process
        return one_process(side, case, int(steps))
    steps = args.steps or (100 if args.quick else 1000)
    repeats = args.repeats or (1 if args.quick else 5)
    script = str(HERE / Path(__file__).name)
    result = {
        "machine": machine(),
        "dtype": "float64",
        "chains": CHAINS,
        "steps": [steps, steps],
        "runs": {},
        "summary": {},
        "target_ratio": TARGET,
    }
    for case in args.cases:

        def run(side, case=case):
            return lambda _: fresh_process(script, "--process", side, case, str(steps))

        runs = alternate({side: run(side) for side in SIDES}, repeats)
        told = summary(runs)
        result["runs"][case], result["summary"][case] = runs, told
        print(
            f"\n{case}: {CHAINS} chains of {steps} + {steps} steps, {repeats} repetitions"
        )
        table(
            ("side", "call", *COLUMNS.values()),
            [
                (side, call, *(row[k] for k in COLUMNS))
                for side, calls in told.items()
                for call, row in calls.items()
            ],
        )
    write("nuts_overhead", result, args.quick)
    return None


COLUMNS = {
    "wall_s": "wall, s",
    "cpu_s": "cpu, s",
    "compile_s": "compiling, s",
    "programs": "programs",
    "traces": "traces",
    "us_per_gradient": "us per gradient",
    "ratio": "ratio",
    "ratio_per_gradient": "ratio per gradient",
}


def summary(runs: dict) -> dict:
    """Medians. Each ratio is to the run by hand in the same repetition.

    The cost per gradient is the time without compilation, divided by the number of
    gradients of the kept draws, because NumPyro does not report those of the warm-up.
    """
    out: dict = {}
    for side, rows in runs.items():
        out[side] = {}
        for call in ("cold", "warm"):
            own = [row[call] for row in rows]
            hand = [row[call] for row in runs["by hand"]]
            names = ("wall_s", "cpu_s", "compile_s", "programs", "traces")
            told = {name: median(own, name) for name in names}
            per, per_hand = (
                [
                    1e6 * (row["wall_s"] - row["compile_s"]) / row["gradients_kept"]
                    for row in rows
                ]
                for rows in (own, hand)
            )
            told["us_per_gradient"] = float(np.median(per))
            told["ratio"] = float(
                np.median(
                    [a["wall_s"] / b["wall_s"] for a, b in zip(own, hand, strict=True)]
                )
            )
            told["ratio_per_gradient"] = float(
                np.median([a / b for a, b in zip(per, per_hand, strict=True)])
            )
            out[side][call] = told
    return out


if __name__ == "__main__":
    main()
