r"""A spectral mixture as a finite sum of waves: quadrature of its spectrum.

A stationary kernel is the Fourier transform of its spectral density. A bump of the
mixture is the distribution of $2πμ + t/ℓ$ with $t$ standard normal (Gaussian envelope) or
Student-t with five degrees of freedom (Matérn-5/2), so that with nodes $t_h$ and weights
$v_h$ of a quadrature for $t$

$$k(d) = \sum_{q,h} w_q v_h \cos(s_{qh} d), \qquad s_{qh} = 2πμ_q + t_h / ℓ_q,$$

and $u(x) = \sum_{qh} \sqrt{w_q v_h}\,(a_{qh} \cos s_{qh} x + b_{qh} \sin s_{qh} x)$ with
standard normal $a$, $b$. A derivative of $u$ multiplies each wave by its frequency: no
kernel matrix, no solution with one, and no jitter.
"""

import functools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from probkit.gp.mixture import SpectralMixture


@functools.lru_cache
def nodes(envelope: str, num: int) -> tuple[np.ndarray, np.ndarray]:
    r"""Nodes $t_h$ and weights $v_h$ of a quadrature for one standard bump.

    Gauss-Hermite for the Gaussian. For Student-t, $t = \sqrt 5\, y / \sqrt{1 - y^2}$ turns
    its density into $(1 - y^2)^{3/2}$, which has Gauss-Gegenbauer nodes; in $t$ itself few
    moments exist.

    Args:
        envelope: "gaussian" or "student_t".
        num: number of nodes.

    Returns:
        Nodes and weights, each of shape `(num,)`; the weights sum to one.
    """
    from scipy.special import roots_gegenbauer, roots_hermitenorm

    if envelope == "gaussian":
        t, v = roots_hermitenorm(num)
    else:
        y, v = roots_gegenbauer(num, 2.0)
        t = np.sqrt(5.0) * y / np.sqrt(1 - y**2)
    return t, v / v.sum()


def features(
    mixture: SpectralMixture, x: Float[Array, " n"], order: int, num_nodes: int
) -> Float[Array, "n p"]:
    r"""The waves of a mixture, or a derivative of them, weighted by their amplitudes.

    Args:
        mixture: the kernel, $Q$ components.
        x: points, shape `(n,)`, in units of the lengthscales.
        order: of the derivative, 0 or more.
        num_nodes: $H$, the number of waves per bump. The kernel is accurate up to lags of
            about $\sqrt{H}$ lengthscales (Gaussian).

    Returns:
        $Φ$, shape `(n, 2 Q H)`, in units of the output, so that
        $Φ(x) Φ(x')^T ≈ k(x - x')$; with `order` the derivative of that order of each
        column, in units of the output per unit of the input to that power.
    """
    t, v = nodes(mixture.envelope, num_nodes)
    s = 2 * jnp.pi * mixture.frequency[:, None] + t / mixture.lengthscale[:, None]
    amplitude = jnp.sqrt(mixture.weight[:, None] * v)
    s, amplitude = s.ravel(), amplitude.ravel()
    cosine, sine = jnp.cos(x[:, None] * s), jnp.sin(x[:, None] * s)
    # The derivative of a wave is the wave a quarter turn on.
    for _ in range(order % 4):
        cosine, sine = -sine, cosine
    return jnp.concatenate([cosine, sine], 1) * jnp.tile(amplitude * s**order, 2)
