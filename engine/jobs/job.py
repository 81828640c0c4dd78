"""Job: work on several runs as a process of its own, which can be watched, stopped and resumed like a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from engine.base.files import make_folder, refused
from engine.runs.writer import Run

if TYPE_CHECKING:
    from typing_extensions import Self


class Job(Run):
    """The folder of a job, for its one writer: a run's, with another document in place of a preset."""

    kinds: ClassVar[dict[str, type[Job]]] = {}  # every kind of job that has been imported, by its name in run.json
    kind: ClassVar[str]
    home: ClassVar[str]  # the folder of such jobs in a run store

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        Job.kinds[cls.kind] = cls

    @classmethod
    def _make(cls, store_dir: Path, name: str, document: str, *, job_id: str = "", **facts: Any) -> Self:
        """Make the folder of a new job. Raises RunError where it cannot be made.

        With a `job_id`, the job of that id if it is there; one that was never completed is made anew.
        """
        folder = store_dir / cls.home
        try:
            store_dir.mkdir(parents=True, exist_ok=True)
            make_folder(folder)
        except OSError as error:
            raise refused(error, f"{error.filename or store_dir}: cannot create a folder there") from None
        return cls._create(folder, name, document, run_id=job_id, kind=cls.kind, **facts)
