"""Whether `pde.Closed` is right, and whether it says so where it is not.

python benchmarks/pde_flags.py
python benchmarks/pde_flags.py --kinds layer kink break thin

Problems whose solution is known, in closed form or from an accurate solver of SciPy: easy
ones, hard ones, and ones that have many solutions. Each is solved with all settings as they
come. A solution is good if its relative error is at most 1e-3 and its 95 % band holds at
least 80 % of the points. It is flagged if there is no fit, if the fit is not `successful`,
or if a check of `pk.diagnose` fails. A solution that is not good and not flagged is the
worst: `silent`.
"""

import argparse
import functools
import json
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any, NamedTuple

import numpy as np
from timing import HERE, fresh_process, machine, table, timed, write

LARGEST_ERROR, LEAST_COVERAGE = 1e-3, 0.8
POINTS = {1: 400, 2: 1600, 3: 1000}
π = np.pi


class Trial(NamedTuple):
    """A problem, made only when its turn comes, and its solution.

    Attributes:
        kind: the group that it belongs to.
        problem: makes the problem.
        exact: u at points of shape (n, d), shape (n,); None where it has no one solution.
        equation_sd: of `SpectralGP`; 1e-3 where there are observations with noise.
        envelope: of `SpectralGP`.
    """

    kind: str
    problem: Callable[[], Any]
    exact: Callable[[np.ndarray], np.ndarray] | None
    equation_sd: float = 1e-9
    envelope: str = "gaussian"


def trials() -> dict[str, Trial]:
    """All problems, by their names."""
    every: dict[str, Trial] = {}
    first = (published, random_linear, layers, kinks, breaks, thin_layers)
    for part in (*first, corners, waves, stiff):
        every |= dict(part())
    return every | dict(many_solutions()) | dict(inverse()) | dict(others())


def one_axis(function: Callable) -> Callable:
    """A function of an array as one of points."""
    return lambda p: function(p[:, 0])


def published() -> Iterator:
    """The equations of GP-HM with both kernels."""
    from probkit.models import pde

    for name in ("u1", "u2", "u3", "u4", "u5", "u6", "u7", "a1", "a2", "a3", "v1"):
        for envelope in ("gaussian", "student_t"):
            make = getattr(pde.examples, name)

            def exact(points, make=make):
                problem, function = make()
                if len(problem.axes) == 1:
                    return np.asarray(function(points[:, 0]))
                kind = type(problem.coordinates([[0.0, 1.0]] * len(problem.axes)))
                return np.asarray(function(kind(*points.T)))

            # The files that hold the grids are large, so that each is made in its turn.
            yield (
                f"{name} {envelope}",
                Trial("published", lambda make=make: make()[0], exact, envelope=envelope),
            )


def random_linear(count: int = 30) -> Iterator:
    """Second-order equations with random coefficients, and solutions of random waves."""
    from probkit.models import pde

    for seed in range(count):
        random = np.random.default_rng(seed)
        amplitude = random.normal(size=3)
        rate = random.uniform(0.5, [4, 12, 30])
        phase = random.uniform(0, 2 * π, 3)
        slope = random.normal()
        low = random.uniform(-2, 2)
        high = low + random.uniform(1, 3)
        a, b, c = random.normal(size=3)
        kind = ("value", "slope", "initial")[seed % 3]

        def u(x, k=0, amplitude=amplitude, rate=rate, phase=phase, slope=slope):
            turned = rate * x[..., None] + phase + k * π / 2
            waves = (amplitude * rate**k * np.sin(turned)).sum(-1)
            return waves + slope * {0: x, 1: 1.0}.get(k, 0.0)

        def lead(x, a=a):
            return 2 + np.sin(x + a)

        def damp(x, b=b):
            return b * np.cos(x)

        def keep(x, c=c):
            return -abs(c) - c**2 * x**2

        def residual(v, x, u=u, lead=lead, damp=damp, keep=keep):
            source = lead(x) * u(x, 2) + damp(x) * u(x, 1) + keep(x) * u(x)
            return lead(x) * v.dxx + damp(x) * v.dx + keep(x) * v - source

        ends = np.array([low, high])
        given = {
            "value": [
                pde.Dirichlet(u(ends)[0], on="x-"),
                pde.Dirichlet(u(ends)[1], on="x+"),
            ],
            "slope": [
                pde.Neumann(u(ends, 1)[0], on="x-"),
                pde.Dirichlet(u(ends)[1], on="x+"),
            ],
            "initial": [
                pde.Initial(u(ends)[0], velocity=u(ends, 1)[0], axis="x"),
            ],
        }[kind]
        make = functools.partial(
            pde.Problem, {"x": (low, high)}, residual, given, shape=100
        )
        yield f"random {seed:02d} ({kind})", Trial("random", make, one_axis(u))


