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
# # Water between the readings
#
# Temperature in the sea depends on the place and the depth. Readings are scattered: not
# every place has every depth, and the depths are not evenly spaced. This notebook fits a
# *functional CP model* to such readings,
#
# $$f(\text{place}, \text{depth}) = l + g_1(\text{place}) + g_2(\text{depth})
#   + \sum_r s_r\, u_r(\text{place})\, v_r(\text{depth}),$$
#
# whose functions are Gaussian processes: of latitude and longitude together, and of depth.
# It then checks the answer on readings that were held out.
#
# It takes a minute or less. A second run is faster, because compiled programs are kept.

# %%
import jax
import matplotlib.pyplot as plt
import numpy as np
from sklearn.ensemble import ExtraTreesRegressor

import probkit as pk
from probkit.models import tucker

pk.enable_x64()
pk.use_compilation_cache()
key = jax.random.key(0)
BLUE, RED = "#4477AA", "#EE6677"

# %% [markdown]
# ## The data
#
# Deep water of the tropical Atlantic in December 1984, at 48 places and 15 depths, less
# what lies below the sea floor: 687 values. They are of an ocean *model* into which
# measurements were assimilated (GODAS), and so smoother than measurements. We keep 250 at
# random, as if a few ships had read them, and hold out the rest. Depth enters as its
# logarithm, because water changes fast near the top and slowly near the bottom.

# %%
table = pk.datasets.atlantic().temperature.to_dataframe().reset_index().dropna()
table["log_depth"] = np.log(table.depth)
kept = np.random.default_rng(0).permutation(len(table)) < 250
readings, held_out = table[kept], table[~kept]

modes = {"place": ["latitude", "longitude"], "depth": "log_depth"}
data = tucker.Entries.from_table(readings, modes, "temperature")
print({axis.name: f"{axis.kind} of {len(axis)} points" for axis in data.axes})

# %% [markdown]
# ## The fit
#
# Two components, although one may be enough. The scale of a component that the data do not
# need becomes small.

# %%
model = tucker.CP(rank=2)
method = tucker.MessagePassing(num_starts=2, max_steps=80, num_draws=300, num_warmup=150)
fitted = pk.fit(model, data, method, key=key, throw=False)
pk.diagnose(fitted)

# %% [markdown]
# One check asks for a look: only one of two starts found the best optimum, so that there
# may be a better one. Gibbs sampling goes on from there. It would reach the exact posterior
# from a poor start too, but later.
#
# How many components do the data support? Compare the spread of each part of the surface:

# %%
draws = ("chain", "draw")
curves = pk.recover(fitted, key=key)
place, depth = (np.asarray(data.places[:, k]) for k in range(2))
u, v = (curves[f"factor_{name}"].values[0] for name in ("place", "depth"))
parts = {
    "depth alone": curves["effect_depth"].values[0][:, depth],
    "place alone": curves["effect_place"].values[0][:, place],
}
for r in range(2):
    product = u[:, place, r] * v[:, depth, r]
    parts[f"component {r + 1}"] = fitted.posterior.scale.values[0][:, r, None] * product
for name, part in parts.items():
    low, mid, high = np.quantile(part.std(1), [0.05, 0.5, 0.95])
    print(f"{name:>12}: sd {mid:.2f} °C (90 % from {low:.2f} to {high:.2f})")

# %% [markdown]
# ## Curves and maps, with their uncertainty
#
# Depth explains most. What is left is a few tenths of a degree, and it is what a mean over
# places cannot show.

# %%
asked = tucker.grid(data)  # all places and all depths of the data
new = pk.predict(fitted, asked, key=key)
surface = asked.labelled(new["surface"])
levels, places = np.exp(surface.depth.values), np.asarray(data.axes[0].points)

fig, axes = plt.subplots(1, 3, figsize=(9.6, 3.4), layout="constrained")
order = np.argsort(places[:, 0])
for name, i, colour in (("south", order[0], BLUE), ("north", order[-1], RED)):
    low, mid, high = surface[:, :, i].quantile([0.05, 0.5, 0.95], draws).values
    axes[0].fill_betweenx(levels, low, high, color=colour, alpha=0.3, lw=0)
    axes[0].plot(mid, levels, color=colour, label=name)
