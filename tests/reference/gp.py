"""Regression by Gaussian processes, entry by entry: slow, plain to see."""

import math

import numpy as np

# Correlations of two places, vectors of coordinates.


def matern(x, x2, smoothness, lengthscale):
    r = math.sqrt(sum(((a - b) / l) ** 2 for a, b, l in zip(x, x2, lengthscale)))  # noqa: B905
    if smoothness == 0.5:
        return math.exp(-r)
    if smoothness == 1.5:
        return (1 + math.sqrt(3) * r) * math.exp(-math.sqrt(3) * r)
    return (1 + math.sqrt(5) * r + 5 * r * r / 3) * math.exp(-math.sqrt(5) * r)


def squared_exponential(x, x2, lengthscale):
    total = sum(((a - b) / l) ** 2 for a, b, l in zip(x, x2, lengthscale))  # noqa: B905
    return math.exp(-total / 2)


def periodic(x, x2, period, lengthscale):
    turn = math.sin(math.pi * (x[0] - x2[0]) / period)
    return math.exp(-2 * turn**2 / lengthscale**2)


def linear(x, x2, middle, half):
    return (x[0] - middle) / half * (x2[0] - middle) / half


def drift(x, x2, middle, half):
    """Three times the covariance of ∫∫ dW, by the integral of the product of its ramps."""
    t, t2 = (x[0] - middle) / half, (x2[0] - middle) / half
    if t * t2 <= 0:
        return 0.0
    short, long = sorted((abs(t), abs(t2)))
    s, step = np.linspace(0, short, 20_001, retstep=True)
    product = (short - s) * (long - s)
    return 3 * step * (product.sum() - (product[0] + product[-1]) / 2)


def waves(x, x2, sd, frequency, lengthscale):
    d = x[0] - x2[0]
    return sum(
        s * s * math.exp(-((d / l) ** 2) / 2) * math.cos(2 * math.pi * f * d)
        for s, f, l in zip(sd, frequency, lengthscale, strict=True)
    )


def grid_of_waves(x, x2, sd, highest, lengthscale):
    every = [highest * i / (len(sd) - 1) for i in range(len(sd))]
    return waves(x, x2, sd, every, [lengthscale] * len(sd))


def matrix(kernel, x, x2):
    return np.array([[kernel(a, b) for b in x2] for a in x])


# What follows from a covariance.


def log_evidence(kernel, x, y, level, noise_sd):
    S = matrix(kernel, x, x) + noise_sd**2 * np.eye(len(x))
    left = y - level
    whole = left @ np.linalg.inv(S) @ left + np.linalg.slogdet(S)[1]
    return -0.5 * (whole + len(x) * math.log(2 * math.pi))


def conditional(kernel, x, y, level, noise_sd, new):
    """Mean and covariance of the function at new places."""
    inverse = np.linalg.inv(matrix(kernel, x, x) + noise_sd**2 * np.eye(len(x)))
    across = matrix(kernel, new, x)
    mean = level + across @ inverse @ (y - level)
    return mean, matrix(kernel, new, new) - across @ inverse @ across.T
