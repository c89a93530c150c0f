"""The kernel of each axis as sites.

They are `weight_<axis>`, `frequency_<axis>` and `lengthscale_<axis>`, vectors with one
entry per component of the spectral mixture.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from probkit.gp import SpectralMixture
from probkit.gp.mixture import Envelope
from probkit.model.density import Sites

PARTS = ("weight", "frequency", "lengthscale")


def mixtures(
    sites: Sites, axes: Sequence[str], envelope: Envelope
) -> tuple[SpectralMixture, ...]:
    """The kernel of each axis, from one draw of the sites."""
    return tuple(
        SpectralMixture(
            sites[f"weight_{axis}"],
            sites[f"frequency_{axis}"],
            sites[f"lengthscale_{axis}"],
            envelope,
        )
        for axis in axes
    )


def dims(axes: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Names of the axes of these sites."""
    return {f"{part}_{axis}": (f"component_{axis}",) for axis in axes for part in PARTS}


def coords(counts: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Labels along the axes that `dims` names, for so many components of each axis."""
    return {f"component_{axis}": np.arange(count) for axis, count in counts.items()}
