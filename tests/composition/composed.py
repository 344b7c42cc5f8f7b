"""A sweep of two arms, one of many, and a run as a command line composes it."""

from davinci.composition.compose import Composer, Line

SWEEP = """
question: Does depth matter?
factor: [depth]
baseline: raw
arms:
  raw: [depth=l1]
  filtered: [depth=l2]
seeds: [3, 5]
common: ['curriculum.stages.s2_2.tokens=${tokens:0.5}']
"""
GRID = """
question: What matters?
factor: [depth, optimizer.beta2, model.layers, optimizer.eps]
seeds: 'range(2)'
grid: {depth: [l1, l2], optimizer.beta2: [0.9, 0.95]}
zip: {model.layers: [1, 2], optimizer.eps: [1.0e-8, 1.0e-7]}
"""


def run_of(conf, *overrides):
    return Composer(conf).run([Line(text, "here") for text in overrides], sweep="test")
