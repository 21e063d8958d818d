"""A run's predict.py in an environment of numpy, Pillow and ONNX Runtime alone, against the network in torch.

    python benchmarks/standalone.py RUN...

Makes that environment in a temporary folder, runs predict.py over every image of the judging split, and
compares: first choices (of images, or of every pixel of the masks) and the largest difference of logits.
Ends non-zero where a first choice differs or logits are more than 1e-4 apart.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from PIL import Image

from convfabric.data.imageset import ImageSet, Preprocessing
from convfabric.data.reading import fitted_array, read_picture
from convfabric.exporting.formats import TOLERANCE
from convfabric.fabric.archive import load_fabric
from convfabric.fabric.module import Fabric
from convfabric.pipeline.inputs import opened
from convfabric.runs.folder import job_of
from records import RESULTS, write_record

BARE: dict[str, str] = {}
"""No variable of this process reaches the environment."""
NEEDED = ("numpy", "pillow", "onnxruntime")


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("runs", nargs="+", type=Path)
    words.add_argument("--results", type=Path, default=RESULTS)
    said = words.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        python = bare_environment(Path(folder) / "venv")
        rows = [row_of(run, python, Path(folder) / f"images{i}") for i, run in enumerate(said.runs)]
    sentences = ["Environment of predict.py: " + ", ".join(NEEDED) + " and what they bring. " + __doc__.splitlines()[0]]
    print(write_record("standalone", sentences, rows, said.results))
    sys.exit(any(row["first choices that differ"] or row["largest difference of logits"] > TOLERANCE for row in rows))


def bare_environment(folder: Path) -> Path:
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", *NEEDED], check=True)
    for name in ("torch", "convfabric"):
        tried = subprocess.run([python, "-c", f"import {name}"], capture_output=True, check=False, env=BARE)
        assert tried.returncode != 0, f"{name} can be imported there"
    return python


def row_of(run: Path, python: Path, folder: Path) -> dict[str, Any]:
    network, papers = load_fabric(run)
    data = opened(job_of(run))
    files = image_files(data, folder)
    script = [str(python), str((run / "predict.py").resolve()), *map(str, files)]
    found = subprocess.run(script, capture_output=True, text=True, check=True, env=BARE, cwd=folder)
    answers = [json.loads(line) for line in found.stdout.splitlines()]
    session = onnxruntime.InferenceSession(str(run / "model.onnx"), providers=["CPUExecutionProvider"])
    choices, differing, apart = 0, 0, 0.0
    for file, answer in zip(files, answers, strict=True):
        pixels, logits = logits_of(network, file, papers.preprocessing)
        theirs = session.run(None, {"images": pixels})[0][0]
        apart = max(apart, float(np.abs(theirs - logits).max()))
        if "class" in answer:
            choices, differing = choices + 1, differing + (answer["class"] != papers.classes[int(logits.argmax())])
        else:
            written = Image.open(folder / answer["mask"])
            mine = Image.fromarray(logits.argmax(0).astype(np.uint8)).resize(written.size, Image.Resampling.NEAREST)
            different = np.asarray(mine) != np.asarray(written)
            choices, differing = choices + different.size, differing + int(different.sum())
    return {
        "run": data.name,
        "task": data.task,
        "images": len(files),
        "first choices": choices,
        "first choices that differ": differing,
        "largest difference of logits": apart,
    }


def image_files(data: ImageSet, folder: Path) -> list[Path]:
    """Copies of the judging split's image files; images that are no files are written as PNG."""
    folder.mkdir()
    if data.files:
        copies = []
        for source in map(Path, data.files[data.scored_split]):
            copies.append(folder / source.name)
            copies[-1].write_bytes(source.read_bytes())
        return copies
    split, files = data.splits[data.scored_split], []
    for i, (images, _) in enumerate(split.batches([[j] for j in range(len(split))])):
        array = images[0].permute(1, 2, 0).numpy()
        files.append(folder / f"{i}.png")
        Image.fromarray(array[..., 0] if array.shape[2] == 1 else array).save(files[-1])
    return files


def logits_of(network: Fabric, file: Path, preprocessing: Preprocessing) -> tuple[np.ndarray, np.ndarray]:
    array, _ = read_picture(file, preprocessing.channels)
    fitted = fitted_array(array, preprocessing.size, preprocessing.fitting)
    pixels = torch.from_numpy(fitted.copy()).permute(2, 0, 1)[None]
    with torch.inference_mode():
        return pixels.float().numpy(), network(preprocessing.normalised(pixels))[0].numpy()


if __name__ == "__main__":
    main()
