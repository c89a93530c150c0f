"""How PDE problems are said: polynomials in u, conditions on faces, known examples."""

import json
import math
import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from probkit.models import pde
from probkit.models.pde.equation import Equation, Monomial
from probkit.record import plain

SHAPE = (9, 8)
BOX = {"x": (0.0, 2.0), "t": (-1.0, 1.0)}
EXAMPLES = ("u1", "u2", "u3", "u4", "u5", "u6", "u7", "a1", "a2", "a3", "v1")
rng = np.random.default_rng(0)
# u and its derivatives, as if unrelated: a polynomial must hold for any values.
NAMES = {"dx": (1, 0), "dt": (0, 1), "dxx": (2, 0), "dxt": (1, 1), "dxxtt": (2, 2)}
VALUES = {
    orders: jnp.asarray(rng.normal(size=SHAPE)) for orders in (*NAMES.values(), (0, 0))
}
UNKNOWN = {"rate": 0.7, "decay": -1.3}


class Known(np.ndarray):
    """u itself with its derivatives for attributes: arrays, no polynomials."""


def known(values):
    u = np.array(values[0, 0]).view(Known)
    for name, orders in NAMES.items():
        setattr(u, name, np.asarray(values[orders]))
    return u


class Coefficients:
    rate, decay = UNKNOWN.values()


ones = np.ones(SHAPE)
# Residuals that use every operator, from either side, with every kind of number.
RESIDUALS = {
    "Poisson": lambda u, p, c: u.dxx + u.dxxtt - np.sin(p.x) * p.t,
    "Allen-Cahn": lambda u, p, c: u.dxx + u * (u**2 - 1) - jnp.exp(p.x),
    "Burgers": lambda u, p, c: u.dt + u * u.dx - c.rate * u.dxx,
    "an array on the left": lambda u, p, c: p.x * u.dx + p.t - u,
    "an array on the right": lambda u, p, c: u.dx * p.x - (u - p.t),
    "a JAX array on the left": lambda u, p, c: (
        jnp.cos(p.x) * u.dt - (jnp.sin(p.t) + u.dx) + (jnp.asarray(p.x) - u)
    ),
    "numbers of NumPy": lambda u, p, c: (
        np.float64(2) * u + np.int64(3) - np.float64(1) / 4 * u.dx + np.float64(1) - u
    ),
    "numbers of Python": lambda u, p, c: 2 - 3 * u.dt - (1 + u) * 2.5,
    "numbers of JAX": lambda u, p, c: jnp.float64(2) * u - jnp.asarray(3) + u.dxx,
    "division": lambda u, p, c: u.dxx / 3 + u.dx / (2 + p.x) - 1 / (2 + p.x),
    "powers": lambda u, p, c: (u.dx + p.t * u) ** 3 + u**0 + u**1 + u ** np.int64(2),
    "signs": lambda u, p, c: -u.dxx - -u + (+u.dx) - (-p.x) * -u.dt,
    "ufuncs": lambda u, p, c: (
        np.add(np.multiply(p.x, u), np.negative(u.dx))
        - np.square(u)
        + np.divide(u, 2)
        + np.power(u, 3)
        + np.subtract(1.0, np.positive(u))
    ),
    "a sum of terms": lambda u, p, c: sum([u.dx, u.dt, p.x, 1]),
    "unknowns": lambda u, p, c: (
        (c.rate * u + c.decay) ** 2 * u.dx - c.rate * p.x + c.decay**3 * u.dxt
    ),
    "lists": lambda u, p, c: np.asarray(p.x).tolist() * u.dx + p.x.tolist(),
}
every_residual = pytest.mark.parametrize(
    "residual", RESIDUALS.values(), ids=RESIDUALS.keys()
)


def said(residual, **others):
    """The problem of a residual of three arguments, whichever unknowns it uses."""

    def uses_all(u, p, c):
        # Unknown coefficients that a residual leaves out are refused: put them in.
        return residual(u, p, c) + c.rate * 1e-300 + c.decay * 1e-300

    unknown = {name: (-2.0, 2.0) for name in UNKNOWN}
    usual = {"boundary": pde.Dirichlet(0.0), "shape": SHAPE, "unknown": unknown}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pde.AliasWarning)
        return pde.Problem(BOX, uses_all, **(usual | others))


# Polynomials.


