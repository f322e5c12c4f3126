"""Features extractors for what worldgen's environments show, as SB3 policies take them.

Classes:
    SymbolicExtractor: symbolic grids one-hot, images through a small CNN, the rest flat.
    TokenExtractor: a world model's tokens as their code vectors.

Functions:
    standardise_numbers: let a policy see vectors in units of their own deviation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.preprocessing import get_flattened_obs_dim, is_image_space
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

from worldgen.config import require
from worldgen.data.episode import Episode
from worldgen.envs.observation_view import (
    ObservationView,
    load_tokenizer,
    standardised_vectors,
)
from worldgen.errors import ConfigError, SpaceError
from worldgen.spaces import ROOT
from worldgen.tokenizer import Tokenizer
from worldgen.world_model import WorldModel

__all__ = ["SymbolicExtractor", "TokenExtractor", "standardise_numbers"]


_LEAST_DEVIATION = 1e-6
"""Of a number that is not constant, as a share of its mean."""
_DEVIATIONS = 3
"""That make one unit."""
_WIDEST = 10
"""Range of a number, in units of what is taken for its deviation, at most."""
_MOST_ROWS = 20_000
"""Observations of which the deviation is taken, evenly apart."""


class SymbolicExtractor(BaseFeaturesExtractor):
    """Read MiniGrid's symbols as symbols.

    SB3 on its own takes MiniGrid's 7x7x3 grid of object, colour and state numbers for a picture
    or for a vector of magnitudes. Here each value of an integer grid (a Box of three dimensions
    with a maximum under 255) becomes one-hot, pictures go through a small convolutional
    network, and everything else is flattened as SB3 does it. Parts of a Dict are laid side by
    side. It is the default of `DreamPPO`, and works with any SB3 algorithm:
    `PPO("MultiInputPolicy", env, policy_kwargs={"features_extractor_class": SymbolicExtractor})`.

    Vectors of numbers pass as they are until `standardise` has seen some: a network that is given
    a car's speed in hundredths beside its place does not notice it. `DreamPPO` does that with its
    first real episodes, before the first dream; the statistics are saved with the policy.

    Args:
        observation_space: As SB3 gives it, pictures channel first.
        image_features: Width of the output for each picture.
        standardises: False for a policy that knows numbers as they are, having learned elsewhere.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        image_features: int = 128,
        standardises: bool = True,
    ) -> None:
        require(image_features >= 1, "image_features", "be at least 1", image_features)
        parts: dict[str, spaces.Space[Any]] = {"": observation_space}
        if isinstance(observation_space, spaces.Dict):
            parts = dict(observation_space.spaces)
        layers = {key: _layer(part, image_features) for key, part in parts.items()}
        widths = [width for _, width in layers.values()]
        super().__init__(observation_space, sum(widths))
        self._keys = tuple(parts) if isinstance(observation_space, spaces.Dict) else None
        # A list and not a ModuleDict, whose keys may not contain dots.
        self.layers = nn.ModuleList(layer for layer, _ in layers.values())
        self._standardises = standardises

    def forward(self, observations: Any) -> Tensor:
        """Extract features (B, F) from observations that SB3 has preprocessed."""
        if self._keys is None:
            features: Tensor = self.layers[0](observations)
            return features
        parts = zip(self._keys, self.layers, strict=True)
        return torch.cat([layer(observations[key]) for key, layer in parts], dim=1)

    @property
    def unknown_numbers(self) -> tuple[str, ...]:
        """Paths of the vectors of numbers that are still to be standardised."""
        if not self._standardises:
            return ()
        parts = zip(self._keys or (ROOT,), self.layers, strict=True)
        return tuple(
            key for key, layer in parts if isinstance(layer, _Standardised) and not layer.known
        )

    def standardise(self, observations: Mapping[str, np.ndarray]) -> None:
        """Give each number of a vector mean 0 and a deviation of 1/3 over these observations.

        Not 1, since an agent that has only begun sees a small part of what there is. A number that
        is nearly always the same has a smaller deviation, and one that always is has its mean taken
        off. Vectors that have been standardised before stay as they are.

        Args:
            observations: Path -> (N, ...), as `Episode.observations` holds them. The numbers of
                parts that are left out stay as they are.
        """
        unknown = self.unknown_numbers
        for key, layer in zip(self._keys or (ROOT,), self.layers, strict=True):
            if isinstance(layer, _Standardised) and key in unknown and key in observations:
                layer.fit(observations[key])


