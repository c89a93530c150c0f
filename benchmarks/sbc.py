"""Code shared by the calibration studies: rounds of prior, data, posterior, and ranks.

Each round draws parameters from the prior, then data given the parameters, then posterior
draws given the data. Over many rounds the rank of a true value among its posterior draws
is uniform if program, prior, units and sampler agree with one another.

Source: Talts, Betancourt, Simpson, Vehtari & Gelman (2018), arXiv 1804.06788.
"""

import argparse
import time
from collections.abc import Callable, Iterable
from dataclasses import fields
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats
from timing import machine, table, write

import probkit as pk
from probkit.record import plain

BINS = 8
# The share of ranks that a central interval of the draws holds.
CENTRAL = 0.9
# What is kept of the checks of each run, where it has them.
HEALTH = {
    "divergences": "divergences",
    "rhat_lp": "R-hat of the log density",
    "effective_draws": "effective draws of noise and level",
}
Ranks = dict[str, np.ndarray]
Round = tuple[dict[str, Any], Any, Any]  # true sites, data, key


def ranked_rounds(
    model: Any,
    rounds: Iterable[Round],
    quantities: Callable[..., dict[str, Any]],
    *,
    method: Any,
    ranked: int,
) -> tuple[Ranks, Ranks]:
    """Ranks, 0 to `ranked`, of each true quantity, and the health of each run.

    Args:
        rounds: true sites, data simulated from them, and a key.
        quantities: a function of `(sites, data, key)` that returns the quantities of one
            draw, by name. Whatever it samples with the key must be sampled given the
            sites and the data.
    """
    of_one = eqx.filter_jit(quantities)
    of_all = eqx.filter_jit(jax.vmap(quantities, in_axes=(0, None, 0)))
    ranks: dict[str, list] = {}
    health: dict[str, list] = {}
    for truth, data, key in rounds:
        began = time.process_time()
        fitted = pk.fit(
            model, data, method, key=key, progress=False, relabel=False, throw=False
        )
        seconds = time.process_time() - began
        draws = {
            k: v.values.reshape(-1, *v.shape[2:])
            for k, v in fitted.posterior.data_vars.items()
        }
        every = len(next(iter(draws.values()))) // ranked
        draws = {k: v[::every][:ranked] for k, v in draws.items()}
        keys = jax.random.split(jax.random.fold_in(key, 1), ranked + 1)
        true = of_one({k: truth[k] for k in draws}, data, keys[0])
        for name, values in of_all(draws, data, keys[1:]).items():
            below = int((np.asarray(values) < float(true[name])).sum())
            ranks.setdefault(name, []).append(below)
        checks = {c.name: c.value for c in pk.diagnose(fitted)}
        found = {k: checks[name] for k, name in HEALTH.items() if name in checks}
        found |= {"cpu_s": seconds, "settled": fitted.facts.get("settled", True)}
        for name, value in found.items():
            health.setdefault(name, []).append(value)
    return (
        {k: np.array(v) for k, v in ranks.items()},
        {k: np.array(v, float) for k, v in health.items()},
    )


def from_prior(
    model: Any, like: Any, given: Callable[[np.ndarray], Any], simulations: int, seed: int
) -> Iterable[Round]:
    """Rounds whose data the model itself simulates.

    Args:
        like: data with the shapes and units of the study. Its `y` is not used.
        given: a function that makes data from a simulated `y`.
    """
    key_prior, key_runs = jax.random.split(jax.random.key(seed))
    drawn = pk.prior(model, like, key=key_prior, num_draws=simulations)
    truth, simulated = (drawn[g].to_dataset() for g in ("prior", "prior_predictive"))
    for i, key in enumerate(jax.random.split(key_runs, simulations)):
        sites = {k: jnp.asarray(v.values[0, i]) for k, v in truth.data_vars.items()}
        yield sites, given(simulated["y"].values[0, i]), key


def calibrate(
    model: Any,
    like: Any,
    given: Callable[[np.ndarray], Any],
    quantities: Callable[..., dict[str, Any]],
    *,
    simulations: int,
    method: Any,
    ranked: int,
    seed: int,
) -> tuple[Ranks, Ranks]:
    """`ranked_rounds` of rounds `from_prior`."""
    rounds = from_prior(model, like, given, simulations, seed)
    return ranked_rounds(model, rounds, quantities, method=method, ranked=ranked)


