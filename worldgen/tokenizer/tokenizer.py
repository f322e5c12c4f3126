"""The tokenizer: any supported observation to K tokens, and back.

Classes:
    Tokenizer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.nn import functional

from worldgen import spaces as space_tools
from worldgen.checkpoint import load_folder, save_folder
from worldgen.codes import Codebook
from worldgen.config import require
from worldgen.data.environment import EnvironmentSpec, EnvLike, make_env
from worldgen.data.episode import Episode
from worldgen.device import resolve_device
from worldgen.errors import ConfigError, DatasetError, SpaceError
from worldgen.seeding import seeded_initialization
from worldgen.tokenizer.autoencoder_training import (
    distinct_patches,
    train_autoencoder,
    with_plausible_patches,
)
from worldgen.tokenizer.category import CategoryCodec
from worldgen.tokenizer.codec import Codec, build_codec, module_name
from worldgen.tokenizer.input_checks import check_batch, check_pixels, check_tokens
from worldgen.tokenizer.patch_autoencoder import PatchAutoencoder
from worldgen.tokenizer.text import TextCodec
from worldgen.tokenizer.tokenizer_config import TokenizerConfig

__all__ = ["Tokenizer"]

_CHUNK = 1024
_FEW = 32
"""Most frames that are encoded by memory."""


class Tokenizer(nn.Module):
    """Turns observations into (B, K) tokens and back.

    Each leaf of the space has its own VQ-VAE and its own share of the K tokens, in the order
    of `worldgen.spaces.leaves`. Build it with `for_space`.

    Attributes:
        num_tokens: K, vectors a frame, which have a token each where `is_discrete`.
        token_nvec: (K,) int64 array, number of codes at each position.
        token_slices: Path -> the positions of its tokens in a frame.
        codebooks: The codebooks in the order of a frame's positions.
        embedding_size: E, the largest of the leaves; shorter vectors are filled up with zeros.
        kept: Scalar, the share of frames that came back when it was last trained; a world model
            notes it, which trains its tokenizer again where that falls.
    """

    fitted: Tensor
    kept: Tensor

    def __init__(self, space: spaces.Space[Any], config: TokenizerConfig) -> None:
        super().__init__()
        self.space, self.config = space, config
        self._leaves = space_tools.leaves(space)
        if not self._leaves:
            raise SpaceError(f"`space` must have at least one part, got {space}")
        unknown = sorted(set(config.modalities) - set(self._leaves))
        if unknown:
            raise ConfigError(
                f"`modalities` names {unknown}, but the space's leaves are {list(self._leaves)}"
            )
        # A plain dictionary beside the modules, since looking one of those up is slow.
        self._by_path = {
            path: build_codec(path, leaf, config) for path, leaf in self._leaves.items()
        }
        self.codecs = nn.ModuleDict(
            {module_name(path): codec for path, codec in self._by_path.items()}
        )
        codecs = [item for item in self._by_path.values() if isinstance(item, PatchAutoencoder)]
        sizes = [codec.config.vector_size for codec in codecs]
        self.embedding_size = max([config.quantizer.vector_size, *sizes])
        self._lay_out()
        self._code_vectors: Tensor | None = None
        self.register_buffer("fitted", torch.tensor(False))
        self.register_buffer("kept", torch.tensor(1.0))
        self.requires_grad_(False)

    @classmethod
    def for_space(
        cls,
        space: spaces.Space[Any],
        config: TokenizerConfig | None = None,
        *,
        seed: int = 0,
        device: str | torch.device = "auto",
    ) -> Self:
        """Build an untrained tokenizer.

        Raises:
            SpaceError: If a leaf is not supported, or could be symbols or a picture.
        """
        with seeded_initialization(seed):
            return cls(space, config or TokenizerConfig()).to(resolve_device(device))

    @classmethod
    def for_env(
        cls,
        env: EnvLike,
        config: TokenizerConfig | None = None,
        *,
        seed: int = 0,
        device: str | torch.device = "auto",
    ) -> Self:
        """Build an untrained tokenizer for an environment.

        Args:
            env: A Gymnasium id, an environment, a function that makes one, or an
                `EnvironmentSpec`.
            config: Settings.
            seed: Of the weights.
            device: "auto" is CUDA when there is one, else the CPU.

        Raises:
            EnvironmentIdError: If the id is unknown.
            SpaceError: If its observation space is not supported.
        """
        made = make_env(env)
        try:
            return cls.for_space(made.observation_space, config, seed=seed, device=device)
        finally:
            if isinstance(env, str | EnvironmentSpec):
                made.close()

    def _lay_out(self) -> None:
        sizes: list[int] = []
        self.codebooks: list[Codebook] = []
        self.token_slices: dict[str, slice] = {}
        for path in self._leaves:
            codebooks = self._codec(path).codebooks(len(sizes))
            first = len(sizes)
            for codebook in codebooks:
                sizes += [codebook.size] * codebook.num_tokens
            self.codebooks += codebooks
            self.token_slices[path] = slice(first, len(sizes))
        self.num_tokens = sum(self._codec(path).num_tokens for path in self._leaves)
        self.token_nvec = np.array(sizes, dtype=np.int64)

    def _codec(self, path: str) -> Codec:
        return self._by_path[path]

    def codec(self, path: str) -> Codec:
        """Give what encodes and decodes a leaf."""
        return self._by_path[path]

    def patches(self, path: str, observations: np.ndarray) -> Tensor:
        """Cut a leaf's batch (B, ...) as it is encoded: (B, patches, P), for `PatchAutoencoder`."""
        codec = self._by_path[path]
        assert isinstance(codec, PatchAutoencoder)
        return codec.modality.patchify(self._tensor(observations))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.fitted.device

    @property
    def is_discrete(self) -> bool:
        """Whether frames have tokens; not so with the quantizer "gaussian"."""
        return len(self.token_nvec) == self.num_tokens

    @property
    def is_fitted(self) -> bool:
        """Whether `fit` has run."""
        return bool(self.fitted)

    def fit(
        self,
        observations: Any,
        *,
        gradient_steps: int = 1000,
        seed: int = 0,
        on_gradient_step: Callable[[float], None] = lambda _: None,
    ) -> dict[str, float]:
        """Train on observations; called again, it goes on from where it stands.

        Statistics and the starting codebooks are taken from the first call's data.

        Args:
            observations: A sequence of `Episode`s, or a nested batch in the space.
            gradient_steps: Upper limit for each leaf.
            seed: Of batches and starting codes.
            on_gradient_step: Called with the reconstruction loss after each gradient step.

        Returns:
            Path -> mean error of its patches, in the modality's unit (wrong values a patch,
            grey levels, standard deviations).
        """
        chunks = self._observation_chunks(observations)
        if not chunks:
            raise DatasetError("`observations` must hold at least one frame, got none")
        require(gradient_steps >= 0, "gradient_steps", "be at least 0", gradient_steps)
        generator = torch.Generator().manual_seed(seed)
        errors = {}
        for path in self._leaves:
            codec = self._codec(path)
            if isinstance(codec, PatchAutoencoder):
                codec.requires_grad_(True)
                errors[path] = self._fit_leaf(
                    path, codec, chunks, gradient_steps, generator, on_gradient_step
                )
                codec.requires_grad_(False)
            elif isinstance(codec, TextCodec) and not self.is_fitted:
                codec.fit(np.concatenate([chunk[path] for chunk in chunks]))
        self._code_vectors = None
        self.fitted.fill_(True)
        return errors

    def _fit_leaf(
        self,
        path: str,
        codec: PatchAutoencoder,
        chunks: list[dict[str, np.ndarray]],
        gradient_steps: int,
        generator: torch.Generator,
        on_gradient_step: Callable[[float], None],
    ) -> float:
        check_pixels(path, codec.modality, chunks)
        grouped = (
            codec.grouped(codec.modality.patchify(self._tensor(chunk[path]))) for chunk in chunks
        )
        patches, counts = distinct_patches(grouped, generator, merge=not codec.modality.linear_skip)
        if not self.is_fitted:
            codec.standardise(patches)
        codec.weigh_rarity(patches, counts)
        patches, counts = with_plausible_patches(codec, patches, counts, generator)
        return train_autoencoder(
            codec,
            patches,
            counts,
            gradient_steps,
            generator,
            start_codebooks=not self.is_fitted,
            on_gradient_step=on_gradient_step,
        )

    def encode(self, observations: Any) -> Tensor:
        """Encode a nested batch of observations to tokens (B, K) int64.

        Raises:
            ShapeError: If an array does not have the space's shape behind the batch.
            SpaceError: If its values are not in the space: other categories, or NaN.
        """
        return self.encode_flat(space_tools.flatten(self.space, observations))

    def encode_flat(self, observations: Mapping[str, np.ndarray]) -> Tensor:
        """Encode a flat batch, path -> (B, ...), to tokens (B, K) int64."""
        batch = self._check(observations)
        tokens = torch.empty(batch, self.num_tokens, dtype=torch.int64, device=self.device)
        for path, place in self.token_slices.items() if batch else ():
            try:
                self._encode_leaf(path, observations[path], tokens[:, place])
            except SpaceError as error:
                raise _named(error, path) from error
        return tokens

    def _encode_leaf(self, path: str, values: np.ndarray, tokens: Tensor) -> None:
        """Write the tokens of a leaf's batch (B, ...) to (B, the leaf's tokens)."""
        codec = self._codec(path)
        if len(values) <= _FEW and codec.encodes_few:
            few = codec.encode_few(_known_to_torch(np.asarray(values)))
            tokens.copy_(torch.from_numpy(few))
            return
        for first in range(0, len(values), _CHUNK):
            part = self._tensor(values[first : first + _CHUNK])
            tokens[first : first + _CHUNK] = codec.encode(part)

    def decode(self, tokens: Tensor | np.ndarray) -> Any:
        """Decode tokens (B, K) to a nested batch of observations in the space's dtypes.

        Raises:
            ShapeError: If the tokens have another shape or are out of range.
        """
        self._check_fitted()
        checked = check_tokens(tokens, self.token_nvec)
        return space_tools.unflatten(self.space, self.decode_flat(checked))

    def decode_flat(self, tokens: Tensor) -> dict[str, np.ndarray]:
        """Decode tokens (B, K) to a flat batch, path -> (B, ...), without a look at their range."""
        self._check_fitted()
        few = tokens.cpu().numpy() if len(tokens) <= _FEW else None
        tokens = tokens.to(self.device)
        decoded = {}
        for path, place in self.token_slices.items():
            codec, leaf = self._codec(path), self._leaves[path]
            if few is not None and not isinstance(codec, TextCodec) and codec.decodes_few:
                values = codec.decode_few(few[:, place], leaf.shape or ())
                decoded[path] = values.astype(leaf.dtype, copy=False)
            else:
                decoded[path] = _as_leaf(codec.decode(tokens[:, place]), leaf)
        return decoded

    def embed(self, tokens: Tensor | np.ndarray) -> Tensor:
        """Look up the code vectors of tokens: (B, K) -> (B, K, E) float32.

        Raises:
            ShapeError: If the tokens have another shape or are out of range.
        """
        self._check_fitted()
        return self.embed_known(check_tokens(tokens, self.token_nvec).to(self.device))

    def embed_known(self, tokens: Tensor) -> Tensor:
        """Do as `embed`, without a look at the tokens."""
        if self._code_vectors is None:
            self._code_vectors = torch.cat(self.codebook_vectors())
            first = np.cumsum([0] + [codebook.size for codebook in self.codebooks])
            tokens_of = [codebook.num_tokens for codebook in self.codebooks]
            self._first_rows = torch.from_numpy(np.repeat(first[:-1], tokens_of)).to(self.device)
        return self._code_vectors[tokens + self._first_rows]

    def reconstruct(self, observations: Any) -> Any:
        """Give a nested batch of observations as it comes back, with tokens or without.

        Raises:
            ShapeError: If an array does not have the space's shape behind the batch.
        """
        if self.is_discrete:
            return self.decode(self.encode(observations))
        parts = self._each_codec(observations, lambda codec, part: codec.reconstruct(part))
        flat = {path: _as_leaf(part, self._leaves[path]) for path, part in parts.items()}
        return space_tools.unflatten(self.space, flat)

    def embed_observations(self, observations: Any) -> Tensor:
        """Give the vectors of a nested batch of observations: (B, K, E) float32.

        These are the code vectors of its tokens; with the quantizer "gaussian", the means.

        Raises:
            ShapeError: If an array does not have the space's shape behind the batch.
        """
        if self.is_discrete:
            return self.embed_known(self.encode(observations))
        parts = self._each_codec(observations, lambda codec, part: codec.embed_observations(part))
        return torch.cat([self._widened(part) for part in parts.values()], dim=1)

    def _each_codec(
        self, observations: Any, function: Callable[[Any, Any], Tensor]
    ) -> dict[str, Any]:
        """Call the function on each leaf's codec and batch, some rows at a time."""
        flat = space_tools.flatten(self.space, observations)
        self._check(flat)
        found = {}
        for path in self._leaves:
            codec, values = self._codec(path), flat[path]
            pieces = [values[first : first + _CHUNK] for first in range(0, len(values), _CHUNK)]
            results: list[Any] = [function(codec, self._tensor(piece)) for piece in pieces]
            texts = isinstance(results[0], np.ndarray)
            found[path] = np.concatenate(results) if texts else torch.cat(results)
        return found

    def codebook_vectors(self) -> list[Tensor]:
        """Give the (V, E) vectors of each codebook, in the order of `codebooks`."""
        parts = [part for path in self._leaves for part in self._codec(path).vectors_by_codebook()]
        return [self._widened(part) for part in parts]

    def _widened(self, vectors: Tensor) -> Tensor:
        return functional.pad(vectors, (0, self.embedding_size - vectors.shape[-1]))

    def code_contents(self) -> list[Tensor]:
        """Describe each codebook's codes (V, F) by what they stand for."""
        return [part for path in self._leaves for part in self._codec(path).code_contents()]

    def refresh(self) -> None:
        """Rebuild what is derived from the weights; to be called after loading them."""
        self._code_vectors = None
        for codec in self.codecs.values():
            if isinstance(codec, PatchAutoencoder):
                codec.build_table()
            elif isinstance(codec, TextCodec):
                codec.refresh()

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the tokenizer to a folder.

        Raises:
            CheckpointError: If the folder exists and `overwrite` is not set.
        """
        description = {
            "config": self.config.to_dict(),
            "observation_space": space_tools.space_to_json(self.space),
        }
        save_folder(
            path, "tokenizer", description, {"tokenizer": self.state_dict()}, overwrite=overwrite
        )

    @classmethod
    def load(cls, path: str | Path, *, device: str | torch.device = "auto") -> Self:
        """Read what `save` wrote.

        Raises:
            CheckpointError: If the folder is missing, damaged or holds something else.
        """
        folder = load_folder(path, "tokenizer", ("tokenizer",))
        space = space_tools.space_from_json(folder.field("observation_space"))
        config = TokenizerConfig.from_dict(folder.field("config"))
        tokenizer = cls.for_space(space, config, device=device)
        folder.restore("tokenizer", tokenizer)
        tokenizer.refresh()
        return tokenizer

    def _observation_chunks(self, observations: Any) -> list[dict[str, np.ndarray]]:
        is_episodes = isinstance(observations, Sequence) and all(
            isinstance(item, Episode) for item in observations
        )
        if is_episodes:
            flat = [episode.observations for episode in observations]
        else:
            flat = [space_tools.flatten(self.space, observations)]
        for part in flat:
            self._check(part, fitted=False)
            self._check_values(part)
        return list(_chunks(flat, list(self._leaves)))

    def _check_values(self, observations: Mapping[str, np.ndarray]) -> None:
        """Refuse values that the leaves' codecs cannot tell apart."""
        for path in self._leaves:
            codec, values = self._codec(path), np.asarray(observations[path])
            try:
                if isinstance(codec, PatchAutoencoder):
                    codec.modality.check(self._tensor(values))
                elif isinstance(codec, CategoryCodec) and len(values):
                    codec.encode_few(values)
            except SpaceError as error:
                raise _named(error, path) from error

    def _tensor(self, array: np.ndarray) -> Any:
        """Bring an array to the device; text stays as it is."""
        if array.dtype.kind in "UO":
            return array
        return torch.from_numpy(np.ascontiguousarray(_known_to_torch(array))).to(self.device)

    def _check(self, observations: Mapping[str, np.ndarray], *, fitted: bool = True) -> int:
        if fitted:
            self._check_fitted()
        return check_batch(self._leaves, observations)

    def _check_fitted(self) -> None:
        if not self.is_fitted:
            raise DatasetError("the tokenizer has not been trained: call `fit` first")


