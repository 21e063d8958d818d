"""Modules of a network that no operator describes, kept whole as the calls that torch traces them as."""

import json
import operator as python
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, default_decompositions
from torch.export.graph_signature import InputKind
from torch.fx import GraphModule, Node
from torch.utils.flop_counter import FlopCounterMode

from convfabric.errors import ImportingError
from convfabric.fabric.layers import layer
from convfabric.importing.responses import Constant, Tensors
from convfabric.operators import Opaque, Size
from convfabric.operators.opaque import TRAINED

CALL = "call_function"
KEPT_AS_ONE = torch.ops.aten.scaled_dot_product_attention.default
"""Not taken apart, as runtimes have it in one piece."""
FEWER, BATCH, MORE = 1, 2, 3
"""Images that a part is tried with; it is traced with two."""
NEAR = 1e-4
"""Of its answers, as a share of them."""


@dataclass(frozen=True)
class Part:
    """A module in the trace: where its map comes in, where its answer is, and the operator that stands for it."""

    path: str
    source: Node
    answer: Node
    inside: frozenset[Node]
    operator: Opaque
    tensors: Tensors


def parts_around(program: ExportedProgram, module: nn.Module, unread: Node) -> Iterator[Part | str]:
    """The parts that could stand for what was not read, the smallest first, or why a module is none.

    They are modules around the operator, or around what it reads, that read one map and answer with one.
    """
    if isinstance(module, GraphModule):
        yield "What no row reads is kept as it is where there are modules, not in a program."
        return
    calls = {call for node in (unread, *unread.all_input_nodes) for call in _calls(node)}
    regions = {call: frozenset(n for n in program.graph.nodes if n.op == CALL and call in _calls(n)) for call in calls}
    for call in sorted(calls, key=lambda call: (len(regions[call]), -len(call[1]), call)):
        try:
            yield _part(call[1], regions[call], program, module)
        except ImportingError as reason:
            yield str(reason)


def _calls(node: Node) -> list[tuple[str, str]]:
    """The calls of modules that an operator stands in, each with its module's path, without the network itself."""
    return [(call, path) for call, (path, _) in (node.meta.get("nn_module_stack") or {}).items() if path]


def _part(path: str, inside: frozenset[Node], program: ExportedProgram, module: nn.Module) -> Part:
    """A call of a module as a part of the trace; ImportingError where it does not read one map and answer with one."""
    sources = {one for node in inside for one in node.all_input_nodes if one not in inside}
    sources -= {node for node in program.graph.nodes if node.op == "placeholder" and node.name in _held(program)}
    answers = [node for node in inside if any(user not in inside for user in node.users)]
    if len(sources) != 1 or len(answers) != 1:
        counted = f"it reads {len(sources)} and answers with {len(answers)}"
        raise ImportingError(f"{path}: only a module of one map in and one out can be kept as it is; {counted}.")
    [source], [answer] = sources, answers
    shapes = [tuple(node.meta["val"].shape) for node in (source, answer)]
    if {len(shape) for shape in shapes} != {4}:
        of = " and ".join("×".join(map(str, shape)) for shape in shapes)
        raise ImportingError(f"{path}: only a module from map to map can be kept as it is, not {of}.")
    operator, tensors = kept(module.get_submodule(path), shapes[0][1], shapes[0][2:], path)
    return Part(path, source, answer, inside, operator, tensors)


def _held(program: ExportedProgram) -> set[str]:
    """Names in the trace of weights, statistics and constants."""
    specs = program.graph_signature.input_specs
    return {str(spec.arg.name) for spec in specs if spec.kind != InputKind.USER_INPUT}


