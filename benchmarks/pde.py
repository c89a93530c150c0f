"""The equations of GP-HM: our errors, intervals and seconds, and those of other methods.

The other methods are the paper's and two classical solvers.

python benchmarks/pde.py
python benchmarks/pde.py --part table
"""

import argparse
import functools
import json
import os
import queue
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pde_peers
from timing import HERE, RESULTS, fresh_process, machine, table, timed, write

ONE_THREAD = pde_peers.ONE_THREAD | {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}
TARGETS = {
    "error": {
        **dict.fromkeys(("u1", "u2", "u3", "u6"), 1e-6),
        "u4": 1e-4,
        **dict.fromkeys(("u5", "u7", "a1", "a2", "a3", "v1"), 1e-5),
    },
    "cpu_s": 10.0,
    # Of the 95 % intervals, on u1 to u7.
    "coverage": (0.90, 0.99),
    "width_ratio": 10.0,
    "slope": 1.2,
}
PARTS = ("curves", "scaling", "table")

# Grids of `pde.Closed`. The smallest have a little more than two points per wave.
CLOSED = {"u1": (210, 250, 400), "u3": (224, 400), "u7": (56, 96, 200)}
CHEBYSHEV = (0.9, 1.0, 1.1, 1.2, 1.3, 1.5)  # times the limit in `pde_peers`
DIFFERENCES = {1: (401, 1001, 4001, 10001, 40001, 100001), 2: (101, 201, 401, 801, 1601)}
# Grids of Adam, and the processor seconds that it gets per problem.
ADAM, ADAM_SECONDS = {"u1": 300, "u3": 300, "u7": 80}, 20.0
CHECKPOINTS = (50, 100, 200, 400, 800, 1600, 3200, 6400)
SCALING, RANK = (64, 128, 256, 512, 1024), 16


# Each of these runs in a process of its own.


def row(name: str, envelope: str) -> dict:
    """One row of the table: one problem with one kernel, cold and warm."""
    from probkit.models.pde.gphm import table as gphm

    return gphm.attempt(name, envelope)._asdict()


def curve(name: str, side: str) -> list[dict]:
    """Error and processor seconds of one side, over sizes or steps."""
    return {
        "closed": closed,
        "chebyshev": functools.partial(peer, "chebyshev"),
        "finite_differences": functools.partial(peer, "finite_differences"),
        "adam": adam,
    }[side](name)


def closed(name: str) -> list[dict]:
    from probkit.models.pde.gphm import table as gphm

    told = [gphm.attempt(name, "gaussian", num) for num in CLOSED[name]]
    return [
        {"num": num, "error": one.error, "cpu_s": one.warm_s, "cold_s": one.cold_s}
        for num, one in zip(CLOSED[name], told, strict=True)
    ]


def peer(side: str, name: str) -> list[dict]:
    limit = pde_peers.limit(name)
    nums = {
        "chebyshev": [round(m * limit) + 2 for m in CHEBYSHEV],
        "finite_differences": DIFFERENCES[len(pde_peers.PROBLEMS[name].box)],
    }[side]
    solve = pde_peers.PEERS[side]
    solve(name, nums[0])  # the cost of a first call is not that of the method
    rows = []
    for num in nums:
        runs = [solve(name, num) for _ in range(3)]
        seconds = float(np.median([s for _, s in runs]))
        error = pde_peers.error(name, runs[0][0])
        rows.append({"num": num, "error": error, "cpu_s": seconds})
    return rows


