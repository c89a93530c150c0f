r"""Surfaces over continuous coordinates from scattered entries: functional Tucker and CP.

$$y_n = f(i_n) + ε_n, \qquad f(i) = l + \sum_k g_k(i_k) + I(u_1(i_1), …, u_K(i_K)),$$

with a level, a main effect per mode, and an interaction of a few functions per mode. All
functions are Gaussian processes.

Source: Fang, Yu, Wang, Li, Kirby & Zhe (2024), "Functional Bayesian Tucker decomposition
for continuous-indexed tensor data", arXiv 2311.04829.
"""

from probkit.models.tucker.axes import Axis
from probkit.models.tucker.chebyshev import Chebyshev, chebyshev
from probkit.models.tucker.entries import Entries, Units
from probkit.models.tucker.messages import MessagePassing
from probkit.models.tucker.model import CP, Tucker
from probkit.models.tucker.modes import Exchangeable, Seasonal, Smooth, Space
from probkit.models.tucker.observations import (
    Bernoulli,
    Noise,
    Normal,
    Poisson,
    StudentT,
)
from probkit.models.tucker.posterior import Factor, Gaussian, Posterior
from probkit.models.tucker.queries import Queries, grid, queries
from probkit.models.tucker.starts import start_at
from probkit.models.tucker.stochastic import StochasticMessagePassing

__all__ = [
    "CP",
    "Axis",
    "Bernoulli",
    "Chebyshev",
    "Entries",
    "Exchangeable",
    "Factor",
    "Gaussian",
    "MessagePassing",
    "Noise",
    "Normal",
    "Poisson",
    "Posterior",
    "Queries",
    "Seasonal",
    "Smooth",
    "Space",
    "StochasticMessagePassing",
    "StudentT",
    "Tucker",
    "Units",
    "chebyshev",
    "grid",
    "queries",
    "start_at",
]
