"""Structured operators on lineax, and functions that answer questions about them."""

from probkit.linalg import combined, plus_diagonal, shifted  # noqa: F401 (their rules)
from probkit.linalg.beside import Beside
from probkit.linalg.block_diagonal import BlockDiagonal
from probkit.linalg.gram_plus_noise import KroneckerGramPlusNoise
from probkit.linalg.jitter import with_jitter
from probkit.linalg.khatri_rao import KhatriRao
from probkit.linalg.kronecker import Kronecker, submatrix
from probkit.linalg.kronecker_sum import KroneckerSum
from probkit.linalg.least_squares import Regression, regress
from probkit.linalg.low_rank import PlusLowRank
from probkit.linalg.masked import MaskedKroneckerPlusNoise
from probkit.linalg.modes import abs2, mode_products
from probkit.linalg.plus_noise import KroneckerPlusNoise
from probkit.linalg.product import Product
from probkit.linalg.questions import (
    diagonal,
    eigh,
    inverse_quadratic_form,
    logdet,
    quadratic_form,
    sample,
    solve,
    sqrt,
    trace,
)
from probkit.linalg.scaled import ScaledKronecker
from probkit.linalg.solver import Structured
from probkit.linalg.spectral import outer
from probkit.linalg.stochastic import Estimate, stochastic_logdet
from probkit.linalg.structured import adjoint, dense, matmat
from probkit.linalg.toeplitz import Toeplitz
from probkit.linalg.two_kroneckers import SumOfTwoKroneckers

__all__ = [
    "Beside",
    "BlockDiagonal",
    "Estimate",
    "KhatriRao",
    "Kronecker",
    "KroneckerGramPlusNoise",
    "KroneckerPlusNoise",
    "KroneckerSum",
    "MaskedKroneckerPlusNoise",
    "PlusLowRank",
    "Product",
    "Regression",
    "ScaledKronecker",
    "Structured",
    "SumOfTwoKroneckers",
    "Toeplitz",
    "abs2",
    "adjoint",
    "dense",
    "diagonal",
    "eigh",
    "inverse_quadratic_form",
    "logdet",
    "matmat",
    "mode_products",
    "outer",
    "quadratic_form",
    "regress",
    "sample",
    "solve",
    "sqrt",
    "stochastic_logdet",
    "submatrix",
    "trace",
    "with_jitter",
]
