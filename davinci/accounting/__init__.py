"""Shapes, parameters, FLOPs, memory and accelerator peaks: plain arithmetic, no torch."""
