"""Linear episodes with all matrices written out, one episode at a time."""

import numpy as np
from scipy.special import digamma, logsumexp
from scipy.stats import multivariate_normal


def evidence(X, y, mean, covariance, noise_sd):
    """Log density of the values of an episode, with its coefficients integrated out."""
    if len(y) == 0:
        return 0.0
    marginal = X @ covariance @ X.T + noise_sd**2 * np.eye(len(y))
    return multivariate_normal(X @ mean, marginal).logpdf(y)


def coefficients(X, y, mean, covariance, noise_sd):
    """Mean and covariance of the coefficients given the values, by conditioning."""
    marginal = X @ covariance @ X.T + noise_sd**2 * np.eye(len(y))
    gain = covariance @ X.T @ np.linalg.inv(marginal)
    return mean + gain @ (y - X @ mean), covariance - gain @ X @ covariance


def predicted(x, X, y, mean, covariance, noise_sd):
    """Mean and variance of a new value with features `x`."""
    m, V = coefficients(X, y, mean, covariance, noise_sd)
    return x @ m, x @ V @ x + noise_sd**2


def shares(X, y, weights, means, covariances, noise_sd):
    """How far an episode belongs to each component, and its log evidence."""
    each = [
        np.log(w) + evidence(X, y, m, C, noise_sd)
        for w, m, C in zip(weights, means, covariances, strict=True)
    ]
    return np.exp(each - logsumexp(each)), logsumexp(each)


def penalty(dof, strength, d):
    """What an episode pays because mean and covariance are not known."""
    psi = sum(digamma(dof / 2 + (1 - j) / 2) for j in range(1, d + 1))
    return 0.5 * (d * np.log(dof / 2) - psi + d / strength)


def divergence(m, V, loc, strength, scale, dof):
    """Of N(m, V) from N(mu, Sigma), expected over a normal-inverse-Wishart."""
    d = len(m)
    psi = sum(digamma(dof / 2 + (1 - j) / 2) for j in range(1, d + 1))
    P, away = np.linalg.inv(scale), m - loc
    twice = np.linalg.slogdet(scale)[1] - np.linalg.slogdet(V)[1] - d * np.log(2) - psi
    twice += dof * np.trace(P @ V) + dof * away @ P @ away + d / strength - d
    return twice / 2
