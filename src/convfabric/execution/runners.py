"""From a fabric and a plan to the module that is called."""

from typing import Any

import torch
from torch import Tensor, nn

from convfabric.execution.folding import folded
from convfabric.execution.planned import Planned
from convfabric.execution.plans import Plan, plan_for
from convfabric.fabric.module import EveryExit, Fabric


def for_training(fabric: Fabric, plan: Plan) -> nn.Module:
    """A module that gives the logits of every exit, like EveryExit, and trains the fabric's own weights.

    bfloat16 is the caller's autocast, so that parameters stay float32.

    >>> from convfabric.weavers import weave
    >>> fabric = Fabric(weave("fabric-tiny"))
    >>> for_training(fabric, Plan())(torch.rand(2, 3, 32, 32))[-1].shape
    torch.Size([2, 10])
    """
    model = Planned(fabric) if plan.kernels else EveryExit(fabric)
    return _compiled(model) if plan.compiled else model


def for_inference(fabric: Fabric, plan: Plan | None = None) -> nn.Module:
    """A module with copies of the fabric's weights that gives the logits of every exit, and is not to be trained.

    Norms are folded. Weights that are changed or loaded later may have no effect. Images are float32 whatever the
    plan, and so are logits; without a plan the usual one.

    >>> from convfabric.weavers import weave
    >>> fabric, images = Fabric(weave("fabric-tiny", size=(8, 8))).eval(), torch.rand(2, 3, 8, 8)
    >>> bool(torch.allclose(for_inference(fabric)(images)[-1], fabric(images), atol=1e-5))
    True
    """
    plan = plan or plan_for(fabric.graph, next(fabric.parameters()).device.type, training=False)
    simple = folded(fabric).to(memory_format=torch.channels_last)
    if plan.bfloat16:
        simple = simple.to(torch.bfloat16)
    model: nn.Module = Planned(simple, frozen=True) if plan.kernels else EveryExit(simple)
    model = model.eval().requires_grad_(False)
    if plan.compiled:
        model = _compiled(model, freezing=True)
    return _InHalf(model).eval() if plan.bfloat16 else model


class _InHalf(nn.Module):
    """Images into bfloat16, logits back to float32."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images_BCHW: Tensor) -> tuple[Tensor, ...]:
        return tuple(logits.float() for logits in self.model(images_BCHW.to(torch.bfloat16)))


def _compiled(model: nn.Module, freezing: bool = False) -> Any:
    return torch.compile(model, options={"freezing": True} if freezing else None)
