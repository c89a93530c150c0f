"""Whether noise is taken for signal, and whether a check says where a fit is wrong.

python benchmarks/sbl_noise.py
python benchmarks/sbl_noise.py --sets 4

- noise alone: what is kept of 40 normal numbers and 60 atoms, and of 80 and 12 x 12;
- sinusoids: three at 20 dB, on a Fourier grid four times finer than 64 samples resolve;
- rank one: complex amplitudes of rank one with four modes, at 20 dB;
- range: three atoms of 60 in 40 numbers, from 20 to 200 dB.
"""

import argparse
import functools

import jax
import jax.numpy as jnp
import numpy as np
from timing import machine, table, write

import probkit as pk
from probkit.models import sbl
from probkit.models.sbl.prune import prices, pruned

MODEL = sbl.KroneckerSBL()
LEVEL, NUM_DRAWS = 0.9, 200
WRONG = 0.1  # a larger NMSE
RANK_ONE = ((4, 7), (10, 6), (5, 8), (4, 6)), ((3, 3, 3, 2), (2, 2, 2, 2))


def fitted(data, method, seed):
    return pk.fit(
        MODEL, data, method, key=jax.random.key(seed), progress=False, throw=False
    )


def kept(fit) -> int:
    return int(np.count_nonzero(MODEL.posterior(fit.sites(), fit.data).mean()))


def error(fit, x) -> float:
    return float(sbl.nmse(MODEL.posterior(fit.sites(), fit.data).mean(), x))


def noise_alone(sets: int) -> dict:
    rows: dict[str, list[int]] = {}
    for seed in range(sets):
        rng = np.random.default_rng(seed)
        one = sbl.Measurements(rng.normal(size=40), rng.normal(size=(40, 60)))
        pair = [rng.normal(size=(8, 12)), rng.normal(size=(10, 12))]
        two = sbl.Measurements(rng.normal(size=(8, 10)), pair)
        sides = {
            "TypeII, one mode": (one, sbl.TypeII()),
            "Sequential, one mode": (one, sbl.Sequential()),
            "TypeII, two modes": (two, sbl.TypeII()),
        }
        for name, (data, method) in sides.items():
            rows.setdefault(name, []).append(kept(fitted(data, method, seed)))
    return rows


def sinusoids(sets: int) -> dict:
    t, out = np.arange(64), {}
    A = np.exp(2j * np.pi * np.outer(t, np.arange(256) / 256)) / 8
    for seed in range(sets):
        rng = np.random.default_rng(seed)
        phases = np.exp(2j * np.pi * rng.uniform(size=3))
        clean = np.exp(2j * np.pi * np.outer(t, [0.1013, 0.2237, 0.2391])) @ phases
        sd = np.sqrt(np.mean(np.abs(clean) ** 2) / 100)
        noise = rng.normal(size=(64, 2)) @ [1, 1j] / np.sqrt(2)
        data = sbl.Measurements(clean + sd * noise, A)
        for method in (
            sbl.TypeII(num_draws=NUM_DRAWS),
            sbl.Sequential(num_draws=NUM_DRAWS),
        ):
            fit = fitted(data, method, seed)
            post = MODEL.posterior(fit.sites(), data)
            at_best, variance = (np.asarray(a) for a in post.at([A]))
            drawn = pk.recover(fit, key=jax.random.key(seed))["coefficient"].values[0] @ A.T
            middle = drawn.mean(0)
            # Discs around the mean: of a complex normal, and of the draws.
            radius = np.sqrt(-np.log(1 - LEVEL) * variance)
            radii = np.quantile(np.abs(drawn - middle), LEVEL, axis=0)
            row = {
                "atoms": kept(fit),
                "noise over truth": float(np.sqrt(post.noise) / sd),
                "held by the optimum": np.mean(np.abs(clean - at_best) <= radius),
                "held by draws": np.mean(np.abs(clean - middle) <= radii),
                "nmse of the optimum": float(sbl.nmse(at_best, clean)),
                "nmse of draws": float(sbl.nmse(middle, clean)),
                "effective draws": fit.facts["effective_draws"],
            }
            out.setdefault(type(method).__name__, []).append(row)
    return out


