"""Chebyshev interpolation in Tucker form, against the functions and NumPy's polynomials."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.polynomial import chebyshev as numpy_chebyshev

from doors import refused
from probkit.models import tucker
from probkit.models.tucker.chebyshev import polynomials, truncated

pytestmark = pytest.mark.usefixtures("no_checker")

rng = np.random.default_rng(0)
BOX = [(0.0, 2.0), (-1.0, 1.0), (10.0, 13.0)]


def inside(box, count=200):
    low, high = np.array(box).T
    return jnp.asarray(rng.uniform(low, high, (count, len(box))))


# Compiled whole, because each operation by itself is compiled for each number of points.
@jax.jit
def smooth(p):
    """Poles in the complex plane, so that the error falls geometrically; no finite rank."""
    x, y, z = p[..., 0], p[..., 1], p[..., 2]
    return 1 / (3 + x + jnp.sin(y) + (z - 11) ** 2 / 2)


@jax.jit
def cubic(p):
    x, y, z = p[..., 0], p[..., 1], p[..., 2]
    return x**3 * y - 2 * y**3 * (z - 11) + z - x * y * (z - 12) ** 2


def error(value, function, box):
    points = inside(box)
    exact = np.asarray(function(points))
    return float(np.abs(value(points) - exact).max() / np.abs(exact).max())


def test_polynomials_are_those_of_numpy():
    x = np.linspace(-1, 1, 7)
    expected = numpy_chebyshev.chebvander(x, 9)
    np.testing.assert_allclose(polynomials(jnp.asarray(x), 10), expected, atol=1e-14)


def test_a_polynomial_is_exact_with_one_node_more_than_its_degree():
    value = tucker.chebyshev(cubic, BOX, num_nodes=4)
    assert error(value, cubic, BOX) < 1e-13
    fewer = tucker.chebyshev(cubic, BOX, num_nodes=(4, 4, 3))  # degree two in z
    assert error(fewer, cubic, BOX) < 1e-13


def test_coefficients_are_those_of_numpy():
    value = tucker.chebyshev(lambda p: jnp.exp(p[:, 0]) * p[:, 1], [(-1, 1), (-1, 1)], 12)
    assert value.ranks == (1, 1)
    found = value.factors[0][:, 0] * value.factors[1][1, 0] * value.core[0, 0]
    expected = numpy_chebyshev.chebinterpolate(np.exp, 11)
    np.testing.assert_allclose(found, expected, atol=1e-14)


def test_the_error_falls_geometrically_with_the_nodes():
    sizes = np.array([4, 8, 12, 16, 20])
    errors = [error(tucker.chebyshev(smooth, BOX, int(n)), smooth, BOX) for n in sizes]
    slope = np.diff(np.log(errors)) / np.diff(sizes)
    assert np.all(slope < np.log(0.6))  # each node takes off a constant share
    assert errors[-1] < 1e-8


def test_four_variables():
    @jax.jit
    def wave(p):
        return jnp.cos(p[..., 0] + 0.5 * p[..., 1]) * jnp.exp(-p[..., 2] * p[..., 3])

    box = [(0, 1), (0, 1), (0, 1), (0, 1)]
    value = tucker.chebyshev(wave, box, 14, tol=1e-12)
    assert error(value, wave, box) < 1e-10
    # cos(a + b) has two terms, and the exponential of a product a few.
    assert value.ranks[:2] == (2, 2)
    assert max(value.ranks) < 14


def test_the_sum_of_separate_functions_has_its_rank():
    def total(p):
        return jnp.sin(p[:, 0]) * jnp.exp(p[:, 1]) + p[:, 2] ** 2

    assert tucker.chebyshev(total, BOX, 16, tol=1e-12).ranks == (2, 2, 2)


@pytest.mark.parametrize("tol", [1e-2, 1e-4, 1e-8])
def test_the_tolerance_bounds_what_is_left_out(tol):
    tensor = rng.normal(size=(6, 7, 8)) * np.exp(-np.arange(8.0))
    core, factors, left_out = truncated(tensor, tensor.shape, tol)
    again = np.einsum("abc,ia,jb,kc->ijk", core, *factors)
    found = np.linalg.norm(again - tensor) / np.linalg.norm(tensor)
    assert float(found) <= tol
    assert float(found) == pytest.approx(float(left_out), rel=1e-6, abs=1e-14)


def test_ranks_are_kept_and_what_they_cost_is_measured():
    value = tucker.chebyshev(smooth, BOX, 12, ranks=(2, 1, 2))
    assert value.ranks == (2, 1, 2)
    assert float(value.left_out) > 1e-3
    assert float(tucker.chebyshev(smooth, BOX, 12, ranks=4).left_out) < 1e-5


def test_the_last_coefficients_warn_of_too_few_nodes():
    few, many = (tucker.chebyshev(smooth, BOX, n).last for n in (4, 20))
    assert float(few.max()) > 1e-3
    assert float(many.max()) < 1e-8


def test_derivatives_are_those_of_the_function():
    value = tucker.chebyshev(smooth, BOX, 20)
    low, high = jnp.array(BOX).T
    for point in (jnp.array([0.3, 0.2, 12.5]), low, high):  # the corners too
        found = jax.grad(value)(point)
        np.testing.assert_allclose(found, jax.grad(smooth)(point), rtol=1e-4, atol=1e-7)


def test_points_have_any_shape_and_outside_is_nan():
    value = tucker.chebyshev(cubic, BOX, 4)
    points = inside(BOX, 6).reshape(2, 3, 3)
    np.testing.assert_allclose(value(points), cubic(points), rtol=1e-12)
    assert np.isnan(value(jnp.array([2.1, 0.0, 11.0])))
    assert np.isfinite(value(jnp.array([2.0, -1.0, 13.0])))


def test_zero_stays_zero():
    value = tucker.chebyshev(lambda p: jnp.zeros(len(p)), BOX, 4)
    np.testing.assert_array_equal(value(inside(BOX, 5)), 0.0)
    assert float(value.left_out) == 0


def test_float32_is_right_to_its_precision():
    def single(p):
        return smooth(p).astype(jnp.float32)

    value = tucker.chebyshev(single, BOX, 20, tol=1e-5)
    assert value.core.dtype == jnp.float32
    assert error(value, smooth, BOX) < 1e-4


SETTINGS = {
    "no box": ((smooth, [1, 2]), r"box=\[1, 2\]\)`: it takes the ends"),
    "a box upside down": ((smooth, [(1, 0)]), r"not below its upper end; swap"),
    "one node": ((smooth, BOX, 1), r"num_nodes=1\)`: it takes a whole number, 2"),
    "two numbers": ((smooth, BOX, (3, 3)), r"has 2 numbers; the box has 3"),
    "too many": ((smooth, BOX, 1000), r"1.0e\+09 points of 3 variables"),
    "a high rank": ((smooth, BOX, 4, 5), r"ranks=5\)` is above the number of nodes"),
    "a wrong shape": ((lambda p: p, BOX, 4), r"shape \(64, 3\) for points of"),
    "a pole": ((lambda p: p[:, 0] / 0.0, BOX, 4), r"infinite.* box in which .* finite"),
}


@pytest.mark.parametrize("given", SETTINGS.values(), ids=SETTINGS.keys())
def test_wrong_settings_get_one_line(given):
    arguments, pattern = given
    refused(lambda: tucker.chebyshev(*arguments), pattern)
