"""Five letters, one or five examples of each: normal classes beside MAML and prototypes.

    python benchmarks/meta_glyphs.py [--quick]

Letters of scripts that no side has seen, 5 ways, 15 queries per class. Sides:

- normal classes of principal components: the exact two-level model;
- normal classes of a convolutional network, learned together;
- prototypes: that network, classes by the squared distance to the mean of their examples,
  or by the cosine, each with one temperature chosen on training letters;
- second-order MAML on the same network, with five inner steps, trained for one and for
  five examples.

Seconds are of the processor. `cost`, without compilation, has those per 1,000 training
episodes of equal size (5 ways, 5 shots, 5 queries per class) for the same network: once
with images that no two episodes share, and once counting as an episode each split of a task
in support and queries, of which a step of normal classes has as many as examples per class.
"""

import argparse
import time
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import maml
import numpy as np
from timing import machine, table, write

import probkit as pk
from probkit.models import meta

KEY = jax.random.key(0)
WAYS, QUERIES = 5, 15
BINS = 15
COMPONENTS, FEATURES, WIDTH = 60, 32, 16


class Net(eqx.Module):
    """Three convolutions of stride two, and a linear layer."""

    convs: list[eqx.nn.Conv2d]
    out: eqx.nn.Linear

    def __init__(self, key: Any):
        keys = jax.random.split(key, 4)
        wide = [1, WIDTH, WIDTH, WIDTH]
        self.convs = [
            eqx.nn.Conv2d(wide[i], wide[i + 1], 3, 2, 1, key=keys[i]) for i in range(3)
        ]
        self.out = eqx.nn.Linear(WIDTH * 4 * 4, FEATURES, key=keys[3])

    def __call__(self, x):
        x = x[None]
        for conv in self.convs:
            x = jax.nn.relu(conv(x))
        return self.out(x.reshape(-1))


def spent(function) -> tuple[float, Any]:
    """Seconds of the processor, and what was found."""
    begun = time.process_time()
    found = function()
    return time.process_time() - begun, found


# Training.


def components(letters, steps: int):
    """The fit, and the features of any images."""
    phi = meta.principal_components(letters.images, COMPONENTS)
    x = np.asarray(jax.vmap(phi)(jnp.asarray(letters.images)))
    tasks = meta.Tasks(x, letters.labels, 20, 5, 15, key=KEY, batch_size=4)
    method = meta.Episodic(max_steps=steps, patience=steps, num_draws=20)
    fitted = pk.fit(meta.GaussianClasses(), tasks, method, key=KEY, throw=False)
    return fitted, jax.jit(jax.vmap(phi))


def learned(letters, steps: int):
    tasks = meta.Tasks(letters.images, letters.labels, 20, 1, 4, key=KEY, batch_size=2)
    # Long steps of the hierarchy, because the features move.
    method = meta.Episodic(
        max_steps=steps,
        patience=steps,
        num_draws=20,
        learning_rate=2e-3,
        delay=100,
    )
    model = meta.GaussianClasses(Net(KEY))
    return pk.fit(model, tasks, method, key=KEY, throw=False)


def adapted(letters, shots: int, steps: int):
    tasks = meta.Tasks(
        letters.images, letters.labels, WAYS, shots, 5, key=KEY, batch_size=4
    )
    head = eqx.nn.Linear(FEATURES, WAYS, key=jax.random.key(1))
    return maml.trained(maml.Head(Net(KEY), head), tasks, steps, 1e-3)


# Probabilities of held-out tasks.


def of_fit(fitted, shots, features=None):
    parts = []
    for begin in range(0, len(shots), 50):
        some = shots.take(jnp.arange(begin, min(begin + 50, len(shots))))
        if features is not None:
            some = meta.Shots(*(_each(features, a) for a in (some.support, some.query)))
        found = pk.predict(fitted, some, key=KEY)["probability"]
        parts.append(found.mean(("chain", "draw")).values)
    return np.concatenate(parts)


def _each(features, x):
    lead = x.shape[:3]
    return features(x.reshape(-1, *x.shape[3:])).reshape(*lead, -1)


def prototypes(net, letters, shots, cosine: bool):
    """Probabilities by distances, with the temperature that fits training tasks best."""
    size = shots.support.shape[2]
    tasks = meta.Tasks(
        letters.images, letters.labels, WAYS, size, 15, key=jax.random.key(3), batch_size=50
    )
    features = jax.jit(jax.vmap(net))

    def logits(data):
        support = _each(features, data.support).mean(2)
        query = _each(features, data.query).reshape(len(data), -1, FEATURES)
        if cosine:
            support, query = (
                x / jnp.linalg.norm(x, axis=-1, keepdims=True) for x in (support, query)
            )
        apart = query[:, :, None] - support[:, None]
        return -jnp.sum(apart**2, -1)

    known = tasks.at(0)
    found = logits(known)
    spread = float(found.std())
    own = known.classes()

    def loss(scale):
        log_p = jax.nn.log_softmax(scale * found / spread)
        return -float(log_p[:, np.arange(len(own)), own].mean())

    scale = min(np.geomspace(0.1, 100, 60), key=loss)
    parts = [shots.take(jnp.arange(i, i + 50)) for i in range(0, len(shots), 50)]
    return np.concatenate(
        [np.asarray(jax.nn.softmax(scale * logits(one) / spread)) for one in parts]
    )


