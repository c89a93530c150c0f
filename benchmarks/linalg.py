"""Kronecker products: probkit compared with NumPy, linear_operator, gpjax and dense SciPy.

All sides run in one process, in turn. Timed are the matrix-vector product with three equal
factors, n from 10^3 to 10^6, and `solve` and `logdet` of such a product plus noise, each
within `jax.jit` and called outside it; and `solve` of a Toeplitz matrix with one and with
many right-hand sides. Ratios are to the fastest other side of the same row. The result also
has the flop limit of the same cores, the memory, and the slope of cost over size.
"""

import argparse
import functools
import importlib.metadata
import importlib.util

import numpy as np
from timing import alternate, fresh_process, machine, median, table, timed, write

NOISE = 0.1
CLOCKS = ("wall_s", "cpu_s")


def installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def cube(m: int, dtype: str) -> tuple[list[np.ndarray], np.ndarray]:
    """Three covariances of points on a line, and a vector for their product."""
    x = np.linspace(0, 1, m)
    factors = [np.exp(-np.abs(x[:, None] - x) / s).astype(dtype) for s in (0.1, 0.3, 1.0)]
    return factors, np.random.default_rng(0).normal(size=m**3).astype(dtype)


# One function per peer. It takes the factors and the vector, and returns a function that
# does the work once and waits for the result.


def ours_matvec(factors, v):
    import jax
    import jax.numpy as jnp

    from probkit import linalg

    run = jax.jit(lambda F, v: linalg.Kronecker(F).mv(v))
    F, v = [jnp.asarray(A) for A in factors], jnp.asarray(v)
    return lambda: run(F, v).block_until_ready()


def ours_uncompiled_matvec(factors, v):
    import jax.numpy as jnp

    from probkit import linalg

    op, v = linalg.Kronecker([jnp.asarray(A) for A in factors]), jnp.asarray(v)
    return lambda: op.mv(v).block_until_ready()


def numpy_reshape_matvec(factors, v):
    shape = [len(F) for F in factors]

    def run():
        T = v.reshape(shape)
        for p, F in enumerate(factors):
            T = np.moveaxis(np.tensordot(F, T, axes=(1, p)), 0, p)
        return np.ascontiguousarray(T)

    return run


def numpy_einsum_matvec(factors, v):
    T = v.reshape([len(F) for F in factors])
    return lambda: np.einsum("ai,bj,ck,ijk->abc", *factors, T, optimize="optimal")


def linear_operator_matvec(factors, v):
    import torch
    from linear_operator.operators import KroneckerProductLinearOperator

    op = KroneckerProductLinearOperator(*[torch.from_numpy(F) for F in factors])
    v = torch.from_numpy(v)
    return lambda: op @ v


def gpjax_matvec(factors, v):
    import gpjax.linalg
    import jax
    import jax.numpy as jnp
    import lineax as lx

    # A product in gpjax has two factors, so products are nested here.
    run = jax.jit(
        lambda F, v: functools.reduce(
            lambda right, left: gpjax.linalg.Kronecker(left, right),
            [lx.MatrixLinearOperator(A) for A in F[::-1]],
        ).mv(v)
    )
    F, v = [jnp.asarray(A) for A in factors], jnp.asarray(v)
    return lambda: run(F, v).block_until_ready()


def dense_matvec(factors, v):
    K = functools.reduce(np.kron, factors)
    return lambda: K @ v


# The sides of `solve` and `logdet` of a product plus noise take the question too.


def ours_asked(question, factors, v):
    import jax
    import jax.numpy as jnp

    run = jax.jit(lambda F, v: _ours(question, F, v))
    F, v = [jnp.asarray(A) for A in factors], jnp.asarray(v)
    return lambda: run(F, v).block_until_ready()


def _ours(question, F, v):
    from probkit import linalg

    op = linalg.KroneckerPlusNoise(F, NOISE)
    return linalg.solve(op, v) if question == "solve" else linalg.logdet(op)


def ours_uncompiled_asked(question, factors, v):
    import jax.numpy as jnp

    from probkit import linalg

    op = linalg.KroneckerPlusNoise([jnp.asarray(A) for A in factors], NOISE)
    v = jnp.asarray(v)
    if question == "solve":
        return lambda: linalg.solve(op, v).block_until_ready()
    return lambda: linalg.logdet(op).block_until_ready()


