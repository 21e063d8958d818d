"""A .pt2 file of torch.export as a module, read without running, unpickling or evaluating anything that it holds.

torch.export.load falls back to unpickling, and evaluates text in the file. Here its graph is read as JSON, its weights
as plain numbers (``torch/_export/serde/schema.py``, version 8), and of operators those of ATen alone are called.
"""

import json
import zipfile
from collections.abc import Mapping, Sequence
from functools import partial
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from convfabric.errors import ImportingError
from convfabric.fabric.archive import FACTS
from convfabric.fabric.layers.opaque import CALLED
from convfabric.importing.patterns import ROWS
from convfabric.importing.trace import UNREAD

SCHEMA = 8
"""The version of the file's schema that is read."""
DTYPES: Mapping[int, torch.dtype] = MappingProxyType(
    dict(enumerate((torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float16), start=1))
    | {7: torch.float32, 8: torch.float64, 12: torch.bool, 13: torch.bfloat16}
)
"""By their number in the schema."""
PLAIN = ("as_int", "as_ints", "as_float", "as_floats", "as_bool", "as_bools", "as_string")
"""Arguments that are their own value."""
HOW = "torch.export.save(torch.export.export(model.eval(), (torch.zeros(2, 3, H, W),)), FILE) writes one that is."
MOST_BYTES = 4 << 30
"""Of what a file holds, unpacked."""


def module_of(file: Path) -> "Program":
    """The module whose program a file holds, with its weights by their names.

    Raises ImportingError for what is no such file, and for what would have to be unpickled, with how to write it anew.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder) / "small.pt2"
    ...     torch.export.save(torch.export.export(nn.Conv2d(3, 4, 3), (torch.zeros(2, 3, 8, 8),)), file)
    ...     found = module_of(file)
    >>> list(found.state_dict()), found.size, found(torch.zeros(2, 3, 8, 8)).shape
    (['weight', 'bias'], (8, 8), torch.Size([2, 4, 6, 6]))
    """
    try:
        with zipfile.ZipFile(file) as archive:
            found = Program(*_parts(archive)).eval()
            stated = [name for name in archive.namelist() if name.partition("/")[2] == f"extra/{FACTS}"]
            found.facts = json.loads(archive.read(stated[0])) if stated else {}
            return found
    except ImportingError as fault:
        raise ImportingError(f"{file}: {fault}" + f" {HOW}" * (UNREAD not in str(fault))) from None
    except (OSError, zipfile.BadZipFile) as fault:
        raise ImportingError(f"{file}: not a .pt2 file ({fault}). {HOW}") from None
    except (ValueError, LookupError, TypeError, AttributeError, RuntimeError, RecursionError) as fault:
        said = f"{type(fault).__name__}: {str(fault)[:100]}"
        raise ImportingError(f"{file}: not as torch.export writes it ({said}). {HOW}") from None


def _parts(archive: zipfile.ZipFile) -> tuple[Mapping[str, Any], dict[str, Tensor]]:
    """The graph of the one program in an archive, and its tensors by name."""
    if sum(entry.file_size for entry in archive.infolist()) > MOST_BYTES:
        raise ImportingError(f"holds more than {MOST_BYTES >> 30} GiB.")
    files = {name.partition("/")[2]: name for name in archive.namelist()}
    models = [name for name in files if name.startswith("models/")]
    if len(models) != 1:
        what = "programs of torch.export in it, where one is read; weights alone are given by --weights"
        raise ImportingError(f"{len(models)} {what}.")
    whole = json.loads(archive.read(files[models[0]]))
    if whole["schema_version"]["major"] != SCHEMA:
        raise ImportingError(f"of schema {whole['schema_version']['major']}; {SCHEMA} is read.")
    tensors: dict[str, Tensor] = {}
    for kind in ("weights", "constants"):
        config = json.loads(archive.read(files[f"data/{kind}/model_{kind}_config.json"]))["config"]
        for name, entry in config.items():
            if entry["use_pickle"] or entry["tensor_meta"] is None:
                raise ImportingError(f"{name} is pickled, and nothing is unpickled.")
            tensors[name] = _tensor(archive.read(files[f"data/{kind}/{entry['path_name']}"]), entry["tensor_meta"])
    return whole["graph_module"], tensors


def _tensor(content: bytes, facts: Mapping[str, Any]) -> Tensor:
    dtype, shape, stride = DTYPES[facts["dtype"]], _ints(facts["sizes"]), _ints(facts["strides"])
    if not prod(shape):
        return torch.zeros(shape, dtype=dtype)
    flat = torch.frombuffer(bytearray(content), dtype=dtype)
    return flat.as_strided(shape, stride, facts["storage_offset"]["as_int"]).clone()


def _ints(values: Sequence[Mapping[str, int]]) -> tuple[int, ...]:
    return tuple(int(value["as_int"]) for value in values)


def _side(value: Mapping[str, Any]) -> int:
    """The length of a dimension, or the one that it had in the example where it may be any."""
    return int(value["as_int"] if "as_int" in value else value["as_expr"]["hint"]["as_int"])


