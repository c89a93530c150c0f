"""The channel by way of a reflecting surface, and the metrics, against plain physics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from probkit.models.sbl.examples import irs
from probkit.models.sbl.metrics import credible_support, nmse, support, support_recovery

SNR = 12.0


@pytest.fixture(scope="module")
def link():
    training = irs.draw_training(jax.random.key(1))
    return irs.simulate(jax.random.key(2), SNR, training)


def steering_vector(size, cosine):
    return np.array([np.exp(1j * np.pi * cosine * k) for k in range(size)]) / size**0.5


def test_steering_vectors_are_those_of_a_half_wavelength_line_array():
    expected = np.column_stack([steering_vector(6, 2 * g / 18 - 1) for g in range(18)])
    assert irs.steering(6, 18) == pytest.approx(expected, abs=1e-14)


def test_kronecker_model_reproduces_the_propagation(link):
    training, σ = link.training, float(link.data.noise_sd)
    first, second = np.asarray(link.first), np.asarray(link.second)
    sent = [
        second @ np.diag(pattern) @ first @ np.asarray(training.pilots)
        for pattern in np.asarray(training.patterns).T
    ]
    propagated = np.stack([received.T for received in sent])  # pattern, pilot, antenna
    P, Q, A = (np.asarray(matrix) for matrix in link.data.dictionaries)
    x = np.asarray(link.coefficients)
    modelled = np.einsum("pi,qj,ak,ijk->pqa", P, Q, A, x)
    scale = np.abs(propagated).max()
    assert modelled / scale == pytest.approx(propagated / scale, abs=1e-12)
    assert σ**2 == pytest.approx(np.mean(np.abs(propagated) ** 2) / 10 ** (SNR / 10))


def test_noise_has_the_power_that_was_asked_for(link):
    P, Q, A = (np.asarray(matrix) for matrix in link.data.dictionaries)
    x = np.asarray(link.coefficients)
    noise = np.asarray(link.data.y) - np.einsum("pi,qj,ak,ijk->pqa", P, Q, A, x)
    # 288 squared moduli of mean one: a sum is Gamma(288). Fails in one key in 10^4.
    total = np.sum(np.abs(noise) ** 2) / float(link.data.noise_sd) ** 2
    assert 5e-5 < stats.gamma(288).cdf(total) < 1 - 5e-5


def test_coefficients_give_the_channel_of_patterns_never_trained_with(link):
    held_out = irs.random_patterns(jax.random.key(3), 7)
    of_x = irs.channel(link.coefficients, held_out, link.training)
    expected = np.stack(
        [np.asarray(link.second) @ np.diag(θ) @ link.first for θ in np.asarray(held_out).T]
    )
    assert of_x.shape == (7, 16, 6)
    assert float(irs.channel_nmse(of_x, expected)) < 1e-24
    assert np.asarray(link.channel(held_out)) == pytest.approx(expected, rel=1e-12)
    assert float(irs.channel_nmse(1.1 * of_x, expected)) == pytest.approx(0.01)


def test_support_is_neighbouring_cells_of_two_modes_and_one_of_the_third(link):
    pattern, pilot, antenna = np.nonzero(np.asarray(link.coefficients))
    assert len(pattern) == 9
    assert len(set(pilot)) == 1
    assert np.ptp(np.unique(antenna)) == 2
    # Differences of directions wrap round.
    cells = np.zeros(18, bool)
    cells[pattern] = True
    assert max(np.roll(cells, -k)[:3].all() for k in range(18))


def test_sizes_are_free():
    training = irs.draw_training(
        jax.random.key(0),
        mobile=2,
        station=4,
        elements=8,
        grid=5,
        num_pilots=2,
        num_patterns=3,
    )
    link = irs.simulate(jax.random.key(1), 20.0, training, cells=2)
    assert link.data.y.shape == (3, 2, 4)
    assert link.data.num_atoms == (5, 5, 5)
    assert link.data.modes == ("pattern", "pilot", "antenna")
    patterns = irs.random_patterns(jax.random.key(2), 4, elements=8)
    channel = irs.channel(link.coefficients, patterns, training)
    assert float(irs.channel_nmse(channel, link.channel(patterns))) < 1e-24


def test_more_cells_than_the_grid_has(link):
    with pytest.raises(ValueError, match="takes 1 to 18"):
        irs.simulate(jax.random.key(0), SNR, link.training, cells=19)


def rotated(channel, angles):
    return channel * jnp.exp(1j * jnp.asarray(angles))[:, None, None]


def test_symbol_error_rate_is_that_of_symbols_sent(link):
    truth = link.channel(link.training.patterns)[:3]
    # Estimates that differ in their phase as seen by the beams: 20, 40 and 60 degrees.
    estimate = rotated(truth, np.deg2rad([20.0, -40.0, 60.0]))
    snr = 10 ** (4 / 10)
    rng = np.random.default_rng(0)
    symbols, rates = np.array([1, 1j, -1, -1j]), []
    for believed, true in zip(np.asarray(estimate), np.asarray(truth), strict=True):
        u, _, vh = np.linalg.svd(believed)
        u, v = u[:, 0].conj(), vh[0].conj()
        gain, expected_gain = u @ true @ v, u @ believed @ v
        sent = rng.integers(4, size=200_000)
        noise = rng.standard_normal((2, len(sent))).T @ np.array([1, 1j]) / np.sqrt(2)
        received = gain * symbols[sent] + np.abs(gain) / np.sqrt(snr) * noise
        distance = np.abs(received[:, None] - expected_gain * symbols)
        rates.append(np.mean(np.argmin(distance, axis=1) != sent))
    # Standard error of the mean of the three below 6e-4; the test allows five.
    found = float(irs.symbol_error_rate(estimate, truth, 4.0))
    assert found == pytest.approx(np.mean(rates), abs=3e-3)


def test_symbol_error_rate_of_a_perfect_estimate_is_textbook(link):
    truth = link.channel(link.training.patterns)
    miss = stats.norm.sf(np.sqrt(10 ** (SNR / 10)))
    found = float(irs.symbol_error_rate(truth, truth, SNR))
    assert found == pytest.approx(2 * miss - miss**2, rel=1e-9)


def test_spectral_efficiency_of_a_perfect_estimate_uses_the_first_singular_value(link):
    truth = np.asarray(link.channel(link.training.patterns))
    first = np.linalg.svd(truth, compute_uv=False)[:, 0]
    found = float(irs.spectral_efficiency(truth, truth, 0.5))
    assert found == pytest.approx(np.mean(np.log2(1 + first**2 / 0.25)))


def test_nmse_of_a_known_error():
    assert float(nmse([3.0, 4.0 + 1j], [3.0, 4.0])) == pytest.approx(1 / 25)


def test_support_is_relative_to_the_largest():
    assert support([0.0, -10.0, 0.011, 0.009]).tolist() == [False, True, True, False]
    assert not support(np.zeros(3)).any()


def test_support_recovery_counts_missed_and_invented_coefficients():
    truth = [1.0, -2.0, 0.0, 0.0]
    assert float(support_recovery(truth, truth)) == 1.0
    assert float(support_recovery([1.0, 0.0, 1.0, 1e-9], truth)) == pytest.approx(1 / 3)
    assert float(support_recovery(np.array([False, True, False, False]), truth)) == 0.5
    assert float(support_recovery([0.0, 0.0], [0.0, 0.0])) == 1.0


@pytest.mark.parametrize("field", ["real", "complex"])
def test_credible_region_excludes_the_truth_as_often_as_it_says(field):
    rng = np.random.default_rng(0)
    sd, size = 2.0, 100_000
    error = rng.standard_normal((2, size))
    drawn = error[0] if field == "real" else (error[0] + 1j * error[1]) / np.sqrt(2)
    outside = credible_support(sd * drawn, np.full(size, sd), level=0.9)
    # The truth is zero. Standard error 9.5e-4, five allowed.
    assert float(outside.mean()) == pytest.approx(0.1, abs=5e-3)


def test_credible_support_by_hand():
    assert credible_support([2.0, 1.9, 0.0], [1.0, 1.0, 0.0]).tolist() == [1, 0, 0]
    # -log(0.05) = 2.9957: the squared modulus, in variances, at the border.
    assert credible_support([1.731j, 1.730j], [1.0, 1.0]).tolist() == [1, 0]


def test_metrics_refuse_what_does_not_fit():
    with pytest.raises(ValueError, match=r"shapes \(2,\) and \(3,\)"):
        nmse(np.ones(2), np.ones(3))
    with pytest.raises(ValueError, match="number in \\(0, 1\\)"):
        credible_support(np.ones(2), np.ones(2), level=95.0)
    with pytest.raises(ValueError, match="is complex"):
        credible_support(np.ones(2), np.ones(2, complex))