def standardise_numbers(
    policy: nn.Module, seen: Sequence[Episode] | Mapping[str, np.ndarray]
) -> None:
    """Call `standardise` of each `SymbolicExtractor` in a policy that has learned nothing yet.

    Args:
        policy: Any SB3 policy.
        seen: Episodes, or path -> (N, ...).
    """
    for module in policy.modules():
        if isinstance(module, SymbolicExtractor):
            paths = module.unknown_numbers
            if not isinstance(seen, Mapping):
                shown = (path for path in paths if path in seen[0].observations)
                parts = {path: [one.observations[path] for one in seen] for path in shown}
                module.standardise({path: np.concatenate(part) for path, part in parts.items()})
            else:
                module.standardise(seen)


def _layer(space: spaces.Space[Any], image_features: int) -> tuple[nn.Module, int]:
    if isinstance(space, spaces.Box) and _is_symbolic(space):
        one_hot = _OneHot(space)
        return one_hot, one_hot.width
    if is_image_space(space):
        return _SmallCnn(space, image_features), image_features
    width = get_flattened_obs_dim(space)
    return (_Standardised(width) if isinstance(space, spaces.Box) else nn.Flatten()), width


def _is_symbolic(space: spaces.Box) -> bool:
    integer = np.issubdtype(space.dtype, np.integer)
    return integer and len(space.shape) in (2, 3) and bool(space.high.max() < 255)


