"""The model: a Gaussian process observed with noise."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float

from probkit.distributions import (
    DenseNormal,
    FeatureNormal,
    PartialKroneckerNormal,
)
from probkit.method import Point
from probkit.model import AbstractModel
from probkit.model.density import Sites
from probkit.models.gp import by_waves, grid
from probkit.models.gp.checks import checks, checks_by_waves, checks_of_grid
from probkit.models.gp.grid import Grid
from probkit.models.gp.kernels import (
    NOISE,
    AbstractKernel,
    Priors,
    Structure,
    as_kernel,
    level_prior,
    scale_prior,
    title,
    unsigned,
)
from probkit.models.gp.observed import MOST_EXACT, Observed
from probkit.validate import as_array

Evidence = DenseNormal | FeatureNormal | PartialKroneckerNormal


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

    The function is integrated out exactly, $y \sim N(m,\, K + σ^2 I)$: for `gp.Observed`
    by a Cholesky decomposition of the $n × n$ matrix, or, with `num_waves`, by waves whose
    weights are integrated out; for `gp.Grid`, where $k$ is a product
    of kernels of one input each, by the eigenvalues of one matrix per axis, and one
    solution for each missing cell.

    Sites: `level` $m$ and `noise_sd` $σ$ (no site if the data have it), in units of the
    output; `sd_<term>`, the prior sd of each term of the kernel, in the same units; and
    those of the simple kernels, which their classes list.

    Priors are set for standardised data: $m$ is normal about the mean of the data, with
    their sd; sds are gamma of shape 2, with the highest density at 0.5 (noise: 0.25) sds
    of the data. If you rescale the data, the fit is the same up to that rescaling.

    Args:
        kernel: $k$: one of `Matern`, `SquaredExponential`, `Periodic`, `Linear`, `Drift`,
            `SpectralMixture` and `SpectralGrid`, or sums and products of them.

    Raises:
        ValueError: for what is no kernel, or kernels of one name. In `pk.fit`, for other
            data than `gp.Observed` and `gp.Grid`, for an input that they lack, for more
            than 10,000 observations of several inputs, for a sum of kernels on a grid, and,
            by waves, for kernels that are not stationary besides `Linear`.

    Source: Rasmussen & Williams (2006), algorithm 2.1.
    """

    kernel: AbstractKernel = eqx.field(converter=as_kernel("Regression"))

    # The program.

    def __call__(self, data: Observed | Grid) -> None:
        priors = self.priors(data)
        sites = {name: numpyro.sample(name, prior) for name, prior in priors.items()}
        numpyro.sample("y", self.evidence(sites, data), obs=data.y)

    def priors(self, data: Observed | Grid) -> Priors:
        """The prior of each site, `{site: distribution}`, in the units of the data."""
        self._refuse(data)
        priors = {"level": level_prior(data.units)} | self.structure().priors(data)
        if data.noise_sd is None:
            priors["noise_sd"] = scale_prior(NOISE * data.units.y_sd)
        return priors

    def structure(self) -> Structure:
        """The kernel as a sum of products."""
        return Structure.of(self.kernel)

    def evidence(self, sites: Sites, data: Observed | Grid) -> Evidence:
        """$p(y)$ given one draw of the sites, with the function integrated out."""
        if isinstance(data, Grid):
            return grid.evidence(self.structure(), sites, data, self.noise_sd(sites, data))
        if data.ring is not None:
            return by_waves.evidence(
                self.structure(), sites, data, self.noise_sd(sites, data)
            )
        K = self.structure().covariance(sites, data).sum(0)
        level = jnp.broadcast_to(sites["level"], data.y.shape)
        noise = self.noise_sd(sites, data) ** 2
        return DenseNormal(level, K + noise * jnp.eye(len(data), dtype=K.dtype))

    def noise_sd(self, sites: Sites, data: Observed | Grid) -> Float[Array, ""]:
        """$σ$, estimated or known, in units of the output."""
        return sites["noise_sd"] if data.noise_sd is None else data.noise_sd

    def _refuse(self, data: Any) -> None:
        if not isinstance(data, Observed | Grid):
            raise ValueError(
                f"`Regression` takes `gp.Observed` or `gp.Grid`, not "
                f"`{type(data).__name__}`."
            )
        if isinstance(data, Observed) and data.ring is not None:
            by_waves.refuse_no_waves(self.structure(), len(data))
        elif isinstance(data, Observed) and len(data) > MOST_EXACT:
            raise ValueError(
                f"`Regression` got {len(data):,} observations of several inputs; it "
                f"factors their covariance matrix, and takes at most {MOST_EXACT:,}: fit a "
                "part of them."
            )

    # The function.

    def inputs(self, given: Any, data: Observed | Grid) -> Any:
        if isinstance(data, Grid):
            return grid.grid_inputs(given, data)
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
        if data.ring is not None:
            by_waves.refuse_too_far(x[:, 0], data)
        return Inputs(x, data)

    def predict(self, sites, inputs, key):
        """At new places: `y`, one joint draw with noise; `mean` and `sd` without noise.

        The mean and sd of the function are exact given the sites. They need no draw.
        """
        if isinstance(inputs.data, Grid):
            noise = self.noise_sd(sites, inputs.data)
            return grid.predict(self.structure(), sites, inputs, noise, key)
        data, x, structure = inputs.data, inputs.x, self.structure()
        if data.ring is not None:
            noise = self.noise_sd(sites, data)
            return by_waves.predict(structure, sites, data, x, noise, key)
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

    def moments(self, approximation, inputs, data):
        """At a `Point`, such as a fit by MAP: what `predict` has, without its `y`."""
        if not isinstance(approximation, Point):
            return None
        found = self.predict(approximation.sites, inputs, jax.random.key(0))
        return {name: found[name] for name in ("mean", "sd")}

    def recover(self, sites, data, key):
        """Each term of the function at the data: its exact mean and sd given the sites.

        Nothing for a `Grid`, whose function has one term: `pk.predict(fit, fit.data)`. The
        mean only by waves.
        """
        if isinstance(data, Grid):
            return {}
        if data.ring is not None:
            return by_waves.terms(self.structure(), sites, data, self.noise_sd(sites, data))
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
        return unsigned(sites)

    # Names of axes, and checks.

    def dims(self, data):
        dims: dict[str, tuple[str, ...]] = dict.fromkeys(self.priors(data), ())
        dims |= self.structure().dims(data) | {"noise_sd": ()}
        if isinstance(data, Grid):
            of_axes = {f"axis_{name}": (name,) for name in data.inputs}
            return dims | dict.fromkeys(("y", "mean", "sd"), data.inputs) | of_axes
        by_row = dict.fromkeys(("y", "mean", "sd"), ("observation",))
        by_term = dict.fromkeys(("term_mean", "term_sd"), ("term", "observation"))
        return dims | by_row | by_term | {"x": ("observation", "input")}

    def coords(self, data):
        structure = self.structure()
        coords: dict[str, Any] = {"input": list(data.inputs)}
        if isinstance(data, Grid):
            pairs = zip(data.inputs, data.axes, strict=True)
            coords |= {name: np.asarray(axis) for name, axis in pairs}
        else:
            coords["observation"] = np.arange(len(data))
            coords["term"] = [title(term) for term in structure.terms]
        return coords | structure.coords(data)

    def checks(self, sites, data):
        if isinstance(data, Grid):
            return checks_of_grid(self, sites, data)
        of_data = checks if data.ring is None else checks_by_waves
        return of_data(self, sites, data)
