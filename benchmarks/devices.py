"""The hot paths of the library on the device that JAX finds: a CPU or a GPU.

    python benchmarks/devices.py                     # a few minutes
    JAX_PLATFORMS=cpu python benchmarks/devices.py   # the processor of the same machine
    python benchmarks/devices.py --quick             # small sizes: does every row run?
    python benchmarks/devices.py --chains --budget 90   # the smoother, on a GPU
    python benchmarks/devices.py --only tucker   # rows with this word only
    python benchmarks/devices.py --compare a.json b.json

Each row is one program in one dtype: compiled, run once, and then timed. Times are elapsed
milliseconds per step, the median of several repetitions, and each waits for its result.
Compilation is timed apart. It includes tracing, and the program that makes the first state.
A row that fails keeps its error, and the next one runs. The results are written after each
row. `answer` is a number that follows from the result of the row, by which two devices can
be compared.
"""

import argparse
import functools
import gc
import json
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
import timing

import probkit as pk
from probkit import linalg
from probkit.gp import state_space
from probkit.gp.state_space import schedule
from probkit.method import loop
from probkit.model.source import example_of, steps_from
from probkit.models import moe, pde, sbl, tucker
from probkit.models.tucker.gibbs import swept
from probkit.record import write_atomically

EXPERTS, INPUTS, BATCH, NOISE = 4, 4, 1000, 0.1
CHAINS, NUTS_STEPS, NUTS_CHUNK = 4, 200, 10
# A repetition has as many steps as fit into `CALL_S`, in seconds. A row is repeated until
# it has taken `ROW_S`, at least `LEAST` times and at most `MOST` times. After `LONGEST_S`
# no repetition begins.
CALL_S, ROW_S, LONGEST_S = 0.2, 2.0, 20.0
LEAST, MOST = 3, 9
ANSWER_STEPS = 3


class Hot(NamedTuple):
    """A compiled program, ready to be timed.

    Attributes:
        compile_s: seconds of tracing and compilation.
        run: does so many steps, waits, and returns the number of steps that it did.
        answer: a number that follows from the result.
        unit: what a step is.
        most: the largest number of steps of one call.
        chunk: the number of steps of each call, or None for as many as fit.
        repeats: the largest number of repetitions.
        row_s: seconds after which no repetition begins.
    """

    compile_s: float
    run: Callable[[int], float]
    answer: float
    unit: str
    most: int = 10_000
    chunk: int | None = None
    repeats: int = MOST
    row_s: float = ROW_S


class Row(NamedTuple):
    """What is timed, and the function that compiles it."""

    name: str
    size: str
    make: Callable[[], Hot]


def compiled(function, *args) -> tuple[Any, float]:
    """The compiled program, and the seconds of tracing and compilation."""
    clock = time.perf_counter()
    program = function.lower(*args).compile()
    return program, time.perf_counter() - clock


# Steps of a method, in the loop of the library.


class Stepper:
    """The compiled start and steps of a method, for some data.

    Attributes:
        compile_s: seconds of tracing and compilation.
        states: the states before the first step.
    """

    def __init__(self, model, data, method, start=None):
        begun = method.begin(model, data, jax.random.key(0), start)
        bare, lanes = method.bare(), method.lanes()
        own = lanes.place((jax.random.split(begun.key_run, lanes.count), begun.start))
        source = data if begun.source is None else begun.source
        like, capacity = example_of(source), loop.CHUNK_STEPS
        args = bare, begun.program, like
        init, first_s = compiled(loop.init_lanes, *args, own, lanes)
        self.states = jax.block_until_ready(init(*args, own, lanes))
        args = bare, begun.program, steps_from(source, like, 0, 0, capacity)
        advance, step_s = compiled(
            loop.advance_lanes, *args, self.states, jnp.int32(0), capacity, lanes
        )
        self.compile_s = first_s + step_s
        self._advance = lambda states, count: advance(
            *args, states, jnp.int32(count), capacity, lanes
        )

    def advance(self, states, count: int):
        """The states after `count` steps, the trace, and the steps of each lane."""
        states, trace, counts, _ = jax.block_until_ready(self._advance(states, count))
        return states, trace, np.asarray(counts)

    def run(self, count: int) -> float:
        """Steps from the first state. Lanes that are done wait for the others."""
        return float(self.advance(self.states, count)[2].max())


def steps(model, data, method, answer: Callable[[Any, Any], Any]) -> Hot:
    """Steps of a method; `answer` takes the states and the trace of the first steps."""
    stepper = Stepper(model, data, method)
    states, trace, _ = stepper.advance(stepper.states, ANSWER_STEPS)
    found = float(answer(states, trace))
    return Hot(stepper.compile_s, stepper.run, found, "step", loop.CHUNK_STEPS)


