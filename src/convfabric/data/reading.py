"""One image file to one array, under named rules. Needs numpy and Pillow alone.

The source of :data:`SHARED` is also written into every ``predict.py``, so that a file is seen the same way, or refused
in the same words, in training and on the device.
"""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from convfabric.errors import DataError

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm", ".jfif")
GREY_MODES = ("1", "L", "LA", "La", "I", "F", "I;16", "I;16B", "I;16L", "I;16N")
HONEST = ("JPEG", "PNG", "BMP", "PPM", "WEBP")
"""Formats whose header says the size and mode that the pixels have."""
USUAL = (1.0, 255.0, 1023.0, 4095.0, 16383.0, 65535.0)
"""The highest values of floats, and of integers of 8, 10, 12, 14 and 16 bits."""
SIDEWAYS = (2, 4, 5, 6)
"""The ways of turning, as Pillow counts them, that swap width and height."""
Pixels = NDArray[np.uint8]
Bounds = tuple[float, float]
"""The values of pixels, of more than 8 bits or floats, that become black and white."""
SIXTEEN_BITS = (0.0, 65535.0)


@contextmanager
def opened(path: Any, most_pixels: int = 100_000_000) -> Iterator[Any]:
    """An image file, opened by Pillow; ValueError says what is wrong, then or while it is read, whatever it holds."""
    wrong = ""
    if path.is_dir():
        wrong = "a folder, not an image."
    elif not path.exists():
        wrong = "no such file."
    elif not path.is_file():
        wrong = "a pipe or a device, not a file."
    elif path.stat().st_size == 0:
        wrong = "zero bytes long."
    try:
        if wrong:
            raise ValueError(wrong)
        with Image.open(path) as image:
            if image.width * image.height > most_pixels:
                wrong = f"{image.width}×{image.height} pixels; {most_pixels / 1e6:.0f} million are read at most."
                raise ValueError(wrong)
            yield image
    except UnidentifiedImageError:
        raise ValueError("not an image that Pillow can read.") from None
    except Image.DecompressionBombError:
        raise ValueError(f"enormous; {most_pixels / 1e6:.0f} million pixels are read at most.") from None
    except Exception as fault:  # of a damaged file decoders raise anything
        raise ValueError(wrong or f"truncated or damaged ({str(fault) or type(fault).__name__}).") from None


def loaded(path: Any) -> tuple[Any, list[str]]:
    """The first frame of an image file as a Pillow image, turned upright, with the rules applied to it.

    Raises ValueError that says what is wrong.
    """
    rules = []
    with opened(path) as image:
        if getattr(image, "n_frames", 1) > 1:
            rules.append("several frames or pages: the first taken")
            image.seek(0)
        if ";16" in str(image.tile) and image.mode[0] != "I":
            rules.append("16 bits a channel: the upper 8 taken")
        image.load()
        wide = rules[-1:] == ["16 bits a channel: the upper 8 taken"]
        ways, kind, dark = upright_ways(image), image.format, wide and np.asarray(image).max() < 16
        white_is_zero = kind == "TIFF" and image.tag_v2.get(262) == 0 and image.mode[:4] == "I;16"
        image = image.copy()
    if white_is_zero:  # Pillow turns 8 bits round, and leaves 16 as they are
        rules.append("white is 0: turned round")
        image = Image.fromarray(np.uint16(65535) - np.asarray(image).astype(np.uint16))
    if dark:
        raise ValueError("16 bits a channel, of which the upper 4 are not used; convert it to 8 bits.")
    for way in ways:
        rules.append("EXIF orientation: turned upright")
        image = image.transpose(way)
    image.format = kind
    return image, rules


def upright_ways(image: Any) -> list[Any]:
    """How an opened image has to be turned, as its EXIF says it; not at all where that cannot be read."""
    turns = Image.Transpose
    ways = {2: turns.FLIP_LEFT_RIGHT, 3: turns.ROTATE_180, 4: turns.FLIP_TOP_BOTTOM, 5: turns.TRANSPOSE}
    ways |= {6: turns.ROTATE_270, 7: turns.TRANSVERSE, 8: turns.ROTATE_90}
    try:
        return [ways[image.getexif()[0x0112]]]
    except Exception:  # whatever stands there, the pixels are sound
        return []


