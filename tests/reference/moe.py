"""The mixture of experts, one observation and one expert at a time, in NumPy."""

import numpy as np
from scipy import stats


def log_likelihood(x, y, gate, coefficient, noise_sd) -> float:
    total = 0.0
    for x_i, y_i in zip(x, y, strict=True):
        z = np.array([1.0, *np.atleast_1d(x_i)])
        scores = np.exp(z @ gate)
        density = 0.0
        for k in range(len(noise_sd)):
            share = scores[k] / scores.sum()
            expert = stats.norm(z @ coefficient[:, k], noise_sd[k])
            density += share * expert.pdf(y_i)
        total += np.log(density)
    return total


def log_prior(x, y, gate, coefficient, noise_sd, scale=2.5, shape=2.0, rate=0.05):
    """Log density of the priors, written by hand for standardised data.

    The gate's density is over its K - 1 free columns in an orthonormal basis of the
    columns that sum to zero.
    """
    x = np.asarray(x).reshape(len(y), -1)
    terms, K = coefficient.shape
    m, s, centre, spread = x.mean(0), x.std(0), np.mean(y), np.std(y)
    slopes = coefficient[1:] * s[:, None] / spread
    at_mean = (coefficient[0] + m @ coefficient[1:] - centre) / spread
    standard = np.vstack([at_mean, slopes])
    total = stats.norm(0, scale).logpdf(standard).sum()
    total += K * (np.log(s).sum() - terms * np.log(spread))
    gate_standard = np.vstack([gate[0] + m @ gate[1:], gate[1:] * s[:, None]])
    total += -0.5 * (gate_standard**2).sum() / scale**2
    total -= 0.5 * terms * (K - 1) * np.log(2 * np.pi * scale**2)
    total += (K - 1) * np.log(s).sum()
    variance = (noise_sd / spread) ** 2
    total += stats.invgamma(shape, scale=rate).logpdf(variance).sum()
    # From the density over the variance to that over the sd.
    total += np.log(2 * noise_sd / spread**2).sum()
    return total
