"""The paper's objective and its Adam: known numbers, brute force, finite differences."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.infer.util import log_density

import probkit as pk
from lowering import lowers_for_cuda
from probkit.models import pde
from probkit.models.pde import Adam, GridGP
from probkit.models.pde.gphm.grid import GridNormal

ENVELOPES = ("student_t", "gaussian")
both = pytest.mark.parametrize("envelope", ENVELOPES)
KEY = jax.random.key(0)
# u1, N = 200, F = 20, Q = 30: the objective at the start and before Adam's steps 2, 5 and
# 10, and the relative error after step 10 at 300 places, as the authors' code has them.
KNOWN = {
    "student_t": (
        [4974999987.32, 4802266431.65, 4313631279.23, 3594802093.36],
        0.92834206,
    ),
    "gaussian": (
        [4974999993.66, 4802278781.37, 4313759521.26, 3595413281.08],
        0.93346714,
    ),
}


@pytest.fixture(scope="module")
def coarse_u1():
    # Below its Nyquist frequency, as the numbers above are.
    with pytest.warns(pde.AliasWarning):
        return pde.examples.u1(200)


@pytest.fixture(scope="module", params=ENVELOPES)
def ten_steps(request, coarse_u1):
    return pk.fit(GridGP(request.param), coarse_u1[0], Adam(10), key=KEY)


def test_the_objective_along_adam_is_the_authors(ten_steps):
    known, _ = KNOWN[ten_steps.model.envelope]
    got = -ten_steps.tree["trace"]["objective"].values[0, [0, 1, 4, 9]]
    # The numbers have two decimals.
    np.testing.assert_allclose(got, known, rtol=2e-12)


def test_the_error_after_ten_steps_is_the_authors(ten_steps, coarse_u1):
    _, known = KNOWN[ten_steps.model.envelope]
    x = np.linspace(0, 2 * np.pi, 300)
    u = pk.predict(ten_steps, x, key=KEY)["u"].values.ravel()
    exact = coarse_u1[1](x)
    error = np.linalg.norm(u - exact) / np.linalg.norm(exact)
    assert error == pytest.approx(known, abs=6e-9)


def test_after_ten_steps_the_checks_want_more(ten_steps):
    report = pk.diagnose(ten_steps)
    assert not report["misfit on the boundary"].ok
    assert not report["residual of the equation"].ok
    # Half of F = 20 lies above 15.8, Nyquist of 200 points.
    aliased = report["kernel above the grid's Nyquist frequency"]
    assert not aliased.ok
    assert 0.1 < aliased.value < 0.3


# Brute force on small grids


def box(residual, boundary, axes=("x", "y"), shape=(8, 9)):
    ends = {"x": (0.0, 1.0), "y": (-0.5, 1.0), "t": (0.0, 2.0)}
    domain = {axis: ends[axis] for axis in axes}
    return pde.Problem(domain, residual, boundary, shape=shape)


def wave(p):
    return np.sin(3 * p.x) * np.cos(2 * p[1])


POISSON = lambda u, p: u.dxx + u.dyy - p.x * p.y  # noqa: E731
ALLEN_CAHN = lambda u, p: u.dxx + u.dyy + u * (u**2 - 1) - p.x  # noqa: E731
ADVECTION = lambda u, p: u.dt + 3.0 * u.dx  # noqa: E731
# The terms of each, as (coefficient, orders), and what is left as a function of u.
OPERATORS = {
    "Poisson": ([(1, (2, 0)), (1, (0, 2))], lambda u, x, y: -x * y),
    "Allen-Cahn": ([(1, (2, 0)), (1, (0, 2))], lambda u, x, y: u * (u**2 - 1) - x),
    "advection": ([(3, (1, 0)), (1, (0, 1))], lambda u, x, y: 0 * u),
}
PROBLEMS = {
    "Poisson": lambda: box(POISSON, pde.Dirichlet(wave)),
    "Allen-Cahn": lambda: box(ALLEN_CAHN, pde.Dirichlet(wave)),
    "advection": lambda: box(ADVECTION, pde.Dirichlet(wave), ("x", "t")),
}


def settings(envelope):
    return GridGP(envelope, num_components=3, max_frequency=1.5, jitter=1e-3)


def somewhere(model, problem, seed=0):
    """A place away from the start, where nothing is zero."""
    position = model.position(model.start_sites(problem), problem)
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda a: a + 0.3 * rng.normal(size=a.shape), position)


def one_pair(envelope, d, order, log_w, log_ls, mu):
    """A derivative of the kernel at one signed lag, in the paper's letters."""
    value = 0.0
    for w, l, m in zip(np.exp(log_w), np.exp(log_ls), 2 * np.pi * mu, strict=True):
        s, a = abs(d), math.sqrt(5) * l
        if envelope == "gaussian":
            E = [1, -2 * l * s, 4 * l**2 * s**2 - 2 * l]
            E = [e * np.exp(-l * s**2) for e in E]
        else:
            E = [
                1 + a * s + a**2 * s**2 / 3,
                -(a**2) / 3 * s * (1 + a * s),
                -(a**2) / 3 * (1 + a * s - a**2 * s**2),
            ]
            E = [e * np.exp(-a * s) for e in E]
        C, S = np.cos(m * s), np.sin(m * s)
        derivatives = [
            E[0] * C,
            np.sign(d) * (E[1] * C - m * E[0] * S),
            E[2] * C - 2 * m * E[1] * S - m**2 * E[0] * C,
        ]
        value += w * derivatives[order]
    return value


