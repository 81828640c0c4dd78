"""What `dm`, `rnnprop` and `meta-lstm` share: an LSTM for each coordinate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from engine.base.settings import setting
from engine.optimizers.learned.base import LearnedOptimizer, Phi, State, uniform


@dataclass(frozen=True, kw_only=True, eq=False)
class CoordinatewiseLSTM(LearnedOptimizer):
    """What the LSTM members share: a stack of cells and a linear head. A member gives features and the output map."""

    coordinatewise: ClassVar[bool] = True

    layers: int = setting(2, minimum=1, maximum=8, help="LSTM layers")

    def lstm_phi(self, inputs: int, generator: Generator) -> Phi:
        """Weights U(±1/√H), as PyTorch; one bias for each gate: 1 for the forget gate, 0 for the others."""
        bound = 1 / math.sqrt(self.hidden)
        phi: Phi = {}
        for layer in range(self.layers):
            fan_in = inputs if layer == 0 else self.hidden
            phi[f"lstm{layer}.input"] = uniform((fan_in, 4 * self.hidden), bound, generator)
            phi[f"lstm{layer}.hidden"] = uniform((self.hidden, 4 * self.hidden), bound, generator)
            bias = torch.zeros(4, self.hidden)
            bias[1] = 1.0  # gates in the order input, forget, cell, output
            phi[f"lstm{layer}.bias"] = bias.flatten()
        phi["head.weight"] = uniform((self.hidden, 1), bound, generator)
        phi["head.bias"] = torch.zeros(1)
        return phi

    def lstm_state(self, theta: Tensor) -> State:
        zeros = theta.new_zeros(*theta.shape, self.hidden)
        return {f"lstm{layer}.{part}": zeros for layer in range(self.layers) for part in ("h", "c")}

    def lstm_step(self, phi: Phi, inputs: Tensor, state: State) -> tuple[Tensor, State]:
        """Run the stack and the head on inputs, shape [..., F]: outputs, shape [...], and the next state."""
        x, state = self.lstm_cells(phi, inputs, state)
        return torch.addmm(phi["head.bias"], x, phi["head.weight"]).reshape(inputs.shape[:-1]), state

    def lstm_cells(self, phi: Phi, inputs: Tensor, state: State) -> tuple[Tensor, State]:
        """Run the stack on inputs, shape [..., F]: its outputs for N coordinates, [N, H], and the next state."""
        shape = inputs.shape[:-1]
        x = inputs.reshape(-1, inputs.shape[-1])  # [N, F]
        new = dict(state)
        for layer in range(self.layers):
            h = state[f"lstm{layer}.h"].reshape(-1, self.hidden)
            c = state[f"lstm{layer}.c"].reshape(-1, self.hidden)
            gates = torch.addmm(phi[f"lstm{layer}.bias"], x, phi[f"lstm{layer}.input"])
            gates = torch.addmm(gates, h, phi[f"lstm{layer}.hidden"])  # [N, 4H]
            enter, forget, cell, leave = gates.chunk(4, dim=-1)
            c = forget.sigmoid() * c + enter.sigmoid() * cell.tanh()
            x = leave.sigmoid() * c.tanh()
            new[f"lstm{layer}.h"] = x.reshape(*shape, self.hidden)
            new[f"lstm{layer}.c"] = c.reshape(*shape, self.hidden)
        return x, new
