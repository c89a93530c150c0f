"""Classical rivals of `probkit.models.pde`: Chebyshev collocation, finite differences.

The solvers use NumPy and SciPy alone, in processes with one thread. Both get the exact
solution where the problems of `probkit.models.pde.examples` have conditions, and the source
at any point, because each chooses its own points. `chebyshev(name, num)` and
`finite_differences(name, num)` return the values at the test points, 300 evenly spaced ones
per axis, and the processor seconds of the solution. These include matrices, source and
solver, and not the interpolation to the test points.

    python benchmarks/pde_peers.py
"""

import argparse
import json
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.linalg
from scipy.fft import dstn
from scipy.interpolate import CubicSpline
from scipy.signal import lfilter
from scipy.sparse.linalg import LinearOperator, gmres
from timing import alternate, fresh_process, machine, table, timed, write

TEST_POINTS = 300
SPEED = 200.0  # of the wave of v1
# NumPy reads these when it is imported, so a solver with one thread needs a new process.
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"
)


# The problems: each solution and its Laplacian, in closed form.


class Wave(NamedTuple):
    value: Callable
    bend: Callable  # second derivative of the value


class Problem(NamedTuple):
    box: tuple[tuple[float, float], ...]
    exact: Callable
    laplacian: Callable
    top: float  # highest angular frequency of the solution along an axis
    cubic: bool = False  # whether the left-hand side has u (u^2 - 1)

    def source(self, *x):
        u = self.exact(*x)
        return self.laplacian(*x) + self.cubic * u * (u**2 - 1)


def sines(*terms: tuple[float, float]) -> Wave:
    """The sum of a sin kx over the given pairs (a, k)."""
    return Wave(
        lambda x: sum(a * np.sin(k * x) for a, k in terms),
        lambda x: sum(-a * k**2 * np.sin(k * x) for a, k in terms),
    )


def line(box, wave: Wave, top: float, cubic: bool = False) -> Problem:
    return Problem((box,), wave.value, wave.bend, top, cubic)


def product(box, wave: Wave, top: float, cubic: bool = False) -> Problem:
    f, g = wave
    return Problem(
        (box, box),
        lambda x, y: f(x) * f(y),
        lambda x, y: g(x) * f(y) + f(x) * g(y),
        top,
        cubic,
    )


def both(box, wave: Wave, top: float) -> Problem:
    f, g = wave
    return Problem((box, box), lambda x, y: f(x) + f(y), lambda x, y: g(x) + g(y), top)


TURN, UNIT = (0.0, 2 * np.pi), (0.0, 1.0)
CLOSE = sines((0.5, 106), (-0.5, 94))  # sin 6x cos 100x
MIXED = sines((0.5, 26), (-0.5, 14))  # sin 6x cos 20x
RISING = Wave(
    lambda x: x * np.sin(200 * x),
    lambda x: 400 * np.cos(200 * x) - 4e4 * x * np.sin(200 * x),
)
BOWL = Wave(
    lambda x: np.sin(500 * x) - 2 * (x - 0.5) ** 2,
    lambda x: -25e4 * np.sin(500 * x) - 4,
)
THREE = Wave(
    lambda x: np.sin(x) + 0.1 * np.sin(20 * x) + np.cos(100 * x),
    lambda x: -np.sin(x) - 40 * np.sin(20 * x) - 1e4 * np.cos(100 * x),
)
PROBLEMS = {
    "u1": line(TURN, sines((1, 100)), 100),
    "u2": line(TURN, sines((1, 1), (0.1, 20), (0.05, 100)), 100),
    "u3": line(TURN, CLOSE, 106),
    "u4": line(TURN, RISING, 200),
    "u5": line(UNIT, BOWL, 500),
    "a1": line(TURN, sines((1, 100)), 100, cubic=True),
    "a2": line(TURN, CLOSE, 106, cubic=True),
    "u6": product(TURN, sines((1, 100)), 100),
    "u7": both(TURN, MIXED, 26),
    "a3": product(UNIT, THREE, 100, cubic=True),
    # v1 has a different equation: u_t + 200 u_x = 0.
    "v1": Problem((TURN, UNIT), lambda x, t: np.sin(x - SPEED * t), lambda x, t: 0, SPEED),
}


