r"""Many small related data sets: what they share, and what a new one is like.

$$θ_i \sim N(μ, Σ), \qquad D_i \sim p(D_i \mid θ_i), \qquad (μ, Σ) \sim NIW.$$

Source: Kim & Hospedales (2024), "A hierarchical Bayesian model for few-shot meta learning",
International Conference on Learning Representations.
"""

from probkit.models.meta.beliefs import Diagonal, Full, Within
from probkit.models.meta.classes import GaussianClasses
from probkit.models.meta.curvature import Fisher, GaussNewton, Langevin
from probkit.models.meta.episodes import Episodes, Units
from probkit.models.meta.episodic import Episodic
from probkit.models.meta.features import Components, principal_components
from probkit.models.meta.generators import Harmonics, LinearGaussian, SineLine
from probkit.models.meta.gibbs import Gibbs
from probkit.models.meta.glyphs import glyphs
from probkit.models.meta.linear import Linear
from probkit.models.meta.matrix_beliefs import Matrix, Side
from probkit.models.meta.network import Network
from probkit.models.meta.noise import Noise
from probkit.models.meta.novelty import novelty
from probkit.models.meta.outcomes import Categorical, Normal, Poisson
from probkit.models.meta.posterior import Posterior
from probkit.models.meta.queries import New, Queries
from probkit.models.meta.reliability import reliability
from probkit.models.meta.tasks import Shots, StoredTasks, Tasks

__all__ = [
    "Categorical",
    "Components",
    "Diagonal",
    "Episodes",
    "Episodic",
    "Fisher",
    "Full",
    "GaussNewton",
    "GaussianClasses",
    "Gibbs",
    "Harmonics",
    "Langevin",
    "Linear",
    "LinearGaussian",
    "Matrix",
    "Network",
    "New",
    "Noise",
    "Normal",
    "Poisson",
    "Posterior",
    "Queries",
    "Shots",
    "Side",
    "SineLine",
    "StoredTasks",
    "Tasks",
    "Units",
    "Within",
    "glyphs",
    "novelty",
    "principal_components",
    "reliability",
]
