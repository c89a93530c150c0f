"""Measurements of some entries of a grid: the answers are those of the dense rows."""

import functools

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.cbook import get_sample_data
from scipy.fft import idct
from scipy.interpolate import griddata

import probkit as pk
from lowering import lowers_for_cuda
from probkit.linalg import outer
from probkit.model.density import log_likelihood
from probkit.models import sbl
from probkit.models.sbl.kronecker import scattered
from probkit.models.sbl.posterior import posterior
from probkit.models.sbl.updates import Evidence
from reference.sbl import dense_posterior, kron

KEY = jax.random.key(0)
MODEL = sbl.KroneckerSBL()


def normal(rng, *shape, is_complex=False):
    real = rng.normal(size=shape)
    return real + 1j * rng.normal(size=shape) if is_complex else real


def problem(sizes, *, is_complex=False, share=0.6, noise_sd=0.3, known=True, seed=0):
    """Two atoms of each mode, and a share of the entries; sizes are (rows, atoms)."""
    rng = np.random.default_rng(seed)
    matrices = [normal(rng, m, n, is_complex=is_complex) for m, n in sizes]
    x = np.zeros([n for _, n in sizes], matrices[0].dtype)
    support = np.ix_(*[rng.choice(n, 2, replace=False) for _, n in sizes])
    x[support] = 2 * normal(rng, *x[support].shape, is_complex=is_complex)
    y = (kron(matrices) @ x.ravel()).reshape([m for m, _ in sizes])
    scale = noise_sd / np.sqrt(2) if is_complex else noise_sd
    y = y + scale * normal(rng, *y.shape, is_complex=is_complex)
    seen = rng.uniform(size=y.shape) < share
    y[~seen] = np.nan
    sd = noise_sd if known else None
    return sbl.Measurements(y, matrices, sd, seen=seen), x


def dense_rows(data):
    """The seen measurements, and the rows of the big matrix that measure them."""
    seen = np.asarray(data.seen).ravel()
    return np.asarray(data.y).ravel()[seen], kron(data.dictionaries)[seen]


def dense_answers(data, γ, noise):
    y, A = dense_rows(data)
    return dense_posterior(y, [A], [kron(γ)], noise)


def variances(data, seed=1):
    rng = np.random.default_rng(seed)
    return tuple(jnp.asarray(rng.gamma(1.0, 1.0, n)) for n in data.num_atoms)


SHAPES = {
    "one mode": ([(9, 8)], False),
    "one mode, tall": ([(14, 4)], False),
    "two modes": ([(5, 4), (4, 6)], False),
    "two modes, complex": ([(3, 4), (4, 3)], True),
    "three modes, tall in one": ([(2, 3), (4, 2), (3, 3)], False),
    # More seen entries than the basis takes at the same time.
    "two modes, more than a block": ([(12, 3), (11, 2)], False),
}
every_shape = pytest.mark.parametrize("sizes, field", SHAPES.values(), ids=SHAPES.keys())
some_shapes = pytest.mark.parametrize("name", ["one mode", "two modes, complex"])


@every_shape
def test_posterior_is_that_of_the_dense_rows(sizes, field):
    data, _ = problem(sizes, is_complex=field)
    γ, noise = variances(data), jnp.asarray(0.5)
    rng = np.random.default_rng(5)
    rows = [normal(rng, 2, n, is_complex=field) for _, n in sizes]
    places = [tuple(int(n) - 1 for n in data.num_atoms), (0,) * len(sizes)]

    @jax.jit
    def asked(γ, noise):
        post = posterior(data, γ, noise)
        numbers = ("log_evidence", "residual", "precision_trace", "num_explained")
        tensors = ("mean", "score", "leverage", "variances")
        pairs = [[post.covariance(one, other) for other in places] for one in places]
        everything = {name: getattr(post, name)() for name in (*numbers, *tensors)}
        return everything, pairs, post.at(rows)

    ours, pairs, (mean, variance) = asked(γ, noise)
    dense = dense_answers(data, γ, 0.5)
    covariance = dense["covariance"]
    dense["variances"] = np.diag(covariance).real
    for name, value in ours.items():
        flat = np.asarray(value).ravel()
        np.testing.assert_allclose(flat, dense[name], rtol=1e-9, atol=1e-11, err_msg=name)
    flat = [int(np.ravel_multi_index(p, data.num_atoms)) for p in places]
    np.testing.assert_allclose(pairs, covariance[np.ix_(flat, flat)], atol=1e-11)
    R = kron(rows)
    np.testing.assert_allclose(mean.ravel(), R @ dense["mean"], rtol=1e-9)
    spread = np.diag(R @ covariance @ R.conj().T).real
    np.testing.assert_allclose(variance.ravel(), spread, rtol=1e-9)