def kept(module: nn.Module, channels: int, size: Size, path: str = "") -> tuple[Opaque, dict[str, Constant]]:
    """A module as an operator that makes its calls, and its weights, by the names that the operator has for them.

    Raises ImportingError where torch cannot trace it for any number of images, or calls are none of ATen's.

    >>> operator, weights = kept(nn.Conv2d(4, 4, 1), 4, (8, 8), "mixing")
    >>> operator.multiplied, {name: constant.origin for name, constant in weights.items()}
    (1024, {'weight': 'mixing.weight', 'bias': 'mixing.bias'})
    """
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            images = {count: torch.rand(count, channels, *size) for count in (FEWER, BATCH, MORE)}
            program, written = _traced(module.eval(), images[BATCH])
            with FlopCounterMode(display=False) as counted:
                _, made, *after = module(images[FEWER]).shape
            text, tensors = _told(program)
            operator = Opaque(
                program=text,
                channels=(channels, made),
                sizes=(size, (after[0], after[1])),
                multiplied=counted.get_total_flops() // 2,
                written=written,
            )
            found = layer(operator, channels, made).eval()
            found.load_state_dict(tensors)
            for pixels in images.values():
                torch.testing.assert_close(found(pixels, size), module(pixels), rtol=NEAR, atol=NEAR)
    except Exception as fault:  # whatever somebody else's module raises, or torch for it
        raise ImportingError(f"{path}: cannot be kept as it is ({type(fault).__name__}: {str(fault)[:100]}).") from None
    origins = {name: f"{path}.{origin}" if path else origin for name, origin in _origins(program).items()}
    return operator, {
        name: Constant(tensor, origins[name], frozenset({origins[name]})) for name, tensor in tensors.items()
    }


def _traced(module: nn.Module, images: Tensor) -> tuple[ExportedProgram, int]:
    """The program of a module for any number of images, and the numbers that it writes for one."""
    known: Any = default_decompositions()
    table = {one: how for one, how in known.items() if one is not KEPT_AS_ONE}
    several = torch.export.export(module, (images,), dynamic_shapes=({0: Dim("images", min=1)},), strict=False)
    program = several.run_decompositions(table)
    written = 0
    for node in program.graph.nodes:
        value = node.meta.get("val") if node.op == CALL else None
        if isinstance(value, Tensor) and value.ndim:
            written += value[:1].numel() if not isinstance(value.shape[0], int) else value.numel()
    return program, int(written)


def _told(program: ExportedProgram) -> tuple[str, dict[str, Tensor]]:
    """The text of a program, and its weights by the names they have there."""
    known: dict[str, Any] = {**program.state_dict, **program.constants}
    names, kinds, tensors, reads = dict[str, str](), dict[str, str](), dict[str, Tensor](), ""
    for spec in program.graph_signature.input_specs:
        name = str(spec.arg.name)
        if spec.kind == InputKind.USER_INPUT:
            reads = names[name] = name
        else:
            names[name] = str(spec.target).replace(".", "_")
            tensor = tensors[names[name]] = known[str(spec.target)].detach()
            trained = spec.kind == InputKind.PARAMETER and tensor.dtype == torch.float32
            kinds[names[name]] = TRAINED if trained else str(tensor.dtype).removeprefix("torch.")
    calls, answers = list[Any](), ""
    for node in program.graph.nodes:
        if node.op == "output":
            answers = _named(node.args[0][0], names)["value"]
        elif node.op == CALL and "_assert" not in str(node.target):
            named = {key: _named(value, names) for key, value in node.kwargs.items() if value is not None}
            calls.append([node.name, _called(node.target), _named(node.args, names), named])
    weights = {name: [list(tensor.shape), kinds[name]] for name, tensor in tensors.items()}
    text = json.dumps({"reads": reads, "answers": answers, "weights": weights, "calls": calls}, separators=(",", ":"))
    return text, tensors


def _origins(program: ExportedProgram) -> Mapping[str, str]:
    """Of weights by the names of the text, those that they have in the module."""
    specs = program.graph_signature.input_specs
    return {str(s.target).replace(".", "_"): str(s.target) for s in specs if s.kind != InputKind.USER_INPUT}


def _called(target: Any) -> str:
    """The name of what is called; views are copies where memory is laid out otherwise, as it is for images in turns."""
    name = getattr(target, "__name__", "")
    if getattr(python, name, None) is target:
        return name
    return "aten.reshape.default" if target is torch.ops.aten.view.default else str(target)


def _named(part: Any, names: Mapping[str, str]) -> Any:
    """An argument as the text has it."""
    if isinstance(part, Node):
        return {"value": names.get(part.name, part.name)}
    if isinstance(part, list | tuple):
        return [_named(one, names) for one in part]
    if isinstance(part, torch.dtype):
        return {"dtype": str(part).removeprefix("torch.")}
    if isinstance(part, torch.device):
        return {"device": ""}
    return None if isinstance(part, torch.layout | torch.memory_format) else part
