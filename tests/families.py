"""One line a family: everything in `test_families.py` then holds for it."""

import equinox as eqx
import jax
import numpy as np

import own
from probkit.models import gp, meta, moe, pde, sbl, tucker
from probkit.models.meta import network


def _moe(num_experts: int, num_inputs: int):
    rng = np.random.default_rng(num_inputs)
    x = rng.normal(3.0, 2.0, (60, num_inputs))
    y = np.where(x[:, 0] > 3, 10 - x[:, 0], 4 * x[:, 0]) + rng.normal(0, 0.5, 60)
    return moe.MixtureOfExperts(num_experts=num_experts), moe.Pairs(x, y)


def _moe_counts():
    rng = np.random.default_rng(21)
    x = rng.uniform(-1, 5, 60)
    y = rng.poisson(np.where(x > 2, 8.0, np.exp(x)))
    gate = moe.Activation(temperature=None)
    return moe.MixtureOfExperts(2, gate, moe.Poisson()), moe.Pairs(x, y)


def _sbl(*, is_complex: bool, missing: bool = False):
    rng = np.random.default_rng(8 if is_complex else 7)

    def normal(*shape):
        real = rng.normal(size=shape)
        return real + 1j * rng.normal(size=shape) if is_complex else real

    rows, columns = normal(4, 6), normal(6, 4)  # the second is tall
    x = np.zeros((6, 4), rows.dtype)
    x[np.ix_([1, 2], [0, 3])] = 3 * normal(2, 2)
    y = rows @ x @ columns.T + 0.5 * normal(4, 6)
    if is_complex:
        model = sbl.KroneckerSBL(coupling={"row": 0.5}, frozen="column")
        return model, sbl.Measurements(y, (rows, columns), 0.7, modes=("row", "column"))
    seen = rng.uniform(size=y.shape) < 0.7 if missing else None
    return sbl.KroneckerSBL(), sbl.Measurements(y, (rows, columns), seen=seen)


def _sbl_table():
    rng = np.random.default_rng(13)
    x = rng.normal(size=(12, 3)) * [1.0, 10.0, 0.1] + 50
    y = x[:, 0] + 0.3 * rng.normal(size=12)
    return sbl.KroneckerSBL(), sbl.Measurements.table(y, x)


def _sbl_classes():
    rng = np.random.default_rng(14)
    x = rng.normal(size=(20, 3)) * [1.0, 10.0, 0.1] + 50
    return sbl.LogisticSBL(), sbl.Classes(rng.normal(50, 1, 20) < x[:, 0], x)


def _pde():
    x = np.linspace(0.1, 1.9, 12)
    problem = pde.Problem(
        {"x": (0, 2)},
        lambda u, x, c: u.dx + c.rate * u,
        observations=pde.Observations(x, np.exp(-x) + 0.05 * np.cos(40 * x)),
        unknown={"rate": (0.1, 3)},
        shape=16,
    )
    return pde.SpectralGP(num_nodes=6, equation_sd=1e-3), problem


def _gp(kernel, num_inputs: int, num_waves: int | None = None):
    rng = np.random.default_rng(11)
    x = rng.uniform(0, 5, (24, num_inputs))
    y = 2 * np.sin(4 * x[:, 0]) + x[:, -1] + 0.3 * rng.normal(size=24)
    return gp.Regression(kernel), gp.Observed(x, y, num_waves=num_waves)


def _gp_grid():
    rng = np.random.default_rng(12)
    y = np.sin(np.arange(6.0))[:, None] + rng.normal(size=(6, 4))
    y[1, 2:] = y[4, 0] = np.nan
    kernel = gp.Matern(on="time") * gp.SpectralMixture(2, on="site")
    return gp.Regression(kernel), gp.Grid(y, {"time": np.arange(6), "site": np.arange(4)})


def _gp_series(observations, function: str):
    rng = np.random.default_rng(15)
    hours = rng.choice(np.arange(40), 16)  # some twice, in no order
    t = np.datetime64("2024-02-28T12:00") + hours * np.timedelta64(1, "h")
    f = np.sin(hours / 5)
    if isinstance(observations, gp.Poisson):
        exposure = rng.uniform(0.5, 2.0, 16)
        y, more = rng.poisson(3 * exposure * np.exp(f)).astype(float), exposure
    else:
        y, more = f + 0.3 * rng.standard_t(4, 16), None
    y[[2, 9]] = np.nan
    model = gp.Temporal(gp.Matern(1.5), observations, function)
    return model, gp.Series(t, y, exposure=more)