@every_residual
def test_a_residual_has_the_values_of_the_expression(residual):
    if residual is RESIDUALS["lists"]:
        expected = said(RESIDUALS["an array on the left"]).coordinates()
        expected = expected.x * VALUES[1, 0] + expected.x
        problem = said(residual)
    else:
        problem = said(residual)
        expected = residual(known(VALUES), problem.coordinates(), Coefficients)
    found = problem.equation(VALUES, UNKNOWN)
    np.testing.assert_allclose(found, np.broadcast_to(expected, SHAPE), 1e-13, 1e-13)


def test_between_the_points_it_is_the_same_expression():
    residual = RESIDUALS["unknowns"]
    problem = said(residual)
    smaller = {orders: value[1:, 1:] for orders, value in VALUES.items()}
    between = problem.coordinates(problem.midpoints)
    expected = residual(known(smaller), between, Coefficients)
    np.testing.assert_allclose(problem.held_out(smaller, UNKNOWN), expected, 1e-13)
    assert problem.held_out.monomials == problem.equation.monomials


def test_slopes_are_those_of_automatic_differentiation():
    # All residuals at once, so that JAX compiles once.
    equations = [said(residual).equation for residual in RESIDUALS.values()]

    @jax.jit
    def both(values, unknown):
        def slopes(equation):
            given = {orders: values[orders] for orders in equation.orders}
            # Points do not mix: the gradient of the sum is the derivative at each.
            return jax.grad(lambda v: jnp.sum(ones * equation(v, unknown)))(given)

        ours = [equation.jacobian(values, unknown) for equation in equations]
        return ours, [slopes(equation) for equation in equations]

    for ours, theirs in zip(*both(VALUES, UNKNOWN), strict=True):
        assert set(ours) == set(theirs)
        for orders, slope in theirs.items():
            assert ours[orders].shape in ((), SHAPE)
            full = np.broadcast_to(ours[orders], SHAPE)
            np.testing.assert_allclose(full, slope, 1e-12, 1e-12)


def test_slopes_of_a_linear_equation_ask_no_values():
    slopes = one_dimension(lambda u, x: u.dxx / 3 + x * u - x).equation.jacobian({})
    assert float(slopes[2,]) == pytest.approx(1 / 3)
    np.testing.assert_array_equal(slopes[0,], np.linspace(0, 1, 8))


@every_residual
def test_the_source_is_the_residual_of_zero(residual):
    equation = said(residual).equation
    nothing = dict.fromkeys(VALUES, jnp.zeros(SHAPE))
    expected = equation(nothing, UNKNOWN)
    source = np.broadcast_to(equation.source(UNKNOWN), SHAPE)
    np.testing.assert_allclose(source, expected, 1e-15)


LINEAR = {
    "Poisson": True,
    "Allen-Cahn": False,
    "Burgers": False,
    "division": True,
    "powers": False,
    "numbers of Python": True,
}


@pytest.mark.parametrize("name, linear", LINEAR.items())
def test_linear_is_told_from_nonlinear(name, linear):
    assert said(RESIDUALS[name]).equation.is_linear is linear


def test_an_unknown_coefficient_leaves_an_equation_linear():
    equation = said(lambda u, p, c: c.rate * c.decay * u.dxx + u).equation
    assert equation.is_linear
    assert equation.unknowns == ("decay", "rate")


def test_an_unknown_may_be_the_source():
    observed = pde.Observations([1000.0, 3000.0], [2.0, 3.0])
    problem = pde.Problem(
        {"z": (900, 4000)},
        lambda u, z, c: c.rate * u.dz + u.dzz + c.supply,
        observations=observed,
        unknown={"rate": (0, 0.01), "supply": (-2, 4)},
        shape=50,
    )
    assert problem.equation.is_linear
    assert float(problem.equation.source({"rate": 0.0, "supply": 3.0})) == 3.0
    # In the middle of its range.
    assert float(problem.fine_source) == 1.0
    assert problem.unknown == (("rate", 0.0, 0.01), ("supply", -2.0, 4.0))


def one_dimension(residual, boundary=None, **others):
    boundary = pde.Dirichlet(0.0) if boundary is None else boundary
    return pde.Problem({"x": (0, 1)}, residual, boundary, **({"shape": 8} | others))