def line(residual, boundary, shape, low=0.0, high=1.0, axis="x", **more):
    """Makes a problem on one axis."""
    from probkit.models import pde

    return functools.partial(
        pde.Problem, {axis: (low, high)}, residual, boundary, shape=shape, **more
    )


def layers() -> Iterator:
    """Thin layers at an end or inside."""
    from probkit.models import pde

    zero = pde.Dirichlet(0.0)
    for ε in (0.1, 0.01, 0.001):

        def outflow(x, ε=ε):
            return x - (np.exp((x - 1) / ε) - np.exp(-1 / ε)) / (1 - np.exp(-1 / ε))

        flow = lambda u, x, ε=ε: -ε * u.dxx + u.dx - 1.0  # noqa: E731
        yield f"convection {ε}", Trial("layer", line(flow, zero, 200), one_axis(outflow))
    for ε in (0.1, 0.03, 0.003):

        def walls(x, ε=ε):
            return 1 - (np.exp(-x / ε) + np.exp((x - 1) / ε)) / (1 + np.exp(-1 / ε))

        react = lambda u, x, ε=ε: -(ε**2) * u.dxx + u - 1.0  # noqa: E731
        yield f"reaction {ε}", Trial("layer", line(react, zero, 200), one_axis(walls))
    for δ in (0.1, 0.02):
        exact = lambda x, δ=δ: np.tanh((x - 0.5) / δ)  # noqa: E731

        def bend(u, x, δ=δ):
            t = np.tanh((x - 0.5) / δ)
            return u.dxx + 2 * t * (1 - t**2) / δ**2

        ends = [pde.Dirichlet(exact(0.0), on="x-"), pde.Dirichlet(exact(1.0), on="x+")]
        yield f"inside {δ}", Trial("layer", line(bend, ends, 200), one_axis(exact))

    def cusp(x):
        return 0.1 * np.sin(5 * π * x) + np.exp(-99 - 100 * x)

    ends = [pde.Dirichlet(cusp(-1.0), on="x-"), pde.Dirichlet(cusp(1.0), on="x+")]

    def source(u, x):
        return u.dxx + 2.5 * π**2 * np.sin(5 * π * x) - 1e4 * np.exp(-99 - 100 * x)

    yield "wave and layer", Trial("layer", line(source, ends, 200, -1), one_axis(cusp))


def kinks() -> Iterator:
    """Solutions with a jump in a derivative."""
    from probkit.models import pde

    def step(x):
        return np.where(x < 0.5, 0.0, 1.0)

    # u'' = 0 then 1, with zero ends.
    parabola = lambda x: np.where(x < 0.5, -x / 8, (x - 0.5) ** 2 / 2 - x / 8)  # noqa: E731
    yield (
        "jump in the source",
        Trial(
            "kink",
            line(lambda u, x: u.dxx - step(x), pde.Dirichlet(0.0), 100),
            one_axis(parabola),
        ),
    )
    # u' = |x|.
    yield (
        "corner in the source",
        Trial(
            "kink",
            line(lambda u, x: u.dx - np.abs(x), pde.Dirichlet(-0.5, on="x-"), 100, -1),
            one_axis(lambda x: x * np.abs(x) / 2),
        ),
    )
    # u' + u = square wave.
    switched = lambda t: np.where(np.sin(2 * π * t) >= 0, 1.0, -1.0)  # noqa: E731
    yield (
        "square wave",
        Trial(
            "kink",
            line(lambda u, t: u.dt + u - switched(t), pde.Initial(0.0), 200, 0, 3, "t"),
            one_axis(_driven),
        ),
    )

    def conducts(x):
        return np.where(x < 0.5, 1.14, 0.01)

    def kinked(x):
        flux = 1 / (0.5 / 1.14 + 0.5 / 0.01)
        return np.where(x < 0.5, flux * x / 1.14, 1 - flux * (1 - x) / 0.01)

    ends = [pde.Dirichlet(0.0, on="x-"), pde.Dirichlet(1.0, on="x+")]
    yield (
        "jump in the conductivity",
        Trial("kink", line(lambda u, x: conducts(x) * u.dxx, ends, 100), one_axis(kinked)),
    )


