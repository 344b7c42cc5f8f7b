"""Peak throughput and power of accelerators, for the cost of a plan and an estimate of its energy."""

from __future__ import annotations

import re
from itertools import pairwise

from davinci.errors import UserError, nearest

# FLOP/s of one accelerator: bfloat16 (float16 where there is none) in matrix units, accumulated in float32, dense: data
# sheets that quote structured sparsity are halved. Sources: the makers' data sheets, except where named.
PEAK_FLOPS = {
    # float32, nominal, no data sheet: two 256-bit FMA units at 3 GHz, 2 x 8 lanes x 2 x 3e9, rounded.
    "cpu_core": 1.0e11,
    "v100": 1.25e14,  # float16; SXM2, NVIDIA V100 data sheet
    "a10": 1.25e14,
    "a30": 1.65e14,
    "a40": 1.497e14,
    "a100": 3.12e14,
    "l4": 1.21e14,
    "l40s": 3.62e14,
    "rtx3090": 7.1e13,  # NVIDIA GA102 architecture white paper
    "rtx4090": 1.652e14,  # NVIDIA Ada architecture white paper
    "h100": 9.89e14,  # SXM
    "h100_pcie": 7.56e14,
    "h200": 9.89e14,
    "gh200": 9.9e14,
    "b200": 2.25e15,  # an eighth of the DGX B200's
    "gb200": 2.5e15,  # one of the superchip's two; GB200 NVL72 data sheet
    "mi250x": 3.83e14,  # both dies
    "mi300x": 1.307e15,
    "mi325x": 1.307e15,
    "tpu_v4": 2.75e14,  # one chip; this and the following: Google Cloud TPU documentation
    "tpu_v5e": 1.97e14,
    "tpu_v5p": 4.59e14,
    "tpu_v6e": 9.18e14,
}

ASSUMED = "assumed"

# Watts of one accelerator at full load, and where that is from: the thermal design power of the form factor above. What
# was not looked up is assumed. Hosts are not in it unless said; TPUs without published power are left out.
WATTS = {
    "cpu_core": (10.0, f"{ASSUMED}, nominal: a core's share of a server processor and its memory"),
    "v100": (300.0, ASSUMED),
    "a10": (150.0, ASSUMED),
    "a30": (165.0, ASSUMED),
    "a40": (300.0, "NVIDIA A40 product brief PB-09976-001"),
    "a100": (400.0, "NVIDIA A100 data sheet, SXM4"),
    "l4": (72.0, "NVIDIA L4 data sheet"),
    "l40s": (350.0, "NVIDIA L40S data sheet"),
    "rtx3090": (350.0, ASSUMED),
    "rtx4090": (450.0, ASSUMED),
    "h100": (700.0, "NVIDIA H100 data sheet, SXM5"),
    "h100_pcie": (350.0, "NVIDIA H100 data sheet, PCIe"),
    "h200": (700.0, "NVIDIA H200 data sheet, SXM"),
    "gh200": (1000.0, "NVIDIA GH200 data sheet, the whole superchip at its highest setting"),
    "b200": (1000.0, "NVIDIA Blackwell architecture brief, HGX B200"),
    "gb200": (1200.0, "NVIDIA Blackwell architecture brief, GB200, one GPU of two"),
    "mi250x": (560.0, "AMD Instinct MI250X data sheet, peak"),
    "mi300x": (750.0, "AMD Instinct MI300X data sheet, peak"),
    "mi325x": (1000.0, ASSUMED),
    "tpu_v4": (192.0, "the highest measured, arXiv 2304.01433, table 4"),
}


def peak_flops(name: str) -> float:
    """Peak FLOP/s of one accelerator.

    Raises:
        UserError: for a name that is not in the table, with the nearest ones.
    """
    if name not in PEAK_FLOPS:
        raise UserError(f"cluster.gpu: unknown accelerator {name!r}{nearest(name, PEAK_FLOPS)}")
    return PEAK_FLOPS[name]


def known_peak(device: str) -> float | None:
    """Peak FLOP/s of the accelerator that a driver calls `device` (``NVIDIA H100 80GB HBM3``); None for one that is not
    in the table, or only in another form factor."""
    words = re.findall(r"[a-z0-9]+", device.lower())
    joined = {*words, *(first + second for first, second in pairwise(words))}
    if joined & {"nvl", "laptop", "max", "mobile"}:
        return None
    name = "h100_pcie" if {"h100", "pcie"} <= joined else max(joined & PEAK_FLOPS.keys(), key=len, default="")
    return PEAK_FLOPS.get(name)
