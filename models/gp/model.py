"""The model: a Gaussian process observed with noise."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float
from numpyro.distributions.transforms import AffineTransform

from probkit.distributions import DenseNormal, InUnits, log_normal
from probkit.model import AbstractModel
from probkit.model.density import Sites
from probkit.models.gp.checks import checks
from probkit.models.gp.kernels import (
    SD,
    SD_SPREAD,
    AbstractKernel,
    Priors,
    SpectralMixture,
    Structure,
    columns_of,
    title,
)
from probkit.models.gp.observed import Observed
from probkit.validate import as_array, short

# The prior of the noise: median, in sds of y, and sd of the logarithm.
NOISE, NOISE_SPREAD = 0.1, 1.5
# More observations than this need more than 24 GiB, or hours.
MOST_OBSERVATIONS = 10_000


def _kernel(value: Any) -> AbstractKernel:
    if not isinstance(value, AbstractKernel):
        raise ValueError(
            f"`Regression(kernel={short(value)})`: it takes a kernel, such as "
            "`gp.Matern()` or `gp.SpectralMixture(4) + gp.Linear()`."
        )
    Structure.of(value)  # refuses names that are there twice
    return value


class Inputs(eqx.Module):
    """Where to predict.

    Attributes:
        x: places, in units of the data.
        data: the data of the fit.
    """

    x: Float[Array, "m d"]
    data: Observed


class Regression(AbstractModel):
    r"""$y_i = m + f(x_i) + ε_i$ with $f \sim GP(0, k)$ and $ε_i \sim N(0, σ^2)$.

    The function is integrated out exactly, $y \sim N(m,\, K + σ^2 I)$, by a Cholesky
    decomposition of the $n × n$ matrix.

    Sites: `level` $m$ and `noise_sd` $σ$ (no site if the data have it), in units of the
    output; `sd_<term>`, the prior sd of each term of the kernel, in the same units; and
    those of the simple kernels, which their classes list.

    Priors are set for standardised data: $m$ is normal about the mean of the data, with
    their sd; sds are log-normal with median 0.5 (noise: 0.1) sds of the data and sd 1.5
    of the logarithm. If you rescale the data, the fit is the same up to that rescaling.

    Args:
        kernel: $k$: one of `Matern`, `SquaredExponential`, `Periodic`, `Linear` and
            `SpectralMixture`, or sums and products of them.

    Raises:
        ValueError: for what is no kernel, or kernels of one name. In `pk.fit`, for other
            data than `gp.Observed`, for an input that they lack, and for more than
            10,000 observations.

    Source: Rasmussen & Williams (2006), algorithm 2.1.
    """

    kernel: AbstractKernel = eqx.field(converter=_kernel)

    # The program.

    def __call__(self, data: Observed) -> None:
        priors = self.priors(data)
        sites = {name: numpyro.sample(name, prior) for name, prior in priors.items()}
        numpyro.sample("y", self.evidence(sites, data), obs=data.y)

    def priors(self, data: Observed) -> Priors:
        """The prior of each site, `{site: distribution}`, in the units of the data."""
        self._refuse(data)
        unit, structure = data.units, self.structure()
        level = [AffineTransform(unit.y_mean, unit.y_sd)]
        priors: Priors = {
            "level": InUnits(dist.Normal(jnp.zeros_like(unit.y_mean), 1.0), level)
        }
        for term in structure.terms:
            if not structure.has_own_sd(term):
                priors[f"sd_{title(term)}"] = log_normal(SD * unit.y_sd, SD_SPREAD)
        for name, leaf in structure.leaves.items():
            for parameter, prior in leaf.priors(columns_of(leaf, data)).items():
                priors[f"{parameter}_{name}"] = prior
        if data.noise_sd is None:
            priors["noise_sd"] = log_normal(NOISE * unit.y_sd, NOISE_SPREAD)
        return priors

    def structure(self) -> Structure:
        """The kernel as a sum of products."""
        return Structure.of(self.kernel)

    def evidence(self, sites: Sites, data: Observed) -> DenseNormal:
        """$p(y)$ given one draw of the sites, with the function integrated out."""
        K = self.structure().covariance(sites, data).sum(0)
        level = jnp.broadcast_to(sites["level"], data.y.shape)
        noise = self.noise_sd(sites, data) ** 2
        return DenseNormal(level, K + noise * jnp.eye(len(data), dtype=K.dtype))

    def noise_sd(self, sites: Sites, data: Observed) -> Float[Array, ""]:
        """$σ$, estimated or known, in units of the output."""
        return sites["noise_sd"] if data.noise_sd is None else data.noise_sd

    def _refuse(self, data: Any) -> None:
        if not isinstance(data, Observed):
            raise ValueError(
                f"`Regression` takes `gp.Observed`, not `{type(data).__name__}`."
            )
        if len(data) > MOST_OBSERVATIONS:
            raise ValueError(
                f"`Regression` got {len(data):,} observations; it factors their covariance "
                f"matrix, and takes at most {MOST_OBSERVATIONS:,}: fit a part of them."
            )

    # The function.

    def inputs(self, given: Any, data: Observed) -> Inputs:
        if isinstance(given, Observed):
            given = given.x
        x = as_array(given, "predict(..., inputs)").astype(data.x.dtype)
        columns, shape = data.x.shape[1], x.shape
        if x.ndim == 1 and columns == 1:
            x = x[:, None]
        if x.ndim != 2 or x.shape[1] != columns or not len(x):
            raise ValueError(
                f"`predict(..., inputs)` has shape {shape}; the fit has the inputs "
                f"{', '.join(data.inputs)}, so it takes (m, {columns})"
                + (" or (m,)." if columns == 1 else ".")
            )
        return Inputs(x, data)

    def predict(self, sites, inputs, key):
        """At new places: `y`, one joint draw with noise; `mean` and `sd` without noise.

        The mean and sd of the function are exact given the sites. They need no draw.
        """
        data, x, structure = inputs.data, inputs.x, self.structure()
        known = self.evidence(sites, data)
        root = jnp.linalg.cholesky(known.covariance)
        across = structure.covariance(sites, data, data.x, x).sum(0)
        white = solve_triangular(root, across, lower=True)
        left = solve_triangular(root, data.y - known.loc, lower=True)
        mean = sites["level"] + white.T @ left
        C = structure.covariance(sites, data, x, x).sum(0) - white.T @ white
        noise = self.noise_sd(sites, data) ** 2
        new = DenseNormal(mean, C + noise * jnp.eye(len(x), dtype=C.dtype))
        variance = jnp.maximum(jnp.diagonal(C), 0.0)
        return {"y": new.sample(key), "mean": mean, "sd": jnp.sqrt(variance)}

    def recover(self, sites, data, key):
        """Each term of the function at the data: its exact mean and sd given the sites."""
        terms = self.structure().covariance(sites, data)
        known = self.evidence(sites, data)
        root = jnp.linalg.cholesky(known.covariance)
        left = solve_triangular(root, data.y - known.loc, lower=True)
        white = jax.vmap(lambda K: solve_triangular(root, K, lower=True))(terms)
        prior = jnp.diagonal(terms, axis1=1, axis2=2)
        variance = jnp.maximum(prior - jnp.sum(white**2, 1), 0.0)
        return {
            "term_mean": jnp.einsum("tij,i->tj", white, left),
            "term_sd": jnp.sqrt(variance),
        }

    def pointwise(self, sites, data):
        r"""$\log p(y_i \mid y_{-i})$ of each observation given all the others."""
        return {"y": self.evidence(sites, data).leave_one_out(data.y)}

    def canonical(self, sites, data, reference=None):
        """Frequencies without their signs, which the kernel does not have."""
        return {
            k: jnp.abs(v) if k.startswith("frequency_") else v for k, v in sites.items()
        }

    # Names of axes, and checks.

    def dims(self, data):
        structure = self.structure()
        dims: dict[str, tuple[str, ...]] = dict.fromkeys(self.priors(data), ())
        for name, leaf in structure.leaves.items():
            for parameter, axes in leaf.axes().items():
                of_one = len(columns_of(leaf, data).columns) == 1
                if axes == ("input",):
                    dims[f"{parameter}_{name}"] = () if of_one else axes
                else:
                    dims[f"{parameter}_{name}"] = tuple(f"{a}_{name}" for a in axes)
        by_row = dict.fromkeys(("y", "mean", "sd"), ("observation",))
        by_term = dict.fromkeys(("term_mean", "term_sd"), ("term", "observation"))
        return dims | by_row | by_term | {"x": ("observation", "input"), "noise_sd": ()}

    def coords(self, data):
        structure = self.structure()
        coords: dict[str, Any] = {
            "observation": np.arange(len(data)),
            "input": list(data.inputs),
            "term": [title(term) for term in structure.terms],
        }
        for name, leaf in structure.leaves.items():
            if isinstance(leaf, SpectralMixture):
                size = leaf.size(columns_of(leaf, data))
                coords[f"component_{name}"] = np.arange(size)
        return coords

    def checks(self, sites, data):
        return checks(self, sites, data)
