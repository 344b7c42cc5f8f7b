"""Shapes, parameters, FLOPs, storage, accelerator peaks, power of a comparison: plain arithmetic, no torch."""