def _named(error: SpaceError, path: str) -> SpaceError:
    """Say which leaf an error is about."""
    return SpaceError(f"`observations` of {path!r} {error}")


def _known_to_torch(array: np.ndarray) -> np.ndarray:
    """Bring dtypes for which torch has few operations to others."""
    if array.dtype == np.bool_:
        return array.astype(np.uint8)
    if array.dtype == np.uint16 or array.dtype == np.uint32:
        return array.astype(np.int64)
    return array


def _chunks(
    parts: list[dict[str, np.ndarray]], paths: list[str]
) -> Iterator[dict[str, np.ndarray]]:
    """Lay short episodes together and cut long ones, to chunks of about 1,024 frames."""
    waiting: list[dict[str, np.ndarray]] = []
    frames = 0
    for part in parts:
        length = len(part[paths[0]])
        for first in range(0, length, _CHUNK):
            piece = {path: part[path][first : first + _CHUNK] for path in paths}
            waiting.append(piece)
            frames += len(piece[paths[0]])
            if frames >= _CHUNK:
                yield {path: np.concatenate([p[path] for p in waiting]) for path in paths}
                waiting, frames = [], 0
    if waiting:
        yield {path: np.concatenate([p[path] for p in waiting]) for path in paths}


def _as_leaf(values: Tensor | np.ndarray, leaf: spaces.Space[Any]) -> np.ndarray:
    """Bring decoded values to the leaf's dtype and bounds; text stays as it is."""
    if isinstance(values, np.ndarray):
        return values
    array = values.cpu().numpy()
    if isinstance(leaf, spaces.Box):
        if leaf.dtype is not None and leaf.dtype.kind in "biu" and array.dtype.kind == "f":
            array = np.rint(array)
        if array.dtype.kind == "f":
            array = np.clip(array, leaf.low, leaf.high)
    return array.astype(leaf.dtype, copy=False)
