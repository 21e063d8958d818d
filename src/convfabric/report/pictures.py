"""Arrays of pixels as pictures for a page."""

import io
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from PIL import Image

LARGE = 64
"""Pixels on a side of a photo above which JPEG's losses are not seen, and PNG takes ten times the bytes."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An image for the page, with what is said under it."""

    source: str
    """A data URL."""
    caption: str
    width: int
    """Pixels on the screen."""
    above: tuple[str, ...] = ()
    """Images of the same size that can be laid over it, such as masks, as data URLs."""
    mistake: tuple[int, int] | None = None
    """Of an image answered wrong, its class and the one predicted."""


def as_picture(pixels: Any, caption: str, width: int, above: Sequence[Any] = (), photo: bool = False) -> Picture:
    """A uint8 array (height, width) or (height, width, 3) as a picture so many pixels wide on the screen.

    ``above``: arrays (height, width, 4) that can be laid over it. A large ``photo`` is compressed with losses.

    >>> as_picture(np.zeros((2, 2), np.uint8), "black", 10).caption
    'black'
    """
    lossy = photo and min(pixels.shape[:2]) > LARGE
    return Picture(source=as_url(pixels, lossy), caption=caption, width=width, above=tuple(map(as_url, above)))


def as_url(pixels: Any, lossy: bool = False) -> str:
    """A uint8 array (height, width) or (height, width, 3 or 4) as a data URL, of PNG or with losses of JPEG.

    >>> as_url(np.zeros((1, 1), np.uint8))[:28]
    'data:image/png;base64,iVBORw'
    """
    file, kind = io.BytesIO(), "JPEG" if lossy else "PNG"
    Image.fromarray(pixels).save(file, kind, optimize=True)
    return f"data:image/{kind.lower()};base64,{b64encode(file.getvalue()).decode()}"


def figure(picture: Picture) -> str:
    """A picture and its caption as HTML.

    >>> "<b>" in figure(Picture(source="", caption="<b>", width=4))
    False
    """
    said = escape(picture.caption)
    layers = "".join(f'<img class="layer" alt="" src="{one}">' for one in picture.above)
    image = f'<img width="{picture.width}" alt="{said}" src="{picture.source}">'
    content = f'<div class="layers">{image}{layers}</div>' if layers else image
    truth = 'data-truth="{}" data-guess="{}"'.format(*picture.mistake) if picture.mistake else ""
    return f"<figure{' ' * bool(truth)}{truth}>{content}<figcaption>{said}</figcaption></figure>"


def as_colours(image: Any) -> Any:
    """The first three channels of an array (height, width, channels); one or two are shown as grey.

    >>> as_colours(np.zeros((2, 2, 1))).shape
    (2, 2, 3)
    """
    return np.repeat(image[..., :1], 3, axis=2) if image.shape[2] < 3 else image[..., :3]


def shades_of(classes: int) -> Any:
    """Colours of even lightness, uint8 (classes, 3).

    >>> shades_of(3).shape
    (3, 3)
    """
    from matplotlib import colormaps

    return (255 * colormaps["turbo"](np.linspace(0.05, 0.95, classes))[:, :3]).astype(np.uint8)