@pytest.mark.parametrize("field", [False, True], ids=["real", "complex"])
def test_draws_of_the_coefficients_have_the_exact_mean_and_covariance(field):
    # 20,000 draws: each of 6 means and 36 covariances is within 5 standard errors but for
    # one seed in 20,000.
    data, _ = problem([(3, 3), (3, 2)], is_complex=field)
    γ, noise, number = variances(data), jnp.asarray(0.5), 20_000
    post = posterior(data, γ, noise)
    draws = jax.jit(jax.vmap(post.sample))(jax.random.split(KEY, number))
    dense = dense_answers(data, γ, 0.5)
    sd = np.sqrt(np.diag(dense["covariance"]).real)
    gap = np.asarray(draws).reshape(number, -1) - dense["mean"]
    assert np.all(np.abs(gap.mean(0)) < 5 * sd / np.sqrt(number))
    error = np.abs(gap.T @ gap.conj() / number - dense["covariance"])
    assert np.all(error < 5 * np.sqrt(2) * np.outer(sd, sd) / np.sqrt(number))


@some_shapes
def test_a_measurement_given_the_others_has_the_density_of_the_conditional(name):
    # p(y) / p(without y_i), each from the dense covariance; 0 where nothing was measured.
    sizes, field = SHAPES[name]
    data, _ = problem(sizes, is_complex=field)
    sites = scattered(MODEL.flat_start(data), KEY, 1.0)
    γ, noise = MODEL.scales(sites, data).variance(), float(MODEL.noise(sites, data))
    y, A = dense_rows(data)

    def log_density(keep):
        return dense_posterior(y[keep], [A[keep]], [kron(γ)], noise)["log_evidence"]

    every = np.arange(len(y))
    expected = np.zeros(data.y.shape)
    expected[np.asarray(data.seen)] = [
        log_density(every) - log_density(np.delete(every, i)) for i in every
    ]
    ours = jax.jit(MODEL.pointwise)(sites, data)["y"]
    np.testing.assert_allclose(ours, expected, rtol=1e-8, atol=1e-8)


@some_shapes
def test_the_gradient_of_the_evidence_is_leverage_less_score(name):
    # Of the program and of the posterior, whose evidence is one number.
    sizes, field = SHAPES[name]
    data, _ = problem(sizes, is_complex=field, known=False)
    sites = scattered(MODEL.flat_start(data), KEY, 1.0)

    @jax.jit
    def both(sites):
        program = jax.value_and_grad(lambda s: log_likelihood(MODEL, data, s)["y"])
        post = MODEL.posterior(sites, data)
        e = Evidence.of(post)
        rise = post.prior_variance * (e.score2 - e.leverage)  # d log p / d log γ, halves
        by_hand = {}
        for p, mode in enumerate(data.modes):
            others = [q for q in range(len(data.modes)) if q != p]
            by_hand[mode] = rise.sum(others) / sites[f"local_scale_{mode}"]
        in_noise = post.residual() / post.noise**2 - post.precision_trace()
        noise = in_noise * sites["noise_sd"]
        return program(sites), post.log_evidence(), by_hand, noise

    (program, slope), evidence, by_hand, in_noise = both(sites)
    np.testing.assert_allclose(program, evidence, rtol=1e-11)
    weight = 2.0 if field else 1.0
    for mode, along in by_hand.items():
        np.testing.assert_allclose(
            slope[f"local_scale_{mode}"], weight * along, rtol=1e-7, atol=1e-8
        )
    np.testing.assert_allclose(slope["noise_sd"], weight * in_noise, rtol=1e-7)


