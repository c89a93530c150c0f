"""Axes that are stretched in thin layers, given by a user or found by `Closed`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import probkit as pk
from doors import refused
from probkit.gp import SpectralMixture
from probkit.models import pde
from probkit.models.pde.chart import Chart, features_on, stretched
from probkit.models.pde.thin import layers
from reference.pde import error

KEY = jax.random.key(0)
AT = np.random.default_rng(0).uniform(0, 1, 200)
CHART = Chart(-1.0, 2.0, (), ((-1.0, 0.1), (0.4, 0.03)))
ZERO = pde.Dirichlet(0.0)


def outflow(ε):
    """-ε u'' + u' = 1 with zero ends has a layer of width ε at x = 1."""

    def exact(x):
        return x - (np.exp((x - 1) / ε) - np.exp(-1 / ε)) / (1 - np.exp(-1 / ε))

    return (lambda u, x: -ε * u.dxx + u.dx - 1.0), exact


def problem(residual, boundary=ZERO, low=0.0, shape=200, **more):
    return pde.Problem({"x": (low, 1)}, residual, boundary, shape=shape, **more)


# The stretched axis


def test_points_are_even_on_the_stretched_axis_from_end_to_end():
    x = CHART.points((50,))
    s = stretched(CHART, x)[0]
    np.testing.assert_allclose(np.diff(s), 3 / 49, rtol=1e-9)
    assert (x[0], x[-1]) == (s[0], s[-1]) == (-1.0, 2.0)
    # Even points would be twice as far apart as the layers are wide.
    assert np.sum(np.abs(x - 0.4) <= 0.03) >= 3 and np.sum(x + 1 <= 0.1) >= 4


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_derivatives_are_those_of_the_functions_by_the_axis_itself(order):
    mixture = SpectralMixture([1.3], [0.7], [0.4], "gaussian")
    x = jnp.asarray([-0.99, -0.2, 0.41, 1.7])

    def waves(at):
        return features_on(CHART, mixture, at[None], 0, 5)[0]

    for _ in range(order):
        waves = jax.jacfwd(waves)
    expected = jax.vmap(waves)(x)
    found = features_on(CHART, mixture, x, order, 5)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9 * np.abs(found).max())


# Layers that a user gives


@pytest.mark.parametrize("width", [1e-2, 1e-3, 1e-4])
def test_the_width_of_a_layer_need_not_be_exact(width):
    residual, exact = outflow(1e-3)
    given = problem(residual, layers={"x": [(1.0, width)]})
    model = pde.SpectralGP(num_nodes=192, lengthscales={"x": 0.06}, calibrated=False)
    assert error(given, exact, model) < 1e-5


def test_a_layer_and_a_break_of_one_axis():
    # -(k u')' + u = 1: walls of widths 0.1 and 0.001 on either side of a break
    k, root = np.array([1e-2, 1e-6]), np.array([10.0, 1000.0])

    def exact(x):
        # Each side goes to 1 away from the break, but the left one has an end at 0.
        across = np.array(
            [
                [np.sinh(5.0), -1.0],
                [k[0] * root[0] * np.cosh(5.0), k[1] * root[1]],
            ]
        )
        b, c = np.linalg.solve(across, [np.cosh(5.0), k[0] * root[0] * np.sinh(5.0)])
        left = 1 - np.cosh(10 * x) + b * np.sinh(10 * x)
        right = 1 + c * np.exp(-1000 * (x - 0.5)) - np.exp(-1000 * (1 - x))
        return np.where(x < 0.5, left, right)

    given = problem(
        lambda u, x: -(np.where(x < 0.5, k[0], k[1]) * u.dx).dx + u - 1,
        breaks={"x": [0.5]},
        layers={"x": [(0.5, 1e-3), (1.0, 1e-3)]},
    )
    model = pde.SpectralGP(num_nodes=96, lengthscales={"x": 0.05}, calibrated=False)
    assert error(given, exact, model) < 1e-5


def test_an_axis_of_a_plane_is_stretched():
    ε = 0.01
    _, exact = outflow(ε)

    def u(p):
        return exact(p.y) * np.sin(np.pi * p.x)

    def residual(v, p):
        rest = (1 + ε * np.pi**2 * exact(p.y)) * np.sin(np.pi * p.x)
        return -ε * (v.dxx + v.dyy) + v.dy - rest

    plane = functools.partial(
        pde.Problem, {"x": (0, 1), "y": (0, 1)}, residual, ZERO, shape=(20, 80)
    )
    model = pde.SpectralGP(rank=20, num_nodes=64, lengthscales={"y": 0.2}, calibrated=False)
    assert error(plane(layers={"y": [(1.0, ε)]}), u, model) < 1e-3
    # So many functions do not follow it as it is.
    assert error(plane(), u, model) > 0.1


# Layers that are found


@functools.cache
def found():
    residual, exact = outflow(1e-4)
    with pytest.warns(pde.LayerWarning, match=r"of x = 1\. .*layers=\{\"x\": \[\(1, 7"):
        fit = pk.fit(pde.SpectralGP(), problem(residual), pde.Closed(max_steps=20), key=KEY)
    return fit, exact


