# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Five letters, one example each
#
# You see one example of each of five letters, in a script that you cannot read. Which of
# the five is the next one? You will often be right, because you have seen other letters:
# you know how images of one letter differ, and how letters differ from each other.
#
# A hierarchical model learns the same. With features $\varphi(x)$ of an image $x$,
#
# $$\theta_c \sim N(\mu, \Sigma), \qquad
#   \varphi(x) \sim N(\theta_c, W) \quad \text{for images } x \text{ of letter } c.$$
#
# $W$ is how images of a letter differ from its mean $\theta_c$, and $\Sigma$ is how these
# means differ. Both are learned from many letters of other scripts.
#
# This notebook shows what they are worth with one example of a letter, and whether the
# probabilities are true.
#
# It takes a minute or less. A second run is faster, because compiled programs are kept.

# %%
import jax
import matplotlib.pyplot as plt
import numpy as np
import scipy.linalg

import probkit as pk
from probkit import plots
from probkit.models import meta
from probkit.plots.style import COLOURS, INK

pk.use_compilation_cache()
key = jax.random.key(0)

# %% [markdown]
# ## The task
#
# `meta.glyphs` draws letters with the fonts of Matplotlib, 20 images of each: in several
# typefaces, turned, sheared, stretched and shifted. Its two parts have no script in common.
# Those of `"held out"` are, among others, Hebrew, Georgian and Lao.
#
# A task is five letters with a few examples of each, the *support*, and fifteen other
# images of each to recognise, the *queries*. We draw a hundred tasks.

# %%
ways, size, copies = 5, 28, 20
letters = meta.glyphs("held out")
tasks = meta.Tasks(
    letters.images, letters.labels, ways, 5, 15, key=jax.random.key(7), batch_size=100
).at(0)
true = tasks.classes()
counts = (1, 2, 5)


def with_examples(data, count):
    """The same tasks and queries, with fewer examples of each letter."""
    return meta.Shots(data.support[:, :, :count], data.query)


def sheet(images, *, rows=(), columns=(), width=5.2):
    """Images, `(rows, columns, size, size)`, in one picture, and its axes."""
    framed = np.pad(images, [(0, 0), (0, 0), (1, 1), (1, 1)], constant_values=0.25)
    apart = np.pad(framed, [(0, 0), (0, 0), (2, 2), (2, 2)])
    r, c, step, _ = apart.shape
    _, ax = plt.subplots(figsize=(width, width * r / c), layout="constrained")
    whole = apart.swapaxes(1, 2).reshape(r * step, c * step)
    ax.imshow(whole, cmap="gray_r", vmin=0, vmax=1)
    middle = (np.arange(max(r, c)) + 0.5) * step - 0.5
    ax.set_xticks(middle[: len(columns)], columns)
    ax.set_yticks(middle[: len(rows)], rows)
    ax.tick_params(length=0, labelcolor=INK, labeltop=True, labelbottom=False)
    ax.spines[:].set_visible(False)
    return ax, middle


here = 0
asked = np.random.default_rng(1).permutation(len(true))[:10]
examples = np.asarray(tasks.support[here, :, 0])
unknown = np.asarray(tasks.queries()[here, asked])
sheet(
    np.concatenate([examples, unknown]).reshape(3, ways, size, size),
    rows=["known", "which?", "which?"],
    columns=[f"letter {number}" for number in range(ways)],
)
plt.show()

# %% [markdown]
# ## Without other letters
#
# A simple guess is the letter whose example has the most similar pixels. With several
# examples of each, it is the one with the nearest mean.


# %%
def nearest(support, query):
    """The class with the nearest mean of its examples, for each query."""
    mean = np.asarray(support).mean(2).reshape(*support.shape[:2], -1)
    query = np.asarray(query).reshape(*query.shape[:2], -1)
    apart = (mean**2).sum(-1)[:, None] - 2 * query @ mean.swapaxes(1, 2)
    return apart.argmin(-1)


def right(found):
    return np.mean(found == true)


accuracy = {
    "pixels": [right(nearest(tasks.support[:, :, :k], tasks.queries())) for k in counts]
}
print(f"right with one example: {accuracy['pixels'][0]:.0%}, by chance {1 / ways:.0%}")

# %% [markdown]
# ## What other letters teach
#
# The training part has 1385 letters and symbols of other scripts. Here are three of them,
# eight images of each:

# %%
others = meta.glyphs("training")
of_letters = others.images.reshape(-1, copies, size, size)
sheet(of_letters[[3, 420, 640], :8], width=6.4)
plt.show()

