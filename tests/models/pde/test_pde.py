"""Known answers of the solver of differential equations: dense algebra, closed forms."""

import collections
import functools
import itertools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats
from jax.extend.core import jaxprs_in_params

import probkit as pk
from probkit.distributions import FactorNormal
from probkit.gp import SpectralMixture, covariance
from probkit.gp.features import features, nodes
from probkit.model.density import constrain, log_densities, log_likelihood
from probkit.models import pde
from probkit.models.pde import system
from reference.pde import exact_log_normal, gaussian, posterior, row_of_point, waves

KEY = jax.random.key(0)
ENVELOPES = ("gaussian", "student_t")
both = pytest.mark.parametrize("envelope", ENVELOPES)
π = np.pi


# The normal distribution of factors and noise


def factors(n, p, noise_sd, seed=0):
    rng = np.random.default_rng(seed)
    loc, F = rng.normal(size=n), rng.normal(size=(n, p))
    sd = noise_sd * rng.uniform(0.5, 2.0, n)
    return loc, F, sd, loc + F @ rng.normal(size=p) + sd * rng.normal(size=n)


@pytest.mark.parametrize("n, p", [(6, 3), (3, 6)], ids=["tall", "wide"])
def test_factor_normal_has_the_density_of_the_dense_normal(n, p):
    loc, F, sd, y = factors(n, p, 0.3)
    dense = scipy.stats.multivariate_normal(loc, F @ F.T + np.diag(sd**2))
    ours = FactorNormal(loc, jnp.asarray(F), jnp.asarray(sd))
    assert float(ours.log_prob(jnp.asarray(y))) == pytest.approx(dense.logpdf(y), rel=1e-12)
    several = loc + np.random.default_rng(1).normal(size=(2, 4, n))
    np.testing.assert_allclose(
        ours.log_prob(jnp.asarray(several)), dense.logpdf(several), rtol=1e-12
    )


def test_factor_normal_has_derivatives_of_the_first_and_second_order():
    # Along one direction, by five-point differences of the dense density.
    place = factors(5, 3, 0.3)
    way = factors(5, 3, 0.3, seed=1)

    def dense(h):
        loc, F, sd, y = (a + h * b for a, b in zip(place, way, strict=True))
        return scipy.stats.multivariate_normal(loc, F @ F.T + np.diag(sd**2)).logpdf(y)

    @jax.jit
    def ours(place, way):
        def density(place):
            loc, F, sd, y = place
            return FactorNormal(loc, F, sd).log_prob(y)

        def slope(place):
            return sum(map(jnp.vdot, jax.grad(density)(place), way))

        return jax.jvp(density, (place,), (way,))[1], *jax.jvp(slope, (place,), (way,))

    forward, reverse, bend = map(float, ours(*jax.tree.map(jnp.asarray, (place, way))))
    h = 3e-3
    f = [dense(k * h) for k in range(-2, 3)]
    first = (f[0] - 8 * f[1] + 8 * f[3] - f[4]) / (12 * h)
    second = (-f[0] + 16 * f[1] - 30 * f[2] + 16 * f[3] - f[4]) / (12 * h**2)
    assert (forward, reverse) == pytest.approx((first, first), rel=1e-5)
    assert bend == pytest.approx(second, rel=1e-4)


def test_factor_normal_keeps_its_digits_where_the_noise_is_tiny():
    # Exact fractions; the dense covariance has a condition of 1e18. Half the digits of y
    # are gone in the residual, which is the noise: 1e-16 / 1e-9 of it is rounding.
    _, F, sd, y = factors(6, 3, 1e-9)
    value, in_y, in_F = exact_log_normal(y, F, sd)

    def density(y, F):
        return FactorNormal(jnp.zeros(6), F, jnp.asarray(sd)).log_prob(y)

    ours, slopes = jax.value_and_grad(density, (0, 1))(jnp.asarray(y), jnp.asarray(F))
    assert float(ours) == pytest.approx(value, rel=1e-6)
    np.testing.assert_allclose(slopes[0], in_y, rtol=1e-5, atol=1e-6 * abs(in_y).max())
    np.testing.assert_allclose(slopes[1], in_F, rtol=1e-5, atol=1e-6 * abs(in_F).max())


