"""One image file to one array, under named rules. Needs numpy and Pillow alone.

The source of :func:`upright_array` and :func:`fitted_array` is also written into every ``predict.py``,
so that a file is seen the same way in training and on the device.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from convfabric.errors import DataError

MOST_PIXELS = 100_000_000
GREY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N")
ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm", ".jfif")


def upright_array(image: Any, channels: int) -> tuple[Any, list[str]]:
    """An opened Pillow image as uint8 (height, width, channels), channels 1 or 3, with the rules applied to it.

    >>> upright_array(Image.new("CMYK", (3, 2)), 3)[1]
    ['CMYK: converted to RGB']
    """
    rules = []
    if getattr(image, "n_frames", 1) > 1:
        rules.append("animated: first frame taken")
        image.seek(0)
    if image.getexif().get(0x0112, 1) != 1:
        rules.append("EXIF orientation: turned upright")
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        rules.append("16-bit: divided by 256")
        image = Image.fromarray((np.asarray(image).clip(0, 65535) // 256).astype(np.uint8))
    if image.mode == "P":
        rules.append("palette: colours looked up")
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    if image.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
        rules.append(f"{image.mode}: converted to RGB")
        image = image.convert("RGB")
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa"):
        rules.append("alpha: laid on white")
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image).convert("L" if channels == 1 else "RGB")
    array = np.asarray(image.convert("L" if channels == 1 else "RGB"))
    return array.reshape(*array.shape[:2], channels), rules


def fitted_array(array: Any, size: Any, fitting: str) -> Any:
    """A uint8 array (height, width, channels) brought to a size (height, width).

    cover: scaled until both sides are covered, centre kept. stretch: scaled side by side.
    pad: centred on black, scaled down first where it is larger.

    >>> fitted_array(np.zeros((4, 8, 3), np.uint8), (2, 2), "cover").shape
    (2, 2, 3)
    """
    height, width = array.shape[:2]
    if (height, width) == tuple(size):
        return array
    image = Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)
    if fitting == "stretch":
        scaled = (size[1], size[0])
    else:
        ratios = (size[0] / height, size[1] / width)
        ratio = max(ratios) if fitting == "cover" else min(1.0, *ratios)
        scaled = (max(1, round(width * ratio)), max(1, round(height * ratio)))
    if scaled != image.size:
        image = image.resize(scaled, Image.Resampling.BILINEAR)
    left, top = (image.width - size[1]) // 2, (image.height - size[0]) // 2
    image = image.crop((left, top, left + size[1], top + size[0]))
    return np.asarray(image).reshape(*size, -1)


@dataclass(frozen=True, kw_only=True)
class Look:
    """Facts from a file's header."""

    width: int
    height: int
    grey: bool


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
def _opened(path: Path) -> Iterator[Image.Image]:
    """The image in a file; every way in which that can fail is a DataError that names the file."""
    try:
        if path.is_dir():
            raise DataError(f"{path}: a folder, not an image.")
        if path.stat().st_size == 0:
            raise DataError(f"{path}: zero bytes long.")
        with no_warnings(), Image.open(path) as image:
            if image.width * image.height > MOST_PIXELS:
                most = f"{MOST_PIXELS / 1e6:.0f} million are read at most"
                raise DataError(f"{path}: {image.width}×{image.height} pixels; {most}.")
            yield image
    except UnidentifiedImageError:
        raise DataError(f"{path}: not an image that Pillow can read.") from None
    except Image.DecompressionBombError:
        raise DataError(f"{path}: enormous; at most {MOST_PIXELS / 1e6:.0f} million pixels are read.") from None
    except FileNotFoundError:
        raise DataError(f"{path}: no such file.") from None
    except DataError:
        raise
    except (OSError, SyntaxError, ValueError, EOFError) as fault:
        raise DataError(f"{path}: truncated or damaged ({fault}).") from None


def look(path: Path) -> Look:
    """Size and kind of an image, from its header; DataError names the file where there is none."""
    with _opened(path) as image:
        grey = image.mode in GREY_MODES
        turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
        width, height = image.size[::-1] if turned else image.size
        return Look(width=width, height=height, grey=grey)


def read_picture(path: Path, channels: int) -> tuple[NDArray[np.uint8], list[str]]:
    """The pixels of a file, uint8 (height, width, channels), and the rules that were applied.

    Raises DataError, naming the file, for one that cannot be read whole.
    """
    with _opened(path) as image:
        if image.mode == "F":
            raise DataError(f"{path}: pixels are floating-point numbers; 8 or 16 bits per channel are read.")
        array, rules = upright_array(image, channels)
    return array, rules


def read_mask(path: Path) -> NDArray[np.uint8]:
    """The class index of each pixel, uint8 (height, width). Palette masks are read by index.

    Raises DataError, naming the file, for a mask of several channels or a value above 255.
    """
    with _opened(path) as image:
        if image.mode not in ("1", "L", "P", "I", "I;16"):
            raise DataError(f"{path}: a mask of mode {image.mode}; one channel that holds the class index is read.")
        values = np.asarray(image)
    if values.max() > 255:
        raise DataError(f"{path}: mask value {values.max()}; class indices from 0 to 255 are read.")
    return values.astype(np.uint8)


def fitted_mask(mask: NDArray[np.uint8], size: tuple[int, int], fitting: str, ignore: int) -> NDArray[np.uint8]:
    """A mask brought to a size by its nearest pixels, as :func:`fitted_array` does images; what is padded is ignored.

    >>> fitted_mask(np.eye(2, dtype=np.uint8), (4, 4), "pad", 255)[0].tolist()
    [255, 255, 255, 255]
    """
    if mask.shape == size:
        return mask
    if fitting == "stretch":
        rows = (np.arange(size[0]) * mask.shape[0] // size[0])[:, None]
        cols = (np.arange(size[1]) * mask.shape[1] // size[1])[None]
        stretched: NDArray[np.uint8] = mask[rows, cols]
        return stretched
    ratios = (size[0] / mask.shape[0], size[1] / mask.shape[1])
    ratio = max(ratios) if fitting == "cover" else min(1.0, *ratios)
    scaled = (max(1, round(mask.shape[0] * ratio)), max(1, round(mask.shape[1] * ratio)))
    mask = fitted_mask(mask, scaled, "stretch", ignore)
    top, left = (scaled[0] - size[0]) // 2, (scaled[1] - size[1]) // 2
    canvas = np.full(size, ignore, dtype=np.uint8)
    inside = mask[max(top, 0) : max(top, 0) + size[0], max(left, 0) : max(left, 0) + size[1]]
    canvas[max(-top, 0) : max(-top, 0) + inside.shape[0], max(-left, 0) : max(-left, 0) + inside.shape[1]] = inside
    return canvas
