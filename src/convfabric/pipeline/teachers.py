"""The teacher of a run: where it is kept once it is trained."""

from pathlib import Path

from convfabric.data.imageset import ImageSet
from convfabric.fabric.archive import GRAPH_FILE, load_fabric
from convfabric.importing.earlier_run import folder_of
from convfabric.runs.folder import TEACHER
from convfabric.runs.job import Job
from convfabric.training.teachers import Teacher


def teacher_there(run: Path, job: Job, data: ImageSet) -> Teacher | None:
    """The trained teacher of a run's job: an earlier run that answers for the same classes, or the one tuned for it.

    None where the job has none, or it is not trained yet.
    """
    library, _, earlier = job.procedure.teacher.partition(":")
    if library == "run":
        fabric, papers = load_fabric(folder_of(Path(earlier)))
        if (papers.classes, fabric.graph.head.task) == (data.classes, data.task):
            return Teacher(fabric=fabric, preprocessing=papers.preprocessing)
    if not (library and (run / TEACHER / "fabric" / GRAPH_FILE).is_file()):
        return None
    fabric, papers = load_fabric(run / TEACHER / "fabric")
    return Teacher(fabric=fabric, preprocessing=papers.preprocessing)
