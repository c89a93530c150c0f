"""Known answers of sparse Bayesian learning: dense algebra, closed forms, invariances."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import probkit as pk
from lowering import lowers_for_cuda, programs
from probkit.linalg import outer
from probkit.model.density import log_likelihood
from probkit.models import sbl
from probkit.models.sbl.kronecker import scattered
from probkit.models.sbl.posterior import posterior
from probkit.models.sbl.sequential import best_variances
from probkit.models.sbl.updates import (
    GENERAL,
    MONOTONE,
    RULES,
    Evidence,
    Scales,
    bound_sweep,
    em_sweep,
    kl_sweep,
    moved,
    moved_noise,
    svd_sweep,
)
from reference.sbl import dense_posterior, kron

KEY = jax.random.key(0)


def normal(rng, *shape, is_complex=False):
    real = rng.normal(size=shape)
    return real + 1j * rng.normal(size=shape) if is_complex else real


def problem(sizes, *, is_complex=False, noise_sd=0.3, seed=0):
    """Data from a few atoms of each mode; sizes are (rows, atoms)."""
    rng = np.random.default_rng(seed)
    matrices = [normal(rng, m, n, is_complex=is_complex) for m, n in sizes]
    x = np.zeros([n for _, n in sizes], matrices[0].dtype)
    support = np.ix_(*[rng.choice(n, 2, replace=False) for _, n in sizes])
    x[support] = 2 * normal(rng, *x[support].shape, is_complex=is_complex)
    clean = (kron(matrices) @ x.ravel()).reshape([m for m, _ in sizes])
    scale = noise_sd / np.sqrt(2) if is_complex else noise_sd
    y = clean + scale * normal(rng, *clean.shape, is_complex=is_complex)
    return sbl.Measurements(y, matrices, noise_sd), x


def variances(data, seed=1):
    rng = np.random.default_rng(seed)
    return tuple(jnp.asarray(rng.gamma(1.0, 1.0, n)) for n in data.num_atoms)


SHAPES = {
    "one mode, wide": ([(5, 8)], False),
    "one mode, tall": ([(8, 5)], False),
    "two modes, complex": ([(3, 4), (4, 3)], True),
    "three modes, tall in one": ([(2, 3), (4, 2), (3, 3)], False),
    "three modes, complex, tall": ([(4, 3), (2, 3), (3, 2)], True),
}
every_shape = pytest.mark.parametrize("sizes, field", SHAPES.values(), ids=SHAPES.keys())


@jax.jit
def everything(data, γ, noise):
    post = posterior(data, γ, noise)
    names = ("log_evidence", "residual", "precision_trace", "num_explained")
    out = {name: getattr(post, name)() for name in names}
    tensors = ("mean", "score", "leverage", "variances")
    out |= {name: getattr(post, name)().reshape(-1) for name in tensors}
    return out, post


# Section by section: every row of the exact algebra against dense matrices.


@every_shape
def test_posterior_is_that_of_the_big_matrices(sizes, field):
    data, _ = problem(sizes, is_complex=field)
    γ, noise = variances(data), jnp.asarray(0.5)
    ours, post = everything(data, γ, noise)
    dense = dense_posterior(data.y, data.dictionaries, γ, 0.5)
    dense["variances"] = np.diag(dense["covariance"]).real
    for name, value in ours.items():
        np.testing.assert_allclose(value, dense[name], rtol=1e-10, atol=1e-12, err_msg=name)
    places = [tuple(int(n) - 1 for n in data.num_atoms), (0,) * len(sizes)]
    flat = [int(np.ravel_multi_index(p, data.num_atoms)) for p in places]
    for i, one in zip(flat, places, strict=True):
        for j, other in zip(flat, places, strict=True):
            entry = post.covariance(one, other)
            np.testing.assert_allclose(entry, dense["covariance"][i, j], atol=1e-12)


@every_shape
def test_prediction_at_new_rows_is_that_of_the_big_matrices(sizes, field):
    data, _ = problem(sizes, is_complex=field)
    γ, rng = variances(data), np.random.default_rng(5)
    rows = [normal(rng, 2, n, is_complex=field) for _, n in sizes]
    mean, variance = posterior(data, γ, jnp.asarray(0.5)).at(rows)
    dense, R = dense_posterior(data.y, data.dictionaries, γ, 0.5), kron(rows)
    np.testing.assert_allclose(mean.ravel(), R @ dense["mean"], rtol=1e-10)
    covariance = R @ dense["covariance"] @ R.conj().T
    np.testing.assert_allclose(variance.ravel(), np.diag(covariance).real, rtol=1e-9)


def test_each_question_of_a_posterior_is_one_program():
    data, _ = problem([(3, 5), (4, 6)])
    model = sbl.KroneckerSBL()
    sites, rows = model.flat_start(data), [jnp.ones((2, 5)), jnp.ones((3, 6))]
    others = {name: 1.1 * a for name, a in sites.items()}
    model.posterior(sites, data)  # what is asked of XLA once in a process
    jax.clear_caches()
    with programs() as made:
        post = model.posterior(sites, data)
        assert len(made) == 1
        post.mean(), post.variances(), post.log_evidence(), post.sample(KEY), post.at(rows)
        post.covariance((0, 1), (2, 3))
        assert len(made) == 7
        # Another draw, and other places
        other = model.posterior(others, data)
        other.mean(), other.covariance((1, 1), (2, 2))
    assert len(made) == 7


def test_places_are_counted_from_the_end_or_refused():
    data, _ = problem([(3, 5), (4, 6)])
    post = posterior(data, variances(data), jnp.asarray(0.5))
    last = float(post.variances()[4, 5])
    assert post.covariance((-1, -1), (4, 5)) == pytest.approx(last, rel=1e-9)
    traced = jax.jit(lambda place: post.covariance(place, place))(jnp.array([4, 5]))
    assert traced == pytest.approx(last, rel=1e-9)
    for place in ((5, 0), (0, -7), (1,), 3):
        with pytest.raises(
            ValueError, match=r"`covariance\(...\)` got the place .*\(5, 6\)"
        ):
            post.covariance((0, 0), place)


@pytest.mark.parametrize("field", [False, True], ids=["real", "complex"])
def test_draws_of_the_coefficients_have_the_exact_mean_and_covariance(field):
    # 20,000 draws: each of 6 means and 36 covariances is within 5 standard errors but for
    # one seed in 20,000.
    data, _ = problem([(2, 3), (3, 2)], is_complex=field)
    γ, noise = variances(data), jnp.asarray(0.5)
    post, number = posterior(data, γ, noise), 20_000
    draws = jax.jit(jax.vmap(post.sample))(jax.random.split(KEY, number))
    draws = np.asarray(draws).reshape(number, -1)
    dense = dense_posterior(data.y, data.dictionaries, γ, 0.5)
    sd = np.sqrt(np.diag(dense["covariance"]).real)
    gap = draws - dense["mean"]
    assert np.all(np.abs(gap.mean(0)) < 5 * sd / np.sqrt(number))
    covariance = gap.T @ gap.conj() / number
    error = np.abs(covariance - dense["covariance"])
    assert np.all(error < 5 * np.sqrt(2) * np.outer(sd, sd) / np.sqrt(number))


@eqx.filter_jit
def somewhere(model, data):
    """Variances far from the start, the noise, and the log density of each measurement."""
    sites = scattered(model.flat_start(data), KEY, 1.0)
    γ = model.scales(sites, data).variance()
    return γ, model.noise(sites, data), model.pointwise(sites, data)["y"]


@every_shape
def test_a_measurement_given_the_others_has_the_density_of_the_conditional(sizes, field):
    # p(y) / p(without y_i), each from the dense covariance.
    data, _ = problem(sizes, is_complex=field)
    γ, noise, ours = somewhere(sbl.KroneckerSBL(), data)
    A, y = kron(data.dictionaries), np.asarray(data.y).ravel()
    Σ = float(noise) * np.eye(len(y)) + (A * kron(γ)) @ A.conj().T

    def log_density(keep):
        Σ_k, y_k = Σ[np.ix_(keep, keep)], y[keep]
        form = (y_k.conj() @ np.linalg.solve(Σ_k, y_k)).real
        cost = np.linalg.slogdet(Σ_k)[1] + form
        if field:
            return -(len(keep) * np.log(np.pi) + cost)
        return -0.5 * (len(keep) * np.log(2 * np.pi) + cost)

    every = np.arange(len(y))
    expected = [log_density(every) - log_density(np.delete(every, i)) for i in every]
    np.testing.assert_allclose(ours.ravel(), expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("field", [False, True], ids=["real", "complex"])
def test_credible_intervals_are_calibrated_where_the_prior_is_true(field):
    # Coefficients from the prior, with known variances: errors over their sds are
    # standard, 4,000 rounds of 12 each. Mean squares are within 5 standard errors, the
    # rounds being independent, but for one seed in 100,000.
    data, _ = problem([(3, 4), (2, 3)], is_complex=field)
    γ, noise = variances(data), jnp.asarray(0.5)
    A = jnp.asarray(kron(data.dictionaries))

    @jax.jit
    @jax.vmap
    def standard(key):
        key_x, key_n = jax.random.split(key)
        dtype = data.y.dtype
        x = jnp.sqrt(outer(γ)) * jax.random.normal(key_x, data.num_atoms, dtype)
        white = jax.random.normal(key_n, data.y.shape, dtype)
        y = (A @ x.reshape(-1)).reshape(data.y.shape) + jnp.sqrt(noise) * white
        here = eqx.tree_at(lambda d: d.reduced.y, data, y)
        post = posterior(here, γ, noise)
        return (x - post.mean()) / jnp.sqrt(post.variances())

    z = np.asarray(standard(jax.random.split(KEY, 4000)))
    size = np.abs(z) ** 2  # exponential if complex, chi-square of one if real
    sd = 1.0 if field else np.sqrt(2.0)
    assert np.all(np.abs(size.mean(0) - 1) < 5 * sd / np.sqrt(4000))
    assert np.all(np.abs(z.mean(0)) < 5 / np.sqrt(4000))


@every_shape
def test_the_gradient_of_the_evidence_is_leverage_less_score(sizes, field):
    # dL/dγ_i = w_i - |q_i|^2 for the cost L = -2 log p (real) or -log p (complex), summed
    # over the coefficients that a local variance governs.
    data, _ = problem(sizes, is_complex=field)
    γ, noise = variances(data), jnp.asarray(0.5)

    @jax.jit
    def both(γ, noise):
        def cost(γ, noise):
            weight = 1 if field else 2
            return -weight * posterior(data, γ, noise).log_evidence()

        autodiff = jax.grad(cost, (0, 1))(γ, noise)
        post = posterior(data, γ, noise)
        e = Evidence.of(post)
        by_hand = []
        for p in range(len(γ)):
            others = outer(
                tuple(jnp.ones_like(g) if q == p else g for q, g in enumerate(γ))
            )
            slope = (e.leverage - e.score2) * others
            by_hand.append(slope.sum([q for q in range(len(γ)) if q != p]))
        in_noise = post.precision_trace() - post.residual() / noise**2
        return autodiff, (tuple(by_hand), in_noise)

    autodiff, by_hand = both(γ, noise)
    for one, other in zip(jax.tree.leaves(autodiff), jax.tree.leaves(by_hand), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", ["one mode, tall", "three modes, complex, tall"])
def test_program_evidence_and_posterior_evidence_are_one_number(name):
    sizes, field = SHAPES[name]
    data, _ = problem(sizes, is_complex=field)
    model = sbl.KroneckerSBL()

    @jax.jit
    def both(key):
        sites = scattered(model.flat_start(data), key, 1.0)
        program = log_likelihood(model, data, sites)["y"]
        return program, model.posterior(sites, data).log_evidence()

    np.testing.assert_allclose(*both(KEY), rtol=1e-11)


# Updates.


def scales_of(data, seed=1, coupling=None, frozen=None):
    local = list(variances(data, seed))
    P = len(local)
    coupling = coupling or (None,) * P
    for p, C in enumerate(coupling):
        local[p] = local[p] if C is None else local[p][: C.shape[1]]
    return Scales(jnp.asarray(0.7), tuple(local), coupling, frozen or (False,) * P)


CASES = {
    "plain": (None, None),
    "coupled": ((jnp.asarray(sbl.neighbours(4, 0.8)), None), None),
    "blocks": ((None, jnp.asarray(sbl.blocks([0, 0, 1, 1, 1]))), None),
    "frozen": (None, (False, True)),
}


@pytest.mark.parametrize("rule", MONOTONE)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize("field", [False, True], ids=["real", "complex"])
def test_the_evidence_never_falls(rule, case, field):
    data, _ = problem([(3, 4), (4, 5)], is_complex=field)
    coupling, frozen = case

    @jax.jit
    def climb(scales, noise):
        def step(carry, _):
            scales, noise = carry
            post = posterior(data, scales.variance(), noise)
            new = moved(rule, scales, Evidence.of(post)), moved_noise(rule, post)
            return new, post.log_evidence()

        return jax.lax.scan(step, (scales, noise), None, length=60)[1]

    trace = np.asarray(climb(scales_of(data, 2, coupling, frozen), jnp.asarray(1.0)))
    assert np.all(np.diff(trace) >= -1e-9 * np.abs(trace[1:]))
    assert trace[-1] > trace[0] + 1


def test_the_m_step_makes_every_marginal_flat_from_any_start():
    # The minimiser of the convex problem is unique: D / γ has flat marginals.
    data, _ = problem([(3, 4), (2, 3), (3, 2)])
    scales = scales_of(data)
    post = posterior(data, scales.variance(), jnp.asarray(0.5))
    γ, evidence = post.prior_variance, Evidence.of(post)
    D = γ + γ**2 * (evidence.score2 - evidence.leverage)
    new = em_sweep(scales, evidence, inner_sweeps=60)
    ratio = np.asarray(D / outer(new.variance()))
    for p in range(3):
        others = tuple(q for q in range(3) if q != p)
        np.testing.assert_allclose(ratio.mean(others), 1.0, rtol=1e-9)


def test_one_em_step_is_the_update_in_closed_form():
    # Orthonormal A and one mode: v = γσ²/(γ+σ²), μ = γu/(γ+σ²), and γ becomes v + μ².
    Q = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))[0][:, :4]
    y = np.arange(1.0, 7.0)
    data, σ2 = sbl.Measurements(y, Q, noise_sd=0.5), 0.25
    γ, u = jnp.asarray([0.1, 1.0, 2.0, 5.0]), Q.T @ y
    scales = Scales(jnp.asarray(1.0), (γ,), (None,), (False,))
    post = posterior(data, (γ,), jnp.asarray(σ2))
    new = moved("em", scales, Evidence.of(post))
    expected = γ * σ2 / (γ + σ2) + (γ * u / (γ + σ2)) ** 2
    np.testing.assert_allclose(new.variance()[0], expected, rtol=1e-12)


@pytest.mark.parametrize("rule", GENERAL)
def test_with_orthonormal_atoms_the_optimum_is_known(rule):
    # γ_i = max(|u_i|^2 - σ^2, 0).
    Q = np.linalg.qr(np.random.default_rng(1).normal(size=(6, 5)))[0]
    y = 2 * Q[:, 0] - 1.5 * Q[:, 3] + 0.1 * Q[:, 1]
    data = sbl.Measurements(y, Q, noise_sd=0.5)
    method = sbl.TypeII(update=rule, atol=1e-12, max_steps=20_000)
    fitted = pk.fit(sbl.KroneckerSBL(), data, method, key=KEY, throw=False)
    (γ,) = fitted.model.scales(fitted.sites(), data).variance()
    best = np.maximum((Q.T @ y) ** 2 - 0.25, 0.0)
    np.testing.assert_allclose(γ, best, rtol=1e-4, atol=2e-4 if rule == "em" else 1e-6)


def test_without_noise_the_optimum_scales_the_squares():
    # Orthonormal Kronecker A and a vanishing noise: the marginals of |u|^2 / γ are flat.
    rng = np.random.default_rng(3)
    Q = [np.linalg.qr(rng.normal(size=(n, n)))[0] for n in (3, 4)]
    data = sbl.Measurements(rng.normal(size=(3, 4)), Q, noise_sd=1e-5)
    method = sbl.TypeII(atol=1e-10, max_steps=5000, prune=None)
    fitted = pk.fit(sbl.KroneckerSBL(), data, method, key=KEY)
    γ = np.asarray(outer(fitted.model.scales(fitted.sites(), data).variance()))
    u = Q[0].T @ np.asarray(data.y) @ Q[1]
    for axis in (0, 1):
        np.testing.assert_allclose((u**2 / γ).mean(axis), 1.0, rtol=1e-4)


def test_the_rank_one_rules_return_what_they_are_given():
    # Where the second moments are rank one, both projections keep them.
    data, _ = problem([(3, 4), (2, 3), (3, 2)])
    scales = scales_of(data)
    nothing = Evidence(jnp.zeros(data.num_atoms), jnp.zeros(data.num_atoms))
    γ = outer(scales.variance())
    for new in (kl_sweep(scales, nothing), svd_sweep(scales, nothing)):
        np.testing.assert_allclose(outer(new.variance()), γ, rtol=1e-10)


def test_an_atom_that_is_out_stays_out_and_harms_nothing():
    data, _ = problem([(3, 4), (4, 5)])
    scales = scales_of(data)
    local = (scales.local[0].at[1].set(0.0), scales.local[1])
    scales = Scales(scales.total, local, scales.coupling, scales.frozen)

    @jax.jit
    def by_rule(scales):
        evidence = Evidence.of(posterior(data, scales.variance(), jnp.asarray(0.5)))
        return {rule: moved(rule, scales, evidence) for rule in RULES}

    for rule, new in by_rule(scales).items():
        # The singular vectors of the rule by SVD are zero there to rounding.
        assert float(new.local[0][1]) <= (1e-12 if rule == "svd" else 0.0), rule
        assert all(bool(jnp.isfinite(g).all()) for g in new.local), rule


def test_the_penalised_bound_never_lowers_the_posterior_density():
    # Checked for whole steps in the conformance tests; here that the penalty acts at all.
    data, _ = problem([(3, 4), (4, 5)])
    model = sbl.KroneckerSBL(global_scale=1e-3)
    sites = scattered(model.flat_start(data), KEY, 0.0)
    moments, _ = model.e_step(sites, data)
    held = model.m_step(moments, sites, data, use_prior=True)
    free = model.m_step(moments, sites, data, use_prior=False)
    assert float(held["global_scale"]) < float(free["global_scale"])


# Special cases that are models of their own.


def test_snapshots_with_a_frozen_mode_are_msbl():
    # M-SBL's EM step: γ_i = v_i + ||μ_i||² / L.
    rng = np.random.default_rng(2)
    A, Y = rng.normal(size=(4, 6)), rng.normal(size=(4, 3))
    data = sbl.Measurements.snapshots(Y, A, noise_sd=0.5)
    model = sbl.KroneckerSBL(frozen="snapshot")
    γ = jnp.asarray(rng.gamma(1.0, 1.0, 6))
    scales = Scales(jnp.asarray(1.0), (γ, jnp.ones(3)), (None, None), (False, True))
    new = em_sweep(
        scales, Evidence.of(posterior(data, scales.variance(), jnp.asarray(0.25)))
    )
    alone = [dense_posterior(Y[:, l], [A], [γ], 0.25) for l in range(3)]
    v = np.diag(alone[0]["covariance"])
    expected = v + np.mean([d["mean"] ** 2 for d in alone], axis=0)
    np.testing.assert_allclose(new.local[0], expected, rtol=1e-10)
    np.testing.assert_array_equal(new.local[1], 1.0)
    assert "local_scale_snapshot" not in model.start(data, KEY)


def test_coupled_blocks_are_block_sbl():
    # The bound for a block: γ_b sqrt(||A_b^H Σ^-1 y||² / tr A_b^H Σ^-1 A_b).
    rng = np.random.default_rng(4)
    A, y = rng.normal(size=(5, 6)), rng.normal(size=5)
    labels = ["a", "a", "b", "b", "b", "c"]
    data = sbl.Measurements(y, A, noise_sd=0.5)
    C = sbl.blocks(labels)
    g = rng.gamma(1.0, 1.0, 3)
    scales = Scales(jnp.asarray(1.0), (jnp.asarray(g),), (jnp.asarray(C),), (False,))
    post = posterior(data, scales.variance(), jnp.asarray(0.25))
    new = bound_sweep(scales, Evidence.of(post))
    dense = dense_posterior(y, [A], [C @ g], 0.25)
    expected = g * np.sqrt((C.T @ dense["score"] ** 2) / (C.T @ dense["leverage"]))
    np.testing.assert_allclose(new.local[0], expected, rtol=1e-10)


def test_simulated_measurements_are_the_product_and_its_noise():
    rng = np.random.default_rng(0)
    A, B = normal(rng, 30, 4, is_complex=True), normal(rng, 40, 3, is_complex=True)
    x = normal(rng, 4, 3, is_complex=True)
    data = sbl.simulate(KEY, (A, B), x, 0.5, noise_known=False, modes=("a", "b"))
    noise = np.asarray(data.y) - A @ x @ B.T
    # 1,200 entries: five standard errors of a mean square of exponentials.
    assert np.mean(np.abs(noise) ** 2) == pytest.approx(0.25, rel=5 / np.sqrt(1200))
    assert data.noise_sd is None and data.modes == ("a", "b")
    assert float(sbl.simulate(KEY, (A, B), x, 0.5).noise_sd) == 0.5


# Fits.


@functools.cache
def sparse():
    return problem([(6, 8), (7, 6)], noise_sd=0.1, seed=11)


def fitted_by(**settings):
    data, _ = sparse()
    method = sbl.TypeII(**{"atol": 1e-6, "max_steps": 3000, **settings})
    return pk.fit(sbl.KroneckerSBL(), data, method, key=KEY, throw=False)


@functools.cache
def by_bound():
    return fitted_by()


def test_the_bound_finds_the_coefficients():
    data, x = sparse()
    fitted = by_bound()
    assert fitted.result == "successful" and pk.diagnose(fitted).ok
    mean = fitted.model.posterior(fitted.sites(), data).mean()
    assert np.sum((np.asarray(mean) - x) ** 2) < 1e-3 * np.sum(x**2)


# EM slows down without end while an atom fades, and stops short of the rest.
@pytest.mark.parametrize("rule, left", [("mackay", 0.05), ("em", 0.5)])
def test_where_another_rule_ends_the_bound_finds_little_to_gain(rule, left):
    # They share their stationary points; which of them each reaches is its own affair.
    data, _ = sparse()
    settings = {"prune": None, "max_steps": 20_000, "num_restarts": 1, "atol": 1e-6}
    first = fitted_by(update=rule, **settings)
    method = sbl.TypeII(**settings)
    on = pk.fit(first.model, data, method, key=KEY, start=first, throw=False)
    gain = on.facts["evidence"] - first.facts["evidence"]
    assert -1e-6 < gain < left


def test_at_the_optimum_no_variance_wants_to_change():
    data, _ = sparse()
    fitted = by_bound()
    scales = fitted.model.scales(fitted.sites(), data)
    e = Evidence.of(fitted.model.posterior(fitted.sites(), data))
    slope = (e.leverage - e.score2) * outer(scales.variance())
    for p, others in ((0, 1), (1, 0)):
        along = np.asarray(slope.sum(others))  # d cost / d log γ
        inside = np.asarray(scales.local[p]) > 1e-3
        assert np.all(np.abs(along[inside]) < 0.01)
        assert np.all(along > -0.01)


def test_an_atom_stays_if_it_is_worth_its_nats():
    bare, free, pruned = (fitted_by(prune=worth) for worth in (None, 0.0, "bic"))
    count = [
        sum(int((f.posterior[name] > 0).sum()) for name in f.posterior if "local" in name)
        for f in (bare, free, pruned)
    ]
    assert count[0] > count[1] > count[2] >= 4
    lost = [bare.facts["evidence"] - f.facts["evidence"] for f in (free, pruned)]
    assert lost[0] <= 1e-9
    # Half the log of 42 measurements for each atom, at most.
    assert lost[1] <= 0.5 * np.log(42) * (count[0] - count[2])


def test_restarts_are_ranked_by_evidence():
    fitted = fitted_by(num_restarts=4, prune=None)
    ends = fitted.tree["trace"]["final_objective"].values
    assert ends.shape == (4,) and fitted.facts["evidence"] == ends.max()
    assert fitted.facts["evidence"] >= fitted_by(prune=None).facts["evidence"] - 1e-6


# One start, and a flat one: random starts know one atom from another.
ALONE = sbl.TypeII(atol=1e-6, max_steps=3000, num_restarts=1)


def alone(data):
    return pk.fit(sbl.KroneckerSBL(), data, ALONE, key=KEY)


def test_a_fit_does_not_depend_on_units_or_on_the_order_of_atoms():
    data, _ = sparse()
    order = np.random.default_rng(0).permutation(8)
    first, second = data.dictionaries
    usual, other = (
        alone(data),
        alone(
            sbl.Measurements(
                1e4 * data.y, [1e-3 * first[:, order], second], 1e4 * data.noise_sd
            )
        ),
    )
    one, two = (f.posterior["local_scale_mode0"].values[0, 0] for f in (usual, other))
    np.testing.assert_allclose(two, one[order], atol=1e-5)
    one, two = (float(f.sites()["global_scale"]) for f in (usual, other))
    assert two == pytest.approx(1e7 * one, rel=1e-5)


def test_a_rotation_of_a_mode_changes_nothing():
    data, _ = sparse()
    Q = np.linalg.qr(np.random.default_rng(1).normal(size=(6, 6)))[0]
    first, second = data.dictionaries
    turned = sbl.Measurements(Q @ np.asarray(data.y), [Q @ first, second], data.noise_sd)
    evidence = [alone(d).facts["evidence"] for d in (data, turned)]
    assert evidence[0] == pytest.approx(evidence[1], rel=1e-8)


def test_pure_noise_is_called_noise():
    rng = np.random.default_rng(8)
    data = sbl.Measurements(
        rng.normal(size=(12, 10)), [rng.normal(size=(12, 3)), np.eye(10)]
    )
    model = sbl.KroneckerSBL(frozen="mode1")
    fitted = pk.fit(model, data, sbl.TypeII(max_steps=5000), key=KEY, throw=False)
    assert float(fitted.sites()["noise_sd"]) == pytest.approx(
        np.sqrt(np.mean(np.asarray(data.y) ** 2)), rel=0.05
    )
    assert float(fitted.model.posterior(fitted.sites(), data).num_explained()) < 6


def test_recover_draws_coefficients_for_each_draw():
    drawn = pk.recover(fitted_by(num_draws=3, prune=None), key=KEY)
    for name in ("coefficient", "coefficient_unshrunk"):
        assert drawn[name].dims == ("chain", "draw", "mode0", "mode1")
        assert drawn.sizes["draw"] == 3
        assert float(drawn[name].std("draw").sum()) > 0


def test_saved_fits_come_back(tmp_path):
    complex_data, _ = problem([(3, 4), (4, 3)], is_complex=True)
    model = sbl.KroneckerSBL(coupling={"mode0": 0.5, "mode1": sbl.blocks([0, 0, 1])})
    fitted = pk.fit(model, complex_data, sbl.TypeII(max_steps=30), key=KEY, throw=False)
    again = pk.load(pk.save(fitted, tmp_path / "fit.nc"))
    assert again.model == model and again.method == fitted.method
    assert again.posterior.equals(fitted.posterior)
    np.testing.assert_array_equal(again.data.y, complex_data.y)
    assert again.data.modes == complex_data.modes
    assert float(again.data.noise_sd) == float(complex_data.noise_sd)


def test_float32_stays_float32_and_agrees():
    data, _ = sparse()
    single = sbl.Measurements(
        np.asarray(data.y, np.float32),
        [np.asarray(a, np.float32) for a in data.dictionaries],
        np.float32(data.noise_sd),
    )
    method = sbl.TypeII(max_steps=200)
    fitted = pk.fit(sbl.KroneckerSBL(), single, method, key=KEY, throw=False)
    assert all(v.dtype == np.float32 for v in fitted.posterior.data_vars.values())
    ours = fitted.model.posterior(fitted.sites(), single).mean()
    best = by_bound().model.posterior(by_bound().sites(), data).mean()
    np.testing.assert_allclose(ours, best, atol=0.02)


@pytest.mark.parametrize("rule", ["mm", "em"])
def test_with_every_mode_frozen_the_fit_is_a_ridge_of_learned_strength(rule):
    data, _ = problem([(6, 4), (5, 3)])
    model = sbl.KroneckerSBL(frozen=("mode0", "mode1"))
    fitted = pk.fit(model, data, sbl.TypeII(rule, num_restarts=1, atol=1e-9), key=KEY)
    assert set(fitted.sites()) == {"global_scale"}

    def cost(log_scale):
        sites = {"global_scale": jnp.exp(log_scale)}
        return -model.posterior(sites, data).log_evidence()

    slope = jax.grad(cost)(jnp.log(fitted.sites()["global_scale"]))
    assert abs(float(slope)) < 1e-3


# One atom at a time.


def test_the_best_variance_of_one_atom_is_its_best_by_search():
    data, _ = problem([(5, 8)])
    γ = jnp.asarray([0.0, 1.0, 0.2, 0.0, 3.0, 0.0, 0.5, 0.0])

    A, y = np.asarray(data.dictionaries[0]), np.asarray(data.y)

    def cost(γ):
        Σ = 0.09 * np.eye(5) + (A * γ[..., None, :]) @ A.T
        return np.linalg.slogdet(Σ)[1] + np.linalg.solve(Σ, y[:, None])[..., 0] @ y

    post = posterior(data, (γ,), jnp.asarray(0.09))
    best, gains = best_variances(γ, post.leverage(), post.score())
    γ, best = np.asarray(γ), np.asarray(best)
    for i in range(8):
        along = np.tile(γ, (4001, 1))
        along[:, i] = [0.0, *np.geomspace(1e-6, 1e4, 4000)]
        search = cost(along)
        at_best = np.where(np.arange(8) == i, best[i], γ)
        now, then = cost(γ), cost(at_best)
        assert float(now - then) == pytest.approx(float(gains[i]), abs=1e-9)
        assert float(then) <= float(search.min()) + 1e-6


@pytest.mark.parametrize("known", [True, False], ids=["noise known", "noise learned"])
@pytest.mark.parametrize("sizes", [(12, 20), (20, 12)], ids=["wide", "tall"])
def test_sequential_ascent_reaches_what_the_bound_reaches(known, sizes):
    data, _ = problem([sizes], noise_sd=0.1, seed=3)
    data = data if known else sbl.Measurements(data.y, data.dictionaries)
    model = sbl.KroneckerSBL()
    one = pk.fit(model, data, sbl.Sequential(prune=0), key=KEY)
    assert pk.diagnose(one)["largest fall of the objective"].ok
    true = model.posterior(one.sites(), data).log_evidence()
    assert one.facts["evidence"] == pytest.approx(float(true), abs=1e-8)
    method = sbl.TypeII(max_steps=5000, prune=0)
    other = pk.fit(model, data, method, key=KEY, throw=False)
    assert one.facts["evidence"] > other.facts["evidence"] - 0.5


def test_sequential_ascent_under_a_price_finds_the_support():
    data, x = problem([(40, 60)], noise_sd=0.3, seed=5)
    unknown = sbl.Measurements(data.y, data.dictionaries)
    fitted = pk.fit(sbl.KroneckerSBL(), unknown, sbl.Sequential(), key=KEY)
    scale = fitted.posterior["local_scale_atom"].values[0, 0]
    assert set(np.flatnonzero(scale)) == set(np.flatnonzero(x))
    assert float(fitted.sites()["noise_sd"]) == pytest.approx(0.3, rel=0.3)


# The methods of the family, as programs.


@pytest.mark.parametrize(
    "method, sizes",
    [(sbl.TypeII(), [(3, 4), (4, 3)]), (sbl.Sequential(), [(3, 5)])],
    ids=["TypeII", "Sequential"],
)
def test_hot_paths_lower_for_cuda(method, sizes):
    data, _ = problem(sizes, is_complex=True)
    lowers_for_cuda(method, sbl.KroneckerSBL(), data)


@pytest.mark.parametrize("method", [sbl.TypeII(), sbl.Sequential()], ids=["TypeII", "Seq."])
def test_a_finished_run_is_taken_up_from_its_folder(method, tmp_path):
    data, _ = problem([(6, 9)])
    model, folder = sbl.KroneckerSBL(), tmp_path / "run"
    first = pk.fit(model, data, method, key=KEY, checkpoint=folder)
    again = pk.fit(model, data, method, key=KEY, checkpoint=folder)
    assert again.posterior.equals(first.posterior) and again.facts == first.facts
