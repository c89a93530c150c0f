"""The demo: four regimes of a motorcycle crash, by EM, SVI and NUTS."""

import os
import time
from pathlib import Path

import jax

import probkit as pk
from probkit import datasets, plots
from probkit.models import moe
from probkit.settings import available_cores

MOST_CHAINS = 4
DEVICES = "xla_force_host_platform_device_count"


def run(out: Path, *, quick: bool, cache: Path | None) -> None:
    began = time.perf_counter()
    if out.exists() and not out.is_dir():
        raise ValueError(f"`--out {out}` is a file; name a folder.")
    out.mkdir(parents=True, exist_ok=True)
    chains = _chains_side_by_side()
    pk.enable_x64()
    pk.use_compilation_cache(cache)
    crash = datasets.motorcycle()
    data = moe.Pairs(crash.time, crash.acceleration)
    model = moe.SoftmaxMoE(num_experts=4)
    print(
        f"{len(data)} readings of head acceleration (g) over time (ms) in simulated\n"
        "motorcycle crashes. The model: four straight lines, each in force for a while.\n"
        "Four, because two and three predict clearly worse by leave-one-out scores, and\n"
        "five no better (notebooks/two_regimes.py shows how to compare).\n"
        f"Running on {jax.default_backend()}, {chains} chains side by side."
    )
    fits: dict[str, pk.Fit] = {}
    for name, (method, words) in _methods(quick).items():
        print(f"\n== {name}: {words}", flush=True)
        before = time.perf_counter()
        fits[name] = pk.fit(
            model,
            data,
            method,
            key=jax.random.key(0),
            start=fits.get("EM"),
            throw=False,  # a run that has not settled says so in its table
        )
        seconds = time.perf_counter() - before
        print(f"{seconds:.1f} s, compilation included; {fits[name].result}.")
        print(pk.diagnose(fits[name]), flush=True)
        pk.save(fits[name], out / f"{name.lower()}.nc")
    print("\n== Side by side: posterior mean (sd)\n")
    print(_comparison(fits, ("coefficient", "noise_sd"), term="time"))
    print(f"\n== Pictures\n\n{_pictures(fits, out)}")
    print(f"\n{_closing(fits, quick)}")
    print(f"\nDone in {time.perf_counter() - began:.0f} s. Everything is in {out}/")


def _chains_side_by_side() -> int:
    """Split the processor into devices, one a chain. Must come before JAX starts."""
    flags = os.environ.get("XLA_FLAGS", "")
    if DEVICES not in flags:  # whoever set it knows better
        # A divisor of the number of chains, so that no device stands idle.
        count = max(n for n in (1, 2, MOST_CHAINS) if n <= available_cores())
        os.environ["XLA_FLAGS"] = f"{flags} --{DEVICES}={count}".strip()
    return min(jax.local_device_count(), MOST_CHAINS)


def _methods(quick: bool):
    # Powers of two: draws are worked through in batches, and a remainder would compile
    # anew.
    if quick:
        return {
            "EM": (pk.EM(num_restarts=4, num_draws=64), "the summit, quickly"),
            "SVI": (pk.SVI(max_steps=400, num_draws=64), "a few steps"),
            "NUTS": (
                pk.NUTS(num_chains=2, num_warmup=64, num_samples=64),
                "a few draws",
            ),
        }
    return {
        "EM": (
            pk.EM(num_restarts=64, num_draws=1024),
            "the summit of the posterior, from 64 random starts, and its curvature there",
        ),
        "SVI": (
            pk.SVI(guide="multivariate_normal", atol=0.05, num_draws=1024),
            "the closest normal distribution to the posterior, started from EM",
        ),
        "NUTS": (
            pk.NUTS(num_chains=MOST_CHAINS, num_warmup=512, num_samples=512),
            f"draws from the posterior itself, {MOST_CHAINS} chains started from EM",
        ),
    }


def _comparison(fits, names: tuple[str, ...], **at) -> str:
    """A line for each entry of some variables, a column for each fit."""
    columns, rows = [], []
    for fit in fits.values():
        draws = fit.posterior
        summary = {}
        for name in names:
            here = {dim: v for dim, v in at.items() if dim in draws[name].dims}
            array = draws[name].sel(here)
            mean, sd = array.mean(("chain", "draw")), array.std(("chain", "draw"))
            for expert in draws["expert"].values:
                label = ", ".join([*map(str, here.values()), f"expert {expert}"])
                summary[f"{name}[{label}]"] = (
                    f"{mean.sel(expert=expert):.2f} ({sd.sel(expert=expert):.2f})"
                )
        columns.append(summary)
        rows = list(summary)
    width = max(map(len, rows))
    lines = ["".join([" " * width, *(f"{name:>18}" for name in fits)])]
    for row in rows:
        lines.append("".join([f"{row:<{width}}", *(f"{c[row]:>18}" for c in columns)]))
    return "\n".join(lines)


def _pictures(fits, out: Path) -> str:
    import matplotlib

    matplotlib.use("Agg")  # to files, whatever screen there is
    import matplotlib.pyplot as plt

    nuts = fits["NUTS"]
    _, (above, below) = plt.subplots(
        2, 1, figsize=(7.2, 6.4), sharex=True, layout="constrained"
    )
    plots.band(nuts, above, key=jax.random.key(1)).set(
        xlabel="", ylabel="head acceleration (g)"
    )
    plots.memberships(nuts, below).set_xlabel("time after the impact (ms)")
    pictures = {
        "regimes": (
            above,
            "the data, where new readings would fall, and who is in force when",
        ),
        "posterior": (plots.posterior(nuts)[0], "every parameter, by NUTS"),
        "em": (plots.objective(fits["EM"]), "the climbs of EM's restarts"),
        "svi": (plots.objective(fits["SVI"]), "the loss of SVI"),
        "nuts": (plots.objective(nuts), "the log density along the chains"),
    }
    lines = []
    for name, (axes, words) in pictures.items():
        axes.figure.savefig(out / f"{name}.png", dpi=150)
        plt.close(axes.figure)
        lines.append(f"{name + '.png':<17}{words}")
    return "\n".join(lines)


def _closing(fits, quick: bool) -> str:
    if quick:
        return (
            "Everything runs. These runs were too short to trust, and the tables above\n"
            "say so where they say LOOK; run it again without --quick."
        )
    lines = [
        "What to look at: regimes.png first, then the tables above.",
        "NUTS is the reference where all its checks are ok. EM's sds come from the",
        "curvature at the summit.",
    ]
    khat = pk.diagnose(fits["SVI"])["PSIS k-hat"]
    lines.append(
        f"SVI's k-hat of {khat.value:.2f} is "
        + (
            f"below {khat.limit}: its draws may be used."
            if khat.ok
            else f"over {khat.limit}: the posterior is no normal\n"
            "distribution, and the tails of SVI are not to be trusted here."
        )
    )
    if not pk.diagnose(fits["NUTS"]).ok:
        lines.append("NUTS has checks that need a look: see its table for what to do.")
    return "\n".join(lines)
