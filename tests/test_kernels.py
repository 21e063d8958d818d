"""The kernels compute what the readable layers do, and are built where they can be."""

import ctypes
import ctypes.util
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from math import inf
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convfabric.data.opening import open_data
from convfabric.data.options import DataOptions
from convfabric.execution import compiler, norms, sparse
from convfabric.execution.plans import plan_for
from convfabric.execution.runners import for_training
from convfabric.fabric.layers import layer
from convfabric.fabric.module import Fabric
from convfabric.operators import BandedConv
from convfabric.training.loop import train
from convfabric.training.recipe import Recipe
from convfabric.weavers import weave
from folders import mask_folders
from nearness import SINGLE, apart, kernels

CHANNELS = ((4, 4), (16, 16), (37, 37), (5, 10), (16, 32), (10, 5), (38, 19))
SIZES = ((1, 1), (2, 3), (8, 8), (7, 9), (13, 18), (20, 1))


def halved(size: tuple[int, int]) -> tuple[int, int]:
    return (size[0] + 1) // 2, (size[1] + 1) // 2


def one_edge(channels: tuple[int, int], step: int, size: tuple[int, int], images: int = 3) -> tuple[Tensor, ...]:
    """A response, kernels and a constant for one edge whose finer map has a size, and the size of its result."""
    torch.manual_seed(0)
    pairs = len(layer(BandedConv(), *channels).get_parameter("weight"))
    source, target = (size if step >= 0 else halved(size)), (size if step <= 0 else halved(size))
    return (
        torch.randn(images, channels[0], *source, dtype=torch.float64),
        torch.randn(pairs, 3, 3, dtype=torch.float64),
        torch.randn(channels[1], dtype=torch.float64),
        torch.tensor(target),
    )


def readable(x: Tensor, weight: Tensor, step: int, channels: tuple[int, int], target: tuple[int, int]) -> Tensor:
    """What the layer of a BandedConv gives, in float64, its kernels replaced."""
    module = layer(BandedConv(scales=step, bias=False), *channels).double()  # type: ignore[arg-type]
    return torch.func.functional_call(module, {"weight": weight}, (x, target))  # type: ignore[no-any-return]


def by_kernel(x: Tensor, weight: Tensor, bias: Tensor, step: int, target: tuple[int, int]) -> Tensor:
    wiring = [*target, len(bias), sparse.KEPT, 1, 0, 0, step]
    found: list[Tensor] = torch.ops.convfabric.banded_sums([x], [weight], [bias], wiring, "stored")
    return found[0]


@kernels
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("step", [-1, 0, 1])
@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("images", [1, 3])
def test_the_sparse_kernel_gives_the_sums_and_every_gradient_of_the_readable_layer(
    channels: tuple[int, int], step: int, size: tuple[int, int], images: int
) -> None:
    x, weight, bias, where = one_edge(channels, step, size, images)
    target = (int(where[0]), int(where[1]))
    exact = [tensor.clone().requires_grad_() for tensor in (x, weight, bias)]
    single = [tensor.float().requires_grad_() for tensor in (x, weight, bias)]
    wanted = readable(exact[0], exact[1], step, channels, target) + exact[2][:, None, None]
    found = by_kernel(single[0], single[1], single[2], step, target)
    gradient = torch.randn_like(wanted)
    assert apart(found, wanted) < SINGLE
    pairs = zip(
        torch.autograd.grad(found, single, gradient.float()), torch.autograd.grad(wanted, exact, gradient), strict=True
    )
    assert all(apart(one, other) < SINGLE for one, other in pairs)


@kernels
@pytest.mark.parametrize("step", [-1, 0, 1])
def test_kernels_that_are_not_flipped_would_be_noticed(step: int) -> None:
    channels, size = (6, 6), (8, 8)
    x, weight, bias, where = one_edge(channels, step, size)
    target = (int(where[0]), int(where[1]))
    wanted = readable(x, weight, step, channels, target) + bias[:, None, None]
    flipped = by_kernel(x.float(), weight.flip(1, 2).float(), bias.float(), step, target)
    assert apart(flipped, wanted) > 0.1


