"""What a tokenizer's codes stand for and how often they are used, in numbers and pictures."""

from __future__ import annotations

from worldgen.inspection.code_log import log_codes
from worldgen.inspection.code_pictures import CodeCard, atlas_pages, code_cards
from worldgen.inspection.code_usage import CodebookUsage, CodeUsage, LeafUsage, measure_codes
from worldgen.inspection.patch_layout import patch_layout

__all__ = [
    "CodeCard",
    "CodeUsage",
    "CodebookUsage",
    "LeafUsage",
    "atlas_pages",
    "code_cards",
    "log_codes",
    "measure_codes",
    "patch_layout",
]
