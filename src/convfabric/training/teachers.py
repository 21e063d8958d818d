"""A trained network that another one follows while it is trained."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from convfabric.data.image_sizes import resized
from convfabric.data.imageset import Preprocessing
from convfabric.execution.runners import for_inference
from convfabric.fabric.module import Fabric


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """A trained fabric, and how images are prepared for it."""

    fabric: Fabric
    preprocessing: Preprocessing


def answering(teacher: Fabric | Teacher, prepared: Preprocessing, device: torch.device) -> nn.Module:
    """The logits of a teacher's exits for images that were prepared for another network; it reads them at its own size.

    >>> from convfabric.weavers import weave
    >>> facts = {"size": (8, 8), "channels": 3, "fitting": "cover"}
    >>> own, other = (Preprocessing(mean=(m,) * 3, std=(s,) * 3, **facts) for m, s in ((0.5, 0.5), (0.4, 0.2)))
    >>> fabric = Fabric(weave("fabric-tiny", size=(8, 8))).eval()
    >>> taught = answering(Teacher(fabric=fabric, preprocessing=other), own, torch.device("cpu"))
    >>> pixels = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    >>> bool(torch.allclose(taught(own.normalised(pixels))[-1], fabric(other.normalised(pixels)), atol=1e-4))
    True
    """
    if isinstance(teacher, Fabric):
        return for_inference(teacher.to(device))
    return _Prepared(for_inference(teacher.fabric.to(device)), prepared, teacher.preprocessing).to(device)


class _Prepared(nn.Module):
    """A network for images that were prepared otherwise than it wants them."""

    factor: Tensor
    plus: Tensor

    def __init__(self, model: nn.Module, before: Preprocessing, wanted: Preprocessing) -> None:
        super().__init__()
        self.model = model
        means, spreads = (
            [torch.tensor(getattr(one, name)).view(1, -1, 1, 1) for one in (before, wanted)] for name in ("mean", "std")
        )
        self.size = wanted.size
        self.register_buffer("factor", spreads[0] / spreads[1])
        self.register_buffer("plus", (means[0] - means[1]) / spreads[1])

    def forward(self, images_BCHW: Tensor) -> tuple[Tensor, ...]:
        prepared = resized(images_BCHW * self.factor + self.plus, self.size)
        found: tuple[Tensor, ...] = self.model(prepared.contiguous(memory_format=torch.channels_last))
        return found