def test_a_mask_that_sees_all_is_no_mask():
    data, _ = problem([(3, 4), (4, 3)], share=1.1)
    without = sbl.Measurements(data.y, data.dictionaries, data.noise_sd)
    assert data.places is None and len(data) == 12
    assert jax.tree.structure(data) == jax.tree.structure(without)
    for one, other in zip(jax.tree.leaves(data), jax.tree.leaves(without), strict=True):
        np.testing.assert_array_equal(one, other)


def test_all_seen_but_by_way_of_the_scattered_entries_is_the_full_grid():
    # One row more, of which nothing was seen.
    full, _ = problem([(4, 3), (3, 5)], share=1.1)
    first, second = map(np.asarray, full.dictionaries)
    γ, noise = variances(full), jnp.asarray(0.5)
    y = np.vstack([full.y, np.full((1, 3), np.nan)])
    seen = ~np.isnan(y)
    taller = sbl.Measurements(y, [np.vstack([first, np.ones(3)]), second], seen=seen)
    assert taller.places is not None
    one, other = posterior(full, γ, noise), posterior(taller, γ, noise)
    for name in ("log_evidence", "mean", "variances", "score", "leverage"):
        ours, theirs = getattr(other, name)(), getattr(one, name)()
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("there", [0.0, 7.0, np.inf, None])
@pytest.mark.parametrize("sizes", [[(9, 5)], [(4, 3), (3, 5)]], ids=["one mode", "two"])
def test_what_is_at_an_unseen_entry_does_not_matter(there, sizes):
    data, _ = problem(sizes)
    y = np.asarray(data.arrays()["y"])
    assert np.array_equal(np.isnan(y), ~np.asarray(data.seen))
    other = np.where(np.isnan(y), there, y)
    again = sbl.Measurements(other, data.dictionaries, data.noise_sd, seen=data.seen)
    for one, two in zip(jax.tree.leaves(data), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("method", [sbl.TypeII(), sbl.Sequential()], ids=repr)
def test_with_one_mode_missing_entries_are_rows_that_are_not_there(method):
    data, _ = problem([(20, 12)], noise_sd=0.1, known=False)
    (A,), seen = data.dictionaries, np.asarray(data.seen)
    without = sbl.Measurements(data.y[seen], A[seen], power=data.power)
    one, other = (pk.fit(MODEL, d, method, key=KEY) for d in (data, without))
    assert one.posterior.equals(other.posterior)
    found = pk.predict(one, [None], key=KEY)
    assert found["mean"].shape == (1, 1, 20)


def test_power_and_number_are_those_of_what_was_seen():
    data, _ = problem([(4, 3), (3, 5)])
    y, _ = dense_rows(data)
    assert len(data) == len(y) < data.y.size
    assert float(data.power) == pytest.approx(np.mean(y**2))


def test_with_every_mode_frozen_it_is_the_ridge_of_the_dense_rows():
    data, _ = problem([(6, 4), (5, 3)], known=False)
    y, A = dense_rows(data)
    rows = sbl.Measurements(y, A)
    fits = [
        pk.fit(sbl.KroneckerSBL(frozen=d.modes), d, sbl.TypeII(atol=1e-9), key=KEY)
        for d in (data, rows)
    ]
    for site in ("global_scale", "noise_sd"):
        one, other = (float(f.sites()[site]) for f in fits)
        assert one == pytest.approx(other, rel=1e-4)
    one, other = (f.facts["evidence"] for f in fits)
    assert one == pytest.approx(other, abs=1e-6)


# Fits.


@functools.cache
def sparse():
    return problem([(8, 8), (7, 6)], noise_sd=0.1, seed=11, share=0.7, known=False)


@functools.cache
def fitted():
    data, _ = sparse()
    return pk.fit(MODEL, data, sbl.TypeII(atol=1e-6, num_restarts=2), key=KEY)


def test_type_two_finds_the_coefficients_and_the_noise():
    data, x = sparse()
    mean = np.asarray(MODEL.posterior(fitted().sites(), data).mean())
    assert np.array_equal(mean != 0, x != 0)
    assert np.sum((mean - x) ** 2) < 1e-3 * np.sum(x**2)
    assert float(fitted().sites()["noise_sd"]) == pytest.approx(0.1, rel=0.4)
    assert pk.diagnose(fitted()).ok


def test_em_has_little_to_gain_where_type_two_ends_without_pruning():
    data, _ = sparse()
    method = sbl.TypeII(prune=None, num_restarts=1, atol=1e-6, max_steps=20_000)
    first = pk.fit(MODEL, data, method, key=KEY)
    em = pk.EM(num_restarts=1, maximise="likelihood", max_steps=20_000)
    then = pk.fit(MODEL, data, em, key=KEY, start=first)
    gain = then.tree["trace"]["final_objective"].item() - first.facts["evidence"]
    assert -1e-6 < gain < 0.05


def test_at_the_optimum_no_variance_wants_to_change():
    data, _ = sparse()
    scales = MODEL.scales(fitted().sites(), data)
    e = Evidence.of(MODEL.posterior(fitted().sites(), data))
    slope = (e.leverage - e.score2) * outer(scales.variance())
    for p, others in ((0, 1), (1, 0)):
        along = np.asarray(slope.sum(others))
        assert np.all(np.abs(along[np.asarray(scales.local[p]) > 0]) < 0.01)


def test_predictions_are_at_all_cells_and_right_where_nothing_was_seen():
    data, x = sparse()
    found = pk.predict(fitted(), data, key=KEY)
    assert found["y"].dims == ("chain", "draw", "mode0_measured", "mode1_measured")
    A, B = map(np.asarray, data.dictionaries)
    off = (found["mean"].values[0, 0] - A @ x @ B.T)[~np.asarray(data.seen)]
    assert np.abs(off).max() < 0.3  # a noise sd of 0.1, and a signal of sd 10


def test_a_saved_fit_comes_back_with_what_was_missing(tmp_path):
    again = pk.load(pk.save(fitted(), tmp_path / "fit.nc"))
    assert again.posterior.equals(fitted().posterior)
    for one, other in zip(
        jax.tree.leaves(again.data), jax.tree.leaves(fitted().data), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    assert np.isnan(again.tree["observed_data"]["y"]).sum() == 56 - len(again.data)


# A picture.


def photograph():
    """A photograph of 24 by 24 pixels, from 0 (black) to 1 (white)."""
    photo = plt.imread(get_sample_data("grace_hopper.jpg", asfileobj=False))
    grey = photo[20:404, 64:448].mean(axis=2) / 255
    return grey.reshape(24, 16, 24, 16).mean(axis=(1, 3))


def by_triangles(y, seen):
    """Linear interpolation, and the nearest pixel outside of all triangles."""
    at, everywhere = np.argwhere(seen), np.argwhere(np.ones_like(seen))
    linear, nearest = (
        griddata(at, y[seen], everywhere, kind) for kind in ("linear", "nearest")
    )
    return np.where(np.isnan(linear), nearest, linear).reshape(y.shape)


def test_a_picture_of_which_a_part_is_seen_is_better_than_interpolated():
    image, rng = photograph(), np.random.default_rng(0)
    seen = rng.uniform(size=image.shape) < 0.6
    y = np.where(seen, image + 0.05 * rng.normal(size=image.shape), np.nan)
    waves = idct(np.eye(24), norm="ortho", axis=0)
    data = sbl.Measurements(y, [waves, waves], modes=("down", "across"), seen=seen)
    spectrum = sbl.smooth(np.log1p(np.arange(24)), 6)
    model = sbl.KroneckerSBL(coupling=dict.fromkeys(data.modes, spectrum))
    method = sbl.TypeII(prune=None, search=0, num_restarts=1, atol=0.1)
    fitted = pk.fit(model, data, method, key=KEY)
    mean, variance = model.posterior(fitted.sites(), data).at([waves, waves])
    off = (mean - image)[~seen]
    rms = np.sqrt(np.mean(off**2))
    assert rms < np.sqrt(np.mean((by_triangles(y, seen) - image)[~seen] ** 2))
    inside = np.mean(np.abs(off) < 1.645 * np.sqrt(variance)[~seen])
    # Of 90 %: the picture has edges, where its one spectrum is too smooth.
    assert 0.8 < inside < 0.95


# Programs.


def test_hot_paths_lower_for_cuda():
    data, _ = problem([(3, 4), (4, 3)], is_complex=True)
    for method in (sbl.TypeII(), pk.NUTS(2)):
        lowers_for_cuda(method, MODEL, data)
