"""Kernels drawn anew, by another rule than the usual one."""

from math import sqrt

import torch
from torch import nn

from convfabric.fabric.module import HEADS, Fabric

SPREAD = 0.01
"""Standard deviation of kernels drawn alike whatever their size, as the paper's code draws those of dense fabrics."""


def redrawn(fabric: Fabric, rule: str) -> Fabric:
    """The fabric itself, its kernels drawn by a rule of :attr:`convfabric.training.recipe.Recipe.init`; heads stay.

    xavier: evenly up to ±√(3 / inputs of an output); gaussian: with a standard deviation of 0.01.

    >>> from convfabric.weavers import weave
    >>> fabric = redrawn(Fabric(weave("vgg", channels=4)), "gaussian")
    >>> round(float(next(fabric.entry.parameters()).detach().std()), 2)
    0.01
    """
    for name, weight in fabric.named_parameters():
        if weight.ndim < 2 or name.startswith(HEADS) or rule == "he":
            continue
        if rule == "gaussian":
            nn.init.normal_(weight, std=SPREAD)
        else:
            with torch.no_grad():
                most = sqrt(3 / weight[0].numel())
                weight.uniform_(-most, most)
    return fabric
