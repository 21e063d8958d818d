"""Whether a run can be trusted: killed, cut short, damaged and misused, what it answers is the same, or a named error.

python benchmarks/trust.py --json trust.json            all parts; what a file holds already is not done again
python benchmarks/trust.py --json trust.json --part kills --count 20

Every trial runs in a process of its own, forked from one that has loaded everything. Verdicts: identical (same answer
as without), named (an error of ours), traceback, hang, silent (another answer, nothing said), memory.
"""

import argparse
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from agreement import disagreements
from convfabric.data.opening import open_data
from convfabric.data.options import DataOptions
from convfabric.data.reading import read_picture
from convfabric.errors import ConvfabricError
from convfabric.execution.allocation import keep_imports, keep_memory
from convfabric.latency import survey
from convfabric.latency.prediction import calibrate
from convfabric.pipeline.budget_curve import curve
from convfabric.pipeline.evaluate import evaluate, predictor
from convfabric.pipeline.fit import fit
from convfabric.runs.record import read_record

SECONDS = 90.0
"""After which a trial hangs."""
MOST_BYTES = 8 << 30
QUICK: dict[str, Any] = {"network": "trellis", "layers": 3, "scales": 2, "channels": 4}
QUICK |= {"epochs": 2, "search": "exact", "finetune": 0.5, "seed": 0}
SAME = ("fabric/model.safetensors", "model.safetensors", "fabric/graph.json", "graph.json", "metrics.csv")
Trial = Callable[[], Any]


