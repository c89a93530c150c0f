"""Gaussian processes on a line as Markov chains: time and memory against length.

Timed are the log evidence with its gradient in the lengthscale, and the means and variances
at all places, each compiled before: by one pass ("sequential"), by blocks and by a tree,
for five processes. GPJax's state-space form, and its dense process, have the evidence and
its gradient of the same data, in turn with ours. `temp_gb` is the memory of intermediate
values that XLA reports for the program. Slopes are those of log time over log length
between the two longest.
"""

import argparse

import numpy as np
from timing import alternate, machine, median, table, timed, write

METHODS = ("sequential", "blocked", "associative")
NOISE = 0.1
SIMPLE = ("matern12", "matern32", "matern52")


def chosen(name: str, n: int, method: str) -> bool:
    """Which of them are worth their time: large states and trees compile for long."""
    if method == "associative":
        return name == "matern32" and n == 2000
    if method == "sequential":
        return n <= (10_000 if name == "quasiperiodic" else 100_000)
    return name in SIMPLE or n == 10_000


def processes(lengthscale):
    from probkit.gp import state_space as ss

    season = ss.Periodic(1.0, 1.0, num_waves=3)
    return {
        "matern12": lambda: ss.Matern(0.5, lengthscale),
        "matern32": lambda: ss.Matern(1.5, lengthscale),
        "matern52": lambda: ss.Matern(2.5, lengthscale),
        "quasiperiodic": lambda: ss.Product(season, ss.Matern(1.5, lengthscale)),
        "three": lambda: ss.Independent([ss.Matern(1.5, lengthscale)] * 3),
    }


def series(n: int) -> tuple[np.ndarray, np.ndarray]:
    """100 values per lengthscale, at random places."""
    rng = np.random.default_rng(0)
    x = np.sort(rng.uniform(0, n / 100, n))
    return x, np.sin(x) + NOISE * rng.normal(size=n)


def ours(name: str, method: str, question: str, x, y):
    import jax
    import jax.numpy as jnp

    from probkit.gp import state_space as ss

    precision = np.full((len(x), 1, 1), NOISE**-2)
    shift = precision[:, 0] * y[:, None]
    if name == "three":
        # One value is seen, whose weights differ from place to place: sites of rank one.
        weight = np.random.default_rng(1).normal(size=(len(x), 3))
        precision = precision * weight[:, :, None] * weight[:, None]
        shift = shift * weight
    sites = ss.Sites(jnp.asarray(precision), jnp.asarray(shift))

    def evidence(s, x, sites):
        return ss.log_evidence(processes(s)[name](), x, sites, method)

    def moments(s, x, sites):
        return ss.smooth(processes(s)[name](), x, sites, method)

    f = jax.value_and_grad(evidence) if question == "gradient" else moments
    return compiled(f, jnp.asarray(1.0), jnp.asarray(x), sites)


def gpjax(name: str, x, y, dense: bool = False):
    import gpjax as gpx
    import jax
    import jax.numpy as jnp
    from gpjax.state_space import StateSpacePrior, state_space_mll

    kernel = {
        "matern12": gpx.kernels.Matern12,
        "matern32": gpx.kernels.Matern32,
        "matern52": gpx.kernels.Matern52,
    }[name]
    prior = gpx.Prior if dense else StateSpacePrior
    mll = gpx.objectives.conjugate_mll if dense else state_space_mll

    def evidence(s, x, y):
        mean = gpx.mean_functions.Zero()
        p = prior(kernel=kernel(lengthscale=s, variance=1.0), mean_function=mean)
        model = p * gpx.likelihoods.Gaussian(obs_stddev=NOISE)
        return mll(model, gpx.Dataset(X=x, y=y))

    args = jnp.asarray(1.0), jnp.asarray(x)[:, None], jnp.asarray(y)[:, None]
    return compiled(jax.value_and_grad(evidence), *args)


def compiled(function, *args):
    """Time of the compilation, memory, and a function that runs once and waits."""
    import jax

    seconds, program = timed(lambda: jax.jit(function).lower(*args).compile())
    memory = program.memory_analysis()
    facts = {"compile_s": seconds["wall_s"]}
    facts["temp_gb"] = memory.temp_size_in_bytes / 1e9 if memory else float("nan")
    return facts, lambda: jax.block_until_ready(program(*args))


def measure(n: int, names, repeats: int) -> list[dict]:
    x, y = series(n)
    rows = []
    for name in names:
        sides = {}
        for method in METHODS:
            if not chosen(name, n, method):
                continue
            for question in ("gradient", "moments"):
                sides[method, question] = ours(name, method, question, x, y)
        if name in SIMPLE and n <= 100_000:
            sides["gpjax", "gradient"] = gpjax(name, x, y)
            if n <= 2000:
                sides["gpjax dense", "gradient"] = gpjax(name, x, y, dense=True)
        runs = {side: lambda _, run=run: timed(run)[0] for side, (_, run) in sides.items()}
        for run in runs.values():
            run(0)
        for (side, question), times in alternate(runs, repeats).items():
            facts, _ = sides[side, question]
            row = {"n": n, "process": name, "side": side, "question": question}
            clocks = {clock: median(times, clock) for clock in ("wall_s", "cpu_s")}
            rows.append(row | clocks | facts | {"times": times})
    return rows


def slopes(rows: list[dict]) -> list[dict]:
    out = []
    for key in dict.fromkeys((r["process"], r["side"], r["question"]) for r in rows):
        same = [r for r in rows if (r["process"], r["side"], r["question"]) == key]
        if len(same) > 1:
            a, b = same[-2:]
            slope = np.log(b["wall_s"] / a["wall_s"]) / np.log(b["n"] / a["n"])
            out.append(
                {"process": key[0], "side": key[1], "question": key[2], "slope": slope}
            )
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick

    import probkit as pk

    pk.enable_x64()
    facts = machine()
    lengths = [500] if quick else [2000, 10_000, 100_000, 1_000_000]
    rows = []
    for n in lengths:
        long = n >= 1_000_000
        names = SIMPLE[1:2] if quick else SIMPLE if long else tuple(processes(1.0))
        rows += measure(n, names, 1 if quick or n >= 100_000 else 3)
    header = ("n", "process", "side", "question", "wall_s", "cpu_s", "compile_s", "temp_gb")
    table(header, [tuple(row[name] for name in header) for row in rows])
    result = {"machine": facts, "dtype": "float64", "rows": rows, "slopes": slopes(rows)}
    write("state_space", result, quick)


if __name__ == "__main__":
    main()
