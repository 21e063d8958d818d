"""``predict.py``: what runs an exported file with numpy and ONNX Runtime, and image files with Pillow."""

import inspect
from pathlib import Path

from convfabric.boxes.answers import LIKELY, MOST_OVERLAP
from convfabric.data.reading import ENDINGS, SHARED
from convfabric.fabric.archive import write_atomically

OPENING = '''"""Answers of model.onnx: python predict.py IMAGE|FOLDER|ARRAY... prints one JSON object a line.

Where model.int8.onnx lies beside it, that is run; where files exit-1.onnx and so on do, they are run instead, one after
another, until one is confident.

Image files need Pillow. Arrays do not: a .npy file of (height, width) or (height, width, channels), uint8 or floats
from 0 to 255, or a .raw file of as many bytes. Masks are written into the present folder, over no file that is
there. Boxes are left, top, right and bottom in pixels of the image.

Needs Python 3.9, numpy and onnxruntime, from 1.14 on. The ONNX files take pixels from 0 to 255. Written by convfabric;
the functions in the middle are those the network was trained with.
"""

import argparse
import json
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

try:
    from PIL import Image, UnidentifiedImageError
except ImportError:
    Image = None

ARRAYS = (".npy", ".raw")
'''

CLOSING = '''

def softmax(logits):
    """Probabilities of one image's logits."""
    odds = np.exp(logits - logits.max())
    return odds / odds.sum()


def first_confident(sessions, facts, pixels):
    """Logits of the first exit that is confident enough, and its number, from 1; later exits are not run."""
    carried = {"images": pixels}
    limits = facts.get("limits", [-1.0])
    for number, (session, limit) in enumerate(zip(sessions, limits), 1):
        named = dict(zip([output.name for output in session.get_outputs()], session.run(None, carried)))
        logits = named.pop("boxes" if facts["task"] == "detection" else "logits")[0]
        if facts["task"] != "classification" or number == len(limits) or softmax(logits).max() >= limit:
            return logits, number
        carried = {name.removesuffix("_on"): value for name, value in named.items()}


def boxes_found(answer, facts, size, least):
    """The boxes of an answer from a probability on, the surest first, in pixels of an image of a height and width.

    For each class those go that overlap a surer one by more than OVERLAP.
    """
    times, shift = placement(size, facts["size"], facts["fitting"])
    sides = (answer[:, :4] - np.float32(shift)) / np.float32(times)
    sides = np.clip(sides, 0, [size[1], size[0], size[1], size[0]])
    found = []
    for label, name in enumerate(facts["classes"]):
        odds = answer[:, 4 + label]
        left = [int(at) for at in np.argsort(-odds, kind="stable") if odds[at] >= least]
        while left:
            best, left = left[0], left[1:]
            found.append({"class": name, "probability": round(float(odds[best]), 6)})
            found[-1]["box"] = [round(float(side), 2) for side in sides[best]]
            left = [at for at in left if overlap(answer[best, :4], answer[at, :4]) <= OVERLAP]
    return sorted(found, key=lambda one: -one["probability"])


def overlap(one, other):
    """Intersection over union of two boxes."""
    shared = np.clip(np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2]), 0, None).prod()
    return shared / max((one[2:] - one[:2]).prod() + (other[2:] - other[:2]).prod() - shared, 1e-9)


def stored_array(path, facts):
    """The pixels of an array file, (height, width, channels); ValueError where they are not from 0 to 255."""
    wanted = (*facts["size"], facts["channels"])
    if path.suffix.lower() == ".raw":
        array = np.fromfile(path, np.uint8)
        if array.size != np.prod(wanted):
            said = "×".join(map(str, wanted))
            raise ValueError(f"{array.size} bytes; {said} (height × width × channels) are wanted.")
        return array.reshape(wanted)
    array = np.load(path, allow_pickle=False)
    array = array[..., None] if array.ndim == 2 else array
    if array.ndim != 3 or array.shape[2] != wanted[2]:
        raise ValueError(f"an array of {array.shape}; (height, width, {wanted[2]}) is wanted.")
    if array.dtype.kind not in "uif" or not np.isfinite(array).all() or array.min() < 0 or array.max() > 255:
        raise ValueError(f"{array.dtype} beyond 0 to 255; pixels from 0 to 255 are wanted.")
    if array.dtype.kind == "f" and 0 < array.max() <= 1:
        raise ValueError(f"floats up to {array.max():.3g}; pixels from 0 to 255 are wanted, normalisation is inside.")
    return array


def prepared(path, facts):
    """The pixels of a file at the network's size, and the size of the file's image."""
    if path.is_dir():
        raise ValueError("a folder, not an image.")
    if path.suffix.lower() in ARRAYS:
        array = stored_array(path, facts)
    elif Image is None:
        raise ValueError("image files need Pillow; .npy and .raw files do not.")
    else:
        array, _ = upright_array(path, facts["channels"], facts["bounds"])
    fitted = array
    if array.shape[:2] != tuple(facts["size"]):
        if Image is None:
            raise ValueError(f"{array.shape[0]}×{array.shape[1]} pixels; without Pillow {facts['size']} are wanted.")
        fitted = fitted_array(np.round(array).astype(np.uint8), facts["size"], facts["fitting"])
    return fitted.astype(np.float32).transpose(2, 0, 1)[None], array.shape[:2]


def answers(sessions, facts, path, top=0, timed=False, least=LIKELY):
    """The answer for one file: a class with its probability, the mask that was written, or the boxes found."""
    pixels, size = prepared(path, facts)
    began = time.perf_counter()
    logits, number = first_confident(sessions, facts, pixels)
    left = {"ms": round((time.perf_counter() - began) * 1000, 3)} if timed else {}
    if not np.isfinite(logits).all():
        raise ValueError("the network's answer is no finite number.")
    if facts["task"] == "classification":
        odds = softmax(logits)
        order = [int(at) for at in np.argsort(-odds, kind="stable")]
        left |= {"exit": number} if len(sessions) > 1 else {}
        left |= {"top": [[facts["classes"][at], round(float(odds[at]), 6)] for at in order[:top]]} if top else {}
        best = order[0]
        named = {"image": str(path), "class": facts["classes"][best], "probability": round(float(odds[best]), 6)}
        return named | left
    if facts["task"] == "detection":
        return {"image": str(path), "boxes": boxes_found(logits, facts, size, least)} | left
    return {"image": str(path), "mask": str(written(logits.argmax(0).astype(np.uint8), facts, path, size))} | left


def written(mask, facts, path, size):
    """The mask in the present folder, as large as the image where that was stretched; .npy without Pillow."""
    ending, number = ".png" if Image else ".npy", 1
    file = Path(f"{path.stem}.mask{ending}")
    while file.exists():
        number += 1
        file = Path(f"{path.stem}.mask-{number}{ending}")
    if Image is None:
        np.save(file, mask)
        return file
    mask = Image.fromarray(mask)
    if facts["fitting"] == "stretch":
        mask = mask.resize((size[1], size[0]), Image.Resampling.NEAREST)
    mask.save(file)
    return file


def files_in(names):
    """Every file that is named, and every image and array in a folder that is."""
    for name in map(Path, names):
        inside = sorted(name.iterdir()) if name.is_dir() else []
        found = [file for file in inside if file.suffix.lower() in (*ENDINGS, *ARRAYS)]
        yield from found or [name]


def main():
    """Every image named on the command line; 1 where one could not be read."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("images", nargs="+", metavar="IMAGE")
    words.add_argument("--top", type=int, default=0, metavar="N", help="the N most probable classes")
    least = f"the probability from which on boxes are told; {LIKELY} unless said"
    words.add_argument("--least", type=float, default=LIKELY, metavar="P", help=least)
    threads = "threads of the runtime; its own choice unless told"
    words.add_argument("--threads", type=int, default=0, metavar="N", help=threads)
    words.add_argument("--time", action="store_true", help="milliseconds that the network took for each image")
    said = words.parse_args()
    if said.top < 0 or said.threads < 0:
        words.error("--top and --threads: at least 0")
    here = Path(__file__).parent
    exits = sorted(here.glob("exit-*.onnx"), key=lambda file: int(file.stem.partition("-")[2]))
    small = here / "model.int8.onnx"
    files = exits or [small if small.is_file() else here / "model.onnx"]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = max(0, said.threads)
    try:
        opened = [onnxruntime.InferenceSession(str(one), options, providers=["CPUExecutionProvider"]) for one in files]
        facts = json.loads(opened[0].get_modelmeta().custom_metadata_map["convfabric"])
    except Exception as fault:  # a file that is gone, damaged or of somebody else
        sys.exit(f"{files[0]}: not the network that was written here ({str(fault).splitlines()[0]}).")
    if exits and [file.name for file in exits] != [f"exit-{n + 1}.onnx" for n in range(len(facts.get("limits", [])))]:
        sys.exit(f"exit-1.onnx to exit-{len(facts.get('limits', []))}.onnx belong together, and some are not here.")
    if said.top and facts["task"] != "classification":
        words.error(f"--top: this network does {facts['task']}, not classification")
    if facts["channels"] not in (1, 3) and any(Path(name).suffix.lower() not in ARRAYS for name in said.images):
        sys.exit(f"model.onnx takes images of {facts['channels']} channels; image files are read with 1 or 3.")
    warnings.simplefilter("ignore")
    plain = "utf" not in (sys.stdout.encoding or "").lower()
    failed = False
    for path in files_in(said.images):
        try:
            answer = answers(opened, facts, path, said.top, said.time, said.least)
            print(json.dumps(answer, ensure_ascii=plain), flush=True)
        except Exception as fault:  # whatever one file does, the others are answered
            failed = True
            print(f"{path}: {fault}".encode("ascii", "backslashreplace").decode(), file=sys.stderr)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
'''


def write_predictor(folder: Path) -> None:
    """``predict.py`` beside the files it runs."""
    middle = "\n\n".join(inspect.getsource(function) for function in SHARED)
    numbers = f"ENDINGS = {ENDINGS}\nLIKELY, OVERLAP = {LIKELY}, {MOST_OVERLAP}"
    write_atomically(folder / "predict.py", f"{OPENING}{numbers}\n\n\n{middle}{CLOSING}")
