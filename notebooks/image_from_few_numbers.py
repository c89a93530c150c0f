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
# A camera can measure fewer numbers than its picture has pixels, if each number is a sum
# over many pixels and we know something about pictures. This notebook recovers a photograph
# from about half as many numbers as pixels. It then asks a question that matters more: *how
# uncertain is each pixel, and is that uncertainty right?*
#
# It takes a minute or less. A second run is faster, because compiled programs are kept.

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
# The photograph shows Rear Admiral Grace Hopper, who wrote one of the first compilers. It
# is an official photograph of the U.S. Navy, in the public domain, and comes with
# matplotlib. Here it is in grey, from 0 (black) to 1 (white), on 64 by 64 pixels.

# %%
photo = plt.imread(get_sample_data("grace_hopper.jpg", asfileobj=False))
grey = photo[20:404, 64:448].mean(axis=2) / 255
size = 64
image = grey.reshape(size, 6, size, 6).mean(axis=(1, 3))


def show(pictures, **style):
    """Draw pictures side by side, each with its name."""
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
# Such a camera multiplies the rows of the picture $X$ by random signs and adds them up, 48
# times, each time with other signs. It does the same with the columns:
#
# $$Y = \Phi_1 X \Phi_2^\top + \text{noise}.$$
#
# These are $48^2 = 2304$ numbers, 56 % of the number of pixels, and they have noise.

# %%
noise_sd = 0.02


def take(number):
    """Random codes for rows and columns, and the numbers measured with them."""
    codes = [rng.choice([-1.0, 1.0], size=(number, size)) / np.sqrt(size) for _ in range(2)]
    clean = codes[0] @ image @ codes[1].T
    return codes, clean + noise_sd * rng.normal(size=clean.shape)


codes, y = take(48)
print(f"{y.size} numbers for {image.size} pixels: {y.size / image.size:.0%}")

# %% [markdown]
# Infinitely many pictures agree with these numbers. Least squares gives the smallest of
# them. It uses no knowledge about pictures:

# %%
smallest = np.linalg.pinv(codes[0]) @ y @ np.linalg.pinv(codes[1]).T


def rms_error(picture):
    return np.sqrt(np.mean((picture - image) ** 2))


show({"the numbers": y, "smallest picture": smallest}, cmap="gray")
print(f"root mean square error of the smallest picture: {rms_error(smallest):.3f}")

# %% [markdown]
# ## What we know about pictures
#
# A picture is a sum of waves, $X = D_1 C D_2^\top$, where the columns of $D$ are cosines of
# increasing frequency (the discrete cosine transform, as in JPEG). Few of its coefficients
# $C$ are large, and we do not know which. So each coefficient has its own variance. It is a
# product of one factor for the frequency down and one for the frequency across:
#
# $$C_{ij} \sim N(0,\ \tau^2 \lambda_i^2 \rho_j^2), \qquad
#   Y = (\Phi_1 D_1)\, C\, (\Phi_2 D_2)^\top + \text{noise}.$$
#
# So instead of 4096 variances we estimate two spectra of 64 numbers each, and the noise,
# from 2304 numbers. The estimates maximise the *evidence*, which is the probability of the
# data with the coefficients integrated out. This is type-II maximum likelihood, or sparse
# Bayesian learning.

# %%
waves = idct(np.eye(size), norm="ortho", axis=0)
data = sbl.Measurements(y, [code @ waves for code in codes], modes=("down", "across"))
model = sbl.KroneckerSBL()
method = sbl.TypeII(prune=None, search=0, num_restarts=1, atol=0.1, max_steps=5000)
fitted = pk.fit(model, data, method, key=key)
pk.diagnose(fitted)

# %% [markdown]
# Why not plain `sbl.TypeII()`? That *searches* for few atoms among many, and *prunes*: it
# removes a wave that does not add enough evidence, and then treats it as known to be
# absent. But a photograph has a little of every wave. The last section shows what pruning
# costs.
#
# These are the estimated spectra and the estimated noise:

