"""The demo: four regimes of a motorcycle crash, by EM, SVI and NUTS."""

import os
import time
from pathlib import Path

import jax

import probkit as pk
from probkit import datasets, plots
from probkit.models import moe
from probkit.settings import available_cores

MAX_CHAINS = 4
DEVICES = "xla_force_host_platform_device_count"


def run(out: Path, *, quick: bool, cache: Path | None) -> None:
    """Fit, compare, and save fits and pictures.

    Args:
        out: folder for the fits (`.nc`) and pictures (`.png`); made if it is missing.
        quick: short runs, whose numbers are not reliable.
        cache: folder for compiled programs; None is probkit's folder in the user's cache.

    Raises:
        ValueError: if `out` is a file.
    """
    began = time.perf_counter()
    if out.exists() and not out.is_dir():
        raise ValueError(f"`--out {out}` is a file; name a folder.")
    out.mkdir(parents=True, exist_ok=True)
    chains = _parallel_chains()
    pk.enable_x64()
    pk.use_compilation_cache(cache)
    crash = datasets.motorcycle()
    data = moe.Pairs(crash.time, crash.acceleration)
    model = moe.MixtureOfExperts(num_experts=4)
    print(
        f"{len(data)} readings of head acceleration (g) over time (ms) in simulated\n"
        "motorcycle crashes. The model has four straight lines, the experts, and a gate\n"
        "with the probability of each expert at each time. By leave-one-out scores two\n"
        "and three experts predict worse than four, and five predict no better\n"
        "(notebooks/two_regimes.py compares two and four).\n"
        f"Running on {jax.default_backend()}, {chains} chains in parallel."
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
            throw=False,  # the table of checks shows whether the run converged
        )
        seconds = time.perf_counter() - before
        print(f"{seconds:.1f} s including compilation; {fits[name].result}.")
        print(pk.diagnose(fits[name]), flush=True)
        pk.save(fits[name], out / f"{name.lower()}.nc")
    print("\n== Comparison: posterior mean (sd), coefficient in g per ms, noise_sd in g\n")
    print(_comparison(fits, ("coefficient", "noise_sd"), term="time"))
    print(f"\n== Pictures\n\n{_pictures(fits, out)}")
    print(f"\n{_closing(fits, quick)}")
    print(f"\nDone in {time.perf_counter() - began:.0f} s. Fits and pictures are in {out}/")


def _parallel_chains() -> int:
    """Split the processor into one device per chain, before JAX starts its backend.

    Returns the number of chains that run in parallel.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if DEVICES not in flags:  # a user's own setting is kept
        # A divisor of the number of chains, so that all devices have the same work.
        count = max(n for n in (1, 2, MAX_CHAINS) if n <= available_cores())
        os.environ["XLA_FLAGS"] = f"{flags} --{DEVICES}={count}".strip()
    return min(jax.local_device_count(), MAX_CHAINS)


def _methods(quick: bool):
    # Powers of two, because draws are processed in batches and a remainder would need
    # another compilation.
    if quick:
        return {
            "EM": (
                pk.EM(num_restarts=4, num_draws=64),
                "the maximum of the posterior density from 4 starts",
            ),
            "SVI": (
                pk.SVI(max_steps=400, num_draws=64),
                "a normal approximation of the posterior, 400 steps",
            ),
            "NUTS": (
                pk.NUTS(num_chains=2, num_warmup=64, num_samples=64),
                "draws from the posterior, 2 chains",
            ),
        }
    return {
        "EM": (
            pk.EM(num_restarts=64, num_draws=1024),
            "the maximum of the posterior density from 64 starts, and normal draws there",
        ),
        "SVI": (
            pk.SVI(guide="multivariate_normal", atol=0.05, num_draws=1024),
            "the normal distribution closest to the posterior, started from EM",
        ),
        "NUTS": (
            pk.NUTS(num_chains=MAX_CHAINS, num_warmup=512, num_samples=512),
            f"draws from the posterior, {MAX_CHAINS} chains started from EM",
        ),
    }


def _comparison(fits, names: tuple[str, ...], **at) -> str:
    """A table of posterior means and sds: one line per entry, one column per fit."""
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

    matplotlib.use("Agg")  # writes files, and needs no screen
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
            "the data, intervals of new readings, and the probability of each expert",
        ),
        "posterior": (
            plots.posterior(nuts)[0],
            "the posterior of each parameter, by NUTS",
        ),
        "em": (plots.objective(fits["EM"]), "the objective of each restart of EM"),
        "svi": (plots.objective(fits["SVI"]), "the loss of SVI"),
        "nuts": (plots.objective(nuts), "the log density of the draws of each chain"),
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
            "Everything works. These runs were too short to be reliable: checks marked\n"
            "LOOK in the tables above failed. For reliable numbers run it without --quick."
        )
    lines = [
        "Look at regimes.png first, then at the tables above.",
        "NUTS is the reference if all its checks are ok. The sds of EM come from the",
        "curvature of the log posterior density at its maximum.",
    ]
    khat = pk.diagnose(fits["SVI"])["PSIS k-hat"]
    lines.append(
        f"SVI's k-hat of {khat.value:.2f} is "
        + (
            f"below {khat.limit}, so its draws can be used."
            if khat.ok
            else f"above {khat.limit}. The posterior is not normal,\n"
            "so the tails of SVI are not reliable here."
        )
    )
    if not pk.diagnose(fits["NUTS"]).ok:
        lines.append("Some checks of NUTS failed; its table says what to do.")
    return "\n".join(lines)
