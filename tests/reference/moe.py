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


def log_prior(x, y, gate, coefficient, noise_sd) -> float:
    """Log density of the default priors, written by hand for standardised data.

    The gate's density is over its K - 1 free columns in an orthonormal basis of the
    columns that sum to zero.
    """
    x = np.asarray(x).reshape(len(y), -1)
    terms, K = coefficient.shape
    m, s = np.median(x, axis=0), stats.iqr(x, axis=0) / 1.3489795
    centre, spread = np.median(y), stats.iqr(y) / 1.3489795
    slopes = coefficient[1:] * s[:, None] / spread
    at_mean = (coefficient[0] + m @ coefficient[1:] - centre) / spread
    standard = np.vstack([at_mean, slopes])
    total = stats.t(3, 0, 2.5).logpdf(standard).sum()
    total += K * (np.log(s).sum() - terms * np.log(spread))
    gate_standard = np.vstack([gate[0] + m @ gate[1:], gate[1:] * s[:, None]])
    basis = np.linalg.svd(np.ones((1, K)))[2][1:].T
    rows = stats.multivariate_t(np.zeros(K - 1), 2.5**2 * np.eye(K - 1), df=3)
    total += np.sum(rows.logpdf(gate_standard @ basis))
    total += (K - 1) * np.log(s).sum()
    unit = 0.5 * spread
    total += stats.f(2 + terms, 1).logpdf((noise_sd / unit) ** 2).sum()
    # From the density over the variance to that over the sd.
    total += np.log(2 * noise_sd / unit**2).sum()
    return total
