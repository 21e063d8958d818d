"""A board that no connection reaches: what is to be timed is left in a folder, which is carried there and back.

::

    FOLDER/timing.py      run by python3 on the board; needs numpy and onnxruntime
    FOLDER/wanted.json    the models to be timed, and how
    FOLDER/models/        *.onnx
    FOLDER/times.json     what timing.py wrote
"""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from convfabric.errors import ArchiveError, DeviceError, UntimedError
from convfabric.fabric.archive import write_atomically
from convfabric.graph.json_format import parsed, text_of
from convfabric.latency import timing
from convfabric.latency.asked import Asked
from convfabric.latency.devices.board import Answer, checked_answer, checked_facts

MODELS, PROGRAM = "models", "timing.py"


class InFolder:
    """A folder with models and, once it was carried to the board, their times."""

    waits = True

    def __init__(self, folder: str) -> None:
        self.folder, self.name = Path(folder), f"kit:{folder}"

    def facts(self) -> Mapping[str, str]:
        """Of the board that wrote the times; UntimedError where none has."""
        found = self._times()
        if not found:
            self._refuse(0)
        return checked_facts(found.get("facts"), str(self.folder / timing.TIMES))

    def answers(self, asked: Sequence[Asked]) -> list[Answer]:
        """What is there; where something is missing, see :meth:`expect`."""
        self.expect(lambda: asked)
        known, where = self._times().get("times", {}), str(self.folder / timing.TIMES)
        return [checked_answer(known[one.file], one, where) for one in asked]

    def expect(self, asked: Callable[[], Sequence[Asked]]) -> None:
        """Writes models that have no times yet into the folder, and raises UntimedError if there are any."""
        known = self._times().get("times", {})
        missing = [one for one in asked() if one.file not in known]
        if missing:
            self._want(missing)
            self._refuse(len(missing))

    def _times(self) -> dict[str, Any]:
        file = self.folder / timing.TIMES
        if not file.is_file():
            return {}
        found = parsed(text_of(file), str(file))
        if not (isinstance(found, dict) and isinstance(found.get("times"), dict)):
            raise DeviceError(f"{file}: not what {PROGRAM} writes; run it on the board once more.")
        return found

    def _want(self, missing: Sequence[Asked]) -> None:
        models = self.folder / MODELS
        wanted = {one["file"]: one for one in self._wanted()}
        for one in missing:
            write_atomically(models / one.file, one.model())
            wanted[one.file] = {"file": one.file, "key": one.key, **one.wanted}
        write_atomically(self.folder / timing.WANTED, json.dumps({"models": list(wanted.values())}, indent=0))
        shutil.copyfile(timing.__file__, self.folder / PROGRAM)

    def _wanted(self) -> list[dict[str, Any]]:
        file = self.folder / timing.WANTED
        if not file.is_file():
            if self.folder.is_dir() and any(self.folder.iterdir()):
                raise ArchiveError(f"{self.folder}: holds other files; give a folder that is empty or not there yet.")
            (self.folder / MODELS).mkdir(parents=True, exist_ok=True)
            return []
        found: list[dict[str, Any]] = parsed(text_of(file), str(file))["models"]
        return found

    def _refuse(self, count: int) -> None:
        models = f"{count} model{'s' * (count > 1)}" if count else "models"
        raise UntimedError(
            f"{self.folder}: {models} to be timed. Carry the folder to the board, run `python3 {PROGRAM}` in it, "
            f"and carry {timing.TIMES} back into it."
        )
