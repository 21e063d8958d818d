"""What channels are worth, by an independent witness."""

import copy

import pytest
import torch

from convfabric.cutting.worth import channel_worth
from convfabric.graph import Place
from test_training import few_digits, fresh


def test_channel_worth_is_half_the_squared_effect_of_gates_by_differences() -> None:
    data, fabric = few_digits(8), fresh().double().eval()
    images, targets = next(data.splits["train"].batches([list(range(8))]))
    pixels, place, step = data.preprocessing.normalised(images).double(), Place(1, 1), 1e-5
    for channel in (0, 3):
        gate = torch.zeros(1, fabric.graph.node(place).channels, 1, 1, dtype=torch.float64)
        gate[:, channel] = step
        losses = []
        for scale in (1 + gate, 1 - gate):
            handle = fabric.nodes[str(place)].register_forward_hook(lambda module, read, out, scale=scale: out * scale)
            with torch.no_grad():
                losses.append(torch.nn.functional.cross_entropy(fabric(pixels), targets, reduction="none"))
            handle.remove()
        expected = float(((losses[0] - losses[1]) / (2 * step)).square().mean()) / 2
        assert float(channel_worth(copy.deepcopy(fabric).float(), data)[place][channel]) == pytest.approx(
            expected, rel=1e-3
        )
