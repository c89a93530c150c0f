"""Normal classes, slowly: every example of every class in one dense normal distribution."""

import numpy as np
from scipy.stats import multivariate_normal


def joint_covariance(between, within, m):
    """Of `m` examples of one class, one after another."""
    d = len(within)
    found = np.zeros((m * d, m * d))
    for i in range(m):
        for j in range(m):
            block = between + (within if i == j else 0)
            found[i * d : (i + 1) * d, j * d : (j + 1) * d] = block
    return found


def log_density(examples, mean, between, within):
    """Of the examples `(m, d)` of one class."""
    m = len(examples)
    covariance = joint_covariance(between, within, m)
    return multivariate_normal(np.tile(mean, m), covariance).logpdf(examples.ravel())


def probabilities(support, query, mean, between, within):
    """Of the classes, for queries `(q, d)`, given supports `(n, k, d)`: the ratio of the
    joint densities with and without the query.
    """
    found = np.zeros((len(query), len(support)))
    for i, x in enumerate(query):
        for c, own in enumerate(support):
            both = np.concatenate([own, x[None]])
            found[i, c] = log_density(both, mean, between, within) - log_density(
                own, mean, between, within
            )
    found = np.exp(found - found.max(1, keepdims=True))
    return found / found.sum(1, keepdims=True)


def mean_of_class(examples, mean, between, within):
    """Mean and covariance of the mean of a class given its examples, by precisions."""
    a, b = np.linalg.inv(between), np.linalg.inv(within)
    covariance = np.linalg.inv(a + len(examples) * b)
    return covariance @ (a @ mean + b @ examples.sum(0)), covariance
