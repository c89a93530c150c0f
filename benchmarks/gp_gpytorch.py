"""The peer of `gp_regression.py`: GPyTorch's spectral mixture, and two real series.

It runs in an environment of its own, with gpytorch, statsmodels and pmdarima, which has no
probkit. `series` prints the series; `fit` reads tasks and prints predictions, as JSON.
"""

import json
import sys
import time


def series():
    import numpy as np
    import pmdarima
    import statsmodels.api as sm

    monthly = sm.datasets.co2.load_pandas().data["co2"].resample("MS").mean().dropna()
    passengers = np.asarray(pmdarima.datasets.load_airpassengers(), float)
    return {
        "co2": {
            "t": [d.year + (d.month - 0.5) / 12 for d in monthly.index],
            "y": monthly.tolist(),
        },
        "airline": {
            "t": (1949 + (np.arange(144) + 0.5) / 12).tolist(),
            "y": np.log(passengers).tolist(),
        },
    }


def fit(task):
    """The best of several random starts, by the marginal likelihood; and the first."""
    import gpytorch
    import torch

    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    t, y, new = (torch.tensor(task[name]) for name in ("t", "y", "new"))
    center, scale = y.mean(), y.std()
    values = (y - center) / scale

    class Model(gpytorch.models.ExactGP):
        def __init__(self, likelihood):
            super().__init__(t, values, likelihood)
            self.mean_module = gpytorch.means.ConstantMean()
            self.covar_module = gpytorch.kernels.SpectralMixtureKernel(task["components"])
            getattr(self.covar_module, task["initialise"])(t, values)

        def forward(self, x):
            return gpytorch.distributions.MultivariateNormal(
                self.mean_module(x), self.covar_module(x)
            )

    begun = time.perf_counter()
    found = []
    for _ in range(task["starts"]):
        likelihood = gpytorch.likelihoods.GaussianLikelihood()
        try:
            found.append(one(Model, likelihood, t, values, new, task["steps"]))
        except Exception as error:  # its Cholesky may fail
            print(type(error).__name__, error, file=sys.stderr)
    if not found:
        return None
    if task["starts"] > 1:
        found.append(max(found, key=lambda one: one["objective"]))
    return {
        "seconds": time.perf_counter() - begun,
        **{
            which: {
                "mean": (center + scale * one["mean"]).tolist(),
                "sd": (scale * one["sd"]).tolist(),
                "objective": one["objective"],
            }
            for which, one in (("first", found[0]), ("best", found[-1]))
        },
    }


def one(make, likelihood, t, y, new, steps):
    import gpytorch
    import torch

    model = make(likelihood)
    objective = gpytorch.mlls.ExactMarginalLogLikelihood(likelihood, model)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.1)
    model.train(), likelihood.train()
    for _ in range(steps):
        optimiser.zero_grad()
        loss = -objective(model(t), y)
        loss.backward()
        optimiser.step()
    model.eval(), likelihood.eval()
    with torch.no_grad(), gpytorch.settings.fast_computations(False, False, False):
        predicted = likelihood(model(new))
    if not torch.isfinite(predicted.mean).all():
        raise ValueError("not finite")
    return {
        "mean": predicted.mean,
        "sd": predicted.variance.sqrt(),
        "objective": -loss.item() * len(t),
    }


if __name__ == "__main__":
    if sys.argv[1] == "series":
        print(json.dumps(series()))
    else:
        print(json.dumps([fit(task) for task in json.load(sys.stdin)]))