class _Standardised(nn.Module):
    """Numbers in units of their own deviation, once that is known: (B, ...) -> (B, F)."""

    mean: Tensor
    std: Tensor
    is_known: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))
        self.register_buffer("is_known", torch.tensor(False))

    @property
    def known(self) -> bool:
        return bool(self.is_known)

    def fit(self, values: np.ndarray) -> None:
        """Take the statistics of values (N, ...), of at most some thousand rows."""
        rows = values[:: -(-len(values) // _MOST_ROWS)].reshape(-1, len(self.mean))
        numbers = rows.astype(np.float64)
        numbers = numbers[np.isfinite(numbers).all(1)]
        if not len(numbers):
            return
        # What is nearly always the same, a rare flag, would else be huge when it is not.
        std = np.maximum(numbers.std(0), np.ptp(numbers, 0) / _WIDEST)
        mean = numbers.mean(0)
        changes = std > _LEAST_DEVIATION * np.maximum(np.abs(mean), 1e-3)
        self.mean.copy_(torch.from_numpy(mean))
        self.std.copy_(torch.from_numpy(np.where(changes, _DEVIATIONS * std, 1.0)))
        self.is_known.fill_(True)

    def forward(self, values: Tensor) -> Tensor:
        return (values.flatten(1) - self.mean) / self.std


class _OneHot(nn.Module):
    """All entries of an integer array one-hot at once, side by side: (B, ...) -> (B, F)."""

    offsets: Tensor

    def __init__(self, space: spaces.Box) -> None:
        super().__init__()
        low = space.low.astype(np.int64).ravel()
        sizes = space.high.astype(np.int64).ravel() - low + 1
        self.width = int(sizes.sum())
        offsets = torch.from_numpy(np.cumsum(sizes) - sizes - low)
        self.register_buffer("offsets", offsets, persistent=False)

    def forward(self, values: Tensor) -> Tensor:
        index = values.flatten(1).long() + self.offsets
        return values.new_zeros(len(values), self.width).scatter_(1, index, 1.0)


class _SmallCnn(nn.Module):
    """Four convolutions that halve the picture as long as it is large: (B, C, H, W) -> (B, F)."""

    def __init__(self, space: spaces.Space[Any], features: int) -> None:
        super().__init__()
        channels, height, width = space.shape or (0, 0, 0)
        layers: list[nn.Module] = []
        for outputs in (16, 32, 32, 32):
            stride = 2 if min(height, width) > 6 else 1
            layers += [nn.Conv2d(channels, outputs, 3, stride, padding=1), nn.ReLU()]
            channels, height, width = outputs, -(-height // stride), -(-width // stride)
        flat = channels * height * width
        self.network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(flat, features), nn.ReLU())

    def forward(self, pictures: Tensor) -> Tensor:
        features: Tensor = self.network(pictures)
        return features


class TokenExtractor(BaseFeaturesExtractor):
    """Look up the standardised code vectors of a world model's tokens.

    For agents that see tokens (`ImaginedVecEnv(..., observation="tokens")` and
    `TokenObservation`). Its arguments come from the model: `PPO("MlpPolicy", dream,
    policy_kwargs=TokenExtractor.policy_kwargs(model))`.

    Args:
        observation_space: MultiDiscrete, the number of codes at each of the K positions.
        vectors: (sum of the numbers of codes, E) float32 code vectors, position by position.
        trainable: Whether the agent's gradient changes the vectors. If not, they are no
            parameters and stay as they are in whatever mode SB3 puts the policy.

    Raises:
        SpaceError: If the space is not MultiDiscrete of one dimension.
        ConfigError: If there is not a vector for each code.
    """

    vectors: Tensor

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        vectors: np.ndarray,
        trainable: bool = False,
    ) -> None:
        if not isinstance(observation_space, spaces.MultiDiscrete):
            raise SpaceError(
                f"`TokenExtractor` reads a MultiDiscrete of tokens, got {observation_space}: "
                'make the environment with observation="tokens"'
            )
        sizes = observation_space.nvec
        if sizes.ndim != 1 or len(vectors) != sizes.sum():
            raise ConfigError(
                f"`vectors` must hold one row for each of {sizes.sum()} codes, got {len(vectors)}"
            )
        super().__init__(observation_space, len(sizes) * vectors.shape[1])
        table = torch.tensor(vectors, dtype=torch.float32)
        if trainable:
            self.vectors = nn.Parameter(table)
        else:
            self.register_buffer("vectors", table)

    @staticmethod
    def policy_kwargs(
        model: WorldModel | Tokenizer | str | Path, *, trainable: bool = False
    ) -> dict[str, Any]:
        """Give the `policy_kwargs` with which an SB3 policy reads the tokens of `model`.

        Raises:
            ConfigError: If `model` is something else, is not trained, or has no tokens.
        """
        return {
            "features_extractor_class": TokenExtractor,
            "features_extractor_kwargs": {
                "vectors": _code_vectors(model),
                "trainable": trainable,
            },
        }

    def forward(self, observations: Tensor) -> Tensor:
        """Turn tokens, which SB3 gives one-hot and side by side, into features (B, K * E)."""
        codes = observations.nonzero()[:, 1]
        return self.vectors[codes].view(len(observations), -1)


def _code_vectors(model: WorldModel | Tokenizer | str | Path) -> np.ndarray:
    """Collect the standardised vectors of each position, (sum of the numbers of codes, E)."""
    tokenizer = load_tokenizer(model)
    ObservationView(tokenizer, "tokens")  # Refuses what has no tokens to look up.
    vectors = zip(tokenizer.codebooks, standardised_vectors(tokenizer), strict=True)
    parts = [part for codebook, part in vectors for _ in range(codebook.num_tokens)]
    return torch.cat(parts).cpu().numpy()
