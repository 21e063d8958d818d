"""A module as a torch.export program, and the responses that it computes."""

import logging
import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from convfabric.errors import ImportingError
from convfabric.importing.opaque import Part
from convfabric.importing.patterns import ROWS, response, seen
from convfabric.importing.responses import Constant, Response, Seen, as_map, made_by
from convfabric.operators import Size

UNREAD = "no row reads it"
TAKE_SHAPES = ("upsample", "view", "unsqueeze", "squeeze", "reshape", "as_strided", "flatten")
"""Parts of names of operators whose rows need the shape of the result."""
BATCH = 2
"""Images in the trace; one would be taken for a dimension that is not there."""


def exported(module: nn.Module, channels: int, size: Size, written_for: Size | None = None) -> ExportedProgram:
    """The program of a module in evaluation mode, for images (2, channels, height, width).

    Raises ImportingError where torch.export cannot trace it, with the size that its file was written for, if another.
    """
    images = torch.zeros(BATCH, channels, *size)
    try:
        with torch.no_grad():
            return _of_torch(lambda: torch.export.export(module.eval(), (images,), strict=False))
    except ImportingError as fault:
        if written_for in (None, size):
            raise
        assert written_for is not None
        own, asked = (f"{side[1]}×{side[0]}" for side in (written_for, size))
        raise ImportingError(
            f"its file is written for images of {own} pixels, and cannot be run on {asked}: --size "
            f"{written_for[1]}x{written_for[0]} takes those, or write it for {asked}. {fault}"
        ) from None


def decomposed(program: ExportedProgram) -> ExportedProgram:
    """The same program in fewer kinds of operators, none of which changes a tensor in place."""
    return _of_torch(program.run_decompositions)


def _of_torch(work: Callable[[], ExportedProgram]) -> ExportedProgram:
    try:
        with _unheard():
            return work()
    except Exception as fault:  # whatever somebody else's module raises
        first = (str(fault).splitlines() or [""])[0][:200]
        raise ImportingError(f"torch.export cannot trace it ({type(fault).__name__}: {first}).") from None