# %% [markdown]
# Features are 40 principal components, the directions in which all these images differ
# most. $\mu$, $\Sigma$ and $W$ are fitted to the images of all training letters. The means
# $\theta_c$ are integrated out, which is exact here.

# %%
components = meta.principal_components(others.images, 40)
of_image = jax.jit(jax.vmap(components))


def features(images):
    """Of images with any axes in front."""
    found = of_image(images.reshape(-1, size, size))
    return np.asarray(found).reshape(*images.shape[:-2], -1)


x = features(of_letters)
# One task with all letters. Support and queries count alike in this fit.
data = meta.Shots(x[None, :, :1], x[None, :, 1:])
# The bound is more than a million nats, and single precision does not resolve one.
method = meta.Episodic(num_draws=20, atol=10)
fitted = pk.fit(meta.GaussianClasses(), data, method, key=key)
pk.diagnose(fitted)

# %% [markdown]
# What did it learn? Here is the mean image of a letter, moved along the two directions in
# which images of the same letter differ most ($W$), and the two in which means of letters
# differ most ($\Sigma$):

# %%
posterior = fitted.posterior.mean(("chain", "draw"))
mean, within = posterior["population_mean"].values, posterior["within"].values
between = posterior["covariance"].values


def images_of(features):
    flat = np.asarray(components.mean + features @ components.matrix)
    return flat.reshape(*flat.shape[:-1], size, size)


sds = np.array([-2, -1, 0, 1, 2])
moved = []
for covariance in (within, between):
    variances, directions = np.linalg.eigh(covariance)
    for j in (-1, -2):
        shift = np.sqrt(variances[j]) * directions[:, j]
        moved += [images_of(x[3].mean(0) + sds[:, None] * shift)]
sheet(
    np.stack(moved),
    rows=["within 1", "within 2", "between 1", "between 2"],
    columns=[f"{s:+d} sd" if s else "mean" for s in sds],
)
plt.show()

# %% [markdown]
# Nobody told it that the same letter may be bolder or lighter, or lie further to the left.
# It is what images of one letter have in common over 1385 letters.
#
# ## What is believed of a letter
#
# Given $K$ examples with mean $\bar\varphi$, the mean of a letter is expected at
#
# $$m = \mu + \Sigma \, (\Sigma + W / K)^{-1} (\bar\varphi - \mu).$$
#
# The deviation of the examples from the mean of all letters counts by a share. It is near
# one along directions in which letters differ much more than images of the same letter, and
# near zero in the opposite case.

# %%
ratio = scipy.linalg.eigh(between, within, eigvals_only=True)
for k in counts:
    share = ratio / (ratio + 1 / k)
    print(
        f"{k} known: shares {share.min():.2f} to {share.max():.2f}, "
        f"above a half along {np.sum(share > 0.5)} of {len(share)} directions"
    )

small = meta.Shots(features(tasks.support), features(tasks.query))
support = np.asarray(small.support[here])
believed = []
for k in (1, 5):
    weight = between @ np.linalg.inv(between + within / k)
    believed += [images_of(mean + (support[:, :k].mean(1) - mean) @ weight.T)]
later = images_of(np.asarray(small.query[here]).mean(1))
sheet(
    np.stack([examples, *believed, later]),
    rows=["example", "believed, 1 known", "believed, 5 known", "mean of 15 others"],
    width=6.0,
)
plt.show()

# %% [markdown]
# After one example the model expects something between this letter and the mean of all. It
# does not copy the slant or the weight of the one image that it saw.
#
# ## Which of the five?
#
# The probability of each letter, for the queries of the first picture, with one example of
# each letter known:


# %%
def probabilities(fitted, data):
    found = pk.predict(fitted, data, key=key)["probability"]
    return found.mean(("chain", "draw")).values


predicted = {k: probabilities(fitted, with_examples(small, k)) for k in counts}
shown = predicted[1][here, asked].T
cells = np.zeros((ways + 1, len(asked) + 1, size, size))
cells[1:, 0], cells[0, 1:] = examples, unknown
cells[1:, 1:] = 0.4 * shown[..., None, None]
ax, middle = sheet(cells, width=6.4)
text = {"ha": "center", "va": "center", "fontsize": "small", "color": INK}
ax.text(middle[0], middle[0], "asked →\nknown ↓", **text | {"fontsize": "x-small"})
for (letter, column), p in np.ndenumerate(shown):
    x_cell, y_cell = middle[column + 1], middle[letter + 1]
    ax.text(x_cell, y_cell, f"{p:.2f}", **text)
    if letter == true[asked[column]]:
        corner = x_cell - size / 2 - 1, y_cell - size / 2 - 1
        frame = {"fill": False, "edgecolor": COLOURS[0], "linewidth": 2}
        ax.add_patch(plt.Rectangle(corner, size + 2, size + 2, **frame))