def tried(trial: Trial, wanted: Any = None, kill_after: float | None = None) -> tuple[str, str]:
    """The verdict on one trial in a process of its own, and what was said; killed after so many seconds if given."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
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
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    with os.fdopen(reading, "rb") as pipe:
        text = pipe.read()
    if not ended:
        return ("killed" if kill_after is not None else "hang"), ""
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


def job(data: Path, out: Path, resume: bool) -> Any:
    """One whole small job, with a curve, and the bytes that must not depend on how often it was stopped."""
    fit(str(data), out, resume=resume, macs="60%", **QUICK)
    curve(out, "macs", ["50%"])
    files = [*SAME, "curve/macs-50percent/model.safetensors"]
    return {name: (out / name).read_bytes().hex()[:64] + str(hash_of(out / name)) for name in files}


def hash_of(file: Path) -> str:
    """A digest of a file."""
    import hashlib

    return hashlib.sha256(file.read_bytes()).hexdigest()


def kills(work: Path, count: int, dice: random.Random) -> Iterator[tuple[str, str]]:
    """Whole jobs killed at random moments and gone on with."""
    for masks in (False, True):
        data, done = photographs(work / f"data{masks}", masks), 0
        began = time.monotonic()
        verdict, _ = tried(partial(job, data, work / f"whole{masks}", False))
        took = time.monotonic() - began
        assert verdict == "identical", _
        wanted = json.loads(json.dumps(job_bytes(work / f"whole{masks}")))
        while done < count // 2:
            out, resume = work / f"killed{masks}-{done}", False
            for _attempt in range(40):
                trial = partial(job, data, out, resume)
                verdict, said = tried(trial, wanted, kill_after=dice.random() * took * 1.2)
                done += verdict == "killed"
                resume = out.exists()
                if verdict != "killed":
                    break
            if verdict == "killed":
                verdict, said = tried(partial(job, data, out, out.exists()), wanted)
            yield verdict, said
            shutil.rmtree(out, ignore_errors=True)


def job_bytes(out: Path) -> Any:
    """What :func:`job` answers of a job that is done."""
    files = [*SAME, "curve/macs-50percent/model.safetensors"]
    return {name: (out / name).read_bytes().hex()[:64] + str(hash_of(out / name)) for name in files}


def boundaries(work: Path, count: int, dice: random.Random) -> Iterator[tuple[str, str]]:
    """A job that ends at each of its calls of the file system that change something, and is gone on with."""
    data = photographs(work / "data", False)
    tried(partial(job, data, work / "whole", False))
    wanted = json.loads(json.dumps(job_bytes(work / "whole")))
    for stop in range(count):
        out = work / f"stopped{stop}"
        verdict, said = tried(partial(_stopping, stop, partial(job, data, out, False)), wanted)
        if verdict == "identical":
            yield verdict, said
            return
        yield tried(partial(job, data, out, out.exists()), wanted)
        shutil.rmtree(out, ignore_errors=True)


def _stopping(stop: int, trial: Trial) -> Any:
    """The trial, ended without a word before the so-manieth change of a file."""
    left = [stop]

    def ending(function: Any) -> Any:
        def called(*words: Any, **named: Any) -> Any:
            if left[0] == 0:
                os._exit(1)
            left[0] -= 1
            return function(*words, **named)

        return called

    for name in ("replace", "fsync", "unlink", "mkdir"):
        setattr(os, name, ending(getattr(os, name)))
    return trial()


def answers_of(run: Path, images: list[Path]) -> Any:
    """What a run says of a few images, its record and its score."""
    answer = predictor(run)
    read_record(run)
    return [{k: v for k, v in answer(image).items() if k != "image"} for image in images], str(evaluate(run).score)


def mutations(work: Path, count: int, dice: random.Random) -> Iterator[tuple[str, str]]:
    """Files of a run changed: bits, lengths, values in JSON and YAML, tensors."""
    data, run = photographs(work / "data", False), work / "run"
    fit(str(data), run, macs="60%", **QUICK)
    images = sorted(data.rglob("*.png"))[:3]
    wanted = json.loads(json.dumps(answers_of(run, images)))
    files = sorted(path for path in run.rglob("*") if path.is_file() and path.name != ".lock")
    weighty = [path for path in files if path.suffix in (".safetensors", ".json", ".yaml")]
    for _ in range(count):
        file = dice.choice(weighty if dice.random() < 0.7 else files)
        whole = file.read_bytes()
        how = _mutated(file, whole, dice)
        verdict, said = tried(partial(answers_of, run, images), wanted)
        yield verdict, f"{file.relative_to(run)}, {how}: {said[-500:]}"
        if file.suffix == ".safetensors" and how == "tensor" and verdict == "identical" and "state" not in file.name:
            unread = file.parent.name in ("fabric", "cut")
            verdict, said = tried(partial(_loaded, file.parent))
            yield (verdict if verdict == "named" or not unread else "silent"), f"{file.relative_to(run)}: {said}"
        file.write_bytes(whole)


def _loaded(folder: Path) -> str:
    from convfabric.fabric.archive import load_fabric

    load_fabric(folder)
    return "loaded"


ODD: tuple[Any, ...] = (None, -1, 0, 10**30, 1e308, "", "²", "a.b", [], {}, [[]], True, "<script>", "../x", "x" * 5000)


def _mutated(file: Path, whole: bytes, dice: random.Random) -> str:
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


def images(work: Path, count: int, dice: random.Random) -> Iterator[tuple[str, str]]:
    """Image files with damaged bytes: read, or named."""
    colours = np.random.default_rng(0).integers(0, 256, (24, 24, 3)).astype(np.uint8)
    files = []
    for ending in ("png", "jpg", "gif", "bmp", "tif", "webp"):
        Image.fromarray(colours).save(work / f"a.{ending}")
        files.append((work / f"a.{ending}", (work / f"a.{ending}").read_bytes()))

    def some(start: int) -> Any:
        own, met = random.Random(start), Counter[str]()
        for _ in range(500):
            file, whole = own.choice(files)
            damaged = bytearray(whole[: own.randrange(len(whole))] if own.random() < 0.2 else whole)
            for _change in range(own.choice((1, 1, 3, 20))):
                if damaged:
                    damaged[own.randrange(min(len(damaged), own.choice((64, 10_000))))] = own.randrange(256)
            target = work / f"{start}{file.suffix}"
            target.write_bytes(damaged)
            try:
                read_picture(target, own.choice((1, 3)))
                met["identical"] += 1
            except ConvfabricError:
                met["named"] += 1
        return met

    for start in range(0, count, 500):
        verdict, said = tried(partial(some, start))
        found = json.loads(said.replace("'", '"')) if verdict == "identical" else {verdict: 1}
        for name, times in found.items():
            for _ in range(times):
                yield name, said


def graphs(work: Path, count: int, dice: random.Random) -> Iterator[tuple[str, str]]:
    """Random graphs of every family, exported and compared."""
    for seed in range(count):
        yield tried(partial(disagreements, seed), [])


def surroundings(work: Path, count: int, dice: random.Random) -> Iterator[tuple[str, str]]:
    """A job where files may not be large, folders not be written, shared memory and a home are not there."""
    data = photographs(work / "data", False)

    def limited(what: int, most: int) -> Trial:
        def trial() -> Any:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(what, (most, most))
            return fit(str(data), work / f"out{what}-{most}", macs="60%", **QUICK) and "done"

        return trial

    def homeless() -> Any:
        os.environ.pop("HOME")
        return fit(str(data), work / "homeless", macs="60%", **QUICK) and "done"

    def in_the_way() -> Any:
        (work / "file").write_text("x")
        return fit(str(data), work / "file" / "run", macs="60%", **QUICK) and "done"

    def streamed() -> Any:
        found = open_data(str(data), DataOptions(hold_mb=0, workers=2))
        return [len(batch) for batch, _ in found.splits["train"].batches([[0, 1]])]

    sizes = [(resource.RLIMIT_FSIZE, most) for most in (0, 100, 1000, 5000, 20_000, 50_000, 100_000)]
    for what, most in [*sizes, (resource.RLIMIT_NOFILE, 40), (resource.RLIMIT_NOFILE, 64)]:
        yield tried(limited(what, most))
    for trial in (homeless, in_the_way, streamed):
        yield tried(trial)


PARTS: dict[str, tuple[Callable[[Path, int, random.Random], Iterator[tuple[str, str]]], int]] = {
    "kills": (kills, 200),
    "boundaries": (boundaries, 1000),
    "mutations": (mutations, 2000),
    "images": (images, 10_000),
    "surroundings": (surroundings, 1),
    "graphs": (graphs, 1000),
}


def counted(name: str, count: int) -> dict[str, Any]:
    """The verdicts of one part, and examples of those that should not be."""
    with tempfile.TemporaryDirectory() as work:
        met, bad, began = Counter[str](), list[str](), time.monotonic()
        for verdict, said in PARTS[name][0](Path(work), count, random.Random(0)):
            met[verdict] += 1
            if verdict not in ("identical", "named"):
                bad.append(f"{verdict}: {said}")
        return {"verdicts": dict(met), "seconds": round(time.monotonic() - began), "examples": bad[:40]}


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--json", type=Path, required=True)
    words.add_argument("--part", choices=PARTS, action="append")
    words.add_argument("--count", type=int)
    said = words.parse_args()
    torch.set_num_threads(1)
    setattr(survey, "SAMPLE_SECONDS", 0.001)  # noqa: B010 - how long is not asked here
    setattr(survey, "calibrate", partial(calibrate, count=3))  # noqa: B010
    keep_memory()
    keep_imports()
    found: dict[str, Any] = json.loads(said.json.read_text()) if said.json.is_file() else {}
    missing = [name for name in said.part or PARTS if name not in found]
    for name in missing:
        found[name] = part = counted(name, said.count or PARTS[name][1])
        said.json.write_text(json.dumps(found, indent=1))
        print(f"{name}: {part['verdicts']} in {part['seconds']} s", file=sys.stderr)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