def scaled(values: Any, bounds: Any) -> Any:
    """Numbers of more than 8 bits, or floats, as uint8, so that bounds become 0 and 255; beyond them nothing is seen.

    ValueError where one is not finite.

    >>> scaled(np.array([0, 255, 300]), (0, 255)).tolist(), scaled(np.array([0.0, 0.5, 1.0]), (0, 1)).tolist()
    ([0, 255, 255], [0, 128, 255])
    """
    if not np.isfinite(values).all():
        raise ValueError("some pixels are no finite numbers.")
    low, high = bounds
    above = np.clip(np.asarray(values, dtype=np.float64), low, high) - low
    if values.dtype.kind in "iu" and high - low >= 255:
        return (above * 256 // (high - low + 1)).astype(np.uint8)
    return (above * 255 / max(high - low, 1e-30) + 0.5).astype(np.uint8)


def flattened(image: Any, rules: list[str]) -> Any:
    """A Pillow image without palette, alpha or other colours than grey or red, green, blue; rules are noted.

    >>> flattened(Image.new("CMYK", (3, 2)), []).mode
    'RGB'
    """
    if image.mode == "P":
        rules.append("palette: colours looked up")
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    if image.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
        rules.append(f"{image.mode}: converted to RGB")
        image = image.convert("RGB")
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        rules.append("alpha: laid on white")
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (255, 255, 255, 255)), image).convert("RGB")
    return image


def upright_array(path: Any, channels: int, bounds: Any) -> tuple[Any, list[str]]:
    """An image file as uint8 (height, width, channels), channels 1 or 3, with the rules applied to it.

    ``bounds``: the values, of pixels of more than 8 bits or of floats, that become black and white.
    Raises ValueError that says what is wrong, whatever the file holds.
    """
    image, rules = loaded(path)
    if image.mode[0] in "IF":
        kind = "floating-point pixels" if image.mode == "F" else "pixels of more than 8 bits"
        rules.append(f"{kind}: {bounds[0]:g} to {bounds[1]:g} are black to white")
        values = np.asarray(image)
        if image.mode == "F" and values.min() < values.max() <= 1 < bounds[1]:
            low, high = values.min(), values.max()
            raise ValueError(
                f"floating-point pixels from {low:g} to {high:g}, where {bounds[0]:g} to {bounds[1]:g} are black to "
                "white: bring all images to one range."
            )
        image = Image.fromarray(scaled(values, bounds))
    image = flattened(image, rules)
    array = np.asarray(image.convert("L" if channels == 1 else "RGB"))
    return array.reshape(*array.shape[:2], channels), rules


def scaled_size(given: Any, size: Any, fitting: str) -> Any:
    """The height and width that an image is scaled to before it is cut or padded, see :func:`fitted_array`.

    >>> scaled_size((4, 8), (2, 2), "cover"), scaled_size((4, 8), (2, 2), "pad")
    ((2, 4), (1, 2))
    """
    if fitting == "stretch" or tuple(given) == tuple(size):
        return tuple(size)
    ratios = (size[0] / given[0], size[1] / given[1])
    ratio = max(ratios) if fitting == "cover" else min(1.0, *ratios)
    return max(1, round(given[0] * ratio)), max(1, round(given[1] * ratio))