def breaks() -> Iterator:
    """Jumps and corners of which the problem says where they are, or says it wrongly."""
    from probkit.models import pde

    def of_pieces(places, values):
        values = np.asarray(values, float)
        return lambda x: values[np.searchsorted(places, x, side="right")]

    ends = [pde.Dirichlet(0.0, on="x-"), pde.Dirichlet(1.0, on="x+")]
    walls = {
        "two materials": ([0.5], [1.14, 0.01], [0.0, 0.0]),
        "two materials, heated": ([0.5], [1.0, 1e-3], [1.0, -2.0]),
        "three materials, heated": ([0.2, 0.7], [1.0, 20.0, 0.3], [3.0, 0.0, -5.0]),
        "a thin insulator": ([0.5, 0.51], [1.0, 1e-3, 1.0], [1.0, 1.0, 1.0]),
    }
    for name, (places, k, q) in walls.items():
        conducts, heated = of_pieces(places, k), of_pieces(places, q)

        def flux(u, x, conducts=conducts, heated=heated):
            return -(conducts(x) * u.dx).dx - heated(x)

        make = line(flux, ends, 100, breaks={"x": places})
        exact = functools.partial(_wall, places=places, k=k, q=q)
        yield name, Trial("break", make, one_axis(exact))
    places, k, q = walls["three materials, heated"]
    conducts, heated = of_pieces(places, k), of_pieces(places, q)
    exact = functools.partial(_wall, places=places, k=k, q=q)
    for name, said in {
        "one of two breaks": [0.2],
        "a break beside it": [0.2, 0.71],
    }.items():
        # A derivative of what jumps is refused where it is not said to jump.
        make = line(
            lambda u, x: -(conducts(x) * u.dx).dx - heated(x), ends, 100,
            breaks={"x": said},
        )  # fmt: skip
        yield name, Trial("break", make, one_axis(exact))

    def sloping(x):
        below = 3 * np.log1p(np.minimum(x, 0.4))
        return below + 0.3 * np.log((1 + np.maximum(x, 0.4)) / 1.4)

    make = line(
        lambda u, x: (np.where(x < 0.4, 1.0, 10.0) * (1 + x) * u.dx).dx,
        [pde.Dirichlet(0.0, on="x-"), pde.Neumann(0.15, on="x+")], 100,
        breaks={"x": [0.4]},
    )  # fmt: skip
    yield "a conductivity that slopes and jumps", Trial("break", make, one_axis(sloping))
    step = lambda x: np.where(x < 0.5, 0.0, 1.0)  # noqa: E731
    parabola = lambda x: np.where(x < 0.5, -x / 8, (x - 0.5) ** 2 / 2 - x / 8)  # noqa: E731
    for name, said in {"a source": 0.5, "a source, said too far": 0.52}.items():
        make = line(
            lambda u, x: u.dxx - step(x), pde.Dirichlet(0.0), 100, breaks={"x": [said]}
        )
        yield f"{name} that jumps", Trial("break", make, one_axis(parabola))
    make = line(
        lambda u, x: u.dx - np.abs(x), pde.Dirichlet(-0.5, on="x-"), 100, -1,
        breaks={"x": [0.0]},
    )  # fmt: skip
    yield (
        "a corner, said where",
        Trial("break", make, one_axis(lambda x: x * np.abs(x) / 2)),
    )
    switched = lambda t: np.where(np.sin(2 * π * t) >= 0, 1.0, -1.0)  # noqa: E731
    make = line(
        lambda u, t: u.dt + u - switched(t), pde.Initial(0.0), 200, 0, 3, "t",
        breaks={"t": [0.5, 1.0, 1.5, 2.0, 2.5]},
    )  # fmt: skip
    yield "a square wave, said where", Trial("break", make, one_axis(_driven))


