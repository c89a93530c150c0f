"""The same kernels for GPJax, which is imported on the first call."""

import functools
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from probkit.gp.mixture import SpectralMixture, is_known


def as_gpjax(mixture: SpectralMixture, active_dims: Sequence[int] | None = None) -> Any:
    r"""The mixture as a trainable GPJax kernel.

    Weights and lengthscales are kept positive, frequencies are free. The product
    `as_gpjax(first, [0]) * as_gpjax(second, [1])` is a kernel over two dimensions.

    Args:
        mixture: the kernel.
        active_dims: the one column of the inputs that the kernel uses; may be left out if
            there is only one.

    Returns:
        A `gpjax.kernels.AbstractKernel`, with `weight`, `frequency` and `lengthscale` as
        GPJax parameters and a method `mixture()` for the way back.

    Raises:
        ValueError: for more than one column, and for a weight of zero, because GPJax keeps
            weights as positive parameters.
    """
    if active_dims is not None and len(active_dims) != 1:
        raise ValueError(
            f"`as_gpjax(active_dims={active_dims!r})`: a mixture is over one dimension; "
            "multiply kernels of one column each."
        )
    if is_known(mixture.weight) and (np.asarray(mixture.weight) == 0).any():
        raise ValueError(
            "`as_gpjax(mixture)` has a weight of zero, and GPJax's positive parameters "
            "cannot be zero; leave that component out."
        )
    return _kernel_class()(mixture, active_dims)


@functools.cache
def _kernel_class():
    # One class for all calls, so that kernels of the same structure compile once.
    from gpjax.kernels import AbstractKernel
    from gpjax.parameters import PositiveReal, Real, val

    class SpectralMixtureKernel(AbstractKernel):
        """A `probkit.gp.SpectralMixture` of one column of the inputs."""

        weight: PositiveReal
        frequency: Real
        lengthscale: PositiveReal
        envelope: str = eqx.field(static=True)

        def __init__(self, mixture, active_dims=None):
            self.weight = PositiveReal(mixture.weight)
            self.frequency = Real(mixture.frequency)
            self.lengthscale = PositiveReal(mixture.lengthscale)
            self.envelope = mixture.envelope
            dims = None if active_dims is None else [int(i) for i in active_dims]
            super().__init__(active_dims=dims, n_dims=1)

        def mixture(self) -> SpectralMixture:
            parameters = val(self.weight), val(self.frequency), val(self.lengthscale)
            return SpectralMixture(*parameters, self.envelope)

        def __call__(self, x, y):
            lag = self.slice_input(x) - self.slice_input(y)
            if lag.shape != (1,):
                raise ValueError(
                    f"A spectral mixture is over one dimension, and the inputs have "
                    f"{lag.shape[0]} columns: choose one by `as_gpjax(mixture, [0])`."
                )
            return self.mixture()(jnp.squeeze(lag))

    return SpectralMixtureKernel
