"""One training, several budgets: what is kept, what is drawn, what is refused."""

import csv
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from convfabric.errors import SettingError
from convfabric.evaluation.scoring import Score
from convfabric.fabric.archive import load_fabric
from convfabric.pipeline.budget_curve import curve, read_dots, taken
from convfabric.report.curve_page import HEIGHT, WIDTH, Dot, Point, chart
from convfabric.runs.record import CutRecord, NetworkRecord, update_record
from folders import class_folders, mask_folders
from test_pipeline import TINY, done, finished, refusal

QUICK = ["--set", "search=exact", "--set", "finetune=0.5"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "digits"
    words = ["train", "digits", "--network", "fabric-tiny", "--set", "operators=residual", "--set", "layers=2"]
    done([*words, "--set", "subnetworks=1", "--epochs", 2, "--out", folder])
    others = folder.parent / "others.csv"
    others.write_text("name,latency_ms,score\nplain & simple,0.05,0.9\n")
    done(["curve", folder, "--macs", "60%", "25%", "0.9e6,60%", "--against", others, *QUICK])
    return folder


def test_every_budget_has_its_network_under_its_ceiling(run: Path) -> None:
    folders = sorted(folder.name for folder in (run / "curve").iterdir())
    assert folders == ["macs-25percent", "macs-60percent", "macs-900000"]
    whole = finished(run).fabric.macs
    for name, most in zip(folders, (0.25 * whole, 0.6 * whole, 0.9e6), strict=True):
        record = finished(run / "curve" / name)
        assert record.network.macs <= most
        assert (run / "curve" / name / "model.onnx").is_file()
        assert record.network.edges == len(load_fabric(run / "curve" / name)[0].graph.edges)


def test_the_table_has_a_line_for_each_with_every_stage(run: Path) -> None:
    with (run / "curve.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert len(rows) == 3
    assert {"predicted ms", "measured ms", "after pruning", "after recalibration", "test accuracy"} <= set(rows[0])
    macs = [float(row["M MACs"]) for row in rows]
    assert macs == sorted(macs)


def test_networks_alike_stand_in_the_order_of_their_budgets(tmp_path: Path) -> None:
    for name, macs, budget in (("a", 7, 90.0), ("b", 7, 60.0), ("c", 5, 50.0)):
        (tmp_path / name).mkdir()
        score = Score(images=1, loss=0.0, accuracy=1.0, miou=None, class_iou=())
        costs = {"edges": 1, "parameters": 1, "activation_bytes": 1, "peak_bytes": 1, "seconds": 0.0}
        network = NetworkRecord(macs=macs, score=score, val_score=score, **costs)  # type: ignore[arg-type]
        ceilings = {"macs": budget}
        cut = CutRecord(requested="", ceilings=ceilings, predicted_ms=0.1, prediction_error=0.1, worth={})
        update_record(tmp_path / name, network=network, cut=cut)
    assert [folder.name for folder in sorted(tmp_path.iterdir(), key=taken)] == ["c", "b", "a"]


def test_the_page_stands_alone_and_knows_every_network(run: Path) -> None:
    page = (run / "curve.html").read_text("utf-8")
    assert not re.search(r"(src|href)=.?https?:", page)
    found = re.search(r'id="facts">(.*?)</script>', page, re.DOTALL)
    assert found
    facts = json.loads(found[1])
    points, whole = facts["points"], load_fabric(run / "fabric")[0].graph
    assert len(points) == 3
    assert facts["tried"] == []
    assert all(set(point["edges"]) <= whole.edge_names and point["channels"] for point in points)
    drawn = set(re.findall(r'<path data-edge="([^"]+)"', page))
    assert drawn == whole.edge_names
    assert "plain &amp; simple" in page
    assert page.count('class="point"') == 3


def test_what_is_there_is_kept_and_what_is_new_is_added(run: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in run.glob("curve/*/model.onnx")}
    words = ["curve", run, "--macs", "60%", "40%", *QUICK]
    assert len(json.loads(done([*words, "--json"]))["networks"]) == 4
    assert (run / "curve.html").read_text("utf-8").count('class="point"') == 4
    assert all(file.stat().st_mtime_ns == then for file, then in before.items())
    assert (run / "curve" / "macs-40percent" / "model.onnx").is_file()


def test_another_setting_makes_the_network_anew_only_where_that_is_said(run: Path) -> None:
    file = run / "curve" / "macs-25percent" / "model.onnx"
    then = file.stat().st_mtime_ns
    words = ["curve", run, "--macs", "25%", "--set", "search=worth", "--set", "finetune=0"]
    said = refusal(words)
    assert re.search(r"macs-25percent: made with .*search=exact.*, now .*search=worth.*; --force makes it anew", said)
    assert file.stat().st_mtime_ns == then
    done([*words, "--force"])
    assert file.stat().st_mtime_ns != then


def test_amounts_that_are_the_same_number_are_one_network(run: Path) -> None:
    rows = json.loads(done(["curve", run, "--macs", "9e5", "900000", "900000.0", *QUICK, "--json"]))["networks"]
    assert [row["budget"] for row in rows].count("0.9 M MACs per image") == 1


def test_networks_of_an_earlier_fabric_are_not_on_the_curve(run: Path, tmp_path: Path) -> None:
    copied = tmp_path / "copied"
    shutil.copytree(run, copied)
    update_record(copied, fabric=replace(finished(copied).fabric, seconds=1e9))
    rows = curve(copied, "macs", ["60%"], search="exact", finetune=0.5)
    assert len(rows) == 1


@pytest.mark.parametrize(
    "change", ["channels=99", "scales=2", "subnetworks=2", "epochs=5", "size=12x12", "gate_target=0.3"]
)
def test_what_would_have_made_another_fabric_is_refused(run: Path, change: str) -> None:
    name = change.partition("=")[0]
    for command in (["curve", run, "--macs", "25%"], ["extract", run, "--macs", "25%"]):
        said = refusal([*command, "--set", change])
        assert re.search(f"its fabric was trained with (no {name}|{name}=.*), not with {change}", said)


def test_nothing_is_cut_where_one_budget_is_out_of_reach(run: Path) -> None:
    said = refusal(["curve", run, "--macs", "55%", "1", *QUICK], code=3)
    assert "no sub-network fits 1 MACs per image: the smallest" in said
    assert "A share is written 1%." in said
    assert "timing" not in said
    assert not (run / "curve" / "macs-55percent").exists()


def test_what_a_curve_cannot_be_of_is_refused(run: Path, tmp_path: Path) -> None:
    assert "give one of --latency-ms, --macs and --params" in refusal(["curve", run], code=2)
    assert "macs=many: give a number above 0" in refusal(["curve", run, "--macs", "many"])
    assert "no such file" in refusal(["curve", run, "--macs", "50%", "--against", tmp_path / "none.csv"])
    empty = tmp_path / "empty.csv"
    empty.write_text("name,ms\n")
    assert "no column latency_ms, score" in refusal(["curve", run, "--macs", "50%", "--against", empty])
    empty.write_text("name,latency_ms,score\na,0.1,98\n")
    assert "line 2: a, 0.1, 98; milliseconds above 0" in refusal(["curve", run, "--macs", "50%", "--against", empty])
    empty.write_text("name,latency_ms,score\nGröße,0.1,98\n", encoding="cp1252")
    assert "not UTF-8 at byte 24" in refusal(["curve", run, "--macs", "50%", "--against", empty])
    assert "no trained fabric in it; convfabric train and fit" in refusal(["curve", tmp_path, "--macs", "50%"])
    (tmp_path / "config.yaml").write_text("data: digits")
    assert "in it yet; convfabric fit or train goes on with --resume" in refusal(["extract", tmp_path, "--macs", "50%"])
    assert "nowhere: no such folder" in refusal(["curve", tmp_path / "nowhere", "--macs", "50%"])
    with pytest.raises(SettingError, match="edges: a curve runs over latency_ms, macs, params"):
        curve(run, "edges", [3])
    with pytest.raises(SettingError, match="give one amount or more"):
        curve(run, "macs", [])
    with pytest.raises(SettingError, match="macs=None: give a number above 0"):
        curve(run, "macs", [None])  # type: ignore[list-item]


def test_a_fabric_is_cut_with_the_images_it_was_trained_on(run: Path, tmp_path: Path) -> None:
    words = ["curve", run, "--macs", "35%", *QUICK]
    said = refusal([*words, "--set", f"data={class_folders(tmp_path / 'others')}"])
    assert re.search("others: not what the fabric in .* was trained on: channels 3, then 1", said)
    copied = tmp_path / "copied"
    shutil.copytree(run, copied)
    update_record(copied, data=replace(finished(copied).data, digest="0" * 16))
    assert "trained on: other images" in refusal(["extract", copied, "--macs", "35%"])
    assert "gone: not in " in refusal([*words, "--set", "data=gone"])


def test_one_amount_needs_no_list_and_a_share_says_what_it_came_to(run: Path) -> None:
    budgets = [row["budget"] for row in curve(run, "macs", "60%", search="exact", finetune=0.5)]
    said = 0.6 * finished(run).fabric.macs / 1e6
    assert f"{said:.3g} M MACs per image (60% of the fabric's)" in budgets


def test_a_table_saved_by_a_spreadsheet_has_a_mark_before_its_names(tmp_path: Path) -> None:
    table = tmp_path / "others.csv"
    table.write_text("name,latency_ms,score\nGröße,0.5,0.9\n", encoding="utf-8-sig")
    assert read_dots(table) == [Dot(name="Größe", milliseconds=0.5, score=0.9)]


@pytest.mark.parametrize("times", [(0.04, 0.041), (0.5, 80.0), (1.0,)])
def test_the_chart_has_ticks_and_stays_inside_its_frame(times: tuple[float, ...]) -> None:
    points = [
        Point(name=f"{ms} ms", milliseconds=ms, measured="", score=0.9 + ms / 1000, about="", edges=(), channels={})
        for ms in times
    ]
    drawn = chart(points, [Dot(name="a <b>", milliseconds=times[-1] * 1.1, score=0.85)], "test accuracy")
    spots = [(float(x), float(y)) for x, y in re.findall(r'cx="([\d.-]+)" cy="([\d.-]+)"', drawn)]
    assert len(spots) == len(times) + 1
    assert all(0 < x < WIDTH and 0 < y < HEIGHT for x, y in spots)
    assert len(re.findall(r'text-anchor="middle" fill="#5c6b76"', drawn)) >= 1
    assert "a &lt;b&gt;" in drawn


def test_calibrate_prints_operations_and_how_well_they_predict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from convfabric.latency import table

    monkeypatch.setattr(table, "kept_in", lambda: tmp_path)
    words = ["calibrate", "fabric-tiny", "--size", "8", "--set", "layers=1", "--set", "channels=4"]
    facts = json.loads(done([*words, "--json"]))
    assert facts["measured_now"] == len(facts["operations"]) > 0
    assert facts["whole_ms"] > 0
    assert facts["median_error"] >= 0
    assert len(facts["errors"]) > 3
    said = done(words)
    assert "0 of them measured now" in said
    assert "predictions are off by" in said
    assert f"kept in {tmp_path}" in said
    assert "runtime=tf: onnxruntime, openvino, torch are known" in refusal([*words, "--runtime", "tf"])
    assert "threads=0, batch=1: give at least 1" in refusal([*words, "--threads", "0"])
    assert "scales=40" in refusal([*words, "--set", "scales=40"])


def test_a_curve_of_a_segmentation_is_of_its_miou(tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ["train", mask_folders(tmp_path / "masks", images=12), *TINY, "--size", "16x16"]
    done([*words, "--set", "operators=residual", "--epochs", 1, "--out", run])
    done(["curve", run, "--macs", "70%", "40%", *QUICK])
    with (run / "curve.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    budgets = [row["budget"] for row in sorted(rows, key=lambda row: float(row["M MACs"]))]
    assert [re.findall(r"\d+%", budget) for budget in budgets] == [["40%"], ["70%"]]
    assert [name for name in rows[0] if "mIoU" in name]
    assert "mIoU" in (run / "curve.html").read_text("utf-8")
    file = run / "curve" / "macs-40percent" / "model.onnx"
    then, moved = file.stat().st_mtime_ns, (tmp_path / "masks").rename(tmp_path / "moved")
    assert "masks: gone, and" in refusal(["curve", run, "--macs", "40%", *QUICK])
    done(["curve", run, "--macs", "40%", *QUICK, "--set", f"data={moved}"])
    assert file.stat().st_mtime_ns == then
