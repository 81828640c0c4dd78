"""Processes that work as a team, started once for many tests: to import torch takes longer than most of them."""

from __future__ import annotations

import multiprocessing
import pickle
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any


class Ranks:
    """`size` processes; some of them, or all, can be a team for the time of one call."""

    def __init__(self, size: int) -> None:
        context = multiprocessing.get_context("forkserver")
        modules = ["torch", "torch.distributed", "engine.meta_training.meta_train", "engine.distributed.gloo"]
        context.set_forkserver_preload(modules)
        self.pipes: list[Connection] = []
        self.processes = []
        for rank in range(size):
            ours, theirs = context.Pipe()
            self.pipes.append(ours)
            self.processes.append(context.Process(target=_serve, args=(rank, theirs), daemon=True))
            self.processes[-1].start()

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
            process.join(10)


def _send(pipe: Connection, what: Any) -> None:
    pipe.send_bytes(pickle.dumps(what))  # `send` would share the memory of tensors among the processes


def _serve(rank: int, pipe: Connection) -> None:
    import torch
    import torch.distributed as dist

    from engine.distributed.gloo import GlooProcessGroup

    torch.set_num_threads(1)
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
