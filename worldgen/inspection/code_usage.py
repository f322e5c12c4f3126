"""How often each code is chosen, and by which patches.

Classes:
    SeenPatch: a real patch that chose a code.
    CodebookUsage: the codes of one codebook.
    LeafUsage: the codebooks of one leaf of an observation.
    CodeUsage: all leaves.

Functions:
    measure_codes: count over episodes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from worldgen.config import require
from worldgen.data.episode import Episode
from worldgen.errors import ConfigError, DatasetError, ShapeError
from worldgen.inspection.seen_patches import SeenPatch, SeenPatches
from worldgen.spaces import leaves
from worldgen.tokenizer import Tokenizer
from worldgen.tokenizer.category import CategoryCodec
from worldgen.tokenizer.patch_autoencoder import PatchAutoencoder
from worldgen.tokenizer.text import TextCodec

__all__ = ["CodeUsage", "CodebookUsage", "LeafUsage", "SeenPatch", "measure_codes"]

_CHUNK = 1024


@dataclass(frozen=True, kw_only=True, eq=False)
class CodebookUsage:
    """How often the codes of one codebook are chosen."""

    name: str
    """The leaf's path, with the token's number or the stage where the leaf has several."""
    first_token: int
    """First of the codebook's positions in a frame."""
    stage: int
    """Which of the R codes of a patch, from 0."""
    counts: np.ndarray
    """(positions, V) int64, how often each code is chosen at each position."""
    decoded: dict[int, np.ndarray]
    """Code in use -> the values (P,) of the patch that it decodes to; empty without patches. In
    later stages, what it makes of the patch in `before`."""
    before: dict[int, np.ndarray]
    """Code in use -> the values (P,) that the stages before give; empty in the first stage."""
    seen: dict[int, list[SeenPatch]]
    """Code in use -> some different real patches that chose it, the most frequent first."""
    labels: dict[int, str]
    """Code in use -> what it means, for categories and text."""

    @property
    def size(self) -> int:
        """V."""
        return int(self.counts.shape[1])

    @property
    def totals(self) -> np.ndarray:
        """How often each code is chosen: (V,) int64."""
        totals: np.ndarray = self.counts.sum(0)
        return totals

    @property
    def ranked(self) -> list[int]:
        """The codes in use, most used first."""
        totals = self.totals
        order = np.argsort(-totals, kind="stable")
        return [int(code) for code in order[: self.in_use]]

    @property
    def in_use(self) -> int:
        """Number of codes that are chosen at least once."""
        return int((self.totals > 0).sum())

    @property
    def perplexity(self) -> float:
        """Two to the entropy in bits of the codes: as many equally frequent ones say as much."""
        return float(perplexities(self.totals[None])[0])


