"""How much of a sound comes back from the tokens of a waveform.

    python -m benchmarks.waveform    # three sizes of tokenizer, about 5 minutes on one core

One tokenizer a size learns from tones, chirps and spoken words together, and is measured on
sounds of other seeds. The signal-to-noise ratio is 10 log10(energy of the sounds / energy of
the errors), over all held-out sounds of a kind; its median is over single observations that
are not silent.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from gymnasium import spaces
from numpy.typing import NDArray

from benchmarks.results import markdown_table, one_line_errors, provenance, write_json
from benchmarks.sounds import RATE, WORDS, chirps, tones, words, write_wav
from worldgen import Tokenizer, TokenizerConfig
from worldgen.tokenizer import QuantizerConfig

__all__ = ["SIZES", "Config", "Size", "main"]

_HELD_OUT = 1_000_000
"""Added to a seed for held-out data."""
_SILENT = 0.01
"""An observation with less than this share of the loudest one's energy is silence."""

_NOTE = """
Signal-to-noise ratio over all held-out sounds of a kind, at 8,000 samples a second. To judge by
ear, a dozen held-out words: [as they were](waveform_words_original.wav), from the tokens of
[default](waveform_words_default.wav), of [more codes](waveform_words_more_codes.wav) and of
[more tokens](waveform_words_more_tokens.wav).
"""

Waves = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Size:
    """How many tokens an observation has, and how much each of them tells."""

    tokens: int = 64
    residuals: int = 4
    num_codes: int = 512


SIZES = {
    "default": Size(),
    "more codes": Size(num_codes=2048),
    "more tokens": Size(tokens=128, residuals=8),
}


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to measure."""

    sizes: tuple[str, ...] = tuple(SIZES)
    """Names in `SIZES`."""
    seeds: tuple[int, ...] = (0,)
    """Of sounds, weights and batches; each is a run of its own."""
    samples: int = 1024
    """Samples of an observation, at 8,000 a second."""
    word_samples: int = 4096
    """Samples of a word, cut into observations; a multiple of `samples`."""
    tones: int = 1500
    """Tones to learn from; there are half as many chirps."""
    words: int = 600
    """Words to learn from."""
    held_out_share: float = 0.25
    """Held-out sounds, as a share of those to learn from."""
    gradient_steps: int = 300
    """Gradient steps of the training."""
    output: Path = Path("docs/benchmarks")
    """Folder of waveform.json, waveform.md and the .wav files."""

    def __post_init__(self) -> None:
        """Check the names and lengths."""
        unknown = sorted(set(self.sizes) - set(SIZES))
        if unknown:
            raise SystemExit(f"`sizes` must be among {', '.join(SIZES)}, got {unknown}")
        if self.word_samples % self.samples:
            raise SystemExit(
                f"`word_samples` must be a multiple of `samples` ({self.samples}), "
                f"got {self.word_samples}"
            )


def main(config: Config) -> dict[str, Any]:
    """Measure each size and seed, and write JSON, table and sounds."""
    config.output.mkdir(parents=True, exist_ok=True)
    runs = [_run(config, name, seed) for name in config.sizes for seed in config.seeds]
    result = {"provenance": provenance(), "rate": RATE, "samples": config.samples, "runs": runs}
    write_json(config.output / "waveform.json", result)
    table = _table(runs)
    (config.output / "waveform.md").write_text(f"{table}\n{_NOTE}")
    print(table)
    return result


def signal_to_noise(sounds: Waves, decoded: Waves) -> float:
    """Give the ratio of the sounds' energy to the errors', in dB."""
    noise = float(np.square(decoded.astype(np.float64) - sounds).sum())
    return 10 * math.log10(float(np.square(sounds.astype(np.float64)).sum()) / max(noise, 1e-12))


def _run(config: Config, name: str, seed: int) -> dict[str, Any]:
    size = SIZES[name]
    seen = _sounds(config, seed, 1.0)
    unseen = _sounds(config, seed + _HELD_OUT, config.held_out_share)
    settings = TokenizerConfig(
        quantizer=QuantizerConfig(num_codes=size.num_codes),
        max_waveform_tokens=size.tokens,
        waveform_residuals=size.residuals,
    )
    space = spaces.Box(-1, 1, (config.samples,))
    tokenizer = Tokenizer.for_space(space, settings, seed=seed)
    start = time.perf_counter()
    tokenizer.fit(
        np.concatenate(list(seen.values())), gradient_steps=config.gradient_steps, seed=seed
    )
    seconds = time.perf_counter() - start
    if seed == config.seeds[0]:
        _write_sounds(config, name, tokenizer)
    bits = float(np.log2(tokenizer.token_nvec).sum())
    return {
        "size": name,
        "seed": seed,
        "tokenizer": settings.to_dict(),
        "tokens": tokenizer.num_tokens,
        "bits_per_second": bits * RATE / config.samples,
        "training_observations": sum(map(len, seen.values())),
        "training_seconds": seconds,
        **_measured(tokenizer, unseen),
    }


def _sounds(config: Config, seed: int, share: float) -> dict[str, Waves]:
    """Give observations (B, samples) of each kind of sound."""
    generator = np.random.default_rng(seed)
    num_tones, num_words = int(config.tones * share), int(config.words * share)
    return {
        "tones": tones(num_tones, config.samples, generator),
        "chirps": chirps(num_tones // 2, config.samples, generator),
        "words": words(num_words, config.word_samples, generator).reshape(-1, config.samples),
    }


def _measured(tokenizer: Tokenizer, sounds: Mapping[str, Waves]) -> dict[str, Any]:
    ratios, medians, seconds = {}, {}, 0.0
    for kind, waves in sounds.items():
        start = time.perf_counter()
        decoded = tokenizer.decode(tokenizer.encode(waves))
        seconds += time.perf_counter() - start
        ratios[kind] = signal_to_noise(waves, decoded)
        energy = np.square(waves).sum(1)
        heard = (energy > _SILENT * energy.max()).nonzero()[0]
        medians[kind] = float(
            np.median([signal_to_noise(waves[index], decoded[index]) for index in heard])
        )
    count = sum(map(len, sounds.values()))
    return {"snr_db": ratios, "median_snr_db": medians, "observations_per_second": count / seconds}


def _write_sounds(config: Config, name: str, tokenizer: Tokenizer) -> None:
    """Write each word once, as it was and as it comes back."""
    generator = np.random.default_rng(_HELD_OUT - 1)
    spoken = [words(1, config.word_samples, generator, word) for word in WORDS]
    cut = np.concatenate(spoken).reshape(-1, config.samples)
    write_wav(config.output / "waveform_words_original.wav", cut)
    path = config.output / f"waveform_words_{name.replace(' ', '_')}.wav"
    write_wav(path, tokenizer.decode(tokenizer.encode(cut)))


def _table(runs: list[dict[str, Any]]) -> str:
    header = ("size", "seed", "tokens", "kbit/s", "tones", "chirps", "words", "training")
    rows = [
        (
            run["size"],
            str(run["seed"]),
            str(run["tokens"]),
            f"{run['bits_per_second'] / 1000:.1f}",
            *(f"{run['snr_db'][kind]:.1f} dB" for kind in ("tones", "chirps", "words")),
            f"{run['training_seconds']:.0f} s",
        )
        for run in runs
    ]
    return markdown_table(header, rows)


if __name__ == "__main__":
    with one_line_errors():
        main(tyro.cli(Config))