def _wall(x, places, k, q):
    """-(k u')' = q with u(0) = 0 and u(1) = 1, with k and q constant between places."""

    def from_left(x, flux):
        u, base, ends = np.zeros_like(x), 0.0, [0.0, *places, 1.0]
        for low, high, k_i, q_i in zip(ends, ends[1:], k, q, strict=False):
            d, inside = x - low, (x >= low) & (x <= high)
            u = np.where(inside, base - (flux * d + q_i * d**2 / 2) / k_i, u)
            d = high - low
            base, flux = base - (flux * d + q_i * d**2 / 2) / k_i, flux + q_i * d
        return u, base

    zero, one = (from_left(x, flux)[1] for flux in (0.0, 1.0))
    return from_left(x, (1 - zero) / (one - zero))[0]


def thin_layers() -> Iterator:
    """Layers thinner than a step of the grid, or nearly."""
    from scipy.special import erf

    from probkit.models import pde

    zero = pde.Dirichlet(0.0)
    for ε in (1e-4, 1e-5):

        def outflow(x, ε=ε):
            return x - (np.exp((x - 1) / ε) - np.exp(-1 / ε)) / (1 - np.exp(-1 / ε))

        flow = lambda u, x, ε=ε: -ε * u.dxx + u.dx - 1.0  # noqa: E731
        yield f"convection {ε}", Trial("thin", line(flow, zero, 200), one_axis(outflow))
        make = line(flow, zero, 200, layers={"x": [(0.0, ε)]})
        yield f"convection {ε}, said wrongly", Trial("thin", make, one_axis(outflow))
    make = line(lambda u, x: -1e-4 * u.dxx + u.dx - 1.0, zero, 30)
    exact = lambda x: x - np.exp((x - 1) / 1e-4)  # noqa: E731
    yield "convection 0.0001, 30 points", Trial("thin", make, one_axis(exact))
    for ε in (1e-3, 1e-4):

        def walls(x, ε=ε):
            return 1 - (np.exp(-x / ε) + np.exp((x - 1) / ε)) / (1 + np.exp(-1 / ε))

        react = lambda u, x, ε=ε: -(ε**2) * u.dxx + u - 1.0  # noqa: E731
        yield f"reaction {ε}", Trial("thin", line(react, zero, 200), one_axis(walls))
    ends = [pde.Dirichlet(-1.0, on="x-"), pde.Dirichlet(1.0, on="x+")]
    for ε in (1e-4, 1e-6):
        exact = lambda x, ε=ε: erf(x / np.sqrt(2 * ε))  # noqa: E731
        turn = lambda u, x, ε=ε: ε * u.dxx + x * u.dx  # noqa: E731
        yield (
            f"turning point {ε}",
            Trial("thin", line(turn, ends, 200, -1), one_axis(exact)),
        )
    for δ in (0.005, 0.001):
        exact = lambda x, δ=δ: np.tanh((x - 0.5) / δ)  # noqa: E731

        def bend(u, x, δ=δ):
            t = np.tanh((x - 0.5) / δ)
            return u.dxx + 2 * t * (1 - t**2) / δ**2

        yield f"inside {δ}", Trial("thin", line(bend, ends, 200), one_axis(exact))

    def fronts(x):
        return np.tanh((x - 0.2) / 2e-3) + np.tanh((x - 0.7) / 5e-3)

    def two(u, x):
        first, second = np.tanh((x - 0.2) / 2e-3), np.tanh((x - 0.7) / 5e-3)
        bent = first * (1 - first**2) / 2e-3**2 + second * (1 - second**2) / 5e-3**2
        return u.dxx + 2 * bent

    ends = [pde.Dirichlet(fronts(0.0), on="x-"), pde.Dirichlet(fronts(1.0), on="x+")]
    yield "two fronts", Trial("thin", line(two, ends, 300), one_axis(fronts))
    ν = 0.005
    exact = lambda x: -np.tanh(x / (2 * ν))  # noqa: E731
    ends = [pde.Dirichlet(exact(-1.0), on="x-"), pde.Dirichlet(exact(1.0), on="x+")]
    make = line(lambda u, x: u * u.dx - ν * u.dxx, ends, 200, -1, 1)
    yield f"steady Burgers {ν}", Trial("thin", make, one_axis(exact))