def exact_at_test_points(name: str) -> np.ndarray:
    problem = PROBLEMS[name]
    axes = [np.linspace(*ends, TEST_POINTS) for ends in problem.box]
    return problem.exact(*np.meshgrid(*axes, indexing="ij"))


def error(name: str, values: np.ndarray) -> float:
    """Relative L2 error at the test points."""
    exact = exact_at_test_points(name)
    return float(np.linalg.norm(values - exact) / np.linalg.norm(exact))


# Newton's method, with any discretisation and any linear solver.


def newton(problem: Problem, u, residual: Callable, correct: Callable):
    """Solve lap u = f, and from there lap u + u (u^2 - 1) = f if the problem is cubic.

    `residual(u)` is lap u - f at inner points. `correct(r, w)` solves lap d + w d = r.
    """
    inside = (slice(1, -1),) * u.ndim
    r = residual(u)
    u[inside] -= correct(r, None)
    if not problem.cubic:
        return u
    for _ in range(30):
        v = u[inside]
        step = correct(residual(u) + v * (v**2 - 1), 3 * v**2 - 1)
        u[inside] -= step
        # Each step doubles the correct digits, so the remaining error is below rounding.
        if np.linalg.norm(step) <= 1e-8 * np.linalg.norm(u):
            return u
    raise RuntimeError("Newton's method did not converge in 30 steps")


def krylov(direct: Callable, r, w):
    """Solve (L + w) d = r by GMRES on (I + L^-1 w) d = L^-1 r, where `direct` is L^-1."""
    if w is None:
        return direct(r)
    shape, size = r.shape, r.size
    operator = LinearOperator(
        (size, size),
        lambda d: d.ravel() + direct(w * d.reshape(shape)).ravel(),
        dtype=float,
    )
    # The tolerance is loose, because the next Newton step removes the error that is left.
    d, info = gmres(operator, direct(r).ravel(), rtol=1e-5, restart=20, maxiter=5)
    if info:
        raise RuntimeError("GMRES did not converge")
    return d.reshape(shape)


# Chebyshev collocation.


def chebyshev_points(num: int, low: float, high: float) -> np.ndarray:
    """Extrema of a Chebyshev polynomial, including both ends."""
    # With the sine the points are symmetric. With the cosine, rounding breaks the symmetry.
    half = np.sin(np.pi * np.arange(1 - num, num, 2) / (2 * (num - 1)))
    return (low + high) / 2 + (high - low) / 2 * half


def barycentric_weights(num: int) -> np.ndarray:
    w = (-1.0) ** np.arange(num)
    w[[0, -1]] /= 2
    return w


