"""The rivals of `funbat.py`. Each gets training rows and the places of others.

A side is a function of `train` and `test`, both `Rows` of `probkit.models.tucker.funbat`.
It returns the mean of each test value and its sd, noise included. The values of `test` are
NaN.
"""

import numpy as np

from probkit.models.tucker.funbat.table import day_mean as mean_of_day

SEED = 0
# Binned tensors: so many cells along each of three modes, as in the paper's comparisons.
BINS = {"coarse": (50, 50, 150)}


def with_station(rows):
    return np.column_stack([rows.scaled(), rows.station])


def overall(train, test):
    """The mean of all training rows."""
    mean = np.full(len(test.y), train.y.mean())
    return mean, np.full(len(mean), train.y.std())


def day_mean(train, test):
    """The mean of the training rows of the same day; of all rows for a day without any."""
    count = np.bincount(train.day, minlength=test.day.max() + 1)
    inside = train.y - mean_of_day(train, train)
    noise = np.sum(inside**2) / max(1, len(train.y) - np.count_nonzero(count))
    n = count[test.day]
    variance = np.where(n > 0, noise * (1 + 1 / np.maximum(n, 1)), train.y.var())
    return mean_of_day(train, test), np.sqrt(variance)


def additive(train, test):
    """Effects of stations and days: least squares, with a ridge chosen on other rows."""
    from scipy.sparse import csr_matrix
    from scipy.sparse.linalg import lsqr

    days = max(train.day.max(), test.day.max()) + 1
    width = days + max(train.station.max(), test.station.max()) + 1

    def design(rows):
        n = len(rows.y)
        columns = np.stack([rows.day, days + rows.station], 1).ravel()
        at = np.repeat(np.arange(n), 2)
        return csr_matrix((np.ones(2 * n), (at, columns)), shape=(n, width))

    A, center = design(train), train.y.mean()
    kept = np.random.default_rng(SEED).uniform(size=len(train.y)) < 0.9

    def effects(rows, ridge):
        return lsqr(A[rows], train.y[rows] - center, damp=np.sqrt(ridge), iter_lim=300)[0]

    scores = {}
    for ridge in (0.03, 0.1, 0.3, 1.0, 3.0):
        left = train.y[~kept] - center - A[~kept] @ effects(kept, ridge)
        scores[ridge] = np.mean(left**2)
    ridge = min(scores, key=scores.get)
    found, new = effects(np.ones(len(kept), bool), ridge), design(test)
    # An effect that was never seen is one of its kind: its variance is theirs.
    unseen = np.asarray(A.sum(0)).ravel() == 0
    variance = np.zeros(width)
    for kind in (slice(0, days), slice(days, width)):
        variance[kind] = np.mean(found[kind][~unseen[kind]] ** 2)
    variance = new @ (variance * unseen)
    return center + new @ found, np.sqrt(scores[ridge] + variance)


def lookup(train, test):
    """The mean of training rows with the same coordinates; otherwise `additive`."""
    both = np.concatenate([train.x, test.x])
    cell = np.unique(both, axis=0, return_inverse=True)[1].reshape(-1)
    ours, theirs = cell[: len(train.y)], cell[len(train.y) :]
    count = np.bincount(ours, minlength=cell.max() + 1)
    mean = np.bincount(ours, train.y, minlength=len(count)) / np.maximum(count, 1)
    inside = np.sum((train.y - mean[ours]) ** 2) / max(1, len(ours) - np.sum(count > 0))
    seen = count[theirs] > 0
    other, sd = additive(train, test)
    least = 1e-3 * train.y.std()  # copies have no spread, and no density
    known = np.maximum(np.sqrt(inside), least)
    return np.where(seen, mean[theirs], other), np.where(seen, known, sd)


