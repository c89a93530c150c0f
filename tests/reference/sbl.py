"""Sparse Bayesian learning with the big matrices written out: slow, and plain to see."""

import functools

import numpy as np


def kron(matrices):
    return functools.reduce(np.kron, [np.asarray(m) for m in matrices])


def dense_posterior(y, dictionaries, variances, noise):
    """Everything from $Σ_y$ by definition, as a dict of arrays in flat C order."""
    A, γ = kron(dictionaries), kron(variances)
    y = np.asarray(y).ravel()
    Σ = noise * np.eye(len(y)) + (A * γ) @ A.conj().T
    P = np.linalg.inv(Σ)
    covariance = np.diag(γ) - (γ[:, None] * A.conj().T) @ P @ (A * γ)
    mean = γ * (A.conj().T @ P @ y)
    _, logdet = np.linalg.slogdet(Σ)
    square = (y.conj() @ P @ y).real
    if np.iscomplexobj(A):
        evidence = -(len(y) * np.log(np.pi) + logdet + square)
    else:
        evidence = -0.5 * (len(y) * np.log(2 * np.pi) + logdet + square)
    return {
        "log_evidence": evidence,
        "mean": mean,
        "covariance": covariance,
        "score": A.conj().T @ P @ y,
        "leverage": np.diag(A.conj().T @ P @ A).real,
        "residual": np.linalg.norm(y - A @ mean) ** 2,
        "precision_trace": np.trace(P).real,
        "num_explained": np.trace(A @ covariance @ A.conj().T).real / noise,
    }
