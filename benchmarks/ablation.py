"""What each ingredient adds: the same fit with one of them left out, the same seeds and the same budget.

    python benchmarks/ablation.py                        digits, at a fifth of the fabric's MACs
    python benchmarks/ablation.py --data cifar10-jpeg-5000 --size 16 --epochs 12 --share 0.25     of subset.py
    python benchmarks/ablation.py --data cifar10-jpeg-5000 --network fabric-small --share 0.07 --only everything ...
    python benchmarks/ablation.py --only everything "no sampling in training" --also 10% 50%

Variants of the cut share the training of everything. Resumable: started again with the same --work folder
it goes on where it stopped.
"""

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

from convfabric.data.imageset import ImageSet
from convfabric.data.opening import open_data
from convfabric.execution.allocation import keep_memory
from convfabric.fabric.archive import load_fabric
from convfabric.graph.costs import costs
from convfabric.graph.json_format import written
from convfabric.pipeline.budget_curve import curve
from convfabric.pipeline.fit import fit, network_step
from convfabric.progress import Listener
from convfabric.runs.folder import begin, recut
from convfabric.runs.job import job_from
from convfabric.runs.record import read_record, update_record
from convfabric.weavers import weave
from records import RESULTS, write_record

ALL: Mapping[str, Any] = {"operators": "residual", "subnetworks": 1, "narrowest": 0.25, "search": "evolution"}
TRAINED_OTHERWISE: Mapping[str, Mapping[str, Any]] = {
    "everything": {},
    "no identity edges": {"operators": "plain"},
    "identity inside edges": {"operators": "block"},
    "no teacher": {"distil": 0.0},
    "no sampling in training": {"subnetworks": 0},
    "two sub-networks a step": {"subnetworks": 2},
    "no widths": {"narrowest": 1.0},
    "labels smoothed": {"label_smoothing": 0.1},
    "half the rate": {"lr": 0.1},
    "a tenth kept below zero": {"activation": "leaky"},
    "slopes learnt below zero": {"activation": "prelu"},
    "branches half as wide": {"inner": 0.5, "channels": 20},
    "six layers": {"layers": 6},
    "four layers": {"layers": 4},
    "two layers": {"layers": 2},
    "two layers, three times the epochs": {"layers": 2, "times": 3},
}
CUT_OTHERWISE: Mapping[str, Mapping[str, Any]] = {
    "choice by worth for cost": {"search": "worth"},
    "choice by integer program": {"search": "exact"},
    "choice by chance": {"search": "worth", "worth": "random", "rounds": 1},
    "no fine-tuning": {"finetune": 0.0},
    "nine tenths from a teacher in fine-tuning": {"finetune_distil": 0.9},
}
"""Variants of what is cut from the training of everything."""
SILENT = Listener(say=lambda text: None)
Row = dict[str, Any]


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--data", default="digits")
    words.add_argument("--data-dir")
    words.add_argument("--size", help="of the images, such as 16 or 32x24")
    words.add_argument("--network", default="fabric-tiny")
    words.add_argument("--epochs", type=int, default=20)
    words.add_argument("--share", type=float, default=0.2)
    words.add_argument("--also", nargs="*", default=[], help="further shares such as 10%%, cut from the same trainings")
    words.add_argument("--seeds", type=int, default=3)
    words.add_argument(
        "--only", nargs="*", choices=[*TRAINED_OTHERWISE, *CUT_OTHERWISE], help="variants, everything first"
    )
    words.add_argument("--work", type=Path, default=Path("runs/ablation"))
    words.add_argument("--results", type=Path, default=RESULTS)
    said = words.parse_args()
    keep_memory()
    options = {name: value for name in ("data_dir", "size") if (value := getattr(said, name))}
    data = open_data(said.data, job_from({"data": said.data, **options}).options)
    image = data.preprocessing.size
    whole = weave(said.network, size=image, image_channels=data.preprocessing.channels, operators="residual")
    settings: Row = {"network": said.network, "epochs": said.epochs, "macs": said.share * costs(whole, image).macs}
    settings |= options
    rows = []
    for name in said.only or [*TRAINED_OTHERWISE, *CUT_OTHERWISE]:
        folders = [said.work / f"{name.replace(',', '').replace(' ', '-')}-{seed}" for seed in range(said.seeds)]
        for seed, folder in enumerate(folders):
            if name in CUT_OTHERWISE:
                cut_anew(said.work / f"everything-{seed}", folder, data, CUT_OTHERWISE[name])
            else:
                change = dict(TRAINED_OTHERWISE[name])
                epochs = said.epochs * change.pop("times", 1)
                fitted(said.data, folder, {**settings, **ALL, **change, "epochs": epochs, "seed": seed})
        rows.append(row(name, folders) | further(folders, said.also))
        print(rows[-1], flush=True)
    sentences = [
        f"{Path(said.data).name} of {image[0]}×{image[1]} pixels, {said.network}, {said.epochs} epochs, at most "
        f"{settings['macs'] / 1e6:.3f} M MACs, {said.seeds} seeds: mean ± spread of accuracy in percent. "
        "One ingredient is left out or replaced at a time.",
        f"Everything: {dict(ALL)}; the rest as convfabric fit does by default.",
    ]
    record = "-".join(["ablation", Path(said.data).name, said.network, *(["shares"] if said.also else [])])
    print(write_record(record, sentences, rows, said.results))


