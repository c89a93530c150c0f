"""The peer of `funbat.py`: the FunBaT authors' own code, one task from standard input.

It runs in an environment of its own, with torch, tensorly, matplotlib and PyYAML, which has
no probkit. The code is `github.com/xuangu-fang/Functional-Bayesian-Tucker-Decomposition`;
settings come from its `config` folder. The answer is JSON, in the last line.
"""

import json
import os
import sys
import time


def prepare(folder):
    """What newer versions of NumPy lack, and the path of the authors' modules."""
    import numpy as np

    for module, name, value in ((np, "product", np.prod), (np.lib, "utils", None)):
        if not hasattr(module, name):
            setattr(module, name, value)
    sys.path.insert(0, folder)
    os.chdir(folder)


def data_of(task):
    """Their dictionary of data: distinct coordinates, by number and by value."""
    import numpy as np

    x, new = (np.array(task[k]) * task["length"] for k in ("x", "new"))
    found = {"tr_ind_CONTI": x, "te_ind_CONTI": new}
    forth, back, unseen, sizes, numbers = [], [], [], [], []
    for k in range(x.shape[1]):
        values, places = np.unique(np.append(x[:, k], new[:, k]), return_inverse=True)
        forth.append({value: i for i, value in enumerate(values)})
        back.append(dict(enumerate(values)))
        unseen.append(sorted(set(places[len(x) :]) - set(places[: len(x)])))
        sizes.append(len(values))
        numbers.append(places)
    both = np.stack(numbers, 1)
    return found | {
        "tr_ind_DISCT": both[: len(x)],
        "te_ind_DISCT": both[len(x) :],
        "tr_y": np.array(task["y"]).reshape(-1, 1),
        "te_y": np.zeros((len(new), 1)),
        "CONTI_2_DISCT_dicts": forth,
        "DISCT_2_CONTI_dicts": back,
        "never_seen_test_idx": unseen,
        "ndims": sizes,
    }


def fit(task):
    """Sweeps in their order, each timed; then the predictions of means."""
    prepare(task["reference"])
    import model_continues_mode_tensor as models
    import torch
    import utils_continues
    import yaml

    kind = task["model"]
    with open(f"config/config_{task['config']}_{kind}.yaml") as file:
        settings = utils_continues.make_hyper_dict(yaml.safe_load(file))
    settings["R_U"], settings["device"] = task["rank"], torch.device("cpu")
    torch.set_num_threads(1)
    torch.manual_seed(321)
    data = data_of(task)
    data["LDS_continues_mode_paras"] = utils_continues.make_LDS_continues_mode_paras(
        settings, data
    )
    model = getattr(models, f"Continues_Mode_Tensor_{kind}")(settings, data)
    seconds = []
    for _ in range(task["sweeps"] or settings["epoch"]):
        begun = time.perf_counter()
        model.reset()
        modes = range(model.nmods)
        for mode in modes:
            model.msg_approx_U(mode)
            if settings["CEP_UPDATE_INNNER_MODE"]:
                model.LDS_update(mode)
                model.post_update_U(mode)
        if not settings["CEP_UPDATE_INNNER_MODE"]:
            for mode in modes:
                model.LDS_update(mode)
                model.post_update_U(mode)
        if kind == "Tucker":
            model.msg_approx_gamma()
            model.post_update_gamma()
        model.msg_approx_tau()
        model.post_update_tau()
        seconds.append(time.perf_counter() - begun)
    model.post_merge_U()
    mean, _ = model.model_test(model.te_ind_DISCT, model.te_y)
    return {
        "mean": mean.reshape(-1).tolist(),
        "noise_sd": float(model.E_tau) ** -0.5,
        "seconds_per_sweep": seconds,
        "torch": torch.__version__,
    }


if __name__ == "__main__":
    task = json.load(sys.stdin)
    out, sys.stdout = sys.stdout, sys.stderr  # their prints are no part of the answer
    print(json.dumps(fit(task)), file=out)