def numpy_asked(question, factors, v):
    def spectrum(values):
        return functools.reduce(np.multiply.outer, values) + NOISE

    def solve():
        pairs = [np.linalg.eigh(F) for F in factors]
        T = numpy_reshape_matvec([U.T for _, U in pairs], v)()
        return numpy_reshape_matvec(
            [U for _, U in pairs], T / spectrum([w for w, _ in pairs])
        )()

    def logdet():
        return np.log(spectrum([np.linalg.eigvalsh(F) for F in factors])).sum()

    return solve if question == "solve" else logdet


def linear_operator_asked(question, factors, v):
    import torch
    from linear_operator.operators import (
        ConstantDiagLinearOperator,
        KroneckerProductAddedDiagLinearOperator,
        KroneckerProductLinearOperator,
    )

    v = torch.from_numpy(v)[:, None]
    noise = torch.full((1,), NOISE, dtype=v.dtype)

    def run():
        # Made in each call, because an operator keeps its eigenvectors.
        op = KroneckerProductAddedDiagLinearOperator(
            KroneckerProductLinearOperator(*[torch.from_numpy(F) for F in factors]),
            ConstantDiagLinearOperator(noise, len(v)),
        )
        with torch.no_grad():
            return op.solve(v) if question == "solve" else op.logdet()

    return run


def dense_asked(question, factors, v):
    import scipy.linalg

    S = functools.reduce(np.kron, factors) + NOISE * np.eye(len(v))

    def solve():
        return scipy.linalg.cho_solve(scipy.linalg.cho_factor(S), v)

    def logdet():
        return 2 * np.log(np.diag(scipy.linalg.cholesky(S))).sum()

    return solve if question == "solve" else logdet


def gpjax_asked(question, factors, v):
    import gpjax.linalg
    import jax
    import jax.numpy as jnp
    import lineax as lx

    def ask(F, v):
        matrices = [lx.MatrixLinearOperator(A) for A in F]
        inner = gpjax.linalg.Kronecker(matrices[1], matrices[2])
        K = gpjax.linalg.Kronecker(matrices[0], inner)
        S = K.as_matrix() + NOISE * jnp.eye(len(v), dtype=v.dtype)
        op = lx.MatrixLinearOperator(S, lx.positive_semidefinite_tag)
        if question == "solve":
            return lx.linear_solve(op, v, lx.Cholesky()).value
        return gpjax.linalg.logdet(op)

    run = jax.jit(ask)
    F, v = [jnp.asarray(A) for A in factors], jnp.asarray(v)
    return lambda: run(F, v).block_until_ready()


DENSE = 5_000  # most rows of a dense matrix, so that it fits and does not take too long
MATVEC = {
    "probkit": (ours_matvec, None, None),
    "probkit, no jit": (ours_uncompiled_matvec, None, None),
    "numpy reshape": (numpy_reshape_matvec, None, None),
    "numpy einsum": (numpy_einsum_matvec, None, None),
    "linear_operator": (linear_operator_matvec, "linear_operator", None),
    "gpjax": (gpjax_matvec, "gpjax", None),
    "scipy dense": (dense_matvec, None, DENSE),
}


def asked(question: str) -> dict:
    sides = {
        "probkit": (ours_asked, None, None),
        "probkit, no jit": (ours_uncompiled_asked, None, None),
        "numpy eigh": (numpy_asked, None, None),
        "linear_operator": (linear_operator_asked, "linear_operator", None),
        # gpjax has no rule for a product plus noise, so this side is dense.
        "gpjax": (gpjax_asked, "gpjax", DENSE),
        "scipy dense": (dense_asked, None, DENSE),
    }
    return {
        name: (functools.partial(make, question), needs, limit)
        for name, (make, needs, limit) in sides.items()
    }


def _repeat(run, count):
    for _ in range(count):
        run()


def seconds(run, least: float = 0.02) -> dict[str, float]:
    """Seconds per call: the mean of enough calls in a row to be measurable."""
    count, total = 1, timed(run)[0]
    while total["wall_s"] < least:
        count *= 4
        total = timed(functools.partial(_repeat, run, count))[0]
    return {name: value / count for name, value in total.items()}


