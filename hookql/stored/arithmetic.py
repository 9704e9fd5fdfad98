"""How this process computes: whatever of torch's settings and of the machine rounds otherwise."""

from __future__ import annotations

import json
import os
import platform
from typing import Any

import torch

# Libraries that torch calls read how to compute from variables of these names.
_PREFIXES = (
    *("MKL_", "ONEDNN_", "DNNL_", "OMP_", "KMP_", "GOMP_", "ATEN_", "TORCH", "PYTORCH_"),
    *("CUDA_", "CUBLAS", "CUDNN_", "NVIDIA_", "OPENBLAS_", "HOOKQL_NUMERIC"),
)


def arithmetic(device: torch.device) -> str:
    """The settings as JSON: equal ones give equal numbers for equal models and data."""
    backends: Any = torch.backends  # without types
    found: dict[str, Any] = {
        "machine": platform.machine(),
        "system": platform.system(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "default dtype": str(torch.get_default_dtype()),
        "matmul precision": torch.get_float32_matmul_precision(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "flushes denormals": (torch.tensor([1e-310], dtype=torch.float64) * 0.5).item() == 0.0,
        "mkldnn": torch.backends.mkldnn.enabled,
        "autocast": [_autocast(kind) for kind in ("cpu", "cuda")],
        "attention kernels": [
            backends.cuda.flash_sdp_enabled(),
            backends.cuda.mem_efficient_sdp_enabled(),
            backends.cuda.math_sdp_enabled(),
            backends.cuda.cudnn_sdp_enabled(),
        ],
        "variables": {n: v for n, v in sorted(os.environ.items()) if n.startswith(_PREFIXES)},
    }
    if device.type == "cuda":
        cuda, cudnn = backends.cuda.matmul, backends.cudnn
        found["gpu"] = [
            torch.cuda.get_device_name(device),
            str(torch.version.cuda),
            cudnn.version(),
            [cudnn.enabled, cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32],
            [
                cuda.allow_tf32,
                cuda.allow_fp16_reduced_precision_reduction,
                cuda.allow_bf16_reduced_precision_reduction,
            ],
        ]
    return json.dumps(found)


def _autocast(kind: str) -> str:
    enabled = torch.is_autocast_enabled(kind)
    return str(torch.get_autocast_dtype(kind)) if enabled else "off"