def truth() -> dict[str, np.ndarray]:
    """Experts that overlap in part."""
    rng = np.random.default_rng(0)
    shape = (INPUTS + 1, EXPERTS)
    gate = rng.normal(0.0, 1.0, shape)
    return {
        "gate": gate - gate.mean(axis=1, keepdims=True),
        "coefficient": rng.normal(0.0, 2.0, shape),
        "noise_sd": np.linspace(0.4, 0.8, EXPERTS),
    }


@functools.lru_cache(maxsize=1)  # for the next row
def mixture(n: int, dtype: str):
    del dtype  # that of JAX at the call
    x = jax.random.normal(jax.random.key(1), (n, INPUTS))
    return moe.MixtureOfExperts(EXPERTS), moe.simulate(jax.random.key(2), x, **truth())


def dtype_now() -> str:
    return str(jnp.result_type(float))


def svi(n: int, batch: int | None) -> Hot:
    model, data = mixture(n, dtype_now())
    last = lambda _, trace: trace["loss"][0, ANSWER_STEPS - 1]  # noqa: E731
    return steps(model, data, pk.SVI(batch_size=batch), last)


def em(n: int, restarts: int) -> Hot:
    model, data = mixture(n, dtype_now())
    last = lambda _, trace: trace["objective"][0, ANSWER_STEPS - 1]  # noqa: E731
    return steps(model, data, pk.EM(restarts), last)


def nuts(n: int) -> Hot:
    """A leapfrog step of all chains. A chunk of draws goes on where the last one ended."""
    model, data = mixture(n, dtype_now())
    half = NUTS_STEPS // 2
    method = pk.NUTS(CHAINS, half, half, chain_method="vectorized")
    start = {
        name: jnp.broadcast_to(jnp.asarray(a, data.y.dtype), (CHAINS, *a.shape))
        for name, a in truth().items()
    }
    stepper = Stepper(model, data, method, start)
    # No steps: the program runs once before it is timed.
    here = [stepper.advance(stepper.states, 0)[0]]
    first = stepper.advance(stepper.states, 1)[1]["stat.lp"][0, 0]

    def run(count: int) -> float:
        here[0], trace, counts = stepper.advance(here[0], count)
        leapfrogs = np.asarray(trace["stat.n_steps"])[:, : counts.max()]
        return float(leapfrogs.max(axis=0).sum())  # each waits for the longest

    return Hot(
        stepper.compile_s,
        run,
        float(first),
        f"leapfrog step of {CHAINS} chains",
        chunk=NUTS_CHUNK,
        repeats=NUTS_STEPS // NUTS_CHUNK,
        row_s=LONGEST_S,
    )


def type_ii(atoms: int, rows: int, restarts: int) -> Hot:
    rng = np.random.default_rng(0)
    matrices = [rng.normal(size=(rows, atoms)) for _ in range(3)]
    x = np.zeros((atoms,) * 3)
    chosen = [rng.choice(atoms, 3, replace=False) for _ in range(3)]
    x[np.ix_(*chosen)] = rng.normal(size=(3, 3, 3))
    data = sbl.simulate(jax.random.key(3), matrices, x, 0.5, noise_known=False)
    method = sbl.TypeII(num_restarts=restarts)
    return steps(sbl.KroneckerSBL(), data, method, lambda states, _: states.here.noise[0])


# Calls of one function.


def calls(function, *args, answer: Callable[[Any], Any]) -> Hot:
    """Calls of a jitted function, each of which waits for its result."""
    program, seconds = compiled(function, *args)
    found = float(answer(jax.block_until_ready(program(*args))))

    def run(count: int) -> float:
        for _ in range(count):
            jax.block_until_ready(program(*args))
        return count

    return Hot(seconds, run, found, "call")


def cube(m: int):
    """Three covariances of points on a line, and a vector for their product."""
    x = np.linspace(0, 1, m)
    factors = [jnp.asarray(np.exp(-np.abs(x[:, None] - x) / s)) for s in (0.1, 0.3, 1.0)]
    v = np.random.default_rng(0).normal(size=m**3)
    return factors, jnp.asarray(v)


def matvec(m: int) -> Hot:
    product = jax.jit(lambda F, v: linalg.Kronecker(F).mv(v))
    return calls(product, *cube(m), answer=jnp.linalg.norm)