def race(peers, m: int, dtype: str, repeats: int, gemm_size: int = 0) -> dict:
    """Times of all installed peers, in turn, and the differences of their answers.

    With `gemm_size`, a GEMM of that size is timed in the same rounds, as the flop limit.
    """
    factors, v = cube(m, dtype)
    runs = {}
    for name, (make, needs, limit) in peers.items():
        if needs and not installed(needs):
            runs[name] = "not installed"
        elif limit and m**3 > limit:
            runs[name] = "too large"
        else:
            runs[name] = make(factors, v)
    there = {name: run for name, run in runs.items() if callable(run)}
    first = {name: _parts(run()) for name, run in there.items()}  # compiles and warms up
    apart = {name: _apart(parts, first["probkit"]) for name, parts in first.items()}
    limits = gemm(dtype, gemm_size) if gemm_size else {}
    sides = there | {f"gemm by {name}": run for name, run in limits.items()}
    rounds = alternate(
        {name: lambda _, run=run: seconds(run) for name, run in sides.items()}, repeats
    )
    return {
        "factors": [m, m, m],
        "n": m**3,
        "dtype": dtype,
        "seconds": {name: rounds[name] for name in there},
        "gemm_size": gemm_size,
        "gemm_seconds": {name: rounds[f"gemm by {name}"] for name in limits},
        "apart": apart,
        "absent": {name: why for name, why in runs.items() if not callable(why)},
    }


def _parts(answer):
    parts = answer if isinstance(answer, tuple) else (answer,)
    return [np.asarray(x, np.float64).ravel() for x in parts]


def _apart(parts, expected) -> float:
    """The largest difference, relative to the largest expected entry of the same part."""
    pairs = zip(parts, expected, strict=True)
    return max(float(np.abs(x - y).max() / np.abs(y).max()) for x, y in pairs)


def gemm(dtype: str, size: int) -> dict:
    """A large matrix product, by XLA (which JAX calls) and by NumPy's BLAS."""
    import jax
    import jax.numpy as jnp

    A = np.random.default_rng(0).normal(size=(size, size)).astype(dtype)
    B, run = jnp.asarray(A), jax.jit(jnp.matmul)
    run(B, B).block_until_ready()
    return {"xla": lambda: run(B, B).block_until_ready(), "numpy": lambda: A @ A}


def against_the_limit(result: dict) -> dict:
    """GFlop/s of our mat-vec and of a GEMM, by elapsed time and by processor time."""
    flops, size = 6 * result["factors"][0] ** 4, result["gemm_size"]
    out = {}
    for clock in CLOCKS:
        ours = 1e-9 * flops / median(result["seconds"]["probkit"], clock)
        bound = {
            name: 2e-9 * size**3 / median(times, clock)
            for name, times in result["gemm_seconds"].items()
        }
        part = {name: ours / value for name, value in bound.items()}
        out[clock] = {"gflops": ours, "limit_gflops": bound, "part_of_limit": part}
    return out


def race_toeplitz(n: int, columns: int, repeats: int) -> dict:
    """Times of `solve` of an exponential covariance with one or more right-hand sides."""
    import jax
    import jax.numpy as jnp
    import scipy.linalg

    from probkit import linalg

    column = 0.9 ** np.arange(n)
    B = np.random.default_rng(0).normal(size=(n, columns))
    op, right = linalg.Toeplitz(column), jnp.asarray(B)

    def dense():
        factor = scipy.linalg.cho_factor(scipy.linalg.toeplitz(column))
        return scipy.linalg.cho_solve(factor, B)

    if columns == 1:
        B, right = B[:, 0], right[:, 0]
    compiled = jax.jit(linalg.solve)
    runs = {
        "probkit": lambda: compiled(op, right).block_until_ready(),
        "probkit, no jit": lambda: linalg.solve(op, right).block_until_ready(),
        "scipy Toeplitz": lambda: scipy.linalg.solve_toeplitz(column, B),
        "scipy dense": dense,
    }
    first = {name: _parts(run()) for name, run in runs.items()}
    rounds = alternate(
        {name: lambda _, run=run: seconds(run) for name, run in runs.items()}, repeats
    )
    apart = {name: _apart(parts, first["probkit"]) for name, parts in first.items()}
    return {
        "n": n,
        "columns": columns,
        "seconds": rounds,
        "apart": apart,
        "absent": {},
    }


MEMORY = """
import json, resource, sys
import jax, jax.numpy as jnp, numpy as np
import probkit as pk
from probkit import linalg
pk.enable_x64()
m = int(sys.argv[1])
run = jax.jit(lambda F, v: linalg.Kronecker(F).mv(v))
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
F, v = [jnp.ones((m, m))] * 3, jnp.ones(m**3)
compiled = run.lower(F, v).compile()
run([jnp.ones((2, 2))] * 3, jnp.ones(8)).block_until_ready()
before = peak() - v.nbytes
run(F, v).block_until_ready()
told = compiled.memory_analysis()
sizes = told.argument_size_in_bytes, told.output_size_in_bytes, told.temp_size_in_bytes
out = {"input_and_output": 2 * v.nbytes, "by_xla": sum(sizes), "peak": peak() - before}
print(json.dumps(out))
"""