@eqx.filter_jit
def objective(model, position, problem):
    return model.objective(position, problem)


def brute_force(model, problem, position, name):
    """The objective by matrices of all grid points, pair by pair."""
    position = {key: np.asarray(value) for key, value in position.items()}
    grid = [np.asarray(x) for x in problem.grid]

    def matrix(j, order):
        names = (f"{part}_{problem.axes[j]}" for part in ("log_w", "log_ls", "frequency"))
        parameters = [position[name] for name in names]
        pairs = [
            [one_pair(model.envelope, a - b, order, *parameters) for b in grid[j]]
            for a in grid[j]
        ]
        return np.array(pairs) + (model.jitter * np.eye(len(grid[j])) if order == 0 else 0)

    K = np.kron(matrix(0, 0), matrix(1, 0))
    u = position["solution"].ravel()
    X, Y = (a.ravel() for a in np.meshgrid(*grid, indexing="ij"))
    terms, rest = OPERATORS[name]
    H = rest(u, X, Y)
    for coefficient, orders in terms:
        # Where it is not differentiated, K_j alone: the mean reproduces the grid values.
        cross = np.kron(*(matrix(j, order) for j, order in enumerate(orders)))
        H = H + coefficient * cross @ np.linalg.solve(K, u)
    # Four edges one after the other, corners in two of them.
    U = position["solution"]
    n1, n2 = U.shape
    exact = np.sin(3 * X) * np.cos(2 * Y)
    G = exact.reshape(n1, n2)
    edges = lambda A: np.concatenate([A[0], A[-1], A[:, 0], A[:, -1]])  # noqa: E731
    gap = edges(U) - edges(G)
    t1, t2 = position["log_tau_1"], position["log_tau_2"]
    prior = -0.5 * np.linalg.slogdet(K)[1] - 0.5 * u @ np.linalg.solve(K, u)
    boundary = 0.5 * gap.size * t1 - 0.5 * np.exp(t1) * gap @ gap
    equation = 0.5 * u.size * t2 - 0.5 * np.exp(t2) * H @ H
    return -(prior + model.boundary_weight * boundary + equation), gap.size


