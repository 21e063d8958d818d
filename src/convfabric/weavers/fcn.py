"""FCN-32s, -16s and -8s (Long et al. 2015): a VGG run over the whole image, its scores raised and added."""

from dataclasses import dataclass
from typing import Literal

from convfabric.errors import SettingError
from convfabric.graph import NORM_AND_RELU, Graph, Place
from convfabric.operators import Chain, Conv, Dropout, Operator, Pool, Relu, UpConv
from convfabric.weavers.builder import PLAIN, Draft, Purpose
from convfabric.weavers.vgg import STAGES, encoder


@dataclass(frozen=True, kw_only=True)
class Fcn:
    """The numbers of an FCN."""

    stride: Literal[8, 16, 32] = 8
    """Pixels of the image for each pixel of the finest scores, along one side."""
    depth: int = 16
    """Layers of the VGG: 11, 13, 16 or 19."""
    channels: int = 64
    """Of the first stage."""
    hidden: int = 4096
    """Channels of the two hidden layers."""
    norm: bool = True
    """Whether each convolution is normalised; the published networks were not."""
    dropout: float = 0.5
    """Behind each hidden layer."""

    def __post_init__(self) -> None:
        if self.depth not in STAGES:
            raise SettingError(f"depth={self.depth}: a VGG has {', '.join(map(str, STAGES))} layers.")


def weave_fcn(numbers: Fcn, purpose: Purpose, name: str = "fcn") -> Graph:
    """The FCN with these numbers. Scores are raised by 4×4 kernels of stride 2, the last time by interpolation.

    >>> graph = weave_fcn(Fcn(stride=8, channels=4, hidden=8), Purpose(task="segmentation"))
    >>> [graph.node(place).channels for place in graph.head.reads], graph.head.reads[0].scale
    ([10], 3)
    """
    draft = Draft(name, purpose)
    then: Operator = NORM_AND_RELU if numbers.norm else Relu()
    convolved = encoder(draft, numbers.depth, numbers.channels, then)
    dropped = Chain((then, Dropout(p=numbers.dropout)))
    at, scale = convolved[-1].layer + 1, len(convolved)
    wide = Chain((Pool(), Conv(kernel=7)))
    hidden = draft.put(Place(at, scale), numbers.hidden, (convolved[-1], wide), then=dropped)
    hidden = draft.put(Place(at + 1, scale), numbers.hidden, (hidden, Conv(kernel=1)), then=dropped)
    score = draft.put(Place(at + 2, scale), purpose.classes, (hidden, Conv(kernel=1)), then=PLAIN)
    while 2**score.scale > numbers.stride and purpose.task == "segmentation":
        finer = score.scale - 1
        skipped = convolved[finer - 1], Chain((Pool(), Conv(kernel=1)))
        raised = score, UpConv(kernel=4, bias=False)
        score = draft.put(Place(score.layer + 1, finer), purpose.classes, raised, skipped, then=PLAIN)
    draft.answer(score, linear=False)
    return draft.finished()
