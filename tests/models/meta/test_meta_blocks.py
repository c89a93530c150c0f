"""Which weights of a network are in one block, and what the prior of a block is."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from doors import refused
from probkit.models.meta.blocks import (
    DiagonalBlock,
    FullBlock,
    MatrixBlock,
    as_structure,
    blocks_of,
    check_structure,
    joined,
)
from probkit.models.meta.leaves import Leaves

NET = eqx.nn.MLP(2, 1, 3, 2, key=jax.random.key(0))
LEAVES = Leaves.of(NET, None)
STRENGTH = jnp.asarray(1e-3)


def blocks(structure, net=NET, leaves=LEAVES):
    loc = leaves.vector(net)
    sds = [jnp.full(size, float(i + 1)) for i, size in enumerate(leaves.sizes)]
    structure = as_structure(structure)
    return blocks_of(leaves, structure, loc, jnp.concatenate(sds), STRENGTH)


def kinds(found):
    return [(type(b), b.label, b.size) for b in found]


@pytest.mark.parametrize(
    "structure, kind", [("diagonal", DiagonalBlock), ("full", FullBlock)]
)
def test_one_block_has_no_label(structure, kind):
    (found,) = blocks(structure)
    assert kinds([found]) == [(kind, None, 6 + 3 + 9 + 3 + 3 + 1)]
    assert found.prior.loc == pytest.approx(np.asarray(LEAVES.vector(NET)))
    assert list(found.dims()) == ["between_sd" if kind is DiagonalBlock else "covariance"]


def test_a_block_per_array():
    found = blocks("block")
    assert [b.label for b in found] == list(LEAVES.names)
    assert all(type(b) is FullBlock for b in found)
    assert [b.size for b in found] == list(LEAVES.sizes)
    assert [float(b.prior.sd[0]) for b in found] == [1, 2, 3, 4, 5, 6]
    loc = jnp.concatenate([b.prior.loc for b in found])
    assert loc == pytest.approx(np.asarray(LEAVES.vector(NET)))


def test_rows_and_columns_of_matrices_and_a_covariance_of_vectors():
    found = blocks("kronecker")
    assert [type(b) for b in found] == [
        MatrixBlock,
        FullBlock,
        MatrixBlock,
        FullBlock,
        FullBlock,  # one row
        FullBlock,
    ]
    first = found[0].prior
    assert first.rows.sd.tolist() == [1, 1, 1] and first.columns.sd.tolist() == [1, 1]
    sites = ["row_covariance_layers.0.weight", "column_covariance_layers.0.weight"]
    assert list(found[0].dims()) == sites
    assert set(found[0].coords()) == {a for axes in found[0].dims().values() for a in axes}


def test_a_kernel_of_a_convolution_is_a_matrix_of_its_outputs():
    net = eqx.nn.Conv2d(2, 3, 2, key=jax.random.key(1))
    leaves = Leaves.of(net, ["weight"])
    (found,) = blocks("kronecker", net, leaves)
    assert len(found.prior.rows.sd) == 3 and len(found.prior.columns.sd) == 2 * 2 * 2


def test_beginnings_choose_structures():
    found = blocks({"layers.2": "full", "layers.1.weight": "kronecker"})
    assert kinds(found) == [
        (DiagonalBlock, "layers.0.weight", 6),
        (DiagonalBlock, "layers.0.bias", 3),
        (MatrixBlock, "layers.1.weight", 9),
        (DiagonalBlock, "layers.1.bias", 3),
        (FullBlock, "layers.2", 4),
    ]
    assert found[-1].own.labels()[-1] == "layers.2.bias[0]"


@pytest.mark.parametrize("structure", ["diagonal", "full", "kronecker"])
def test_a_belief_begins_at_a_share_of_the_scale(structure):
    found = blocks(structure)
    begun = [b.begun(0.3) for b in found]
    spread = joined(found, [b.prior_of_episode() for b in begun])
    eye = jnp.eye(LEAVES.vector(NET).size)
    expected = jnp.concatenate(
        [0.3 * (i + 1) * jnp.ones(k) for i, k in enumerate(LEAVES.sizes)]
    )
    assert jnp.diagonal(spread.times(eye)) == pytest.approx(np.asarray(expected) ** 2)
    draw = eqx.filter_jit(lambda belief: belief.sample(jax.random.key(2)))
    # A draw of the belief is a draw of the sites, and back.
    for block, belief in zip(found, begun, strict=True):
        _, covariance = draw(belief)
        sites = block.drawn(covariance)
        assert list(sites) == list(block.dims())
        own = jnp.eye(block.size)
        back = block.spread(sites).times(own)
        if structure == "kronecker" and isinstance(block, MatrixBlock):
            covariance = jnp.kron(*covariance)
        elif structure == "diagonal":
            covariance = jnp.diag(covariance)
        assert back == pytest.approx(np.asarray(covariance))


def test_a_structure_from_a_file_is_the_same():
    pairs = as_structure({"layers.2": "full"})
    assert as_structure(pairs) == as_structure([list(pair) for pair in pairs]) == pairs


def test_other_structures_are_refused():
    refused(lambda: as_structure("dense"), "'diagonal', 'full', 'block' or 'kronecker'")
    refused(lambda: as_structure(3), "'diagonal', 'full', 'block' or 'kronecker'")
    refused(lambda: as_structure({"layers.0": "dense"}), "'dense'.*it takes")
    both = as_structure({"layers": "full", "layers.0": "diagonal"})
    refused(lambda: check_structure(LEAVES, both), "'layers' and 'layers.0'")
    unknown = as_structure({"layer": "full"})
    refused(lambda: check_structure(LEAVES, unknown), "has 'layer'; .*layers.0.weight")
