"""The commands `python -m probkit demo`, `reproduce` and `info`."""

import argparse
import importlib.metadata
import os
import platform
import sys
from pathlib import Path

DEMO = """\
Fit a mixture of four experts to readings of a motorcycle crash by EM, SVI and NUTS, and
compare the results. Fits (.nc) and pictures (.png) are saved in a folder. The first run
takes one or two minutes; later runs are faster, because compiled programs are kept.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: the command line after `python -m probkit`; by default that of the
            process.

    Returns:
        The exit code: 0 success, 1 error, 130 interrupted.

    Raises:
        SystemExit: with code 2 if the command line is not valid, 0 after `--help`.
    """
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
        help="short runs, to check that everything works; the numbers are not reliable",
    )
    demo.set_defaults(run=_demo)
    reproduce = commands.add_parser(
        "reproduce",
        help="the published results of a paper, and ours",
        description="Run the problems of a paper, and print its results and ours.",
    )
    reproduce.add_argument(
        "paper",
        choices=["gphm", "funbat", "niwmeta"],
        help="gphm: equations of high frequencies, arXiv 2311.04465; funbat: tables of "
        "continuous coordinates, arXiv 2311.04829; niwmeta: learning from few points, "
        "OpenReview mQ72XRfYRZ",
    )
    reproduce.add_argument(
        "--only",
        metavar="NAMES",
        help="problems to run, separated by commas, such as u1,u3, pm25 or 5-shot "
        "(default: all)",
    )
    reproduce.add_argument(
        "--kernel",
        choices=["StM", "GM"],
        help="gphm: Student-t or Gaussian bumps (default: both)",
    )
    reproduce.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="funbat: the folder of beijing_daily.npz and us_temp.npz, which are not part "
        "of probkit",
    )
    reproduce.add_argument(
        "--quick",
        action="store_true",
        help="run two problems only, unless --only is given; funbat: one fold of each; "
        "niwmeta: fewer tasks",
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


def _demo(options: argparse.Namespace) -> int:
    from probkit import demo  # imported here because data and families cost import time

    demo.run(options.out, quick=options.quick, cache=options.cache)
    return 0


# Results of a paper.


def _reproduce(options: argparse.Namespace) -> int:
    run, refused = {
        "gphm": (_gphm, ("data",)),
        "funbat": (_funbat, ("kernel",)),
        "niwmeta": (_niwmeta, ("data", "kernel")),
    }[options.paper]
    for name in refused:
        if getattr(options, name) is not None:
            raise ValueError(f"`{options.paper}` has no `--{name}`; leave it out.")
    return run(options)


def _niwmeta(options: argparse.Namespace) -> int:
    import probkit as pk
    from probkit.models.meta.niwmeta import table

    names = table.chosen(options.only, options.quick)

    pk.enable_x64()
    print(f"{table.ABOUT}\n")
    for line in table.rows(names, options.quick):
        print(line, flush=True)
    print(f"\n{table.LEGEND}")
    return 0


def _funbat(options: argparse.Namespace) -> int:
    import probkit as pk
    from probkit.models.tucker.funbat import table

    names = table.chosen(options.only, options.quick)
    if options.data is not None and not options.data.is_dir():
        raise ValueError(f"`--data {options.data}` is not a folder.")

    pk.enable_x64()
    print(table.ABOUT)
    for line in table.rows(options.data, names, 1 if options.quick else 5):
        print(line, flush=True)
    print(f"\n{table.LEGEND}")
    return 0


def _gphm(options: argparse.Namespace) -> int:
    import probkit as pk
    from probkit.models.pde.gphm import table

    names = table.chosen(options.only, options.quick)

    pk.enable_x64()
    print(table.ABOUT)
    if options.quick and options.only is None:
        print(f"{table.SHORT}\n")
    for line in table.rows(names, options.kernel):
        print(line, flush=True)
    print(f"\n{table.LEGEND}")
    return 0


# Versions and devices.


def _info(options: argparse.Namespace) -> int:
    import jax
    import jax.numpy as jnp

    import probkit as pk
    from probkit.settings import available_cores

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
        "cores": f"{available_cores()} for this process, {os.cpu_count()} in the machine",
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