# What they are worth.


def scores(probability: np.ndarray, y: np.ndarray) -> dict[str, float]:
    p = np.asarray(probability, float)
    right = p.argmax(-1) == y
    own = p[:, np.arange(len(y)), y]
    each = right.mean(1)
    one_hot = np.eye(p.shape[-1])[y]
    return {
        "accuracy": float(each.mean()),
        "interval": float(1.96 * each.std(ddof=1) / np.sqrt(len(each))),
        "nll": float(-np.log(np.maximum(own, 1e-30)).mean()),
        "brier": float(((p - one_hot) ** 2).sum(-1).mean()),
        "ece": meta.reliability(p / p.sum(-1, keepdims=True), y, num_bins=BINS).error,
    }


# What they cost.


def costs(letters, repeats: int) -> dict[str, float]:
    """Seconds per 1,000 episodes of 5 ways, 5 shots and 5 queries per class."""
    tasks = meta.Tasks(letters.images, letters.labels, WAYS, 5, 5, key=KEY, batch_size=4)
    data = tasks.at(0)
    head = eqx.nn.Linear(FEATURES, WAYS, key=KEY)
    rival = maml.Head(Net(KEY), head)
    model = meta.GaussianClasses(Net(KEY))
    post = model.first(data, KEY, None)

    @eqx.filter_jit
    def outer(net, data):
        return eqx.filter_value_and_grad(maml.outer)(net, data.support, data.query)

    @eqx.filter_jit
    def ours(model, data, post):
        slope = eqx.filter_value_and_grad(lambda model: model.loss(data, post, KEY))(model)
        found = model.gather(data, post, KEY)
        num, rate = jnp.float32(100), jnp.float32(0.1)
        priors, noise = model.block_priors(data), model.noise_scale(data)
        return slope, post.moved(priors, noise, found, num, rate)

    calls = {
        "maml": lambda: eqx.filter(outer(rival, data), eqx.is_array),
        "normal": lambda: eqx.filter(ours(model, data, post), eqx.is_array),
    }
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for name in calls:
        jax.block_until_ready(calls[name]())
    for _ in range(repeats):
        for name, call in calls.items():
            took, _ = spent(lambda call=call: jax.block_until_ready(call()))
            seconds[name].append(took / len(data) * 1000)
    found = {name: float(np.median(values)) for name, values in seconds.items()}
    splits = data.support.shape[2] + data.query.shape[2]
    return {
        "maml_s": found["maml"],
        "normal_s": found["normal"],
        "normal_per_split_s": found["normal"] / splits,
        "ratio": found["maml"] / found["normal"],
        "ratio_per_split": found["maml"] * splits / found["normal"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    quick = args.quick
    about = machine()
    training, held = (meta.glyphs(part) for part in ("training", "held out"))
    cost = costs(training, 2 if quick else 7)
    print(cost, flush=True)
    train = {
        "components": spent(lambda: components(training, 50 if quick else 300)),
        "network": spent(lambda: learned(training, 100 if quick else 1500)),
        "maml 1": spent(lambda: adapted(training, 1, 10 if quick else 300)),
        "maml 5": spent(lambda: adapted(training, 5, 10 if quick else 150)),
    }
    seconds = {name: took for name, (took, _) in train.items()}
    print(seconds, flush=True)
    fitted, phi = train["components"][1]
    deep = train["network"][1]
    rows, results = [], []
    for shots in (1, 5):
        tasks = meta.Tasks(
            held.images,
            held.labels,
            WAYS,
            shots,
            QUERIES,
            key=jax.random.key(7),
            batch_size=50 if quick else 600,
        )
        data = tasks.at(0)
        net, rival = deep.model.features, train[f"maml {shots}"][1]
        sides = {
            "normal, principal components": lambda d=data: of_fit(fitted, d, phi),
            "normal, network": lambda d=data: of_fit(deep, d),
            "prototypes, euclidean": lambda n=net, d=data: prototypes(
                n, training, d, False
            ),
            "prototypes, cosine": lambda n=net, d=data: prototypes(n, training, d, True),
            "MAML": lambda r=rival, d=data: np.asarray(
                maml.probabilities(r, d.support, d.queries())
            ),
        }
        for name, side in sides.items():
            found = scores(side(), data.classes())
            results.append({"shots": shots, "side": name} | found)
            rows.append((shots, name, *found.values()))
            print(*rows[-1], flush=True)
    table(("shots", "side", "accuracy", "+-", "nll", "brier", "ece"), rows)
    settings = {"ways": WAYS, "queries": QUERIES, "episodes": 50 if quick else 600}
    result = {"machine": about, "settings": settings, "cost": cost}
    write("meta_glyphs", result | {"train_cpu_s": seconds, "scores": results}, quick)


if __name__ == "__main__":
    main()