def _driven(t: np.ndarray) -> np.ndarray:
    """u' + u = ±1, switched at each half; exact from switch to switch."""
    out, u = np.empty_like(t), 0.0
    for k in range(int(np.ceil(2 * t.max())) + 1):
        force = 1.0 if k % 2 == 0 else -1.0
        inside = (t >= k / 2) & (t <= (k + 1) / 2)
        out[inside] = force + (u - force) * np.exp(-(t[inside] - k / 2))
        u = force + (u - force) * np.exp(-0.5)
    return out


def square(residual, boundary, shape, **ends):
    """Makes a problem on two axes."""
    from probkit.models import pde

    domain = ends or {"x": (0, 1), "y": (0, 1)}
    return functools.partial(pde.Problem, domain, residual, boundary, shape=shape)


def corners() -> Iterator:
    """The unit square: faces that disagree at corners, or with the source."""
    from probkit.models import pde

    def poisson(p):
        # A particular solution in x, and a series for the rest.
        x, y = p.T
        total = x * (1 - x) / 2
        for k in range(1, 200, 2):
            a = k * π
            ratio = (np.exp(a * (y - 1)) + np.exp(-a * y)) / (1 + np.exp(-a))
            total = total - 4 / a**3 * ratio * np.sin(a * x)
        return total

    yield (
        "constant source",
        Trial(
            "corner",
            square(lambda u, p: u.dxx + u.dyy + 1.0, pde.Dirichlet(0.0), 40),
            poisson,
        ),
    )

    def lid(p):
        x, y = p.T
        total = np.zeros(len(x))
        for k in range(1, 4000, 2):
            a = k * π
            # sinh(ay) / sinh(a)
            ratio = np.exp(a * (y - 1)) * (1 - np.exp(-2 * a * y)) / (1 - np.exp(-2 * a))
            total += 4 / a * ratio * np.sin(a * x)
        return total

    faces = [pde.Dirichlet(1.0, on="y+"), pde.Dirichlet(0.0)]
    yield (
        "a lid of 1",
        Trial("corner", square(lambda u, p: u.dxx + u.dyy, faces, 40), lid),
    )

    def warm(p):
        # u = 1 at the start, 0 at the ends.
        x, t = p.T
        total = np.zeros(len(x))
        for k in range(1, 400, 2):
            a = k * π
            total += 4 / a * np.sin(a * x) * np.exp(-(a**2) * t)
        return total

    faces = [pde.Initial(1.0), pde.Dirichlet(0.0, on="x")]
    yield (
        "a hot bar, cold ends",
        Trial(
            "corner",
            square(lambda u, p: u.dt - u.dxx, faces, 40, x=(0, 1), t=(0, 0.2)),
            warm,
        ),
    )


def waves() -> Iterator:
    """Many turns along the axis."""
    from probkit.models import pde

    for k in (50, 80, 100, 150, 200, 300):
        exact = lambda x, k=k: np.sin(k * x) / np.sin(k)  # noqa: E731
        ends = [pde.Dirichlet(0.0, on="x-"), pde.Dirichlet(1.0, on="x+")]
        residual = lambda u, x, k=k: u.dxx + k**2 * u  # noqa: E731
        yield f"Helmholtz {k}", Trial("wave", line(residual, ends, 400), one_axis(exact))
    for end in (20, 50, 100, 300):
        exact = lambda t: np.cos(np.sqrt(2) * t)  # noqa: E731
        start = pde.Initial(1.0, velocity=0.0)
        residual = lambda u, t: 0.5 * u.dtt + u  # noqa: E731
        make = line(residual, start, 1000, 0, end, "t")
        yield f"oscillator to {end}", Trial("wave", make, one_axis(exact))
    chirp = lambda x: np.sin(20 * x**2)  # noqa: E731

    def sweep(u, x):
        return u.dx - 40 * x * np.cos(20 * x**2)

    make = line(sweep, pde.Dirichlet(0.0, on="x-"), 300, 0, 2)
    yield "chirp", Trial("wave", make, one_axis(chirp))
    airy = lambda x: _airy(x) / _airy(np.array(0.0))  # noqa: E731
    ends = [
        pde.Dirichlet(1.0, on="x-"),
        pde.Dirichlet(float(airy(np.array(-20.0))), on="x+"),
    ]
    # With x -> -x, so that the axis goes up.
    make = line(lambda u, x: u.dxx + x * u, ends, 200, 0, 20)
    yield "Airy", Trial("wave", make, one_axis(lambda x: airy(-x)))