def memory(m: int) -> dict:
    """Memory of one mat-vec, relative to input and output, in a fresh process."""
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "memory.py"
        script.write_text(MEMORY)
        out = fresh_process(str(script), str(m), PYTHONPATH=str(Path(__file__).parents[1]))
    out["times"] = max(out["by_xla"], out["peak"]) / out["input_and_output"]
    return {"factors": [m, m, m]} | out


def slope(races: list[dict]) -> float:
    """Slope of log time over log n. Three products of n^(1/3) flops per entry have 4/3."""
    n = [race["n"] for race in races]
    times = [median(race["seconds"]["probkit"], "cpu_s") for race in races]
    return float(np.polyfit(np.log(n), np.log(times), 1)[0])


OURS = ("probkit", "probkit, no jit")


def ratios(result: dict) -> dict[str, float]:
    """Our elapsed seconds over those of the fastest other side."""
    wall = {name: median(rows, "wall_s") for name, rows in result["seconds"].items()}
    fastest = min((name for name in wall if name not in OURS), key=wall.get)
    return {"fastest": fastest} | {
        name: wall[name] / wall[fastest] for name in OURS if name in wall
    }


def show(title: str, races: list[dict]) -> None:
    print(f"\n{title}: elapsed milliseconds, median; and ratios to the fastest other side")
    names = list(races[0]["seconds"] | races[0]["absent"])
    rows = []
    for race in races:
        race["ratios"] = ratios(race)
        cells = [
            1e3 * median(race["seconds"][name], "wall_s")
            if name in race["seconds"]
            else race["absent"][name]
            for name in names
        ]
        shape = race["n"], race.get("columns", race.get("dtype"))
        rows.append((*shape, *cells, *(race["ratios"].get(name, "") for name in OURS)))
    kind = "columns" if "columns" in races[0] else "dtype"
    table(("n", kind, *names, "ratio", "ratio, no jit"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, 3 repetitions")
    parser.add_argument("--repeats", type=int, help="number of repetitions")
    args = parser.parse_args()
    import probkit as pk

    pk.enable_x64()
    repeats = args.repeats or (3 if args.quick else 9)
    where = machine()
    where["threads"] = where["cores"]
    for name in ("linear_operator", "torch", "gpjax"):
        where[name] = (
            importlib.metadata.version(name) if installed(name) else "not installed"
        )

    sizes = (10, 22) if args.quick else (10, 22, 46, 100)
    largest = 500 if args.quick else 2000
    matvec = [
        race(MATVEC, m, "float64", repeats, largest if m >= 100 or args.quick else 0)
        for m in sizes
    ]
    matvec += [race(MATVEC, sizes[-1], "float32", repeats, largest)]
    solve, logdet = (
        [race(asked(question), m, "float64", repeats) for m in sizes]
        for question in ("solve", "logdet")
    )
    shapes = ((50, 1), (50, 50)) if args.quick else ((500, 1), (500, 500), (4000, 100))
    toeplitz = [race_toeplitz(n, k, repeats) for n, k in shapes]
    bytes_used = memory(sizes[-1])

    show("mat-vec", matvec)
    show("solve of a product plus noise", solve)
    show("logdet of a product plus noise", logdet)
    show("solve of a Toeplitz matrix", toeplitz)
    print("\nGFlop/s of the mat-vec, and the limit: a large GEMM in the same rounds")
    rows = []
    for result in matvec:
        if not result["gemm_size"]:
            continue
        result["against_the_limit"] = against_the_limit(result)
        for clock, told in result["against_the_limit"].items():
            parts = (f"{100 * value:.0f} %" for value in told["part_of_limit"].values())
            limits = told["limit_gflops"].values()
            rows.append(
                (result["n"], result["dtype"], clock, told["gflops"], *limits, *parts)
            )
    table(("n", "dtype", "clock", "ours", "XLA", "NumPy", "of XLA", "of NumPy"), rows)
    least = 1 if args.quick else 10_000
    large = [r for r in matvec if r["dtype"] == "float64" and r["n"] >= least]
    exponent = slope(large)
    print(
        f"\nmat-vec, slope of log processor time over log n: {exponent:.2f} (flops: 1.33)"
    )
    print(f"memory of a mat-vec: {bytes_used['times']:.2f} times input + output")
    result = {"machine": where, "repeats": repeats, "matvec": matvec}
    result |= {
        "solve": solve,
        "logdet": logdet,
        "toeplitz": toeplitz,
        "slope": exponent,
        "memory": bytes_used,
    }
    write("linalg", result, args.quick)


if __name__ == "__main__":
    main()
