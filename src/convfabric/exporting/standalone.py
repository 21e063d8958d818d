"""``predict.py``: what runs an exported file with numpy, Pillow and ONNX Runtime alone."""

import inspect
from pathlib import Path

from convfabric.archive import write_atomically
from convfabric.data.pictures import fitted_array, upright_array

OPENING = '''"""Answers of model.onnx: python predict.py IMAGE... prints one JSON object a line.

Masks are written into the present folder, over no file that is there.

Needs numpy, pillow and onnxruntime. Written by convfabric; the functions in the middle are those the
network was trained with.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

'''

CLOSING = '''

def answers(session, facts, path):
    """The answer for one image file: a class with its probability, or the mask that was written."""
    with Image.open(path) as image:
        array, _ = upright_array(image, facts["channels"])
    pixels = fitted_array(array, facts["size"], facts["fitting"]).astype(np.float32).transpose(2, 0, 1)[None]
    logits = session.run(["logits"], {"images": pixels})[0][0]
    if facts["task"] == "classification":
        odds = np.exp(logits - logits.max())
        odds /= odds.sum()
        best = int(odds.argmax())
        return {"image": str(path), "class": facts["classes"][best], "probability": round(float(odds[best]), 6)}
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
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        sys.exit(__doc__)
    model = str(Path(__file__).with_name("model.onnx"))
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    facts = json.loads(session.get_modelmeta().custom_metadata_map["convfabric"])
    if facts["channels"] not in (1, 3):
        sys.exit(f"model.onnx takes images of {facts['channels']} channels; image files are read with 1 or 3.")
    failed = False
    for name in sys.argv[1:]:
        try:
            print(json.dumps(answers(session, facts, Path(name)), ensure_ascii=False), flush=True)
        except (OSError, ValueError, SyntaxError) as fault:
            failed = True
            print(f"{name}: {fault}", file=sys.stderr)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
'''


def write_predictor(folder: Path) -> None:
    """``predict.py`` beside the files it runs."""
    middle = "\n\n".join(inspect.getsource(function) for function in (upright_array, fitted_array))
    write_atomically(folder / "predict.py", OPENING + "\n" + middle + CLOSING)