def test_samples_of_factor_normal_have_its_mean_and_covariance():
    # 20,000 draws: each of 4 means and 16 covariances within 5 standard errors.
    loc, F, sd, _ = factors(4, 2, 0.3)
    number = 20_000
    one = FactorNormal(jnp.asarray(loc), jnp.asarray(F), jnp.asarray(sd))
    draws = np.asarray(one.sample(KEY, (number,)))
    C = F @ F.T + np.diag(sd**2)
    units = np.sqrt(np.diag(C))
    gap = draws - loc
    assert np.all(np.abs(gap.mean(0)) < 5 * units / np.sqrt(number))
    error = np.abs(gap.T @ gap / number - C)
    assert np.all(error < 5 * np.sqrt(2) * np.outer(units, units) / np.sqrt(number))
    np.testing.assert_allclose(one.variance, np.diag(C), rtol=1e-12)
    np.testing.assert_array_equal(one.mean, loc)


# Waves in place of a kernel

X = np.linspace(0.0, 1.0, 21)
PAIRS = ((0, 0), (0, 1), (1, 1), (0, 2), (1, 2), (2, 2))


def error_of_waves(envelope, lengthscale, frequency, num_nodes=24):
    """By pair of orders, the largest error of a covariance, in units of variances."""
    k = SpectralMixture([1.0], [frequency], [lengthscale], envelope)
    Φ = [np.asarray(features(k, jnp.asarray(X), order, num_nodes)) for order in range(3)]
    sd = [math.sqrt(abs(float(k(0.0, 2 * order)))) for order in range(3)]
    return {
        (i, j): np.abs(Φ[i] @ Φ[j].T - covariance(k, X, X, (i, j))).max() / (sd[i] * sd[j])
        for i, j in PAIRS
    }


@pytest.mark.parametrize("frequency", [0.0, 7.0], ids=["trend", "tone"])
@pytest.mark.parametrize("lengthscale, most", [(0.3, 1e-9), (0.5, 1e-13), (100.0, 1e-13)])
def test_gaussian_waves_have_the_kernel_and_its_derivatives(lengthscale, most, frequency):
    # Gauss-Hermite with 24 nodes: exact up to lags of some three lengthscales.
    errors = error_of_waves("gaussian", lengthscale, frequency)
    assert max(errors.values()) < most, errors


@pytest.mark.parametrize("lengthscale, most", [(0.5, 3e-3), (8.0, 1e-5), (100.0, 1e-6)])
def test_student_t_waves_have_the_kernel(lengthscale, most):
    # cos(√5 y / √(1-y²)) is not smooth at the ends: the error falls as a power.
    trend = error_of_waves("student_t", lengthscale, 0.0)
    tone = error_of_waves("student_t", lengthscale, 7.0)
    assert trend[0, 0] < most
    # Of a tone so do the derivatives: the bump is narrow beside its frequency.
    assert max(tone.values()) < 2 * most, tone


def test_student_t_waves_come_closer_with_more_nodes():
    # The tails of the density fall as t^-6, so that moments of the fourth derivative
    # converge last; but all of them do.
    few = error_of_waves("student_t", 0.5, 0.0, 24)
    many = error_of_waves("student_t", 0.5, 0.0, 192)
    for pair in PAIRS:
        assert many[pair] < 0.5 * few[pair], pair


@both
def test_derivatives_of_waves_are_derivatives(envelope):
    k = SpectralMixture([1.0, 0.5], [0.0, 2.0], [0.4, 3.0], envelope)
    x, h = jnp.asarray(X), 1e-5
    for order in (0, 1, 2):
        ahead, behind = (features(k, x + s, order, 8) for s in (h, -h))
        slope = features(k, x, order + 1, 8)
        scale = np.abs(slope).max()
        np.testing.assert_allclose((ahead - behind) / (2 * h), slope, atol=1e-7 * scale)


# One dimension, against the dense Gaussian process


@functools.cache
def small():
    """(1 + x) u'' - 2 u' + k u = f with a value, a slope, and five observations."""
    rng = np.random.default_rng(0)
    points = np.array([0.1, 0.5, 0.9, 1.4, 1.9])
    return pde.Problem(
        {"x": (0, 2)},
        lambda u, x, c: (1 + x) * u.dxx - 2 * u.dx + c.k * u - np.cos(5 * x),
        [pde.Dirichlet(0.7, on="x-"), pde.Neumann(-0.4, on="x+")],
        shape=14,
        observations=pde.Observations(points, rng.normal(size=5)),
        unknown={"k": (0.0, 4.0)},
    )


# In unconstrained coordinates, so that one program serves every question.
POSITION = {
    "weight_x": np.array([0.3, -0.4]),
    "frequency_x": np.array([0.4, 1.1]),
    "lengthscale_x": np.array([0.2, -0.7]),
    "noise_sd": np.array(-0.8),
    "k": np.array(-0.3),
}
TARGETS = np.linspace(0.0, 2.0, 9)


def small_model(envelope):
    return pde.SpectralGP(
        envelope, frequencies=(("x", (1.0,)),), equation_sd=1e-3, calibrated=False
    )


