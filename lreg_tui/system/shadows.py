"""A file of the user's that hides lreg's engine: its name is a common one. Imports nothing of either."""

import os
import sys


def refuse_a_hidden_engine() -> None:
    """End the process with one line where `import engine` would take another than the one beside this package."""
    from importlib.util import find_spec

    import lreg_tui

    ours = os.path.join(os.path.dirname(os.path.dirname(lreg_tui.__file__)), "engine", "__init__.py")
    spec = find_spec("engine")
    if spec is None or not spec.origin or os.path.realpath(spec.origin) == os.path.realpath(ours):
        return
    theirs = spec.origin if spec.origin.isprintable() else ascii(spec.origin)
    remedy = "rename it, start lreg from another folder, or take its folder out of PYTHONPATH"
    print(f"error: {theirs} hides lreg's own package `engine`; {remedy}", file=sys.stderr)
    sys.exit(2)
