"""What is measured along a run: held-out loss of the weights and of their average, and the noise of the gradient where it is asked for."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from scaling.config import RunConfig
from scaling.lm.mesh import Placement
from scaling.lm.noise_scale import Found, NoiseMeter
from scaling.lm.step import State, eval_program, shape_of
from scaling.settle import EVAL_SEQUENCES
from scaling.tasks import Task, val_batches


class Examiner:
    """Measures any state of runs of one shape on the same held-out windows (M, B, T + 1)."""

    def __init__(self, run: RunConfig, task: Task, place: Placement) -> None:
        self._program = eval_program(shape_of(run), place.how)
        self._windows = place.tokens(np.stack(list(val_batches(task, EVAL_SEQUENCES, run.evals.tokens))))
        self._bytes_per_token = task.bytes_per_token
        self._meter = NoiseMeter(run, task, place) if run.evals.noise_scale else None

    def loss(self, params: Any, name: str = "loss") -> Found:
        """Held-out loss in nats per token with its standard error over windows."""
        nll = np.asarray(self._program(params, self._windows), np.float64).ravel()
        return [(name, float(nll.mean()), float(nll.std(ddof=1) / math.sqrt(nll.size)) if nll.size > 1 else None)]

    def examine(self, state: State) -> Found:
        """The loss, bits per byte where bytes are known, and the loss of the averaged weights where there are some."""
        found = self.loss(state.params)
        if self._bytes_per_token:
            scale = 1.0 / (math.log(2.0) * self._bytes_per_token)
            (_, value, stderr), *_ = found
            found.append(("bpb", value * scale, stderr * scale if stderr else None))
        return found + self._averaged(state)

    def noise(self, state: State, run: RunConfig) -> Found:
        """The gradient noise scale of `run`'s objective on training sequences, where it is asked for."""
        return self._meter.measure(state.params, run.optim.z_loss) if self._meter else []

    def read_out(self, state: State) -> Found:
        """What a trunk says at the budget of a branch, without cooling down: its loss at the constant rate, and of the average."""
        return self.loss(state.params, "constant_loss") + self._averaged(state)

    def _averaged(self, state: State) -> Found:
        return self.loss(state.average, "averaged_loss") if state.average != () else []
