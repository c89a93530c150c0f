r"""Sparse Bayesian learning with Kronecker-structured dictionaries.

$$y = (A_1 ⊗ … ⊗ A_P)\, x + n, \qquad x_i \sim N(0, γ_i), \quad γ = γ_1 ⊗ … ⊗ γ_P.$$

Few atoms of each mode carry signal. Maximising the evidence, or sampling, finds which.
The posterior of the coefficients is exact and costs P small eigenproblems. With two or
more modes, no matrix of all measurements by all coefficients is formed.

Source: He & Joseph (2024), "Bayesian algorithms for Kronecker-structured sparse vector
recovery with application to IRS-MIMO channel estimation", arXiv 2307.14719.
"""

from probkit.models.sbl.examples import irs
from probkit.models.sbl.kernels import KernelBasis
from probkit.models.sbl.kronecker import KroneckerSBL, blocks, neighbours, smooth
from probkit.models.sbl.logistic import Classes, LogisticSBL, LogisticTypeII
from probkit.models.sbl.measurements import Measurements, simulate
from probkit.models.sbl.metrics import (
    credible_support,
    nmse,
    support,
    support_recovery,
)
from probkit.models.sbl.posterior import Posterior
from probkit.models.sbl.sequential import Sequential
from probkit.models.sbl.type_ii import TypeII

__all__ = [
    "Classes",
    "KernelBasis",
    "KroneckerSBL",
    "LogisticSBL",
    "LogisticTypeII",
    "Measurements",
    "Posterior",
    "Sequential",
    "TypeII",
    "blocks",
    "credible_support",
    "irs",
    "neighbours",
    "nmse",
    "simulate",
    "smooth",
    "support",
    "support_recovery",
]
