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
# # An image from few numbers
#
# A camera may take fewer numbers than its picture has pixels, if each number is a mixture
# of many pixels and we know something of pictures. This notebook recovers a photograph
# from about half as many, and asks what matters more: *how sure are we of each pixel,
# and is that true?*
#
# It takes a minute or less; a second run is quicker, as compiled programs are kept.

# %%
import jax
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.cbook import get_sample_data
from scipy.fft import idct
from scipy.stats import norm

import probkit as pk
from probkit.models import sbl

pk.enable_x64()
pk.use_compilation_cache()
key = jax.random.key(0)
rng = np.random.default_rng(0)

# %% [markdown]
# ## The photograph
#
# Rear Admiral Grace Hopper, who wrote one of the first compilers; an official photograph
# of the U.S. Navy, in the public domain, that comes with matplotlib. Here it is in grey,
# from 0 (black) to 1 (white), on 64 by 64 pixels.

# %%
photo = plt.imread(get_sample_data("grace_hopper.jpg", asfileobj=False))
grey = photo[20:404, 64:448].mean(axis=2) / 255
size = 64
image = grey.reshape(size, 6, size, 6).mean(axis=(1, 3))


def show(pictures, **style):
    """Pictures side by side, each under its name."""
    fig, axes = plt.subplots(
        1, len(pictures), figsize=(3 * len(pictures), 3.2), layout="constrained"
    )
    for ax, (name, picture) in zip(np.atleast_1d(axes), pictures.items(), strict=True):
        drawn = ax.imshow(picture, **style)
        ax.set(title=name, xticks=[], yticks=[])
    if "cmap" not in style:
        fig.colorbar(drawn, ax=axes, shrink=0.8)
    plt.show()


show({"the photograph": image}, cmap="gray", vmin=0, vmax=1)
# %% [markdown]
# ## The numbers
#
# Such a camera weighs the rows of the picture $X$ with random signs and adds them up, 48
# times over, and the same for its columns:
#
# $$Y = \Phi_1 X \Phi_2^\top + \text{noise}.$$
#
# That makes $48^2 = 2304$ numbers, 56 % of the number of pixels, with noise on top.

# %%
noise_sd = 0.02


def take(number):
    """Random codes for rows and columns, and the numbers taken with them."""
    codes = [rng.choice([-1.0, 1.0], size=(number, size)) / np.sqrt(size) for _ in range(2)]
    clean = codes[0] @ image @ codes[1].T
    return codes, clean + noise_sd * rng.normal(size=clean.shape)


codes, y = take(48)
print(f"{y.size} numbers for {image.size} pixels: {y.size / image.size:.0%}")

# %% [markdown]
# Countless pictures agree with them. Least squares takes the smallest one, which is what
# one gets who knows nothing of pictures:

# %%
smallest = np.linalg.pinv(codes[0]) @ y @ np.linalg.pinv(codes[1]).T


def rms_error(picture):
    return np.sqrt(np.mean((picture - image) ** 2))


show({"what was taken": y, "smallest picture": smallest}, cmap="gray")
print(f"root mean square error of the smallest picture: {rms_error(smallest):.3f}")

# %% [markdown]
# ## What we know of pictures
#
# A picture is a sum of waves, $X = D_1 C D_2^\top$, where the columns of $D$ are cosines of
# rising frequency (the discrete cosine transform, as in JPEG). Few of its coefficients $C$
# are large, and nobody tells us which. So let each have a variance of its own to be
# learned, and let the variance be a product, one factor for the frequency down and one
# for the frequency across:
#
# $$C_{ij} \sim N(0,\ \tau^2 \lambda_i^2 \rho_j^2), \qquad
#   Y = (\Phi_1 D_1)\, C\, (\Phi_2 D_2)^\top + \text{noise}.$$
#
# Two spectra of 64 numbers each, and the noise, are learned from 2304 numbers, instead of
# 4096 variances. They are chosen by the *evidence*, the probability of the data when the
# coefficients are averaged out: type-II maximum likelihood, or sparse Bayesian learning.

# %%
waves = idct(np.eye(size), norm="ortho", axis=0)
data = sbl.Measurements(y, [code @ waves for code in codes], modes=("down", "across"))
model = sbl.KroneckerSBL()
method = sbl.TypeII(prune=None, search=0, num_restarts=1, atol=0.1, max_steps=5000)
fitted = pk.fit(model, data, method, key=key)
pk.diagnose(fitted)

# %% [markdown]
# Why not plain `sbl.TypeII()`? That *searches* for few atoms among many, and *prunes*: a
# wave that is not worth its price in evidence is taken out, and from then on counts as
# known to be absent. But a photograph has a little of every wave. We shall see what
# pruning would cost.
#
# The spectra that it found, and the noise, which nobody told it:

# %%
fig, ax = plt.subplots(figsize=(6.4, 3), layout="constrained")
for mode in data.modes:
    ax.semilogy(fitted.sites()[f"local_scale_{mode}"], label=mode)
ax.set(xlabel="frequency (half waves per picture)", ylabel="scale", ylim=(1e-4, 2))
ax.legend()
plt.show()
print(f"noise: {float(fitted.sites()['noise_sd']):.4f}, in truth {noise_sd}")

