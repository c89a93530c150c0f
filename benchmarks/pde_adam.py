"""One step of Adam on the joint density of `pde.GridGP`, compared with the authors' way.

The problem is u1 (u'' = f, u = sin 100x) with N = 400 grid points and Q = 30 components,
for both kernels. The authors' code evaluates the kernel and its second derivative for all
N² pairs of points, the derivative by nested automatic differentiation. It solves by LU,
with a separate determinant. `theirs` is our own implementation of this. probkit evaluates
the kernel at N lags by formula and decomposes once. Both take the same steps from the same
start, in turn, in one process.
"""

import argparse
import functools
import math

import numpy as np
from timing import alternate, machine, median, table, timed, write

TARGET = 50


def theirs(problem, model):
    """The objective as a function of the paper's parameters, assembled pair by pair."""
    import jax
    import jax.numpy as jnp

    (x,), n = problem.grid, problem.shape[0]
    source = -problem.equation.source()
    told = jnp.stack([condition.values for condition in problem.conditions])
    first, second = jnp.repeat(x, n), jnp.tile(x, n)

    def kernel(a, b, log_w, log_ls, frequency):
        d = jnp.abs(a - b)
        if model.envelope == "gaussian":
            envelope = jnp.exp(-(d**2) * jnp.exp(log_ls))
        else:
            z = math.sqrt(5) * d * jnp.exp(log_ls)
            envelope = (1 + z + z**2 / 3) * jnp.exp(-z)
        return jnp.sum(jnp.exp(log_w) * envelope * jnp.cos(2 * jnp.pi * d * frequency))

    def pairs(function, *parameters):
        every = jax.vmap(function, (0, 0, None, None, None))
        return every(first, second, *parameters).reshape(n, n)

    def objective(position):
        u, names = position["solution"], ("log_w_x", "log_ls_x", "frequency_x")
        parameters = [position[name] for name in names]
        K = pairs(kernel, *parameters) + model.jitter * jnp.eye(n)
        K2 = pairs(jax.grad(jax.grad(kernel)), *parameters)
        solved = jnp.linalg.solve(K, u)
        gap, residual = u[jnp.array([0, -1])] - told, K2 @ solved - source
        log_tau_1, log_tau_2 = position["log_tau_1"], position["log_tau_2"]
        prior = -0.5 * (jnp.linalg.slogdet(K)[1] + u @ solved)
        boundary = log_tau_1 - 0.5 * jnp.exp(log_tau_1) * gap @ gap
        equation = 0.5 * (n * log_tau_2 - jnp.exp(log_tau_2) * residual @ residual)
        return -(prior + model.boundary_weight * boundary + equation)

    return objective


def stepper(objective, position, learning_rate: float):
    """Return a function that takes Adam steps and returns the objective before each."""
    import jax
    import optax

    optimiser = optax.adam(learning_rate)

    @jax.jit
    def step(position, moments):
        value, gradient = jax.value_and_grad(objective)(position)
        change, moments = optimiser.update(gradient, moments)
        return optax.apply_updates(position, change), moments, value

    # A step removes weak types. With none at the start, only one program is compiled.
    start = jax.tree.map(lambda a: a.astype(a.dtype), (position, optimiser.init(position)))

    def run(count):
        state, values = start, []
        for _ in range(count):
            *state, value = step(*state)
            values.append(float(value))
        return values

    return run


def race(envelope: str, n: int, components: int, steps: dict[str, int], repeats: int):
    """Seconds per step of both sides, and the relative difference of their objectives."""
    from probkit.models import pde

    problem, _ = pde.examples.u1(n)
    model = pde.GridGP(envelope, num_components=components)
    rate = pde.Adam(1).learning_rate
    position = model.position(model.start_sites(problem), problem)
    ours = functools.partial(model.objective, problem=problem)
    sides = {
        "probkit": stepper(ours, position, rate),
        "authors": stepper(theirs(problem, model), position, rate),
    }
    same = min(steps.values())
    first = {name: run(same) for name, run in sides.items()}  # compiles as well
    apart = np.abs(np.divide(first["probkit"], first["authors"]) - 1).max()

    def seconds(name, _):
        total = timed(lambda: sides[name](steps[name]))[0]
        return {clock: value / steps[name] for clock, value in total.items()}

    rounds = alternate({name: functools.partial(seconds, name) for name in sides}, repeats)
    middle = {name: median(times, "cpu_s") for name, times in rounds.items()}
    return {
        "envelope": envelope,
        "grid_points": n,
        "components": components,
        "dtype": "float64",
        "steps_a_round": steps,
        "seconds_a_step": rounds,
        "median_cpu_s": middle,
        "ratio": middle["authors"] / middle["probkit"],
        "objectives_apart": {"relative": apart, "steps": same},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small grid, 3 repetitions")
    parser.add_argument("--repeats", type=int, help="number of repetitions")
    args = parser.parse_args()
    import probkit as pk

    pk.enable_x64()
    where = machine()
    n, components = (220, 10) if args.quick else (400, 30)
    repeats = args.repeats or (3 if args.quick else 5)
    steps = {"probkit": 50, "authors": 2}
    races = [race(e, n, components, steps, repeats) for e in ("student_t", "gaussian")]
    rows = [
        (
            r["envelope"],
            *(1e3 * r["median_cpu_s"][name] for name in ("probkit", "authors")),
            r["ratio"],
            r["objectives_apart"]["relative"],
        )
        for r in races
    ]
    print(f"\nprocessor milliseconds per step, N = {n}, Q = {components}, median")
    table(("kernel", "probkit", "authors' way", "ratio", "difference of objectives"), rows)
    if not args.quick:
        reached = all(r["ratio"] >= TARGET for r in races)
        print(f"target, a ratio of at least {TARGET}: {'reached' if reached else 'missed'}")
    result = {"machine": where, "repeats": repeats, "target_ratio": TARGET}
    write("pde_adam", result | {"races": races}, args.quick)


if __name__ == "__main__":
    main()