def _airy(x):
    from scipy.special import airy

    return airy(x)[0]


def _solved(rhs, start, t):
    from scipy.integrate import solve_ivp

    order = np.argsort(t)
    found = solve_ivp(
        rhs, (0, t.max()), start, "Radau", t_eval=t[order], rtol=1e-11, atol=1e-12
    )
    out = np.empty_like(t)
    out[order] = found.y[0]
    return out


def stiff() -> Iterator:
    """Nonlinear equations with fast and slow parts."""
    from probkit.models import pde

    start = pde.Initial(2.0, velocity=0.0)
    for μ in (1.0, 5.0):
        residual = lambda u, t, μ=μ: u.dtt - μ * (1 - u**2) * u.dt + u  # noqa: E731
        exact = lambda t, μ=μ: _solved(  # noqa: E731
            lambda _, y: [y[1], μ * (1 - y[0] ** 2) * y[1] - y[0]], [2.0, 0.0], t
        )
        make = line(residual, start, 200, 0, 10, "t")
        yield f"van der Pol {μ}", Trial("stiff", make, one_axis(exact))
    for rate in (1.0, 10.0, 100.0):
        exact = lambda t, rate=rate: 1 / (1 + 99 * np.exp(-rate * t))  # noqa: E731
        residual = lambda u, t, rate=rate: u.dt - rate * u * (1 - u)  # noqa: E731
        make = line(residual, pde.Initial(0.01), 200, 0, 2, "t")
        yield f"logistic {rate}", Trial("stiff", make, one_axis(exact))
    for ν in (0.1, 0.02):
        exact = lambda x, ν=ν: -np.tanh(x / (2 * ν))  # noqa: E731
        ends = [pde.Dirichlet(exact(-1.0), on="x-"), pde.Dirichlet(exact(1.0), on="x+")]
        residual = lambda u, x, ν=ν: u * u.dx - ν * u.dxx  # noqa: E731
        make = line(residual, ends, 200, -1, 1)
        # Without the middle pinned the layer could be anywhere: nearly open.
        yield f"steady Burgers {ν}", Trial("stiff", make, one_axis(exact))
    decay = lambda t: np.cos(t)  # noqa: E731
    residual = lambda u, t: u.dt + 1000 * (u - np.cos(t)) + np.sin(t)  # noqa: E731
    make = line(residual, pde.Initial(1.0), 100, 0, 5, "t")
    yield "Prothero and Robinson", Trial("stiff", make, one_axis(decay))
    cube = lambda x: 6 / (x + 1) ** 2  # noqa: E731
    ends = [pde.Dirichlet(6.0, on="x-"), pde.Dirichlet(1.5, on="x+")]
    make = line(lambda u, x: u.dxx - u**2, ends, 60)
    yield "u'' = u²", Trial("stiff", make, one_axis(cube))
    make = line(lambda u, t: u.dt + u**3, pde.Initial(3.0), 100, 0, 3, "t")
    root = lambda t: 1 / np.sqrt(1 / 9 + 2 * t)  # noqa: E731
    yield "u' = -u³", Trial("stiff", make, one_axis(root))


