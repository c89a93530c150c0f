"""Priors with values in the units of the data, and standardised coordinates.

A sampler works in unconstrained coordinates, and works best if these have sds near one. A
user wants slopes in the units of the data. `InUnits` gives both: the *value* of the site
is in the units of the data, and its *unconstrained coordinate* is standardised. A fit is
then the same for times in seconds and in years, up to the rescaling.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from numpyro.distributions import (
    Distribution,
    Normal,
    TransformedDistribution,
    constraints,
)
from numpyro.distributions.transforms import (
    AffineTransform,
    ComposeTransform,
    ExpTransform,
    Transform,
    biject_to,
)


class Congruence(Transform):
    r"""$Σ \mapsto A Σ A^T$ of positive definite matrices.

    Args:
        matrix: $A$, `(d, d)`, with an inverse.
    """

    domain = constraints.positive_definite
    codomain = constraints.positive_definite

    def __init__(self, matrix):
        self.matrix = matrix

    def __call__(self, x: Float[Array, "*b d d"]) -> Float[Array, "*b d d"]:
        return self.matrix @ x @ self.matrix.T

    def _inverse(self, y: Float[Array, "*b d d"]) -> Float[Array, "*b d d"]:
        back = jnp.linalg.inv(self.matrix)
        return back @ y @ back.T

    def log_abs_det_jacobian(self, x, y, intermediates=None):
        d = len(self.matrix)
        one = (d + 1) * jnp.linalg.slogdet(self.matrix)[1]
        return jnp.broadcast_to(one, x.shape[:-2])

    def tree_flatten(self):
        return (self.matrix,), (("matrix",), {})

    def eq(self, other, static=False):
        return isinstance(other, Congruence) and jnp.array_equal(self.matrix, other.matrix)


class RootAffine(Transform):
    r"""$z \mapsto m + L z$, with a lower triangle $L$ for each vector.

    Args:
        loc: $m$, `(..., d)`.
        root: $L$, `(..., d, d)`, with a positive diagonal.
    """

    domain = constraints.real_vector
    codomain = constraints.real_vector

    def __init__(self, loc, root):
        self.loc, self.root = loc, root

    def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        return self.loc + (self.root @ x[..., None])[..., 0]

    def _inverse(self, y: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        away = (y - self.loc)[..., None]
        root = jnp.broadcast_to(self.root, (*away.shape[:-2], *self.root.shape[-2:]))
        solved = jax.lax.linalg.triangular_solve(root, away, left_side=True, lower=True)
        return solved[..., 0]

    def log_abs_det_jacobian(self, x, y, intermediates=None):
        diagonal = jnp.diagonal(self.root, axis1=-2, axis2=-1)
        return jnp.broadcast_to(jnp.log(diagonal).sum(-1), x.shape[:-1])

    def tree_flatten(self):
        return (self.loc, self.root), (("loc", "root"), {})

    def eq(self, other, static=False):
        return isinstance(other, RootAffine) and all(
            jnp.array_equal(getattr(self, name), getattr(other, name))
            for name in ("loc", "root")
        )


class _Image(constraints.Constraint):
    """The image of a base support under transforms. It keeps both."""

    def __init__(self, base, transforms, event_dim):
        self.base, self.transforms, self._event_dim = base, transforms, event_dim
        super().__init__()

    @property
    def event_dim(self):
        return self._event_dim

    def __call__(self, x):
        return self.base(ComposeTransform(self.transforms).inv(x))

    def feasible_like(self, prototype):
        path = ComposeTransform(self.transforms)
        shape = path.inverse_shape(jnp.shape(prototype))
        return path(self.base.feasible_like(jnp.zeros(shape, prototype.dtype)))

    def tree_flatten(self):
        return (self.base, self.transforms), (
            ("base", "transforms"),
            {"_event_dim": self._event_dim},
        )


@biject_to.register(_Image)
def _(constraint):
    return ComposeTransform([biject_to(constraint.base), *constraint.transforms])


class InUnits(TransformedDistribution):
    """A `TransformedDistribution` with the unconstrained coordinates of its base.

    NumPyro derives the coordinates of NUTS, SVI and start values from the *support* alone.
    The support of a real vector does not depend on its scale, so that these coordinates
    would have the units of the data. Here the support keeps the transforms, so that the
    coordinates are those of the standardised prior.

    Args:
        base_distribution: the standardised prior.
        transforms: from standardised values to values in the units of the data, in order.
    """

    def __init__(
        self,
        base_distribution: Distribution,
        transforms: list[Transform],
        *,
        validate_args: bool | None = None,
    ):
        super().__init__(base_distribution, transforms, validate_args=validate_args)

    @property
    def support(self):
        return _Image(self.base_dist.support, self.transforms, self.event_dim)


def log_normal(center: Array, spread: float | Array) -> InUnits:
    """A log-normal prior whose coordinates are standard normal.

    Args:
        center: its median, an array of any shape, in units of the site.
        spread: sd of the logarithm, a number or an array of that shape.
    """
    base = Normal(jnp.zeros(center.shape, center.dtype), 1.0).to_event(center.ndim)
    return InUnits(base, [AffineTransform(jnp.log(center), spread), ExpTransform()])
