"""Trials in processes of their own, the small job that most of them do, and what is done to its files and images."""

import faulthandler
import gc
import hashlib
import json
import os
import random
import resource
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors.torch import load_file, save_file

from convfabric.errors import ConvfabricError
from convfabric.pipeline.budget_curve import curve
from convfabric.pipeline.fit import fit

SECONDS = 90.0
"""After which a trial hangs."""
MOST_BYTES = 8 << 30
QUICK: dict[str, Any] = {"network": "trellis", "layers": 3, "scales": 2, "channels": 4}
QUICK |= {"epochs": 2, "search": "exact", "finetune": 0.5, "seed": 0}
SAME = ("fabric/model.safetensors", "model.safetensors", "fabric/graph.json", "graph.json", "metrics.csv")
OF_CURVE = "curve/macs-50percent/model.safetensors"
Trial = Callable[[], Any]


def tried(trial: Trial, wanted: Any = None, kill_after: float | None = None) -> tuple[str, str]:
    """The verdict on one trial in a process of its own, and what was said; killed after so many seconds if given."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        gc.disable()  # of what the parent holds nothing is freed, and looking through it takes long
        os.close(reading)
        resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
        faulthandler.register(signal.SIGUSR1, file=writing, all_threads=True)
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 1)
        os.dup2(null, 2)
        os.write(writing, json.dumps(_answered(trial)).encode()[:60_000])
        os._exit(0)
    os.close(writing)
    began, limit = time.monotonic(), kill_after if kill_after is not None else SECONDS
    ended = False
    while time.monotonic() - began < limit and not ended:
        ended = os.waitpid(child, os.WNOHANG)[0] == child
        time.sleep(0.002)
    if not ended:
        if kill_after is None:
            os.kill(child, signal.SIGUSR1)  # where it hangs
            time.sleep(0.5)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    with os.fdopen(reading, "rb") as pipe:
        text = pipe.read()
    if not ended:
        return ("killed", "") if kill_after is not None else ("hang", text.decode(errors="replace")[-3000:])
    verdict, said = json.loads(text) if text else ("traceback", "the process ended by a signal")
    if verdict == "answered":
        return ("identical" if wanted is None or said == wanted else "silent"), str(said)
    return verdict, said


def _answered(trial: Trial) -> tuple[str, Any]:
    try:
        return "answered", json.loads(json.dumps(trial()))
    except ConvfabricError as fault:
        return "named", f"{type(fault).__name__}: {fault}"[:300]
    except MemoryError:
        return "memory", traceback.format_exc()[-300:]
    except BaseException:
        said = traceback.format_exc()
        return ("memory" if "can't allocate memory" in said else "traceback"), said[-600:]


def photographs(folder: Path, masks: bool) -> Path:
    """A few images of two colours by classes, or with masks of which half is another class."""
    dice = np.random.default_rng(0)
    for split in ("train", "val"):
        for i in range(16):
            for name, colour in (("red", (200, 40, 40)), ("blue", (40, 40, 200))):
                pixels = (np.array(colour) + dice.integers(-40, 40, (16, 16, 3))).clip(0, 255).astype(np.uint8)
                file = folder / (f"images/{split}" if masks else f"{split}/{name}") / f"{name}{i}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(file)
                if masks:
                    mask = folder / "masks" / split / file.name
                    mask.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(np.repeat(np.array([[0] * 8 + [1] * 8], np.uint8), 16, 0)).save(mask)
    return folder


def job(data: Path, out: Path, resume: bool, curved: bool = True) -> Any:
    """One whole small job, with a curve, and digests of what must not depend on how often it was stopped."""
    fit(str(data), out, resume=resume, macs="60%", **QUICK)
    if curved:
        curve(out, "macs", ["50%"])
    return digests(out, curved)


def digests(out: Path, curved: bool = True) -> Any:
    """What :func:`job` answers of a job that is done."""
    return {name: hash_of(out / name) for name in (*SAME, *((OF_CURVE,) if curved else ()))}


def hash_of(file: Path) -> str:
    """A digest of a file."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


