"""How often dreams are exactly right, for each way to sample them with one trained model.

    python -m benchmarks.samplers MODEL EPISODES

MODEL is a model folder and EPISODES a folder of held-out episodes of a world of symbols. Dreams
are open loop: they start from real contexts and are given the real actions. Writes
samplers-NAME.json and samplers-NAME.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro

from benchmarks.results import markdown_table, one_line_errors, provenance, write_json
from worldgen import WorldModel
from worldgen.data import Episodes
from worldgen.diffusion.sampler_config import SamplerConfig
from worldgen.evaluation.comparison import frame_right, leaf_kinds
from worldgen.evaluation.events import reward_threshold, rewards_right
from worldgen.evaluation.moments import Truth
from worldgen.spaces import flatten

__all__ = ["Config", "main"]


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to measure."""

    model: Annotated[Path, tyro.conf.Positional]
    """Folder of a trained model."""
    episodes: Annotated[Path, tyro.conf.Positional]
    """Folder of held-out episodes."""
    horizons: tuple[int, ...] = (1, 5, 15, 30)
    """In environment steps."""
    num_dreams: int = 512
    """Dreams of each sampler, all from the same moments."""
    seed: int = 0
    """Of the moments and the draws."""
    name: str = "doorkey-6x6"
    """Of the files."""
    output: Path = Path("docs/benchmarks")
    """Their folder."""


def samplers(model: WorldModel) -> list[SamplerConfig]:
    """List the samplers that a model can be dreamed with."""
    dynamics = model.config.dynamics
    found = [SamplerConfig(), SamplerConfig(temperature=0.0)]
    found += [SamplerConfig(denoising_steps=steps) for steps in (2, 3, 4, 8)]
    if dynamics.process == "gaussian":
        found += [SamplerConfig(denoising_steps=steps, solver="heun") for steps in (4, 8)]
    if dynamics.frames_in_flight > 1:
        found += [
            SamplerConfig(frames_in_flight=2, flight_confidence=sure, temperature=temperature)
            for sure in (0.0, 0.5, 0.9, 0.99)
            for temperature in (1.0, 0.0)
        ]
    return found


def main(config: Config) -> dict[str, Any]:
    """Measure, print and write."""
    torch.set_num_threads(1)
    model = WorldModel.load(config.model)
    episodes = Episodes.load(config.episodes)
    bench = _Bench(model, episodes, config)
    rows = []
    for sampler in samplers(model):
        rows.append({"sampler": _changed(sampler), **bench.measure(sampler)})
        print(rows[-1], flush=True)
    result = {
        "provenance": provenance(),
        "dynamics": model.config.dynamics.to_dict(),
        "num_dreams": len(bench.starts),
        "rows": rows,
    }
    config.output.mkdir(parents=True, exist_ok=True)
    write_json(config.output / f"samplers-{config.name}.json", result)
    header = ["sampler", "passes a frame", *(f"exact {h}" for h in config.horizons)]
    table = markdown_table(
        header,
        [
            [
                row["sampler"],
                f"{row['passes']:.2f}",
                *(f"{100 * share:.1f}%" for share in row["exact"]),
            ]
            for row in rows
        ],
    )
    (config.output / f"samplers-{config.name}.md").write_text(table + "\n")
    print(table)
    return result


def _changed(sampler: SamplerConfig) -> str:
    default = SamplerConfig().to_dict()
    parts = [f"{k}={v}" for k, v in sampler.to_dict().items() if v != default[k]]
    return ", ".join(parts) or "default"


class _Bench:
    def __init__(self, model: WorldModel, episodes: Episodes, config: Config) -> None:
        self.model, self.config = model, config
        self.truth = truth = Truth(episodes)
        self.dataset = model.dataset(episodes)
        self.kinds = leaf_kinds(model.observation_space, model.tokenizer.config.modalities)
        self.threshold = reward_threshold(truth.rewards)
        left = truth.last - np.arange(len(truth.last))
        possible = (left > 0) & (truth.known_end | (left >= max(config.horizons)))
        random = np.random.default_rng(config.seed)
        candidates = np.flatnonzero(possible)
        count = min(config.num_dreams, len(candidates))
        self.starts = random.choice(candidates, count, replace=False)

    def measure(self, sampler: SamplerConfig) -> dict[str, Any]:
        """Dream all dreams in one batch."""
        truth, starts = self.truth, self.starts
        context = self.dataset.contexts_at(
            torch.from_numpy(truth.episode[starts]), torch.from_numpy(truth.frame[starts])
        )
        engine = self.model.imagination(len(starts), sampler=sampler, seed=self.config.seed)
        engine.reset(context)
        longest = max(self.config.horizons)
        steps = np.arange(1, longest + 1)
        index = np.minimum(starts[:, None] + steps, truth.last[starts][:, None])
        actions = self.model.encode_actions(truth.actions[index])
        dreamed = engine.roll(actions)
        right = np.ones(len(starts), bool)
        shares = {}
        for step, imagined in enumerate(dreamed, start=1):
            reached = starts + step <= truth.last[starts]
            right &= ~reached | self._right(index[:, step - 1], imagined)
            shares[step] = float(right.mean())
        return {
            "passes": engine.network_passes / longest,
            "exact": [shares[horizon] for horizon in self.config.horizons],
        }

    def _right(self, index: np.ndarray, imagined: Any) -> np.ndarray:
        frames = flatten(self.model.observation_space, self.model.decode(imagined.tokens))
        right = frame_right(self.kinds, frames, self.truth.at(index))
        paid = rewards_right(imagined.reward.numpy(), self.truth.rewards[index], self.threshold)
        ended = imagined.terminated.numpy() == self.truth.terminated[index]
        both: np.ndarray = paid & ended
        return both if right is None else both & right


if __name__ == "__main__":
    with one_line_errors():
        main(tyro.cli(Config))
