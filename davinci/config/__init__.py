"""The typed, frozen, validated run: the one object everything below Hydra takes.

Every class forbids unknown keys. `parse` turns plain data into objects and any mistake into one `UserError` that names
the key, the file it was set in and what is accepted. Units: tokens are counted from initialisation unless a field says
otherwise; proportions are fractions of 1; learning rates are absolute.
"""

from davinci.config.adaptive import Adapt, Until
from davinci.config.base import Frozen, NotNegative, NotNegativeFloat, Positive, PositiveFloat
from davinci.config.curriculum import Averages, BatchStep, Curriculum, MixtureStep, Stage
from davinci.config.evaluation import Benchmark, Evaluation, EvaluationPoint, Probes, asked
from davinci.config.learning_rate import LearningRate, LearningRatePiece
from davinci.config.model import Mixer, Model, Optimizer, Pretrained, RopeScaling
from davinci.config.node import Node, SourceUse
from davinci.config.parsing import parse
from davinci.config.placement import Cluster, Execution, Tracking
from davinci.config.pool import PROPORTION_TOLERANCE, Depth, Level, Licence, Mixture, Pool, Source
from davinci.config.run import Run, Scale

__all__ = [
    "PROPORTION_TOLERANCE",
    "Adapt",
    "Averages",
    "BatchStep",
    "Benchmark",
    "Cluster",
    "Curriculum",
    "Depth",
    "Evaluation",
    "EvaluationPoint",
    "Execution",
    "Frozen",
    "LearningRate",
    "LearningRatePiece",
    "Level",
    "Licence",
    "Mixer",
    "Mixture",
    "MixtureStep",
    "Model",
    "Node",
    "NotNegative",
    "NotNegativeFloat",
    "Optimizer",
    "Pool",
    "Positive",
    "PositiveFloat",
    "Pretrained",
    "Probes",
    "RopeScaling",
    "Run",
    "Scale",
    "Source",
    "SourceUse",
    "Stage",
    "Tracking",
    "Until",
    "asked",
    "parse",
]
