"""How dreams are sampled.

Classes:
    SamplerConfig: settings that need no training again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from worldgen.config import Config, require

__all__ = ["SamplerConfig"]


@dataclass(frozen=True, kw_only=True)
class SamplerConfig(Config):
    """How a frame is sampled; may be changed without training again."""

    denoising_steps: int = 1
    """S, network passes a frame. In masked diffusion more than K is the same as K."""
    temperature: float = 1.0
    """Of the categorical draws; 0 takes the most likely token. In Gaussian diffusion it scales
    the noise that a frame starts from."""
    min_probability_ratio: float = 0.1
    """Tokens under this share of the most likely token's probability are never drawn, so that
    a long dream does not collect the tails of many sure predictions."""
    numbers: Literal["drawn", "mean"] = "drawn"
    """Masked diffusion, codes that stand for real numbers: drawn like all others, or the code
    nearest to the mean of what the network expects, without the scatter of its doubts. A world
    of chance is then dreamt as its mean."""
    order: Literal["random", "confidence"] = "random"
    """Masked diffusion: which tokens are kept first; by confidence tends to copy the previous
    frame."""
    frames_in_flight: int = 1
    """Frames that are made in one network pass, 1 or 2, where the actions are known in advance;
    2 needs a network that was trained for it (`DynamicsConfig.frames_in_flight`), and one
    denoising step."""
    flight_confidence: float = 0.9
    """A second frame whose most likely tokens are right with less than this probability is made
    again in a pass of its own, from the finished first one; 0 never does."""
    solver: Literal["euler", "heun"] = "euler"
    """Gaussian diffusion: Heun's steps are exacter, and each takes two network passes."""
    sigma_min: float = 0.1
    """Gaussian diffusion: noise level of the last pass; code vectors have unit variance (EDM:
    0.002, for pixels)."""
    sigma_max: float = 20.0
    """Gaussian diffusion: noise level that a frame starts from (EDM: 80)."""
    rho: float = 7.0
    """Gaussian diffusion: how closely the noise levels lie at the small end; as in EDM."""
    compiled: bool = False
    """Whether the network's layers go through `torch.compile`, which takes half a minute once a
    process, and on a CPU a C++ compiler. On two CPU cores it gains 5 to 9% with 256 rows and
    nothing with 64; on a GPU it has not been measured."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        require(self.denoising_steps >= 1, "denoising_steps", "be at least 1", self.denoising_steps)
        require(self.temperature >= 0, "temperature", "be at least 0", self.temperature)
        ratio = self.min_probability_ratio
        require(0 <= ratio <= 1, "min_probability_ratio", "be in [0, 1]", ratio)
        for name, values in (
            ("numbers", ("drawn", "mean")),
            ("order", ("random", "confidence")),
            ("solver", ("euler", "heun")),
        ):
            value = getattr(self, name)
            require(value in values, name, f"be {values[0]!r} or {values[1]!r}", value)
        flight = self.frames_in_flight
        require(flight in (1, 2), "frames_in_flight", "be 1 or 2", flight)
        single = flight == 1 or self.denoising_steps == 1
        steps = self.denoising_steps
        require(single, "denoising_steps", "be 1 with two frames in flight", steps)
        sure = self.flight_confidence
        require(0 <= sure <= 1, "flight_confidence", "be in [0, 1]", sure)
        require(self.sigma_min > 0, "sigma_min", "be over 0", self.sigma_min)
        require(self.sigma_max > self.sigma_min, "sigma_max", "be over sigma_min", self.sigma_max)
        require(self.rho > 0, "rho", "be over 0", self.rho)