@eqx.filter_jit
def everything(model, problem, position):
    def density(position):
        return sum(log_densities(model, problem, constrain(model, problem, position)))

    sites = constrain(model, problem, position)
    found = model.integrated(sites, problem)
    solver = model.solver(sites, problem)
    unknowns = solver.parameters.unknowns
    rows = system.at_points(found.spans, jnp.asarray(TARGETS)[:, None], (0,))
    value, slope = jax.value_and_grad(density)(position)
    return {
        "sites": sites,
        "mean": rows @ found.mean,
        "sd": found.sd(rows),
        "log_likelihood": log_likelihood(model, problem, sites),
        "value": value,
        "slope": slope,
        "sizes": (problem.size, solver.collocation.residual_size(unknowns)),
        "start": model.start_sites(problem),
    }


@eqx.filter_jit
def evidence(model, problem, sites):
    return log_likelihood(model, problem, sites)


@functools.cache
def ours(envelope):
    return everything(small_model(envelope), small(), POSITION)


@functools.cache
def dense(envelope):
    problem, found = small(), ours(envelope)
    sites = {name: np.asarray(value) for name, value in found["sites"].items()}
    of_waves = functools.partial(waves, nodes=nodes(envelope, 24))
    # Of Student-t the sum of waves is the kernel: how near it comes is tested above.
    make = gaussian if envelope == "gaussian" else of_waves
    parts = ("weight_x", "frequency_x", "lengthscale_x")
    kernel = make(*(sites[name] for name in parts))
    begin = make(*(np.asarray(found["start"][name]) for name in parts))
    size, per_residual = map(float, found["sizes"])
    per_slope = math.sqrt(-begin(0.0, 2) / begin(0.0, 0))
    x = np.asarray(problem.grid[0])
    k = float(sites["k"])
    rows = [(0.0, {0: 1.0}), (2.0, {1: 1.0})]
    rows += [(a, {2: 1 + a, 1: -2.0, 0: k}) for a in x]
    rows += [(float(a), {0: 1.0}) for a in problem.points[:, 0]]
    values = [0.7, -0.4, *np.cos(5 * x), *np.asarray(problem.values)]
    noise = [1e-9 * size, 1e-9 * size * per_slope]
    noise += [1e-3 * per_residual] * len(x) + [float(sites["noise_sd"])] * 5
    # At the low end u is given to 1e-9, which is below the rounding of a variance.
    targets = [(a, {0: 1.0}) for a in TARGETS[1:]]
    mean, cov, evidence = posterior(kernel, rows, values, noise, targets)
    told = posterior(kernel, rows[:-5], values[:-5], noise[:-5], targets)[2]
    return {"mean": mean, "sd": np.sqrt(np.diag(cov)), "evidence": evidence, "told": told}


@both
def test_the_posterior_is_that_of_the_dense_gaussian_process(envelope):
    found, exact = ours(envelope), dense(envelope)
    np.testing.assert_allclose(found["mean"][1:], exact["mean"], atol=1e-6)
    np.testing.assert_allclose(found["sd"][1:], exact["sd"], rtol=1e-6)
    assert float(found["sd"][0]) < 1e-8


@both
def test_the_program_has_the_evidence_of_the_dense_gaussian_process(envelope):
    # Of observations given the equation, which is a law to them; without any, of the
    # equation's own rows.
    logs, exact = ours(envelope)["log_likelihood"], dense(envelope)
    assert set(logs) == {"values"}
    given = exact["evidence"] - exact["told"]
    assert float(logs["values"].sum()) == pytest.approx(given, abs=1e-5)
    problem = small()
    parts = lambda p: (p.points, p.values, p.noise_sd)  # noqa: E731
    unseen = eqx.tree_at(parts, problem, (None,) * 3, is_leaf=lambda a: a is None)
    logs = evidence(small_model(envelope), unseen, ours(envelope)["sites"])
    assert set(logs) == {"equation"}
    assert float(logs["equation"].sum()) == pytest.approx(exact["told"], abs=1e-5)


@both
def test_the_slope_of_the_log_density_is_that_of_finite_differences(envelope):
    found, h = ours(envelope), 1e-3
    rng = np.random.default_rng(0)
    way = {name: rng.normal(size=value.shape) for name, value in POSITION.items()}

    def moved(h):
        there = {name: POSITION[name] + h * way[name] for name in POSITION}
        return float(everything(small_model(envelope), small(), there)["value"])

    slope = sum(np.vdot(found["slope"][name], way[name]) for name in POSITION)
    # Five points: the error is h⁴ times a fifth derivative, and rounding over h.
    rise = (8 * (moved(h) - moved(-h)) - moved(2 * h) + moved(-2 * h)) / (12 * h)
    assert rise == pytest.approx(slope, rel=1e-5)


