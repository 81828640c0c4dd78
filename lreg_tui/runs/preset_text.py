"""PresetText: the preset of a run to read, with search as a log has it."""

from __future__ import annotations

from typing import ClassVar

from lreg_tui.widgets.searched import MATCH, SEARCHED, Searched
from lreg_tui.widgets.toml_area import TomlArea


class PresetText(Searched, TomlArea):
    """TOML in its colours."""

    HELP_TITLE = "Preset"
    BINDINGS = SEARCHED
    COMPONENT_CLASSES: ClassVar[set[str]] = {MATCH}
    DEFAULT_CSS = """
    PresetText > .searched--match { background: $accent; color: $background; }
    """