ODD: tuple[Any, ...] = (None, -1, 0, 10**30, 1e308, "", "²", "a.b", [], {}, [[]], True, "<script>", "../x", "x" * 5000)


def mutated(file: Path, whole: bytes, dice: random.Random) -> str:
    """Changes a file, and says how."""
    kind = dice.choice(("bit", "cut", "bytes", "value", "value", "value", "empty"))
    if file.suffix == ".safetensors" and dice.random() < 0.5:
        tensors = load_file(file)
        name = dice.choice(sorted(tensors))
        tensor = tensors[name].clone()
        if tensor.is_floating_point() and tensor.numel():
            tensor.view(-1)[dice.randrange(tensor.numel())] = dice.choice((float("nan"), float("inf"), -1.0, 0.123))
        else:
            tensor = tensor.float() + 1
        save_file(tensors | {name: tensor}, file)
        return "tensor"
    if kind == "value" and file.suffix == ".json":
        document = json.loads(whole)
        where = dice.choice(list(_spots(document)))
        where[0][where[1]] = dice.choice(ODD)
        file.write_text(json.dumps(document))
        return f"{where[1]}={str(where[0][where[1]])[:20]!r}"
    at = dice.randrange(max(1, len(whole)))
    made = {
        "bit": whole[:at] + bytes([whole[at] ^ (1 << dice.randrange(8))]) + whole[at + 1 :] if whole else b"",
        "cut": whole[:at],
        "bytes": whole[:at] + bytes(dice.randrange(256) for _ in range(9)) + whole[at + 9 :],
        "empty": b"",
    }
    file.write_bytes(made.get(kind, whole[: at // 2] + whole[at:]))
    return kind


def _spots(value: Any) -> Iterator[tuple[Any, Any]]:
    for key in value if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _spots(value[key])


def odd_images(folder: Path) -> list[Path]:
    """Sixty files: modes, formats, depths, turns, and what is no image."""
    folder.mkdir(parents=True)
    dice = np.random.default_rng(0)
    colour = Image.fromarray(dice.integers(0, 256, (20, 30, 3), np.uint8))
    for ending in ("png", "jpg", "gif", "bmp", "tif", "webp", "ppm", "jfif"):
        for mode in ("RGB", "L", "P", "1", "RGBA", "LA", "CMYK"):
            try:
                colour.convert(mode).save(folder / f"{mode}.{ending}", format="JPEG" if ending == "jfif" else None)
            except (OSError, KeyError, ValueError):
                (folder / f"{mode}.{ending}").unlink(missing_ok=True)
    wide = dice.integers(0, 4096, (20, 30))
    for dtype in (np.uint16, np.int32, np.float32):
        Image.fromarray(wide.astype(dtype)).save(folder / f"{np.dtype(dtype)}.tiff")
    Image.fromarray(wide.astype(np.uint16)).save(folder / "wide.png")
    Image.fromarray(np.full((4, 4), np.nan, np.float32)).save(folder / "nan.tiff")
    for turn in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = turn
        colour.save(folder / f"turn{turn}.jpg", exif=exif)
    whole = (folder / "RGB.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[:200])
    (folder / "text.png").write_text("hello")
    (folder / "empty.png").write_bytes(b"")
    (folder / "folder.png").mkdir()
    os.mkfifo(folder / "pipe.png")
    Image.new("1", (20_000, 9_000)).save(folder / "large.png")
    Image.new("1", (12_000, 9_000)).save(folder / "larger than allowed.png")
    colour.resize((1, 1)).save(folder / "one.png")
    colour.resize((900, 2)).save(folder / "long.png")
    colour.save(folder / "many.gif", save_all=True, append_images=[colour.rotate(90)])
    (folder / "no ending").write_bytes(whole)
    return [*sorted(folder.iterdir()), folder / "nowhere.png"]