def test_a_layer_thinner_than_the_grid_gets_points_and_is_solved():
    fit, exact = found()
    assert fit.result == "successful" and pk.diagnose(fit).ok
    ((where, width),) = fit.data.layers["x"]
    assert where == 1.0 and 2e-5 < width < 5e-4
    assert fit.data.shape == (200,)
    got = pk.predict(fit, AT, key=KEY)
    off = got.u_mean.values.reshape(-1) - exact(AT)
    assert np.linalg.norm(off) < 1e-6 * np.linalg.norm(exact(AT))
    assert np.mean(np.abs(off) < 1.96 * got.u_sd.values.reshape(-1)) > 0.9
    # The grid of the fit is that of what it recovers.
    on_grid = pk.recover(fit, key=KEY)
    np.testing.assert_array_equal(on_grid.x.values, fit.data.grid[0])
    truth = exact(on_grid.x.values)
    np.testing.assert_allclose(on_grid.solution_mean.values[0, 0], truth, atol=1e-5)


def test_a_file_has_the_layers(tmp_path):
    fit, _ = found()
    again = pk.load(pk.save(fit, tmp_path / "fit.nc"))
    assert again.data.layers == fit.data.layers
    np.testing.assert_array_equal(again.data.grid[0], fit.data.grid[0])
    assert pk.predict(again, AT, key=KEY).equals(pk.predict(fit, AT, key=KEY))
    # What the user wrote is not in a file.
    assert layers(again.data) == ()
    refused(lambda: again.data.with_layers({"x": [(1.0, 0.1)]}), "which a file does not")


PLACES = {
    "at both ends": (
        problem(lambda u, x: -1e-6 * u.dxx + u - 1.0),
        [(0.0, 1e-3), (1.0, 1e-3)],
    ),
    "inside": (
        problem(
            lambda u, x: 1e-6 * u.dxx + (x - 0.3) * u.dx,
            [pde.Dirichlet(-1.0, on="x-"), pde.Dirichlet(1.0, on="x+")],
        ),
        [(0.3, 1e-3)],
    ),
    "of a nonlinear equation": (
        problem(
            lambda u, x: u * u.dx - 0.01 * u.dxx,
            [pde.Dirichlet(1.0, on="x-"), pde.Dirichlet(-1.0, on="x+")],
            -1.0,
        ),
        [(0.0, 0.03)],
    ),
    "of an initial value": (
        problem(lambda u, x: u.dx + 1e4 * (u - x), pde.Initial(1.0, axis="x")),
        [(0.0, 1e-4)],
    ),
    "none in a smooth solution": (problem(outflow(0.3)[0]), []),
    "none in waves": (problem(lambda u, x: u.dxx + 2500 * np.sin(50 * x)), []),
    "not found where the equation has no one solution": (
        problem(lambda u, x: u.dxx + np.pi**2 * u - 1),
        [],
    ),
    "not looked for with too few conditions": (
        problem(lambda u, x: 1e-6 * u.dxx - u, pde.Dirichlet(1.0, on="x-")),
        [],
    ),
    "not looked for where the highest derivative is in a product": (
        problem(lambda u, x: u * u.dxx - 1 - u.dx, pde.Dirichlet(1.0)),
        [],
    ),
}


@pytest.mark.parametrize("given, expected", PLACES.values(), ids=PLACES.keys())
def test_where_layers_are(given, expected):
    got = sorted(layers(given))
    assert len(got) == len(expected)
    for (at, width), (place, about) in zip(got, expected, strict=True):
        assert abs(at - place) < about and about / 5 < width < 5 * about


def test_layers_that_are_given_are_kept_without_a_warning():
    residual, exact = outflow(1e-3)
    given = problem(residual, layers={"x": [(1.0, 3e-3)]})
    fit = pk.fit(pde.SpectralGP(), given, pde.Closed(), key=KEY)
    assert pk.diagnose(fit).ok and fit.data is given
    # They need more waves than the default, and what was taken is in the fit.
    assert fit.model.num_nodes > 24 and dict(fit.model.lengthscales)["x"] < 0.1
    off = pk.predict(fit, AT, key=KEY).u_mean.values.reshape(-1) - exact(AT)
    assert np.abs(off).max() < 1e-5


WRONG = {
    "no dict": (dict(layers=[(1, 0.1)]), r"`Problem\(layers=\[.*it takes a list for each"),
    "another axis": (dict(layers={"t": [(0, 1)]}), r"names the axis 't'; the axes are `x`"),
    "numbers": (dict(layers={"x": [1.0, 0.1]}), r"a list of pairs \(where, width\)"),
    "outside": (dict(layers={"x": [(1.1, 0.1)]}), "outside of the axis, from 0 to 1"),
    "no width": (dict(layers={"x": [(1.0, 0.0)]}), "it takes widths from 1e-08 to 1"),
    "too wide": (dict(layers={"x": [(1.0, 2.0)]}), "it takes widths from 1e-08 to 1"),
    "NaN": (dict(layers={"x": [(1.0, np.nan)]}), "it takes finite numbers"),
    "ragged": (dict(layers={"x": [(1.0, 0.1), (1.0,)]}), "it takes finite numbers"),
}


@pytest.mark.usefixtures("no_checker")
@pytest.mark.parametrize("given, words", WRONG.values(), ids=WRONG.keys())
def test_it_says_what_is_wrong(given, words):
    refused(lambda: problem(lambda u, x: u.dxx - 1, **given), words)


def test_a_search_for_layers_comes_to_an_end():
    # At a jump the rough solver adds two points at a time, and never stops by itself.
    with pytest.warns(pde.AliasWarning):
        problem = pde.Problem(
            {"x": (0, 1)},
            lambda u, x: u.dxx - np.where(x < 0.5, 1.0, -1.0),
            pde.Dirichlet(0.0),
            shape=400,
        )
    assert layers(problem) == ()
