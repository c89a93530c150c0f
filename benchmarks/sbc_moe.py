"""Simulation-based calibration of the softmax mixture of two linear experts under NUTS.

Parameters are drawn from the prior, data from the parameters, and the posterior is drawn
for these data. Over many such rounds the rank of a true value among its posterior draws
is uniform, if program, prior, units and sampler agree with one another. The quantities
ranked do not depend on the labels of the experts.

Source: Talts, Betancourt, Simpson, Vehtari & Gelman (2018), arXiv 1804.06788.
"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from scipy import stats
from timing import machine, table, write

import probkit as pk
from probkit.models import moe

numpyro.set_host_device_count(2)  # before the first computation
MODEL = moe.SoftmaxMoE(num_experts=2)
AT = np.array([[-1.5], [0.0], [1.5]])  # where E[y|x] is looked at
BINS = 8


@jax.jit
def quantities(sites, x, y):
    """What is ranked, for one draw: the same under any order of the experts."""
    smaller, larger = jnp.sort(sites["noise_sd"])
    mean = MODEL.conditional(sites, jnp.asarray(AT)).mean
    told = {f"E[y|x={at:g}]": mean[i] for i, at in enumerate(AT[:, 0])}
    log_likelihood = MODEL.conditional(sites, x).log_prob(y).sum()
    return told | {
        "log likelihood": log_likelihood,
        "smaller noise_sd": smaller,
        "larger noise_sd": larger,
    }


_of_all = jax.jit(jax.vmap(quantities, in_axes=(0, None, None)))


def calibrate(
    simulations: int, n: int, method: pk.NUTS, ranked: int, seed: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Ranks, 0 to `ranked`, of each true quantity; and how each run went."""
    one = jnp.ones(1)
    units = moe.Units(0 * one, one, 0 * one[0], one[0])
    x = np.linspace(-2.0, 2.0, n)
    like = moe.Pairs(x, np.sin(x), units=units)  # y is drawn anew for each round
    key_prior, key_runs = jax.random.split(jax.random.key(seed))
    drawn = pk.prior(MODEL, like, key=key_prior, num_draws=simulations)
    truth, simulated = (drawn[g].to_dataset() for g in ("prior", "prior_predictive"))
    ranks: dict[str, list] = {}
    health: dict[str, list] = {"divergences": [], "rhat_lp": [], "ess_lp": []}
    for i, key in enumerate(jax.random.split(key_runs, simulations)):
        y = simulated["y"].values[0, i]
        data = moe.Pairs(x, y, units=units)
        fitted = pk.fit(MODEL, data, method, key=key, progress=False, relabel=False)
        every = method.num_chains * method.num_samples // ranked
        draws = {
            k: v.values.reshape(-1, *v.shape[2:])[::every][:ranked]
            for k, v in fitted.posterior.data_vars.items()
        }
        own = {k: truth[k].values[0, i] for k in draws}
        true = quantities(own, data.x, data.y)
        for name, values in _of_all(draws, data.x, data.y).items():
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
    """Of uniform ranks: chi-square on `BINS` bins, and Kolmogorov-Smirnov."""
    counts = np.histogram(ranks, bins=BINS, range=(0, ranked + 1))[0]
    spread = np.random.default_rng(seed).uniform(size=len(ranks))
    continuous = (ranks + spread) / (ranked + 1)
    return {
        "chi_square": float(stats.chisquare(counts).pvalue),
        "ecdf": float(stats.kstest(continuous, "uniform").pvalue),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="24 rounds instead of 400")
    parser.add_argument("--simulations", type=int, help="how many rounds")
    parser.add_argument("--n", type=int, default=60, help="observations a round")
    parser.add_argument("--seed", type=int, default=20)
    args = parser.parse_args()
    pk.enable_x64()
    simulations = args.simulations or (24 if args.quick else 400)
    ranked = 31 if args.quick else 63
    steps = 300 if args.quick else 500
    method = pk.NUTS(num_chains=4, num_warmup=steps, num_samples=steps)
    where, began = machine(), time.perf_counter()
    ranks, health = calibrate(simulations, args.n, method, ranked, args.seed)
    seconds = time.perf_counter() - began
    tests = {name: p_values(r, ranked) for name, r in ranks.items()}
    smallest = min(min(p.values()) for p in tests.values())
    print(
        f"{simulations} rounds, n={args.n}, 4 chains of {steps} + {steps} steps, "
        f"{ranked} draws ranked, float64: {seconds:.0f} s"
    )
    table(
        ("quantity", "p, chi-square", "p, ECDF", "counts"),
        [
            (
                name,
                tests[name]["chi_square"],
                tests[name]["ecdf"],
                np.histogram(r, bins=BINS, range=(0, ranked + 1))[0],
            )
            for name, r in ranks.items()
        ],
    )
    # Bonferroni over quantities and tests; the log density's R-hat says where chains
    # did not meet, which shows in the ranks as well.
    verdict = min(1.0, smallest * 2 * len(ranks))
    unmixed = float((health["rhat_lp"] > 1.05).mean())
    print(
        f"smallest p, corrected for {2 * len(ranks)} tests: {verdict:.3g}; "
        f"rounds with R-hat of the log density over 1.05: {unmixed:.1%}; "
        f"divergences a round: {health['divergences'].mean():.2g}"
    )
    write(
        "sbc_moe",
        {
            "machine": where,
            "dtype": "float64",
            "simulations": simulations,
            "n": args.n,
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


if __name__ == "__main__":
    main()
