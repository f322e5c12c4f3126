"""How good a world model is: numbers on held-out episodes, and films to look at."""

from __future__ import annotations

from worldgen.evaluation.calibration import CalibrationReport, calibrate
from worldgen.evaluation.code_atlas import write_code_atlas
from worldgen.evaluation.fidelity import evaluate
from worldgen.evaluation.fidelity_folder import write_fidelity
from worldgen.evaluation.film import Film, best_moment, dream_film, dream_strip
from worldgen.evaluation.paired_dream import PairedDream, dream_along
from worldgen.evaluation.report import (
    Agreement,
    EventFidelity,
    FidelityReport,
    HorizonFidelity,
    TokenFidelity,
)
from worldgen.evaluation.sampler_comparison import SamplerComparison, compare_samplers
from worldgen.evaluation.token_film import token_film, token_frame

__all__ = [
    "Agreement",
    "CalibrationReport",
    "EventFidelity",
    "FidelityReport",
    "Film",
    "HorizonFidelity",
    "PairedDream",
    "SamplerComparison",
    "TokenFidelity",
    "best_moment",
    "calibrate",
    "compare_samplers",
    "dream_along",
    "dream_film",
    "dream_strip",
    "evaluate",
    "token_film",
    "token_frame",
    "write_code_atlas",
    "write_fidelity",
]