def test_hot_paths_lower_for_cuda():
    model, problem = small_model("student_t"), small()
    dynamic, static = eqx.partition(problem, eqx.is_array)

    def flat(arrays, position):
        out = everything.__wrapped__(model, eqx.combine(arrays, static), position)
        return jax.tree.leaves(out)

    exported = jax.export.export(jax.jit(flat), platforms=["cuda"])(dynamic, POSITION)
    assert exported.platforms == ("cuda",)


# Several dimensions, against a sum at every point


@functools.cache
def plane():
    """Constant, variable and unknown coefficients, a mixed derivative, a product of u."""
    return pde.Problem(
        {"x": (0, 2), "y": (-1, 1)},
        lambda u, p, c: (
            (1 + p.x * p.y) * u.dxx
            + 0.5 * u.dxy
            - c.k * u.dyy
            + np.sin(p.x) * u.dx
            + u * u.dy
            - np.exp(p.x - p.y)
        ),
        [
            pde.Dirichlet(lambda p: np.cos(p.y), on="x-"),
            pde.Neumann(lambda p: p.x**2, on="y+"),
            pde.Dirichlet(lambda p: p.x, on="y-"),
        ],
        shape=(10, 11),
        unknown={"k": (0.0, 4.0)},
    )


@functools.cache
def assembled():
    """Rows of the plane's equation about given fields, and what they are made of."""
    problem = plane()
    model = pde.SpectralGP(rank=4)
    rng = np.random.default_rng(0)
    fields = {o: jnp.asarray(rng.normal(size=(10, 11))) for o in problem.equation.orders}

    @eqx.filter_jit
    def parts(model, problem, fields):
        sites = model.start_sites(problem)
        solver = model.solver(sites, problem)
        spans, basis = solver.spans, solver.basis
        about = system.linearise(problem.equation, fields, {"k": sites["k"]})
        against = solver.collocation.against
        grid, sd = problem.grid, jnp.asarray(0.1)
        return {
            "functions": {
                (j, order): spans[j](x, order)
                for j, x in enumerate(grid)
                for order in range(3)
            },
            "against": against,
            "plain": system.equation_rows(about, basis, None, sd),
            "tested": system.equation_rows(about, basis, against, sd),
            "faces": [
                system.condition_rows(condition, spans, grid, against, sd, {})
                for condition in problem.conditions
            ],
            "scattered": system.at_points(
                spans, jnp.stack([grid[0], grid[1][:10]], 1), (1, 2)
            ),
            "k": sites["k"],
        }

    return jax.tree.map(np.asarray, (parts(model, problem, fields), fields))


def slow_rows():
    parts, fields = assembled()
    x, y = np.meshgrid(*plane().grid, indexing="ij")
    k, u = float(parts["k"]), fields
    # The tangent of u u_y about given fields is  u₀ ∂_y + u₀_y,  less u₀ u₀_y.
    terms = {
        (2, 0): 1 + x * y,
        (1, 1): 0.5,
        (0, 2): -k,
        (1, 0): np.sin(x),
        (0, 1): u[0, 0],
        (0, 0): u[0, 1],
    }
    places = itertools.product(range(10), range(11))
    rows = [row_of_point(terms, parts["functions"], place) for place in places]
    rest = -np.exp(x - y) - u[0, 0] * u[0, 1]
    return np.array(rows), rest.ravel()


def test_the_rows_of_an_equation_are_those_of_each_point():
    parts, _ = assembled()
    rows, rest = slow_rows()
    np.testing.assert_allclose(parts["plain"].factor, rows, atol=1e-11 * np.abs(rows).max())
    np.testing.assert_allclose(parts["plain"].loc, rest, rtol=1e-12)


def test_tested_rows_are_combinations_of_those_of_each_point():
    parts, _ = assembled()
    rows, rest = slow_rows()
    for q in parts["against"]:
        assert q.shape[1] == 6 < q.shape[0]
        np.testing.assert_allclose(q.T @ q, np.eye(6), atol=1e-12)
    Q = np.kron(*parts["against"])
    tested = parts["tested"]
    np.testing.assert_allclose(tested.factor, Q.T @ rows, atol=1e-11 * np.abs(rows).max())
    np.testing.assert_allclose(tested.loc, Q.T @ rest, atol=1e-11)