def many_solutions() -> Iterator:
    """Nothing says which solution is meant: each must be flagged."""
    from probkit.models import pde

    zero = pde.Dirichlet(0.0)
    make = line(lambda u, x: u.dxx + u, zero, 60, 0, 2 * π)
    yield "resonance", Trial("open", make, None)
    yield (
        "only slopes",
        Trial("open", line(lambda u, x: u.dxx + np.cos(π * x), pde.Neumann(0.0), 60), None),
    )
    yield (
        "slopes that contradict",
        Trial("open", line(lambda u, x: u.dxx - 1.0, pde.Neumann(0.0), 60), None),
    )
    yield (
        "one end of two",
        Trial(
            "open",
            line(lambda u, x: u.dxx + np.sin(3 * x), pde.Dirichlet(0.0, on="x-"), 60),
            None,
        ),
    )
    yield (
        "no initial velocity",
        Trial(
            "open",
            line(lambda u, t: u.dtt + 9 * u, pde.Initial(1.0), 100, 0, 5, "t"),
            None,
        ),
    )
    start = pde.Initial(lambda p: np.sin(π * p.x))
    yield (
        "heat, ends not given",
        Trial(
            "open",
            square(lambda u, p: u.dt - u.dxx, start, 20, x=(0, 1), t=(0, 0.5)),
            None,
        ),
    )
    yield (
        "advection without inflow",
        Trial(
            "open",
            square(lambda u, p: u.dt + u.dx, start, 24, x=(0, 1), t=(0, 1)),
            None,
        ),
    )
    final = [pde.Dirichlet(0.0, on="x"), pde.Dirichlet(lambda p: np.sin(π * p.x), on="t+")]
    yield (
        "heat, backwards",
        Trial(
            "open",
            square(lambda u, p: u.dt - u.dxx, final, 20, x=(0, 1), t=(0, 1)),
            None,
        ),
    )
    yield (
        "three conditions of two",
        Trial(
            "open",
            line(
                lambda u, x: u.dxx,
                [pde.Dirichlet(0.0, on="x"), pde.Neumann(3.0, on="x-")],
                60,
            ),
            None,
        ),
    )


def inverse() -> Iterator:
    """Unknown coefficients, with wide ranges and with observations in any units."""
    from probkit.models import pde

    def observed(residual, exact, noise, low, high, count, unknown, shape, boundary=()):
        random = np.random.default_rng(7)
        t = np.sort(random.uniform(low, high, count))
        y = exact(t) + noise * random.normal(size=count)
        return line(
            residual,
            list(boundary),
            shape,
            low,
            high,
            "t",
            observations=pde.Observations(t, y),
            unknown=unknown,
        )

    # An error of a few percent is what noise of a few percent leaves: `exact` is compared
    # with the band alone, for which see `pde_inverse.py`.
    decay = lambda t: np.exp(-0.8 * t)  # noqa: E731
    for high in (3, 10, 100):
        make = observed(
            lambda u, t, c: u.dt + c.rate * u, decay, 1e-4, 0, 3, 20,
            {"rate": (0, high)}, 20, [pde.Initial(1.0)],
        )  # fmt: skip
        yield f"decay in (0, {high})", Trial("inverse", make, one_axis(decay), 1e-3)
    ring = lambda t: np.exp(-2 * t) * np.cos(19.9 * t)  # noqa: E731
    make = observed(
        lambda u, t, c: u.dtt + c.mu * u.dt + c.k * u, ring, 1e-4, 0, 1, 40,
        {"mu": (0, 10), "k": (100, 800)}, 100,
    )  # fmt: skip
    yield "damped oscillator", Trial("inverse", make, one_axis(ring), 1e-3)
    kinetics = lambda t: 1 / (1e-3 + 2e-6 * (t - 1))  # noqa: E731
    make = observed(
        lambda u, t, c: u.dt + c.k * u**2, kinetics, 0.1, 1, 2000, 30,
        {"k": (0, 1e-5)}, 100,
    )  # fmt: skip
    yield "second-order kinetics", Trial("inverse", make, one_axis(kinetics), 1e-3)


def others() -> Iterator:
    """Cases from the field that are solved."""
    from probkit.models import pde

    convection = lambda p: np.sin(p[:, 0] - 30 * p[:, 1])  # noqa: E731
    faces = [pde.Initial(lambda p: np.sin(p.x)), pde.Periodic("x")]
    yield (
        "convection 30",
        Trial(
            "other",
            square(lambda u, p: u.dt + 30 * u.dx, faces, 60, x=(0, 2 * π), t=(0, 1)),
            convection,
        ),
    )
    faces = [
        pde.Dirichlet(1.0, on="x-"),
        pde.Dirichlet(0.0, on="x+"),
        pde.Neumann(0.0, on="y"),
    ]
    yield (
        "Laplace, insulated",
        Trial(
            "other",
            square(lambda u, p: u.dxx + u.dyy, faces, 20),
            lambda p: 1 - p[:, 0],
        ),
    )
    flux = line(
        lambda u, x: 5 * u.dxx, [pde.Neumann(1.0, on="x-"), pde.Dirichlet(0.0, on="x+")], 40
    )
    yield "slope at an end", Trial("other", flux, one_axis(lambda x: x - 1))
    ball = line(
        lambda u, r: r * u.drr + 2 * u.dr + r,
        [pde.Neumann(0.0, on="r-"), pde.Dirichlet(0.0, on="r+")],
        40,
        axis="r",
    )
    yield "ball", Trial("other", ball, one_axis(lambda r: (1 - r**2) / 6))


