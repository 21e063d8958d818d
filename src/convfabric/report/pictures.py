"""Arrays of pixels as pictures for a page."""

import io
from base64 import b64encode
from typing import Any

import numpy as np
from PIL import Image

from convfabric.report.pages import Picture


def as_picture(pixels: Any, caption: str, width: int) -> Picture:
    """A uint8 array (height, width) or (height, width, 3) as a picture so many pixels wide on the screen.

    >>> as_picture(np.zeros((2, 2), np.uint8), "black", 10).caption
    'black'
    """
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", optimize=True)
    return Picture(png_base64=b64encode(file.getvalue()).decode(), caption=caption, width=width)


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
