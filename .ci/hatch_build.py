"""The wheel: pure Python, or under LREG_BUILD_KERNELS=1 with CPU kernels for machines that have no compiler."""

import os
import runpy
import sysconfig
import tempfile
from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class KernelsHook(BuildHookInterface):
    def initialize(self, version, build_data):
        if version == "editable" or os.environ.get("LREG_BUILD_KERNELS", "0") == "0":
            return
        compiler = runpy.run_path(str(Path(self.root, "engine", "kernels", "compiler.py")))
        self.scratch = tempfile.TemporaryDirectory()  # gone with the hook, after the wheel is written
        for library in compiler["prebuild"](Path(self.scratch.name)):
            build_data["force_include"][str(library)] = f"engine/kernels/prebuilt/{library.name}"
        build_data["pure_python"] = False
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["tag"] = f"py3-none-{platform}"  # the kernels are called by ctypes: any Python will do
