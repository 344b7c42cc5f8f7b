"""Evaluation: the embedded benchmarks, the model as lm-eval sees it, and cached results per item."""