def p_values(ranks: np.ndarray, ranked: int, seed: int = 0) -> dict[str, float]:
    """p-values of uniform ranks: chi-square with `BINS` bins, and Kolmogorov-Smirnov."""
    counts = np.histogram(ranks, bins=BINS, range=(0, ranked + 1))[0]
    spread = np.random.default_rng(seed).uniform(size=len(ranks))
    continuous = (ranks + spread) / (ranked + 1)
    return {
        "chi_square": float(stats.chisquare(counts).pvalue),
        "ecdf": float(stats.kstest(continuous, "uniform").pvalue),
    }


def coverage(ranks: np.ndarray, ranked: int) -> float:
    """How often the central interval of the draws holds the truth; `CENTRAL` is right."""
    return float(np.mean(np.abs((ranks + 0.5) / (ranked + 1) - 0.5) < CENTRAL / 2))


def nuts(quick: bool) -> pk.NUTS:
    steps = 300 if quick else 500
    return pk.NUTS(num_chains=4, num_warmup=steps, num_samples=steps)


def study(
    name: str,
    words: str,
    calibration: Callable[..., tuple[Ranks, Ranks]],
    methods: dict[str, Callable[[bool], Any]] | None = None,
) -> None:
    """The command line of a calibration: run it, print the tables, and write the numbers.

    Args:
        calibration: a function of `(simulations, method, ranked, seed)` that returns ranks
            and health.
        methods: `{ending of the name of the result: method(quick)}`.
    """
    parser = argparse.ArgumentParser(description=words)
    parser.add_argument("--quick", action="store_true", help="24 rounds instead of 400")
    parser.add_argument("--simulations", type=int, help="number of rounds")
    parser.add_argument("--seed", type=int, default=20)
    args = parser.parse_args()
    pk.enable_x64()
    simulations = args.simulations or (24 if args.quick else 400)
    ranked = 31 if args.quick else 63
    for ending, made in (methods or {"": nuts}).items():
        method = made(args.quick)
        where, began = machine(), time.perf_counter()
        ranks, health = calibration(simulations, method, ranked, args.seed)
        found = {
            "machine": where,
            "dtype": "float64",
            "simulations": simulations,
            "method": {f.name: plain(getattr(method, f.name)) for f in fields(method)},
            "ranked": ranked,
            "seed": args.seed,
            "seconds": time.perf_counter() - began,
        }
        print(f"{simulations} rounds, {method.label}, {ranked} draws ranked, float64")
        summary = summarised(ranks, health, ranked)
        write(f"{name}{ending}", found | summary, args.quick)


def summarised(ranks: Ranks, health: Ranks, ranked: int) -> dict[str, Any]:
    """Tests of the ranks, printed as a table, and all ranks."""
    tests = {name: p_values(r, ranked) for name, r in ranks.items()}
    smallest = min(min(p.values()) for p in tests.values())
    covered = {name: coverage(r, ranked) for name, r in ranks.items()}
    table(
        ("quantity", "p, chi-square", "p, ECDF", f"in {CENTRAL:.0%}", "counts"),
        [
            (
                quantity,
                tests[quantity]["chi_square"],
                tests[quantity]["ecdf"],
                covered[quantity],
                np.histogram(r, bins=BINS, range=(0, ranked + 1))[0],
            )
            for quantity, r in ranks.items()
        ],
    )
    # Bonferroni correction over quantities and tests. R-hat of the log density shows in
    # which rounds the chains disagree, because those rounds affect the ranks.
    verdict = min(1.0, smallest * 2 * len(ranks))
    means = {name: float(np.nanmean(values)) for name, values in health.items()}
    print(
        f"smallest p, corrected for {2 * len(ranks)} tests: {verdict:.3g}; mean of the "
        f"rounds: {', '.join(f'{k} {v:.3g}' for k, v in means.items())}"
    )
    unmixed = {}
    if "rhat_lp" in health:
        unmixed["share_unmixed"] = float((health["rhat_lp"] > 1.05).mean())
        print(f"R-hat of the log density over 1.05: {unmixed['share_unmixed']:.1%}")
    return unmixed | {
        "p_values": tests,
        "smallest_p_corrected": verdict,
        "coverage": covered,
        "ranks": {k: v.tolist() for k, v in ranks.items()},
        "health": {k: v.tolist() for k, v in health.items()},
    }
