"""Names of axes, and labels along them: taken from a program, and checked before a run."""

from typing import Any

import numpy as np

from probkit.model.density import Program, outline, site_shapes, sites_by_row

Dims = dict[str, tuple[str, ...]]
OF_DRAWS = ("chain", "draw")


def dims_of_program(program: Program, data: Any) -> Dims:
    """Names of the axes of every site of a program and of every array of its data.

    An axis of a plate has the plate's name. An axis of an event has its name in
    `infer={"event_dims": [...]}` of the site. The first axis of an array with one row per
    observation has the same name as that axis of the observed sites. Any other axis is
    `<name>_dim_<k>`.

    Args:
        program: a model.
        data: its data.

    Returns:
        `{name: one name per axis}`.
    """
    from arviz_base.io_numpyro import infer_dims

    named = infer_dims(program, (data,), {})
    shapes, _, observed = outline(program, data)
    dims = {name: _filled(name, named.get(name, []), len(shapes[name])) for name in shapes}
    by_row = sites_by_row(program, data)
    row = next((dims[name][0] for name in observed if name in by_row), "observation")
    rows = data.rows()
    for name, array in data.arrays().items():
        if name not in dims:
            dims[name] = _filled(name, [row] if name in rows else [], array.ndim)
    return dims


def _filled(name: str, known: list[str], count: int) -> tuple[str, ...]:
    return (*known, *(f"{name}_dim_{k}" for k in range(len(known), count)))


def counted(program: Program, data: Any, dims: Dims) -> dict[str, np.ndarray]:
    """Labels `0, 1, ...` along every named axis of sites and arrays.

    Args:
        program: a model.
        data: its data.
        dims: names of the axes.

    Returns:
        `{axis: labels}`.
    """
    shapes = site_shapes(program, data) | _shapes_of_arrays(data)
    return {
        axis: np.arange(size)
        for name, shape in shapes.items()
        for axis, size in zip(dims.get(name, ()), shape, strict=False)
    }


def _shapes_of_arrays(data: Any) -> dict[str, tuple[int, ...]]:
    return {name: np.shape(array) for name, array in data.arrays().items()}


def refuse_wrong_labels(model: Any, data: Any) -> None:
    """Refuse names and labels that a labelled tree cannot hold, before any work is done.

    Args:
        model: a model.
        data: its data.

    Raises:
        ValueError: if an axis has no name, or a name that it cannot have, or if labels
            are too many, too few, or not plain values.
    """
    # The program comes first, because it raises its own error for data of another family.
    shapes, latent, observed = outline(model, data)
    shapes = shapes | _shapes_of_arrays(data)
    kind, dims, coords = type(model).__name__, model.dims(data), model.coords(data)
    groups: dict[str, set[str]] = {"posterior": set(), "observed": set(), "constant": set()}
    for name, shape in shapes.items():
        if "/" in name:
            raise ValueError(
                f"`{kind}`: the site `{name}` has a `/` in its name, which means a path "
                'in a tree of results; use another divider, such as ".".'
            )
        in_data = name in data.arrays()
        if name in observed and not in_data:
            continue  # conditioned on and not kept, such as the residual of an equation
        group = "observed" if name in observed else "constant" if in_data else "posterior"
        groups[group].add(name)
        if name in dims:
            _refuse_dims(kind, name, dims[name], shape, coords)
        elif name in latent and shape:
            dims = dims | {name: _filled(name, [], len(shape))}
    for names in groups.values():
        for name in names:
            for axis in dims.get(name, ()):
                if axis in names:
                    raise ValueError(
                        f"`{kind}.dims`: `{axis}` names an axis of `{name}` and also a "
                        "variable, and a tree of results can hold only one of them; give "
                        "the axis another name."
                    )


def _refuse_dims(kind: str, name: str, axes: Any, shape: tuple[int, ...], coords) -> None:
    if isinstance(axes, str) or not all(isinstance(axis, str) for axis in axes):
        raise ValueError(
            f"`{kind}.dims` has {axes!r} for `{name}`; it takes a tuple of names, one per "
            'axis, such as `("observation",)`.'
        )
    if len(axes) != len(shape):
        raise ValueError(
            f"`{kind}.dims` names {len(axes)} axes of `{name}`, {tuple(axes)}, but it has "
            f"shape {shape}; give one name per axis."
        )
    if len(set(axes)) < len(axes):
        raise ValueError(
            f"`{kind}.dims` gives two axes of `{name}` one name, {tuple(axes)}; give each "
            "axis of a variable its own."
        )
    for axis, size in zip(axes, shape, strict=True):
        if axis in OF_DRAWS:
            raise ValueError(
                f"`{kind}.dims` calls an axis of `{name}` `{axis}`, which is the name of "
                "an axis of the draws; give it another name."
            )
        if axis in coords:
            _refuse_labels(kind, axis, coords[axis], name, size)


def _refuse_labels(kind: str, axis: str, given: Any, name: str, size: int) -> None:
    try:
        labels = np.asarray(given)
    except ValueError:  # tuples of unequal length
        labels = np.zeros((0, 0))
    nested = (tuple, list, dict, set)
    if labels.ndim != 1 or any(isinstance(label, nested) for label in labels.tolist()):
        raise ValueError(
            f"`{kind}.coords`: the labels of `{axis}` are not plain values; give one "
            'number or text per entry, such as `["a, 1", "a, 2"]` in place of tuples.'
        )
    if len(labels) != size:
        raise ValueError(
            f"`{kind}.coords` has {len(labels)} labels for `{axis}`, but `{name}` has "
            f"{size} entries along it; give one label per entry."
        )
