"""What a board has to time before a fit for it can begin, written into a folder that is carried there."""

from pathlib import Path
from typing import Any

from convfabric.errors import UntimedError
from convfabric.fabric.archive import GRAPH_FILE, load_fabric
from convfabric.pipeline.cutters import Surveys
from convfabric.pipeline.inputs import opened, reopened, woven
from convfabric.pipeline.sizes import sized
from convfabric.progress import Listener, Say
from convfabric.runs.folder import recut
from convfabric.runs.job import job_from


def probe(source: str | Path, kit: str | Path, say: Say = print, **settings: Any) -> str:
    """Writes models to be timed into ``kit``, for a fit on images or for further networks from a run.

    ``settings`` are those that the fit will have. Returns what is to be done with them; where all times are there,
    that the fit can begin. Raises what a fit raises before its first step.
    """
    settings = {**settings, "device": f"kit:{kit}"}
    try:
        if (Path(source) / "fabric" / GRAPH_FILE).is_file():
            job = recut(Path(source), settings)
            graph, data = load_fabric(Path(source) / "fabric")[0].graph, reopened(Path(source), job)
        else:
            job = sized(job_from({"data": str(source), **settings}), say)
            data = opened(job)
            graph = woven(job, data)
        Surveys(graph, job, data, Listener(say=say))
    except UntimedError as waiting:
        return str(waiting)
    return f"{kit}: every time is there; go on with --device kit:{kit}"
