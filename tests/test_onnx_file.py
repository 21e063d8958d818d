"""ONNX files are read node by node, answer as ONNX Runtime does, and become graphs like any other network."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F

from convfabric.data.imageset import Preprocessing
from convfabric.errors import ImportingError, SettingError
from convfabric.execution.quantisation import quantised
from convfabric.fabric.archive import Passport
from convfabric.fabric.deployable import Deployable
from convfabric.importing.network import imported
from convfabric.importing.onnx_file import module_of
from convfabric.importing.onnx_nodes import NODES
from convfabric.importing.sources import graph_of, original
from convfabric.latency.drafts import drafted
from convfabric.operators import HardSwish, Mish, Operator
from convfabric.weavers import Purpose, Source
from test_importing import lively
from test_pipeline import done

SHAPE = (2, 6, 8, 8)
FLOAT = onnx.TensorProto.FLOAT
Array = Any


def drawn(*shape: int) -> Array:
    return np.random.default_rng(0).random(shape, np.float32) + 0.1


def ints(*values: int) -> Array:
    return np.array(values, np.int64)


SPECIMENS: dict[str, list[tuple[dict[str, Any], list[Array | None]]]] = {
    **{kind: [({}, [])] for kind in ("Relu", "Sigmoid", "Tanh", "Softplus", "Selu", "Sqrt", "Erf")},
    **{kind: [({}, [])] for kind in ("Identity", "Dropout", "GlobalAveragePool", "GlobalMaxPool", "LeakyRelu", "Elu")},
    **{kind: [({}, [drawn(1, 6, 1, 1)]), ({}, [np.float32(0.7)])] for kind in ("Add", "Sub", "Mul", "Div")},
    **{kind: [({"keepdims": 0}, [ints(2, 3)]), ({}, [ints(-1)])] for kind in ("ReduceMean", "ReduceMax", "ReduceSum")},
    "ReduceL2": [({}, [ints(2, 3)])],
    "Pow": [({}, [np.float32(2.0)])],
    "Sum": [({}, [drawn(1, 6, 1, 1), drawn(1, 6, 1, 1)])],
    "Gelu": [({}, []), ({"approximate": "tanh"}, [])],
    "Cast": [({"to": FLOAT}, [])],
    "Softmax": [({"axis": 1}, [])],
    "LogSoftmax": [({"axis": 1}, [])],
    "HardSigmoid": [({}, []), ({"alpha": 1 / 6}, [])],
    "Clip": [({}, [np.float32(0.2), np.float32(0.6)]), ({}, [np.float32(0)]), ({}, [None, np.float32(0.5)])],
    "PRelu": [({}, [drawn(6, 1, 1)])],
    "Concat": [({"axis": 1}, [drawn(2, 3, 8, 8)])],
    "Transpose": [({"perm": [0, 2, 3, 1]}, [])],
    "MatMul": [({}, [drawn(8, 5)]), ({}, [drawn(2, 6, 8, 3)])],
    "DepthToSpace": [({"blocksize": 2}, []), ({"blocksize": 2, "mode": "CRD"}, [])],
    "SpaceToDepth": [({"blocksize": 2}, [])],
    "Conv": [
        ({"pads": [1, 1, 1, 1], "strides": [2, 2]}, [drawn(4, 6, 3, 3), drawn(4)]),
        ({"auto_pad": "SAME_UPPER", "strides": [2, 2]}, [drawn(4, 6, 3, 3)]),
        ({"auto_pad": "SAME_LOWER", "group": 6}, [drawn(6, 1, 4, 4)]),
        ({"dilations": [2, 2], "pads": [0, 1, 2, 3]}, [drawn(4, 6, 3, 3)]),
    ],
    "ConvTranspose": [
        ({"strides": [2, 2]}, [drawn(6, 4, 2, 2), drawn(4)]),
        ({"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]}, [drawn(6, 4, 3, 3)]),
        ({"strides": [2, 2], "pads": [1, 1, 0, 0]}, [drawn(6, 4, 3, 3)]),
    ],
    "MaxPool": [
        ({"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}, []),
        ({"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"}, []),
        ({"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}, []),
    ],
    "AveragePool": [
        ({"kernel_shape": [2, 2], "strides": [2, 2]}, []),
        ({"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}, []),
        ({"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}, []),
    ],
    "BatchNormalization": [({"epsilon": 1e-3}, [drawn(6), drawn(6), drawn(6), drawn(6)])],
    "InstanceNormalization": [({}, [drawn(6), drawn(6)])],
    "LayerNormalization": [({}, [drawn(8), drawn(8)]), ({"axis": -2}, [drawn(8, 8)])],
    "LRN": [({"size": 3}, [])],
    "Gemm": [({"transB": 1}, [drawn(5, 8), drawn(5)]), ({}, [drawn(8, 5)])],
    "Reshape": [({}, [ints(0, 2, 3, 8, 8)]), ({}, [ints(2, -1)])],
    "Flatten": [({}, []), ({"axis": 2}, [])],
    "Squeeze": [({}, [ints(1)])],
    "Unsqueeze": [({}, [ints(1, -1)])],
    "Expand": [({}, [ints(2, 6, 8, 8)])],
    "Split": [({"axis": 1, "num_outputs": 2}, []), ({"axis": 1}, [ints(2, 4)])],
    "Slice": [({}, [ints(1), ints(5), ints(1)]), ({}, [ints(0, 0), ints(99, 99), ints(2, 3), ints(2, 2)])],
    "Pad": [({}, [ints(0, 0, 1, 0, 0, 0, 1, 2)]), ({"mode": "reflect"}, [ints(0, 0, 1, 1, 0, 0, 1, 1)])],
    "Resize": [
        (
            {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
            [None, np.array([1, 1, 2, 3], np.float32)],
        ),
        ({"mode": "linear", "coordinate_transformation_mode": "pytorch_half_pixel"}, [None, None, ints(2, 6, 16, 12)]),
        ({"mode": "linear", "coordinate_transformation_mode": "align_corners"}, [None, None, ints(2, 6, 9, 11)]),
    ],
    "Upsample": [({"mode": "nearest"}, [np.array([1, 1, 2, 2], np.float32)])],
}
"""Attributes and what follows the map, of each kind of node; old files have ``Upsample`` where new ones have Resize."""
SEQUENCES = {"SplitToSequence", "SequenceAt"}
"""Make or read what is no tensor; the network with norms below has both."""
READ = {"Squeeze": (2, 1, 8, 8), "Gemm": (2, 8, 1, 1), "DepthToSpace": (2, 8, 4, 4)}
"""Maps of other shapes than usual."""


def written(
    file: Path, nodes: list[Any], weights: dict[str, Array], shape: Any = SHAPE, kind: int = FLOAT, opset: int = 21
) -> Path:
    """A file of nodes that lead from x to y."""
    inputs, outputs = (
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", FLOAT, None)],
    )
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    onnx.save(model, file)
    return file


@pytest.mark.parametrize("kind", sorted(NODES.keys() - SEQUENCES))
def test_every_kind_of_node_answers_as_onnx_runtime_does(kind: str, tmp_path: Path) -> None:
    opset = 9 if kind == "Upsample" else 21
    for settings, others in SPECIMENS[kind]:
        names = [f"w{i}" if other is not None else "" for i, other in enumerate(others)]
        weights = {f"w{i}": np.asarray(other) for i, other in enumerate(others) if other is not None}
        made = ["y", "z"] if kind == "Split" else ["y"]
        nodes = [helper.make_node(kind, ["flat" if kind == "Gemm" else "x", *names], made, **settings)]
        if kind == "Gemm":
            nodes.insert(0, helper.make_node("Flatten", ["x"], ["flat"]))
        read = module_of(written(tmp_path / "a.onnx", nodes, weights, READ.get(kind, SHAPE), opset=opset))
        assert kind in {node.kind for node in read.nodes.values()}


class Small(nn.Module):
    """Norms, a squeeze, a split and an uneven padding."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.deep = nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.Conv2d(4, 4, 3, 1, 1)
        self.gate, self.last = nn.Conv2d(8, 8, 1), nn.Linear(8, 5)

    def forward(self, images: Tensor) -> Tensor:
        x = F.silu(self.norm(self.stem(F.pad(images, (0, 1, 0, 1)))))
        left, right = x.chunk(2, 1)
        x = torch.cat([left + F.gelu(self.deep(left)), right], 1)
        x = x * F.hardsigmoid(self.gate(x.mean((2, 3), keepdim=True)))
        answer: Tensor = self.last(F.adaptive_avg_pool2d(x, 1).view(x.size(0), -1))
        return answer