axes[0].set(xlabel="temperature (°C)", ylabel="depth (m)", ylim=(900, 300))
axes[0].legend()
at = surface[:, :, :, 2]
for ax, title, values in zip(
    axes[1:], ("mean", "sd"), (at.mean(draws), at.std(draws)), strict=True
):
    image = ax.scatter(places[:, 1], places[:, 0], c=values, s=120, marker="s")
    fig.colorbar(image, ax=ax, label="°C")
    ax.set(xlabel="longitude", ylabel="latitude", title=f"{title} at {levels[2]:.0f} m")
plt.show()

# %% [markdown]
# ## Held-out readings, and plain rivals
#
# The rivals are the mean of each depth, an additive model (a constant per depth and one per
# place, by least squares), and extra trees.


# %%
def rms(predicted):
    return np.sqrt(np.mean((predicted - truth) ** 2))


truth = held_out.temperature.values
# Where each of them is on the grid: the places of both are those of the data.
found = tucker.queries(data, held_out)
at = [np.asarray(found.seen[k])[np.asarray(found.places[:, k])] for k in range(2)]
y = new["y"].values[0][:, *at]
low, high = np.quantile(y, [0.05, 0.95], axis=0)
inside = (low <= truth) & (truth <= high)
print(f"functional CP: rms error {rms(new['surface'].values[0][:, *at].mean(0)):.3f} °C")
print(
    f"its 90 % intervals hold {inside.mean():.1%}; mean width {(high - low).mean():.2f} °C"
)

of_depth = readings.groupby("depth").temperature.mean()
print(f"mean of the depth: {rms(of_depth.reindex(held_out.depth).values):.3f} °C")


def indicators(rows):
    "One column per place and one per depth."
    place = rows.latitude + 1000 * rows.longitude
    of_place = place.values[:, None] == np.unique(table.latitude + 1000 * table.longitude)
    of_depth = rows.depth.values[:, None] == np.unique(table.depth)
    return np.hstack([of_place, of_depth]).astype(float)


constants = np.linalg.lstsq(indicators(readings), readings.temperature)[0]
print(f"additive: {rms(indicators(held_out) @ constants):.3f} °C")
columns = ["latitude", "longitude", "log_depth"]
trees = ExtraTreesRegressor(200, random_state=0)
trees.fit(readings[columns].values, readings.temperature)
print(f"extra trees: {rms(trees.predict(held_out[columns].values)):.3f} °C")
for name, rows in {"above": held_out.depth < 600, "below": held_out.depth > 600}.items():
    print(f"{name} 600 m: {inside[rows].mean():.1%} of {rows.sum()} are inside")

# %% [markdown]
# The model has the smallest error of the four. A constant per place does not help at all,
# because places differ in opposite directions at different depths. That is what an
# interaction is for.
#
# Below 600 m about nine of ten readings are inside the 90 % intervals. Above, clearly fewer
# are. The model has one noise and one smoothness of place for all depths, and near the top
# water differs more from place to place than that. The intervals are right for the model,
# and the model is too simple there. An average over all depths would have hidden it.
#
# ## To take away
#
# - Give the coordinates as they are. Several columns make a space. Gaps need no filling.
# - The scales of the components, with their uncertainty, show how many the data support.
# - Check intervals on held-out readings, and in parts, not only on average.
#
# To try:
#
# 1. Fit `tucker.CP(1)` and `tucker.CP(3)`. Which has the smaller error on held-out ones?
# 2. Draw from the approximation: `tucker.MessagePassing(draws="approximation")`. Are its
#    intervals wider or narrower, and how many readings are inside?
# 3. Use only depths below 600 m. Are the intervals right then?
# 4. `tucker.CP(2, modes={"depth": tucker.Smooth(2.5)})`: smoother profiles.
