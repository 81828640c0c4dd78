"""The folder that datasets lie in. Imports no torch."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_cache_path


def data_folder(data_dir: Path | None = None) -> Path:
    """Where datasets lie: the folder given, else $LREG_DATA_DIR, else one in the user's cache."""
    if data_dir is not None:
        return Path(data_dir)
    variable = os.environ.get("LREG_DATA_DIR", "")
    return Path(variable).expanduser() if variable else user_cache_path("lreg") / "data"