def extra_trees(train, test, *, station: bool = True):
    """100 trees; the sd is the error on a tenth of the rows, without them."""
    from sklearn.ensemble import ExtraTreesRegressor

    x, new = (with_station(r) if station else r.scaled() for r in (train, test))
    kept = np.random.default_rng(SEED).uniform(size=len(train.y)) < 0.9
    trees = ExtraTreesRegressor(100, random_state=SEED).fit(x[kept], train.y[kept])
    left = train.y[~kept] - trees.predict(x[~kept])
    trees.fit(x, train.y)
    return trees.predict(new), np.full(len(new), np.sqrt(np.mean(left**2)))


def trees_on_modes(train, test):
    """`extra_trees` without the station."""
    return extra_trees(train, test, station=False)


def tensorly(train, test, *, kind: str, rank: int = 2, bins=BINS["coarse"]):
    """TensorLy's masked decomposition of the means in cells of equal width."""
    import tensorly as tl
    from tensorly.decomposition import parafac, tucker

    def cells(rows):
        scaled = np.clip(rows.scaled(), 0, 1 - 1e-12)
        return np.ravel_multi_index((scaled * bins).astype(int).T, bins)

    at, size = cells(train), int(np.prod(bins))
    count = np.bincount(at, minlength=size)
    center, scale = train.y.mean(), train.y.std()
    total = np.bincount(at, (train.y - center) / scale, minlength=size)
    tensor = (total / np.maximum(count, 1)).reshape(bins)
    mask = (count > 0).reshape(bins).astype(float)
    settings = {"mask": mask, "n_iter_max": 100, "random_state": SEED, "init": "random"}
    if kind == "CP":
        full = tl.cp_to_tensor(parafac(tensor, rank, **settings))
    else:
        full = tl.tucker_to_tensor(tucker(tensor, [rank] * 3, **settings))
    full = center + scale * full.ravel()
    sd = np.sqrt(np.mean((train.y - full[at]) ** 2))
    return full[cells(test)], np.full(len(test.y), sd)


def tensorly_cp(train, test):
    return tensorly(train, test, kind="CP")


def tensorly_tucker(train, test):
    return tensorly(train, test, kind="Tucker")


def sparse_gp(train, test, *, num_inducing: int = 100, steps: int = 50):
    """GPJax: the collapsed bound, Matern-3/2 with a lengthscale per mode."""
    import warnings

    import gpjax as gpx
    import jax.numpy as jnp

    rng = np.random.default_rng(SEED)
    center, scale = train.y.mean(), train.y.std()
    x = train.scaled()
    d = x.shape[1]
    data = gpx.Dataset(X=jnp.asarray(x), y=jnp.asarray((train.y - center) / scale)[:, None])
    kernel = gpx.kernels.Matern32(lengthscale=jnp.full(d, 0.2), n_dims=d)
    prior = gpx.gps.Prior(kernel=kernel, mean_function=gpx.mean_functions.Constant())
    family = gpx.variational_families.CollapsedVariationalGaussian(
        model=prior * gpx.likelihoods.Gaussian(),
        inducing_inputs=jnp.asarray(x[rng.choice(len(x), num_inducing, replace=False)]),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit, _ = gpx.fit_scipy(
            model=family,
            objective=lambda q, d: -gpx.objectives.collapsed_elbo(q, d),
            train_data=data,
            max_iters=steps,
            verbose=False,
        )
    known, parts = fit.condition(data), []
    new = test.scaled()
    for start in range(0, len(new), 1000):
        latent = known(jnp.asarray(new[start : start + 1000]))
        predicted = fit.model.likelihood(latent)
        mean = np.asarray(predicted.mean).ravel()
        parts.append((mean, np.sqrt(np.asarray(predicted.variance).ravel())))
    mean, sd = (np.concatenate(one) for one in zip(*parts, strict=True))
    return center + scale * mean, scale * sd


SIDES = {
    "mean": overall,
    "day mean": day_mean,
    "station + day": additive,
    "lookup, else station + day": lookup,
    "extra trees": extra_trees,
    "extra trees, modes only": trees_on_modes,
    "TensorLy CP, 50 x 50 x 150": tensorly_cp,
    "TensorLy Tucker, 50 x 50 x 150": tensorly_tucker,
    "GPJax, 100 inducing": sparse_gp,
}
