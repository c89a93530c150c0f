"""PDE problems at the door: wrong gets one clear line, odd things work."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from doors import NO_COUNT, NO_SIZE, refused
from probkit.models import pde

pytestmark = pytest.mark.usefixtures("no_checker")


ZERO = pde.Dirichlet(0.0)
FLAT = {"x": (0, 1)}
BOX = {"x": (0, 1), "y": (0, 2)}


def poisson(u, p):
    return u.dxx - 1.0


def problem(domain=FLAT, residual=poisson, boundary=ZERO, shape=9, **others):
    return pde.Problem(domain, residual, boundary, shape=shape, **others)


# What was given, and words that the message must have, in their order.

POLYNOMIAL = r".*; a residual is a polynomial in `u` and its derivatives"
NOT_UNDERSTOOD = r"`residual`: operator not understood: {}" + POLYNOMIAL
OPERATORS = {
    "sin of JAX": (lambda u, x: jnp.sin(u), "`sin` of JAX"),
    "sin of NumPy": (lambda u, x: u.dxx + np.sin(u), "`sin`"),
    "exp of NumPy": (lambda u, x: np.exp(-u) - x, "`exp`"),
    "sin of Python": (lambda u, x: math.sin(u), "must be real number, not Polynomial"),
    "division by u": (lambda u, x: u / u, "division by `u` or an unknown"),
    "a number over u": (lambda u, x: 1 / u, "division by `u` or an unknown"),
    "an array over u": (lambda u, x: x / (1 + u), "division by `u` or an unknown"),
    "division in NumPy": (lambda u, x: np.divide(x, u), "division by `u` or an unknown"),
    "a root": (lambda u, x: u**0.5, "the power 0.5"),
    "a float power": (lambda u, x: u**2.0, "the power 2.0"),
    "a negative power": (lambda u, x: u**-1, "the power -1"),
    "a power of u": (lambda u, x: u**u, "the power Polynomial"),
    "a power in NumPy": (lambda u, x: np.power(u, 0.5), "the power 0.5"),
    "u for a power": (lambda u, x: 2**u, "unsupported operand.* 'Polynomial'"),
    "an array of powers": (lambda u, x: np.power(u, x), "the power array"),
    "a root of NumPy": (lambda u, x: np.sqrt(u), "`sqrt`"),
    "abs": (lambda u, x: abs(u), r"bad operand type for abs.* 'Polynomial'"),
    "abs of NumPy": (lambda u, x: np.abs(u), "`absolute`"),
    "a comparison": (lambda u, x: u > 0, "'>' not supported .* 'Polynomial'"),
    "a comparison of arrays": (lambda u, x: x < u, "`less`"),
    "equality": (lambda u, x: u == 0, "a comparison"),
    "a condition": (lambda u, x: u if u else x, "`u` for a condition"),
    "where": (lambda u, x: np.where(x > 0.5, u, 0), "`where`"),
    "a product of JAX": (lambda u, x: jnp.multiply(x, u), "`multiply` of JAX"),
    "a sum of JAX": (lambda u, x: jnp.sum(u), "`_reduce_sum` of JAX"),
    "an array of JAX": (lambda u, x: jnp.asarray(u) * x, "`result_type`"),
    "where of JAX": (lambda u, x: jnp.where(x > 0.5, u, 0), "`where` of JAX"),
    "a sum of NumPy": (lambda u, x: np.sum(u), "`sum`"),
    "an array of it": (lambda u, x: np.asarray(u), "`u` for an array"),
    "in place": (lambda u, x: np.multiply(x, u, out=x), "`multiply`"),
    "a function with much to say": (lambda u, x: jax.nn.relu(u), r"Error interpr.*\.\.\."),
    "an entry": (lambda u, x: u[0], "'Polynomial' object is not subscr"),
    "a matrix product": (lambda u, x: u @ u, "unsupported operand type"),
    "a remainder": (lambda u, x: u % 2, "unsupported operand type"),
    "its length": (lambda u, x: len(u) * u, r"object of type 'Polynomial' has no len\(\)"),
    "a loop": (lambda u, x: sum(u), "'Polynomial' object is not iterable"),
}


@pytest.mark.parametrize("residual, words", OPERATORS.values(), ids=OPERATORS.keys())
def test_operators_that_are_not_understood(residual, words):
    refused(lambda: problem(residual=residual), NOT_UNDERSTOOD.format(words))


UNKNOWN = {"rate": (0, 1)}
TERMS = r"it takes an expression in `u` and its derivatives that is zero"
SHAPES = r"it takes a number, or one per point: \(9,\)"
RESIDUALS = {
    "no axis": (lambda u, x: u.dzz, r"`u.dzz` is no derivative; the axes are `x`: `u.dx`"),
    "no derivative": (lambda u, x: u.xx, r"`u.xx` is no derivative; .*: `u.dx`, `u.dxx`"),
    "a method": (lambda u, x: u.sum(), r"`u.sum` is no derivative"),
    "a name of an axis": (lambda u, x: u.d_x_, r"`u.d_x_` is no derivative"),
    "order five": (lambda u, x: u.dxxxxx, r"`u.dxxxxx` has order 5 in `x`; .* to order 4"),
    "order five in turn": (lambda u, x: u.dxxx.dxx, r"`u.dxx` has order 5 in `x`"),
    "order five of a product": (
        lambda u, x: (u * u.dxxxx).dx,
        r"`u.dx` has order 5 in `x`",
    ),
    "of a jump": (
        lambda u, x: (np.where(x < 0.6, 1.0, 0.1) * u.dx).dx,
        r"derivative of a coefficient that jumps between x = 0.5 and 0.625, or changes",
    ),
    "of a jump between points": (
        lambda u, x: (np.where(x < 0.57, 1.0, 0.1) * u.dx).dx,
        r"jumps between x = 0.5 and 0.625, .*; say where .* `breaks=.\"x\": .*, or raise",
    ),
    "of what is NaN": (
        lambda u, x: (np.sqrt(x - 0.2) * u.dx).dx,
        r"a coefficient is NaN or infinite at x = 0 and 1 other points\.",
    ),
    "a number": (lambda u, x: 1.0, r"returned numbers without `u`; " + TERMS),
    "an array": (lambda u, x: np.sin(x), r"returned numbers without `u`; " + TERMS),
    "a JAX array": (lambda u, x: jnp.sin(x), r"returned numbers without `u`; " + TERMS),
    "None": (lambda u, x: None, r"returned None \(does it `return`\?\); " + TERMS),
    "text": (lambda u, x: "u", r"returned a str; " + TERMS),
    "two equations": (lambda u, x: (u.dx, u.dxx), r"returned a tuple; " + TERMS),
    "u cancelled": (lambda u, x: u - u + x, r"has no `u` in it; " + TERMS),
    "u to the power 0": (lambda u, x: u**0 * x, r"has no `u` in it"),
    "u times zero": (lambda u, x: 0 * u + x, r"has no `u` in it"),
    "no function": (3.0, r"`Problem\(residual=...\)`: it takes a function of \(u, coord"),
    "an array for one": (np.ones(9), r"it takes a function of \(u, coordinates\)"),
    "one argument": (lambda u: u.dxx, r"it takes a function of \(u, coordinates\)"),
    "four arguments": (lambda u, x, y, z: u, r"it takes a function of \(u, coordinates\)"),
    "a coordinate by its name": (
        lambda u, x: u - x.x,
        r"asks .* `.x`; in one .* itself",
    ),
    "an array of the grid": (
        lambda u, x: u.dxx - np.ones(9),
        r"shape \(9,\), that of the grid, but is needed at other .*; compute it from",
    ),
    "an array too short": (lambda u, x: u - np.ones(5), r"shape \(5,\); " + SHAPES),
    "a column": (lambda u, x: u * x[:, None], r"shape \(9, 1\); " + SHAPES),
    "a complex source": (
        lambda u, x: u - 1j * x,
        r"got complex128 values; .* real numbers",
    ),
    "a complex number": (lambda u, x: 1j * u, r"got complex128 values; .* real numbers"),
    "text in it": (lambda u, x: u + "1", r"got <U1 values; it takes real numbers"),
    "None in it": (lambda u, x: u * None, r"got NoneType; it takes real numbers"),
    "a ragged list": (lambda u, x: u * [[1], [2, 3]], r"got list; it takes real numbers"),
    "a pole": (lambda u, x: u.dxx - 1 / (x - 0.5), r"the source is NaN or .* at x = 0.5\."),
    "a log": (
        lambda u, x: u.dxx - np.log(x - 0.3),
        r"the source is NaN or infinite at x = 0 and 2 other points\.",
    ),
    "a root of the negative": (
        lambda u, x: np.sqrt(x - 0.2) * u.dxx,
        r"a coefficient is NaN or infinite at x = 0 and 1 other points\.",
    ),
    "a NaN": (lambda u, x: u.dxx * np.nan, r"a coefficient is NaN or infinite\.$"),
    "division by zero": (lambda u, x: u.dxx / 0, r"a coefficient is NaN or infinite\.$"),
    "a pole between points": (
        lambda u, x: u.dxx - 1 / (x - 0.0625),
        r"the source is NaN or infinite at x = 0.0625",
    ),
    "other terms elsewhere": (
        lambda u, x: u.dxx if len(x) == 9 else u.dx,
        r"other terms on the grid than between its points",
    ),
    "unknown that nobody declared": (
        lambda u, x, c: c.rate * u.dx,
        r"asks for `.rate`, but `Problem\(unknown=...\)` has: none",
    ),
}


@pytest.mark.parametrize("residual, pattern", RESIDUALS.values(), ids=RESIDUALS.keys())
def test_residuals_refuse(residual, pattern):
    refused(lambda: problem(residual=residual), pattern)


def test_residuals_refuse_what_the_domain_has_not():
    refused(lambda: problem(BOX, lambda u, p: u - p.z), r"asks for `.z`, .* has: `x`, `y`")
    refused(
        lambda: problem(BOX, lambda u, p: u.dyy - 1 / (p.x + p.y), shape=(8, 9)),
        r"the source is NaN or infinite at x = 0, y = 0\.",
    )
    refused(
        lambda: problem(BOX, lambda u, p: u - np.ones(9), shape=(8, 9)),
        r"shape \(9,\); it takes a number, or one per point: \(8, 9\)",
    )


def test_a_named_tuple_is_no_array():
    words = r"Coordinates are a named tuple: give functions one of them, such as `p.x`"
    refused(lambda: problem(BOX, lambda u, p: u.dxx - np.sin(p)), words)
    refused(lambda: problem(BOX, boundary=pde.Dirichlet(np.sin, on="x")), words)


def test_other_mistakes_of_a_residual_are_its_own():
    with pytest.raises(ZeroDivisionError):
        problem(residual=lambda u, x: u / (1 // 0))
    with pytest.raises(AttributeError, match="'list' object has no attribute 'foo'"):
        problem(residual=lambda u, x: [].foo)
    with pytest.raises(TypeError, match="unsupported operand"):
        problem(residual=lambda u, x: None + 1)


ENDS = r"it takes two numbers, \(low, high\)"
ORDER = r"it takes two finite numbers, the lower one first"
NAME = r"it takes names that a variable can have, such as `x`"
TAKEN = r"which names something else of a fit; call it something else"
DOMAINS = {
    "None": (None, r"`Problem\(domain=None\)`: it takes the ends of each axis by its name"),
    "nothing": ({}, r"`Problem\(domain=\{\}\)`: it takes the ends"),
    "ends alone": ((0, 1), r"`Problem\(domain=\(0, 1\)\)`: it takes the ends"),
    "four axes": (dict.fromkeys("xyzt", (0, 1)), r"has 4 axes; it takes up to 3"),
    "one end": ({"x": 1.0}, r"`Problem\(domain=\{'x': 1.0\}\)`: " + ENDS),
    "three ends": ({"x": (0, 1, 2)}, ENDS),
    "text": ({"x": ("a", "b")}, ENDS),
    "no ends": ({"x": None}, ENDS),
    "complex ends": ({"x": (0, 1j)}, ENDS),
    "backwards": ({"x": (1, 0)}, r"`Problem\(domain=\{'x': \(1, 0\)\}\)`: " + ORDER),
    "empty": ({"x": (1, 1)}, ORDER),
    "infinite": ({"x": (0, np.inf)}, ORDER),
    "NaN": ({"x": (np.nan, 1)}, ORDER),
    "an immense length": ({"x": (0, 1e200)}, r"from 0 to 1e\+200, is beyond what float64"),
    "more than a float": ({"x": (-1e308, 1e308)}, r"is beyond what .*; use other units"),
    "a tiny length": ({"x": (0, 1e-200)}, r"is beyond what .*; use other units"),
    "narrow and far away": ({"x": (1e9, 1e9 + 1)}, r"is beyond .* or another origin"),
    "a space": ({"a b": (0, 1)}, r"the name 'a b'; " + NAME),
    "a number": ({1: (0, 1)}, r"the name 1; " + NAME),
    "a keyword": ({"in": (0, 1)}, r"the name 'in'; " + NAME),
    "private": ({"_x": (0, 1)}, r"the name '_x'; " + NAME),
    **{
        name: ({name: (0, 1)}, rf"the name '{name}', " + TAKEN)
        for name in ("u", "chain", "draw", "observation", "x_mid", "x_fine", "source")
    },
    "a term": ({"term_0": (0, 1)}, r"the name 'term_0', " + TAKEN),
}


@pytest.mark.parametrize("domain, pattern", DOMAINS.values(), ids=DOMAINS.keys())
def test_domains_refuse(domain, pattern):
    refused(lambda: problem(domain, lambda u, p: u), pattern)


@pytest.mark.parametrize("shape", NO_COUNT, ids=repr)
def test_shape_counts(shape):
    if np.ndim(shape) != 1:
        pattern = r"`Problem\(shape=.*(whole numbers, 8 or more|grid too coarse)"
        refused(lambda: problem(shape=shape), pattern)


def test_shapes_refuse():
    refused(
        lambda: problem(shape=7), r"shape=7\)`: grid too coarse, 7 points along `x`; .* 8"
    )
    refused(lambda: problem(BOX, shape=(9, 3)), r"grid too coarse, 3 points along `y`")
    each = r"it takes a number for each axis \({}\), or one for all"
    refused(lambda: problem(BOX, shape=(9,)), "has length 1; " + each.format("`x`, `y`"))
    refused(lambda: problem(FLAT, shape=[9, 9]), "has length 2; " + each.format("`x`"))
    refused(lambda: problem(shape=[9.5]), r"whole numbers, 8 or more")


def field(p):
    return p.x


GLUED = r"axis `x` is `Periodic`, and has no ends"
NO_FACE = r"there is no face .*; axes are `x`, `y`: \"x\" is both ends, \"x-\" the low"
BOUNDARIES = {
    "a number": (0.0, r"`Problem\(boundary=...\)` got 0.0; it takes `pde.Dirichlet`"),
    "a function": (field, r"`Problem\(boundary=...\)` got <function"),
    "a class": ([pde.Dirichlet], r"got <class .*; it takes `pde.Dirichlet`"),
    "no such face": (
        pde.Dirichlet(0, "z"),
        r"`Dirichlet\(on='z'\)`: " + NO_FACE.format("'z'"),
    ),
    "no such end": (
        pde.Neumann(0, "x="),
        r"`Neumann\(on='x='\)`: " + NO_FACE.format("'x='"),
    ),
    "one of several": (pde.Neumann(0, ("x", "w-")), r"there is no face 'w-'"),
    "no place": (pde.Dirichlet(0, ()), r"`Dirichlet\(on=\(\)\)`: there is no face \(\)"),
    "an empty word": (pde.Dirichlet(0, ""), r"there is no face ''"),
    "a minus": (pde.Dirichlet(0, "-"), r"there is no face '-'"),
    "no such axis": (
        pde.Periodic("z"),
        r"`Periodic\('z'\)`: there is no such axis",
    ),
    "no time": (
        pde.Initial(0),
        r"`Initial\(axis='t'\)`: .* no such axis; .* `x`, `y`",
    ),
    "twice": (
        [pde.Dirichlet(0, "x"), pde.Dirichlet(1, "x-")],
        r"gives the low end of `x` twice, by `Dirichlet\(on=\"x-\"\)` and `Dir",
    ),
    "twice in one": (pde.Neumann(0, ("x", "x+")), r"gives the high end of `x` twice"),
    "start twice": (
        [pde.Initial(0, axis="y"), pde.Dirichlet(1, "y-")],
        r"the low end of `y` twice, by `Initial\(...\)` and `Dirichlet\(on=\"y-\"\)`",
    ),
    "periodic twice": ([pde.Periodic("x")] * 2, r"gives `x` twice, by `Periodic` and"),
    "glued and told": ([pde.Periodic("x"), pde.Dirichlet(0, "x-")], GLUED),
    "told and glued": ([pde.Neumann(0, "x-"), pde.Periodic("x")], GLUED),
    "glued time": ([pde.Periodic("x"), pde.Initial(0, axis="x")], GLUED),
    "two for the rest": ([ZERO, pde.Neumann(0)], r"two conditions without `on`.*give `on`"),
    "no rest": (
        [ZERO, pde.Periodic("x"), pde.Initial(0, axis="y")],
        r"`Dirichlet\(...\)` without `on` is for the faces that remain, and there are none",
    ),
    "a NaN": (
        pde.Dirichlet(np.nan, "x-"),
        r"is NaN .* at x = 0, y = 0 and 8 other",
    ),
    "a pole": (
        pde.Dirichlet(lambda p: 1 / (p.y - 1), "x+"),
        r"`Dirichlet\(on=\"x\+\"\)` is NaN or infinite at x = 1, y = 1\.",
    ),
    "too few values": (
        pde.Neumann(np.ones(8), "x-"),
        r"`Neumann\(on=\"x-\"\)` has values of shape \(8,\) at the low end.* \(9,\)",
    ),
    "values of the grid": (
        pde.Dirichlet(np.ones((9, 9)), "y"),
        r"shape \(9, 9\) at ",
    ),
    "text": (
        pde.Dirichlet("sin", "x"),
        r"`Dirichlet\(on=\"x-\"\)` got <U3 values; .*",
    ),
    "None": (pde.Dirichlet(None, "x"), r"`Dirichlet\(on=\"x-\"\)` got NoneType; .* real"),
    "complex": (pde.Dirichlet(1j, "x"), r"got complex128 values; it takes real numbers"),
    "no such coordinate": (
        pde.Dirichlet(lambda p: p.t, "x"),
        r"`Dirichlet\(on=\"x-\"\)` asks for `.t`, but .*domain=...\)` has: `x`, `y`",
    ),
    "a function of two": (
        pde.Dirichlet(lambda x, y: x, "x"),
        r"`Dirichlet\(on=\"x-\"\)`: it takes a function of \(coordinates\)",
    ),
    "a slope by two names": (
        [pde.Neumann(0, "x-"), pde.Derivative(0, order=1, on="x-")],
        r"the low end of `x` twice, by `Neumann\(on=\"x-\"\)` and `Derivative\(order=1, on",
    ),
    "order zero": (
        pde.Derivative(0, order=0, on="x-"),
        r"`Derivative\(order=0\)`: it takes a whole number, 1 to 4",
    ),
    "order five": (pde.Derivative(0, order=5, on="x-"), r"order=5\)`: .* 1 to 4"),
    "a function of u": (
        pde.Neumann(lambda u: -2 * u, "x-"),
        r"`Neumann\(on=\"x-\"\)` is a function of `u`; .* `pde.Robin\(value, weight=",
    ),
    "a weight of u": (
        pde.Robin(1.0, weight=lambda u: u, on="x-"),
        r"`Robin\(on=\"x-\", weight=...\)` is a function of `u`",
    ),
    "a weight of NaN": (
        pde.Robin(1.0, weight=np.nan, on="x-"),
        r"`Robin\(on=\"x-\", weight=...\)` is NaN or infinite at x = 0, y = 0",
    ),
    "too few weights": (
        pde.Robin(1.0, weight=np.ones(8), on="x"),
        r"`Robin\(on=\"x-\", weight=...\)` has values of shape \(8,\) .* \(9,\)",
    ),
    "no weight": (
        [ZERO, pde.Robin(1.0, weight=None, on="x-")],
        r"`Robin\(on=\"x-\", weight=...\)` got NoneType; it takes real numbers",
    ),
    "a slope and a sum": (
        [pde.Robin(1.0, weight=1.0, on="x"), pde.Neumann(0.0, on="x+")],
        r"the high end of `x` twice, by `Robin\(on=\"x\+\"\)` and `Neumann",
    ),
    "two for all faces": (
        [pde.Robin(1.0, weight=1.0), pde.Neumann(0.0)],
        r"two conditions without `on`",
    ),
    "an unknown that nobody declared": (
        pde.Dirichlet(lambda p, c: c.g, "x-"),
        r"of \(coordinates\), or with `Problem\(unknown=...\)` of \(coordinates, unkn",
    ),
    "a velocity of NaN": (
        pde.Initial(0, np.nan, "y"),
        r"`Initial\(velocity=...\)` is NaN or infinite at x = 0, y = 0",
    ),
    "nothing": ((), r"are both empty, so that the equation has many solutions"),
    "None at all": (None, r"are both empty"),
}


@pytest.mark.parametrize("boundary, pattern", BOUNDARIES.values(), ids=BOUNDARIES.keys())
def test_boundaries_refuse(boundary, pattern):
    refused(lambda: problem(BOX, boundary=boundary), pattern)


@pytest.mark.parametrize("order", ["2", 2.0, None, True])
def test_an_order_is_a_whole_number(order):
    refused(
        lambda: problem(BOX, boundary=pde.Derivative(0, order=order, on="x")),
        r"`Derivative\(order=.*\)`: it takes a whole number, 1 to 4",
    )


def test_places_are_text():
    refused(
        lambda: problem(BOX, boundary=pde.Dirichlet(0, 1)),
        r"`Dirichlet\(on=1\)`: there is no face 1",
    )
    refused(
        lambda: problem(BOX, boundary=pde.Periodic(["x"])),
        r"`Periodic\(\['x'\]\)`: there is no such axis",
    )


def test_in_one_dimension_a_value_is_a_number():
    refused(
        lambda: problem(boundary=pde.Dirichlet(np.ones(2))),
        r"`Dirichlet\(...\)` has values of shape \(2,\) at the low end of `x`; .* a number",
    )
    refused(
        lambda: problem(boundary=pde.Dirichlet(lambda p: p.x)),
        r"asks the coordinates for `.x`; in one dimension they are the array itself",
    )


AT = np.array([[0.5, 0.5], [0.1, 2.0]])
OBSERVATIONS = {
    "arrays": (
        (AT, [1, 2]),
        r"observations=...\)` got \(array.*pde.Observations",
    ),
    "one column": (pde.Observations(AT[:, 0], [1, 2]), r"shape \(2,\); it takes \(m, 2\)"),
    "one axis of two": (
        pde.Observations(np.ones((2, 3)), [1, 2, 3]),
        r"shape \(2, 3\); .* \(m, 2",
    ),
    "no point": (
        pde.Observations(np.ones((0, 2)), []),
        r"shape \(0, 2\); it takes",
    ),
    "too few values": (
        pde.Observations(AT, [1]),
        r"values=.* shape \(1,\), .* are 2 ",
    ),
    "a column": (pde.Observations(AT, [[1], [2]]), r"shape \(2, 1\), .* it takes \(2,\)"),
    "outside": (
        pde.Observations(AT[:, ::-1], [1, 2]),
        r"points=...\)\[1\]` is at x = 2, outside the domain \(0, 1\) \(1 of 2 are\)",
    ),
    "a NaN of a point": (
        pde.Observations(AT * np.nan, [1, 2]),
        r"points=.* 4 values ",
    ),
    "a NaN": (pde.Observations(AT, [1, np.nan]), r"values=.* 1 value .*NaN.* first at 1"),
    "text": (pde.Observations(AT, ["a", "b"]), r"values=...\)` holds text"),
    "None": (pde.Observations(AT, None), r"values=...\)` got a NoneType"),
    "equal values": (pde.Observations(AT, [2, 2]), r"all 2 values equal, .*noise_sd="),
    "one value": (pde.Observations(AT[:1], [2]), r"has one value, .*give `noise_sd=`"),
}


@pytest.mark.parametrize("given, pattern", OBSERVATIONS.values(), ids=OBSERVATIONS.keys())
def test_observations_refuse(given, pattern):
    refused(lambda: problem(BOX, observations=given), pattern)


NO_SIZES = [
    *(value for value in NO_SIZE if value is not None and np.shape(value) != (2,)),
    *(1j, "", np.ones(3), np.ones((2, 1)), [1.0, 0.0], [-1.0, 1.0], []),
]


@pytest.mark.parametrize("value", NO_SIZES, ids=repr)
def test_noise_is_a_positive_number_for_all_or_for_each_or_none(value):
    given = pde.Observations(AT, [1, 2], value)
    words = r"`Observations\(noise_sd=.*takes a positive number, or 2 of them, one per"
    refused(lambda: problem(BOX, observations=given), words)


def test_noise_of_each_names_the_observation():
    given = pde.Observations(AT, [1, 2], [0.1, -0.2])
    pattern = r"`Observations\(noise_sd=...\)\[1\]` is -0.2 \(1 of 2 are not positive\)"
    refused(lambda: problem(BOX, observations=given), pattern)
    given = pde.Observations(AT, [1, 2], [0.1, np.nan])
    refused(lambda: problem(BOX, observations=given), r"noise_sd=.* 1 value .*NaN.* at 1")


RANGES = {
    "a name alone": ("rate", r"`Problem\(unknown='rate'\)`: it takes the range of each"),
    "backwards": ({"rate": (1, 0)}, r"`Problem\(unknown=\{'rate': \(1, 0\)\}\)`: " + ORDER),
    "infinite": ({"rate": (0, np.inf)}, ORDER),
    "a number": ({"rate": 1.0}, ENDS),
    "an axis": ({"x": (0, 1)}, r"has the name 'x', which is an axis"),
    "no name": ({"a b": (0, 1)}, r"the name 'a b'; .* such as `rate`"),
    "a name of a fit": ({"noise_sd": (0, 1)}, r"the name 'noise_sd', " + TAKEN),
    "one that is not used": (
        {"rate": (0, 1), "decay": (0, 1)},
        r"`Problem\(unknown=...\)` has 'decay', but the residual does not",
    ),
    "another": ({"decay": (0, 1)}, r"asks for `.rate`, but .*unknown=...\)` has: `decay`"),
}


@pytest.mark.parametrize("unknown, pattern", RANGES.values(), ids=RANGES.keys())
def test_unknown_coefficients_refuse(unknown, pattern):
    refused(
        lambda: problem(residual=lambda u, x, c: c.rate * u.dx, unknown=unknown), pattern
    )


VALUES = {
    "another": (lambda x, c: c.h, r"asks for `.h`, but .*unknown=...\)` has: `g`"),
    "a root": (
        lambda x, c: np.sqrt(c.g),
        r"`Initial\(...\)`: operator not understood: `sqrt`; a value is a poly",
    ),
    "division": (lambda x, c: 1 / c.g, "not understood: division by `u` or an unknown"),
    "JAX": (lambda x, c: jax.numpy.exp(c.g), "not understood: `exp` of JAX; a value is"),
    "an array": (
        lambda x, c: c.g * np.ones(3),
        r"`Initial\(...\)` has a coefficient .* shape \(3,\); it takes a number, or one",
    ),
    "NaN": (lambda x, c: c.g * np.nan, r"`Initial\(...\)` is NaN or infinite at x = 0"),
    "a derivative": (
        lambda x, c: c.g.dx,
        r"`Initial\(...\)`: `.dx` is asked of an unknown coefficient, which is a number",
    ),
    "three arguments": (lambda x, c, d: c.g, r"function of \(coordinates\), or with"),
    "none": (lambda x, c: 1.0, r"has 'g', but the residual does not, nor does a condition"),
    "cancelled": (lambda x, c: c.g - c.g, r"nor does a condition, so that nothing"),
}


@pytest.mark.parametrize("value, pattern", VALUES.values(), ids=VALUES.keys())
def test_values_of_unknowns_refuse(value, pattern):
    told = pde.Initial(value, axis="x")
    seen = pde.Observations([0.5], [1.0], 0.1)
    more = {"unknown": {"g": (0, 1)}, "observations": seen}
    refused(lambda: problem(FLAT, lambda u, x, c: u.dx, told, **more), pattern)


def test_unknowns_on_faces_need_observations():
    told = pde.Dirichlet(lambda x, c: c.g, on="x-")
    refused(
        lambda: problem(boundary=told, unknown={"g": (0, 1)}),
        r"has the unknown 'g', which only observations can .* give `observations=`",
    )


def test_unknown_coefficients_are_the_third_argument():
    refused(lambda: problem(unknown=UNKNOWN), r"a function of \(u, coordinates, unknown\)")
    told, seen = pde.Initial(lambda x, c: c.g, axis="x"), pde.Observations([0.5], [1.0], 1)
    more = {"boundary": told, "observations": seen}
    # One that is on a face need not be in the residual.
    assert problem(unknown={"g": (0, 1)}, **more).equation.unknowns == ()
    refused(
        lambda: problem(unknown=UNKNOWN | {"g": (0, 1)}, **more),
        r"a function of \(u, coordinates, unknown\)",
    )


def test_division_by_an_unknown_coefficient():
    refused(
        lambda: problem(residual=lambda u, x, c: u / c.rate, unknown=UNKNOWN),
        NOT_UNDERSTOOD.format("division by `u` or an unknown"),
    )


def test_float32_is_refused():
    with jax.enable_x64(False):
        words = r"needs float64, because .* 1e10 and more. Call `pk.enable_x64\(\)`"
        refused(problem, words)


def test_a_part_is_no_problem():
    words = r"`Problem` is one observation and cannot be divided"
    refused(lambda: problem().take([0]), words)


def test_a_compiled_function_makes_no_problem():
    def source(level):
        return problem(residual=lambda u, x: u.dxx - level).fine_source

    refused(lambda: jax.jit(source)(1.0), r"got .*Tracer; it takes real numbers")


# Odd, but right.

ODD = {
    "ends in a list": ({"domain": {"x": [0, 1]}}, {}),
    "ends of NumPy": ({"domain": {"x": np.array([0, 1])}}, {}),
    "ends of JAX": ({"domain": {"x": jnp.array([0.0, 1.0])}}, {}),
    "a shape of NumPy": ({"shape": np.int64(9)}, {}),
    "shape in a tuple": ({"shape": (9,)}, {}),
    "shape in an array": ({"shape": np.array([9])}, {}),
    "a list of one": ({"boundary": [ZERO]}, {}),
    "no unknown": ({"unknown": {}}, {}),
    "a residual of three": ({"residual": lambda u, x, c: u.dxx - 1}, {}),
    "any number of arguments": ({"residual": lambda *a: a[0].dxx - 1}, {}),
    "a default": ({"residual": lambda u, x, f=1: u.dxx - f}, {}),
    "a whole number": ({"residual": lambda u, x: u.dxx - 1}, {}),
    "a boolean": ({"residual": lambda u, x: u.dxx - True}, {}),
    "float32": ({"residual": lambda u, x: u.dxx - np.float32(1)}, {}),
}


@pytest.mark.parametrize("given", [g for g, _ in ODD.values()], ids=ODD.keys())
def test_any_way_of_saying_it_is_the_same_problem(given):
    usual, again = problem(), problem(**given)
    assert jax.tree.structure(again) == jax.tree.structure(usual)
    for one, other in zip(jax.tree.leaves(again), jax.tree.leaves(usual), strict=True):
        assert one.dtype == np.float64
        np.testing.assert_array_equal(one, other)


TABLES = {
    "lists": (AT.tolist(), [1, 2]),
    "data frames": (pd.DataFrame(AT), pd.Series([1, 2])),
    "xarray": (xr.DataArray(AT), xr.DataArray([1.0, 2.0])),
    "JAX arrays": (jnp.asarray(AT), jnp.asarray([1.0, 2.0])),
    "float32": (np.float32(AT), np.float32([1, 2])),
}


@pytest.mark.parametrize("points, values", TABLES.values(), ids=TABLES.keys())
def test_observations_come_in_any_array(points, values):
    given = problem(BOX, observations=pde.Observations(points, values, 1))
    np.testing.assert_allclose(given.points, AT, 1e-7)
    np.testing.assert_array_equal(given.values, [1.0, 2.0])
    observed = (given.points, given.values, given.noise_sd)
    assert {a.dtype for a in observed} == {np.dtype("float64")}


def test_changing_an_array_afterwards_changes_no_problem():
    mine = np.ones(9)
    kept = problem(BOX, boundary=pde.Dirichlet(mine, on="x-"))
    mine[:] = 7.0
    np.testing.assert_array_equal(kept.conditions[0].values, np.ones(9))


def test_a_residual_that_changes_its_coordinates_changes_no_other():
    def rough(u, p):
        p.x[:] = 7.0
        return u.dxx - p.x

    given = problem(BOX, rough, pde.Dirichlet(lambda p: p.x, on="x"))
    np.testing.assert_array_equal(given.grid[0], np.linspace(0, 1, 9))
    np.testing.assert_array_equal(given.conditions[1].values, np.ones(9))