@kernels
@pytest.mark.parametrize("doubling", [False, True])
def test_the_adjoint_of_a_layer_is_its_transpose(doubling: bool) -> None:
    channels = (8, 16, 32) if doubling else (8, 8, 8)
    sizes = ((11, 14), (6, 7), (3, 4))
    torch.manual_seed(0)
    maps = [torch.randn(2, c, *size) for c, size in zip(channels, sizes, strict=True)]
    wiring, back, weights, number = [], [], [], 0
    ends = [(s, t) for t in range(3) for s in (t - 1, t, t + 1) if 0 <= s < 3]
    for target in range(3):
        sources = [s for s, t in ends if t == target]
        wiring += [*sizes[target], channels[target], sparse.KEPT, len(sources)]
        for source in sources:
            weights.append(layer(BandedConv(), channels[source], channels[target]).get_parameter("weight").detach())
            wiring += [source, number, target - source]
            number += 1
    for source in range(3):
        targets = [t for s, t in ends if s == source]
        back += [*sizes[source], channels[source], sparse.KEPT, len(targets)]
        for target in targets:
            back += [target, ends.index((source, target)), source - target]
    forward = torch.ops.convfabric.banded_sums(maps, weights, [], wiring, "stored")
    others = [torch.randn_like(m) for m in maps]
    backward = torch.ops.convfabric.banded_sums(others, weights, [], back, "adjoint")
    one = sum(float((f.double() * o.double()).sum()) for f, o in zip(forward, others, strict=True))
    other = sum(float((m.double() * b.double()).sum()) for m, b in zip(maps, backward, strict=True))
    assert one == pytest.approx(other, rel=1e-5)


@kernels
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
def test_the_operators_keep_torch_s_rules() -> None:
    x = torch.randn(2, 8, 5, 4).contiguous(memory_format=torch.channels_last).requires_grad_()
    weight = layer(BandedConv(), 8, 8).get_parameter("weight")
    bias, scale = torch.randn(8, requires_grad=True), torch.rand(8, requires_grad=True)
    wiring = [5, 4, 8, sparse.KEPT, 1, 0, 0, 0]
    operators = torch.ops.convfabric
    for found in (
        torch.library.opcheck(operators.banded_sums.default, ([x], [weight], [bias], wiring, "stored")),
        torch.library.opcheck(operators.norm_relu.default, (x, scale, bias, 1e-5, 0.1, 0.5)),
    ):
        assert set(found.values()) == {"SUCCESS"}


@kernels
def test_sums_do_not_depend_on_the_number_of_threads() -> None:
    x, weight, bias, _ = (tensor.float() for tensor in one_edge((20, 20), 0, (16, 16), images=1))
    before = torch.get_num_threads()
    try:
        found = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.append(by_kernel(x, weight, bias, 0, (16, 16)))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(found[0], other) for other in found[1:])


@kernels
@pytest.mark.parametrize("channels", [1, 5, 8, 12, 16, 40])
@pytest.mark.parametrize("size", [(9, 7), (2, 3), (17, 5)])
@pytest.mark.parametrize("offset", [0.0, 300.0])
@pytest.mark.parametrize(("slope", "ceiling"), [(0.0, inf), (0.1, inf), (1.0, inf), (0.0, 0.5)])
def test_the_norm_kernel_is_batch_norm_and_relu(
    channels: int, size: tuple[int, int], offset: float, slope: float, ceiling: float
) -> None:
    torch.manual_seed(0)
    x = torch.randn(4, channels, *size, dtype=torch.float64) + offset
    single, exact = (x.to(dtype).requires_grad_() for dtype in (torch.float32, torch.float64))
    own, torchs = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels).double()
    for norm in (own, torchs):
        nn.init.uniform_(norm.weight, -1, 2, generator=torch.Generator().manual_seed(1))
        nn.init.uniform_(norm.bias, -1, 1, generator=torch.Generator().manual_seed(2))
        with torch.no_grad():
            norm.weight.copy_(torch.linspace(-1, 2, channels))
            norm.bias.copy_(torch.linspace(1, -1, channels))
    found = norms.norm_relu(own, single, slope, ceiling)
    wanted = F.leaky_relu(torchs(exact), slope) if slope else F.hardtanh(torchs(exact), 0.0, ceiling)
    gradient = torch.randn_like(wanted)
    found.backward(gradient.float())
    wanted.backward(gradient)
    loose = SINGLE if offset == 0 else 1e-3
    assert apart(found, wanted) < loose
    for one, other in zip((single, *own.parameters()), (exact, *torchs.parameters()), strict=True):
        assert one.grad is not None
        assert other.grad is not None
        assert apart(one.grad, other.grad) < loose
    for one, other in zip(own.buffers(), torchs.buffers(), strict=True):
        assert apart(one.double(), other.double()) < SINGLE


@pytest.fixture
def no_library() -> Iterator[None]:
    """What was built is forgotten before and after."""
    compiler.library.cache_clear()
    yield
    compiler.library.cache_clear()