def solve(m: int) -> Hot:
    factors, v = cube(m)
    noisy = lambda F: linalg.KroneckerPlusNoise(F, NOISE)  # noqa: E731
    # The answer is how well the solution solves, so it differs between devices.
    off = jax.jit(lambda x: jnp.linalg.norm(noisy(factors).mv(x) - v) / jnp.linalg.norm(v))
    return calls(jax.jit(lambda F, v: linalg.solve(noisy(F), v)), factors, v, answer=off)


def logdet(m: int) -> Hot:
    noisy = jax.jit(lambda F: linalg.logdet(linalg.KroneckerPlusNoise(F, NOISE)))
    return calls(noisy, cube(m)[0], answer=lambda value: value)


def solution(num: int, rank: int | None) -> Hot:
    """The solution of u7 with its calibrated sds. The answer is its relative error."""
    from probkit.models.pde.gphm import table as gphm

    model, (problem, exact) = pde.SpectralGP(rank=rank), pde.examples.u7(num)
    sites = jax.tree.map(jnp.asarray, model.start_sites(problem))
    grid = gphm.even_points(problem)
    true = np.asarray(exact(problem.coordinates(grid)))

    def error(found) -> float:
        off = np.asarray(found.derivative(grid, (0, 0))) - true
        return float(np.linalg.norm(off) / np.linalg.norm(true))

    solved = eqx.filter_jit(lambda sites, problem: model.integrated(sites, problem))
    return calls(solved, sites, problem, answer=error)


# Entries of a tensor with three smooth modes.

RANK, POINTS = 5, 1000


@functools.lru_cache(maxsize=1)
def tensor(n: int, dtype: str) -> tucker.Entries:
    """Noisy values of a sum of products, of which each mode has 1,000 points."""
    del dtype  # that of JAX at the call
    rng = np.random.default_rng(0)
    x = rng.integers(0, POINTS, (3, n)) / POINTS
    waves = [np.sin(2 * np.pi * (r + 1) * x + r) for r in range(RANK)]
    y = sum(wave.prod(axis=0) for wave in waves) + NOISE * rng.normal(size=n)
    return tucker.Entries(dict(zip("abc", x, strict=True)), y)


def messages(n: int, learn: bool) -> Hot:
    """A sweep of message passing, with or without a step of the kernels' parameters."""
    method = tucker.MessagePassing(num_starts=1, learn=learn, warm=0, max_steps=1000)
    bound = lambda _, trace: trace["objective"][0, ANSWER_STEPS - 1]  # noqa: E731
    return steps(tucker.CP(RANK), tensor(n, dtype_now()), method, bound)


def gibbs(n: int) -> Hot:
    """A sweep of Gibbs sampling, with proposals for the kernels' parameters."""
    model, data = tucker.CP(RANK), tensor(n, dtype_now())
    method = tucker.MessagePassing(num_starts=1)
    state = method.init(model, data, jax.random.key(0), None)
    roots = tuple(0.1 * jnp.eye(len(a.inverse)) for a in state.ascents)
    sweep = eqx.filter_jit(
        lambda key, rate: swept(model, data, state.posterior, roots, key, rate)[0]
    )
    args = jax.random.key(1), jnp.asarray(0.1)
    return calls(sweep, *args, answer=lambda post: post.noise.mean)


# The smoother of Markov chains.

METHODS = {
    "float64": ("associative", "blocked", "sequential"),
    "float32": ("sequential",),
}
# Places per leaf of the tree, besides those of the library.
LEAVES = (4, 64)
CHAIN_S = 0.3  # seconds after which no repetition begins
# The length and the milliseconds of the last call, by method, state and dtype. No row
# begins that would take more than `MOST_MS`, if times grow with the length.
CHAIN_MS: dict[tuple, tuple[int, float]] = {}
MOST_MS = 3000.0


def process(d: int):
    """A process with a state of `d` numbers, and a lengthscale of one."""
    slow = state_space.Matern(2.5, 3.0)
    first = state_space.Matern(0.5 if d == 1 else 2.5, 1.0)
    return state_space.Sum([first, slow]) if d == 6 else first


