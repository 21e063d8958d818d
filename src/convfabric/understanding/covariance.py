"""Which channels of one response go with which of another, once what each layer shares in itself is taken out.

Legend of the suffixes: B images, C channels, H height, W width, P pixels of a batch.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from convfabric.data.imageset import ImageSet, in_order
from convfabric.fabric.module import Fabric, evaluating
from convfabric.graph import Place

SMALLEST = 1e-6
"""Directions of less than this share of the largest variance are taken for none."""


def inter_layer_covariance(
    fabric: Fabric, data: ImageSet, first: Place, second: Place, split: str = "train", images: int = 1024
) -> Tensor:
    """Covariance (C of the first, C of the second), float64, of two whitened responses (Ioannou et al. 2017).

    Every pixel is a sample; the smaller map is enlarged by repetition. Both responses are centred and whitened
    (ZCA) first, so that a block structure between layers is not hidden by the correlation within them.
    """
    one, other = (fabric.graph.node(place).channels for place in (first, second))
    total = torch.zeros(one + other, dtype=torch.float64)
    moments = torch.zeros(one + other, one + other, dtype=torch.float64)
    count = 0
    for samples_CP in _samples(fabric, data, first, second, split, images):
        total += samples_CP.sum(1)
        moments += samples_CP @ samples_CP.T
        count += samples_CP.shape[1]
    mean = total / count
    covariance = moments / count - mean[:, None] * mean[None]
    whiten = [_inverse_root(part) for part in (covariance[:one, :one], covariance[one:, one:])]
    return whiten[0] @ covariance[:one, one:] @ whiten[1]


def _samples(fabric: Fabric, data: ImageSet, first: Place, second: Place, split: str, images: int) -> Iterator[Tensor]:
    """Both responses at every pixel, (C of both, P), float64, batch by batch."""
    part, batch = data.splits[split], 64 if data.task == "classification" else 4
    device = next(fabric.parameters()).device
    for pixels, _ in part.batches(in_order(min(images, len(part)), batch)):
        with evaluating(fabric), torch.inference_mode():
            found = fabric.forward_features(data.preprocessing.normalised(pixels.to(device)), (first, second))
        maps = [found[str(place)] for place in (first, second)]
        size = max((m.shape[-2:] for m in maps), key=lambda shape: shape[0] * shape[1])
        maps = [m if m.shape[-2:] == size else F.interpolate(m, size=size, mode="nearest") for m in maps]
        yield torch.cat(maps, 1).transpose(0, 1).flatten(1).double().cpu()


def _inverse_root(covariance_CC: Tensor) -> Tensor:
    """The symmetric inverse square root; channels that never vary give rows of zeros."""
    values, vectors = torch.linalg.eigh(covariance_CC)
    live = values > SMALLEST * values.max()
    scaled = torch.where(live, values.clamp_min(1e-300).rsqrt(), torch.zeros_like(values))
    root: Tensor = (vectors * scaled) @ vectors.T
    return root