@both
@pytest.mark.parametrize("name", PROBLEMS)
def test_the_objective_in_two_dimensions_is_that_of_dense_matrices(name, envelope):
    problem, model = PROBLEMS[name](), settings(envelope)
    position = somewhere(model, problem)
    expected, num_boundary = brute_force(model, problem, position, name)
    assert num_boundary == 2 * (8 + 9)
    assert float(objective(model, position, problem)) == pytest.approx(expected, rel=1e-9)


@both
def test_gradients_are_those_of_finite_differences(envelope):
    problem, model = PROBLEMS["Allen-Cahn"](), settings(envelope)
    position = somewhere(model, problem)
    gradient = jax.jit(jax.grad(lambda p: objective(model, p, problem)))(position)
    rng, h = np.random.default_rng(1), 1e-4
    for name, value in position.items():
        towards = jnp.asarray(rng.normal(size=value.shape))
        at = lambda s: {**position, name: value + s * h * towards}  # noqa: B023, E731
        f = [float(objective(model, at(s), problem)) for s in (-2, -1, 1, 2)]
        expected = np.dot(f, [1, -8, 8, -1]) / (12 * h)
        got = float(jnp.vdot(gradient[name], towards))
        assert got == pytest.approx(expected, rel=1e-6), name


def test_curvature_is_that_of_finite_differences():
    problem, model = PROBLEMS["Allen-Cahn"](), settings("gaussian")
    position = somewhere(model, problem)
    rng, h = np.random.default_rng(2), 1e-4
    towards = jax.tree.map(lambda a: jnp.asarray(rng.normal(size=a.shape)), position)

    def at(s):
        return jax.tree.map(lambda a, b: a + s * b, position, towards)

    slope = jax.grad(lambda s: objective(model, at(s), problem))
    curvature = float(jax.jit(jax.grad(slope))(0.0))
    f = [float(jax.jit(slope)(s * h)) for s in (-2.0, -1.0, 1.0, 2.0)]
    expected = np.dot(f, [1, -8, 8, -1]) / (12 * h)
    assert curvature == pytest.approx(expected, rel=1e-6)


def test_the_program_has_the_density_of_the_objective():
    problem, model = PROBLEMS["Allen-Cahn"](), settings("gaussian")
    apart = []
    for seed in range(3):
        position = somewhere(model, problem, seed)
        sites = model.sites(position, problem)
        joint = log_density(model, (problem,), {}, sites)[0]
        # From the sites to the paper's parameters: logarithms of what is positive.
        logs = [v for k, v in position.items() if k.startswith("log_w")]
        logs += [jnp.log(sites[f"lengthscale_{axis}"]) for axis in problem.axes]
        logs += [position["log_tau_1"], position["log_tau_2"]]
        jacobian = sum(jnp.sum(a) for a in logs)
        minus = objective(model, position, problem)
        apart.append(float(joint + jacobian + minus))
    assert np.ptp(apart) < 1e-9 * abs(float(minus))


@both
def test_the_papers_parameters_and_back(envelope):
    problem, model = PROBLEMS["Poisson"](), settings(envelope)
    position = somewhere(model, problem)
    again = model.position(model.sites(position, problem), problem)
    assert set(again) == set(position)
    for name, value in position.items():
        np.testing.assert_allclose(again[name], value, rtol=1e-13, atol=1e-14)


def test_the_start_is_the_papers():
    problem, model = PROBLEMS["Poisson"](), GridGP(max_frequency=7.0)
    position = model.position(model.start_sites(problem), problem)
    np.testing.assert_allclose(np.exp(position["log_w_y"]), 1 / 30)
    np.testing.assert_allclose(position["frequency_x"], np.linspace(0, 7, 30))
    for name in ("log_ls_x", "log_ls_y", "log_tau_1", "log_tau_2", "solution"):
        assert not np.any(position[name]), name


# Conditions and equations beyond the paper's