def fitted(data: str, folder: Path, settings: Mapping[str, Any]) -> None:
    """A fit, unless it is there."""
    if (folder / "minutes.txt").is_file():
        return
    began = time.process_time()
    fit(data, folder, resume=(folder / "config.yaml").is_file(), listener=SILENT, **settings)
    (folder / "minutes.txt").write_text(str((time.process_time() - began) / 60))


def cut_anew(run: Path, folder: Path, data: ImageSet, change: Mapping[str, Any]) -> None:
    """Another network cut from the trained fabric of a run, unless it is there; minutes are of the cut alone."""
    if (folder / "minutes.txt").is_file():
        return
    began = time.process_time()
    job = recut(run, dict(change))
    begin(folder, job, force=True)
    record = read_record(run)
    update_record(folder, data=record.data, fabric=record.fabric)
    network_step(folder, job, data, load_fabric(run / "fabric")[0], SILENT, run=run)
    (folder / "minutes.txt").write_text(str((time.process_time() - began) / 60))


def row(name: str, folders: list[Path]) -> Row:
    """What the seeds of one variant came to."""
    records = [written(read_record(folder)) for folder in folders]

    def said(*keys: str) -> str:
        values = [100 * _found(record, keys) for record in records]
        return f"{fmean(values):.2f} ± {pstdev(values):.2f}"

    return {
        "variant": name,
        "fabric, test": said("fabric", "score", "accuracy"),
        "refreshed, test": said("tuning", "after_recalibration", "accuracy"),
        "network, test": said("network", "score", "accuracy"),
        "network, val": said("network", "val_score", "accuracy"),
        "M MACs": round(fmean(record["network"]["macs"] for record in records) / 1e6, 3),
        "CPU minutes": round(fmean(float((folder / "minutes.txt").read_text()) for folder in folders), 1),
    }


def further(folders: list[Path], shares: list[str]) -> Row:
    """What networks of other shares of the fabric's MACs come to, cut from the same trainings."""
    found: Row = {}
    for share in shares:
        for folder in folders:
            curve(folder, "macs", share, listener=SILENT)
        name = f"macs-{share.replace('%', 'percent')}"
        values = [
            100 * _found(written(read_record(folder / "curve" / name)), ("network", "score", "accuracy"))
            for folder in folders
        ]
        found[f"network of {share}, test"] = f"{fmean(values):.2f} ± {pstdev(values):.2f}"
    return found


def _found(record: Any, keys: tuple[str, ...]) -> float:
    for key in keys:
        record = record[key]
    return float(record)


if __name__ == "__main__":
    main()
