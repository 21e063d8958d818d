"""Networks of others become graphs with their weights, answer alike, and are cut like any other."""

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from convfabric.cutting.surgery import extract
from convfabric.data.imageset import drawn
from convfabric.data.opening import open_data
from convfabric.data.options import DataOptions
from convfabric.errors import ArchiveError, ImportingError, SettingError
from convfabric.execution.plans import plan_for
from convfabric.exporting.exporter import export
from convfabric.fabric.archive import load_fabric, passport, save_fabric
from convfabric.fabric.layers import layer
from convfabric.graph.costs import costs
from convfabric.graph.laws import broken_laws
from convfabric.graph.subnetworks import Sampler
from convfabric.importing.network import Imported, import_network, imported
from convfabric.importing.own_module import save_network
from convfabric.latency.drafts import drafted
from convfabric.operators import Depthwise, HardSwish, Opaque, Operator, Relu6, Silu
from convfabric.operators.opaque import program_of
from convfabric.training.loop import train
from convfabric.training.recipe import Recipe
from test_pipeline import done

SIZE = (64, 64)
NAMES = (
    *("alexnet", "googlenet", "densenet121", "resnet18", "regnet_y_400mf", "mobilenet_v3_small", "shufflenet_v2_x0_5"),
    *("efficientnet_b0", "convnext_tiny", "lraspp_mobilenet_v3_large"),
)
"""Of every kind of block one; benchmarks/imports.py tries all."""


