"""What a tokenizer's codes stand for and how often they are used, in numbers and pictures."""

from __future__ import annotations

from worldgen.inspection.code_log import log_codes
from worldgen.inspection.code_pictures import atlas_pages, code_cards
from worldgen.inspection.code_usage import CodebookUsage, CodeUsage, LeafUsage, measure_codes

__all__ = [
    "CodeUsage",
    "CodebookUsage",
    "LeafUsage",
    "atlas_pages",
    "code_cards",
    "log_codes",
    "measure_codes",
]
