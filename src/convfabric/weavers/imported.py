"""Networks of others by name: where they come from and with which weights. They are read by convfabric.importing."""

from dataclasses import dataclass

SOURCES = ("torchvision", "timm", "file", "run")
"""What stands before a colon in the name of a network: a library, a file of torch.export, the folder of a run."""


@dataclass(frozen=True, kw_only=True)
class Imported:
    """The numbers of a network of others."""

    weights: str = "default"
    """default: those that its library offers, from its cache or fetched; none: fresh ones; else a file, safetensors or
    a state dict of torch."""
    weights_in_order: bool = False
    """Whether tensors in the file are taken in their order, as they are named otherwise."""


def is_imported(name: str) -> bool:
    """Whether a network is one of others, by its name.

    >>> is_imported("timm:resnet18"), is_imported("resnet-18")
    (True, False)
    """
    return name.partition(":")[0] in SOURCES and ":" in name
