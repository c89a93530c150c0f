"""Letters: what they are, and that training and test have none in common."""

import unicodedata

import numpy as np
import pytest

from doors import WHOLE, refused
from probkit.models import meta
from probkit.models.meta.glyphs import different, script_of

# Small images, drawn once.
SIZE, COPIES = 20, 3


def letters(part):
    return meta.glyphs(part, size=SIZE, copies=COPIES)


def test_images_are_ink_on_paper():
    for part in ("training", "held out"):
        found = letters(part)
        n = len(found.labels)
        assert found.images.shape == (n, SIZE, SIZE) and found.images.dtype == np.float32
        assert found.images.min() == 0 and found.images.max() <= 1
        assert found.images.reshape(n, -1).sum(1).min() > 1  # no empty image
        assert (np.unique(found.labels, return_counts=True)[1] == COPIES).all()
        # The middle of the ink is near the middle of the image.
        at = np.arange(SIZE) + 0.5
        ink = found.images.sum((1, 2))
        across = found.images.sum(1) @ at / ink / SIZE
        assert abs(across.mean() - 0.5) < 0.02


def test_scripts_are_of_one_part():
    training, held = (set(letters(part).scripts) for part in ("training", "held out"))
    assert {"LATIN", "GREEK", "CYRILLIC", "ARROWS"} <= training
    assert {"HEBREW", "GEORGIAN", "LAO", "TIFINAGH"} <= held
    assert not training & held
    assert not set(letters("training").labels) & set(letters("held out").labels)


def test_there_are_as_many_classes_as_the_docstring_has():
    for part, count in (("training", 1385), ("held out", 423)):
        # Another version of Matplotlib may have other characters.
        assert abs(len(set(letters(part).labels)) / count - 1) < 0.05


def test_a_shape_counts_for_the_first_script_that_has_it():
    labels = set(letters("training").labels) | set(letters("held out").labels)
    assert "A" in labels and "\u0391" not in labels and "\u0410" not in labels
    assert "\u00e9" not in labels  # é, composed of e and an accent
    assert "\u0434" in labels and "\u05d0" in labels


def test_equal_shapes_are_found():
    rng = np.random.default_rng(0)
    shapes = rng.uniform(size=(4, 6, 6))
    shapes[2] = shapes[0] + 1e-3 * rng.uniform(size=(6, 6))  # almost the same
    shapes[3] = 0.0
    assert different(shapes) == [0, 1]


def test_scripts_follow_from_names():
    names = {"A": "LATIN", "я": "CYRILLIC", "א": "HEBREW", "→": "ARROWS", "∑": "OPERATORS"}
    assert {text: script_of(ord(text)) for text in names} == names
    assert script_of(ord("é")) is None and script_of(ord("7")) is None
    assert unicodedata.category("7") == "Nd"


def test_equal_arguments_give_the_same_images_and_others_do_not():
    found = letters("held out")
    assert letters("held out").images is found.images
    with pytest.raises(ValueError, match="read-only"):
        found.images[0] = 0
    other = meta.glyphs("held out", size=SIZE, copies=COPIES, seed=1)
    assert other.images.shape == found.images.shape
    assert (other.labels == found.labels).all()
    assert np.abs(other.images - found.images).mean() > 0.01


BAD = {
    "another part": (lambda: meta.glyphs("test"), r"part='test'.*'training' or 'held out'"),
    "no part": (lambda: meta.glyphs(None), r"part=None"),
    "a size of text": (lambda: meta.glyphs("training", size="28"), WHOLE.format(8)),
    "a small size": (lambda: meta.glyphs("training", size=4), WHOLE.format(8)),
    "no copies": (lambda: meta.glyphs("training", copies=0), WHOLE.format(1)),
    "a seed below zero": (lambda: meta.glyphs("training", seed=-1), WHOLE.format(0)),
}


@pytest.mark.usefixtures("no_checker")
@pytest.mark.parametrize("name", BAD)
def test_settings_are_refused(name):
    refused(*BAD[name])