@pytest.mark.parametrize("images", [1, 3])
def test_a_file_for_any_number_of_images_at_a_time_is_a_network_for_all(images: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs, pixels = lively(Small()), torch.rand(5, 3, 16, 16)
    (tmp_path / "a.onnx").write_bytes(drafted(theirs, torch.zeros(images, 3, 16, 16)))
    ours = module_of(tmp_path / "a.onnx")
    assert (ours.size, ours.image_channels) == ((16, 16), 3)
    found = imported(ours, ours.size)
    with torch.no_grad():
        torch.testing.assert_close(found.fabric(pixels), theirs(pixels), rtol=1e-4, atol=1e-5)
    assert any("gate" in origin for origin in found.origins.values())


@pytest.mark.filterwarnings("ignore")
def test_norms_stay_where_an_exporter_leaves_them_and_weights_may_lie_beside_the_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs, file = lively(Small()), tmp_path / "a.onnx"
    example = (torch.zeros(1, 3, 16, 16),)
    torch.onnx.export(theirs, example, file, dynamo=True, optimize=False, external_data=True, verbose=False)
    found = imported(module_of(file), (16, 16))
    assert sum(origin.endswith("running_mean") for origin in found.origins.values()) == 1
    assert found.difference <= 1e-5
    (tmp_path / "a.onnx.data").unlink()
    refused(file, "not an ONNX file|does not run it")


@pytest.mark.parametrize(("kind", "operator"), [("HardSwish", HardSwish()), ("Mish", Mish())])
def test_what_the_runtime_takes_apart_is_one_operator_again(kind: str, operator: Operator, tmp_path: Path) -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node(kind, ["c"], ["y"])]
    read = module_of(written(tmp_path / "a.onnx", nodes, {"w": drawn(8, 6, 1, 1)}))
    assert operator in {node.then for node in imported(read, read.size, image_channels=6).fabric.graph.nodes}