@pytest.mark.usefixtures("no_library")
def test_without_a_compiler_torch_runs_the_layers_and_the_plan_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "COMPILERS", ("no-such-compiler",))
    graph = weave("paper-mnist-sparse", layers=2, scales=2, channels=8)
    plan = plan_for(graph, training=True)
    assert not plan.kernels
    assert "no C++ compiler was found (no-such-compiler)" in str(plan)
    assert str(plan) == str(plan_for(graph, training=True, build=False))
    assert "compiler" not in str(plan_for(weave(), training=True))
    fabric = Fabric(graph)
    assert for_training(fabric, plan)(torch.rand(2, 1, 8, 8))[0].shape == (2, 10)


@pytest.mark.usefixtures("no_library")
def test_without_a_compiler_segmentation_trains_with_its_sub_networks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiler, "COMPILERS", ("no-such-compiler",))
    monkeypatch.setattr(norms, "FEWEST_VALUES", 0)
    data = open_data(mask_folders(tmp_path), DataOptions(size=(16, 16)))
    fabric = Fabric(weave("fabric-tiny", size=(16, 16), classes=3, task="segmentation"))
    rows = train(fabric, data, Recipe(epochs=1, batch=2, subnetworks=1), device="cpu")
    assert rows[0]["train_loss"] > 0


@pytest.mark.usefixtures("no_library")
def test_a_compiler_that_fails_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "c++"
    fake.write_text("#!/bin/sh\necho 'banded.cpp:1: error: no room left' >&2\nexit 1\n")
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setattr(compiler, "kept_in", lambda: tmp_path / "kept")
    found = compiler.library()
    assert isinstance(found, str)
    assert "no room left" in found
    assert not list((tmp_path / "kept").iterdir())


@kernels
@pytest.mark.usefixtures("no_library")
def test_a_damaged_file_is_noticed_and_built_again_and_then_found(tmp_path: Path) -> None:
    kept = compiler.built(compiler.kept_in())
    file, note = (Path(shutil.copy(one, tmp_path)) for one in (kept, kept.with_suffix(".sha256")))
    whole, said = file.read_bytes(), note.read_text()
    other = Path(ctypes.util.find_library("m") or "")
    for harmed in (b"no library", whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:], b"", whole[: len(whole) // 2]):
        file.write_bytes(harmed)
        assert not compiler.is_whole(file)
    if other.is_file():
        file.write_bytes(other.read_bytes())
        assert not compiler.is_whole(file)
    file.write_bytes(whole)
    note.unlink()
    assert not compiler.is_whole(file)
    note.write_text(said)
    assert compiler.is_whole(file)
    file.write_bytes(whole[: len(whole) // 2])
    assert compiler.built(tmp_path) == file
    assert compiler.is_whole(file)
    assert {path.name for path in tmp_path.iterdir()} == {file.name, note.name}
    built = file.stat().st_mtime_ns
    code = "import sys; from pathlib import Path; from convfabric.execution import compiler as c; "
    code += "c.kept_in = lambda: Path(sys.argv[1]); assert not isinstance(c.library(), str), c.library()"
    subprocess.run([sys.executable, "-c", code, tmp_path], check=True)
    assert file.stat().st_mtime_ns == built


@pytest.mark.parametrize("home", ["unset", "not writable", "another's", "own"])
def test_kernels_are_kept_where_nobody_else_writes(home: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planted = tmp_path / "shared" / ".cache" / "convfabric"
    planted.mkdir(parents=True)
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    (tmp_path / "home").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "shared"))
    if home == "unset":
        monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    elif home == "not writable":
        (tmp_path / "home" / ".cache").write_text("a file")
    elif home == "another's":
        monkeypatch.setattr(os, "getuid", lambda: 4242)
    compiler.kept_in.cache_clear()
    try:
        folder = compiler.kept_in()
    finally:
        compiler.kept_in.cache_clear()
    assert (folder == tmp_path / "home" / ".cache" / "convfabric") == (home == "own")
    assert folder != planted
    assert folder.stat().st_mode & 0o077 == 0


def test_second_derivatives_are_refused_in_words() -> None:
    x = torch.randn(2, 8, 5, 4, requires_grad=True)
    weight = layer(BandedConv(), 8, 8).get_parameter("weight")
    found = by_kernel(x, weight, torch.zeros(8), 0, (5, 4))
    with pytest.raises(NotImplementedError, match="execution=readable"):
        torch.autograd.grad(found.square().sum(), x, create_graph=True)