class Program(nn.Module):
    """A program whose operators are called one after another."""

    size: tuple[int, int]
    """Height and width of the images that it was traced with, pixels."""
    image_channels: int
    facts: Mapping[str, Any] = MappingProxyType({})
    """What a file that convfabric delivered says of itself."""

    def __init__(self, module: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        graph, signature = module["graph"], module["signature"]
        self.images, self.holders = _inputs(signature["input_specs"])
        sides = graph["tensor_values"][self.images]["sizes"]
        if len(sides) != 4:
            raise ImportingError(f"reads a tensor of {len(sides)} dimensions, where (B, C, H, W) are images.")
        self.size, self.image_channels = (_side(sides[2]), _side(sides[3])), _side(sides[1])
        for name in self.holders.values():
            _hold(self, name, tensors[name])
        self.calls = [_call(node) for node in graph["nodes"] if node["outputs"] or "._assert" not in node["target"]]
        outputs = [spec["user_output"]["arg"] for spec in signature["output_specs"] if "user_output" in spec]
        self.answer = outputs[0]["as_tensor"]["name"]

    def forward(self, images: Tensor) -> Tensor:
        """The first tensor that the program answers for images (B, C, H, W)."""
        values: dict[str, Any] = {self.images: images}
        values |= {name: _held(self, held) for name, held in self.holders.items()}
        for called, args, named, names in self.calls:
            result = called(*(part(values) for part in args), **{name: part(values) for name, part in named.items()})
            values |= zip(names, result, strict=False) if isinstance(names, list) else {names: result}
        answer: Tensor = values[self.answer]
        return answer


def _inputs(specs: Sequence[Mapping[str, Any]]) -> tuple[str, dict[str, str]]:
    """The name that the images have in the graph, and of each weight there its name in the module."""
    images, holders = [], dict[str, str]()
    for spec in specs:
        ((kind, facts),) = spec.items()
        if kind == "user_input":
            images.append(facts["arg"]["as_tensor"]["name"])
        elif kind in ("parameter", "buffer", "tensor_constant"):
            holders[facts["arg"]["name"]] = facts[f"{kind}_name"]
        else:
            raise ImportingError(f"reads a {kind}; weights and images are read.")
    if len(images) != 1:
        raise ImportingError(f"reads {len(images)} tensors, where one holds the images.")
    return images[0], holders


def _hold(module: nn.Module, name: str, tensor: Tensor) -> None:
    """Enters a tensor under a name with dots, through modules that are made for it."""
    *path, last = name.split(".")
    for part in path:
        if part not in module._modules:
            module.add_module(part, nn.Module())
        module = module.get_submodule(part)
    if tensor.is_floating_point() and not last.startswith("running_"):
        module.register_parameter(last, nn.Parameter(tensor, requires_grad=False))
    else:
        module.register_buffer(last, tensor)


def _held(module: nn.Module, name: str) -> Tensor:
    path, _, last = name.rpartition(".")
    found: Tensor = getattr(module.get_submodule(path), last)
    return found


def _call(node: Mapping[str, Any]) -> tuple[Any, list[Any], dict[str, Any], Any]:
    """An operator, what gives its arguments from the values so far, and the names of what it returns."""
    parts = [(one["name"], one.get("kind"), _argument(one["arg"])) for one in node["inputs"]]
    positional = [part for _, kind, part in parts if kind != 2]
    outputs = node["outputs"]
    if not outputs:
        raise ImportingError(f"calls {node['target']} for what it changes, not for what it answers.")
    ((kind, value),) = outputs[0].items()
    names = (
        [one["name"] for one in value] if kind == "as_tensors" else value["name" if kind == "as_tensor" else "as_name"]
    )
    if len(outputs) > 1:
        names = [next(iter(one.values()))["name"] for one in outputs]
    return _operator(node["target"]), positional, {name: part for name, kind, part in parts if kind == 2}, names


def _operator(target: str) -> Any:
    """An operator of ATen by its name in a file; nothing else can be named.

    >>> _operator("torch.ops.aten.relu.default")
    <OpOverload(op='aten.relu', overload='default')>
    """
    name, sizes = target.removeprefix("torch.ops."), "aten.sym_size.int"
    parts = name.split(".")
    if len(parts) != 3 or parts[0] != "aten" or not target.startswith("torch.ops."):
        raise ImportingError(f"calls {target}, which is no operator of ATen.")
    if parts[1] not in dir(torch.ops.aten) and not hasattr(torch.ops.aten, parts[1]):
        raise ImportingError(f"calls {target}, which this version of torch does not have.")
    found: Any = getattr(getattr(torch.ops.aten, parts[1]), parts[2])
    if name.replace("_.", ".") not in ROWS and name != sizes and not set(CALLED) & set(found.tags):
        raise ImportingError(f"calls {target}; {UNREAD}.")
    return found


def _argument(argument: Mapping[str, Any]) -> Any:
    """What gives an argument from the values so far."""
    ((kind, value),) = argument.items()
    if kind in PLAIN:
        return partial(_plain, value)
    if kind in ("as_none", "as_memory_format", "as_layout", "as_device"):
        return partial(_plain, None)
    if kind == "as_scalar_type":
        return partial(_plain, DTYPES[value])
    if kind in ("as_tensor", "as_sym_int"):
        ((_, named),) = value.items() if kind == "as_sym_int" else (("", value["name"]),)
        return partial(_named if isinstance(named, str) else _plain, named)
    if kind in ("as_tensors", "as_sym_ints", "as_optional_tensors", "as_int_lists"):
        key = {"as_tensors": "as_tensor", "as_sym_ints": "as_sym_int"}.get(kind)
        return partial(_several, [_argument({key: one} if key else one) for one in value])
    if kind == "as_optional_tensor":
        return _argument(value)
    raise ImportingError(f"has an argument of kind {kind}, which no convolutional network needs.")


def _plain(value: Any, values: Mapping[str, Any]) -> Any:
    return value


def _named(name: str, values: Mapping[str, Any]) -> Any:
    return values[name]


def _several(parts: Sequence[Any], values: Mapping[str, Any]) -> list[Any]:
    return [part(values) for part in parts]