@dataclass(frozen=True, kw_only=True, eq=False)
class LeafUsage:
    """How often the codes of one leaf are chosen."""

    path: str
    codebooks: list[CodebookUsage]
    exact_share: float
    """Share of patches (values, for categories; whole texts) that come back exactly."""
    tolerance: str = ""
    """What "exactly" means where it is not to be taken by its word."""

    @property
    def num_codes(self) -> int:
        """Codes of all codebooks."""
        return sum(codebook.size for codebook in self.codebooks)

    @property
    def in_use(self) -> int:
        """Codes in use of all codebooks."""
        return sum(codebook.in_use for codebook in self.codebooks)

    @property
    def perplexity(self) -> float:
        """Mean over the codebooks."""
        return float(np.mean([codebook.perplexity for codebook in self.codebooks]))

    def to_dict(self) -> dict[str, Any]:
        """Give the numbers as JSON values."""
        return {
            "codes": self.num_codes,
            "in_use": self.in_use,
            "perplexity": self.perplexity,
            "exact_share": self.exact_share,
            "codebooks": [_codebook_to_dict(codebook) for codebook in self.codebooks],
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class CodeUsage:
    """How often each code of a tokenizer is chosen."""

    num_frames: int
    """Frames that were encoded."""
    num_tokens: int
    """K of a frame."""
    exact_frames: float
    """Share of frames that come back exactly in every leaf."""
    leaves: dict[str, LeafUsage]
    """Path -> leaf."""

    @property
    def tolerance(self) -> str:
        """What "exactly" means, in brackets; empty where it is to be taken by its word."""
        found = sorted({leaf.tolerance for leaf in self.leaves.values()} - {""})
        return f" ({'; '.join(found)})" if found else ""

    def to_dict(self) -> dict[str, Any]:
        """Give the numbers as JSON values."""
        return {
            "frames": self.num_frames,
            "tokens": self.num_tokens,
            "exact_frames": self.exact_frames,
            "leaves": {path: leaf.to_dict() for path, leaf in self.leaves.items()},
        }


def perplexities(counts: np.ndarray) -> np.ndarray:
    """Give the perplexity of each row of counts (N, V): (N,) float64, 0 for an empty row.

    >>> perplexities(np.array([[1, 1, 0, 0], [5, 0, 0, 0], [0, 0, 0, 0]])).round(9).tolist()
    [2.0, 1.0, 0.0]
    """
    totals = counts.sum(1, keepdims=True)
    shares = counts / np.maximum(totals, 1)
    logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
    entropies = -(shares * logs).sum(1)
    return np.where(totals[:, 0] > 0, np.exp(entropies), 0.0)


def measure_codes(
    tokenizer: Tokenizer, episodes: Sequence[Episode], *, max_frames: int | None = None
) -> CodeUsage:
    """Encode and decode the frames of episodes, and count.

    "Exactly" is as the modality has it: every symbol of a grid; pictures to a mean error of up
    to four grey levels; numbers to a fiftieth of their standard deviation.

    Args:
        tokenizer: Trained.
        episodes: In the tokenizer's space.
        max_frames: Most frames to look at, from the first on; None for all.

    Raises:
        ConfigError: If the tokenizer has no codes (quantizer "gaussian"), or `max_frames` is
            below 1.
        DatasetError: If there is no frame, or the tokenizer is not trained.
        ShapeError: If the episodes are of another space.
    """
    require_codes(tokenizer)
    if max_frames is not None:
        require(max_frames >= 1, "max_frames", "be at least 1", max_frames)
    counters = {path: _counter(tokenizer, path) for path in leaves(tokenizer.space)}
    frames, exact_frames = 0, 0
    for observations in _chunks(tokenizer, episodes, max_frames):
        tokens = tokenizer.encode_flat(observations)
        decoded = tokenizer.decode_flat(tokens)
        codes = tokens.cpu().numpy()
        right = np.ones(len(codes), bool)
        for path, place in tokenizer.token_slices.items():
            exact = counters[path].add(codes[:, place], observations[path], decoded[path])
            right &= exact.all(1)
        frames += len(codes)
        exact_frames += int(right.sum())
    if frames == 0:
        raise DatasetError("`episodes` must hold at least one episode, got none")
    return CodeUsage(
        num_frames=frames,
        num_tokens=tokenizer.num_tokens,
        exact_frames=exact_frames / frames,
        leaves={path: counter.result() for path, counter in counters.items()},
    )


def require_codes(tokenizer: Tokenizer) -> None:
    """Refuse a tokenizer without codes.

    Raises:
        ConfigError: If its quantizer is "gaussian".
    """
    if not tokenizer.is_discrete:
        raise ConfigError(
            "`tokenizer` must have codes to look at, got one with the quantizer 'gaussian', which "
            "has none: use 'vq', 'residual' or 'fsq'"
        )


def _chunks(
    tokenizer: Tokenizer, episodes: Sequence[Episode], most: int | None
) -> Iterator[dict[str, np.ndarray]]:
    paths = list(leaves(tokenizer.space))
    waiting: list[Mapping[str, np.ndarray]] = []
    held, left = 0, most if most is not None else np.inf
    for episode in episodes:
        missing = [path for path in paths if path not in episode.observations]
        if missing:
            raise ShapeError(
                f"`episodes` must hold {missing[0]!r}, as the tokenizer's space says, got "
                f"{sorted(episode.observations)}"
            )
        taken = int(min(len(episode) + 1, left))
        left -= taken
        waiting.append({path: episode.observations[path][:taken] for path in paths})
        held += taken
        if held >= _CHUNK or not left:
            yield {path: np.concatenate([part[path] for part in waiting]) for path in paths}
            waiting, held = [], 0
        if not left:
            return
    if waiting:
        yield {path: np.concatenate([part[path] for part in waiting]) for path in paths}


def _counter(tokenizer: Tokenizer, path: str) -> _Counter:
    codec = tokenizer.codec(path)
    if isinstance(codec, PatchAutoencoder):
        return _PatchCounter(tokenizer, path, codec)
    return _WordCounter(tokenizer, path, codec)


class _Counter:
    """Counts the codes of one leaf, codebook by codebook."""

    tolerance = ""

    def __init__(self, tokenizer: Tokenizer, path: str) -> None:
        self.path = path
        place = tokenizer.token_slices[path]
        self.first = place.start
        self.codebooks = [
            codebook
            for codebook in tokenizer.codebooks
            if place.start <= codebook.first_token < place.stop
        ]
        self.counts = [np.zeros((b.num_tokens, b.size), np.int64) for b in self.codebooks]
        self.right = self.whole = 0

    def add(self, codes: np.ndarray, real: np.ndarray, decoded: np.ndarray) -> np.ndarray:
        """Count the codes (B, K) of a batch; give which parts are exact, (B, parts)."""
        for counts, codebook in zip(self.counts, self.codebooks, strict=True):
            first = codebook.first_token - self.first
            for k in range(codebook.num_tokens):
                counts[k] += np.bincount(codes[:, first + k], minlength=codebook.size)
        exact = self.exact(real, decoded)
        self.right += int(exact.sum())
        self.whole += exact.size
        return exact

    def exact(self, real: np.ndarray, decoded: np.ndarray) -> np.ndarray:
        """Say which parts of the batch came back: (B, parts)."""
        same: np.ndarray = (real == decoded).reshape(len(real), -1)
        return same

    def result(self) -> LeafUsage:
        """Give what was counted."""
        return LeafUsage(
            path=self.path,
            codebooks=[self.usage(index) for index in range(len(self.codebooks))],
            exact_share=self.right / max(self.whole, 1),
            tolerance=self.tolerance,
        )

    def usage(self, index: int) -> CodebookUsage:
        """Give what was counted of one codebook."""
        raise NotImplementedError


class _WordCounter(_Counter):
    """Categories and text."""

    def __init__(self, tokenizer: Tokenizer, path: str, codec: CategoryCodec | TextCodec) -> None:
        super().__init__(tokenizer, path)
        self.codec = codec

    def usage(self, index: int) -> CodebookUsage:
        counts = self.counts[index]
        used = np.flatnonzero(counts.sum(0)).tolist()
        if isinstance(self.codec, TextCodec):
            pieces = self.codec.pieces()
            labels = {code: repr(pieces[code])[1:-1] if code else "(end)" for code in used}
        else:
            start = int(self.codec.start[index])
            labels = {code: str(code + start) for code in used}
        several = len(self.codebooks) > 1
        return CodebookUsage(
            name=f"{self.path} {index}" if several else self.path,
            first_token=self.codebooks[index].first_token,
            stage=0,
            counts=counts,
            decoded={},
            before={},
            seen={},
            labels=labels,
        )


class _PatchCounter(_Counter):
    """Patches of grids, pictures, vectors and waveforms."""

    def __init__(self, tokenizer: Tokenizer, path: str, codec: PatchAutoencoder) -> None:
        super().__init__(tokenizer, path)
        self.tokenizer, self.codec = tokenizer, codec
        if codec.modality.linear_skip:
            self.tolerance = "numbers to a fiftieth of their standard deviation"
        elif not codec.modality.cell_size:
            self.tolerance = "pictures to four grey levels"
        self.seen = [SeenPatches() for _ in self.codebooks]

    def add(self, codes: np.ndarray, real: np.ndarray, decoded: np.ndarray) -> np.ndarray:
        exact = super().add(codes, real, decoded)
        patches = self.tokenizer.patches(self.path, real).cpu().numpy()  # (B, patches, P)
        stages = codes.reshape(len(codes), self.codec.config.codes_per_patch, -1)
        for index, seen in enumerate(self.seen):
            stage, places = self._of(index)
            seen.add(
                stages[:, stage, places].ravel(),
                patches[:, places].reshape(-1, patches.shape[-1]),
                exact[:, places].ravel(),
                stages[:, : stage + 1, places].transpose(0, 2, 1).reshape(-1, stage + 1),
            )
        return exact

    def exact(self, real: np.ndarray, decoded: np.ndarray) -> np.ndarray:
        pair = [self.tokenizer.patches(self.path, values) for values in (decoded, real)]
        exact: np.ndarray = (~self.codec.patches_lost(*pair)).cpu().numpy()
        return exact

    def _of(self, index: int) -> tuple[int, slice]:
        """Give a codebook's stage and the patches that it stands for."""
        stage, group = divmod(index, self.codec.num_codebooks)
        shared = self.codec.num_codebooks == 1
        return stage, slice(None) if shared else slice(group, group + 1)

    def usage(self, index: int) -> CodebookUsage:
        stage, group = divmod(index, self.codec.num_codebooks)
        seen = self.seen[index].ranked()
        name = self.path
        if self.codec.num_codebooks > 1:
            name += f" {group}"
        if self.codec.config.codes_per_patch > 1:
            name += f", stage {stage + 1}"
        codes = {code: patches[0].codes for code, patches in seen.items()}
        earlier = {code: row[:-1] for code, row in codes.items()} if stage else {}
        return CodebookUsage(
            name=name,
            first_token=self.codebooks[index].first_token,
            stage=stage,
            counts=self.counts[index],
            decoded=self._decoded(codes, group),
            before=self._decoded(earlier, group),
            seen=seen,
            labels={},
        )

    def _decoded(self, codes: Mapping[int, np.ndarray], group: int) -> dict[int, np.ndarray]:
        """Decode the first codes (S,) of a patch, for each key."""
        if not codes:
            return {}
        rows = torch.from_numpy(np.stack(list(codes.values())))
        decoded = self.codec.decode_stages(rows.to(self.tokenizer.device), group).cpu().numpy()
        return dict(zip(codes, decoded, strict=True))


def _codebook_to_dict(codebook: CodebookUsage) -> dict[str, Any]:
    totals = codebook.totals
    by_position = perplexities(codebook.counts)
    return {
        "name": codebook.name,
        "first_token": codebook.first_token,
        "tokens": len(codebook.counts),
        "stage": codebook.stage,
        "codes": codebook.size,
        "in_use": codebook.in_use,
        "perplexity": codebook.perplexity,
        "counts": {str(code): int(totals[code]) for code in codebook.ranked},
        "in_use_by_position": [int(number) for number in (codebook.counts > 0).sum(1)],
        "perplexity_by_position": [float(number) for number in by_position],
    }
