"""Networks of libraries by name, with weights of files, as the source of a job."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
import typer
from safetensors.torch import save_file

from convfabric.cli.options import begun_from
from convfabric.data.imageset import Preprocessing
from convfabric.data.opening import open_data
from convfabric.errors import ArchiveError, SettingError
from convfabric.fabric.archive import Passport, load_fabric, save_fabric
from convfabric.fabric.module import Fabric
from convfabric.importing.create_model import create_model
from convfabric.importing.sources import IMAGENET, Original, graph_of, network_of, original
from convfabric.importing.weight_files import load_into, tensors_of
from convfabric.pipeline import sizes
from convfabric.pipeline.inputs import opened, untrained, woven
from convfabric.pipeline.steps import train_step
from convfabric.progress import Listener
from convfabric.runs.folder import check_may_begin
from convfabric.runs.job import job_from, read_config, settings_of, written_config
from convfabric.runs.record import read_record
from convfabric.training.loop import Moment, Run, train
from convfabric.training.recipe import Recipe
from convfabric.weavers import Purpose, Source, weave
from folders import class_folders, mask_folders
from test_pipeline import done, finished, refusal

NAME = "torchvision:squeezenet1_1"
SMALL = Purpose(size=(64, 64), classes=2)


def squeezenet(seed: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    return torchvision.models.squeezenet1_1(weights=None)


@pytest.mark.parametrize("ending", ["safetensors", "pt"])
@pytest.mark.parametrize("in_order", [False, True])
def test_weights_of_a_file_are_those_of_the_network(ending: str, in_order: bool, tmp_path: Path) -> None:
    state = squeezenet(5).state_dict()
    if in_order:
        state = {f"{at:03d}": tensor for at, tensor in enumerate(state.values())}
    file = tmp_path / f"w.{ending}"
    if ending == "pt":
        torch.save({"state_dict": state}, file)
    else:
        save_file(state, file)
    numbers = {"weights": str(file), "weights_in_order": in_order}
    found = network_of(Source(network=NAME, numbers=numbers), SMALL)
    ours, wanted = found.fabric.state_dict(), squeezenet(5).state_dict()
    assert len(found.origins) > 40
    assert all(torch.equal(ours[name].flatten(), wanted[origin].flatten()) for name, origin in found.origins.items())


class Hostile:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("was run"),)


def test_nothing_that_a_file_of_weights_holds_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, content in (("a.pt", pickle.dumps(Hostile())), ("b.pt", b"junk"), ("c.safetensors", b"junk")):
        Path(name).write_bytes(content)
        with pytest.raises(SettingError, match=rf"weights={name}: (torch reads no tensors|not a safetensors file)"):
            tensors_of(Path(name))
    torch.save({"model": Hostile()}, "d.pt")
    with pytest.raises(SettingError, match=r"torch reads no tensors from it without running what it holds"):
        tensors_of(Path("d.pt"))
    torch.save([1, 2], "e.pt")
    with pytest.raises(SettingError, match="not a state dict"):
        tensors_of(Path("e.pt"))
    assert not Path("was run").exists()


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    state, file = squeezenet(0).state_dict(), tmp_path / "w.safetensors"
    wrong: dict[str, tuple[dict[str, torch.Tensor], str]] = {
        "missing": (
            {k: t for k, t in state.items() if k != "features.0.bias"},
            r"features\.0\.bias and 0 more are not",
        ),
        "another": (state | {"extra": torch.zeros(1)}, r"extra is not the network's.*--weights-in-order"),
        "shape": (state | {"features.0.bias": torch.zeros(3)}, r"features\.0\.bias is of shape \(3,\), the network's"),
    }
    for tensors, message in wrong.values():
        save_file(tensors, file)
        with pytest.raises(SettingError, match=message):
            load_into(squeezenet(1), file)
    save_file(state, file)
    with pytest.raises(SettingError, match=r"w\.safetensors: 52 tensors; the network has 102"):
        load_into(torchvision.models.resnet18(weights=None), file, in_order=True)


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("torchvision:resnet999", "none", "network=torchvision:resnet999: unknown; convfabric imports"),
        ("torchvision:resnet18", "no/such/file", "weights=no/such/file: no such file"),
    ],
)
def test_what_cannot_be_had_is_named(name: str, weights: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        graph_of(Source(network=name, numbers={"weights": weights}), SMALL)


def test_images_are_prepared_as_the_weights_want_them(tmp_path: Path) -> None:
    data = opened(job_from({"data": str(class_folders(tmp_path)), "network": NAME, "weights": "none", "size": 64}))
    assert (data.preprocessing.mean, data.preprocessing.std) == IMAGENET
    assert original(NAME, "none").size == (224, 224)


@pytest.mark.parametrize(("allowed", "side"), [(6.0, 224), (3.0, 160), (1.9, 128), (0.1, 96)])
def test_images_are_as_large_as_the_budget_bears(
    allowed: float, side: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    takes, said = {224: 12.0, 160: 6.0, 128: 3.6, 96: 2.0}, list[str]()
    monkeypatch.setattr(sizes, "_milliseconds", lambda job, size: takes[size[0]])
    settings = {"data": str(class_folders(tmp_path)), "network": NAME, "weights": "none", "latency_ms": allowed}
    assert sizes.sized(job_from(settings), said.append).options.size == (side, side)
    assert f"images of {side}×{side} pixels, where the whole network takes {takes[side]:g} ms" in said[0]
    for other in (
        {"size": "64x64"},
        {"latency_ms": "50%"},
        {"network": "unet"},
        {"classifier": "kept"},
        {"data": str(mask_folders(tmp_path / "m"))},
    ):
        job = job_from({key: value for key, value in (settings | other).items() if key != "weights"})
        assert sizes.sized(job, said.append) == job


def test_a_job_with_a_network_of_others_is_written_and_read_and_begins_with_its_weights(tmp_path: Path) -> None:
    job = job_from({"data": str(class_folders(tmp_path)), "network": NAME, "weights": "none", "size": 64})
    assert job_from(settings_of(job)) == job
    assert (job.recipe.subnetworks_from, job.recipe.trunk_lr) == (0.5, 0.2)
    data = opened(job)
    fabric = untrained(job, data)[0]
    assert fabric.graph == woven(job, data)
    assert [head.name for head in fabric.graph.heads] == ["exit1", "exit2", "head"]
    stem = original(NAME, "none").module.state_dict()["features.0.weight"]
    assert torch.equal(fabric.state_dict()["entry.weight"], stem)
    assert torch.equal(untrained(job, data)[0].state_dict()["entry.weight"], stem)


def test_heads_are_trained_first_and_the_rest_at_its_own_rate() -> None:
    seen: dict[int, set[str]] = {}

    def watch(moment: Moment) -> None:
        seen[moment.step] = {name for name, p in fabric.named_parameters() if not torch.equal(p, before[name])}

    fabric = Fabric(weave("trellis", layers=2, scales=2, channels=4, size=(8, 8), image_channels=1))
    before = {name: p.detach().clone() for name, p in fabric.named_parameters()}
    train(fabric, open_data("digits"), Recipe(epochs=1, heads_first=0.5, trunk_lr=0.1), device="cpu", watch=watch)
    half = max(seen) // 2
    assert all(name.startswith("heads.") for name in seen[half])
    assert len(seen[half]) >= 2
    assert seen[max(seen)] == set(before)


def test_a_decoder_reads_every_stage_and_is_trained_as_heads_are() -> None:
    purpose = Purpose(task="segmentation", size=(48, 64), classes=3)
    found = network_of(Source(network="torchvision:mobilenet_v2", numbers={"weights": "none", "decoder": 8}), purpose)
    graph, names = found.fabric.graph, dict(found.fabric.named_parameters())
    assert [graph.node(place).channels for place in graph.head.reads] == [8, 8, 8, 8]
    assert sorted(place.scale for place in graph.head.reads) == [2, 3, 4, 5]
    fresh = {name for name in names if name.startswith(found.fresh)}
    assert not fresh & set(found.origins)
    assert fresh | set(found.origins) >= set(names)
    linear = {"weights": "none", "decoder": 0}
    assert len(graph_of(Source(network="torchvision:mobilenet_v2", numbers=linear), purpose).edges) < len(graph.edges)


def test_sub_networks_are_trained_once_the_whole_is(monkeypatch: pytest.MonkeyPatch) -> None:
    from convfabric.graph.subnetworks import Sampler

    drawn, step, draw = list[int](), [0], Sampler.draw
    fabric = Fabric(weave("trellis", layers=2, scales=2, channels=4, size=(8, 8), image_channels=1))
    monkeypatch.setattr(Sampler, "draw", lambda self, dice: (drawn.append(step[0]), draw(self, dice))[1])

    def watch(moment: Moment) -> None:
        step[0] = moment.step

    train(fabric, open_data("digits"), Recipe(epochs=1, subnetworks=1, subnetworks_from=0.5), device="cpu", watch=watch)
    assert drawn
    assert min(drawn) >= step[0] / 2 - 1


@pytest.mark.slow
def test_fit_takes_a_network_of_others_from_its_weights_to_the_file(tmp_path: Path) -> None:
    save_file(squeezenet(3).state_dict(), tmp_path / "w.safetensors", {"license": "MIT"})
    data, run = class_folders(tmp_path / "data"), tmp_path / "run"
    words = ["fit", data, "--network", NAME, "--weights", tmp_path / "w.safetensors", "--size", "32x32", "--out", run]
    done([*words, "--macs", "50%", "--epochs", 2, "--set", "trials=2", "--set", "finetune=0.5"])
    record = finished(run)
    assert record.network.macs <= 0.5 * record.fabric.macs
    assert (run / "model.onnx").is_file()
    assert "licence: MIT" in (run / "report.html").read_text("utf-8")
    assert "no such file" in refusal([*words[:5], tmp_path / "gone.pt", "--out", tmp_path / "other"])


@pytest.mark.slow
def test_a_teacher_is_tuned_on_the_images_and_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, run, other = class_folders(tmp_path / "data"), tmp_path / "run", tmp_path / "other"
    followed, taught = list[Any](), Run.__init__

    def watched(self: Run, *words: Any, **numbers: Any) -> None:
        followed.append(numbers["teacher"])
        taught(self, *words, **numbers)

    monkeypatch.setattr(Run, "__init__", watched)
    small = ["--network", "fabric-tiny", "--size", "32x32", "--epochs", 4]
    done(["train", data, "--out", run, *small, "--teacher", NAME, "--teacher-weights", "none"])
    tuned = load_fabric(run / "teacher" / "fabric")[0]
    assert read_config(run / "teacher" / "config.yaml")["epochs"] == 1
    assert followed[0] is None
    assert torch.equal(followed[-1].fabric.state_dict()["entry.weight"], tuned.state_dict()["entry.weight"])
    assert followed[-1].preprocessing.mean == IMAGENET[0]
    followed.clear()
    done(["train", data, "--out", other, *small, "--teacher", f"run:{run}"])
    assert not (other / "teacher").exists()
    assert followed[0].fabric.graph == load_fabric(run / "fabric")[0].graph
    holds = refusal(["train", data, "--out", run, *small, "--force", "--teacher", f"run:{run}"])
    assert "holds the teacher; choose another --out" in holds
    assert (run / "fabric" / "graph.json").is_file()
    done(["train", data, "--out", run, *small, "--force"])
    assert not (run / "teacher" / "fabric" / "graph.json").exists()
    assert "teacher=resnet-18: torchvision:NAME, timm:NAME" in refusal(["fit", data, "--teacher", "resnet-18"])


def a_run(folder: Path, network: str = "msdnet", channels: int = 3) -> Fabric:
    """A fabric as a run keeps it, its statistics drawn."""
    fabric = create_model(network, in_chans=channels, size=(32, 32), num_classes=7, seed=1)
    assert isinstance(fabric, Fabric)
    names = tuple(map(str, range(7)))
    grey = channels == 1
    pixels = Preprocessing(
        size=(32, 32), channels=channels, fitting="cover", mean=(0.3,) * channels, std=(0.2,) * (1 if grey else 3)
    )
    save_fabric(folder / "fabric", fabric, Passport(graph=fabric.graph, classes=names, preprocessing=pixels))
    return fabric


def test_a_run_begins_with_the_weights_of_an_earlier_one(tmp_path: Path) -> None:
    before = a_run(tmp_path / "run").state_dict()
    job = job_from({"data": str(class_folders(tmp_path / "images")), "network": f"run:{tmp_path / 'run'}"})
    assert (job.recipe.heads_first, job.recipe.trunk_lr) == (0.1, 0.2)
    data = opened(job)
    assert (data.preprocessing.size, data.preprocessing.mean) == ((32, 32), (0.3,) * 3)
    fabric = untrained(job, data)[0]
    assert {head.classes for head in fabric.graph.heads} == {len(data.classes)}
    state = fabric.state_dict()
    assert all(torch.equal(state[name], before[name]) for name in before if not name.startswith("heads."))
    a_run(tmp_path / "run", "resnet")
    assert len(untrained(job, data)[0].graph.heads) == 1, "a run that was replaced is read anew"


def test_a_run_that_cannot_be_gone_on_from_is_named(tmp_path: Path) -> None:
    a_run(tmp_path / "run", channels=1)
    settings = {"data": str(class_folders(tmp_path / "images")), "network": f"run:{tmp_path / 'run'}"}
    job = job_from(settings)
    with pytest.raises(SettingError, match="images of 1 channel, these have 3; --set read_as=grey reads them so"):
        untrained(job, opened(job))
    assert untrained(job_from(settings | {"read_as": "grey"}), opened(job_from(settings | {"read_as": "grey"})))
    with pytest.raises(SettingError, match=r"weights=x\.pt: a run goes on with its own"):
        original(settings["network"], "x.pt")
    with pytest.raises(ArchiveError, match=r"none: no such folder; give that of a run\."):
        original(f"run:{tmp_path / 'none'}")
    (tmp_path / "run" / "config.yaml").write_text(written_config(job))
    with pytest.raises(ArchiveError, match="holds the fabric to begin from; choose another --out"):
        check_may_begin(tmp_path / "run", job, force=True)


def test_a_run_and_a_network_of_others_are_backbones(tmp_path: Path) -> None:
    trained, images = a_run(tmp_path), torch.rand(2, 3, 32, 32)
    folder = str(tmp_path / "fabric")
    with torch.no_grad():
        assert torch.equal(create_model(folder)(images), trained.eval()(images))
        encoder = create_model(folder, features_only=True)
        last = create_model(folder, features_only=True, out_indices=-1)
        assert torch.equal(last(images), encoder(images)[-1])
    assert last.out_channels == encoder.feature_info.channels()[-1]
    assert create_model(folder, num_classes=4)(images).shape == (2, 4)
    stages = create_model("torchvision:resnet18", weights="none", features_only=True, out_indices=(1, 2), size=64)
    assert [tuple(one.shape) for one in stages(torch.rand(1, 3, 64, 64))] == [(1, 64, 16, 16), (1, 128, 8, 8)]
    assert stages.out_channels == (64, 128)
    with pytest.raises(SettingError, match=r"out_indices=7: there are \d responses, from 0"):
        create_model(folder, features_only=True, out_indices=[7])
    with pytest.raises(SettingError, match=r"in_chans=1: a run's network is as it was trained, on 3 channels"):
        create_model(folder, in_chans=1)
    with pytest.raises(SettingError, match=r"layers: torchvision:resnet18 has weights, weights_in_order"):
        create_model("torchvision:resnet18", layers=3)


def test_torchvision_s_detection_takes_a_backbone(tmp_path: Path) -> None:
    a_run(tmp_path, "resnet")
    backbone = create_model(str(tmp_path / "fabric"), features_only=True, out_indices=-1)
    anchors = torchvision.models.detection.rpn.AnchorGenerator(sizes=((8, 16),), aspect_ratios=((1.0,),))
    pool = torchvision.ops.MultiScaleRoIAlign(featmap_names=["0"], output_size=3, sampling_ratio=1)
    words: dict[str, Any] = {"rpn_anchor_generator": anchors, "box_roi_pool": pool, "min_size": 32, "max_size": 64}
    detector = torchvision.models.detection.FasterRCNN(backbone, num_classes=2, **words).eval()
    with torch.no_grad():
        assert set(detector([torch.rand(3, 32, 32)])[0]) == {"boxes", "labels", "scores"}


def test_the_command_line_takes_one_beginning() -> None:
    assert begun_from(None, Path("a")) == f"run:{Path('a').resolve()}"
    with pytest.raises(typer.BadParameter, match="give one of them"):
        begun_from("vgg", Path("a"))


class Sine(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.sin()


def test_it_is_told_which_modules_no_operator_describes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nn, said = torch.nn, list[str]()
    module = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), Sine(), nn.Conv2d(8, 8, 3, 2, 1), nn.Flatten(), nn.Linear(128, 2))
    made = lambda name, pretrained: Original(module, (16, 16), about={"network": name})  # noqa: E731
    monkeypatch.setattr("convfabric.importing.sources.LIBRARIES", {"timm": made})
    job = job_from({"data": str(class_folders(tmp_path / "data")), "network": "timm:sine", "size": "16", "epochs": 1})
    train_step(tmp_path / "run", job, opened(job), Listener(say=said.append))
    assert "kept as they are, with all their channels, as no operator describes them: 1" in said
    assert read_record(tmp_path / "run").begun_with == {"network": "sine", "kept as they are": "1"}