def test_derivatives_of_a_wave_are_those_of_the_wave():
    # A kernel of few waves of long lengthscale holds them, and nothing else.
    model = GridGP("gaussian", num_components=2, jitter=1e-9)
    problem = box(lambda u, p: u.dxxyy + u.dx - 1.0, pde.Neumann(0.0, on="x"))
    X, Y = np.meshgrid(*problem.grid, indexing="ij")
    mu, nu = 0.7, 0.4
    m, n = 2 * np.pi * mu, 2 * np.pi * nu
    sites = model.start_sites(problem)
    for axis, frequency in (("x", mu), ("y", nu)):
        sites[f"frequency_{axis}"] = jnp.array([0.0, frequency])
        sites[f"lengthscale_{axis}"] = jnp.full(2, 1e3)
    sites["solution"] = jnp.asarray(np.sin(m * X) * np.cos(n * Y))
    factors = model.factors(sites, problem)
    fields = model.derivatives(sites, problem, factors)
    np.testing.assert_allclose(fields[2, 2], m**2 * n**2 * sites["solution"], atol=1e-4)
    slope = m * np.cos(m * X) * np.cos(n * Y)
    np.testing.assert_allclose(fields[1, 0], slope, atol=1e-5)
    boundary = model.terms(sites, problem, factors).boundary
    expected = np.concatenate([slope[0], slope[-1]])
    np.testing.assert_allclose(boundary.loc, expected, atol=1e-5)


def test_a_periodic_condition_is_a_difference_of_faces():
    problem = box(lambda u, x: u.dxx + x, pde.Periodic("x"), ("x",), 8)
    model = GridGP(num_components=1, jitter=1e-3)
    sites = model.start_sites(problem) | {"solution": jnp.arange(8.0) ** 2}
    factors = model.factors(sites, problem)
    terms = model.terms(sites, problem, factors)
    assert float(terms.boundary.loc[0]) == 49.0
    np.testing.assert_array_equal(terms.known, jnp.zeros(2))


def test_the_grid_prior_is_the_dense_normal():
    problem, model = PROBLEMS["Poisson"](), settings("student_t")
    sites = model.sites(somewhere(model, problem), problem)
    prior = GridNormal(model.factors(sites, problem))
    K = np.kron(*(np.asarray(factor.matrix) for factor in prior.factors))
    u = np.asarray(sites["solution"]).ravel()
    _, logdet = np.linalg.slogdet(2 * np.pi * K)
    expected = -0.5 * (logdet + u @ np.linalg.solve(K, u))
    assert float(prior.log_prob(sites["solution"])) == pytest.approx(expected, rel=1e-10)
    draws = jax.jit(lambda key: prior.sample(key, (4000,)))(KEY).reshape(4000, -1)
    # Its entries are averages of 4000 products: five standard errors.
    scale = np.sqrt(np.diag(K))
    covariance = np.asarray(draws.T @ draws) / 4000
    error = (covariance - K) / scale / scale[:, None]
    assert np.abs(error).max() < 5 * math.sqrt(2 / 4000)


# As a method


def test_adam_solves_a_small_problem():
    # sin πx from its curvature, to the accuracy at which steps of 0.001 bounce.
    problem = box(
        lambda u, x: u.dxx + np.pi**2 * np.sin(np.pi * x), pde.Dirichlet(0.0), ("x",), 20
    )
    model = GridGP("gaussian", num_components=2, max_frequency=0.5)
    fitted = pk.fit(model, problem, Adam(6000, learning_rate=1e-3), key=KEY)
    assert fitted.result == "successful"
    u = fitted.posterior["solution"].values[0, 0]
    assert fitted.posterior["solution"].dims == ("chain", "draw", "x")
    exact = np.sin(np.pi * np.asarray(problem.grid[0]))
    assert np.linalg.norm(u - exact) / np.linalg.norm(exact) < 0.02
    assert pk.diagnose(fitted)["residual of the equation"].ok


