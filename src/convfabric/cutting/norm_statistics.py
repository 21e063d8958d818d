"""Normalisation statistics measured anew, as a cut network needs them."""

import torch
from torch import nn

from convfabric.data.augmentation import augmented, cropped_from, fit_for
from convfabric.data.imageset import ImageSet
from convfabric.fabric.module import Fabric
from convfabric.training.recipe import Recipe

REFRESHING_IMAGES = 4096


def refresh(fabric: Fabric, data: ImageSet, recipe: Recipe | None = None) -> Fabric:
    """The fabric itself, the running statistics of every norm replaced by averages over training images.

    The images are changed as a recipe changes them, the default one if none is given: weights expect the statistics
    of what they were trained on. Over images left as they are, a sub-network of a CIFAR-10 fabric loses up to six
    points of accuracy.
    """
    recipe = recipe or Recipe()
    changes, dice = fit_for(data, **recipe.changes), torch.Generator().manual_seed(recipe.seed)
    norms = [module for module in fabric.modules() if isinstance(module, nn.BatchNorm2d)]
    usual = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    device = next(fabric.parameters()).device
    was_training = fabric.training
    fabric.train()
    for images, targets in cropped_from(data, changes).batches(_drawn(data, recipe.seed)):
        with torch.inference_mode():
            changed, _ = augmented(images, targets, changes, dice, data.ignore, data.preprocessing.size)
            prepared = data.preprocessing.normalised(changed.to(device))
            fabric(prepared.contiguous(memory_format=torch.channels_last))
    for norm, momentum in zip(norms, usual, strict=True):
        norm.momentum = momentum
    return fabric.train(was_training)


def _drawn(data: ImageSet, seed: int) -> list[list[int]]:
    """Seeded batches without repetition, none of a single image."""
    batch = 128 if data.task == "classification" else 8
    count = len(data.splits["train"])
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
    most = REFRESHING_IMAGES if data.task == "classification" else REFRESHING_IMAGES // 16
    parts = [order[i : i + batch] for i in range(0, min(count, most), batch)]
    return [part for part in parts if len(part) > 1]