def test_terms_are_those_of_the_paper():
    problem = one_dimension(lambda u, x: u.dxx + u * (u**2 - 1) - x)
    assert problem.equation.monomials == (
        Monomial((), ()),
        Monomial(((0,),), ()),
        Monomial(((0,), (0,), (0,)), ()),
        Monomial(((2,),), ()),
    )
    assert problem.equation.orders == ((0,), (2,))
    source, *others = problem.equation.coefficients
    np.testing.assert_array_equal(source, -np.linspace(0, 1, 8))
    assert [float(c) for c in others] == [-1.0, 1.0, 1.0]


def test_what_cancels_is_no_term():
    equation = one_dimension(lambda u, x: u.dxx + u * u - u**2 + 0.0).equation
    assert equation.monomials == (Monomial(((2,),), ()),)
    assert equation.is_linear


def test_a_term_that_is_zero_on_the_grid_alone_is_kept():
    problem = one_dimension(lambda u, x: u.dxx + np.sin(7 * np.pi * x) ** 2 * u)
    grid, between = (e.coefficients[0] for e in (problem.equation, problem.held_out))
    assert np.max(np.abs(grid)) < 1e-25
    np.testing.assert_allclose(between, 1.0)


def test_derivatives_may_be_taken_in_turn():
    problem = said(lambda u, p, c: u.dx.dt + u.dt.dx + u.dxx.dtt + u.dtx)
    assert problem.equation.orders == ((1, 1), (2, 2))
    assert float(problem.equation.coefficients[-2]) == 3.0


# A derivative of a product beside the same by hand.
PRODUCTS = {
    "of u alone": (
        lambda u, p, c: (u**2).dx + (u * u.dx).dxt,
        lambda u, p, c: 2 * u * u.dx + u.dt * u.dxx + u * u.dxx.dt + 2 * u.dx * u.dx.dt,
    ),
    "with an unknown": (
        lambda u, p, c: (c.rate * u.dx - c.decay * u + 3).dx,
        lambda u, p, c: c.rate * u.dxx - c.decay * u.dx,
    ),
    "of a constant along the axis": (
        lambda u, p, c: (np.sqrt(2 + p.t) * u.dx).dx,
        lambda u, p, c: np.sqrt(2 + p.t) * u.dxx,
    ),
    "of functions of both coordinates": (
        lambda u, p, c: (np.exp(p.x * p.t) * u.dx).dx + (p.x**2 * p.t * u).dt,
        lambda u, p, c: (
            np.exp(p.x * p.t) * (u.dxx + p.t * u.dx) + p.x**2 * (u + p.t * u.dt)
        ),
    ),
    "in turn": (
        lambda u, p, c: ((2 + p.x) * ((1 + p.x**2) * u).dx).dx,
        lambda u, p, c: (
            (1 + p.x**2) * u.dx
            + 2 * p.x * u
            + (2 + p.x) * ((1 + p.x**2) * u.dxx + 4 * p.x * u.dx + 2 * u)
        ),
    ),
    "of a source": (
        lambda u, p, c: (u.dx - np.sin(p.x * p.t)).dx,
        lambda u, p, c: u.dxx - p.t * np.cos(p.x * p.t),
    ),
}


@pytest.mark.parametrize("short, long", PRODUCTS.values(), ids=PRODUCTS.keys())
def test_derivatives_of_products_follow_the_product_rule(short, long):
    ours, by_hand = said(short), said(long)
    for name in ("equation", "held_out"):
        one, other = getattr(ours, name), getattr(by_hand, name)
        assert one.monomials == other.monomials
        for a, b in zip(one.coefficients, other.coefficients, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6 * np.abs(b).max())
    np.testing.assert_allclose(ours.fine_source, by_hand.fine_source, atol=1e-6)


def test_no_point_of_a_derivative_is_outside_the_domain():
    def k(x):
        return np.where((x < 0) | (x > 1), np.nan, 1 + x**2)

    problem = one_dimension(lambda u, x: (k(x) * u.dx).dx - 1)
    _, slope, _ = problem.equation.coefficients
    np.testing.assert_allclose(slope, 2 * np.linspace(0, 1, 8), atol=1e-12)


def test_long_names_of_axes_have_an_underscore():
    box = {"depth": (0, 1), "depth_low": (0, 1), "t": (0, 1)}
    problem = pde.Problem(
        box,
        lambda u, p: u.dtt + u.d_depth_depth + u.d_depth_low_t + u.d_t_depth * p.depth_low,
        pde.Dirichlet(0.0),
        shape=8,
    )
    assert problem.equation.orders == ((0, 0, 2), (0, 1, 1), (1, 0, 1), (2, 0, 0))