def torchvision_s(name: str) -> nn.Module:
    """A network of torchvision with random weights and statistics, in evaluation mode."""
    words: dict[str, Any] = {"weights": None}
    words |= {"weights_backbone": None} if name.startswith(("lraspp", "deeplab")) else {}
    words |= {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    torch.manual_seed(0)
    return lively(torchvision.models.get_model(name, **words))


def lively(module: nn.Module) -> nn.Module:
    for key, tensor in module.state_dict().items():
        if "running" in key:
            tensor.copy_(torch.rand_like(tensor) + 0.5 if "var" in key else torch.randn_like(tensor) / 10)
    return module.eval()


def read_parameters(module: nn.Module, found: Imported) -> int:
    return sum(p.numel() for name, p in module.named_parameters() if name not in found.unread)


@pytest.mark.parametrize("name", NAMES)
def test_a_network_of_torchvision_answers_alike_and_is_cut_like_any_other(name: str) -> None:
    size, module = SIZE, torchvision_s(name)
    found = imported(module, size)
    assert found.difference <= 1e-5
    with FlopCounterMode(display=False) as counted, torch.no_grad():
        module(torch.zeros(1, 3, *size))
    weighed = costs(found.fabric.graph, size)
    assert 2 * weighed.macs == counted.get_total_flops()
    assert weighed.parameters == read_parameters(module, found)
    assert all(part.startswith(("aux", "AuxLogits")) for part in found.unread)
    part = Sampler.of(found.fabric.graph, 0.5, size).draw(random.Random(0))
    assert broken_laws(part, size) == []
    images = torch.rand(2, 3, *size)
    with torch.no_grad():
        assert torch.equal(extract(found.fabric, part)(images), found.fabric(images, part))


def test_a_network_of_one_size_has_a_plan_to_be_trained_by() -> None:
    lenet = nn.Sequential(nn.Conv2d(3, 6, 5), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(864, 10))
    graph = import_network(lenet.eval(), (28, 28)).graph
    assert str(plan_for(graph, training=True, build=False))


def answers(module: nn.Module) -> float:
    """How far apart the answers of a module and of its graph are; raises where it cannot be imported."""
    return imported(lively(module), (16, 16)).difference


class Made(nn.Module):
    """A function between a convolution and a classifier."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.stem, self.between, self.last = nn.Conv2d(3, 8, 3, 2, 1), Between(function), nn.LazyLinear(4)

    def forward(self, images: Tensor) -> Tensor:
        answer: Tensor = self.last(self.between(self.stem(images)).flatten(1))
        return answer


class Between(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        changed: Tensor = self.function(x)
        return changed


def made(function: Any) -> Made:
    torch.manual_seed(0)
    module = Made(function)
    module(torch.zeros(2, 3, 16, 16))
    return module


def weighed(x: Tensor) -> Tensor:
    """The mean of the pixels, weighed by a softmax of the first channel (global context)."""
    shares = x[:, :1].flatten(2).softmax(-1).transpose(1, 2)
    return (x.flatten(2) @ shares).unsqueeze(-1)


def lengths(x: Tensor) -> Tensor:
    """The length of each map over the mean of all channels (global response norm)."""
    each = torch.linalg.vector_norm(x, dim=(2, 3), keepdim=True)
    return each / (each.mean(1, keepdim=True) + 1e-6)


READ = {
    "padded by hand": lambda x: F.avg_pool2d(F.pad(x, (0, 1, 0, 1)), 2),
    "weighed by a map": lambda x: x * weighed(x),
    "padded for nothing": lambda x: F.pad(x, (1, 1, 0, -1)).relu(),
    "reflected": lambda x: F.max_pool2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), 2),
    "times and plus": lambda x: (1.7 * x + 0.5).relu(),
    "grouped": nn.GroupNorm(2, 8),
    "ceiled": lambda x: F.max_pool2d(x, 3, 2, ceil_mode=True),
    "spread": lambda x: x + x.mean((2, 3), keepdim=True),
    "gated by a map": lambda x: x * x[:, :1].sigmoid(),
    "halves": lambda x: torch.cat([x.chunk(2, 1)[1], x.chunk(2, 1)[0].relu()], 1),
    "shuffled": lambda x: x.view(-1, 2, 4, 8, 8).transpose(1, 2).reshape(-1, 8, 8, 8),
    "last": lambda x: F.gelu(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2),
    "enlarged": lambda x: F.interpolate(x, scale_factor=2, mode="nearest"),
    "to corners": lambda x: F.interpolate(x, size=(9, 11), mode="bilinear", align_corners=True),
    "adaptive": lambda x: F.adaptive_avg_pool2d(x, (3, 2)),
    "sums of sums": lambda x: x.relu() + (x + (x.sigmoid() + x.tanh())),
    "its own square": lambda x: x * x,
    "prelu": nn.PReLU(8),
    "prelu of one slope": nn.PReLU(),
    "elu": nn.ELU(0.7),
    "selu": nn.SELU(),
    "mish": nn.Mish(),
    "softplus": nn.Softplus(),
    "hard tanh": nn.Hardtanh(-0.5, 0.7),
    "clamped": lambda x: x.clamp(-1, 0.5),
    "normalised inside": lambda x: (x - torch.arange(8.0).view(8, 1, 1)) / torch.full((1, 8, 1, 1), 0.3),
    "numbers": lambda x: 1 - (x - 0.45) / 0.25,
    "a difference": lambda x: x.relu() - x.tanh(),
    "no factors": nn.BatchNorm2d(8, affine=False),
    "a norm of a vector": nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(8), nn.Linear(8, 8)),
    "each map alone": nn.InstanceNorm2d(8, affine=True),
    "adaptive, the largest": nn.AdaptiveMaxPool2d((3, 2)),
    "dealt out": nn.ChannelShuffle(2),
    "raised": nn.ConvTranspose2d(8, 6, 2, 2),
    "raised, no bias": nn.ConvTranspose2d(8, 6, 4, 2, 1, bias=False),
    "raised to an odd size": nn.ConvTranspose2d(8, 6, 3, 2, 1),
    "raised and cut": nn.ConvTranspose2d(8, 6, 3, 2, 2, output_padding=1),
    "the largest": lambda x: x.amax((2, 3)),
    "response norm": lambda x: x * lengths(x),
    "put back where they were": lambda x: F.max_unpool2d(*F.max_pool2d(x.relu(), 2, return_indices=True), 2),
    "zeros beside": lambda x: torch.cat([torch.zeros(len(x), 20, 8, 8), x, torch.zeros(len(x), 3, 8, 8)], 1),
    "every other pixel, more channels": lambda x: F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4)),
    "root of channels": lambda x: x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-4),
    "root of the last": lambda x: F.rms_norm(x.permute(0, 2, 3, 1), (8,)).permute(0, 3, 1, 2),
}


@pytest.mark.parametrize("how", READ)
def test_what_graphs_have_operators_for_is_read(how: str) -> None:
    assert answers(made(READ[how])) <= 1e-5


class Attention(nn.Module):
    """Positions that attend to one another, with a table of positions that is not trained."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.across = nn.LayerNorm(8), nn.MultiheadAttention(8, 2, batch_first=True)
        self.register_buffer("order", torch.arange(64).flip(0))

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.norm(x.flatten(2).transpose(1, 2))[:, self.order]
        answer = self.across(tokens, tokens, tokens, need_weights=False)[0]
        return x + answer.transpose(1, 2).reshape(x.shape)


UNREAD = {
    "an unknown function": (lambda x: x.sin(), r"between: aten\.sin\.default: no row reads it"),
    "a formula that is none": (lambda x: x.clamp(min=1.0), r"between: .*no operator is"),
    "indices of another pool": (
        lambda x: F.max_unpool2d(*F.max_pool2d(x, 4, return_indices=True), 4),
        "indices other than those of a 2×2 max pool",
    ),
    "every third row": (lambda x: x[:, :, ::3], "rows by steps of 3 and columns by steps of 1"),
    "a part of the rows": (lambda x: x[:, :, 2:5], "a part of a dimension other than channels"),
    "space to depth": (lambda x: F.pixel_unshuffle(x, 2), r"between: aten\.pixel_unshuffle\.default"),
    "attention": (Attention(), r"between.*aten\.index\.Tensor"),
}


@pytest.mark.parametrize("how", UNREAD)
def test_what_they_have_none_for_is_kept_as_it_is_or_named_with_where_it_stands(how: str) -> None:
    function, message = UNREAD[how]
    module = lively(made(function))
    found, images = imported(module, (16, 16)), torch.rand(3, 3, 16, 16)
    kept = [edge for edge in found.fabric.graph.edges if isinstance(edge.operator, Opaque)]
    assert len(kept) == 1
    with torch.no_grad():
        torch.testing.assert_close(found.fabric(images), module(images), rtol=1e-4, atol=1e-4)
    assert {f"between.function.{name}" for name, _ in kept_weights(function)} <= set(found.origins.values())
    in_a_file = torch.export.export(module, (images[:2],)).module()
    with pytest.raises(ImportingError, match=message):
        imported(in_a_file, (16, 16))


def kept_weights(function: Any) -> list[tuple[str, Tensor]]:
    """Weights and tables of a function that has any."""
    return list(function.state_dict().items()) if isinstance(function, nn.Module) else []


def test_a_part_that_is_kept_trains_is_archived_and_is_exported(tmp_path: Path) -> None:
    data = open_data("digits", DataOptions(size=(16, 16)))
    fabric = import_network(made(Attention()), (16, 16), classes=10, image_channels=1)
    [edge] = (edge for edge in fabric.graph.edges if isinstance(edge.operator, Opaque))
    before = {name: tensor.clone() for name, tensor in fabric.state_dict().items() if edge.name in name}
    few = replace(data, splits={name: drawn(split, 32) for name, split in data.splits.items()})
    for precision in ("bfloat16", "float32"):
        train(fabric, few, Recipe(epochs=1, lr=0.1, autocast=precision), device="cpu")
    same = {name for name, tensor in before.items() if torch.equal(tensor, fabric.state_dict()[name])}
    assert {name.rpartition(".")[2] for name in same} == {"order"}
    papers = passport(fabric, few)
    save_fabric(tmp_path, fabric, papers)
    assert load_fabric(tmp_path)[0].graph == fabric.graph
    export(fabric, papers, few, tmp_path)
    assert not [tie for tie in fabric.graph.ties if edge.source in tie.places and tie.units > 1]


def test_a_module_of_one_s_own_is_a_source_of_every_verb(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1), Between(torch.sin), nn.Flatten(), nn.Linear(512, 2))
    save_network(tmp_path / "mine", module, (16, 16), mean=(0.5,), std=(0.25,))
    done(["describe", f"run:{tmp_path / 'mine'}", "--layers"])
    with pytest.raises(ArchiveError, match="there is a network already"):
        save_network(tmp_path / "mine", module, (16, 16), mean=(0.5,), std=(0.25,))


