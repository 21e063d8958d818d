"""A module of one's own, from Python, as a network that jobs begin with."""

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from convfabric.data.imageset import Preprocessing
from convfabric.errors import ArchiveError
from convfabric.fabric.archive import GRAPH_FILE, Passport, save_fabric
from convfabric.fabric.module import Fabric
from convfabric.importing.network import import_network
from convfabric.importing.sources import IMAGENET
from convfabric.operators import Size


def save_network(
    folder: str | Path,
    module: nn.Module,
    size: Size,
    *,
    classes: Sequence[str] = (),
    mean: Sequence[float] = IMAGENET[0],
    std: Sequence[float] = IMAGENET[1],
) -> Fabric:
    """A module as a fabric in a folder, from which ``--network run:FOLDER`` begins.

    ``size`` is height and width in pixels, ``mean`` and ``std`` are those of each channel, for pixels from 0 to 1, that
    its weights were trained with. With the names of ``classes`` heads for them stand after each stage, without weights;
    by default its own classifier stays, for ``--set classifier=kept`` or to be replaced.
    Raises ImportingError for what cannot be made a graph, ArchiveError where a network is in the folder already.

    >>> import tempfile
    >>> module = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(36, 2))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_network(folder, module, (8, 8)).graph.head.classes
    2
    """
    if (Path(folder) / GRAPH_FILE).exists():
        raise ArchiveError(f"{folder}: there is a network already; another folder, or remove it.")
    name, channels = Path(folder).name, len(mean)
    fabric = import_network(module, size, image_channels=channels, classes=len(classes) or None, name=name)
    head = fabric.graph.head
    preprocessing = Preprocessing(size=size, channels=channels, fitting="cover", mean=tuple(mean), std=tuple(std))
    names = tuple(classes) or tuple(map(str, range(head.classes)))
    save_fabric(Path(folder), fabric, Passport(graph=fabric.graph, classes=names, preprocessing=preprocessing))
    return fabric