# %% [markdown]
# ## The picture, and how sure we are of it
#
# Given the two spectra the coefficients are normal, all 4096 together, and so are the
# pixels. Their means and standard deviations come out exactly. The covariance would be a
# matrix of $4096^2$ entries; with Kronecker structure nobody writes it down.


# %%
def mean_and_sd(fitted, data):
    mean, variance = fitted.model.posterior(fitted.sites(), data).at([waves, waves])
    return np.asarray(mean), np.sqrt(variance)


mean, sd = mean_and_sd(fitted, data)
show(
    {"the photograph": image, "smallest": smallest, "posterior mean": mean},
    cmap="gray",
    vmin=0,
    vmax=1,
)
for name, picture in {"smallest": smallest, "posterior mean": mean}.items():
    print(f"root mean square error, {name}: {rms_error(picture):.3f}")

# %%
show({"standard deviation": sd})
# %% [markdown]
# Look at this map before reading on. It is a tartan of rows and columns of which more or
# less was learned. There is no cap in it, no spectacles. The standard
# deviation of a normal posterior depends on the codes and the spectra, and *not* on the
# numbers that were read there.
#
# ## Is it true?
#
# Here the truth is at hand. If the standard deviations are right, then a band of 1.645 of
# them on either side holds the pixel nine times in ten.

# %%
z = (image - mean) / sd
inside = np.abs(z) < 1.645
print(f"pixels inside their 90 % band: {inside.mean():.1%}")

# %% [markdown]
# Near enough, it seems. But a band can be right on average and right nowhere. How steep
# the picture is at each pixel splits the smooth background from the edges:

# %%
steepness = np.hypot(*np.gradient(image))
half, top = np.quantile(steepness, [0.5, 0.9])
for name, where in {
    "smoother half": steepness <= half,
    "in between": (steepness > half) & (steepness <= top),
    "steepest tenth": steepness > top,
}.items():
    print(f"{name:>14}: {inside[where].mean():.1%} inside")

show({"|error| / standard deviation": np.abs(z)}, vmin=0, vmax=4)

# %% [markdown]
# The errors sit on cap, spectacles and collar. The model knows *one* spectrum for each
# axis and uses it for the whole picture, edges and background alike. In the background,
# which is smoother than that, the bands are too wide; at the edges they are too narrow.
# The average comes out right because the noise and the spectra were fitted to the average.
#
# A second reason is common to all type-II estimates: the 130 hyperparameters are held at
# their best values, as if they were known. From 2304 numbers they nearly are.
#
# ## Which prior? Take a few numbers more
#
# Three versions: as above; pruned; and with *neighbours* coupled, so that each frequency
# borrows half of the variance of the next ones, as spectra of pictures are smooth.
#
# The evidence at its maximum cannot choose here. Smooth spectra are some of all spectra,
# so that their best evidence is never higher; a maximum always votes for freedom. Without
# the truth, one asks numbers that the fit has not seen: 16 by 16 of them, with new codes.
# For these the posterior has a mean and a standard deviation too, and their *log score* is
# the mean log density that it gives them, the higher the better.

# %%
coupled = sbl.KroneckerSBL(coupling=dict.fromkeys(data.modes, 0.5))
pruning = sbl.TypeII(search=0, num_restarts=1, atol=0.1, max_steps=5000)
versions = {
    "as above": fitted,
    "pruned": pk.fit(model, data, pruning, key=key),
    "neighbours": pk.fit(coupled, data, method, key=key),
}
new_codes, new_y = take(16)
scores = {}
for name, version in versions.items():
    sites = version.sites()
    posterior = version.model.posterior(sites, data)
    new_mean, variance = posterior.at([code @ waves for code in new_codes])
    spread = np.sqrt(variance + sites["noise_sd"] ** 2)
    scores[name] = norm.logpdf(new_y, new_mean, spread).ravel()
    gap = scores[name] - scores["as above"]
    mean, sd = mean_and_sd(version, data)
    held = np.mean(np.abs(image - mean) < 1.645 * sd)
    print(
        f"{name:>10}: log evidence {version.facts['evidence']:.0f}, "
        f"log score {scores[name].mean():.3f} "
        f"({gap.mean():+.3f} ± {gap.std() / np.sqrt(gap.size):.3f}), "
        f"rms error {rms_error(mean):.3f}, 90 % band holds {held:.1%}"
    )

# %% [markdown]
# In brackets is the difference to the first version, with its standard error.
#
# Pruning costs evidence by design, and the bands pay for it: what is taken out has no
# standard deviation left, and the new numbers say so. Coupling has less evidence than the
# first version, as it must; the new numbers do not hold that against it, and its picture
# is a little better. Some of the freedom of the first version went into fitting noise.
#
# ## To take away
#
# - With a prior that learns its spectra, about half as many numbers as pixels make a
#   picture; without one they do not.
# - A map of standard deviations is a claim. Check it where the truth is known, and check
#   it *in places*, not on average alone.
# - Prune to find a few atoms; do not prune for honest bands.
#
# To try:
#
# 1. Take 32 numbers an axis instead of 48, a quarter of the pixels. Do the bands notice?
# 2. Replace the codes by a blur, `scipy.linalg.toeplitz(np.exp(-0.5 * np.arange(64) ** 2))`
#    for each axis. All numbers are taken now, and some waves are lost all the same: which,
#    and does the map of standard deviations know?
