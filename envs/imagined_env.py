"""One dream, as a Gymnasium environment.

Classes:
    ImaginedEnv.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np

from worldgen.config import require
from worldgen.diffusion.sampler_config import SamplerConfig
from worldgen.envs.dream_rows import DreamRows, Starts, load_model
from worldgen.envs.observation_view import ObservationMode, ObservationView
from worldgen.render import render
from worldgen.spaces import unflatten
from worldgen.world_model import WorldModel

__all__ = ["ImaginedEnv"]


class ImaginedEnv(gym.Env[Any, Any]):
    """A world model behind Gymnasium's interface, one world at a time.

    An episode starts at a random moment of a real one, ends when the model predicts
    termination, and is truncated after `horizon` environment steps. `ImaginedVecEnv` dreams
    many worlds at once and is far faster for training.

    Importing `worldgen.envs` registers it, so that
    `gymnasium.make("worldgen/Imagined-v0", model="model/", starts="episodes/")` works.

    Args:
        model: A trained world model, or its folder.
        starts: Real episodes to start from, the same tokenized, or their folder.
        horizon: H, most environment steps of an episode.
        observation: What is shown, as in `ImaginedVecEnv`.
        memory: Whether the model's summary of the past is shown too, as in `ImaginedVecEnv`.
        seed: Of starts and dreams, until `reset` is given one.
        sampler: How frames are sampled; None takes the model's.
        render_mode: "rgb_array" or None.

    Raises:
        ConfigError: If an argument is out of range or the model is not trained.
        SpaceError: If `starts` comes from an environment with other spaces than the model's.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 8}  # type: ignore[misc]

    def __init__(
        self,
        model: WorldModel | str | Path,
        starts: Starts,
        *,
        horizon: int = 32,
        observation: ObservationMode = "decoded",
        memory: bool = False,
        seed: int = 0,
        sampler: SamplerConfig | None = None,
        render_mode: str | None = None,
    ) -> None:
        modes = (None, *self.metadata["render_modes"])
        require(render_mode in modes, "render_mode", "be None or 'rgb_array'", render_mode)
        self.model = load_model(model)
        self._row = DreamRows(
            self.model,
            starts,
            num_rows=1,
            horizon=horizon,
            sampler=sampler,
            memory=memory,
            seed=seed,
        )
        size = self.model.summary_size if memory else 0
        self._view = ObservationView(self.model.tokenizer, observation, memory=size)
        self.observation_space = self._view.space
        self.action_space = self.model.action_space
        self.render_mode = render_mode
        self._begun = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin at a random moment of a real episode; `options` are ignored."""
        super().reset(seed=seed)
        if seed is not None:
            self._row.seed(int(self.np_random.integers(2**62)))
        self._row.restart()
        self._begun = True
        return self._observation(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Imagine one environment step."""
        if not self._begun:
            raise gym.error.ResetNeeded("call `reset` before `step`")
        advance = self._row.advance(np.asarray(action)[None])
        return (
            self._observation(),
            float(advance.rewards[0]),
            bool(advance.terminated[0]),
            bool(advance.truncated[0]),
            {},
        )

    def _observation(self) -> Any:
        flat = self._view.flat(self._row.tokens, self._row.memory)
        return unflatten(self.observation_space, {path: batch[0] for path, batch in flat.items()})

    def render(self) -> np.ndarray | None:
        """Draw the current frame, (H, W, 3) uint8; None without a render mode."""
        if self.render_mode is None or not self._begun:
            return None
        flat = self.model.tokenizer.decode_flat(self._row.tokens)
        frame = {path: batch[0] for path, batch in flat.items()}
        modalities = self.model.config.tokenizer.modalities
        return render(self.model.observation_space, frame, modalities=modalities)
