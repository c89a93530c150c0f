"""Conditions on faces that are more than a value: sums of u and its derivatives."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import probkit as pk
from probkit.models import pde
from probkit.models.pde import system
from probkit.models.pde.checks import measured
from probkit.models.pde.profile import candidates
from reference.pde import error

KEY = jax.random.key(0)
MODEL = pde.SpectralGP(calibrated=False)


# Robin


def test_a_fin_that_loses_heat_at_its_tip():
    # u'' = m² u, u(0) = 100, u'(1) + w u(1) = 0: cosh m(1-x) + (w/m) sinh m(1-x)
    m, w = 3.0, 2.0

    def exact(x):
        at = np.cosh(m * (1 - x)) + w / m * np.sinh(m * (1 - x))
        return 100 * at / (np.cosh(m) + w / m * np.sinh(m))

    told = [pde.Dirichlet(100.0, on="x-"), pde.Robin(0.0, weight=w, on="x+")]
    fin = pde.Problem({"x": (0, 1)}, lambda u, x: u.dxx - m**2 * u, told, shape=30)
    assert error(fin, exact) < 1e-8


def test_a_wall_between_two_rooms():
    # A straight line. The derivative is along the axis at both ends, so that a wall which
    # loses heat has a negative weight at its low end.
    k, left, right, h_left, h_right = 0.5, 20.0, -5.0, 8.0, 25.0
    flow = (left - right) / (1 / h_left + 0.3 / k + 1 / h_right)
    told = [
        pde.Robin(-h_left * left / k, weight=-h_left / k, on="x-"),
        pde.Robin(h_right * right / k, weight=lambda x: h_right / k + 0 * x, on="x+"),
    ]
    wall = pde.Problem({"x": (0, 0.3)}, lambda u, x: k * u.dxx, told, shape=30)
    assert error(wall, lambda x: left - flow / h_left - flow / k * x) < 1e-8
    # u is of the size of the rooms' temperatures.
    assert 15 < float(wall.size) < 25


def heat(p):
    return np.exp(-p.t) * np.cos(2 * p.x) + p.x


def test_heat_with_convection_that_changes_in_time():
    def slope(p):
        return 1 - 2 * np.exp(-p.t) * np.sin(2 * p.x)

    told = [
        pde.Initial(heat),
        pde.Robin(lambda p: slope(p) - 2 * heat(p), weight=-2.0, on="x-"),
        pde.Robin(
            lambda p: slope(p) + (1 + p.t) * heat(p), weight=lambda p: 1 + p.t, on="x+"
        ),
    ]
    problem = pde.Problem(
        {"x": (0, 1), "t": (0, 1)},
        lambda u, p: u.dt - u.dxx - 3 * np.exp(-p.t) * np.cos(2 * p.x),
        told,
        shape=16,
    )
    model = pde.SpectralGP(rank=10, calibrated=False)
    assert error(problem, heat, model) < 1e-5
    # What the check of faces looks at.
    found = eqx.filter_jit(model.integrated)(model.start_sites(problem), problem)
    assert 0 < float(measured(found, problem)["faces"]) < 1e-5
    *_, last = problem.conditions
    at = system.on_face(last, found.mean, found.spans, problem.grid, {})
    np.testing.assert_allclose(at, last.values, atol=1e-4)
    # u = 0 misses all that is given, which is of the size of u and its derivatives.
    flat = eqx.tree_at(lambda s: s.mean, found, jnp.zeros_like(found.mean))
    assert 0.1 < float(measured(flat, problem)["faces"]) < 2


def test_the_method_of_the_paper_refuses_it():
    problem = pde.Problem(
        {"x": (0, 1)}, lambda u, x: u.dxx - 1, pde.Robin(0.0, weight=1.0), shape=8
    )
    with pytest.raises(ValueError, match=r"`pde.Robin` or an empty .*`pde.SpectralGP`"):
        pk.fit(pde.GridGP(), problem, pde.Adam(num_steps=1), key=KEY)


# Unknown numbers

SEEN = pde.Observations(np.linspace(0.1, 0.9, 5), np.ones(5), 0.1)
SEEN_2D = pde.Observations(np.linspace(0.1, 0.9, 10).reshape(5, 2), np.ones(5), 0.1)
G, H = 1.7, -0.4
# Conditions with unknowns beside the same with their numbers.
WITH = {
    "a value": (
        lambda g, h: [pde.Dirichlet(g, "x-"), pde.Dirichlet(h, "x+")],
        [pde.Dirichlet(lambda x, c: c.g, "x-"), pde.Dirichlet(lambda x, c: c.h, "x+")],
    ),
    "a polynomial": (
        lambda g, h: pde.Dirichlet(lambda x: 2 + x * g**2 - 3 * g * h),
        pde.Dirichlet(lambda x, c: 2 + x * c.g**2 - 3 * c.g * c.h),
    ),
    "value and velocity": (
        lambda g, h: pde.Initial(g, 2 * h, "x"),
        pde.Initial(lambda x, c: c.g, lambda x, c: 2 * c.h, "x"),
    ),
    "slopes": (
        lambda g, h: [pde.Neumann(g, "x-"), pde.Dirichlet(h, "x+")],
        [pde.Neumann(lambda x, c: c.g, "x-"), pde.Dirichlet(lambda x, c: c.h, "x+")],
    ),
    "a wall": (
        lambda g, h: [pde.Robin(g * h, weight=g, on="x+"), pde.Dirichlet(1.0)],
        [
            pde.Robin(lambda x, c: c.g * c.h, weight=lambda x, c: c.g, on="x+"),
            pde.Dirichlet(1.0),
        ],
    ),
    "a wall of a plane": (
        lambda g, h: [
            pde.Robin(lambda p: g * p.y, weight=lambda p: 1 + h * p.y**2, on="x+"),
            pde.Dirichlet(lambda p: p.x * g),
        ],
        [
            pde.Robin(
                lambda p, c: c.g * p.y, weight=lambda p, c: 1 + c.h * p.y**2, on="x+"
            ),
            pde.Dirichlet(lambda p, c: p.x * c.g),
        ],
    ),
}


@pytest.mark.parametrize("known, unknown", WITH.values(), ids=WITH.keys())
def test_an_unknown_number_is_the_number_once_it_is_drawn(known, unknown):
    plane = unknown is WITH["a wall of a plane"][1]
    box, seen = ({"x": (0, 1), "y": (0, 1)}, SEEN_2D) if plane else ({"x": (0, 1)}, SEEN)

    def residual(u, p):
        return u.dxx + u.dyy - 1 if plane else u.dxx + u - 1

    def made(boundary, **more):
        return pde.Problem(box, residual, boundary, shape=9, observations=seen, **more)

    model = pde.SpectralGP(rank=5 if plane else None, calibrated=False)
    plain = made(known(G, H))
    # Few functions are a compromise, which depends on the tolerances and so on the middle.
    more = 1 if plane else 3
    open_ = made(unknown, unknown={"g": (G - 1, G + more), "h": (H - 1, H + more)})
    sites = model.start_sites(plain)
    at = jnp.asarray

    @eqx.filter_jit
    def both(plain, open_):
        drawn = sites | {"g": at(G), "h": at(H)}
        found = model.integrated(sites, plain), model.integrated(drawn, open_)
        return [one.derivative(plain.grid, (0,) * len(box)) for one in found]

    one, other = both(plain, open_)
    np.testing.assert_allclose(other, one, atol=1e-6 * np.abs(one).max())


START = 2.0
T = np.linspace(0.1, 3, 20)
SD = 0.01 * (1 + T)


@functools.cache
def cooled():
    """A fit of decay from an unknown start at an unknown rate, with noise that grows."""
    values = START * np.exp(-0.8 * T) + SD * np.random.default_rng(0).normal(size=20)
    problem = pde.Problem(
        {"t": (0, 3)},
        lambda u, t, c: u.dt + c.rate * u,
        pde.Initial(lambda t, c: c.start),
        observations=pde.Observations(T, values, SD),
        unknown={"rate": (0, 10), "start": (0, 10)},
        shape=20,
    )
    model = pde.SpectralGP(equation_sd=1e-3, num_nodes=12)
    return pk.fit(model, problem, pde.Closed(), key=KEY)


def test_a_start_and_a_rate_are_found_with_their_sds():
    assert pk.diagnose(cooled()).ok
    # Weighted nonlinear least squares of the solution itself.
    values, best = np.asarray(cooled().data.values), np.array([0.8, START])
    for _ in range(20):
        decay = np.exp(-best[0] * T)
        J = np.stack([-best[1] * T * decay, decay], 1) / SD[:, None]
        left = (values - best[1] * decay) / SD
        best = best + np.linalg.lstsq(J, left, rcond=None)[0]
    errors = np.sqrt(np.diag(np.linalg.inv(J.T @ J)))
    for name, value, sd in zip(("rate", "start"), best, errors, strict=True):
        draws = cooled().posterior[name].values
        assert abs(draws.mean() - value) < 0.3 * sd, name
        assert draws.std() == pytest.approx(sd, rel=0.25), name


def test_a_search_begins_near_a_start_that_a_curve_shows():
    tried = candidates(cooled().model, cooled().data)
    assert abs(float(tried["start"][0]) - START) < 0.2
    # And elsewhere in the range.
    assert float(tried["start"].min()) < 1 and float(tried["start"].max()) > 9


def test_a_loaded_fit_has_its_unknowns_on_faces_and_the_noise_of_each(tmp_path):
    assert cooled().tree["constant_data"]["noise_sd"].dims == ("observation",)
    again = pk.load(pk.save(cooled(), tmp_path / "fit.nc"))
    (condition,) = again.data.conditions
    assert condition.given({"start": 2.5}) == 2.5
    assert again.data.fields() == cooled().data.fields()
    np.testing.assert_array_equal(again.data.noise_sd, SD)


def test_the_evidence_of_a_temperature_of_a_face_is_that_of_least_squares():
    # u = g x + s sin(πx) exp(-π² t): linear in g and s.
    random = np.random.default_rng(0)
    points = random.uniform(0, 1, (30, 2)) * [1.0, 0.3]
    x, t = points.T
    parts = np.stack([x, np.sin(np.pi * x) * np.exp(-(np.pi**2) * t)], 1)
    values = parts @ [1.5, 0.7] + 0.02 * random.normal(size=30)
    problem = pde.Problem(
        {"x": (0, 1), "t": (0, 0.3)},
        lambda u, p: u.dt - u.dxx,
        [
            pde.Initial(lambda p, c: c.g * p.x + c.s * np.sin(np.pi * p.x)),
            pde.Dirichlet(0.0, on="x-"),
            pde.Dirichlet(lambda p, c: c.g, on="x+"),
        ],
        observations=pde.Observations(points, values, 0.02),
        unknown={"g": (0, 5), "s": (-5, 5)},
        shape=8,
    )
    model = pde.SpectralGP(equation_sd=1e-5, rank=10, num_nodes=12)
    sites = model.start_sites(problem)
    best = np.linalg.lstsq(parts, values, rcond=None)[0]

    @eqx.filter_jit
    def evidence(problem, g, s):
        return model.integrated(sites | {"g": g, "s": s}, problem).evidence

    for way in np.array([[0.1, 0.0], [0.0, 0.1], [0.1, 0.1]]):
        at = [evidence(problem, *jnp.asarray(best + k * way)) for k in (-1, 0, 1)]
        low, middle, high = map(float, at)
        # A parabola whose top is at the best fit.
        fall = np.sum((parts @ way) ** 2) / 0.02**2 / 2
        assert middle - (low + high) / 2 == pytest.approx(fall, rel=0.02)
        assert abs(high - low) < 0.02 * fall
