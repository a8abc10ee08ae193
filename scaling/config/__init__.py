"""All configuration, as frozen models: a sweep file becomes a `Sweep`, the planner turns it into
`RunConfig`s.

Every mistake of a file is reported at once. Where and how a run is executed is not configuration of
the run, so its `run_id` does not depend on it. No numpy and no jax in this package.
"""

from scaling.config.base import Count, FlopsConvention, Frozen, NConvention, Precision, finite
from scaling.config.design import (
    Axis,
    Design,
    EpochsDesign,
    GridDesign,
    IsoflopDesign,
    LadderDesign,
    ListDesign,
    ListedCell,
)
from scaling.config.execution import Execution, MeshShape
from scaling.config.model import ModelConfig, MuP
from scaling.config.optim import EvalConfig, EvalSet, OptimConfig
from scaling.config.recipe import PowerRule, Recipe
from scaling.config.run import RunConfig
from scaling.config.sweep import Base, Forecast, Replicates, Sweep, Tuning
from scaling.config.task import (
    ArithmeticTask,
    InductionTask,
    ModularTask,
    RegressionTask,
    SyntheticTask,
    TaskConfig,
    TextTask,
)