def test_rows_of_faces_are_values_and_slopes_along_them():
    parts, _ = assembled()
    of, (q_x, q_y) = parts["functions"], parts["against"]
    x, y = map(np.asarray, plane().grid)
    pairs = zip(plane().conditions, parts["faces"], strict=True)
    by_face = {(c.axis, c.side): rows for c, rows in pairs}
    expected = {
        (0, "low"): (np.kron(of[0, 0][:1], q_y.T @ of[1, 0]), q_y.T @ np.cos(y)),
        (1, "high"): (np.kron(q_x.T @ of[0, 0], of[1, 1][-1:]), q_x.T @ x**2),
        (1, "low"): (np.kron(q_x.T @ of[0, 0], of[1, 0][:1]), q_x.T @ x),
    }
    assert set(by_face) == set(expected)
    for face, (factor, value) in expected.items():
        np.testing.assert_allclose(by_face[face].factor, factor, atol=1e-10)
        np.testing.assert_allclose(by_face[face].value, value, atol=1e-12)


def test_rows_at_scattered_points_are_derivatives_there():
    parts, _ = assembled()
    of = parts["functions"]
    rows = [np.kron(of[0, 1][n], of[1, 2][n]) for n in range(10)]
    np.testing.assert_allclose(parts["scattered"], rows, atol=1e-10)


# What is computed how often


def tilted(p):
    return np.exp(p.x - p.y)


# A linear equation and a nonlinear one, on grids that have more points than a solution of
# four functions per axis has test functions.
REPEATED = {
    "linear": lambda u, p: u.dxx + p.x * u.dyy - tilted(p),
    "nonlinear": lambda u, p: u.dxx + u.dyy - u**2 - tilted(p),
}


def primitives(jaxpr, in_loop=False):
    """The name of every operation of a program, and whether a loop repeats it."""
    for equation in jaxpr.eqns:
        yield equation.primitive.name, in_loop
        inside = in_loop or equation.primitive.name == "while"
        for inner in jaxprs_in_params(equation.params):
            yield from primitives(inner, inside)


@pytest.mark.parametrize("calibrated", [False, True], ids=["plain", "calibrated"])
@pytest.mark.parametrize("residual", REPEATED.values(), ids=REPEATED.keys())
def test_what_depends_on_the_problem_alone_is_computed_once(
    residual, calibrated, monkeypatch
):
    problem = pde.Problem(
        {"x": (0, 1), "y": (0, 1)}, residual, pde.Dirichlet(tilted), shape=(16, 17)
    )
    model = pde.SpectralGP(rank=4, calibrated=calibrated)
    arrays, static = eqx.partition(problem, eqx.is_array)
    calls = collections.Counter()

    def counted(owner, name):
        real = getattr(owner, name)

        def method(*args, **kwargs):
            calls[name] += 1
            return real(*args, **kwargs)

        monkeypatch.setattr(owner, name, method)

    sites = model.start_sites(problem)
    counted(pde.SpectralGP, "start_sites")
    counted(SpectralMixture, "__init__")

    def solution(arrays):
        return model.integrated(sites, eqx.combine(arrays, static))

    program = jax.make_jaxpr(solution)(arrays).jaxpr
    # A kernel per axis of the start, and one of the draw.
    assert calls == {"start_sites": 1, "__init__": 4}
    found = collections.Counter(primitives(program))
    # Per axis: the functions of the draw, those of the start, and what these are tested
    # against. A stricter solution has its own, and other test functions on faces.
    assert found["svd", False] == 2 * (3 + 4 * calibrated)
    # No step of Newton's method repeats them, or evaluates a wave.
    assert not {name for name, in_loop in found if in_loop} & {"svd", "cos", "sin"}
    assert found["qr", True] == (not problem.equation.is_linear)


# Solutions known in closed form


@eqx.filter_jit
def solved(model, problem):
    """The solution on the grid, with the kernel that the problem's data tell of."""
    found = model.integrated(model.start_sites(problem), problem)
    flat = (0,) * len(problem.axes)
    return found.derivative(problem.grid, flat), found.sd_on(problem.grid)


def relative_error(model, problem, exact):
    truth = exact(problem.coordinates())
    found, _ = solved(model, problem)
    return np.linalg.norm(found - truth) / np.linalg.norm(truth)


def line(ends, residual, boundary, exact, shape=60):
    return pde.Problem({"x": ends}, residual, boundary, shape=shape), exact


def ends_of_both_kinds():
    def source(x):
        return -9 * np.sin(3 * x) + 2

    told = [pde.Dirichlet(0.0, "x-"), pde.Neumann(3 * math.cos(6) + 4, "x+")]
    return line(
        (0, 2), lambda u, x: u.dxx - source(x), told, lambda x: np.sin(3 * x) + x**2
    )