def adam(name: str) -> list[dict]:
    """The paper's method for `ADAM_SECONDS`: the current error, not the smallest so far."""
    import equinox as eqx
    import jax

    from probkit.models import pde
    from probkit.models.pde.gphm import table as gphm

    problem, exact = getattr(pde.examples, name)(ADAM[name])
    model, method = pde.GridGP("gaussian", max_frequency=20.0), pde.Adam(1)
    if name == "u7":  # just below the Nyquist frequency of this grid
        model = pde.GridGP("gaussian", max_frequency=6.0)
    grid = gphm.even_points(problem)
    points = np.stack([a.reshape(-1) for a in np.meshgrid(*grid, indexing="ij")], axis=-1)
    truth = np.asarray(exact(problem.coordinates(grid))).reshape(-1)

    @eqx.filter_jit
    def steps(state, count):
        return jax.lax.fori_loop(
            0, count, lambda _, s: method.step(model, problem, s), state
        )

    @eqx.filter_jit
    def predicted(state):
        sites = model.sites(state.position, problem)
        return model.predict(sites, model.inputs(points, problem), None)["u"]

    # A step removes weak types. With none in the state, and counts as arrays, there is only
    # one program to compile.
    state = method.init(model, problem, jax.random.key(0), None)
    state = jax.tree.map(lambda a: a.astype(a.dtype), state)
    jax.block_until_ready(steps(state, jax.numpy.asarray(0)))
    rows, spent, done = [], 0.0, 0
    for goal in CHECKPOINTS:
        if done and spent * goal / done > ADAM_SECONDS:
            break
        run = functools.partial(steps, state, jax.numpy.asarray(goal - done))
        seconds, state = timed(lambda run=run: jax.block_until_ready(run()))
        spent, done = spent + seconds["cpu_s"], goal
        off = np.asarray(predicted(state)) - truth
        error = float(np.linalg.norm(off) / np.linalg.norm(truth))
        rows.append({"num": ADAM[name], "steps": done, "error": error, "cpu_s": spent})
    return rows


def scaling() -> list[dict]:
    """Seconds of a solution with a given kernel, and of a whole fit, over grid sizes."""
    import equinox as eqx
    import jax

    import probkit as pk
    from probkit.models import pde
    from probkit.models.pde.gphm import table as gphm

    model, key = pde.SpectralGP(rank=RANK), jax.random.key(0)

    @eqx.filter_jit
    def solve(problem, sites):
        return model.integrated(sites, problem)  # with its calibrated sds

    rows = []
    for num in SCALING:
        problem, exact = pde.examples.u7(num)

        def fit(problem=problem):
            return pk.fit(
                model, problem, pde.Closed(), key=key, throw=False, progress=False
            )

        sites = jax.tree.map(jax.numpy.asarray, model.start_sites(problem))

        def once(problem=problem, sites=sites):
            return jax.block_until_ready(solve(problem, sites))

        told: dict[str, Any] = {"num": num}
        for what, run in (("solution", once), ("fit", fit)):
            told[f"{what}_cold_s"] = timed(run)[0]["cpu_s"]
            told[f"{what}_s"] = [timed(run)[0]["cpu_s"] for _ in range(3)]
        grid = gphm.even_points(problem)
        truth = np.asarray(exact(problem.coordinates(grid)))
        off = np.asarray(once().derivative(grid, (0, 0))) - truth
        told["error"] = float(np.linalg.norm(off) / np.linalg.norm(truth))
        rows.append(told)
    return rows


# The parts, which start these processes.


def cores() -> list[int]:
    return sorted(os.sched_getaffinity(0))


def pinned(calls: list[tuple[str, ...]], at_once: int) -> Iterator[tuple[Any, Any]]:
    """Run this file for each call, in a process that has one core from its start."""
    free: queue.Queue[int] = queue.Queue()
    for core in cores()[::-1][:at_once]:
        free.put(core)

    def run(call: tuple[str, ...]):
        core = free.get()
        # This sets the core of this thread alone. The process that it starts inherits it.
        os.sched_setaffinity(0, {core})
        try:
            return fresh_process(__file__, *call, **ONE_THREAD)
        finally:
            free.put(core)

    with ThreadPoolExecutor(at_once) as pool:
        yield from zip(calls, pool.map(run, calls), strict=True)


def run_table(keep: Callable, now: Callable, args: argparse.Namespace) -> None:
    from probkit.models.pde.gphm import table as gphm

    names = gphm.chosen(args.only, args.quick)
    every = [(name, e) for name in gphm.PUBLISHED for e in gphm.KERNELS]
    # With --only the rows of other problems are kept, each with its time.
    mine: dict[tuple, dict] = {}
    calls = [("--row", *which) for which in every if which[0] in names]
    for (_, *which), told in pinned(calls, args.at_once):
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        mine[tuple(which)] = told | {"ran_at": when}
        others = now("table").get("rows", ()) if args.only else ()
        known = {(r["problem"], r["envelope"]): r for r in others} | mine
        rows = [known[which] for which in every if which in known]
        keep(
            "table", {"machine": machine(), "processes_at_once": args.at_once, "rows": rows}
        )
    print(
        "\none core per process: error, 95 % interval, processor seconds to fit and predict"
    )
    shown = [tuple(one.values())[:8] for one in rows]
    table(
        (
            "problem",
            "kernel",
            "published",
            "error",
            "coverage",
            "width/error",
            "cold",
            "warm",
        ),
        [(*first, round(cold, 2), round(warm, 2)) for *first, cold, warm in shown],
    )
    print("\ntargets that were missed")
    missed = [words for one in rows for words in misses(one)]
    print("\n".join(missed) if missed else "none")
    for when in ("cold_s", "warm_s"):
        slow = sum(one[when] >= TARGETS["cpu_s"] for one in rows)
        print(f"{when}: {len(rows) - slow} of {len(rows)} under {TARGETS['cpu_s']:g} s")


