"""Gaussian processes given an equation, by their big covariances: slow, plain to see."""

import itertools
import math
from fractions import Fraction

import equinox as eqx
import numpy as np

from probkit.models import pde

# Kernels: functions of a lag and an order of differentiation.


def gaussian(weight, frequency, lengthscale):
    """The spectral mixture under a Gaussian envelope, by a recurrence of its own."""

    def kernel(lag, order):
        total = 0.0
        for w, s, l in zip(weight, frequency, lengthscale, strict=True):
            # exp(q) with q' = im - d/l² and q'' = -1/l²
            slope = 2j * math.pi * s - lag / l**2
            last, now = 0.0, np.exp(-(lag**2) / (2 * l**2) + 2j * math.pi * s * lag)
            for n in range(order):
                last, now = now, slope * now - n / l**2 * last
            total += w * now.real
        return total

    return kernel


def waves(weight, frequency, lengthscale, nodes):
    """Bumps of a spectrum as a few waves each: nodes and weights of a quadrature."""

    def kernel(lag, order):
        total = 0.0
        for w, s, l in zip(weight, frequency, lengthscale, strict=True):
            for t, v in zip(*nodes, strict=True):
                turn = 2 * math.pi * s + t / l
                # the n-th derivative of a cosine is n quarters of a turn on
                total += w * v * turn**order * np.cos(turn * lag + order * math.pi / 2)
        return total

    return kernel


# A row is a place and what is given of u there: coefficients by order of differentiation.


def covariance(kernel, rows, others):
    out = np.zeros((len(rows), len(others)))
    for (n, (x, terms)), (m, (y, more)) in itertools.product(
        enumerate(rows), enumerate(others)
    ):
        for (i, a), (j, b) in itertools.product(terms.items(), more.items()):
            out[n, m] += a * b * (-1) ** j * kernel(x - y, i + j)
    return out


def posterior(kernel, rows, values, noise_sd, targets):
    """Mean and covariance of the targets given the rows, and the rows' log density."""
    Σ = covariance(kernel, rows, rows) + np.diag(np.asarray(noise_sd) ** 2)
    # Rows of very different units: a Cholesky factor of the correlations.
    units = np.sqrt(np.diag(Σ))
    L = np.linalg.cholesky(Σ / np.outer(units, units))
    white = np.linalg.solve(L, np.asarray(values) / units)
    half = np.linalg.solve(L, covariance(kernel, rows, targets) / units[:, None])
    logdet = 2 * np.log(np.diag(L)).sum() + 2 * np.log(units).sum()
    evidence = -0.5 * (white @ white + logdet + len(rows) * math.log(2 * math.pi))
    return half.T @ white, covariance(kernel, targets, targets) - half.T @ half, evidence


# Sums over the points of a grid, term by term.


def row_of_point(terms, functions, place):
    """One row of an equation in several dimensions, at one point of the grid.

    Args:
        terms: coefficient by orders, a number or an array over the grid.
        functions: `(axis, order)` to a matrix, a row a point of the axis.
        place: index of the point along each axis.
    """
    axes = range(len(place))
    sizes = [functions[j, 0].shape[1] for j in axes]
    row = []
    for which in itertools.product(*map(range, sizes)):
        total = 0.0
        for orders, coefficient in terms.items():
            c = coefficient if np.ndim(coefficient) == 0 else coefficient[place]
            for j in axes:
                c = c * functions[j, orders[j]][place[j], which[j]]
            total += c
        row.append(total)
    return row


# In exact fractions, however small the noise.


def exact_log_normal(y, F, noise_sd):
    """log N(y; 0, F Fᵀ + diag(σ²)) and its gradients in y and F."""
    y, F, σ = (np.vectorize(Fraction, otypes=[object])(a) for a in (y, F, noise_sd))
    n = len(y)
    C = F @ F.T + np.diag(σ**2)
    work = np.concatenate([C, np.diag([Fraction(1)] * n)], 1)
    logdet = 0.0
    for k in range(n):
        pivot = work[k, k]
        logdet += math.log(pivot.numerator) - math.log(pivot.denominator)
        work[k] = work[k] / pivot
        for i in range(n):
            if i != k:
                work[i] = work[i] - work[i, k] * work[k]
    inverse = work[:, n:]
    a = inverse @ y
    value = -0.5 * (float(y @ a) + logdet + n * math.log(2 * math.pi))
    in_F = np.outer(a, a) @ F - inverse @ F
    return value, (-a).astype(float), in_F.astype(float)


# Exponential decay, whose solution is known.


def decay_posterior(points, values, rates, noises, noise_scale):
    """Moments of a rate by a sum over a grid, for u = exp(-rate x) seen with noise.

    The rate is uniform; the noise's standard deviation half-normal of scale `noise_scale`.
    """
    u = np.exp(-rates[:, None] * points)
    misfit = ((values - u) ** 2).sum(1)
    # In equal steps of log σ, so that a place weighs as much as its σ.
    log = -0.5 * misfit[:, None] / noises**2 - (len(values) - 1) * np.log(noises)
    log = log - 0.5 * (noises / noise_scale) ** 2
    share = np.exp(log - log.max())
    share = share.sum(1) / share.sum()
    mean = share @ rates
    return mean, math.sqrt(share @ (rates - mean) ** 2)


@eqx.filter_jit
def solved(model, problem):
    """The solution on the grid, with the kernel at its start."""
    found = model.integrated(model.start_sites(problem), problem)
    return found.derivative(problem.grid, (0,) * len(problem.axes))


def error(problem, exact, model=None):
    """The largest error of the solution, relative to its largest value."""
    truth = exact(problem.coordinates())
    found = solved(model or pde.SpectralGP(calibrated=False), problem)
    return np.abs(found - truth).max() / np.abs(truth).max()
