"""Job: work on several runs as a process of its own, which can be watched, stopped and resumed like a run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from engine.base.files import make_folder, refused
from engine.runs import provenance
from engine.runs.writer import Run, folder_of, is_complete, new_folder, stamp_of, utc_now

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
    def _make(
        cls,
        store_dir: Path,
        name: str,
        document: str,
        *,
        stamp: str = "",
        job_id: str = "",
        argv: Sequence[str] = (),
        data_dir: str | os.PathLike[str] | None = None,
        **facts: Any,
    ) -> Self:
        """Make the folder of a new job. Raises RunError where it cannot be made.

        With a `job_id`, the job of that id if it is there; one that was never completed is made anew.
        """
        created, folder = utc_now(), store_dir / cls.home
        try:
            store_dir.mkdir(parents=True, exist_ok=True)
            make_folder(folder)
            path = folder_of(folder, job_id) if job_id else new_folder(folder, stamp or stamp_of(created), name)
            if is_complete(path):
                return cls(path)
            every = {
                "id": path.name,
                "name": name,
                "kind": cls.kind,
                "created": created,
                "argv": list(argv),
                **facts,
                "data_dir": str(Path(data_dir).absolute()) if data_dir is not None else None,
                **provenance.describe(),
            }
            return cls(path)._fill(document, every)
        except OSError as error:
            raise refused(error, f"{error.filename or store_dir}: cannot create a folder there") from None