def a_periodic_line():
    def source(x):
        return -5 * np.sin(2 * x) - 7.8 * np.cos(5 * x)

    def exact(x):
        return np.sin(2 * x) + 0.3 * np.cos(5 * x)

    return line((0, 2 * π), lambda u, x: u.dxx - u - source(x), pde.Periodic("x"), exact)


def a_forced_oscillator():
    def exact(x):
        return np.sin(30 * x) + x

    def residual(u, x):
        return u.dxx + 400 * u + 500 * np.sin(30 * x) - 400 * x

    return line((0, 2), residual, pde.Dirichlet(exact), exact, 100)


def a_rod_of_changing_stiffness():
    # (a u')' = a u'' + a' u' with a = 1 + x²
    def exact(x):
        return np.sin(4 * x) + np.exp(-x)

    def residual(u, x):
        slope = 4 * np.cos(4 * x) - np.exp(-x)
        bend = -16 * np.sin(4 * x) + np.exp(-x)
        a, rise = 1 + x**2, 2 * x
        return (a * u.dx).dx - (a * bend + rise * slope)

    return line((0, 2), residual, pde.Dirichlet(exact), exact)


def decay():
    told = pde.Dirichlet(1.0, "x-")
    return line((0, 2), lambda u, x: u.dx + 3 * u, told, lambda x: np.exp(-3 * x))


def a_steep_front():
    def exact(x):
        return np.expm1((x - 1) / 0.05) / math.expm1(-1 / 0.05)

    return line((0, 1), lambda u, x: u.dx - 0.05 * u.dxx, pde.Dirichlet(exact), exact, 100)


def a_cubic():
    def exact(x):
        return 1 / (1 + x)

    return line((0, 3), lambda u, x: u.dxx - 2 * u**3, pde.Dirichlet(exact), exact)


LINES = {
    "value and slope": (ends_of_both_kinds, 1e-7),
    "periodic": (a_periodic_line, 1e-7),
    "Helmholtz": (a_forced_oscillator, 1e-7),
    "variable coefficients": (a_rod_of_changing_stiffness, 1e-7),
    "decay": (decay, 1e-6),
    "advection and diffusion": (a_steep_front, 1e-4),
    "cubic": (a_cubic, 1e-6),
}


@pytest.mark.parametrize("make, most", LINES.values(), ids=LINES.keys())
def test_it_solves_ordinary_equations(make, most):
    model = pde.SpectralGP(calibrated=False)
    assert relative_error(model, *make()) < most


def plane_problem(box, residual, boundary, exact, shape):
    return pde.Problem(box, residual, boundary, shape=shape), exact


def heat():
    def exact(p):
        return np.exp(-(π**2) * p.t) * np.sin(π * p.x)

    told = [pde.Initial(exact), pde.Dirichlet(0.0, "x")]
    return plane_problem(
        {"x": (0, 1), "t": (0, 0.5)}, lambda u, p: u.dt - u.dxx, told, exact, 24
    )


def wave():
    def exact(p):
        slow = np.sin(π * p.x) * np.cos(2 * π * p.t)
        return slow + np.sin(2 * π * p.x) * np.sin(4 * π * p.t) / (8 * π)

    start = pde.Initial(lambda p: np.sin(π * p.x), lambda p: np.sin(2 * π * p.x) / 2)
    told = [start, pde.Dirichlet(0.0, "x")]
    return plane_problem(
        {"x": (0, 1), "t": (0, 1)}, lambda u, p: u.dtt - 4 * u.dxx, told, exact, 32
    )


def ring():
    def exact(p):
        turn = 2 * π * (p.x - 2 * p.t)
        return np.sin(turn) + 0.3 * np.cos(3 * turn)

    told = [pde.Initial(exact), pde.Periodic("x")]
    return plane_problem(
        {"x": (0, 1), "t": (0, 1)}, lambda u, p: u.dt + 2 * u.dx, told, exact, 40
    )


def burgers():
    def exact(p):
        return 0.5 - 0.5 * np.tanh((p.x - 0.5 * p.t - 0.25) / 0.4)

    def residual(u, p):
        return u.dt + u * u.dx - 0.1 * u.dxx

    told = [pde.Initial(exact), pde.Dirichlet(exact, "x")]
    return plane_problem({"x": (0, 1), "t": (0, 1)}, residual, told, exact, 32)


def cube():
    def exact(p):
        return np.sin(2 * p.x) * np.cos(p.y) * np.exp(-p.z)

    def residual(u, p):
        return u.dxx + u.dyy + u.dzz + 4 * exact(p)

    box = {"x": (0, 1), "y": (0, 1), "z": (0, 1)}
    return plane_problem(box, residual, pde.Dirichlet(exact), exact, 10)


