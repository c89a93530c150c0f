"""Breaks: places where coefficients or the source jump, and what holds there."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import probkit as pk
from doors import refused
from probkit.models import pde
from reference.pde import error

KEY = jax.random.key(0)
MODEL = pde.SpectralGP(calibrated=False)
ENDS = [pde.Dirichlet(0.0, on="x-"), pde.Dirichlet(1.0, on="x+")]
HALF = {"x": [0.5]}


def line(residual, boundary, breaks, low=0.0, high=1.0, shape=60, **more):
    return pde.Problem(
        {"x": (low, high)}, residual, boundary, shape=shape, breaks={"x": breaks}, **more
    )


# Known answers, each by hand from piece to piece.


def conducts(x):
    return np.where(x < 0.5, 1.14, 0.01)


def kinked(x):
    flux = 1 / (0.5 / 1.14 + 0.5 / 0.01)
    return np.where(x < 0.5, flux * x / 1.14, 1 - flux * (1 - x) / 0.01)


WALL = [0.0, 0.2, 0.7, 1.0]
CONDUCTIVITY, HEATED = np.array([1.0, 20.0, 0.3]), np.array([3.0, 0.0, -5.0])


def of_wall(values):
    return lambda x: values[np.searchsorted(WALL[1:-1], x, side="right")]


def wall(x):
    """-(k u')' = q with u(0) = 0 and u(1) = 1, from the left with an unknown flux."""

    def from_left(x, flux):
        u, base = np.zeros_like(x), 0.0
        for low, high, k, q in zip(WALL, WALL[1:], CONDUCTIVITY, HEATED, strict=False):
            inside = (x >= low) & (x <= high)
            d = x[inside] - low
            u[inside] = base - (flux * d + q * d**2 / 2) / k
            d = high - low
            base, flux = base - (flux * d + q * d**2 / 2) / k, flux + q * d
        return u, base

    zero, one = (from_left(x, flux)[1] for flux in (0.0, 1.0))
    return from_left(x, (1 - zero) / (one - zero))[0]


def driven(t):
    """u' + u = 1 and -1 by turns of a half, from u = 0."""
    out, u = np.empty_like(t), 0.0
    for k in range(4):
        force, d = 1.0 - 2 * (k % 2), t - k / 2
        inside = (d >= 0) & (d <= 0.5)
        out[inside] = force + (u - force) * np.exp(-d[inside])
        u = force + (u - force) * np.exp(-0.5)
    return out


def beam(x):
    """A cantilever with a load at its tip, stiffness 1 and beyond the middle 4."""
    u = lambda x: x**2 / 2 - x**3 / 6  # noqa: E731
    slope = lambda x: x - x**2 / 2  # noqa: E731
    bent = u(0.5) + slope(0.5) * (x - 0.5)
    beyond = (u(x) - bent) / 4
    return np.where(x < 0.5, u(x), bent + beyond)


def sinking(x):
    """k u'' = -1 with k = 1 and then 1/4, with one slope at the break and zero ends."""
    s = 0.875
    left = s * x - x**2 / 2
    at, slope, d = s / 2 - 0.125, s - 0.5, x - 0.5
    return np.where(x < 0.5, left, at + slope * d - 2 * d**2)


CANTILEVER = [
    pde.Dirichlet(0.0, on="x-"),
    pde.Neumann(0.0, on="x-"),
    pde.Derivative(0.0, order=2, on="x+"),
    pde.Derivative(-0.25, order=3, on="x+"),
]
ANSWERS = {
    "conductivity": (
        lambda: line(lambda u, x: (conducts(x) * u.dx).dx, ENDS, [0.5]),
        kinked,
    ),
    "a wall of three layers with sources": (
        lambda: line(
            lambda u, x: -(of_wall(CONDUCTIVITY)(x) * u.dx).dx - of_wall(HEATED)(x),
            ENDS,
            WALL[1:-1],
        ),
        wall,
    ),
    "a conductivity that also slopes": (
        # (1 + x) u' = 3 and then 10 (1 + x) u' = 3
        lambda: line(
            lambda u, x: (np.where(x < 0.5, 1.0, 10.0) * (1 + x) * u.dx).dx,
            [pde.Dirichlet(0.0, on="x-"), pde.Neumann(0.15, on="x+")],
            [0.5],
        ),
        lambda x: np.where(
            x < 0.5, 3 * np.log1p(x), 3 * np.log(1.5) + 0.3 * np.log((1 + x) / 1.5)
        ),
    ),
    "a flux with a part that has no u": (
        # u' + g = 3/2, with g = 0 and then 1
        lambda: line(lambda u, x: (u.dx + 1.0 * (x > 0.5)).dx, ENDS, [0.5]),
        lambda x: np.where(x < 0.5, 1.5 * x, 0.75 + 0.5 * (x - 0.5)),
    ),
    "a source": (
        lambda: line(lambda u, x: u.dxx - (x >= 0.5), pde.Dirichlet(0.0), [0.5]),
        lambda x: np.where(x < 0.5, -x / 8, (x - 0.5) ** 2 / 2 - x / 8),
    ),
    "a corner in the source": (
        lambda: line(lambda u, x: u.dx - abs(x), pde.Dirichlet(-0.5, on="x-"), [0.0], -1.0),
        lambda x: x * np.abs(x) / 2,
    ),
    "a square wave": (
        lambda: line(
            lambda u, x: u.dx + u - np.where(np.sin(2 * np.pi * x) >= 0, 1, -1),
            pde.Initial(0.0, axis="x"),
            [0.5, 1.0, 1.5],
            0.0,
            2.0,
        ),
        driven,
    ),
    "the stiffness of a beam": (
        lambda: line(
            lambda u, x: (np.where(x < 0.5, 1.0, 4.0) * u.dxx).dxx, CANTILEVER, [0.5]
        ),
        beam,
    ),
    "a coefficient outside of the derivative": (
        lambda: line(
            lambda u, x: np.where(x < 0.5, 1.0, 0.25) * u.dxx + 1, pde.Dirichlet(0.0), 0.5
        ),
        sinking,
    ),
}


@pytest.mark.parametrize("make, exact", ANSWERS.values(), ids=ANSWERS.keys())
def test_the_answer_is_known(make, exact):
    # Fourth derivatives have larger condition numbers.
    problem = make()
    assert error(problem, exact) < (1e-6 if problem.equation.highest == (4,) else 1e-8)


@functools.cache
def fitted():
    make, _ = ANSWERS["conductivity"]
    return pk.fit(pde.SpectralGP(), make(), pde.Closed(max_steps=30), key=KEY)


def test_a_solution_with_a_kink_passes_its_checks_and_has_intervals():
    assert fitted().result == "successful" and pk.diagnose(fitted()).ok
    at = np.random.default_rng(0).uniform(0, 1, 300)
    found = pk.predict(fitted(), at, key=KEY)
    off = found.u_mean.values.reshape(-1) - kinked(at)
    assert np.abs(off).max() < 1e-8
    assert np.mean(np.abs(off) < 1.96 * found.u_sd.values.reshape(-1)) > 0.9


def test_a_file_has_the_breaks_and_what_holds_there(tmp_path):
    again = pk.load(pk.save(fitted(), tmp_path / "fit.nc"))
    assert again.data.breaks == {"x": (0.5,)}
    assert again.data.fields() == fitted().data.fields()
    for one, other in zip(again.data.interfaces, fitted().data.interfaces, strict=True):
        assert eqx.tree_equal(one, other)
    at = np.linspace(0, 1, 7)
    assert pk.predict(again, at, key=KEY).equals(pk.predict(fitted(), at, key=KEY))


def test_a_problem_without_its_break_is_flagged_still():
    problem = pde.Problem({"x": (0, 1)}, lambda u, x: conducts(x) * u.dxx, ENDS, shape=60)
    fit = pk.fit(MODEL, problem, pde.Closed(learn=False), key=KEY, throw=False)
    assert [check.name for check in pk.diagnose(fit) if not check.ok]


def test_points_are_on_either_side_of_a_break_and_none_is_across():
    problem = line(lambda u, x: u.dxx - (x > 0.3), pde.Dirichlet(0.0), [0.3], shape=21)
    x, between = np.asarray(problem.grid[0]), np.asarray(problem.midpoints[0])
    assert len(x) == 21 and len(between) == 19
    beside = x[np.abs(x - 0.3) < 1e-9]
    assert len(beside) == 2 and beside[0] < 0.3 < beside[1]
    assert np.abs(between - 0.3).min() > 0.01


def test_unknown_conductivities_of_two_pieces_are_numbers_once_they_are_drawn():
    problem = line(
        lambda u, x, c: ((c.k * (x < 0.5) + c.m * (x >= 0.5)) * u.dx).dx,
        ENDS,
        [0.5],
        observations=pde.Observations([0.25, 0.75], [0.1, 0.2], 1e3),
        unknown={"k": (1.0, 2.0), "m": (0.005, 0.05)},
    )

    @eqx.filter_jit
    def solved(problem, k, m):
        sites = MODEL.start_sites(problem) | {"k": k, "m": m}
        return MODEL.integrated(sites, problem).derivative(problem.grid, (0,))

    found = solved(problem, jnp.asarray(1.14), jnp.asarray(0.01))
    np.testing.assert_allclose(found, kinked(problem.coordinates()), atol=1e-7)


def test_an_axis_of_a_plane_breaks():
    def k(p):
        return np.where(p.x < 0.5, 1.0, 10.0)

    def exact(p):
        return np.where(p.x < 0.5, p.x, 0.45 + 0.1 * p.x) * np.cos(np.pi * p.y)

    def residual(u, p):
        return (k(p) * u.dx).dx + k(p) * (u.dyy + np.pi**2 * exact(p))

    problem = pde.Problem(
        {"x": (0, 1), "y": (0, 1)},
        residual,
        [pde.Dirichlet(exact, on="x"), pde.Neumann(0.0, on="y")],
        shape=(24, 16),
        breaks=HALF,
    )
    assert MODEL.ranks(problem)[0] == 2 * MODEL.ranks(problem)[1]
    assert error(problem, exact) < 1e-5


# What is continuous


CONTINUOUS = {
    "a derivative": (lambda u, x: u.dxx + (x > 0.5), [(0,), (1,)]),
    "a smooth coefficient": (lambda u, x: ((1 + x) * u.dx).dx + u.dxx, [(0,), (1,)]),
    "two multiples": (lambda u, x: (2 * u.dx).dx + 3 * u.dx - u.dxx, [(0,), (1,)]),
    "a power": (lambda u, x: (u**2 / 2).dx - u.dxx, [(0,), (1,)]),
    "the first order": (lambda u, x: u.dx + (x > 0.5) * u, [(0,)]),
}


@pytest.mark.parametrize("residual, orders", CONTINUOUS.values(), ids=CONTINUOUS.keys())
def test_what_follows_from_the_rest_is_no_condition_of_its_own(residual, orders):
    problem = line(residual, pde.Dirichlet(0.0, on="x-"), [0.5])
    assert [one.low.orders[0] for one in problem.interfaces] == orders


def residual_of(u, x):
    return u.dxx - 1


WRONG = {
    "no dict": (
        dict(breaks=[0.5]),
        r"`Problem\(breaks=\[0.5\]\)`: it takes a list for",
    ),
    "another axis": (dict(breaks={"t": [1]}), r"names the axis 't'; the axes are `x`"),
    "text": (
        dict(breaks={"x": ["a"]}),
        r"`Problem\(breaks=\{'x': \['a'\]\}\)`: it takes finite",
    ),
    "a matrix": (dict(breaks={"x": [[0.5]]}), "it takes a list of places on the axis"),
    "an end": (dict(breaks={"x": [1.0]}), "inside the axis, from 0 to 1, and not next to"),
    "beyond an end": (dict(breaks={"x": [1.5]}), "inside the axis, from 0 to 1"),
    "twice": (dict(breaks={"x": [0.5, 0.5]}), "different places inside the axis"),
    "NaN": (dict(breaks={"x": [np.nan]}), r"\[nan\]\}\)`: it takes finite numbers"),
    "few points": (dict(breaks=HALF, shape=15), "15 points along `x` .* 2 pieces .* 16"),
    "a flux that is not linear": (
        dict(residual=lambda u, x: ((1 + (x > 0.5)) * u * u.dx).dx, breaks=HALF),
        r"not linear in `u`, and may jump at x = 0.5; apply the product rule",
    ),
    "two fluxes": (
        dict(residual=lambda u, x: ((1 + (x > 0.5)) * u.dx).dx + u.dxx, breaks=HALF),
        r"differentiates 3 expressions .* order 2 keeps 2; take the .* of their sum",
    ),
}


@pytest.mark.usefixtures("no_checker")
@pytest.mark.parametrize("given, words", WRONG.values(), ids=WRONG.keys())
def test_it_says_what_is_wrong(given, words):
    settings = dict(residual=residual_of, boundary=pde.Dirichlet(0.0), shape=30) | given
    refused(lambda: pde.Problem({"x": (0, 1)}, **settings), words)


def test_the_method_of_the_paper_refuses_breaks():
    problem = ANSWERS["a source"][0]()
    with pytest.raises(ValueError, match=r"breaks, layers.* Use `pde.SpectralGP`"):
        pk.fit(pde.GridGP(), problem, pde.Adam(num_steps=1), key=KEY)
