r"""Letters of many scripts in many typefaces, drawn with the fonts that Matplotlib ships.

They are for tasks such as "here is one image of each of five letters; which of the five is
this one?". In training and in a test the letters come from different scripts.
"""

import math
import unicodedata
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from probkit.validate import short, whole

Part = Literal["training", "held out"]

# Scripts, by the first word of the Unicode names of letters, or by a block of symbols. A
# shape that several scripts share counts for the first of them.
TRAINING = (
    *("LATIN", "GREEK", "CYRILLIC", "CANADIAN", "LISU"),
    *("ARROWS", "OPERATORS"),
)
HELD_OUT = ("ARMENIAN", "GEORGIAN", "HEBREW", "ARABIC", "LAO", "NKO", "TIFINAGH", "COPTIC")
BLOCKS = {
    "ARROWS": range(0x2190, 0x2200),
    "OPERATORS": range(0x2200, 0x2300),
}
LETTERS = ("Lu", "Ll", "Lo")
# The font with most characters, in which shapes are compared; and all fonts. Slanted sans
# serif ones are left out: the distortions slant enough.
REFERENCE = "DejaVuSans"
FONTS = (
    *(REFERENCE, "DejaVuSans-Bold", "DejaVuSansMono", "DejaVuSansMono-Bold"),
    *("DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic"),
    *("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta"),
)
# Two characters are one shape if the pixels of their drawings have this correlation.
SAME = 0.95
# The longer side of a character, as a share of the image, before it is distorted.
FILLED = 0.7
# Pixels of a drawing per pixel of the image, so that the distorted one stays sharp.
FINER = 1.3
# Sds of the distortions: angle and shear (radians), logarithm of the size along each axis,
# shift (shares of the image).
TURN, SHEAR, STRETCH, SHIFT = 0.15, 0.15, 0.1, 0.04
# Images per round, so that arrays stay in the cache of the processor.
AT_ONCE = 256


class Glyphs(NamedTuple):
    """Images of characters.

    Attributes:
        images: `(n, size, size)`, 0 for paper and 1 for ink, float32.
        labels: the character of each, `(n,)`.
        scripts: the script of each, `(n,)`, such as `HEBREW`.
    """

    images: np.ndarray
    labels: np.ndarray
    scripts: np.ndarray


def glyphs(part: Part, *, size: int = 28, copies: int = 20, seed: int = 0) -> Glyphs:
    """Images of letters and symbols, `copies` of each in different fonts and distortions.

    A class is a character. Its images differ by the font (2 to 11 of them), and by a random
    turn, shear, stretch and shift. Letters composed of others, such as é, are left out, and
    so are characters of the same shape as an earlier one, such as a Greek Alpha after the
    Latin A. Classes per script, with Matplotlib 3.11 and images of 28 pixels:

    - `"training"`, 1385: 398 Latin, 48 Greek, 190 Cyrillic, 379 Canadian and 10 Lisu; 111
      arrows and 249 operators.
    - `"held out"`, 423: 62 Armenian, 119 Georgian, 28 Hebrew, 95 Arabic, 35 Lao, 28 N'Ko,
      44 Tifinagh and 12 Coptic.

    Args:
        part: `"training"` or `"held out"`.
        size: rows and columns of each image, in pixels.
        copies: the number of images per class.
        seed: of the distortions. Equal seeds give equal images.

    Returns:
        The images with their labels. They are kept, and equal arguments give the same
        arrays, which are read-only.

    Raises:
        ValueError: for another part, or settings that are no whole numbers.
    """
    if part not in ("training", "held out"):
        raise ValueError(
            f"`glyphs(part={short(part)})`: it takes 'training' or 'held out'."
        )
    size = whole("glyphs(size", 8)(size)
    copies = whole("glyphs(copies", 1)(copies)
    return _glyphs(size, copies, whole("glyphs(seed", 0)(seed))[part]


@lru_cache(maxsize=2)
def _glyphs(size: int, copies: int, seed: int) -> dict[str, Glyphs]:
    found, drawings, first = _drawings(round(FINER * FILLED * size))
    rng = np.random.default_rng(seed)
    counts = np.diff([*first, len(drawings)])
    # The fonts of a character in turn, in an order of its own.
    own = [rng.permutation(np.resize(np.arange(k), copies)) for k in counts]
    picked = (np.asarray(first)[:, None] + np.stack(own)).ravel()
    images = _distorted(drawings, picked, size, rng)
    labels = np.repeat([chr(char) for _, char in found], copies)
    scripts = np.repeat([script for script, _ in found], copies)
    held = np.isin(scripts, HELD_OUT)
    parts = {"training": ~held, "held out": held}
    return {
        name: Glyphs(*map(_read_only, (images[rows], labels[rows], scripts[rows])))
        for name, rows in parts.items()
    }


@lru_cache(maxsize=2)
def _drawings(box: int) -> tuple[list[tuple[str, int]], np.ndarray, list[int]]:
    """Characters with their scripts, all drawings, and the first drawing of each."""
    pen = _Pen(box)
    found = pen.characters()
    return found, *pen.drawn([char for _, char in found])


