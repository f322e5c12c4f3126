"""How good dreams are by the number of their denoising steps.

Classes:
    SamplerComparison: the horizons of the same dreams, for each number.

Functions:
    compare_samplers: make those dreams.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worldgen.checkpoint import write_json
from worldgen.config import require
from worldgen.evaluation.fidelity import Measurement, check_arguments
from worldgen.evaluation.moments import choose_starts
from worldgen.evaluation.open_loop import OpenLoop
from worldgen.evaluation.report import HorizonFidelity, percent
from worldgen.progress import Progress

if TYPE_CHECKING:
    from worldgen.data.episodes import Episodes
    from worldgen.diffusion.masked_diffusion import SamplerConfig
    from worldgen.world_model import WorldModel

__all__ = ["SamplerComparison", "compare_samplers"]


@dataclass(frozen=True, kw_only=True)
class SamplerComparison:
    """Dreams from the same moments with the same actions. Holds no time and no path."""

    num_tokens: int
    """K, tokens of a frame; as many denoising steps draw them one by one."""
    num_dreams: int
    """Dreams in all, for each number of denoising steps."""
    seed: int
    sampler: dict[str, Any]
    """The other settings, which all of them share."""
    by_denoising_steps: dict[int, tuple[HorizonFidelity, ...]]
    """S -> its horizons."""

    def to_dict(self) -> dict[str, Any]:
        """Give plain JSON values."""
        values = dataclasses.asdict(self)
        values["by_denoising_steps"] = {
            str(number): [dataclasses.asdict(entry) for entry in entries]
            for number, entries in self.by_denoising_steps.items()
        }
        return values

    def save(self, path: str | Path) -> None:
        """Write the comparison as JSON, replacing one that is there."""
        write_json(Path(path), self.to_dict())

    def __str__(self) -> str:
        """Lay the comparison out as a table."""
        entries = next(iter(self.by_denoising_steps.values()))
        header = "".join(f"{entry.horizon:>9}" for entry in entries)
        lines = [
            f"{self.main_share}, by denoising steps (down) and horizon (across); "
            f"{self.num_dreams} dreams each",
            f"{'':>6}{header}",
        ]
        for number, found in self.by_denoising_steps.items():
            cells = [_cell(self.main_value(entry), self.main_share) for entry in found]
            lines.append(f"{number:>6}" + "".join(f"{cell:>9}" for cell in cells))
        return "\n".join(lines)

    @property
    def main_share(self) -> str:
        """What the table shows: exactness where it is defined, else R2, PSNR or rewards."""
        entries = [e for found in self.by_denoising_steps.values() for e in found]
        if any(entry.exact is not None for entry in entries):
            return "dreams exactly right so far"
        if any(entry.agreement.r2 for entry in entries):
            return "R2, lowest of all vectors"
        if any(entry.agreement.psnr for entry in entries):
            return "PSNR in dB, lowest of all pictures"
        return "dreams with every reward right so far"

    def main_value(self, entry: HorizonFidelity) -> float | None:
        """Give what `main_share` names, of one horizon."""
        name = self.main_share
        if name.startswith("dreams exactly"):
            return entry.exact
        if name.startswith("R2"):
            return min(entry.agreement.r2.values(), default=None)
        if name.startswith("PSNR"):
            return min(entry.agreement.psnr.values(), default=None)
        return entry.rewards


def compare_samplers(
    model: WorldModel,
    held_out: Episodes,
    *,
    denoising_steps: Sequence[int] | None = None,
    horizons: Sequence[int] = (1, 5, 10, 15, 30),
    num_dreams: int = 256,
    sampler: SamplerConfig | None = None,
    seed: int = 0,
    progress: bool = True,
) -> SamplerComparison:
    """Dream the same moments with several numbers of denoising steps.

    Args:
        model: Trained.
        held_out: Its environment's episodes.
        denoising_steps: Network passes a frame; by default 1, 2, 3, 4 and K, one token a pass.
        horizons: In environment steps.
        num_dreams: Most open-loop dreams of a horizon.
        sampler: All other settings; the model's own by default.
        seed: Of moments and draws.
        progress: Show a progress bar.

    Raises:
        ConfigError: If a horizon or a number is below 1.
        SpaceError: If the episodes do not fit the model.
        DatasetError: If there is no episode.
    """
    horizons = tuple(sorted(set(horizons)))
    check_arguments(model, held_out, horizons, num_dreams)
    most = model.tokenizer.num_tokens
    wanted = denoising_steps or (1, 2, 3, 4, most)
    require(min(wanted) >= 1, "denoising_steps", "all be at least 1", tuple(wanted))
    measurement = Measurement(model, held_out, sampler, seed)
    base = sampler or model.config.sampler
    numbers = sorted({min(number, most) for number in wanted})
    starts = choose_starts(measurement.truth, horizons, num_dreams, measurement.random)
    found = {}
    total = len(numbers) * OpenLoop.num_steps(starts)
    with Progress("compare samplers", total, enabled=progress, unit="imagined env steps") as bar:
        for number in numbers:
            measurement.sampler = dataclasses.replace(base, denoising_steps=number)
            found[number] = measurement.open_loop(starts, bar)
    return SamplerComparison(
        num_tokens=most,
        num_dreams=len(starts.frames),
        seed=seed,
        sampler=base.to_dict(),
        by_denoising_steps=found,
    )


def _cell(value: float | None, name: str) -> str:
    if value is None:
        return "-"
    return percent(value) if name.startswith("dreams") else f"{value:.3f}"
