"""PresetText: the preset of a run to read, with search as a log has it."""

from __future__ import annotations

from lreg_tui.widgets.searched import Searched
from lreg_tui.widgets.toml_area import TomlArea


class PresetText(Searched, TomlArea):
    """TOML in its colours."""

    HELP_TITLE = "Preset"