def misses(one: dict) -> list[str]:
    """The targets that a row misses, one line of text each."""
    who = f"{one['problem']} {one['envelope']}"
    goal = TARGETS["error"][one["problem"]]
    low, high = TARGETS["coverage"]
    tests = [
        (one["error"] <= goal, f"error {one['error']:.1e} above {goal:g}"),
        (
            one["error"] <= one["published"],
            f"error above the published {one['published']:g}",
        ),
    ]
    for when in ("cold_s", "warm_s"):
        seconds = one[when]
        tests.append((seconds < TARGETS["cpu_s"], f"{when} {seconds:.1f}"))
    if one["problem"].startswith("u"):
        coverage, ratio = one["coverage"], one["width_ratio"]
        tests.append((low <= coverage <= high, f"coverage {coverage:.3f}"))
        tests.append((ratio <= TARGETS["width_ratio"], f"width/error {ratio:.1f}"))
    tests.append((one["settled"], "not settled"))
    tests += [(False, f"check: {name}") for name in one["concerns"]]
    return [f"{who}: {words}" for good, words in tests if not good]


SIDES = ("closed", "chebyshev", "finite_differences", "adam")


def run_curves(keep: Callable, now: Callable, args: argparse.Namespace) -> None:
    names = ("u1",) if args.quick else tuple(CLOSED)
    sides = (args.side,) if args.side else SIDES
    calls = [("--curve", name, side) for side in sides for name in names]
    curves: dict[str, dict] = {
        name: now("curves").get(name, {}) if args.side else {} for name in names
    }
    for (_, name, side), rows in pinned(calls, args.at_once):
        curves[name][side] = rows
        keep("curves", {"machine": machine(), "processes_at_once": args.at_once} | curves)
    for name, sides in curves.items():
        print(f"\n{name}: relative L2 error, processor seconds, warm")
        rows = [
            (side, r["num"], r.get("steps", ""), r["error"], r["cpu_s"])
            for side, told in sides.items()
            for r in told
        ]
        table(("side", "num", "steps", "error", "cpu_s"), rows)


def run_scaling(keep: Callable, now: Callable, args: argparse.Namespace) -> None:
    ((_, rows),) = pinned([("--scaling",)], 1)
    slopes = {what: slope(rows, what) for what in ("solution_s", "fit_s")}
    told = {"machine": machine(), "rank": RANK, "rows": rows, "slopes": slopes}
    keep("scaling", told)
    print(f"\nu7 with rank {RANK}: processor seconds, warm, median of three")
    table(
        ("num", "points", "solution", "fit", "error"),
        [
            (
                r["num"],
                r["num"] ** 2,
                *(float(np.median(r[w])) for w in slopes),
                r["error"],
            )
            for r in rows
        ],
    )
    verdict = "reached" if slopes["solution_s"] <= TARGETS["slope"] else "missed"
    print(f"slopes over the number of points: {slopes}; target {verdict}")


def slope(rows: list[dict], what: str) -> float:
    """Slope of log seconds over log points, by least squares."""
    points = [2 * np.log(r["num"]) for r in rows]
    return float(np.polyfit(points, [np.log(np.median(r[what])) for r in rows], 1)[0])


# Pictures.

WORDS = {
    "closed": "probkit, closed form",
    "chebyshev": "Chebyshev collocation",
    "finite_differences": "finite differences",
    "adam": "the paper's Adam (GridGP)",
}
TITLES = {
    "u1": "u1: sin 100x",
    "u3": "u3: sin 6x cos 100x",
    "u7": "u7: sin 6x cos 20x + sin 6y cos 20y",
}