def test_channels_may_come_last_as_in_files_from_tensorflow(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["t", "w"], ["c"], auto_pad="SAME_UPPER", strides=[2, 2]),
        helper.make_node("BatchNormalization", ["c", "s", "b", "m", "v"], ["n"]),
        helper.make_node("Clip", ["n", "least", "most"], ["r"]),
        helper.make_node("Transpose", ["r"], ["l"], perm=[0, 2, 3, 1]),
        helper.make_node("ReduceMean", ["l", "axes"], ["p"], keepdims=0),
        helper.make_node("MatMul", ["p", "f"], ["q"]),
        helper.make_node("Add", ["q", "a"], ["y"]),
    ]
    weights = {"w": drawn(8, 3, 3, 3), "f": drawn(8, 4), "a": drawn(4), "least": np.float32(0), "most": np.float32(6)}
    weights |= {name: drawn(8) for name in "sbmv"} | {"axes": ints(1, 2)}
    weights = {name: np.asarray(array) for name, array in weights.items()}
    ours = module_of(written(tmp_path / "a.onnx", nodes, weights, ("images", 15, 16, 3)))
    assert (ours.size, ours.image_channels) == ((15, 16), 3)
    found = imported(ours, ours.size)
    assert found.difference <= 1e-5
    assert any(origin.endswith("running_var") for origin in found.origins.values())


def test_a_file_that_convfabric_delivered_is_a_source_like_any_other(tmp_path: Path) -> None:
    fabric = lively(imported(lively(Small()), (16, 16), classes=4).fabric)
    prepared = Preprocessing(size=(16, 16), channels=3, fitting="cover", mean=(0.4, 0.5, 0.6), std=(0.2, 0.2, 0.3))
    papers = Passport(graph=fabric.graph, classes=tuple("abcd"), preprocessing=prepared)
    (tmp_path / "a.onnx").write_bytes(drafted(Deployable(fabric, papers), torch.zeros(1, 3, 16, 16)))
    source = Source(network=f"file:{tmp_path / 'a.onnx'}", numbers={})
    assert graph_of(source, Purpose(size=(16, 16), classes=2)).head.classes == 2
    assert original(source.network).mean == ()
    done(["describe", source.network, "--size", "16"])


def refused(file: Path, said: str) -> None:
    with pytest.raises(ImportingError, match=said):
        module_of(file)


def test_what_is_not_read_is_named_with_what_would_be(tmp_path: Path) -> None:
    file, relu = tmp_path / "a.onnx", [helper.make_node("Relu", ["x"], ["y"], name="first")]
    file.write_bytes(b"no network")
    refused(file, r"a\.onnx: not an ONNX file")
    refused(
        written(file, relu, {}, (2, 3, "high", "wide")), "images of 2×3×high×wide, of no fixed size: python -m onnx"
    )
    refused(written(file, relu, {}, (2, 3)), "reads a tensor of 2 dimensions")
    cast = [helper.make_node("Cast", ["x"], ["y"], to=FLOAT)]
    refused(written(file, cast, {}, SHAPE, onnx.TensorProto.UINT8), "reads uint8, where float32 is read")
    refused(
        written(file, [helper.make_node("Sin", ["x"], ["y"], name="first")], {}), r"first: onnx\.Sin: nothing reads it"
    )
    refused(written(file, [helper.make_node("Relu", ["z"], ["y"])], {}), "ONNX Runtime does not run it")
    model = drafted(lively(Small()), torch.zeros(1, 3, 16, 16))
    file.write_bytes(quantised(model, [255 * drawn(1, 3, 16, 16)]))
    refused(file, "Linear: nothing reads it; give the float32 network, before it was quantised")
    with pytest.raises(SettingError, match=r"file:nowhere\.onnx: no such file; \.onnx"):
        original("file:nowhere.onnx")