PLANES = {
    "heat": (heat, 20, {}, 1e-6),
    "waves with a velocity": (wave, 20, {}, 1e-6),
    "advection on a ring": (ring, 24, {}, 1e-4),
    "Burgers": (burgers, 16, {}, 1e-4),
    "Poisson in three dimensions": (cube, None, {}, 1e-2),
}


@pytest.mark.parametrize("make, rank, tones, most", PLANES.values(), ids=PLANES.keys())
def test_it_solves_partial_equations(make, rank, tones, most):
    frequencies = tuple(tones.items())
    model = pde.SpectralGP(rank=rank, frequencies=frequencies, calibrated=False)
    assert relative_error(model, *make()) < most


EXAMPLES = {"u1": (400, 1e-5), "u3": (400, 1e-5), "a1": (400, 1e-5), "u7": (64, 1e-4)}


@pytest.mark.parametrize(
    "envelope, name",
    [
        ("student_t", "u1"),
        ("gaussian", "u3"),
        ("student_t", "a1"),
        ("gaussian", "u7"),
    ],
)
def test_it_solves_problems_of_high_frequencies(envelope, name):
    num, most = EXAMPLES[name]
    problem, exact = getattr(pde.examples, name)(num)
    assert relative_error(pde.SpectralGP(envelope, calibrated=False), problem, exact) < most


def test_lengthscales_are_where_the_trends_start_and_their_priors_are_centred():
    problem, _ = burgers()
    model = pde.SpectralGP(lengthscales={"x": 0.07})
    priors, start = model.priors(problem), model.start_sites(problem)
    assert float(start["lengthscale_x"][0]) == pytest.approx(0.07)
    assert float(start["lengthscale_t"][0]) == 0.5
    # Tones keep their own; a log-normal prior has its median at the centre.
    usual = pde.SpectralGP().start_sites(problem)["lengthscale_x"]
    np.testing.assert_array_equal(start["lengthscale_x"][1:], usual[1:])
    draws = np.asarray(priors["lengthscale_x"].sample(KEY, (2000,)))[:, 0]
    # Its logarithm has an sd of 0.5; the median of 2000 one of 0.014.
    assert abs(np.log(np.median(draws) / 0.07)) < 5 * 0.014


def test_a_lengthscale_reaches_a_layer_that_the_default_does_not():
    def exact(x):
        return np.sin(3 * x) + np.exp(-50 * x)

    layer, _ = line(
        (0, 1),
        lambda u, x: u.dx + 50 * u - 50 * np.sin(3 * x) - 3 * np.cos(3 * x),
        pde.Dirichlet(1.0, "x-"),
        exact,
        100,
    )
    # 24 waves of such a lengthscale do not reach over the axis; 60 do.
    short = pde.SpectralGP(lengthscales={"x": 0.1}, num_nodes=60, calibrated=False)
    assert relative_error(short, layer, exact) < 1e-6
    usual = pde.SpectralGP(num_nodes=60, calibrated=False)
    assert relative_error(usual, layer, exact) > 1e-4


# Through the door


@functools.cache
def fitted_u3():
    problem, exact = pde.examples.u3()
    return pk.fit(pde.SpectralGP(), problem, pde.Closed(), key=KEY, progress=False), exact


def test_a_fit_predicts_between_the_points_and_its_band_holds_the_truth():
    fit, exact = fitted_u3()
    assert pk.diagnose(fit).ok
    x = np.linspace(0, 2 * π, 301)[1:-1]
    found = pk.predict(fit, x, key=KEY)
    mean, sd = (found[name].values[0, 0] for name in ("u_mean", "u_sd"))
    error = np.abs(mean - exact(x))
    assert np.linalg.norm(error) < 1e-6 * np.linalg.norm(exact(x))
    # 95 % of neighbours are not independent: between 85 and 100 of a hundred.
    assert np.mean(error < 1.96 * sd) > 0.85


def test_a_search_finds_frequencies_that_nothing_tells():
    def exact(x):
        return np.sin(20 * x)

    told = [pde.Dirichlet(0.0, "x-"), pde.Neumann(20.0, "x-")]
    problem, _ = line((0, 1), lambda u, x: u.dxx + 400 * u, told, exact, 100)
    fit = pk.fit(pde.SpectralGP(calibrated=False), problem, pde.Closed(), key=KEY)
    found = pk.recover(fit, key=KEY)["solution_mean"].values[0, 0]
    truth = exact(problem.coordinates())
    assert np.linalg.norm(found - truth) < 1e-6 * np.linalg.norm(truth)


# Where the answer is not to be trusted