plt.show()

# %% [markdown]
# The right letter of each query has a blue frame.
#
# Three ways to guess, in all hundred tasks:
#
# - `pixels`: the nearest mean of the examples, as above.
# - `W alone`: the nearest mean of the features, in units of $W$. It knows how images of a
#   letter differ, but takes the mean of the examples for that of the letter.
# - `hierarchy`: the largest probability of the fit, which knows $\Sigma$ too.


# %%
root = np.linalg.cholesky(np.linalg.inv(within))
accuracy["W alone"] = [
    right(nearest(small.support[:, :, :k] @ root, small.queries() @ root)) for k in counts
]
accuracy["hierarchy"] = [right(predicted[k].argmax(-1)) for k in counts]


def nll(probability):
    return -np.log(probability[:, np.arange(len(true)), true]).mean()


print("examples known " + "".join(f"{k:>6}" for k in counts))
for name, values in accuracy.items():
    print(f"{name:<15}" + "".join(f"{value:>6.0%}" for value in values))
print(f"{'hierarchy, NLL':<15}" + "".join(f"{nll(predicted[k]):>6.2f}" for k in counts))
print(f"NLL of equal probabilities: {np.log(ways):.2f}")

# %% [markdown]
# To know $W$ does not help by itself. Along most directions one example is nearly
# worthless, and `W alone` trusts it along all of them alike. To know which directions
# distinguish letters is worth more than a second example. The more examples there are, the
# less there is to gain.
#
# ## Are the probabilities true?
#
# If they are, then of all queries whose most probable letter has a probability of 0.8,
# eight in ten are that letter.

# %%
fig, axes = plt.subplots(1, 2, figsize=(7.2, 3.6), layout="constrained")
for ax, k in zip(axes, (1, 5), strict=True):
    plots.reliability(predicted[k], true, ax, num_bins=8)
    ax.set_title(f"{k} known: {ax.get_title('left')}", loc="left", fontsize="medium")
plt.show()

# %% [markdown]
# They are too large: the points lie below the line, with one example by 0.1 on average. The
# model says that images of each letter are normally distributed about its mean, with the
# same covariance for all letters. A letter in eleven typefaces is not.
#
# They also hold for these five letters only. Here are queries of another task, which are
# none of the five:

# %%
strange = np.roll(small.queries(), 1, axis=0)
given = {"support": with_examples(small, 1).support, "query": strange}
found = probabilities(fitted, given)
print(f"mean probability of the most probable letter: {predicted[1].max(-1).mean():.2f}")
print(f"for queries that are none of the five: {found.max(-1).mean():.2f}")

# %% [markdown]
# The model has to choose, and is almost as sure. Its probabilities do not say whether a
# query is one of the five at all.
#
# ## To take away
#
# - One example is enough if you know how classes differ, and how examples of one class do.
#   Both are learned from *other* classes.
# - This prior matters most with one example, and less with each further one.
# - Check the probabilities on classes that had no part in the fit.
#
# To try:
#
# 1. 20 and 80 components. Which have the lower NLL with one example, and which are right
#    more often?
# 2. Fit $W$ and $\Sigma$ to the first 50 training letters, `x[None, :50]`. What is worse
#    then, accuracy or NLL?
# 3. Learn the features too. Components were chosen to reproduce images, not to recognise
#    letters. A small network makes new features of them, and its weights follow the log
#    probability of the right letter in training tasks:
#
#    ```python
#    import equinox as eqx
#
#    scale = x.std()
#    net = eqx.nn.MLP(40, 32, 256, 1, key=key)
#    training = meta.Tasks(
#        x.reshape(-1, 40) / scale, others.labels, 20, 1, 4, key=key, batch_size=4
#    )
#    method = meta.Episodic(max_steps=1000, num_draws=20)
#    learned = pk.fit(meta.GaussianClasses(net), training, method, key=key, throw=False)
#    ```
#
#    Divide features of the queries by `scale` as well. How many are right with one example
#    now, and are the probabilities nearer the truth?