def test_what_a_part_would_do_besides_answering_is_refused(tmp_path: Path) -> None:
    calls = [["y", "aten.from_file.default", ["/etc/hostname"], {}], ["y", "aten.relu_.default", [{"value": "x"}], {}]]
    calls += [["y", "os.system", ["true"], {}], ["y", "torch.load", ["x"], {}]]
    with pytest.raises(ValueError, match="zz is read, which nothing has made by then"):
        program_of('{"reads": "x", "answers": "zz", "weights": {}, "calls": []}')
    for call in calls:
        program = json.dumps({"reads": "x", "answers": "y", "weights": {}, "calls": [call]})
        with pytest.raises(ValueError, match="is not called"):
            layer(Opaque(program=program, channels=(4, 4), sizes=((8, 8), (8, 8))), 4, 4)
    fabric = import_network(made(torch.sin), (16, 16), classes=10, image_channels=1)
    save_fabric(tmp_path, fabric, passport(fabric, open_data("digits", DataOptions(size=(16, 16)))))
    file = tmp_path / "graph.json"
    file.write_text(file.read_text().replace("aten.sin.default", "aten.from_file.default"))
    with pytest.raises(ArchiveError, match=r"graph\.json: aten\.from_file\.default is not called"):
        load_fabric(tmp_path)


