"""Peak dense throughput of accelerators, for the cost of a plan."""

from __future__ import annotations

from davinci.errors import UserError, nearest

# FLOP/s, dense (no sparsity), bf16 unless said. Sources: the vendors' data sheets.
PEAK_FLOPS = {
    "cpu_core": 1.0e11,  # fp32, a server core with two 256-bit FMA units at 3 GHz: 2 x 8 x 2 x 3e9, rounded
    "v100": 1.25e14,  # fp16, NVIDIA V100 data sheet
    "a100": 3.12e14,  # NVIDIA A100 data sheet
    "l40s": 3.62e14,  # NVIDIA L40S data sheet
    "h100": 9.89e14,  # SXM, NVIDIA H100 data sheet (1,979 with sparsity)
    "h200": 9.89e14,  # NVIDIA H200 data sheet
    "b200": 2.25e15,  # NVIDIA Blackwell data sheet
    "mi300x": 1.307e15,  # AMD Instinct MI300X data sheet
}


def peak_flops(name: str) -> float:
    """Peak FLOP/s of one accelerator.

    Raises:
        UserError: for a name that is not in the table, with the nearest ones.
    """
    if name not in PEAK_FLOPS:
        raise UserError(f"cluster.gpu: unknown accelerator {name!r}{nearest(name, PEAK_FLOPS)}")
    return PEAK_FLOPS[name]