def smoother(d: int, n: int, method: str, leaf: int | None = None) -> Hot:
    """Means and variances of a chain with 100 places per lengthscale."""
    key = method, leaf, d, dtype_now()
    before, ms = CHAIN_MS.get(key, (n, 0.0))
    if ms * n / before > MOST_MS:
        raise ValueError(f"not run: {before} places took {ms:.0f} ms")
    own = schedule.LEAF
    schedule.LEAF = own if leaf is None else leaf
    x = np.sort(np.random.default_rng(0).uniform(0, n / 100, n))
    sites = state_space.Sites.of_values(jnp.asarray(np.sin(x)), jnp.asarray(NOISE**2))
    smooth = jax.jit(lambda p, x, s: state_space.smooth(p, x, s, method))
    try:
        args = process(d), jnp.asarray(x), sites
        hot = calls(smooth, *args, answer=lambda found: found.log_evidence)
    finally:
        schedule.LEAF = own
    clock = time.perf_counter()
    hot.run(1)
    CHAIN_MS[key] = n, 1e3 * (time.perf_counter() - clock)
    return hot._replace(repeats=LEAST, row_s=CHAIN_S)


def of_chains(quick: bool, dtype: str) -> list[Row]:
    """The rows by which `state_space.schedule` chooses its method."""
    lengths = (1000,) if quick else (1000, 10_000, 100_000, 1_000_000)
    every: list[tuple] = [
        (d, n, method) for d in (3, 1, 6) for method in METHODS[dtype] for n in lengths
    ]
    if dtype == "float64":
        every += [(3, n, "associative", leaf) for leaf in LEAVES for n in lengths[-2:]]
    return [
        Row(
            f"smooth, {method}, {f'leaf {leaf[0]}, ' if leaf else ''}state {d}",
            f"n={n}",
            functools.partial(smoother, d, n, method, *leaf),
        )
        for d, n, method, *leaf in every
    ]