def test_an_equation_of_its_own_takes_any_arrays():
    equation = Equation((Monomial(((1,),), ()),), (jnp.asarray(2.0),))
    np.testing.assert_array_equal(equation({(1,): jnp.arange(3.0)}), [0.0, 2.0, 4.0])


# Conditions.


def field(p):
    return np.sin(p.x) * p.y + p.z


FACES = {
    "all": (pde.Dirichlet(field), "x-0 x+0 y-0 y+0 z-0 z+0"),
    "both ends": (pde.Dirichlet(field, on="y"), "y-0 y+0"),
    "one end": (pde.Neumann(field, on="y+"), "y+1"),
    "of second order": (pde.Derivative(field, order=2, on="y-"), "y-2"),
    "value and moment": (
        [pde.Derivative(field, order=2, on="x"), pde.Dirichlet(field, on="x")],
        "x-0 x-2 x+0 x+2",
    ),
    "several": (pde.Neumann(field, on=("x-", "z")), "x-1 z-1 z+1"),
    "the rest": (
        [pde.Dirichlet(field), pde.Neumann(field, on="x+")],
        "x-0 x+1 y-0 y+0 z-0 z+0",
    ),
    "time has one end": ([pde.Initial(field, axis="z"), pde.Dirichlet(field, "x")], None),
    "what time leaves": (
        [pde.Initial(field, axis="z"), pde.Dirichlet(field)],
        "x-0 x+0 y-0 y+0 z-0",
    ),
    "of second order in time": ([pde.Initial(field, field, "z")], "z-0 z-1"),
    "the end of time, if asked": (
        [pde.Initial(field, axis="z"), pde.Dirichlet(field, on="z+")],
        "z-0 z+0",
    ),
    "glued": (pde.Periodic("x"), "x=0 x=1"),
    "what glue leaves": (
        (pde.Periodic("x"), pde.Dirichlet(field)),
        "x=0 x=1 y-0 y+0 z-0 z+0",
    ),
    "value and slope": (
        [pde.Dirichlet(field, on="x-"), pde.Neumann(field, on="x-")],
        "x-0 x-1",
    ),
}
FACES["time has one end"] = (FACES["time has one end"][0], "x-0 x+0 z-0")


@pytest.mark.parametrize("boundary, faces", FACES.values(), ids=FACES.keys())
def test_conditions_are_on_the_faces_that_were_told(boundary, faces):
    box, shape = {"x": (0, 1), "y": (1, 2), "z": (0, 3)}, (8, 9, 10)
    problem = pde.Problem(box, lambda u, p: u.dxx + u.dyy, boundary, shape=shape)
    sides = {"low": "-", "high": "+", "periodic": "="}
    found = [f"{'xyz'[c.axis]}{sides[c.side]}{c.order}" for c in problem.conditions]
    assert found == faces.split()
    whole = field(problem.coordinates())
    for condition in problem.conditions:
        end = np.take(whole, 0 if condition.side == "low" else -1, condition.axis)
        glued = condition.side == "periodic"
        expected = np.zeros_like(end) if glued else end
        np.testing.assert_allclose(condition.values, expected, 1e-15)
    assert len(problem) == 720 + sum(c.values.size for c in problem.conditions)


def test_ends_that_are_glued_agree_in_all_derivatives_that_the_equation_leaves():
    def orders(residual):
        problem = one_dimension(residual, pde.Periodic("x"))
        return [condition.order for condition in problem.conditions]

    assert orders(lambda u, x: u.dx + u - 1) == [0, 1]
    assert orders(lambda u, x: u.dxxx + u - 1) == [0, 1, 2]
    assert orders(lambda u, x: u.dxxxx + u - 1) == [0, 1, 2, 3]


VALUE = {
    "a number": 2,
    "a number of NumPy": np.float32(2.0),
    "an array": np.full(8, 2.0),
    "a list": [2] * 8,
    "a JAX array": jnp.full(8, 2.0),
    "a function to a number": lambda p: 2.0,
    "a function of NumPy": lambda p: 2.0 + 0 * np.sin(p.x),
    "a number of JAX": jnp.asarray(2.0),
    "a function of JAX": lambda p: 2.0 + 0 * jnp.sin(p.t),
}


