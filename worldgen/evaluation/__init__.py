"""How good a world model is: numbers on held-out episodes, and films to look at."""

from __future__ import annotations

from worldgen.evaluation.fidelity import evaluate
from worldgen.evaluation.film import Film, best_moment, dream_film, dream_strip
from worldgen.evaluation.paired_dream import PairedDream, dream_along
from worldgen.evaluation.report import (
    Agreement,
    EventFidelity,
    FidelityReport,
    HorizonFidelity,
)

__all__ = [
    "Agreement",
    "EventFidelity",
    "FidelityReport",
    "Film",
    "HorizonFidelity",
    "PairedDream",
    "best_moment",
    "dream_along",
    "dream_film",
    "dream_strip",
    "evaluate",
]