def rank_one(sets: int) -> list[dict]:
    sizes, supports = RANK_ONE
    rows = []
    for count in supports:
        for seed in range(sets):
            rng = np.random.default_rng(seed)

            def normal(*shape, rng=rng):
                return (rng.normal(size=shape) + 1j * rng.normal(size=shape)) / np.sqrt(2)

            matrices = [normal(*size) for size in sizes]
            pairs = zip(sizes, count, strict=True)
            support = [rng.choice(n, k, replace=False) for (_, n), k in pairs]
            x = np.zeros([n for _, n in sizes], complex)
            parts = [normal(k) for k in count]
            x[np.ix_(*support)] = functools.reduce(np.multiply.outer, parts)
            y = np.einsum("ai,bj,ck,dl,ijkl->abcd", *matrices, x, optimize=True)
            noise_sd = np.sqrt(np.mean(np.abs(y) ** 2) / 100)
            data = sbl.Measurements(y + noise_sd * normal(*y.shape), matrices)
            fit = fitted(data, sbl.TypeII(), seed)
            row = {"support": count, "seed": seed, "nmse": error(fit, x)}
            row["ok"] = pk.diagnose(fit).ok
            if row["nmse"] > WRONG:
                row["nats ahead of the truth"] = ahead(fit, x, noise_sd)
            rows.append(row)
    return rows


def ahead(fit, x, noise_sd) -> float:
    """Evidence less prices of a fit, minus that of the best fit on the true support."""
    data = fit.data
    local = [
        np.mean(np.abs(x) ** 2, tuple(q for q in range(x.ndim) if q != p))
        for p in range(x.ndim)
    ]
    scales = MODEL.scales(fit.sites(), data)
    start = scales.at(scales.total, [jnp.asarray(g / g.max()) for g in local])
    truth = pruned(data, start, jnp.asarray(noise_sd**2), 0.0, 1e-4)
    price = prices("ebic", data, data.num_atoms)

    def worth(evidence, local):
        kept = [int(np.count_nonzero(g)) for g in local]
        return float(evidence) - float(np.dot(price, kept))

    at_truth = worth(truth.climb.objective, truth.scales.local)
    return worth(fit.facts["evidence"], scales.local) - at_truth


def ranges(sets: int) -> dict:
    out: dict[str, list] = {}
    for snr_db in range(20, 201, 20):
        for seed in range(sets):
            rng = np.random.default_rng(seed)
            A, x = rng.normal(size=(40, 60)), np.zeros(60)
            x[rng.choice(60, 3, replace=False)] = [1.5, -1.0, 0.7]
            sd = np.sqrt(np.mean((A @ x) ** 2)) * 10 ** (-snr_db / 20)
            data = sbl.Measurements(A @ x + sd * rng.normal(size=40), A)
            for method in (sbl.TypeII(), sbl.Sequential()):
                fit = fitted(data, method, seed)
                row = {"snr_db": snr_db, "nmse": error(fit, x), "result": fit.result}
                out.setdefault(type(method).__name__, []).append(row)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", type=int, help="number of data sets of each kind")
    given = parser.parse_args()
    pk.enable_x64()
    where = machine()
    alone = noise_alone(given.sets or 20)
    table(
        ("noise alone", "sets", "with atoms", "most"),
        [(k, len(v), sum(n > 0 for n in v), max(v)) for k, v in alone.items()],
    )
    waves = sinusoids(given.sets or 8)
    names = list(waves["TypeII"][0])
    table(
        ("sinusoids", *names),
        [
            (k, *(float(np.mean([r[n] for r in v])) for n in names))
            for k, v in waves.items()
        ],
    )
    one = rank_one(given.sets or 30)
    wrong = [row for row in one if row["nmse"] > WRONG]
    silent = [row for row in wrong if row["ok"]]
    behind = [row for row in silent if row["nats ahead of the truth"] < 0]
    table(
        ("rank one", "sets", "wrong", "with all checks ok", "and less probable than truth"),
        [("TypeII", len(one), len(wrong), len(silent), len(behind))],
    )
    far = ranges(given.sets or 4)
    table(
        ("20 to 200 dB", "fits", "successful", "largest nmse from 40 dB"),
        [
            (
                name,
                len(rows),
                sum(r["result"] == "successful" for r in rows),
                max(r["nmse"] for r in rows if r["snr_db"] >= 40),
            )
            for name, rows in far.items()
        ],
    )
    result = {
        "machine": where,
        "noise alone": alone,
        "sinusoids": waves,
        "rank one": one,
        "range": far,
    }
    write("sbl_noise", result, given.sets is not None)


if __name__ == "__main__":
    main()