@pytest.mark.parametrize("value", VALUE.values(), ids=VALUE.keys())
def test_values_may_be_numbers_arrays_or_functions(value):
    boundary = pde.Dirichlet(value, on="x-")
    problem = pde.Problem(BOX, lambda u, p: u.dx, boundary, shape=SHAPE)
    (condition,) = problem.conditions
    assert condition.values.dtype == np.float64
    np.testing.assert_array_equal(condition.values, np.full(8, 2.0))


def test_in_one_dimension_a_face_is_a_point():
    problem = one_dimension(lambda u, x: u.dxx - x, pde.Dirichlet(lambda x: 1 + 2 * x))
    assert [c.values.shape for c in problem.conditions] == [(), ()]
    assert [float(c.values) for c in problem.conditions] == [1.0, 3.0]


@pytest.mark.parametrize("function", [np.cos, jnp.cos, math.cos], ids=["np", "jnp", "math"])
def test_functions_of_others_are_functions_too(function):
    problem = one_dimension(lambda u, x: u.dxx - x, pde.Dirichlet(function))
    found = [float(c.values) for c in problem.conditions]
    assert found == pytest.approx([1.0, math.cos(1.0)], rel=1e-15)


def test_observations_alone_are_enough():
    observed = pde.Observations([0.1, 0.2, 1.0], [1, 2, 3], noise_sd=2)
    problem = one_dimension(lambda u, x: u.dx + u, [], observations=observed)
    assert problem.conditions == () and len(problem) == 8 + 3
    assert problem.points.shape == (3, 1) and float(problem.noise_sd) == 2.0
    np.testing.assert_array_equal(problem.values, [1.0, 2.0, 3.0])


# The problem as a value.


def everything():
    """A problem in which everything occurs that one may have."""
    points = np.array([[0.5, 0.0], [1.0, 0.5], [2.0, -1.0]])
    return said(
        lambda u, p, c: u.dt + c.rate * u * u.dx - c.decay * u.dxx - np.sin(p.x) * p.t,
        boundary=[pde.Initial(lambda p: p.x, velocity=0.1), pde.Periodic("x")],
        observations=pde.Observations(points, [0.1, 0.2, 0.3], 0.1),
        unknown={"rate": (0, 1), "decay": (np.pi / 7, 1)},
    )


def only_boundary():
    return one_dimension(lambda u, x: u.dxx - 2)


def walls():
    """A problem of conditions that have more than a value."""
    told = [
        pde.Robin(lambda p: p.x, weight=lambda p: 1 + p.x, on="t+"),
        pde.Robin(lambda p, c: 2 * c.g, weight=lambda p, c: c.g**2 * p.t, on="x-"),
        pde.Dirichlet(lambda p, c: c.h * p.x - 3 * c.g * c.h, on="t-"),
    ]
    return pde.Problem(
        BOX,
        lambda u, p: u.dxx + u.dtt,
        told,
        shape=SHAPE,
        observations=pde.Observations([[0.5, 0.0], [1.0, 0.2]], [1.0, 2.0], [0.1, 0.3]),
        unknown={"g": (0, 1), "h": (-1, 4)},
    )


every_problem = pytest.mark.parametrize("make", [everything, only_boundary, walls])