# One problem.


def attempt(name: str) -> dict:
    """Error, coverage and verdicts of one problem."""
    import jax

    import probkit as pk
    from probkit.models import pde

    trial, key = trials()[name], jax.random.key(0)
    row = {"problem": name, "kind": trial.kind, "open": trial.exact is None}
    try:
        problem = trial.problem()
        model = pde.SpectralGP(equation_sd=trial.equation_sd, envelope=trial.envelope)
        run = functools.partial(
            pk.fit, model, problem, pde.Closed(), key=key, throw=False, progress=False
        )
        seconds, fit = timed(run)
        low, high = np.array([[x[0], x[-1]] for x in problem.grid]).T
        random = np.random.default_rng(0)
        points = random.uniform(low, high, (POINTS[len(low)], len(low)))
        row |= {"result": str(fit.result), "cpu_s": seconds["cpu_s"]}
        row["flags"] = [check.name for check in pk.diagnose(fit) if not check.ok]
        found = pk.predict(fit, points, key=key)
    except Exception as error:  # whatever it is, it was said
        return row | {"result": f"{type(error).__name__}: {error}", "flags": ["error"]}
    if trial.exact is None:
        return row
    mean, sd = (found[v].values.reshape(-1, len(points)) for v in ("u_mean", "u_sd"))
    u, width = mean.mean(0), np.sqrt((sd**2).mean(0) + mean.var(0))
    truth = trial.exact(points)
    off = u - truth
    row["error"] = float(np.linalg.norm(off) / np.linalg.norm(truth))
    row["coverage"] = float(np.mean(np.abs(off) <= 1.96 * width))
    row["width"] = float(1.96 * np.linalg.norm(width) / np.linalg.norm(off))
    return row


def verdict(row: dict) -> str:
    """`good`, `told`, `silent`, or `alarm` for a flag that a good solution did not need."""
    flagged = bool(row["flags"]) or row["result"] != "successful"
    error, coverage = row.get("error", np.nan), row.get("coverage", np.nan)
    is_good = error <= LARGEST_ERROR and coverage >= LEAST_COVERAGE
    if row["kind"] == "published" and not is_good and error < 1e-6:
        is_good = coverage >= LEAST_COVERAGE
    return {
        (True, False): "good",
        (True, True): "alarm",
        (False, True): "told",
        (False, False): "silent",
    }[bool(is_good), flagged]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kinds", nargs="*")
    parser.add_argument("--problems", nargs="*")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    import probkit as pk

    pk.enable_x64()
    if given.one:
        print(json.dumps(attempt(given.one)))
        return
    every = trials()
    names = [
        name
        for name, trial in every.items()
        if not given.kinds or trial.kind in given.kinds
        if not given.problems or name in given.problems
    ]
    script = str(HERE / "pde_flags.py")

    def run(name):
        return fresh_process(script, "--one", name, OPENBLAS_NUM_THREADS="1")

    result = {"machine": machine(), "summary": {}, "rows": []}
    with ThreadPoolExecutor(given.processes) as pool:
        jobs = {pool.submit(run, name): name for name in names}
        for job in as_completed(jobs):
            row = job.result()
            row["verdict"] = verdict(row)
            print(json.dumps(row), file=sys.stderr, flush=True)
            result["rows"].append(row)
            result["rows"].sort(key=lambda row: names.index(row["problem"]))
            verdicts = [row["verdict"] for row in result["rows"]]
            result["summary"] = {v: verdicts.count(v) for v in sorted(set(verdicts))}
            write("pde_flags", result, quick=len(names) < len(every))
    columns = ("problem", "verdict", "error", "coverage", "width", "flags")
    table(columns, [tuple(row.get(c, "") for c in columns) for row in result["rows"]])
    print(result["summary"])


if __name__ == "__main__":
    main()
