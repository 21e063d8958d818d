"""Pictures of what a trained network responds to, as sections of the gallery."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from convfabric.data.imageset import ImageSet
from convfabric.fabric.module import Fabric
from convfabric.graph import POINT, Edge, Place
from convfabric.graph.receptive_fields import Field, receptive_fields
from convfabric.report.drawing import draw
from convfabric.report.gallery import Section, figures
from convfabric.report.pictures import Picture, as_colours, as_picture
from convfabric.understanding.covariance import inter_layer_covariance
from convfabric.understanding.strongest_patches import Patch, deconvolved, strongest_patches

SHOWN_PLACES, SHOWN_CHANNELS, SHOWN_PATCHES = 4, 9, 6
PATCH_SIDE, GAP = 40, 2


def understood(fabric: Fabric, data: ImageSet) -> Iterator[Section]:
    """The network drawn; for some places their strongest patches; between neighbours their covariance."""
    graph = fabric.graph
    yield graph.name, f"{len(graph.nodes)} nodes, {len(graph.edges)} edges", draw(graph)
    fields = receptive_fields(graph)
    for place in shown_places(fabric):
        yield f"What {place} responds to", _about(fields[place]), figures(list(_patches(fabric, data, place)))
    said = (
        "Brightness is the size of the covariance after whitening: rows are channels of the first, columns of the next."
    )
    pictures = [_covariance(fabric, data, edge) for edge in _neighbours(fabric)]
    if pictures:
        yield "Covariance between layers", said, figures(pictures)


def shown_places(fabric: Fabric) -> list[Place]:
    """A few places with pixels left, evenly over the network.

    >>> from convfabric.weavers import weave
    >>> len(shown_places(Fabric(weave("resnet-20"))))
    4
    """
    order = [place for place in fabric.graph.order if place.scale < POINT]
    count = min(SHOWN_PLACES, len(order))
    return [order[(i + 1) * len(order) // count - 1] for i in range(count)]


def _about(field: Field) -> str:
    return (
        f"The patches of strongest response, {field.height:g}×{field.width:g} pixels of the image "
        "at most, and below each what in it the response comes from, led back by transposed convolutions."
    )


def _patches(fabric: Fabric, data: ImageSet, place: Place, split: str = "val") -> Iterator[Picture]:
    """For each of a few channels its patches, above what in them it responds to."""
    found = strongest_patches(fabric, data, place, SHOWN_PATCHES, split)
    lively = sorted(range(len(found)), key=lambda c: -found[c][0].response)[:SHOWN_CHANNELS]
    device = next(fabric.parameters()).device
    for channel in sorted(lively):
        columns = []
        for patch in found[channel]:
            image = next(data.splits[split].batches([[patch.image]]))[0]
            back = deconvolved(fabric, data.preprocessing.normalised(image.to(device))[0], place, channel, patch)
            shown = as_colours(image[0].permute(1, 2, 0).numpy()), _stretched(back)
            columns.append(np.concatenate([_cropped(part, patch) for part in shown], 0))
        row = np.concatenate(columns, 1)
        yield as_picture(row, f"channel {channel}", row.shape[1])


def _stretched(part_CHW: Tensor) -> Any:
    """uint8 (height, width, 3), zero as middle grey, the largest as black or white."""
    array = part_CHW.cpu().permute(1, 2, 0).numpy()
    scaled = 127.5 + 127.5 * array / max(float(np.abs(array).max()), 1e-12)
    return as_colours(scaled).astype(np.uint8)


def _cropped(image: Any, patch: Patch) -> Any:
    """The patch at a common size, in a white frame."""
    top, bottom, left, right = patch.box
    part = Image.fromarray(image[top:bottom, left:right])
    part.thumbnail((PATCH_SIDE, PATCH_SIDE))
    scale = PATCH_SIDE / max(part.size)
    part = part.resize(
        (max(1, round(part.width * scale)), max(1, round(part.height * scale))), Image.Resampling.NEAREST
    )
    frame = np.full((PATCH_SIDE + 2 * GAP, PATCH_SIDE + 2 * GAP, 3), 255, np.uint8)
    frame[GAP : GAP + part.height, GAP : GAP + part.width] = np.asarray(part)
    return frame


def _neighbours(fabric: Fabric) -> list[Edge]:
    """Edges with spatial kernels between nodes of at most some hundred channels, evenly over the network."""
    graph = fabric.graph
    edges = [
        edge
        for edge in graph.edges
        if edge.target.scale < POINT
        and not edge.operator.keeps_channels
        and max(edge.operator.halo) > 0
        and max(graph.node(place).channels for place in (edge.source, edge.target)) <= 512
    ]
    count = min(SHOWN_PLACES, len(edges))
    return [edges[(i + 1) * len(edges) // count - 1] for i in range(count)]


def _covariance(fabric: Fabric, data: ImageSet, edge: Edge) -> Picture:
    found = inter_layer_covariance(fabric, data, edge.source, edge.target).abs()
    shades = (255 * found / found.quantile(0.995).clamp_min(1e-12)).clamp_max(255).to(torch.uint8).numpy()
    return as_picture(shades, f"{edge.source} → {edge.target}, largest {float(found.max()):.2f}", 220)