@every_problem
def test_what_a_file_keeps_restores_it(make):
    problem = make()
    fields = json.loads(json.dumps({k: plain(v) for k, v in problem.fields().items()}))
    arrays = {k: np.asarray(v) for k, v in problem.arrays().items()}
    again = pde.Problem.restore(arrays, fields)
    assert jax.tree.structure(again) == jax.tree.structure(problem)
    for one, other in zip(jax.tree.leaves(again), jax.tree.leaves(problem), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    assert again.fields() == problem.fields() and len(again) == len(problem)


def test_a_file_of_plain_conditions_has_their_places_alone():
    # So that a version before `Robin` reads it, and this one what that version wrote.
    assert only_boundary().fields()["conditions"] == [[0, "low", 0], [0, "high", 0]]


def test_arrays_of_another_problem_are_refused():
    problem, fields = everything(), everything().fields()
    arrays = problem.arrays()
    for name in arrays:
        if arrays[name].ndim:
            wrong = arrays | {name: arrays[name][1:]}
            # One observation less is seen in the other array.
            with pytest.raises(ValueError, match=f"`({name}|points)` has shape"):
                pde.Problem.restore(wrong, fields)
    with pytest.raises(KeyError):
        pde.Problem.restore({k: v for k, v in arrays.items() if k != "term_1"}, fields)


@every_problem
def test_arrays_have_names_for_their_axes(make):
    problem = make()
    arrays, dims, coords = problem.arrays(), problem.dims(), problem.coords()
    assert set(arrays) == set(dims)
    # xarray refuses names and labels that do not fit.
    named = {name: (dims[name], np.asarray(array)) for name, array in arrays.items()}
    tree = xr.Dataset(named, coords)
    assert set(tree.data_vars) == set(arrays)
    assert set(tree.coords) == set(coords) == set(tree.dims) | set(problem.axes)


def test_the_grids_are_even_and_nested():
    problem = everything()
    x, t = problem.grid
    np.testing.assert_allclose(x, np.linspace(0, 2, 9))
    np.testing.assert_allclose(t, np.linspace(-1, 1, 8))
    assert problem.shape == SHAPE and problem.length == (2.0, 2.0)
    assert problem.nyquist == (2.0, 1.75)
    np.testing.assert_allclose(problem.midpoints[0], np.arange(0.125, 2, 0.25))
    fine = problem.fine_grid
    assert problem.fine_source.shape == tuple(len(z) for z in fine) == (33, 29)
    np.testing.assert_allclose(fine[0][::4], x)
    at = problem.coordinates(fine)
    np.testing.assert_allclose(problem.fine_source, -np.sin(at.x) * at.t, atol=1e-15)


def test_the_fine_grid_stays_affordable():
    def sizes(axes, n):
        box = dict.fromkeys(axes, (0, 1))
        problem = pde.Problem(box, lambda u, p: u.dxx, pde.Dirichlet(0.0), shape=n)
        return [len(x) for x in problem.fine_grid]

    assert sizes("xy", 400) == [1198] * 2
    assert sizes("xyz", 60) == [119] * 3
    assert sizes("x", 900) == [3597]
    assert sizes("x", 10) == [1000]


def test_a_problem_goes_through_compiled_functions_as_data():
    traced = 0

    @jax.jit
    def first(problem):
        nonlocal traced
        traced += 1
        return problem.equation.coefficients[0].ravel()[0]

    for level in (1.0, 2.0):
        problem = one_dimension(lambda u, x: u.dxx - level * np.ones_like(x))  # noqa: B023
        assert float(first(problem)) == -level
    assert traced == 1


# Examples.


def derivative(function, orders):
    """∂^α of a function of d numbers."""
    for axis, order in enumerate(orders):
        for _ in range(order):
            function = jax.grad(function, axis)
    return function


@pytest.mark.filterwarnings("ignore::probkit.models.pde.AliasWarning")
@pytest.mark.parametrize("name", EXAMPLES)
def test_the_known_solution_solves_the_example(name):
    # By derivatives of automatic differentiation, on few points: they need not resolve it.
    problem, exact = getattr(pde.examples, name)(num=9)
    pack = type(problem.coordinates())
    several = len(problem.axes) > 1

    def scalar(*x):
        return exact(pack(*x) if several else x[0])

    for equation, grid in ((problem.equation, None), (problem.held_out, problem.midpoints)):
        at = problem.coordinates(grid)
        flat = [jnp.asarray(a).ravel() for a in (at if several else [at])]
        shape = at[0].shape if several else at.shape
        found = {
            orders: jax.vmap(derivative(scalar, orders))(*flat).reshape(shape)
            for orders in equation.orders
        }
        largest = max(float(jnp.max(jnp.abs(value))) for value in found.values())
        # The phase 200 x of 1e3 radians has 1e-13 of rounding.
        np.testing.assert_allclose(equation(found), 0.0, atol=1e-11 * largest)


@pytest.mark.filterwarnings("ignore::probkit.models.pde.AliasWarning")
@pytest.mark.parametrize("name", EXAMPLES)
def test_the_known_solution_meets_the_conditions(name):
    problem, exact = getattr(pde.examples, name)(num=9)
    whole = exact(problem.coordinates())
    assert problem.conditions
    for condition in problem.conditions:
        end = np.take(whole, 0 if condition.side == "low" else -1, condition.axis)
        # The phase is 1e3 radians.
        np.testing.assert_allclose(condition.values, end, atol=1e-12)
        assert condition.order == 0


def test_the_advection_example_tells_start_and_inflow_or_all():
    def faces(problem):
        return {(c.axis, c.side) for c in problem.conditions}

    few, _ = pde.examples.v1(num=9)
    many, _ = pde.examples.v1(num=9, all_edges=True)
    assert faces(few) == {(0, "low"), (1, "low")}
    assert faces(many) == faces(few) | {(0, "high"), (1, "high")}
    assert few.axes == ("x", "t") and few.length == (2 * np.pi, 1.0)


def test_examples_are_linear_but_for_allen_cahn():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pde.AliasWarning)
        made = {name: getattr(pde.examples, name)(num=9)[0] for name in EXAMPLES}
    linear = {name for name, problem in made.items() if problem.equation.is_linear}
    assert linear == set(EXAMPLES) - {"a1", "a2", "a3"}