def _tucker(model):
    rng = np.random.default_rng(15)
    t, site = rng.integers(0, 5, 30) / 2, rng.integers(0, 4, 30)
    y = np.sin(2 * t) * (1 + site) + 0.2 * rng.normal(size=30)
    site = np.array(["a", "b", "c", "d"])[site]
    return model, tucker.Entries({"time": t, "site": site}, y)


def _meta(model, *, ragged: bool):
    rng = np.random.default_rng(16)
    sizes = (4, 2, 5, 1, 3, 5) if ragged else (4,) * 12
    x = [rng.normal(50.0, 10.0, (m, 2)) for m in sizes]
    slopes = rng.normal([2.0, -1.0], 0.5, (len(x), 2))
    y = [300 + a @ b + 5 * rng.normal(size=len(a)) for a, b in zip(x, slopes, strict=True)]
    return model, meta.Episodes(x, y)


def _meta_network():
    rng = np.random.default_rng(18)
    x = rng.normal(size=(4, 3, 1))
    y = (
        300
        + 20 * np.sin(x[..., 0]) * rng.normal(2.0, 0.5, (4, 1))
        + rng.normal(size=(4, 3))
    )
    net = eqx.nn.MLP(1, 1, 2, 1, activation=jax.numpy.tanh, key=jax.random.key(0))
    return meta.Network(net), meta.Episodes(x, y)


def _counts():
    rng = np.random.default_rng(9)
    x = np.linspace(-1, 1, 60)
    return own.Counts(x, rng.poisson(np.exp(1 + x)))


def _values():
    rng = np.random.default_rng(10)
    return own.Values(rng.normal([1.0, -2.0], 1.0, (40, 2)))


def _meta_classes():
    rng = np.random.default_rng(17)
    means = rng.normal(50, [1.0, 10.0], (6, 2)).reshape(2, 3, 1, 2)
    x = means + 0.5 * rng.normal(size=(2, 3, 5, 2))
    return meta.GaussianClasses(), meta.Shots(x[:, :, :2], x[:, :, 2:])


FAMILIES = {
    "meta normal classes": _meta_classes,
    "moe one input": lambda: _moe(2, 1),
    "moe three inputs": lambda: _moe(3, 3),
    "moe one expert": lambda: _moe(1, 2),
    "moe counts, learned temperature": _moe_counts,
    "pde inverse": _pde,
    "gp waves and a drift": lambda: _gp(gp.SpectralMixture() + gp.Drift(), 1),
    "gp frequencies on a grid": lambda: _gp(
        gp.SpectralGrid(12, lengthscale=2.0) + gp.Linear(), 1
    ),
    "gp by fixed waves": lambda: _gp(gp.Matern(1.5) + gp.Linear(), 1, num_waves=20),
    "gp grid with gaps": _gp_grid,
    "gp series": lambda: _gp_series(gp.Normal(), "integrated"),
    "gp series of counts": lambda: _gp_series(gp.Poisson(), "integrated"),
    "gp series with outliers, sampled": lambda: _gp_series(gp.StudentT(), "sampled"),
    "gp a product of two inputs": lambda: _gp(
        gp.Matern() * gp.Periodic(on="x0") + gp.Linear(on="x1"), 2
    ),
    "tucker components": lambda: _tucker(tucker.CP(2)),
    "tucker a core": lambda: _tucker(tucker.Tucker((2, 1), effects=False)),
    "meta linear": lambda: _meta(meta.Linear(), ragged=False),
    "meta ragged diagonal": lambda: _meta(meta.Linear("diagonal"), ragged=True),
    "meta network": _meta_network,
    "meta two components": lambda: _meta(meta.Linear(num_components=2), ragged=False),
    "a program alone": lambda: (own.PoissonRegression(), _counts()),
    "a program alone, two columns": lambda: (own.NormalMean(), _values()),
    "sbl two modes": lambda: _sbl(is_complex=False),
    "sbl with missing entries": lambda: _sbl(is_complex=False, missing=True),
    "sbl a table with an intercept": _sbl_table,
    "sbl two classes": _sbl_classes,
    "sbl complex, coupled, frozen": lambda: _sbl(is_complex=True),
}
# Those that have an E-step, and one of each kind that can be split into batches.
# Sites whose prior is vaguer than any posterior, and the sd of their coordinates under that
# prior. Coordinates have unit size under the prior of one data set.
VAGUE = {("meta network", "population_mean"): network.STRENGTH**-0.5}
WITH_EM = [
    name
    for name in FAMILIES
    if name.startswith(("moe", "sbl")) and name != "sbl two classes"
]
OF_ROWS = ["moe one input", "a program alone, two columns"]


def a_draw(model, data, seed: int = 0):
    """A draw from the prior: somewhere, and not at an optimum."""
    from probkit.model.density import prior_draw

    return jax.jit(lambda key: prior_draw(model, data, key))(jax.random.key(seed))
