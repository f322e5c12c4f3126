"""Films of the token grid: each patch's code on reality, beside what the codes decode to.

Functions:
    token_film: an episode as a GIF.
    token_frame: one frame as pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from worldgen.checkpoint import write_atomically
from worldgen.config import require
from worldgen.data.episode import Episode
from worldgen.evaluation.film_frames import write_gif
from worldgen.evaluation.token_frames import TokenArtist
from worldgen.inspection.code_usage import require_codes
from worldgen.spaces import flatten, leaves
from worldgen.tokenizer import Tokenizer

__all__ = ["token_film", "token_frame"]


def token_film(
    tokenizer: Tokenizer,
    episode: Episode,
    path: str | Path,
    *,
    most_frames: int = 60,
    frames_per_second: float = 3.0,
    size: int = 308,
) -> int:
    """Write a GIF of an episode's first frames with their codes.

    Each patch is framed and its code written in it, amber where it is another than in the frame
    before. On the right stands what the codes decode to, a lost patch framed red.

    Args:
        tokenizer: Trained, with codes.
        episode: In the tokenizer's space.
        path: Where to write; ends in ".gif". A file that is there is replaced.
        most_frames: The film ends after so many.
        frames_per_second: Environment steps shown a second.
        size: Height of each picture in pixels, about.

    Returns:
        Number of frames.

    Raises:
        ConfigError: If a number is out of range, the path does not end in ".gif", or the
            tokenizer has no codes.
    """
    path = Path(path)
    require(path.suffix.lower() == ".gif", "path", "end in .gif", str(path))
    require(frames_per_second > 0, "frames_per_second", "be above 0", frames_per_second)
    require(most_frames >= 1, "most_frames", "be at least 1", most_frames)
    require(size >= 16, "size", "be at least 16", size)
    require_codes(tokenizer)
    count = min(len(episode) + 1, most_frames)
    real = {name: episode.observations[name][:count] for name in leaves(tokenizer.space)}
    tokens = tokenizer.encode_flat(real)
    decoded = tokenizer.decode_flat(tokens)
    codes = tokens.cpu().numpy()
    artist = TokenArtist(tokenizer, size)
    frames = []
    for time in range(count):
        before = codes[time - 1] if time else None
        changed = 0 if before is None else int((codes[time] != before).sum())
        footer = f"step {time} of {count - 1}"
        if time:
            footer += f": {changed} of {codes.shape[1]} codes changed"
        frames.append(
            artist.draw(_row(real, time), _row(decoded, time), codes[time], before, footer)
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: write_gif(frames, file, frames_per_second))
    return count


def token_frame(tokenizer: Tokenizer, observation: Any, *, size: int = 308) -> np.ndarray:
    """Draw one observation with its codes, beside what they decode to: (H, W, 3) uint8.

    Raises:
        ConfigError: If the tokenizer has no codes.
    """
    require_codes(tokenizer)
    flat = flatten(tokenizer.space, observation)
    real = {path: np.asarray(value)[None] for path, value in flat.items()}
    tokens = tokenizer.encode_flat(real)
    decoded = tokenizer.decode_flat(tokens)
    codes = tokens[0].cpu().numpy()
    artist = TokenArtist(tokenizer, size)
    footer = f"{len(codes)} codes"
    return np.asarray(artist.draw(_row(real, 0), _row(decoded, 0), codes, None, footer))


def _row(batch: dict[str, np.ndarray], index: int) -> dict[str, np.ndarray]:
    return {path: values[index] for path, values in batch.items()}