# %%
fig, ax = plt.subplots(figsize=(6.4, 3), layout="constrained")
for mode in data.modes:
    ax.semilogy(fitted.sites()[f"local_scale_{mode}"], label=mode)
ax.set(xlabel="frequency (half waves per picture)", ylabel="scale", ylim=(1e-4, 2))
ax.legend()
plt.show()
print(f"noise sd: {float(fitted.sites()['noise_sd']):.4f} (true value {noise_sd})")

# %% [markdown]
# ## The picture, and its uncertainty
#
# Given the two spectra, all 4096 coefficients are jointly normal, and so are the pixels.
# Their means and standard deviations are computed exactly. The covariance would be a matrix
# of $4096^2$ entries. Because of the Kronecker structure it is never formed.


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
# Look at this map before you read on. It is a pattern of rows and columns, because the data
# determine some rows and columns better than others. It does not show the cap or the
# spectacles. The standard deviation of a normal posterior depends on the codes and the
# spectra, and *not* on the measured numbers.
#
# ## Are these intervals right?
#
# Here we know the truth. If the standard deviations are right, then the interval of 1.645
# standard deviations on either side of the mean contains the pixel nine times in ten.

# %%
z = (image - mean) / sd
inside = np.abs(z) < 1.645
print(f"pixels inside their 90 % interval: {inside.mean():.1%}")

# %% [markdown]
# That seems close enough. But intervals can be right on average and wrong everywhere. We
# separate the smooth background from the edges by the slope of the picture at each pixel:

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
# The errors are on the cap, the spectacles and the collar. The model has *one* spectrum per
# axis and uses it for the whole picture, edges and background alike. In the background,
# which is smoother than this spectrum says, the intervals are too wide. At the edges they
# are too narrow. The average is right because the noise and the spectra were fitted to the
# whole picture.
#
# A second problem is common to all type-II estimates: the 130 hyperparameters are held at
# their best values, as if they were known. Here 2304 numbers determine them well.
#
# ## Which prior? Measure a few more numbers
#
# We compare three versions: as above, pruned, and with *neighbours* coupled. Coupling adds
# half of the variance of each neighbouring frequency to that of a frequency, because
# spectra of pictures are smooth.
#
# The maximum of the evidence cannot decide here. Smooth spectra are a subset of all
# spectra, so their maximum is never higher. Even without the truth, we can compare
# predictions of numbers that the fit has not used: 16 by 16 of them, with new codes. The
# posterior gives each a mean and a standard deviation. The *log score* is the mean log
# density of the new numbers under these, and higher is better.

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
        f"rms error {rms_error(mean):.3f}, 90 % interval covers {held:.1%}"
    )

# %% [markdown]
# In brackets is the difference from the first version, with its standard error.
#
# Pruning lowers the evidence by design, and the intervals become too narrow, because a wave
# that was removed has a standard deviation of zero. The log score of the new numbers is
# therefore lower. Coupling has less evidence than the first version, as it must. Its log
# score is not lower, and its picture is a little better. So the first version had used some
# of its freedom to fit noise.
#
# ## To take away
#
# - With a prior whose spectra are estimated, about half as many numbers as pixels are
#   enough for a picture. Without it they are not.
# - A map of standard deviations is a claim. Check it where the truth is known, and check it
#   *in different places*, not only on average.
# - Prune to find a few atoms. Do not prune if you need intervals that are right.
#
# To try:
#
# 1. Measure 32 numbers per axis instead of 48. These are a quarter of the number of pixels.
#    Do the intervals become wider?
# 2. Replace the codes by a blur, `scipy.linalg.toeplitz(np.exp(-0.5 * np.arange(64) ** 2))`
#    for each axis. Now there are as many numbers as pixels, and still some waves are lost.
#    Which ones, and does the map of standard deviations show it?