class Turned(nn.Module):
    """What is done to a map with a function that no row reads."""

    def __init__(self, how: Callable[[Any, Tensor], Tensor], within: nn.Module) -> None:
        super().__init__()
        self.how, self.within = how, within

    def forward(self, x: Tensor) -> Tensor:
        return self.how(self.within, x)


REFUSED: dict[str, tuple[Callable[[Any, Tensor], Tensor], nn.Module, str]] = {
    "calls that are none of ATen's": (lambda m, x: m(x), Between(lambda x: torch.fft.fft2(x).real), "only answer"),
    "ones beside": (lambda m, x: torch.cat([x, torch.ones(len(x), 1, 8, 8)], 1), nn.ReLU(), "that is not zeros beside"),
    "one image otherwise": (lambda m, x: m(x) * len(x) if len(x) < 2 else m(x) * 3, nn.ReLU(), "images 1 at a time"),
}


@pytest.mark.parametrize("how", REFUSED)
def test_what_cannot_be_kept_is_refused_with_the_reason(how: str) -> None:
    function, within, message = REFUSED[how]
    with pytest.raises(ImportingError, match=message):
        answers(made(Turned(function, within)))


def test_a_module_that_is_called_twice_is_kept_twice() -> None:
    fabric = import_network(lively(made(Turned(lambda m, x: m(m(x)), Between(torch.sin)))), (16, 16))
    assert sum(isinstance(edge.operator, Opaque) for edge in fabric.graph.edges) == 2


@pytest.mark.parametrize(
    "said", [{"size": 32}, {"size": (32, 32), "classes": ("a", "b")}, {"size": (32, 32), "task": "depth"}]
)
def test_a_purpose_that_is_none_is_refused_by_name(said: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match=next(reversed(said))):
        import_network(made(nn.ReLU()), **said)


class Recurrent(nn.Module):
    """A layer that is used three times over, each time with a norm of its own."""

    def __init__(self, norms: int = 3) -> None:
        super().__init__()
        self.stem, self.again = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.norms, self.top = nn.ModuleList([nn.BatchNorm2d(6) for _ in range(norms)]), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        for i in range(3):
            x = self.norms[i % len(self.norms)](self.again(x)).relu()
        return self.top(x.mean((2, 3)))


def test_a_layer_that_is_used_several_times_has_its_weights_once(tmp_path: Path) -> None:
    module = lively(Recurrent())
    fabric = import_network(module, (16, 16))
    assert {edge.shared for edge in fabric.graph.edges} == {"L0S0_L1S0"}
    assert sum(p.numel() for p in fabric.parameters()) == sum(p.numel() for p in module.parameters())
    smaller = fabric.graph.narrow({node.place: 3 for node in fabric.graph.nodes})
    assert {node.channels for node in smaller.nodes} == {3}
    fabric.train()(torch.rand(2, 3, 16, 16)).sum().backward()
    assert fabric.edges["L0S0_L1S0"].get_parameter("weight").grad is not None


def test_a_norm_that_is_used_several_times_is_an_edge_that_shares_its_weights() -> None:
    module = lively(Recurrent(norms=1))
    fabric = import_network(module, (16, 16))
    assert len({edge.shared for edge in fabric.graph.edges}) == 2
    assert sum(p.numel() for p in fabric.parameters()) == sum(p.numel() for p in module.parameters())
    assert {node.channels for node in fabric.graph.narrow({node.place: 3 for node in fabric.graph.nodes}).nodes} == {3}
    drafted(fabric, torch.zeros(1, 3, 16, 16))