def derivatives(num: int, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """Matrices of the first two derivatives of the interpolating polynomial.

    Entries off the diagonal are from the formulas of Welfert (1997). The diagonal is such
    that the derivative of a constant is zero, because this reduces rounding errors
    (Baltensperger & Trummer 2003).
    """
    w = barycentric_weights(num)
    angle = np.pi * np.arange(num) / (num - 1)
    # x_i - x_j is computed as a product, so that no digits are lost to cancellation.
    apart = (
        2
        * np.sin((angle[:, None] + angle) / 2)
        * np.sin((angle[:, None] - angle) / 2)
        * (high - low)
        / 2
    )
    np.fill_diagonal(apart, 1)
    first = w / w[:, None] / apart
    np.fill_diagonal(first, 0)
    np.fill_diagonal(first, -first.sum(axis=1))
    second = 2 * first * (np.diag(first)[:, None] - 1 / apart)
    np.fill_diagonal(second, 0)
    np.fill_diagonal(second, -second.sum(axis=1))
    return first, second


def barycentric(x: np.ndarray, nodes: np.ndarray) -> np.ndarray:
    """The matrix that interpolates from Chebyshev points to x."""
    gap = x[:, None] - nodes
    hit = gap == 0
    share = barycentric_weights(len(nodes)) / np.where(hit, 1, gap)
    matrix = share / share.sum(axis=1, keepdims=True)
    return np.where(hit.any(axis=1, keepdims=True), hit, matrix)


def chebyshev(name: str, num: int) -> tuple[np.ndarray, float]:
    """Values at the test points, and processor seconds."""
    problem = PROBLEMS[name]
    solve = {"v1": chebyshev_advection}.get(
        name, chebyshev_line if len(problem.box) == 1 else chebyshev_square
    )
    seconds, u = timed(lambda: solve(problem, num))
    for axis, ends in enumerate(problem.box):
        x = np.linspace(*ends, TEST_POINTS)
        matrix = barycentric(x, chebyshev_points(num, *ends))
        u = np.moveaxis(np.tensordot(matrix, u, axes=(1, axis)), 0, axis)
    return u, seconds["cpu_s"]


def chebyshev_line(problem: Problem, num: int) -> np.ndarray:
    (ends,) = problem.box
    x = chebyshev_points(num, *ends)
    _, D2 = derivatives(num, *ends)
    f = problem.source(x)
    inner = D2[1:-1, 1:-1]

    def correct(r, w):
        return np.linalg.solve(inner if w is None else inner + np.diag(w), r)

    return newton(problem, edges(problem, x), lambda u: (D2 @ u - f)[1:-1], correct)


def chebyshev_square(problem: Problem, num: int) -> np.ndarray:
    """Both axes have the same points, so one eigenproblem is enough."""
    ends, _ = problem.box
    x = chebyshev_points(num, *ends)
    _, D2 = derivatives(num, *ends)
    f = problem.source(x[:, None], x)
    # The eigenvalues are real and distinct.
    λ, V = (a.real for a in np.linalg.eig(D2[1:-1, 1:-1]))
    lu = scipy.linalg.lu_factor(V)
    sums = λ[:, None] + λ

    def direct(r):
        # In the basis of V, D X + X D' = R is one scalar equation per entry.
        r = scipy.linalg.lu_solve(lu, scipy.linalg.lu_solve(lu, r).T).T
        return V @ (r / sums) @ V.T

    def residual(u):
        return (D2 @ u + u @ D2.T - f)[1:-1, 1:-1]

    u = edges(problem, x[:, None], x)
    return newton(problem, u, residual, lambda r, w: krylov(direct, r, w))


def chebyshev_advection(problem: Problem, num: int) -> np.ndarray:
    """Solve 200 D_x U + U D_t' = 0 where U is not given: a Sylvester equation.

    SciPy solves it by Schur forms. Eigenvectors would be of no use here, because the matrix
    of a first derivative with one given end is far from normal.
    """
    x, t = (chebyshev_points(num, *ends) for ends in problem.box)
    Dx, Dt = (derivatives(num, *ends)[0] for ends in problem.box)
    u = np.zeros((num, num))
    u[0], u[:, 0] = problem.exact(x[0], t), problem.exact(x, t[0])
    r = (SPEED * Dx @ u + u @ Dt.T)[1:, 1:]
    u[1:, 1:] = scipy.linalg.solve_sylvester(SPEED * Dx[1:, 1:], Dt[1:, 1:].T, -r)
    return u


def edges(problem: Problem, *grid: np.ndarray) -> np.ndarray:
    """The exact solution on the edges of the grid, and zero inside."""
    u = np.array(problem.exact(*grid), dtype=float)
    u[(slice(1, -1),) * u.ndim] = 0
    return u


# Finite differences of second order, on an even grid.


def finite_differences(name: str, num: int) -> tuple[np.ndarray, float]:
    """Values at the test points, and processor seconds."""
    problem = PROBLEMS[name]
    solve = {"v1": box_advection}.get(
        name, difference_line if len(problem.box) == 1 else difference_square
    )
    seconds, u = timed(lambda: solve(problem, num))
    for axis, ends in enumerate(problem.box):
        spline = CubicSpline(np.linspace(*ends, num), u, axis=axis)
        u = spline(np.linspace(*ends, TEST_POINTS))
    return u, seconds["cpu_s"]


def difference_line(problem: Problem, num: int) -> np.ndarray:
    (ends,) = problem.box
    x, h = np.linspace(*ends, num, retstep=True)
    f = problem.source(x)[1:-1]

    def correct(r, w):
        bands = np.empty((3, num - 2))
        bands[[0, 2]] = 1
        bands[1] = -2 if w is None else -2 + h**2 * w
        return scipy.linalg.solve_banded((1, 1), bands, h**2 * r, overwrite_ab=True)

    def residual(u):
        return (u[2:] - 2 * u[1:-1] + u[:-2]) / h**2 - f

    return newton(problem, edges(problem, x), residual, correct)


def difference_square(problem: Problem, num: int) -> np.ndarray:
    """Sines diagonalise the differences, so no matrix is factorised."""
    ends, _ = problem.box
    x, h = np.linspace(*ends, num, retstep=True)
    f = problem.source(x[1:-1, None], x[1:-1])
    λ = -((2 / h * np.sin(np.pi * np.arange(1, num - 1) / (2 * (num - 1)))) ** 2)
    scale = (λ[:, None] + λ) * (2 * (num - 1)) ** 2  # with the factor of the two transforms

    def direct(r):
        return dstn(dstn(r, type=1) / scale, type=1)

    def residual(u):
        sides = u[2:, 1:-1] + u[:-2, 1:-1] + u[1:-1, 2:] + u[1:-1, :-2]
        return (sides - 4 * u[1:-1, 1:-1]) / h**2 - f

    u = edges(problem, x[:, None], x)
    return newton(problem, u, residual, lambda r, w: krylov(direct, r, w))


def box_advection(problem: Problem, num: int) -> np.ndarray:
    """The box scheme: differences and means over a cell. It is stable and of second order.

    With n = 200 dt / dx, u[i+1, j+1] = u[i, j] + (1 - n) / (1 + n) (u[i+1, j] - u[i, j+1]).
    """
    x, t = (np.linspace(*ends, num) for ends in problem.box)
    n = SPEED * (t[1] - t[0]) / (x[1] - x[0])
    q = (1 - n) / (1 + n)
    u = np.empty((num, num))
    u[0], u[:, 0] = problem.exact(x[0], t), problem.exact(x, t[0])
    for i in range(num - 1):
        # Along t, `lfilter` computes the recurrence u[i+1, j+1] = known[j] + q u[i+1, j].
        known = u[i, :-1] - q * u[i, 1:]
        u[i + 1, 1:], _ = lfilter([1.0], [1.0, -q], known, zi=[q * u[i + 1, 0]])
    return u


# Errors and seconds over sizes.

PEERS = {"chebyshev": chebyshev, "finite_differences": finite_differences}
CHEBYSHEV_SIZES = (0.8, 0.9, 1.0, 1.05, 1.1, 1.15, 1.2, 1.3, 1.5, 2.0)  # times the limit


def limit(name: str) -> float:
    """The fewest Chebyshev points that can resolve a wave: pi per wave, on average."""
    problem = PROBLEMS[name]
    low, high = problem.box[-1]
    return problem.top * (high - low) / 2


def sizes(peer: str, name: str, quick: bool) -> list[int]:
    if peer == "chebyshev":
        of_limit = (0.9, 1.1, 1.3) if quick else CHEBYSHEV_SIZES
        return [round(m * limit(name)) + 2 for m in of_limit]
    if len(PROBLEMS[name].box) == 1:
        return [401, 4001] if quick else [401, 1001, 4001, 10001, 40001, 100001, 400001]
    # Sizes for which the sine transform is fast.
    return [101, 201] if quick else [101, 201, 401, 801, 1601, 3201]


def run(peer: str, name: str, nums: list[int]) -> list[dict]:
    rows = []
    for num in nums:
        values, seconds = PEERS[peer](name, num)
        rows.append({"num": num, "error": error(name, values), "cpu_s": seconds})
    return rows


def least(peer: str, name: str, goal: float, nums: list[int]) -> int | None:
    """The smallest `num` with an error of at most `goal`, to 1 %, by bisection, or None."""

    def good(num: int) -> bool:
        return error(name, PEERS[peer](name, num)[0]) <= goal

    high = next((num for num in nums if good(num)), None)
    if high is None:
        return None
    low = max((num for num in nums if num < high), default=2)
    while high - low > max(1, 0.01 * high):
        middle = (low + high) // 2
        low, high = (low, middle) if good(middle) else (middle, high)
    return high


def race(name: str, quick: bool, repeats: int, goal: float) -> dict:
    """Errors and seconds of both peers on one problem, over sizes, `repeats` times."""
    nums = {peer: sizes(peer, name, quick) for peer in PEERS}
    for peer in PEERS:  # the cost of a first call is not that of the method
        PEERS[peer](name, nums[peer][0])
    rounds = alternate(
        {peer: lambda _, p=peer: run(p, name, nums[p]) for peer in PEERS}, repeats
    )
    result: dict = {"problem": name, "chebyshev_limit": limit(name)}
    for peer, told in rounds.items():
        runs = [
            same[0] | {"cpu_s": [row["cpu_s"] for row in same]}
            for same in zip(*told, strict=True)
        ]
        found = None if quick else least(peer, name, goal, nums[peer])
        result[peer] = {"runs": runs, "num_for_goal": found}
    return result


def show(result: dict) -> None:
    print(f"\n{result['problem']}: relative L2 error, median processor seconds")
    rows = [
        (peer, row["num"], row["error"], float(np.median(row["cpu_s"])))
        for peer in PEERS
        for row in result[peer]["runs"]
    ]
    table(("peer", "num", "error", "cpu_s"), rows)


def found(told: dict) -> str:
    if told["num_for_goal"] is not None:
        return str(told["num_for_goal"])
    return f"none up to {told['runs'][-1]['num']}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, one round")
    parser.add_argument("--repeats", type=int, help="number of rounds")
    parser.add_argument("--goal", type=float, default=1e-6, help="target of the error")
    parser.add_argument("--only", choices=PROBLEMS, help="one problem, in this process")
    args = parser.parse_args()
    repeats = args.repeats or (1 if args.quick else 3)
    if args.only:
        print(json.dumps(race(args.only, args.quick, repeats, args.goal)))
        return

    where = machine() | {"threads": 1, "numpy": np.__version__, "scipy": scipy.__version__}
    options = ["--repeats", str(repeats), "--goal", str(args.goal)]
    options += ["--quick"] if args.quick else []
    problems = []
    for name in PROBLEMS:
        problems.append(fresh_process(__file__, "--only", name, *options, **ONE_THREAD))
        show(problems[-1])
    if not args.quick:
        print(f"\nsmallest num with an error of at most {args.goal:g}, to 1 %")
        rows = [
            (
                told["problem"],
                round(told["chebyshev_limit"]),
                *(found(told[p]) for p in PEERS),
            )
            for told in problems
        ]
        table(("problem", "pi points per wave", *PEERS), rows)
    result = {
        "machine": where,
        "dtype": "float64",
        "test_points": TEST_POINTS,
        "repeats": repeats,
        "goal": args.goal,
        "problems": problems,
    }
    write("pde_peers", result, args.quick)


if __name__ == "__main__":
    main()
