"""Files of torch.export are read without running, unpickling or evaluating anything in them."""

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from convfabric.data.opening import open_data
from convfabric.data.options import DataOptions
from convfabric.errors import ImportingError, SettingError
from convfabric.importing.network import imported
from convfabric.importing.program_file import module_of
from convfabric.importing.sources import as_it_is, graph_of, network_of, original
from convfabric.pipeline.inputs import opened, untrained, woven
from convfabric.pipeline.sizes import sized
from convfabric.runs.job import job_from
from convfabric.weavers import Purpose, Source
from folders import class_folders
from test_pipeline import done, refusal

MODEL, WEIGHTS = "models/model.json", "data/weights/model_weights_config.json"
Names = dict[str, bytes]


class Branches(nn.Module):
    """Changes in place, two ways, a list of tensors, a view by sizes of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.deep, self.last = nn.Conv2d(4, 4, 1), nn.Linear(8, 5)

    def forward(self, images: Tensor) -> Tensor:
        left, right = self.norm(self.stem(images)).relu_().chunk(2, 1)
        both = torch.cat([left, nn.functional.silu(self.deep(right))], 1)
        answer: Tensor = self.last(nn.functional.adaptive_avg_pool2d(both, 1).view(both.size(0), -1))
        return answer


def saved(file: Path, module: nn.Module, dynamic: bool = False, side: int = 16) -> nn.Module:
    shapes = ({0: torch.export.Dim("batch", min=1, max=64)},) if dynamic else None
    program = torch.export.export(module.eval(), (torch.zeros(2, 3, side, side),), dynamic_shapes=shapes)
    torch.export.save(program, file)
    return module


@pytest.mark.parametrize("dynamic", [False, True])
def test_a_module_comes_back_from_its_file_with_its_weights_by_name(tmp_path: Path, dynamic: bool) -> None:
    torch.manual_seed(0)
    theirs = saved(tmp_path / "a.pt2", Branches(), dynamic)
    ours, images = module_of(tmp_path / "a.pt2"), torch.rand(2, 3, 16, 16)
    assert ours.size == (16, 16)
    assert torch.equal(ours(images), theirs(images))
    assert all(torch.equal(ours.state_dict()[name], tensor) for name, tensor in theirs.state_dict().items())
    found = imported(ours, ours.size)
    assert found.difference <= 1e-5
    assert "deep.weight" in found.origins.values()


def test_a_file_is_a_source_like_any_other(tmp_path: Path) -> None:
    torch.manual_seed(0)
    saved(tmp_path / "a.pt2", torchvision.models.squeezenet1_1(weights=None), side=64)
    source = Source(network=f"file:{tmp_path}/a.pt2", numbers={})
    assert graph_of(source, Purpose(size=(64, 64), classes=4)).head.classes == 4
    assert original(source.network).mean == ()
    with pytest.raises(SettingError, match=r"weights=none: it has its own; default or another file are taken"):
        original(source.network, "none")
    with pytest.raises(SettingError, match=r"file:nowhere\.pt2: no such file"):
        original("file:nowhere.pt2")


def test_a_classifier_is_kept_where_that_is_said(tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs, images = saved(tmp_path / "a.pt2", Branches()), torch.rand(2, 3, 16, 16)
    classes = theirs(images).shape[1]
    settings = {"network": f"file:{tmp_path / 'a.pt2'}", "classifier": "kept", "data": "digits"}
    job = job_from(settings)
    assert (job.recipe.heads_first, job.recipe.trunk_lr, job_from(settings | {"lr": 0.5}).recipe.lr) == (0, 1, 0.5)
    found = network_of(job.source, Purpose(size=(16, 16), classes=classes))
    assert torch.allclose(found.fabric(images), theirs(images), atol=1e-6)
    with pytest.raises(SettingError, match=f"classifier=kept: its own is for classification of {classes} classes, not"):
        network_of(job.source, Purpose(size=(16, 16), classes=classes + 1))


def test_a_file_knows_its_channels_and_is_told_how_images_are_prepared(tmp_path: Path) -> None:
    torch.manual_seed(0)
    grey = nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1), nn.PReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
    program = torch.export.export(grey.eval(), (torch.zeros(2, 1, 16, 16),))
    torch.export.save(program, tmp_path / "a.pt2")
    name, images = f"file:{tmp_path / 'a.pt2'}", torch.rand(2, 1, 16, 16)
    assert torch.allclose(as_it_is(Source(network=name, numbers={}))(images), grey(images), atol=1e-6)
    settings = {"data": str(class_folders(tmp_path / "images")), "network": name, "classifier": "kept"}
    with pytest.raises(
        SettingError, match=r"reads images of 1 channel, these have 3; --set read_as=grey reads them so"
    ):
        woven(job_from(settings), opened(job_from(settings)))
    job = job_from(settings | {"read_as": "grey"})
    assert torch.allclose(untrained(job, opened(job))[0](images), grey(images), atol=1e-6)
    assert any("prepared by the mean and spread of these images" in note for note in opened(job).notes)
    small = sized(
        job_from(settings | {"read_as": "grey", "classifier": "fresh", "latency_ms": 1e-6}), lambda text: None
    )
    assert small.options.size == (7, 7)
    told = opened(job_from(settings | {"read_as": "grey", "mean": [0.5], "std": [0.25]}))
    assert (told.preprocessing.mean, told.preprocessing.std) == ((0.5,), (0.25,))
    with pytest.raises(SettingError, match=r"mean=\(0\.5,\), std=\(\): a number of each for every channel"):
        job_from(settings | {"mean": [0.5]})


def test_what_no_convolutional_network_is_is_named(tmp_path: Path) -> None:
    flat = nn.Sequential(nn.Flatten(), nn.Linear(768, 8), nn.ReLU(), nn.Linear(8, 2))
    with pytest.raises(ImportingError, match="no map of more than one pixel is left"):
        imported(flat.eval(), (16, 16))
    program = torch.export.export(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), (torch.zeros(2, 3, 16, 16),))
    torch.export.save(program, tmp_path / "trains.pt2")
    with pytest.raises(ImportingError, match=r"a constant is changed in place, as in training"):
        imported(module_of(tmp_path / "trains.pt2"), (16, 16))


def test_a_network_of_others_is_scored_as_it_is_and_drawn(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
    name, folder = f"file:{tmp_path / 'a.pt2'}", class_folders(tmp_path / "images", images=9)
    saved(tmp_path / "a.pt2", module)
    found = json.loads(done(["evaluate", name, folder, "--json"]))
    data = open_data(str(folder), DataOptions(size=(16, 16)))
    [(images, targets)] = data.splits["val"].batches([range(len(data.splits["val"]))])
    right = module(data.preprocessing.normalised(images)).argmax(1) == targets
    assert (found["split"], found["accuracy"]) == ("val", int(right.sum()) / len(right))
    done(["gallery", name, "--out", tmp_path / "g.html"])
    assert "a.pt2" in (tmp_path / "g.html").read_text("utf-8")
    assert "for networks of others" in refusal(["evaluate", tmp_path, "--weights", "none"], code=2)
    assert "Invalid value" in refusal(["evaluate", name], code=2)


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("was run"),)


def pickled(value: object) -> bytes:
    found = io.BytesIO()
    torch.save(value, found)
    return found.getvalue()


def in_graph(change: Callable[[Any], object]) -> Callable[[Names], None]:
    def changed(names: Names) -> None:
        whole = json.loads(names[MODEL])
        change(whole["graph_module"]["graph"])
        names[MODEL] = json.dumps(whole).encode()

    return changed


def as_pickle(names: Names) -> None:
    config = json.loads(names[WEIGHTS])
    first = next(iter(config["config"].values()))
    first["use_pickle"] = True
    names |= {WEIGHTS: json.dumps(config).encode(), f"data/weights/{first['path_name']}": pickled(Hostile())}


def calls(target: str) -> Callable[[Names], None]:
    return in_graph(lambda graph: graph["nodes"][0].update(target=target))


def expression(graph: Any) -> None:
    run = "__import__('pathlib').Path('was run').touch()"
    for value in graph["tensor_values"].values():
        value["sizes"][:1] = [{"as_expr": {"expr_str": run, "hint": {"as_int": 2}}}]


HARMLESS: dict[str, Callable[[Names], object]] = {
    "pickled examples": lambda names: names.update({"data/sample_inputs/model.pt": pickled(Hostile())}),
    "bare pickle as examples": lambda names: names.update({"data/sample_inputs/model.pt": pickle.dumps(Hostile())}),
    "text that sympy would evaluate": in_graph(expression),
}
REFUSED: dict[str, tuple[Callable[[Names], object], str]] = {
    "pickled weights": (as_pickle, r"is pickled, and nothing is unpickled"),
    "python": (calls("torch.os.system"), r"calls torch\.os\.system, which is no operator of ATen"),
    "a file": (calls("torch.ops.aten.from_file.default"), r"aten\.from_file\.default; no row reads it"),
    "another library": (calls("torch.ops.inductor.resize_storage_bytes_.default"), r"which is no operator of ATen"),
    "an unknown one": (calls("torch.ops.aten.no_such.default"), r"which this version of torch does not have"),
    "another schema": (lambda names: names.update({MODEL: b'{"schema_version": {"major": 7}}'}), r"of schema 7; 8 is"),
    "no program": (lambda names: names.pop(MODEL), r"0 programs of torch\.export in it, where one is read"),
    "damaged": (lambda names: names.update({MODEL: b"{"}), r"not as torch\.export writes it"),
    "old weights": (lambda names: names.pop(WEIGHTS), r"not as torch\.export writes it"),
}


def rewritten(file: Path, change: Callable[[Names], object]) -> Path:
    with zipfile.ZipFile(file) as archive:
        names = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    change(names)
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in names.items():
            archive.writestr(f"a/{name}", content)
    return file


@pytest.mark.parametrize("how", HARMLESS)
def test_what_torch_would_run_is_not_looked_at(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    theirs = saved(tmp_path / "a.pt2", Branches())
    found = module_of(rewritten(tmp_path / "a.pt2", HARMLESS[how]))
    images = torch.rand(2, 3, 16, 16)
    assert torch.equal(found(images), theirs(images))
    assert not Path("was run").exists()


@pytest.mark.parametrize("how", REFUSED)
def test_what_would_have_to_be_run_is_refused(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / "a.pt2", Branches())
    change, message = REFUSED[how]
    hint = "" if message.endswith("no row reads it") else r".*torch\.export\.save"
    with pytest.raises(ImportingError, match=rf"a\.pt2: .*{message}{hint}"):
        module_of(rewritten(tmp_path / "a.pt2", change))
    assert not Path("was run").exists()


def test_another_kind_of_file_is_named(tmp_path: Path) -> None:
    torch.save(Branches().state_dict(), tmp_path / "weights.pt2")
    (tmp_path / "text.pt2").write_text("hello")
    for name in ("weights.pt2", "text.pt2"):
        with pytest.raises(ImportingError, match=rf"{name}: .*torch\.export\.save"):
            module_of(tmp_path / name)