@contextmanager
def _unheard() -> Iterator[None]:
    """What torch says of a module to its own developers, before it raises, is not heard."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


SOFTMAX = {
    "aten.softmax.int": torch.softmax,
    "aten._softmax.default": torch.softmax,
    "aten.log_softmax.int": torch.log_softmax,
    "aten._log_softmax.default": torch.log_softmax,
}
"""Operators that make shares of logits, or the logarithms of shares."""


def last_softmax(program: ExportedProgram) -> Any:
    """The call by which a program makes shares of classes at its very end; None where it ends otherwise.

    Left out, the answers are logits, of which losses, files and scores make shares themselves.
    """
    answer = next(node for node in program.graph.nodes if node.op == "output").args[0]
    last = answer[len(program.graph_signature.buffers_to_mutate)]
    if str(getattr(last, "target", "")) not in SOFTMAX or len(last.users) > 1:
        return None
    rank = last.meta["val"].ndim
    return last if rank in (2, 4) and last.args[1] % rank == 1 else None


class UnreadError(ImportingError):
    """An operator of the trace that nothing reads."""

    def __init__(self, node: Any, said: str) -> None:
        super().__init__(f"{_where(node)}: {node.target!s}: {said}.")
        self.node = node


def read(program: ExportedProgram, parts: Sequence[Part] = ()) -> tuple[Response, Seen]:
    """The response that holds the images, and the tensor that is answered, the first where there are several.

    Of parts that are kept as they are nothing inside is read.
    Raises UnreadError, naming the operator and the module it stands in, for what a graph has none for.
    """
    values, images = _inputs(program)
    inside = {node: part for part in parts for node in part.inside}
    shares = last_softmax(program)
    for node in program.graph.nodes:
        if node is shares:
            values[node] = values[node.args[0]]
            continue
        if node in inside:
            if node is (part := inside[node]).answer:
                made = part.operator
                values[node] = as_map(
                    made_by(response(values[part.source]), made, made.channels[1], made.sizes[1], part.tensors)
                )
            continue
        if node.op == "output":
            answers = values[node.args[0][len(program.graph_signature.buffers_to_mutate)]]
            return images, seen(answers)
        if node.op == "call_function":
            try:
                values[node] = _called(node, values)
            except ImportingError as fault:
                raise UnreadError(node, str(fault)) from None
            except Exception as fault:  # arguments in a form that its row does not know
                raise UnreadError(node, f"not as its row reads it ({type(fault).__name__}: {fault})") from None
            if in_place(str(node.target)):
                values[node.args[0]] = values[node]
    raise ImportingError("the program has no output.")


def _inputs(program: ExportedProgram) -> tuple[dict[Any, Any], Response]:
    values: dict[Any, Any] = {}
    known = {**program.state_dict, **program.constants}
    nodes = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    images = None
    for spec in program.graph_signature.input_specs:
        node = nodes[spec.arg.name]
        if spec.kind == InputKind.USER_INPUT:
            _, channels, *size = node.meta["val"].shape
            images = Response(channels, (size[0], size[1]), [])
            values[node] = as_map(images)
        else:
            values[node] = Constant(known[spec.target].detach(), spec.target, frozenset({spec.target}))
    if images is None:
        raise ImportingError("the program reads no images.")
    return values, images


def _called(node: Any, values: dict[Any, Any]) -> Any:
    """The value of a call; worked out at once where it depends on constants alone."""
    args, named = (torch.fx.node.map_arg(part, lambda one: values[one]) for part in (node.args, node.kwargs))
    if node.target is operator.getitem:
        return args[0][args[1]]
    name, parts = str(node.target), _leaves([args, named])
    if in_place(name):
        name = name.replace("_.", ".")
        if isinstance(args[0], Constant):
            raise ImportingError("a constant is changed in place, as in training")
    if not any(node.all_input_nodes and not isinstance(values[one], Constant | Tensor) for one in node.all_input_nodes):
        plain = torch.fx.node.map_arg((node.args, node.kwargs), lambda one: values[one].tensor)
        with torch.no_grad():
            result = node.target(*plain[0], **plain[1])
        if isinstance(result, Tensor):
            return _folded(name, parts, result)
        return tuple(_folded(name, parts, one) if isinstance(one, Tensor) else one for one in result)
    if name not in ROWS:
        raise ImportingError(UNREAD)
    if any(part in name for part in TAKE_SHAPES):
        named = {**named, "shape": tuple(node.meta["val"].shape)}
    if name == "aten.amax.default":
        named = {**named, "kind": "max"}
    return ROWS[name](*args, **named)


def in_place(name: str) -> bool:
    """Whether an operator changes the tensor that it reads.

    >>> in_place("aten.relu_.default"), in_place("aten.relu.default")
    (True, False)
    """
    return "_." in name


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, list | tuple):
        return [leaf for part in value for leaf in _leaves(part)]
    return [leaf for part in value.values() for leaf in _leaves(part)] if isinstance(value, dict) else [value]


def _where(node: Any) -> str:
    """The module that an operator stands in, by its name."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return (stack[-1][0] if stack else "") or "the network"


VIEWS = (
    *("permute", "view", "alias", "clone", "expand", "detach", "unsqueeze", "squeeze", "t"),
    *("reshape", "flatten", "unflatten", "transpose", "contiguous", "view_as"),
)
"""Operators whose result holds the values of what they read."""


def _folded(name: str, values: Sequence[Any], result: Tensor) -> Constant:
    """A constant made of constants, which keeps the name of the one that it is a view of."""
    constants = [value for value in values if isinstance(value, Constant)]
    origins = {value.origin for value in constants}
    made_of = frozenset[str]().union(*(value.made_of for value in constants))
    view = name.split(".")[1] in VIEWS
    return Constant(result, origins.pop() if view and len(origins) == 1 else "", made_of)