def draw_curves(told: dict) -> None:
    import matplotlib.pyplot as plt

    from probkit.plots.style import COLOURS, GREY, INK

    names = [name for name in TITLES if name in told]
    figure, panels = plt.subplots(
        1, len(names), figsize=(10, 3.8), sharey=True, layout="constrained", squeeze=False
    )
    for ax, name in zip(panels[0], names, strict=True):
        for colour, (side, rows) in zip(COLOURS, told[name].items(), strict=False):
            x, y = [r["cpu_s"] for r in rows], [r["error"] for r in rows]
            ax.loglog(x, y, "o-", color=colour, lw=1.8, ms=4, label=WORDS[side])
        ax.set_title(TITLES[name], loc="left", fontsize="medium", color=INK)
        ax.set_xlabel("processor seconds")
        tidy(ax)
    panels[0, 0].set_ylabel("relative L2 error")
    handles, words = panels[0, 0].get_legend_handles_labels()
    figure.legend(
        handles,
        words,
        loc="outside upper right",
        ncols=4,
        frameon=False,
        labelcolor=INK,
        fontsize="small",
        handlelength=1.4,
    )
    figure.text(
        0.005, 0.985, "warm: without compilation", color=GREY, fontsize="small", va="top"
    )
    keep_picture(figure, "pde_work_precision")


def draw_scaling(told: dict) -> None:
    import matplotlib.pyplot as plt

    from probkit.plots.style import COLOURS, INK, PALE

    figure, ax = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
    points = np.array([r["num"] ** 2 for r in told["rows"]])
    for colour, (what, word) in zip(
        COLOURS, {"solution_s": "solution", "fit_s": "whole fit"}.items(), strict=False
    ):
        seconds = [float(np.median(r[what])) for r in told["rows"]]
        label = f"{word}, slope {told['slopes'][what]:.2f}"
        ax.loglog(points, seconds, "o-", color=colour, lw=1.8, ms=4, label=label)
    last = float(np.median(told["rows"][-1]["solution_s"]))
    line = last * points / points[-1]
    ax.loglog(points, line, "--", color=PALE, lw=1.2, label="proportional to grid points")
    ax.set(xlabel="grid points", ylabel="processor seconds, warm")
    ax.legend(
        loc="lower right",
        bbox_to_anchor=(1.0, 1.0),
        ncols=3,
        frameon=False,
        labelcolor=INK,
        fontsize="small",
        handlelength=1.4,
    )
    tidy(ax)
    keep_picture(figure, "pde_scaling")


def tidy(ax) -> None:
    from probkit.plots.style import GREY, PALE

    for side, spine in ax.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(PALE)
    ax.tick_params(which="both", color=PALE, labelcolor=GREY)


def keep_picture(figure, name: str) -> None:
    path = HERE.parent / "docs" / "pictures" / f"{name}.png"
    figure.savefig(path, dpi=150)
    print(f"wrote docs/pictures/{name}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one or two problems")
    parser.add_argument("--part", choices=PARTS, action="append", help="default: all")
    parser.add_argument(
        "--at-once",
        type=int,
        default=1,
        help="number of processes at the same time, one core each",
    )
    parser.add_argument(
        "--only", help="only these rows of the table, such as u1,u3; other rows are kept"
    )
    parser.add_argument(
        "--side", choices=SIDES, help="only this side of the curves; other sides are kept"
    )
    parser.add_argument("--row", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--curve", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--scaling", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.row or args.curve or args.scaling:
        import probkit as pk

        pk.enable_x64()
        told = (
            row(*args.row) if args.row else curve(*args.curve) if args.curve else scaling()
        )
        print(json.dumps(told, default=float))
        return

    import matplotlib

    matplotlib.use("Agg")
    kept = RESULTS / f"pde{'_quick' if args.quick else ''}.json"

    def now(part: str) -> dict:
        # Read from disk each time, because another part may run at the same time.
        return (json.loads(kept.read_text()) if kept.exists() else {}).get(part, {})

    def keep(part: str, told: dict) -> None:
        whole = {name: now(name) for name in PARTS} | {part: told}
        write("pde", {"dtype": "float64", "targets": TARGETS} | whole, args.quick)

    parts = {"curves": run_curves, "scaling": run_scaling, "table": run_table}
    for part in args.part or PARTS:
        parts[part](keep, now, args)
        if part in ("curves", "scaling") and not args.quick:
            {"curves": draw_curves, "scaling": draw_scaling}[part](now(part))


if __name__ == "__main__":
    main()