@pytest.fixture(scope="module")
def small():
    # Two components, eight points: what the tests below need, and quick.
    problem = box(lambda u, x: u.dxx + 1.0, pde.Dirichlet(0.0), ("x",), 8)
    return GridGP(num_components=2, jitter=1e-3), problem


def test_steps_are_taken_up_from_a_fit_and_from_a_folder(small, tmp_path):
    model, problem = small
    folder = tmp_path / "run"
    first = pk.fit(model, problem, Adam(5), key=KEY, checkpoint=folder)
    again = pk.fit(model, problem, Adam(5), key=KEY, checkpoint=folder)
    for name in first.posterior:
        np.testing.assert_array_equal(first.posterior[name], again.posterior[name])
    onwards = pk.fit(model, problem, Adam(5), key=KEY, start=first)
    objective = first.tree["trace"]["objective"].values[0]
    begun = float(onwards.tree["trace"]["objective"].values[0, 0])
    assert begun > objective[-1]
    assert begun == pytest.approx(first.facts["objective"], rel=1e-12)


def test_adam_stops_at_its_tolerance(small):
    # At the start u = 0: nothing is missing on the boundary, and the residual is 1.
    model, problem = small
    steps = []
    for tolerance in (0.5, 1.5):
        fitted = pk.fit(model, problem, Adam(5, tolerance=tolerance), key=KEY)
        misfit = fitted.tree["trace"]["misfit"].values.ravel()
        assert misfit[0] == 1.0
        steps.append(misfit.size)
    assert steps == [5, 1]


def test_draws_repeat_the_result(small):
    model, problem = small
    fitted = pk.fit(model, problem, Adam(3, num_draws=4), key=KEY)
    u = fitted.posterior["solution"].values
    assert u.shape == (1, 4, 8)
    assert not np.ptp(u, axis=1).any()
    scored = pk.with_log_likelihood(fitted)
    assert scored.tree["log_likelihood"]["equation"].dims == ("chain", "draw", "x")


def test_a_run_without_steps_is_refused(small):
    model, problem = small
    with pytest.raises(pk.FitError, match="took no step"):
        pk.fit(model, problem, Adam(0), key=KEY)


def test_a_run_that_fails_says_so(small):
    model, problem = small
    with pytest.raises(pk.FitError, match="not finite"):
        pk.fit(model, problem, Adam(20, learning_rate=1e3), key=KEY)


def test_a_step_lowers_for_cuda(small):
    model, problem = small
    lowers_for_cuda(Adam(5), model, problem)


# What does not fit


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: GridGP("cauchy"), r"GridGP\(envelope='cauchy'\)"),
        (lambda: GridGP(num_components=0), r"GridGP\(num_components=0\)"),
        (lambda: GridGP(jitter=0.0), r"GridGP\(jitter=0.0\)`: it takes a positive"),
        (lambda: Adam(-1), r"Adam\(num_steps=-1\)"),
        (lambda: Adam(5, learning_rate=0), r"Adam\(learning_rate=0\)"),
    ],
)
def test_settings_that_do_not_fit(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_other_models_and_problems_are_refused(small):
    model, problem = small
    with pytest.raises(ValueError, match=r"`pde.Adam` fits `pde.GridGP`.*`SpectralGP`"):
        pk.fit(pde.SpectralGP(), problem, Adam(3), key=KEY)
    observed = pde.Problem(
        {"x": (0, 1)},
        lambda u, x: u.dxx + 1.0,
        pde.Dirichlet(0.0),
        shape=8,
        observations=pde.Observations([0.5], [0.1], 0.1),
    )
    with pytest.raises(ValueError, match="the paper's model, for an equation with cond"):
        pk.fit(model, observed, Adam(3), key=KEY)
    fitted = pk.fit(model, problem, Adam(1), key=KEY)
    with pytest.raises(ValueError, match=r"shape \(3, 2\); it takes one row per point"):
        pk.predict(fitted, np.ones((3, 2)), key=KEY)
