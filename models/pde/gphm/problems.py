r"""Problems with known solutions: several scales, and high frequencies.

Each function returns a `Problem` and its solution, which is a function of coordinates as
`Problem.coordinates` has them. Sources are written out. `num` is the number of grid points
per axis; fewer than 8 raise a `ValueError`, and so does float32.

| name | equation | solution | domain | points |
|---|---|---|---|---|
| `u1` | $u'' = f$ | $\sin 100x$ | $[0, 2π]$ | 400 |
| `u2` | $u'' = f$ | $\sin x + 0.1 \sin 20x + 0.05 \sin 100x$ | $[0, 2π]$ | 900 |
| `u3` | $u'' = f$ | $\sin 6x \cos 100x$ | $[0, 2π]$ | 400 |
| `u4` | $u'' = f$ | $x \sin 200x$ | $[0, 2π]$ | 900 |
| `u5` | $u'' = f$ | $\sin 500x - 2(x - ½)^2$ | $[0, 1]$ | 400 |
| `u6` | $u_{xx} + u_{yy} = f$ | $\sin 100x \sin 100y$ | $[0, 2π]^2$ | 400 |
| `u7` | $u_{xx} + u_{yy} = f$ | $\sin 6x \cos 20x + \sin 6y \cos 20y$ | $[0, 2π]^2$ | 200 |
| `a1` | $u'' + u(u^2 - 1) = f$ | $\sin 100x$ | $[0, 2π]$ | 400 |
| `a2` | $u'' + u(u^2 - 1) = f$ | $\sin 6x \cos 100x$ | $[0, 2π]$ | 400 |
| `a3` | $u_{xx} + u_{yy} + u(u^2 - 1) = f$ | $q(x) q(y)$ | $[0, 1]^2$ | 200 |
| `v1` | $u_t + 200 u_x = 0$ | $\sin(x - 200t)$ | $[0, 2π] × [0, 1]$ | 200 |

with $q(x) = \sin x + 0.1 \sin 20x + \cos 100x$.

Source: Fang et al. (2024), "Solving high frequency and multi-scale PDEs with Gaussian
processes", arXiv 2311.04465: its Poisson, Allen-Cahn and advection problems.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from probkit.models.pde.conditions import Dirichlet, Initial
from probkit.models.pde.problem import Problem

Exact = Callable[[Any], Any]
TURN = (0.0, 2 * np.pi)
UNIT = (0.0, 1.0)


def u1(num: int = 400) -> tuple[Problem, Exact]:
    r"""One high frequency: $u'' = f$, $u = \sin 100x$ on $[0, 2π]$."""
    return _poisson(TURN, num, _one, lambda x: -1e4 * np.sin(100 * x))


def u2(num: int = 900) -> tuple[Problem, Exact]:
    r"""Three scales: $u'' = f$, $u = \sin x + 0.1 \sin 20x + 0.05 \sin 100x$."""

    def exact(x):
        return _sin(x) + 0.1 * _sin(20 * x) + 0.05 * _sin(100 * x)

    def source(x):
        return -np.sin(x) - 40 * np.sin(20 * x) - 500 * np.sin(100 * x)

    return _poisson(TURN, num, exact, source)


def u3(num: int = 400) -> tuple[Problem, Exact]:
    r"""Two close frequencies: $u'' = f$, $u = \sin 6x \cos 100x$ on $[0, 2π]$."""
    return _poisson(TURN, num, _close, _close_bend)


def u4(num: int = 900) -> tuple[Problem, Exact]:
    r"""An amplitude that grows: $u'' = f$, $u = x \sin 200x$ on $[0, 2π]$."""

    def source(x):
        return 400 * np.cos(200 * x) - 4e4 * x * np.sin(200 * x)

    return _poisson(TURN, num, lambda x: x * _sin(200 * x), source)


def u5(num: int = 400) -> tuple[Problem, Exact]:
    r"""A wave on a parabola: $u'' = f$, $u = \sin 500x - 2(x - ½)^2$ on $[0, 1]$."""

    def exact(x):
        return _sin(500 * x) - 2 * (x - 0.5) ** 2

    return _poisson(UNIT, num, exact, lambda x: -25e4 * np.sin(500 * x) - 4)


def u6(num: int = 400) -> tuple[Problem, Exact]:
    r"""A product: $u_{xx} + u_{yy} = f$, $u = \sin 100x \sin 100y$ on $[0, 2π]^2$."""

    def exact(p):
        return _sin(100 * p.x) * _sin(100 * p.y)

    def source(p):
        return -2e4 * np.sin(100 * p.x) * np.sin(100 * p.y)

    return _poisson2(num, exact, source)


def u7(num: int = 200) -> tuple[Problem, Exact]:
    r"""A sum: $u_{xx} + u_{yy} = f$, $u = \sin 6x \cos 20x + \sin 6y \cos 20y$."""

    def wave(x):
        return _sin(6 * x) * _cos(20 * x)

    def bend(x):
        # sin 6x cos 20x = (sin 26x - sin 14x) / 2
        return (14**2 * np.sin(14 * x) - 26**2 * np.sin(26 * x)) / 2

    return _poisson2(num, lambda p: wave(p.x) + wave(p.y), lambda p: bend(p.x) + bend(p.y))


def a1(num: int = 400) -> tuple[Problem, Exact]:
    r"""Allen-Cahn: $u'' + u(u^2 - 1) = f$, $u = \sin 100x$ on $[0, 2π]$."""

    def source(x):
        u = _one(x)
        return -1e4 * u + u * (u**2 - 1)

    return _allen_cahn(num, _one, source)


def a2(num: int = 400) -> tuple[Problem, Exact]:
    r"""Allen-Cahn: $u'' + u(u^2 - 1) = f$, $u = \sin 6x \cos 100x$ on $[0, 2π]$."""

    def source(x):
        u = _close(x)
        return _close_bend(x) + u * (u**2 - 1)

    return _allen_cahn(num, _close, source)


def a3(num: int = 200) -> tuple[Problem, Exact]:
    r"""Allen-Cahn: $u_{xx} + u_{yy} + u(u^2 - 1) = f$, $u = q(x) q(y)$ on $[0, 1]^2$.

    With $q(x) = \sin x + 0.1 \sin 20x + \cos 100x$.
    """

    def q(x):
        return _sin(x) + 0.1 * _sin(20 * x) + _cos(100 * x)

    def bend(x):
        return -np.sin(x) - 40 * np.sin(20 * x) - 1e4 * np.cos(100 * x)

    def exact(p):
        return q(p.x) * q(p.y)

    def residual(u, p):
        v = exact(p)
        source = bend(p.x) * q(p.y) + q(p.x) * bend(p.y) + v * (v**2 - 1)
        return u.dxx + u.dyy + u * (u**2 - 1) - source

    box = {"x": UNIT, "y": UNIT}
    return Problem(box, residual, Dirichlet(exact), shape=num), exact


def v1(num: int = 200, all_edges: bool = False) -> tuple[Problem, Exact]:
    r"""Advection: $u_t + 200 u_x = 0$, $u = \sin(x - 200t)$, $x ≤ 2π$, $t ≤ 1$.

    u is given at the start and where the wave comes in, so that the problem is well posed.

    Args:
        num: the number of grid points per axis.
        all_edges: whether u is given where the wave goes out and at the end as well.

    Returns:
        The problem, and its solution as a function of coordinates.

    Raises:
        ValueError: for fewer than 8 points, and in float32.

    Departs: the authors' code gives u on all edges.
    """

    def exact(p):
        return _sin(p.x - 200 * p.t)

    edges = Dirichlet(exact) if all_edges else [Initial(exact), Dirichlet(exact, on="x-")]
    box = {"x": TURN, "t": UNIT}
    return Problem(box, lambda u, p: u.dt + 200 * u.dx, edges, shape=num), exact


# Parts of them.


def _poisson(ends, num, exact, source) -> tuple[Problem, Exact]:
    edges = Dirichlet(exact)
    problem = Problem({"x": ends}, lambda u, x: u.dxx - source(x), edges, shape=num)
    return problem, exact


def _poisson2(num, exact, source) -> tuple[Problem, Exact]:
    box, edges = {"x": TURN, "y": TURN}, Dirichlet(exact)
    problem = Problem(box, lambda u, p: u.dxx + u.dyy - source(p), edges, shape=num)
    return problem, exact


def _allen_cahn(num, exact, source) -> tuple[Problem, Exact]:
    def residual(u, x):
        return u.dxx + u * (u**2 - 1) - source(x)

    return Problem({"x": TURN}, residual, Dirichlet(exact), shape=num), exact


def _one(x):
    return _sin(100 * x)


def _close(x):
    return _sin(6 * x) * _cos(100 * x)


def _close_bend(x):
    # sin 6x cos 100x = (sin 106x - sin 94x) / 2
    return (94**2 * np.sin(94 * x) - 106**2 * np.sin(106 * x)) / 2


def _sin(x):
    # NumPy's own for its arrays, because JAX would compile a program per shape.
    return jnp.sin(x) if isinstance(x, jax.Array) else np.sin(x)


def _cos(x):
    return jnp.cos(x) if isinstance(x, jax.Array) else np.cos(x)
