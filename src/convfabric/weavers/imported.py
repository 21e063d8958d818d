"""Networks of others by name: where they come from and with which weights. They are read by convfabric.importing."""

from dataclasses import dataclass
from typing import Literal

from convfabric.errors import SettingError

SOURCES = ("torchvision", "timm", "file", "run")
"""What stands before a colon in the name of a network: a library, a file of torch.export, the folder of a run."""
DECODER = 64
"""Channels of the decoder unless told otherwise."""


@dataclass(frozen=True, kw_only=True)
class Imported:
    """The numbers of a network of others."""

    weights: str = "default"
    """default: those that its library offers, from its cache or fetched; none: fresh ones; else a file, safetensors or
    a state dict of torch."""
    weights_in_order: bool = False
    """Whether tensors in the file are taken in their order, as they are named otherwise."""
    mean: tuple[float, ...] = ()
    """Of each channel, for pixels from 0 to 1, as its weights were trained with; none: what its library says, for a
    file the mean of the images. So is the spread."""
    std: tuple[float, ...] = ()
    decoder: int = DECODER
    """Channels of the decoder that reads every stage, for segmentation and detection; 0: one linear map reads them."""
    classifier: Literal["fresh", "kept"] = "fresh"
    """fresh: new heads, one after each stage; kept: its own, for the classes that it was trained on, in their order."""

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or not all(spread > 0 for spread in self.std):
            raise SettingError(f"mean={self.mean}, std={self.std}: a number of each for every channel, std above 0.")
        if self.decoder < 0:
            raise SettingError(f"decoder={self.decoder}: give 0, or a number of channels.")


def is_imported(name: str) -> bool:
    """Whether a network is one of others, by its name.

    >>> is_imported("timm:resnet18"), is_imported("resnet-18")
    (True, False)
    """
    return name.partition(":")[0] in SOURCES and ":" in name