@pytest.mark.parametrize("last", [nn.Softmax(1), nn.Softmax(-1), nn.LogSoftmax(1)], ids=str)
def test_a_last_softmax_is_left_out_and_said_and_answers_are_logits(last: nn.Module) -> None:
    body = [nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)]
    module, images = lively(nn.Sequential(*body, last)), torch.rand(3, 3, 16, 16)
    found = imported(module, (16, 16))
    assert found.softmax
    torch.testing.assert_close(last(found.fabric(images)), module(images))
    torch.testing.assert_close(found.fabric(images), module[:-1](images))
    assert imported(module, (16, 16), classes=3).fabric(images).shape == (3, 3)
    assert not imported(module[:-1], (16, 16)).softmax


def test_a_softmax_over_the_classes_of_each_pixel_is_left_out_as_well() -> None:
    module, images = lively(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Softmax(1))), torch.rand(2, 3, 16, 16)
    found = import_network(module, (16, 16))
    torch.testing.assert_close(found(images).softmax(1), module(images))


def test_weights_that_are_used_twice_are_named() -> None:
    conv = nn.Conv2d(3, 3, 3, padding=1)
    with pytest.raises(ImportingError, match=r"\d\.(weight|bias) is used 2 times"):
        answers(nn.Sequential(conv, nn.ReLU(), conv, nn.Flatten(), nn.Linear(768, 2)))


def test_a_kernel_and_its_transpose_are_not_taken_for_one() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 2)
            self.kernel = nn.Parameter(torch.randn(8, 8, 1, 1))

        def forward(self, images: Tensor) -> Tensor:
            x = F.conv2d(self.stem(images), self.kernel).relu()
            scores: Tensor = self.head(F.conv2d(x, self.kernel.transpose(0, 1)).relu().mean((2, 3)))
            return scores

    with pytest.raises(ImportingError, match=r"kernel is used 2 times, and not alike.*nn\.Parameter\(kernel\.detach"):
        answers(Tied())


def test_what_cannot_be_traced_is_named() -> None:
    with pytest.raises(ImportingError, match=r"torch\.export cannot trace it \("):
        answers(made(lambda x: x if x.sum() > 0 else -x))


@pytest.mark.parametrize(
    ("activation", "operator"), [(nn.SiLU(), Silu()), (nn.Hardswish(), HardSwish()), (nn.ReLU6(), Relu6())]
)
def test_functions_spelt_out_are_one_operator(activation: nn.Module, operator: Operator) -> None:
    graph = import_network(made(activation), (16, 16)).graph
    assert [node.then for node in graph.nodes if node.then == operator]


def test_the_module_stays_as_it_was_and_weights_know_where_they_came_from() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2)).train()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    found = imported(module, (4, 4))
    assert module.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    own = found.fabric.state_dict()
    assert set(found.origins.values()) == set(before) - {"1.num_batches_tracked"}
    assert all(own[ours].numel() == before[theirs].numel() for ours, theirs in found.origins.items())


def test_new_classes_are_answered_after_every_stage_and_depth_is_a_choice() -> None:
    module = torchvision_s("mobilenet_v2")
    whole = import_network(module, SIZE, classes=5)
    assert [head.name for head in whole.graph.heads] == ["exit1", "exit2", "exit3", "head"]
    assert [whole.graph.node(head.reads[0]).channels for head in whole.graph.heads] == [24, 32, 96, 1280]
    early = extract(whole, whole.graph.until(2))
    images = torch.rand(1, 3, *SIZE)
    with torch.no_grad():
        assert torch.equal(early(images), whole.forward_exits(images)[1])
    assert sum(p.numel() for p in early.parameters()) < 0.1 * sum(p.numel() for p in whole.parameters())
    assert any(isinstance(edge.operator, Depthwise) for edge in early.graph.edges)


@pytest.mark.parametrize("name", ["resnet18", "vgg11", "squeezenet1_1"])
def test_a_classifier_s_trunk_answers_for_every_pixel(name: str) -> None:
    fabric = import_network(torchvision_s(name), SIZE, classes=3, task="segmentation")
    assert fabric(torch.rand(1, 3, *SIZE)).shape == (1, 3, *SIZE)
    assert len(fabric.graph.head.reads) >= 3


def test_the_stem_for_grey_images_is_the_sum_over_colours() -> None:
    module = torchvision_s("resnet18")
    images = torch.rand(2, 1, *SIZE)
    with torch.no_grad():
        found, wanted = import_network(module, SIZE, image_channels=1)(images), module(images.expand(-1, 3, -1, -1))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