def test_a_false_frequency_is_flagged():
    # 200 points over [0, 2π] take 14.961 cycles for 31.672 - 14.961.
    with pytest.warns(pde.AliasWarning, match="Nyquist"):
        problem, _ = pde.examples.u3(200)
    model = pde.SpectralGP(frequencies=(("x", (16.711,)),), calibrated=False)
    fit = pk.fit(model, problem, pde.Closed(learn=False), key=KEY, throw=False)
    assert fit.result == "unsolved"
    report = pk.diagnose(fit)
    assert not report["residual between the points"].ok


def test_a_problem_that_does_not_determine_its_solution_is_flagged():
    # There is no condition where the wave comes in. (That the well-posed u3 is not flagged
    # is part of its test.)
    def exact(p):
        return np.sin(p.x - p.t)

    box = {"x": (0, 2 * π), "t": (0, 2)}
    problem = pde.Problem(box, lambda u, p: u.dt + u.dx, pde.Initial(exact), shape=32)
    model = pde.SpectralGP(calibrated=False)
    fit = pk.fit(model, problem, pde.Closed(learn=False), key=KEY)
    assert not pk.diagnose(fit)["directions left open"].ok


# What the equation itself says


def test_an_ordinary_equation_has_the_frequencies_of_its_own():
    k = 120.0
    problem = pde.Problem(
        {"x": (0, 1)},
        lambda u, x: u.dxx + k**2 * u,
        pde.Dirichlet(lambda x: np.sin(k * x) + np.cos(k * x)),
        shape=120,
    )
    np.testing.assert_allclose(problem.tones[0].frequency, [k / (2 * π)], rtol=1e-12)
    model = pde.SpectralGP(num_nodes=8, calibrated=False)
    fit = pk.fit(model, problem, pde.Closed(learn=False), key=KEY)
    x = np.linspace(0.011, 0.993, 40)
    found = pk.predict(fit, x, key=KEY)["u_mean"].values[0, 0]
    np.testing.assert_allclose(found, np.sin(k * x) + np.cos(k * x), atol=1e-6)


def test_a_damped_frequency_has_the_lengthscale_of_its_decay():
    problem = pde.Problem(
        {"t": (0, 1)},
        lambda u, t: u.dtt + 4 * u.dt + 400 * u,
        pde.Initial(1.0, velocity=0.0),
        shape=60,
    )
    (tones,) = problem.tones
    np.testing.assert_allclose(tones.frequency, [np.sqrt(396) / (2 * π)], rtol=1e-12)
    np.testing.assert_allclose(tones.lengthscale, [0.5], rtol=1e-12)


@pytest.mark.parametrize("length, is_open", [(2 * π, True), (5.0, False)])
def test_zero_data_leave_a_resonance_open(length, is_open):
    # u'' + u = 0 with u = 0 at both ends: any multiple of the sine, or zero alone.
    problem = pde.Problem(
        {"x": (0, length)}, lambda u, x: u.dxx + u, pde.Dirichlet(0.0), shape=30
    )
    assert problem.is_homogeneous
    fit = pk.fit(pde.SpectralGP(), problem, pde.Closed(), key=KEY)
    assert pk.diagnose(fit)["directions left open"].ok is not is_open
    sd = pk.predict(fit, [length / 4], key=KEY)["u_sd"].values.max()
    assert bool(sd > 1e-3) is is_open


def test_the_band_holds_what_the_kernel_itself_misses():
    # van der Pol's equation. A reference solution with waves of this kernel misses the
    # solution as this one does, so that their difference is a twentieth of the error.
    problem = pde.Problem(
        {"t": (0, 10)},
        lambda u, t: u.dtt - (1 - u**2) * u.dt + u,
        pde.Initial(2.0, velocity=0.0),
        shape=200,
    )
    sites = {
        "weight_t": jnp.array([6.355, 1.900]),
        "lengthscale_t": jnp.array([0.4004, 0.4018]),
        "frequency_t": jnp.array([0.06501, 0.20601]),
    }
    found = jax.jit(pde.SpectralGP().integrated)(sites, problem)
    t = np.linspace(0.1, 9.9, 200)
    exact = scipy.integrate.solve_ivp(
        lambda _, y: [y[1], (1 - y[0] ** 2) * y[1] - y[0]],
        (0, 10),
        [2.0, 0.0],
        "DOP853",
        t_eval=t,
        rtol=1e-12,
        atol=1e-12,
    ).y[0]
    off = np.asarray(found.derivative([jnp.asarray(t)], (0,))) - exact
    assert 1e-7 < np.abs(off).max() < 1e-4
    covered = np.mean(np.abs(off) <= 1.96 * np.asarray(found.sd_on([jnp.asarray(t)])))
    assert covered >= 0.8
