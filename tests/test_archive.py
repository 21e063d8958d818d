import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from convfabric.data.opening import open_data
from convfabric.errors import ArchiveError
from convfabric.fabric.archive import load_fabric, passport, save_fabric, write_atomically
from convfabric.fabric.module import Fabric
from convfabric.weavers import weave


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    fabric = Fabric(weave("fabric-tiny", size=(8, 8), image_channels=1))
    save_fabric(tmp_path, fabric, passport(fabric, open_data("digits")))
    return tmp_path


def changed(folder: Path, change) -> Path:  # type: ignore[no-untyped-def]  # noqa: ANN001
    file = folder / "graph.json"
    document = json.loads(file.read_text())
    change(document)
    file.write_text(json.dumps(document))
    return folder


def test_round_trip_gives_the_same_graph_weights_and_answers(tmp_path: Path) -> None:
    fabric = Fabric(weave("fabric-tiny", size=(8, 8), image_channels=1)).eval()
    papers = passport(fabric, open_data("digits"))
    save_fabric(tmp_path, fabric, papers)
    again, papers_again = load_fabric(tmp_path)
    images = torch.randn(3, 1, 8, 8)
    assert papers_again == papers
    assert torch.equal(again(images), fabric(images))


def test_an_unknown_key_is_refused_by_name(saved: Path) -> None:
    changed(saved, lambda document: document["graph"].update(colour="red"))
    with pytest.raises(ArchiveError, match=r"graph\.json\.graph: unknown key colour; Graph has edges, entry"):
        load_fabric(saved)


def test_an_unknown_operator_is_refused_with_the_known_ones(saved: Path) -> None:
    changed(saved, lambda document: document["graph"]["edges"][0].update(operator={"operator": "Magic"}))
    with pytest.raises(ArchiveError, match=r"edges\[0\]\.operator: found operator 'Magic', known are AdaptivePool"):
        load_fabric(saved)


def test_a_value_of_another_kind_is_refused(saved: Path) -> None:
    changed(saved, lambda document: document["graph"]["nodes"][0].update(channels="many"))
    with pytest.raises(ArchiveError, match=r"nodes\[0\]\.channels: found 'many', expected int"):
        load_fabric(saved)


def test_a_missing_key_is_refused(saved: Path) -> None:
    changed(saved, lambda document: document.pop("classes"))
    with pytest.raises(ArchiveError, match="classes missing; Passport has"):
        load_fabric(saved)


@pytest.mark.parametrize("part", ["mean", "classes", "graph"])
def test_any_change_of_what_a_network_is_used_by_is_noticed(part: str, saved: Path) -> None:
    changes: dict[str, Callable[[Any], Any]] = {
        "mean": lambda document: document["preprocessing"]["mean"].__setitem__(0, 0.25),
        "classes": lambda document: document["classes"].reverse(),
        "graph": lambda document: document["graph"].update(name="another"),
    }
    changed(saved, changes[part])
    with pytest.raises(ArchiveError, match=r"graph\.json: not what was written; its seal says so"):
        load_fabric(saved)
    changed(saved, lambda document: document.pop("seal"))
    load_fabric(saved)


def test_another_format_is_refused(saved: Path) -> None:
    changed(saved, lambda document: document.update(format=99))
    with pytest.raises(ArchiveError, match="found format 99, this version reads 3 and 2"):
        load_fabric(saved)


def test_text_that_is_not_json_is_refused(saved: Path) -> None:
    (saved / "graph.json").write_text("{")
    with pytest.raises(ArchiveError, match=r"graph\.json: not JSON"):
        load_fabric(saved)


def test_a_truncated_weights_file_is_refused(saved: Path) -> None:
    file = saved / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ArchiveError, match=r"model\.safetensors: truncated or damaged .* Nothing was loaded"):
        load_fabric(saved)


def test_weights_of_another_graph_are_refused(saved: Path) -> None:
    other = Fabric(weave("fabric-tiny", size=(8, 8), image_channels=1, channels=8))
    save_fabric(saved / "other", other, passport(other, open_data("digits")))
    (saved / "other" / "model.safetensors").replace(saved / "model.safetensors")
    with pytest.raises(ArchiveError, match=r"weights of another graph\. \S+ is \S+ there and \S+ here"):
        load_fabric(saved)


def test_a_folder_without_a_graph_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match=r"no graph\.json, so it is not a run"):
        load_fabric(tmp_path)


def test_a_full_disk_leaves_the_old_file_and_no_draft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "state"
    write_atomically(file, "old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ArchiveError, match=r"could not be written \(No space left on device\); the file that was"):
        write_atomically(file, "new")
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]