def _read_only(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


class _Pen:
    """The fonts, and how characters are drawn with them.

    Args:
        box: the longer side of a character, in pixels.
    """

    def __init__(self, box: int):
        import matplotlib
        from matplotlib.ft2font import FT2Font

        folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
        self.box = box
        self.fonts = {name: FT2Font(str(folder / f"{name}.ttf")) for name in FONTS}
        self.known = {name: set(font.get_charmap()) for name, font in self.fonts.items()}

    def characters(self) -> list[tuple[str, int]]:
        """Script and number of each character whose shape did not come before."""
        every = [(script_of(char), char) for char in self.known[REFERENCE]]
        order = (*TRAINING, *HELD_OUT)
        known = [
            (script, char)
            for script, char in every
            if script and sum(char in known for known in self.known.values()) > 1
        ]
        known.sort(key=lambda pair: (order.index(pair[0]), pair[1]))
        shapes = np.stack([self.draw(REFERENCE, char) for _, char in known])
        return [known[i] for i in different(shapes)]

    def drawn(self, chars: list[int]) -> tuple[np.ndarray, list[int]]:
        """All drawings, one character after another, and the first of each."""
        drawings: list[np.ndarray] = []
        first: list[int] = []
        for char in chars:
            first.append(len(drawings))
            every = (self.draw(n, char) for n in FONTS if char in self.known[n])
            # A font may have a character in its table, and no shape for it.
            drawings += [drawing for drawing in every if drawing.any()]
        return np.stack(drawings), first

    def draw(self, name: str, char: int) -> np.ndarray:
        """A character in the middle of a square, its longer side as long as the box."""
        from matplotlib.ft2font import LoadFlags

        font, box, side = self.fonts[name], self.box, self.box + 4
        flags, dpi = LoadFlags.NO_HINTING, 72
        font.set_size(box, dpi)
        left, low, right, high = font.load_char(char, flags=flags).bbox
        longer = max(right - left, high - low) / 64
        if longer == 0:
            return np.zeros((side, side), np.uint8)
        font.set_size(box * box / longer, dpi)
        glyph = font.load_char(char, flags=flags)
        x0, y0, x1, y1 = (edge / 64 for edge in glyph.bbox)
        image = np.zeros((side, side), np.uint8)
        # Matplotlib adds the bearing of the glyph, and draws on whole pixels.
        x = round((side - (x1 - x0)) / 2 - x0)
        y = round((side - (y1 - y0)) / 2 - (math.ceil(y1) - y1))
        font.draw_glyph_to_bitmap(image, x, y, glyph)
        return image


def script_of(char: int) -> str | None:
    """The script of a character by its number, or None for one that is not used."""
    for block, numbers in BLOCKS.items():
        if char in numbers:
            return block
    text = chr(char)
    if unicodedata.category(text) not in LETTERS or unicodedata.decomposition(text):
        return None
    word = unicodedata.name(text, "").partition(" ")[0]
    return word if word in TRAINING or word in HELD_OUT else None


def different(shapes: np.ndarray) -> list[int]:
    """The numbers of the drawings that are unlike all before them, and not empty.

    Args:
        shapes: `(n, rows, columns)`.
    """
    flat: np.ndarray = shapes.reshape(len(shapes), -1).astype(np.float32)
    flat = flat - flat.mean(1, keepdims=True)
    size = np.linalg.norm(flat, axis=1)
    flat = flat / np.where(size > 0, size, 1.0)[:, None]
    like = np.tril(flat @ flat.T > SAME, -1)
    kept = np.zeros(len(shapes), bool)
    for i in np.flatnonzero(size > 0):
        kept[i] = not (like[i] & kept).any()
    return [int(i) for i in np.flatnonzero(kept)]


def _distorted(
    drawings: np.ndarray, picked: np.ndarray, size: int, rng: np.random.Generator
) -> np.ndarray:
    """Images of drawings under random affine maps, by linear interpolation."""
    n, side = len(picked), drawings.shape[1]
    at = (np.arange(size) + 0.5) / size - 0.5
    places = np.stack(np.meshgrid(at, at, indexing="ij")).reshape(2, -1)
    grid = places.astype(np.float32)
    # From shares of the image to pixels of the drawing.
    maps, shift = _random_maps(n, (side - 4) / FILLED, rng)
    middle, last = np.float32((side - 1) / 2), np.float32(side - 1.001)
    ink = (drawings.astype(np.float32) / 255).ravel()
    images = np.empty((n, size * size), np.float32)
    for begin in range(0, n, AT_ONCE):
        rows = slice(begin, begin + AT_ONCE)
        corner = (picked[rows, None] * side**2).astype(np.int32)
        weights = []
        for axis, step in ((0, side), (1, 1)):
            place = maps[rows, :, axis] @ grid
            place += (middle - shift[rows, axis])[:, None]
            # The rim of a drawing has no ink, and stands for all beyond it.
            np.clip(place, 0, last, out=place)
            cell = place.astype(np.int32)
            weights.append(place - cell)
            corner = corner + cell * np.int32(step)
        down, right = weights
        found = _between(ink, corner, right)
        found += down * (_between(ink, corner + np.int32(side), right) - found)
        images[rows] = found
    return images.reshape(n, size, size)


def _between(ink: np.ndarray, corner: np.ndarray, right: np.ndarray) -> np.ndarray:
    here = ink.take(corner)
    return here + right * (ink.take(corner + np.int32(1)) - here)


def _random_maps(
    n: int, scale: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Inverse linear maps, for row vectors, and shifts, times a scale."""
    angle, shear = TURN * rng.normal(size=n), SHEAR * rng.normal(size=n)
    stretch = np.exp(STRETCH * rng.normal(size=(n, 2)))
    turn = np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], -1)
    slant = np.tile(np.eye(2), (n, 1, 1))
    slant[:, 1, 0] = np.tan(shear)
    whole_map = turn.reshape(n, 2, 2) @ slant * stretch[:, None]
    inverse = scale * np.linalg.inv(whole_map).transpose(0, 2, 1)
    shift = scale * SHIFT * rng.normal(size=(n, 2))
    return inverse.astype(np.float32), shift.astype(np.float32)
