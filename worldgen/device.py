"""Where the computation runs, and in which precision."""

from __future__ import annotations

from typing import Literal

import torch

from worldgen.errors import ConfigError

__all__ = ["Precision", "resolve_device", "resolve_precision"]

Precision = Literal["auto", "float32", "bfloat16"]


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """Turn "auto" into CUDA when there is one, else the CPU; other names are checked.

    Raises:
        ConfigError: If the device's name is unknown or this machine does not have it.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
        torch.empty(0, device=resolved)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"`device` must be 'auto', 'cpu' or a device of this machine, got {device!r}: {error}"
        ) from error
    return resolved


def resolve_precision(precision: Precision, device: torch.device) -> torch.dtype:
    """Turn "auto" into bfloat16 where the processor multiplies matrices in it, else float32.

    Raises:
        ConfigError: If the name is unknown.
    """
    if precision not in ("auto", "float32", "bfloat16"):
        raise ConfigError(f"`precision` must be 'auto', 'float32' or 'bfloat16', got {precision!r}")
    if precision != "auto":
        return torch.bfloat16 if precision == "bfloat16" else torch.float32
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    capability = torch.backends.cpu.get_cpu_capability() if device.type == "cpu" else ""
    fast = capability.startswith("AVX512") and torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if fast else torch.float32