# Aliases.


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_on_their_grids_have_no_aliases(name):
    getattr(pde.examples, name)()


SMOOTH = {
    "a constant": lambda x: -4.0 + 0 * x,
    "a line": lambda x: 1e6 + 3 * x,
    "a parabola": lambda x: (x - 0.3) ** 2,
    "growth": lambda x: np.exp(3 * x),
    "decay": lambda x: 1e8 * np.exp(-5 * x),
    "a tone in a ramp": lambda x: x * np.sin(40 * x),
    "a pulse": lambda x: np.exp(-0.5 * ((x - 0.4) / 0.1) ** 2),
    "rounding": lambda x: np.cos(x) ** 2 + np.sin(x) ** 2,
    "a pole outside": lambda x: 1 / (1 + 25 * x**2),
    "Allen-Cahn": lambda x: -1e4 * np.sin(60 * x) + np.sin(60 * x) ** 3,
    "near Nyquist": lambda x: np.sin(2 * np.pi * 25 * x),
}


@pytest.mark.parametrize("source", SMOOTH.values(), ids=SMOOTH.keys())
def test_smooth_sources_have_no_aliases(source):
    one_dimension(lambda u, x: u.dxx - source(x), shape=61)


@pytest.mark.parametrize(
    "name, num, true, most",
    [("u1", 200, 15.92, 15.84), ("u3", 200, 16.87, 15.84), ("u1", 30, 15.92, 2.308)],
)
def test_a_grid_below_the_rate_of_the_source_is_warned_of(name, num, true, most):
    with pytest.warns(pde.AliasWarning, match=f"with {num} points") as caught:
        getattr(pde.examples, name)(num)
    message = str(caught[0].message)
    words = message.split()
    # The spectrum has a resolution of 1 / length.
    frequency = float(words[words.index("cycles") - 1])
    assert frequency == pytest.approx(true, abs=1 / (2 * np.pi))
    assert f"up to {most} (Nyquist)" in message and "`x`" in message
    enough = int(words[words.index("would") - 2])
    assert 4 * np.pi * true < enough < 4 * np.pi * (true + 1)
    getattr(pde.examples, name)(enough)


def test_an_alias_is_told_along_its_own_axis():
    def wave(u, p):
        return u.dxx + u.dtt - np.sin(20 * p.x) * np.cos(100 * p.t)

    with pytest.warns(pde.AliasWarning) as caught:
        pde.Problem(BOX, wave, pde.Dirichlet(0.0), shape=(60, 40))
    (only,) = caught
    assert re.search("15.9.* cycles per unit of `t`", str(only.message))


def test_a_source_that_no_grid_resolves_says_so():
    with pytest.warns(pde.AliasWarning, match=r"Along `x`, \d+ are too few"):
        one_dimension(lambda u, x: u.dxx - np.sign(x - 0.4321), shape=60)


def test_a_faint_tone_above_nyquist_is_found():
    def source(x, amplitude):
        return np.sin(2 * np.pi * 5 * x) + amplitude * np.sin(2 * np.pi * 40 * x)

    with pytest.warns(pde.AliasWarning, match=r" 39.9\d cycles"):
        one_dimension(lambda u, x: u.dxx - source(x, 3e-3), shape=60)
    one_dimension(lambda u, x: u.dxx - source(x, 3e-4), shape=60)
