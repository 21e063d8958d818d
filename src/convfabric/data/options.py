"""How data are opened, as plain numbers."""

from dataclasses import dataclass
from typing import Literal

from convfabric.graph import Task
from convfabric.operators import Size

Fitting = Literal["cover", "stretch", "pad"]
"""How an image of another size is brought to the common one: :func:`convfabric.data.reading.fitted_array`."""


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """How data are opened; None means inferred from the data."""

    size: Size | None = None
    """Height and width in pixels that images are brought to."""
    read_as: Literal["grey", "colour"] | None = None
    """How image files are read; by default as colour if any of them has it."""
    fitting: Fitting | None = None
    """cover (the default of classification), stretch (of segmentation) or pad."""
    ignore: int = 255
    """Mask value that is neither trained nor counted."""
    binary_masks: bool = False
    """Whether mask values 0 and 255 mean classes 0 and 1."""
    colours: str | None = None
    """Table of the colours in masks, a line for each class: red, green, blue, name."""
    task: Task | None = None
    """What files that hold outlines and boxes are read for: segmentation (their default) or detection."""
    copies: Literal["refuse", "keep"] = "refuse"
    """Whether images that are in two splits, or have two labels, are refused or kept."""
    data_dir: str | None = None
    """Folder of the named data sets of torchvision."""
    download: bool = False
    """Whether a named data set may be fetched into it."""
    hold_mb: int = 4000
    """Megabytes of decoded images up to which a data set is held in memory."""
    workers: int = 2
    """Processes that read images where they are not held."""
    split_seed: int = 0
    """Seed of the draws of val and test; the same for every run, so that runs can be compared."""
