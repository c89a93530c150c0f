"""`python -m probkit demo`, `... reproduce` and `... info`."""

import argparse
import importlib.metadata
import os
import platform
import sys
import time
from pathlib import Path

MOST_CHAINS = 4
DEVICES = "xla_force_host_platform_device_count"

DEMO = """\
Fit four regimes of a motorcycle crash by EM, SVI and NUTS, and compare what they say.
The fits (.nc) and pictures (.png) go to a folder. Takes a minute or two, less when run
again: compiled programs are kept.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns its exit code: 0 done, 1 failed, 2 not understood."""
    options = _parser().parse_args(arguments)
    try:
        return options.run(options)
    except KeyboardInterrupt:
        print("probkit: interrupted.", file=sys.stderr)
        return 130
    except (OSError, RuntimeError, ValueError) as error:
        print(f"probkit {options.command}: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m probkit",
        description="Structured Bayesian models, fitted in minutes.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    demo = commands.add_parser(
        "demo", help="fit a small model from end to end", description=DEMO
    )
    demo.add_argument(
        "--out",
        type=Path,
        default=Path("probkit-demo"),
        metavar="DIR",
        help="folder for fits and pictures (default: %(default)s)",
    )
    demo.add_argument(
        "--quick",
        action="store_true",
        help="short runs, to see that everything works; do not trust the numbers",
    )
    demo.set_defaults(run=_demo)
    reproduce = commands.add_parser(
        "reproduce",
        help="a paper's published figures, and ours beside them",
        description="Run the problems of a paper, and print its figures and ours.",
    )
    reproduce.add_argument(
        "paper",
        choices=["gphm"],
        help="gphm: equations of high frequencies, arXiv 2311.04465",
    )
    reproduce.add_argument(
        "--only",
        metavar="NAMES",
        help="some problems, with commas between, such as u1,u3 (default: all)",
    )
    reproduce.add_argument(
        "--kernel",
        choices=["StM", "GM"],
        help="Student-t or Gaussian bumps (default: both)",
    )
    reproduce.add_argument(
        "--quick", action="store_true", help="u1 and u3 only, where none are named"
    )
    reproduce.set_defaults(run=_reproduce)
    info = commands.add_parser(
        "info",
        help="versions, devices and folders, for a bug report",
        description="Print versions, devices and folders, for a bug report.",
    )
    info.set_defaults(run=_info)
    for command in (demo, info):
        command.add_argument(
            "--cache",
            type=Path,
            metavar="DIR",
            help="folder for compiled programs (default: probkit's, in the user's cache)",
        )
    return parser


# The demo.


def _demo(options: argparse.Namespace) -> int:
    began = time.perf_counter()
    out = options.out
    if out.exists() and not out.is_dir():
        raise ValueError(f"`--out {out}` is a file; name a folder.")
    out.mkdir(parents=True, exist_ok=True)
    chains = _chains_side_by_side()

    import jax

    import probkit as pk
    from probkit import datasets
    from probkit.models import moe

    pk.enable_x64()
    pk.use_compilation_cache(options.cache)
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
    for name, (method, words) in _methods(pk, options.quick).items():
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
    print(f"\n{_closing(pk, fits, options.quick)}")
    print(f"\nDone in {time.perf_counter() - began:.0f} s. Everything is in {out}/")
    return 0


def _chains_side_by_side() -> int:
    """Split the processor into devices, one a chain. Must come before JAX starts."""
    flags = os.environ.get("XLA_FLAGS", "")
    if DEVICES not in flags:  # whoever set it knows better
        # A divisor of the number of chains, so that no device stands idle.
        count = max(n for n in (1, 2, MOST_CHAINS) if n <= _cores())
        os.environ["XLA_FLAGS"] = f"{flags} --{DEVICES}={count}".strip()

    import jax

    return min(jax.local_device_count(), MOST_CHAINS)


def _cores() -> int:
    """How many processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _methods(pk, quick: bool):
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
    import jax
    import matplotlib.pyplot as plt

    from probkit import plots

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


def _closing(pk, fits, quick: bool) -> str:
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


# A paper's figures.


def _reproduce(options: argparse.Namespace) -> int:
    from probkit import reproduce

    names = reproduce.chosen(options.only, options.quick)
    import probkit as pk

    pk.enable_x64()
    print(reproduce.ABOUT)
    if options.quick and options.only is None:
        print(f"{reproduce.SHORT}\n")
    for line in reproduce.rows(names, options.kernel):
        print(line, flush=True)
    print(f"\n{reproduce.LEGEND}")
    return 0


# What runs where.


def _info(options: argparse.Namespace) -> int:
    import jax
    import jax.numpy as jnp

    import probkit as pk

    precision = str(jnp.zeros(()).dtype)
    if precision == "float32":
        precision += ", unless pk.enable_x64() is called"
    rows = {
        "probkit": f"{_version('probkit-bayes')} in {Path(pk.__file__).parent}",
        "Python": f"{platform.python_version()} on {platform.platform()}",
        **{
            name: _version(name)
            for name in (
                "jax",
                "jaxlib",
                "numpyro",
                "equinox",
                "numpy",
                "scipy",
                "arviz",
                "xarray",
            )
        },
        "devices": ", ".join(str(device) for device in jax.devices()),
        "cores": f"{_cores()} for this process, {os.cpu_count()} in the machine",
        "precision": precision,
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", "") or "not set",
        "cache": str(pk.use_compilation_cache(options.cache)),
    }
    width = max(map(len, rows))
    print("\n".join(f"{name:<{width}}  {value}" for name, value in rows.items()))
    return 0


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    sys.exit(main())
