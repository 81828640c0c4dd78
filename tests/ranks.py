"""Processes that work as a team, started once for many tests."""

from __future__ import annotations

import pickle
import sys
import tempfile
import traceback
from collections.abc import Callable
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any

import zygote as forking


class Ranks:
    """`size` processes, forked from the one at `address`; some of them, or all, are a team for the time of a call."""

    def __init__(self, size: int, address: str) -> None:
        self.pipes: list[Connection] = []
        self.processes: list[forking.Forked] = []
        with tempfile.TemporaryDirectory() as folder, Listener(f"{folder}/ranks") as listener, forking.in_use(address):
            for rank in range(size):
                code = f"import ranks; ranks.serve({rank}, {listener.address!r})"
                self.processes.append(forking.Forked([sys.executable, "-c", code]))
                self.pipes.append(listener.accept())

    def call(self, function: Callable[..., Any], meeting: Path, size: int, *arguments: Any) -> list[Any]:
        """What function(team, *arguments) gives in each process of a team that meets at a new file."""
        for pipe in self.pipes[:size]:
            _send(pipe, (function, str(meeting), size, arguments))
        answers = [pickle.loads(pipe.recv_bytes()) for pipe in self.pipes[:size]]
        for failed, answer in answers:
            assert not failed, answer
        return [answer for _, answer in answers]

    def end(self) -> None:
        for pipe in self.pipes:
            pipe.close()
        for process in self.processes:
            process.wait(10)


def _send(pipe: Connection, what: Any) -> None:
    pipe.send_bytes(pickle.dumps(what))  # `send` would share the memory of tensors among the processes


def serve(rank: int, address: str) -> None:
    import torch
    import torch.distributed as dist

    from engine.distributed.gloo import GlooProcessGroup

    torch.set_num_threads(1)
    pipe = Client(address)
    while True:
        try:
            function, meeting, size, arguments = pickle.loads(pipe.recv_bytes())
        except EOFError:
            return
        try:
            team = GlooProcessGroup(dist.FileStore(meeting, size), rank, size)
            answer = function(team, *arguments)
            team.leave()
            _send(pipe, (False, answer))
        except Exception:
            if dist.is_initialized():
                dist.destroy_process_group()  # the others notice
            _send(pipe, (True, traceback.format_exc()))
