"""A matrix normal hierarchy with dense matrices of all parameters, slowly and plainly."""

import numpy as np
from scipy.special import multigammaln, psi


def covariance(rows, columns):
    """Of a matrix in C order, entry by entry."""
    p, q = len(rows), len(columns)
    found = np.zeros((p * q, p * q))
    for i in range(p):
        for j in range(q):
            for k in range(p):
                for m in range(q):
                    found[i * q + j, k * q + m] = rows[i, k] * columns[j, m]
    return found


def seconds(S, rows, columns):
    """Of a dense second moment, with the precision of the other side averaged."""
    p, q = len(rows), len(columns)
    T = S.reshape(p, q, p, q)
    by_rows, by_columns = np.linalg.inv(rows), np.linalg.inv(columns)
    found = np.zeros((p, p)), np.zeros((q, q))
    for i in range(p):
        for k in range(p):
            found[0][i, k] = np.sum(T[i, :, k, :] * by_columns)
    for j in range(q):
        for m in range(q):
            found[1][j, m] = np.sum(T[:, j, :, m] * by_rows)
    return found


def expected_log_prior(q, loc, second, num):
    """E[Σ_i log N(θ_i; M, U ⊗ W)] for episodes with a mean second moment about `loc`.

    `q` has loc, strength, and (V, n) of rows and columns.
    """
    d, (V, n), (R, k) = len(loc), q["rows"], q["columns"]
    precision = covariance(n * np.linalg.inv(V), k * np.linalg.inv(R))
    away = loc - q["loc"]
    logdet = len(R) * mean_logdet(V, n) + len(V) * mean_logdet(R, k)
    # `second` is about `loc`, whose difference from the mean of episodes is `first`.
    first, moment = second
    about = moment + np.outer(first, away) + np.outer(away, first) + np.outer(away, away)
    trace = np.trace(precision @ about) + d / q["strength"]
    return -0.5 * num * (d * np.log(2 * np.pi) + logdet + trace)


def mean_logdet(V, n):
    d = len(V)
    sums = sum(psi((n - j) / 2) for j in range(d))
    return np.linalg.slogdet(V)[1] - d * np.log(2) - sums


def divergence_of_wisharts(V, n, V0, n0):
    d = len(V)
    _, logdet = np.linalg.slogdet(V)
    _, logdet0 = np.linalg.slogdet(V0)
    entropy_like = (
        n / 2 * logdet
        - n * d / 2 * np.log(2)
        - multigammaln(n / 2, d)
        - (n + d + 1) / 2 * mean_logdet(V, n)
        - n * d / 2
    )
    prior = (
        n0 / 2 * logdet0
        - n0 * d / 2 * np.log(2)
        - multigammaln(n0 / 2, d)
        - (n0 + d + 1) / 2 * mean_logdet(V, n)
        - n / 2 * np.trace(V0 @ np.linalg.inv(V))
    )
    return entropy_like - prior


def divergence(q, p):
    """From p to q; both have loc, strength, and (V, n) of rows and columns."""
    d, (V, n), (R, k) = len(q["loc"]), q["rows"], q["columns"]
    precision = covariance(n * np.linalg.inv(V), k * np.linalg.inv(R))
    away, ratio = q["loc"] - p["loc"], p["strength"] / q["strength"]
    means = d * (ratio - 1 - np.log(ratio)) + p["strength"] * away @ precision @ away
    sides = divergence_of_wisharts(V, n, *p["rows"])
    return 0.5 * means + sides + divergence_of_wisharts(R, k, *p["columns"])


def bound(q, p, first, second, num):
    """Of the hierarchy, given the first and second moments of `num` episodes."""
    return expected_log_prior(q, q["about"], (first, second), num) - divergence(q, p)