def placement(given: Any, size: Any, fitting: str) -> Any:
    """What left, top, right and bottom are multiplied by, and what is added, when an image is brought to a size.

    >>> placement((4, 8), (2, 2), "pad")
    ((0.25, 0.25, 0.25, 0.25), (0, 1, 0, 1))
    >>> placement((4, 8), (4, 4), "cover")
    ((1.0, 1.0, 1.0, 1.0), (-2, 0, -2, 0))
    """
    scaled = scaled_size(given, size, fitting)
    times, shift = [scaled[at] / given[at] for at in (1, 0)], [-((scaled[at] - size[at]) // 2) for at in (1, 0)]
    return (*times, *times), (*shift, *shift)


def fitted_array(array: Any, size: Any, fitting: str) -> Any:
    """A uint8 array (height, width, channels) brought to a size (height, width).

    cover: scaled until both sides are covered, centre kept. stretch: scaled side by side.
    pad: centred on black, scaled down first where it is larger.

    >>> fitted_array(np.zeros((4, 8, 3), np.uint8), (2, 2), "cover").shape
    (2, 2, 3)
    """
    if array.shape[:2] == tuple(size):
        return array
    image = Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)
    scaled = scaled_size(array.shape[:2], size, fitting)[::-1]
    if scaled != image.size:
        image = image.resize(scaled, Image.Resampling.BILINEAR)
    left, top = (image.width - size[1]) // 2, (image.height - size[0]) // 2
    image = image.crop((left, top, left + size[1], top + size[0]))
    return np.asarray(image).reshape(*size, -1)


SHARED = (opened, loaded, upright_ways, scaled, flattened, upright_array, scaled_size, placement, fitted_array)
"""What ``predict.py`` reads files with."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """Facts on an image before it is read."""

    width: int
    height: int
    grey: bool
    span: Bounds | None = None
    """The lowest and highest value, of pixels of more than 8 bits or of floats."""


@contextmanager
def no_warnings() -> Iterator[None]:
    """Pillow's warnings dropped, as the rules that were applied say what matters.

    Warning filters are the process's: threads that each set and put back theirs undo one another's, so whoever starts
    threads that read images enters this around them.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def named_faults(path: Path) -> Iterator[None]:
    """What is wrong with a file as a DataError that names it."""
    try:
        with no_warnings():
            yield
    except DataError:
        raise
    except ValueError as fault:
        raise DataError(f"{path}: {fault}") from None


def is_turned(path: Path, ways: Sequence[int] = range(7)) -> bool:
    """Whether the EXIF of a file turns it, in one of some ways as Pillow counts them; DataError where it is none."""
    with named_faults(path), opened(path) as image:
        return any(way in ways for way in upright_ways(image))


def look(path: Path) -> Look:
    """Size and kind of an image, from its pixels, or from a header that is known to say the same.

    Raises DataError, naming the file, where there is none.
    """
    with named_faults(path):
        with opened(path) as image:
            turned = any(way in SIDEWAYS for way in upright_ways(image))
            known, mode, (width, height) = image.format in HONEST, image.mode, image.size[:: -1 if turned else 1]
        if known and mode[0] not in "IF":
            return Look(width=width, height=height, grey=mode in GREY_MODES)
        found, _ = loaded(path)
        span = _span(np.asarray(found)) if found.mode[0] in "IF" else None
        return Look(width=found.width, height=found.height, grey=found.mode in GREY_MODES, span=span)


def _span(values: NDArray[Any]) -> Bounds:
    scaled(values, SIXTEEN_BITS)
    return float(values.min()), float(values.max())


def usual_bounds(spans: Iterable[Bounds]) -> Bounds:
    """The values that become black and white in images that span these: 0 to the highest of a usual kind, or their own.

    It is of floats 1, of integers that of 8, 10, 12, 14 or 16 bits, where at least a quarter of it is used.

    >>> usual_bounds([(0.0, 3900.0), (12.0, 4095.0)]), usual_bounds([(0.0, 0.9)]), usual_bounds([(-1000.0, 3000.0)])
    ((0.0, 4095.0), (0.0, 1.0), (-1000.0, 3000.0))
    """
    spans = list(spans)
    low, high = min(low for low, _ in spans), max(high for _, high in spans)
    usual = next((most for most in USUAL if high <= most), high)
    return (0.0, usual) if low >= 0 and 4 * (high - low) >= usual else (low, high)


def read_picture(path: Path, channels: int, bounds: Bounds = SIXTEEN_BITS) -> tuple[Pixels, list[str]]:
    """The pixels of a file, uint8 (height, width, channels), and the rules that were applied.

    Raises DataError, naming the file, for one that cannot be read whole.
    """
    with named_faults(path):
        return upright_array(path, channels, bounds)


def fitted_mask(mask: NDArray[np.uint8], size: tuple[int, int], fitting: str, ignore: int) -> NDArray[np.uint8]:
    """A mask brought to a size by its nearest pixels, as :func:`fitted_array` does images; what is padded is ignored.

    >>> fitted_mask(np.eye(2, dtype=np.uint8), (4, 4), "pad", 255)[0].tolist()
    [255, 255, 255, 255]
    """
    if mask.shape == size:
        return mask
    if fitting == "stretch":
        rows = ((2 * np.arange(size[0]) + 1) * mask.shape[0] // (2 * size[0]))[:, None]
        cols = ((2 * np.arange(size[1]) + 1) * mask.shape[1] // (2 * size[1]))[None]
        stretched: NDArray[np.uint8] = mask[rows, cols]
        return stretched
    scaled = scaled_size(mask.shape, size, fitting)
    mask = fitted_mask(mask, scaled, "stretch", ignore)
    top, left = (scaled[0] - size[0]) // 2, (scaled[1] - size[1]) // 2
    canvas = np.full(size, ignore, dtype=np.uint8)
    inside = mask[max(top, 0) : max(top, 0) + size[0], max(left, 0) : max(left, 0) + size[1]]
    canvas[max(-top, 0) : max(-top, 0) + inside.shape[0], max(-left, 0) : max(-left, 0) + inside.shape[1]] = inside
    return canvas