def rows(quick: bool, dtype: str) -> list[Row]:
    """The rows of one dtype. The most important come first, in case time runs out."""
    part = functools.partial
    sizes = (2_000,) if quick else (100_000, 1_000_000)
    batch = min(BATCH, sizes[0] // 2)
    chains = 500 if quick else 10_000
    restarts = [(n, 1) for n in sizes[::-1]] + [(sizes[0], 16)]
    # Atoms, rows and restarts.
    sparse = ((6, 4, 2),) if quick else ((30, 15, 8), (100, 50, 1))
    out = [
        Row(f"SVI, {what}", f"n={n}", part(svi, n, size))
        for n in sizes
        for what, size in ((f"batch of {batch}", batch), ("all rows", None))
    ]
    out += [Row(f"EM, restarts: {k}", f"n={n}", part(em, n, k)) for n, k in restarts]
    out += [Row("NUTS", f"n={chains}", part(nuts, chains))]
    out += [
        Row(f"Kronecker {make.__name__}", f"n={m}^3", part(make, m))
        for m in ((10,) if quick else (100, 300))
        for make in (matvec, solve, logdet)
    ]
    out += [
        Row(f"sbl.TypeII, restarts: {k}", f"N={n}^3, M={m}^3", part(type_ii, n, m, k))
        for n, m, k in sparse
    ]
    entries = (2_000,) if quick else (100_000, 1_000_000)
    out += [
        Row(f"tucker {name}", f"n={n}", make)
        for n in entries
        for name, make in (
            ("sweep, kernels kept", part(messages, n, False)),
            ("sweep", part(messages, n, True)),
            ("Gibbs sweep", part(gibbs, n)),
        )
    ]
    if dtype == "float64":  # differential equations refuse float32
        rank = 8 if quick else None
        out += [
            Row("pde u7 solution", f"{num} x {num}", part(solution, num, rank))
            for num in ((64,) if quick else (200, 400))
        ]
    return out


# Runs.


def timed(hot: Hot) -> dict[str, Any]:
    """Milliseconds per step of each repetition, and how many steps each had."""
    ms: list[float] = []
    done: list[float] = []

    def repeat(count: int) -> float:
        clock = time.perf_counter()
        units = hot.run(count)
        seconds = time.perf_counter() - clock
        ms.append(1e3 * seconds / max(units, 1))
        done.append(units)
        return seconds

    began, count = time.perf_counter(), hot.chunk
    if count is None:
        seconds = repeat(1)
        count = int(np.clip(CALL_S / seconds, 1, hot.most))
        if count > 1:  # else the first is as good as the others
            ms.clear()
            done.clear()
    while len(ms) < hot.repeats:
        spent = time.perf_counter() - began
        if ms and (spent > LONGEST_S or (spent > hot.row_s and len(ms) >= LEAST)):
            break
        repeat(count)
    return {"median_ms": float(np.median(ms)), "ms": ms, "steps": done}


def attempt(row: Row, dtype: str) -> dict[str, Any]:
    """The result of one row, or its error."""
    found: dict[str, Any] = {"name": row.name, "size": row.size, "dtype": dtype}
    clock = time.perf_counter()
    try:
        hot = row.make()
        found |= {"unit": hot.unit, "compile_s": hot.compile_s, "answer": hot.answer}
        found |= timed(hot)
    except Exception as error:
        found["error"] = f"{type(error).__name__}: {error}"[:1000]
    return found | {"whole_s": time.perf_counter() - clock}


def cells(found: dict[str, Any]) -> tuple[str, str]:
    """The median and the compilation of a row, as texts."""
    if "error" in found:
        return found["error"].splitlines()[0][:60], ""
    return f"{found['median_ms']:.4g}", f"{found['compile_s']:.2f}"


def compare(paths: list[str]) -> None:
    """Print how two results differ, in time and in their answers."""
    one, two = (json.loads(Path(path).read_text()) for path in paths)
    key = lambda found: (found["name"], found["size"], found["dtype"])  # noqa: E731
    others = {key(found): found for found in two["rows"]}
    lines = []
    for found in one["rows"]:
        other = others.get(key(found))
        if other is None:
            continue
        line: tuple = (*key(found), cells(found)[0], cells(other)[0])
        if "error" not in found and "error" not in other:
            a, b = found["answer"], other["answer"]
            ratio = other["median_ms"] / found["median_ms"]
            line += (f"{ratio:.3g}", f"{a:.6g}", f"{abs(a - b) / max(abs(b), 1e-300):.1e}")
        lines.append(line + ("",) * (8 - len(line)))
    print(f"\nfirst: {one['device']}; second: {two['device']}")
    print("apart: relative difference of the answers; of `solve` and `pde` they are errors")
    names = ("name", "size", "dtype", "first, ms", "second, ms", "ratio", "answer", "apart")
    timing.table(names, lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, for a check")
    parser.add_argument("--out", type=Path, help="file for the results")
    parser.add_argument("--only", default="", help="rows whose name has this text")
    parser.add_argument("--chains", action="store_true", help="the smoother only")
    parser.add_argument("--dtype", choices=("float64", "float32"), help="one dtype only")
    parser.add_argument(
        "--budget", type=float, default=540.0, help="seconds after which no row begins"
    )
    parser.add_argument("--commit", help="the commit of the code, where git is missing")
    parser.add_argument("--compare", nargs=2, metavar="FILE", help="compare two results")
    args = parser.parse_args()
    if args.compare:
        return compare(args.compare)

    began = time.perf_counter()
    device = jax.devices()[0]
    kind = device.device_kind
    slug = re.sub(r"[^a-z0-9]+", "-", kind.lower()).strip("-")
    quick = ("_chains" if args.chains else "") + ("_quick" if args.quick else "")
    path = args.out or timing.RESULTS / f"devices-{slug}{quick}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    where = timing.machine() | {"jaxlib": jaxlib.__version__}
    where["platform_version"] = device.client.platform_version
    where["openblas_threads"] = os.environ.get("OPENBLAS_NUM_THREADS", "default")
    if args.commit:
        where["commit"] = args.commit
    found: list[dict[str, Any]] = []
    result = {"machine": where, "device": kind, "clock": "elapsed ms per step"}
    result |= {"quick": args.quick, "rows": found}

    def keep() -> None:
        text = json.dumps(result, indent=1, default=float) + "\n"
        write_atomically(path, lambda file: file.write(text.encode()))

    print(f"{kind}, {device.platform}, jax {jax.__version__}", flush=True)
    keep()
    for dtype in (args.dtype,) if args.dtype else ("float64", "float32"):
        pk.enable_x64(dtype == "float64")
        for row in (of_chains if args.chains else rows)(args.quick, dtype):
            if args.only not in row.name:
                continue
            seconds = time.perf_counter() - began
            print(f"{seconds:6.1f} s  {row.name}, {row.size}, {dtype}", end="", flush=True)
            if seconds > args.budget:
                facts = {"name": row.name, "size": row.size, "dtype": dtype}
                found.append(facts | {"error": "not run: the time was over"})
            else:
                found.append(attempt(row, dtype))
            print(":", *cells(found[-1]), flush=True)
            keep()
            gc.collect()
    result["whole_s"] = time.perf_counter() - began
    keep()
    print()
    header = ("name", "size", "dtype", "device", "ms per step", "compile, s")
    timing.table(
        header,
        [(f["name"], f["size"], f["dtype"], device.platform, *cells(f)) for f in found],
    )
    print(f"{result['whole_s']:.0f} s in all; written to {path.name}")
    failed = sum("error" in f for f in found)
    if failed:
        print(f"{failed} of {len(found)} rows failed")
    return None


if __name__ == "__main__":
    sys.exit(main())
