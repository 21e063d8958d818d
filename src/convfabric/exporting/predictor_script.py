"""``predict.py``: what runs an exported file with numpy, Pillow and ONNX Runtime alone."""

import inspect
from pathlib import Path

from convfabric.data.reading import SHARED
from convfabric.fabric.archive import write_atomically

OPENING = '''"""Answers of model.onnx: python predict.py IMAGE... prints one JSON object a line.

Where model.int8.onnx lies beside it, that is run; where files exit-1.onnx and so on do, they are run instead, one after
another, until one is confident.

Masks are written into the present folder, over no file that is there.

Needs numpy, pillow and onnxruntime, from 1.14 on. The ONNX files take pixels from 0 to 255. Written by convfabric; the
functions in the middle are those the network was trained with.
"""

import json
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image, UnidentifiedImageError

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
        logits = named.pop("logits")[0]
        if facts["task"] == "segmentation" or number == len(limits) or softmax(logits).max() >= limit:
            return logits, number
        carried = {name.removesuffix("_on"): value for name, value in named.items()}


def answers(sessions, facts, path):
    """The answer for one image file: a class with its probability, or the mask that was written."""
    array, _ = upright_array(path, facts["channels"], facts["bounds"])
    pixels = fitted_array(array, facts["size"], facts["fitting"]).astype(np.float32).transpose(2, 0, 1)[None]
    logits, number = first_confident(sessions, facts, pixels)
    if not np.isfinite(logits).all():
        raise ValueError("the network's answer is no finite number.")
    if facts["task"] == "classification":
        odds = softmax(logits)
        best = int(odds.argmax())
        left = {"exit": number} if len(sessions) > 1 else {}
        named = {"image": str(path), "class": facts["classes"][best], "probability": round(float(odds[best]), 6)}
        return named | left
    mask = Image.fromarray(logits.argmax(0).astype(np.uint8))
    if facts["fitting"] == "stretch":
        mask = mask.resize((array.shape[1], array.shape[0]), Image.Resampling.NEAREST)
    written, number = Path(f"{path.stem}.mask.png"), 1
    while written.exists():
        number += 1
        written = Path(f"{path.stem}.mask-{number}.png")
    mask.save(written)
    return {"image": str(path), "mask": str(written)}


def main():
    """Every image named on the command line; 1 where one could not be read."""
    if sys.argv[1:2] in (["-h"], ["--help"]):
        print(__doc__)
        return
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    here = Path(__file__).parent
    exits = sorted(here.glob("exit-*.onnx"), key=lambda file: int(file.stem.partition("-")[2]))
    small = here / "model.int8.onnx"
    files = exits or [small if small.is_file() else here / "model.onnx"]
    try:
        sessions = [onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"]) for file in files]
        facts = json.loads(sessions[0].get_modelmeta().custom_metadata_map["convfabric"])
    except Exception as fault:  # a file that is gone, damaged or of somebody else
        sys.exit(f"{files[0]}: not the network that was written here ({str(fault).splitlines()[0]}).")
    if exits and [file.name for file in exits] != [f"exit-{n + 1}.onnx" for n in range(len(facts.get("limits", [])))]:
        sys.exit(f"exit-1.onnx to exit-{len(facts.get('limits', []))}.onnx belong together, and some are not here.")
    if facts["channels"] not in (1, 3):
        sys.exit(f"model.onnx takes images of {facts['channels']} channels; image files are read with 1 or 3.")
    warnings.simplefilter("ignore")
    plain = "utf" not in (sys.stdout.encoding or "").lower()
    failed = False
    for name in sys.argv[1:]:
        try:
            print(json.dumps(answers(sessions, facts, Path(name)), ensure_ascii=plain), flush=True)
        except Exception as fault:  # whatever one file does, the others are answered
            failed = True
            print(f"{name}: {fault}".encode("ascii", "backslashreplace").decode(), file=sys.stderr)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
'''


def write_predictor(folder: Path) -> None:
    """``predict.py`` beside the files it runs."""
    middle = "\n\n".join(inspect.getsource(function) for function in SHARED)
    write_atomically(folder / "predict.py", OPENING + "\n" + middle + CLOSING)
