"""A channel through a reflecting surface: coupled and uncoupled `sbl.KroneckerSBL`.

The setting of He & Joseph (arXiv 2307.14719): 6 x 16 antennas, 256 elements, 6 patterns,
3 pilots. There are N = 5832 complex coefficients and M = 288 measurements, with known
noise. Errors are given over the patterns of the training and over random patterns that
were never sent.
"""

import argparse
import sys
from collections.abc import Callable

import jax
import numpy as np
import sbl_baselines as rivals
from sbl_synthetic import FAILED
from threadpoolctl import threadpool_limits
from timing import machine, table, timed, write

import probkit as pk
from probkit.models import sbl
from probkit.models.sbl.examples import irs

COUPLED = sbl.KroneckerSBL(coupling={"pattern": 0.8, "antenna": 0.8})
PLAIN = sbl.KroneckerSBL()
# probkit's sides by name: model and method. The targets are for the first.
METHODS = {
    "coupled": (COUPLED, sbl.TypeII()),
    "coupled, one start": (COUPLED, sbl.TypeII(num_restarts=1)),
    "uncoupled": (PLAIN, sbl.TypeII()),
}
OURS = next(iter(METHODS))
TARGETS = {4: 0.06, 8: 0.027, 12: 0.010, 16: 0.0045, 20: 0.0020}  # mean NMSE
HELD_OUT = 20

Side = Callable[[irs.Link], rivals.Estimate]


def by(model: sbl.KroneckerSBL, method: sbl.TypeII) -> Side:
    return lambda link: rivals.by_probkit(link.data, method, model)


def paper(m_step: Callable, share) -> Side:
    def run(link: irs.Link):
        y, matrices, noise_sd = in_numpy(link.data)
        return rivals.paper_sbl(y, matrices, noise_sd, m_step, share, least=1e-4)

    return run


def relative(moments, γ):
    """The M-step with a relative tolerance, as in the authors' scripts of this study."""
    return rivals.alternating(moments, γ, atol=0.0, rtol=1e-4)


def in_numpy(data: sbl.Measurements):
    matrices = [np.asarray(matrix) for matrix in data.dictionaries]
    return np.asarray(data.y), matrices, float(data.noise_sd)


def decomposed(link: irs.Link) -> rivals.Estimate:
    y, matrices, _ = in_numpy(link.data)
    return rivals.decomposed(y, matrices)


def oracle(link: irs.Link) -> rivals.Estimate:
    y, matrices, _ = in_numpy(link.data)
    x = np.asarray(link.coefficients) != 0
    support = [np.flatnonzero(x.any(axis=tuple({0, 1, 2} - {p}))) for p in range(3)]
    return rivals.on_support(y, matrices, support)


def sides() -> dict[str, Side]:
    return {name: by(*pair) for name, pair in METHODS.items()} | {
        "AM (paper)": paper(relative, (1e-2, 1e-1, 1e-3)),
        "SVD (paper)": paper(rivals.singular, 0.0),
        "decomposed": decomposed,
        "oracle": oracle,
    }


def told(x: np.ndarray, link: irs.Link, held_out: jax.Array, snr_db: float) -> dict:
    found = irs.channel(x, link.training.patterns, link.training)
    truth = link.channel(link.training.patterns)
    new, new_truth = irs.channel(x, held_out, link.training), link.channel(held_out)
    return {
        "nmse": float(irs.channel_nmse(found, truth)),
        "held_out_nmse": float(irs.channel_nmse(new, new_truth)),
        "ser": float(irs.symbol_error_rate(found, truth, snr_db)),
        "held_out_ser": float(irs.symbol_error_rate(new, new_truth, snr_db)),
        "bits_per_s_hz": float(irs.spectral_efficiency(new, new_truth, link.data.noise_sd)),
    }


def compare(channels: int, snr_db: float, seed: int) -> dict[str, list[dict]]:
    """All sides on the same channels. Another SNR only rescales the noise."""
    training = irs.draw_training(jax.random.key(seed))
    held_out = irs.random_patterns(jax.random.key(2), HELD_OUT)
    runs: dict[str, list[dict]] = {name: [] for name in sides()}
    for i in range(channels):
        link = irs.simulate(jax.random.key(i), snr_db, training)
        for name, side in sides().items():
            if i == 0:
                side(link)  # compiles
            seconds, estimate = timed(lambda side=side, link=link: side(link))
            extra = {"steps": estimate.steps, "evidence": estimate.evidence}
            row = told(estimate.x, link, held_out, snr_db)
            runs[name].append(seconds | extra | row)
    return runs


def summary(runs: dict[str, list[dict]]) -> dict[str, dict]:
    out = {}
    for name, rows in runs.items():
        column = {key: np.array([row[key] for row in rows]) for key in rows[0]}
        errors = column["nmse"]
        failed = float(np.mean(errors > FAILED))
        out[name] = {
            "mean_nmse": float(errors.mean()),
            "se_of_mean": float(errors.std(ddof=1) / np.sqrt(len(errors))),
            "median_nmse": float(np.median(errors)),
            "failed": failed,
            "se_of_failed": float(np.sqrt(failed * (1 - failed) / len(errors))),
            "held_out_mean": float(column["held_out_nmse"].mean()),
            "held_out_median": float(np.median(column["held_out_nmse"])),
            "ser": float(column["ser"].mean()),
            "held_out_ser": float(column["held_out_ser"].mean()),
            "bits_per_s_hz": float(column["bits_per_s_hz"].mean()),
            "mean_evidence": float(column["evidence"].mean()),
            "cpu_s": float(np.median(column["cpu_s"])),
            "steps": float(np.median(column["steps"])),
        }
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="5 channels")
    parser.add_argument("--channels", type=int, help="number of channels (default: 50)")
    parser.add_argument("--training", type=int, default=1, help="seed of the training")
    args = parser.parse_args()
    pk.enable_x64()
    channels = args.channels or (5 if args.quick else 50)
    where, runs, summaries, found = machine(), {}, {}, {}
    with threadpool_limits(1):
        for snr, most in TARGETS.items():
            runs[f"{snr} dB"] = compare(channels, float(snr), args.training)
            rows = summaries[f"{snr} dB"] = summary(runs[f"{snr} dB"])
            print(f"\n{snr} dB, {channels} channels")
            names = list(rows[OURS])
            table(("side", *names), [(k, *(v[n] for n in names)) for k, v in rows.items()])
            value = rows[OURS]["mean_nmse"]
            found[f"{snr} dB: mean_nmse"] = {
                "value": value,
                "se": rows[OURS]["se_of_mean"],
                "at_most": most,
                "reached": value <= most,
            }
    print()
    table(
        ("target", "value", "se", "at most", "reached"),
        [(k, *v.values()) for k, v in found.items()],
    )
    result = {
        "machine": where,
        "dtype": "complex128",
        "methods": {name: [repr(part) for part in pair] for name, pair in METHODS.items()},
        "targets": found,
        "summary": summaries,
        "runs": runs,
    }
    other = "" if args.training == 1 else f"_training{args.training}"
    write(f"sbl_irs{other}", result, args.quick)


if __name__ == "__main__":
    sys.exit(main())
