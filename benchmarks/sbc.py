"""Code shared by the calibration studies: rounds of prior, data, posterior, and ranks.

Each round draws parameters from the prior, then data given the parameters, then posterior
draws given the data. Over many rounds the rank of a true value among its posterior draws
is uniform if program, prior, units and sampler agree with one another.

Source: Talts, Betancourt, Simpson, Vehtari & Gelman (2018), arXiv 1804.06788.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from scipy import stats
from timing import machine, table, write

import probkit as pk

BINS = 8
Ranks = dict[str, np.ndarray]


def calibrate(
    model: Any,
    like: Any,
    given: Callable[[np.ndarray], Any],
    quantities: Callable[..., dict[str, Any]],
    *,
    simulations: int,
    method: pk.NUTS,
    ranked: int,
    seed: int,
) -> tuple[Ranks, Ranks]:
    """Ranks, 0 to `ranked`, of each true quantity, and the health of each run.

    Args:
        like: data with the shapes and units of the study. Its `y` is not used.
        given: a function that makes data from a simulated `y`.
        quantities: a function of `(sites, data, key)` that returns the quantities of one
            draw, by name. Whatever it samples with the key must be sampled given the
            sites and the data.
    """
    key_prior, key_runs = jax.random.split(jax.random.key(seed))
    drawn = pk.prior(model, like, key=key_prior, num_draws=simulations)
    truth, simulated = (drawn[g].to_dataset() for g in ("prior", "prior_predictive"))
    of_one = jax.jit(quantities)
    of_all = jax.jit(jax.vmap(quantities, in_axes=(0, None, 0)))
    ranks: dict[str, list] = {}
    health: dict[str, list] = {"divergences": [], "rhat_lp": [], "ess_lp": []}
    for i, key in enumerate(jax.random.split(key_runs, simulations)):
        data = given(simulated["y"].values[0, i])
        fitted = pk.fit(model, data, method, key=key, progress=False, relabel=False)
        every = method.num_chains * method.num_samples // ranked
        draws = {
            k: v.values.reshape(-1, *v.shape[2:])[::every][:ranked]
            for k, v in fitted.posterior.data_vars.items()
        }
        keys = jax.random.split(jax.random.fold_in(key, 1), ranked + 1)
        true = of_one({k: truth[k].values[0, i] for k in draws}, data, keys[0])
        for name, values in of_all(draws, data, keys[1:]).items():
            below = int((np.asarray(values) < float(true[name])).sum())
            ranks.setdefault(name, []).append(below)
        checks = {c.name: c.value for c in pk.diagnose(fitted)}
        health["divergences"].append(checks["divergences"])
        health["rhat_lp"].append(checks.get("R-hat of the log density", np.nan))
        health["ess_lp"].append(_ess(fitted.tree["sample_stats"]["lp"].values))
    return (
        {k: np.array(v) for k, v in ranks.items()},
        {k: np.array(v) for k, v in health.items()},
    )


def _ess(values: np.ndarray) -> float:
    import arviz_stats as azs

    return float(azs.ess(values))


def p_values(ranks: np.ndarray, ranked: int, seed: int = 0) -> dict[str, float]:
    """p-values of uniform ranks: chi-square with `BINS` bins, and Kolmogorov-Smirnov."""
    counts = np.histogram(ranks, bins=BINS, range=(0, ranked + 1))[0]
    spread = np.random.default_rng(seed).uniform(size=len(ranks))
    continuous = (ranks + spread) / (ranked + 1)
    return {
        "chi_square": float(stats.chisquare(counts).pvalue),
        "ecdf": float(stats.kstest(continuous, "uniform").pvalue),
    }


def study(name: str, words: str, calibration: Callable[..., tuple[Ranks, Ranks]]) -> None:
    """The command line of a calibration: run it, print the table, and write the numbers.

    Args:
        calibration: a function of `(simulations, method, ranked, seed)` that returns ranks
            and health.
    """
    parser = argparse.ArgumentParser(description=words)
    parser.add_argument("--quick", action="store_true", help="24 rounds instead of 400")
    parser.add_argument("--simulations", type=int, help="number of rounds")
    parser.add_argument("--seed", type=int, default=20)
    args = parser.parse_args()
    pk.enable_x64()
    simulations = args.simulations or (24 if args.quick else 400)
    ranked = 31 if args.quick else 63
    steps = 300 if args.quick else 500
    method = pk.NUTS(num_chains=4, num_warmup=steps, num_samples=steps)
    where, began = machine(), time.perf_counter()
    ranks, health = calibration(simulations, method, ranked, args.seed)
    seconds = time.perf_counter() - began
    tests = {name: p_values(r, ranked) for name, r in ranks.items()}
    smallest = min(min(p.values()) for p in tests.values())
    print(
        f"{simulations} rounds, 4 chains of {steps} + {steps} steps, "
        f"{ranked} draws ranked, float64: {seconds:.0f} s"
    )
    table(
        ("quantity", "p, chi-square", "p, ECDF", "counts"),
        [
            (
                quantity,
                tests[quantity]["chi_square"],
                tests[quantity]["ecdf"],
                np.histogram(r, bins=BINS, range=(0, ranked + 1))[0],
            )
            for quantity, r in ranks.items()
        ],
    )
    # Bonferroni correction over quantities and tests. R-hat of the log density shows in
    # which rounds the chains disagree, because those rounds affect the ranks.
    verdict = min(1.0, smallest * 2 * len(ranks))
    unmixed = float((health["rhat_lp"] > 1.05).mean())
    print(
        f"smallest p, corrected for {2 * len(ranks)} tests: {verdict:.3g}; "
        f"rounds with R-hat of the log density over 1.05: {unmixed:.1%}; "
        f"divergences per round: {health['divergences'].mean():.2g}"
    )
    write(
        name,
        {
            "machine": where,
            "dtype": "float64",
            "simulations": simulations,
            "chains": method.num_chains,
            "steps": [steps, steps],
            "ranked": ranked,
            "seed": args.seed,
            "seconds": seconds,
            "p_values": tests,
            "smallest_p_corrected": verdict,
            "share_unmixed": unmixed,
            "ranks": {k: v.tolist() for k, v in ranks.items()},
            "health": {k: v.tolist() for k, v in health.items()},
        },
        args.quick,
    )
