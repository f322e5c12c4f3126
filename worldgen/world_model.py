"""The world model: tokenizer and dynamics of one environment, behind one object.

Classes:
    WorldModelConfig, WorldModel.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from worldgen import spaces as space_tools
from worldgen.actions import ActionCodec
from worldgen.checkpoint import load_folder, save_folder
from worldgen.config import Config, require
from worldgen.data.environment import EnvironmentSpec, EnvLike, environment_spec, make_env
from worldgen.data.episode import Episode
from worldgen.data.token_dataset import Context, TokenDataset
from worldgen.device import resolve_device
from worldgen.diffusion.sampler_config import SamplerConfig
from worldgen.dynamics import Dynamics, DynamicsConfig
from worldgen.dynamics_training_config import DynamicsTrainingConfig
from worldgen.errors import ConfigError, DatasetError, ShapeError, SpaceError
from worldgen.filling import AimedRollout, fill_in
from worldgen.fitting import FitResult, fit_world_model
from worldgen.imagination import Imagination
from worldgen.progress import Progress
from worldgen.rollout import Policy, Rollout, action_source, stack_steps
from worldgen.seeding import derived_seed, seeded_initialization
from worldgen.surprise import Surprise, score_episodes
from worldgen.tokenizer import Tokenizer, TokenizerConfig

__all__ = ["WorldModel", "WorldModelConfig"]

logger = logging.getLogger(__name__)

_FRAMES_AT_ONCE = 4096
"""Frames that are laid together to be tokenized."""


@dataclass(frozen=True, kw_only=True)
class WorldModelConfig(Config):
    """All settings of a world model."""

    tokenizer: TokenizerConfig = TokenizerConfig()
    """Observations to tokens."""
    tokenizer_gradient_steps: int = 1000
    """Most gradient steps a leaf; it stops early once every patch comes back exactly."""
    dynamics: DynamicsConfig = DynamicsConfig()
    """Size of the transformer and length of its context."""
    training: DynamicsTrainingConfig = DynamicsTrainingConfig()
    """How the dynamics learn."""
    sampler: SamplerConfig = SamplerConfig()
    """How dreams are sampled; may be overridden wherever a dream begins."""

    @property
    def context(self) -> int:
        """C, frames of the past that a prediction sees."""
        return self.dynamics.context

    def gradient_steps(self, tokenizer: int | None, dynamics: int | None) -> tuple[int, int]:
        """Give the gradient steps of a fit: those asked for, or the settings' for None."""
        return (
            self.tokenizer_gradient_steps if tokenizer is None else tokenizer,
            self.training.gradient_steps if dynamics is None else dynamics,
        )


class WorldModel:
    """A learned copy of an environment.

    Build it with `for_env`, train it with `fit`, dream with `imagine`, or hand it to
    `worldgen.envs.ImaginedVecEnv`.

    Attributes:
        observation_space: Of the environment as worldgen sees it.
        action_space: Of the environment.
        environment: How to make the environment again, where that is known.
        config: All settings.
        tokenizer: Observations to tokens.
        dynamics: Tokens and actions to next tokens.
        device: Where the weights are.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        config: WorldModelConfig,
        *,
        environment: EnvironmentSpec | None,
        seed: int,
        device: torch.device,
    ) -> None:
        _refuse_text(observation_space)
        self.observation_space, self.action_space = observation_space, action_space
        self.environment, self.config, self.device = environment, config, device
        self.seed, self.num_fits = seed, 0
        self.action_codec = ActionCodec(action_space)
        self.tokenizer = Tokenizer.for_space(
            observation_space,
            config.tokenizer,
            seed=derived_seed(seed, "tokenizer"),
            device=device,
        )
        if not self.tokenizer.is_discrete:
            raise ConfigError(
                "a world model needs tokens, and the quantizer 'gaussian' has none: set "
                "`tokenizer.quantizer.kind` to 'vq', 'residual' or 'fsq'"
            )
        with seeded_initialization(derived_seed(seed, "dynamics")):
            dynamics = Dynamics(
                config.dynamics,
                self.tokenizer.codebooks,
                self.action_codec,
                self.tokenizer.embedding_size,
            )
        self.dynamics = dynamics.to(device).eval()

    @classmethod
    def for_env(
        cls,
        env: EnvLike,
        *,
        config: WorldModelConfig | None = None,
        seed: int = 0,
        device: str | torch.device = "auto",
    ) -> Self:
        """Build an untrained model for an environment.

        Args:
            env: A Gymnasium id, an environment, a function that makes one, or an
                `EnvironmentSpec`.
            config: Settings.
            seed: Of the weights and of training.
            device: "auto" is CUDA when there is one, else the CPU.

        Raises:
            EnvironmentIdError: If the id is unknown.
            SpaceError: If an observation or action space is not supported.
        """
        made = make_env(env)
        observation_space, action_space = made.observation_space, made.action_space
        if isinstance(env, str | EnvironmentSpec):
            made.close()
        return cls.for_spaces(
            observation_space,
            action_space,
            environment=environment_spec(env),
            config=config,
            seed=seed,
            device=device,
        )

    @classmethod
    def for_spaces(
        cls,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        *,
        environment: EnvironmentSpec | None = None,
        config: WorldModelConfig | None = None,
        seed: int = 0,
        device: str | torch.device = "auto",
    ) -> Self:
        """Build an untrained model for a pair of spaces."""
        return cls(
            observation_space,
            action_space,
            config or WorldModelConfig(),
            environment=environment,
            seed=seed,
            device=resolve_device(device),
        )

    @property
    def summary_size(self) -> int:
        """D, entries of what `summarise` gives for a world."""
        return self.config.dynamics.transformer.width

    @property
    def is_fitted(self) -> bool:
        """Whether `fit` has run."""
        return self.tokenizer.is_fitted and self.num_fits > 0

    def fit(
        self,
        episodes: Sequence[Episode],
        *,
        tokenizer_steps: int | None = None,
        dynamics_steps: int | None = None,
        log_dir: str | Path | None = None,
        progress: bool = True,
        on_log: Callable[[int, Mapping[str, float]], None] | None = None,
        checkpoint: str | Path | None = None,
        checkpoint_every: int = 500,
        devices: int = 1,
    ) -> FitResult:
        """Train the tokenizer, then the dynamics; called again, it goes on from there.

        The tokenizer is trained on the first call, and again only where new episodes show
        things that it loses, so that tokens keep their meaning.

        Args:
            episodes: All episodes to learn from, those of earlier calls included.
            tokenizer_steps: Gradient steps of the tokenizer; None takes the config's.
            dynamics_steps: Gradient steps of the dynamics; None takes the config's.
            log_dir: TensorBoard folder, or None.
            progress: Whether to show progress bars.
            on_log: Called with the gradient step and the losses, now and then.
            checkpoint: File that the state of this fit is written to. Where it is there already and
                is this very fit's (settings, seed, gradient steps, episodes), the fit goes on from
                it and ends with the weights that it would have had. It stays when the fit is over;
                delete it once the model is saved.
            checkpoint_every: Gradient steps of the dynamics between two writes.
            devices: Processes that train the dynamics together, a GPU each or a part of the CPU;
                they must divide the batch size. The result is that of one, but for rounding.

        Raises:
            ConfigError: If the batch cannot be shared out among the devices.
            CheckpointError: If the checkpoint is damaged, or another fit's that is not finished.
            DatasetError: If there are no episodes, or they do not fit the model's spaces.
            TrainingError: If a loss or a gradient is not finite, in which case the model has the
                last good weights, or one of several processes fails.
        """
        return fit_world_model(
            self,
            episodes,
            gradient_steps=self.config.gradient_steps(tokenizer_steps, dynamics_steps),
            log_dir=log_dir,
            progress=progress,
            on_log=on_log,
            checkpoint=checkpoint,
            checkpoint_every=checkpoint_every,
            devices=devices,
        )

    def encode(self, observations: Any) -> Tensor:
        """Encode a nested batch of observations to tokens (B, K) int64."""
        return self.tokenizer.encode(observations)

    def decode(self, tokens: Tensor) -> Any:
        """Decode tokens (B, K) to a nested numpy batch in the observation space."""
        return self.tokenizer.decode(tokens)

    def embed(self, tokens: Tensor) -> Tensor:
        """Look up the code vectors of tokens: (B, K) -> (B, K, E) float32."""
        return self.tokenizer.embed(tokens)

    def encode_actions(self, actions: Any) -> Tensor:
        """Encode actions (..., *action shape) as `Imagination.step` takes them: (..., A)."""
        return self.action_codec.encode(actions, self.device)

    def dataset(self, episodes: Sequence[Episode]) -> TokenDataset:
        """Tokenize episodes, once, onto the device."""
        if not len(episodes):
            raise DatasetError("`episodes` must hold at least one episode, got none")
        paths = list(space_tools.leaves(self.observation_space))
        tokens = [
            self.tokenizer.encode_flat(
                {path: np.concatenate([e.observations[path] for e in part]) for path in paths}
            )
            for part in _parts(episodes)
        ]
        return TokenDataset(torch.cat(tokens), episodes, self.action_codec, self.config.context)

    def imagination(
        self, num_rows: int, *, sampler: SamplerConfig | None = None, seed: int = 0
    ) -> Imagination:
        """Make an engine for `num_rows` worlds at once.

        Raises:
            DatasetError: If the model has not been trained.
        """
        if not self.is_fitted:
            raise DatasetError("the world model has not been trained: call `fit` first")
        if num_rows < 1:
            raise ConfigError(f"`num_rows` must be at least 1, got {num_rows}")
        generator = torch.Generator(self.device).manual_seed(derived_seed(seed, "imagination"))
        return Imagination(self.dynamics, num_rows, sampler or self.config.sampler, generator)

    def imagine(
        self,
        context: Context | Any,
        actions: Any = None,
        *,
        policy: Policy | Callable[[Any], Any] | None = None,
        horizon: int | None = None,
        sampler: SamplerConfig | None = None,
        seed: int = 0,
    ) -> Rollout:
        """Dream B trajectories, from given actions or by a policy.

        Args:
            context: A `Context`, or a nested batch (B, ...) of first observations.
            actions: (B, H, *action shape), or None with a policy.
            policy: An SB3 model or a function from a nested batch of observations to actions. A
                model that gives a state beside its actions gets it back at the next step; of the
                frames before the last of `context` it knows where it has `state_before`, as
                `DreamPPO` has.
            horizon: H, with a policy.
            sampler: How frames are sampled; None takes the config's.
            seed: Of the dream.

        Raises:
            ConfigError: If not exactly one of `actions` and `policy` is given, or `horizon`
                is under 1.
        """
        remember = getattr(policy, "state_before", lambda *_: None)
        choose, horizon = action_source(actions, policy, horizon, lambda: remember(self, context))
        if not isinstance(context, Context):
            context = self.first_frames(self.encode(context))
        engine = self.imagination(len(context), sampler=sampler, seed=seed)
        engine.reset(context)
        flight = engine.sampler.frames_in_flight
        if flight > 1 and policy is not None:
            raise ConfigError(
                f"`frames_in_flight` must be 1 with a policy, got {flight}: it makes frames whose "
                "actions are known in advance"
            )
        taken, results = [], []
        for time in range(horizon):
            action = np.asarray(choose(time, self.decode, engine.tokens))
            if len(action) != len(context):
                raise ShapeError(
                    f"there must be an action for each of {len(context)} worlds, got {len(action)}"
                )
            taken.append(action)
            if flight == 1:
                results.append(engine.step(self.encode_actions(action)))
        if flight > 1:
            results = engine.roll(self.encode_actions(np.stack(taken, 1)))
        return Rollout.of(
            stack_steps(results), np.stack(taken, 1), self.tokenizer, self.observation_space
        )

    def fill_in(
        self,
        context: Context | Any,
        goal: Any = None,
        *,
        desired_return: float | np.ndarray | None = None,
        horizon: int,
        guidance: float = 2.0,
        num_candidates: int = 1,
        sampler: SamplerConfig | None = None,
        seed: int = 0,
    ) -> AimedRollout:
        """Dream B trajectories, actions included, that lead to a goal or to a return.

        Actions are drawn one by one, each from its frame, the frames before it, and the aim; the
        next frame is then the dynamics' own, which does not know the aim. So guidance chooses
        actions and never wishes for outcomes. In a world of chance the dream draws its luck like
        any other, what was dreamt is one of the things that may happen, and the best of many
        candidates is likely a lucky one.

        It needs `DynamicsConfig.goal_horizon`; `guidance` and all else is free at each call.

        Args:
            context: A `Context`, or a nested batch (B, ...) of first observations.
            goal: A nested batch (B, ...) of the observations to be reached; all of their tokens
                count. In place of it,
            desired_return: the sum of rewards to be obtained, a number or (B,).
            horizon: H, most environment steps; the dream goes on to the end of them.
            guidance: Weight of the aim: 0 acts as the episodes did that the model learned from,
                1 as those of them that came there, more prefers what leads there more surely.
            num_candidates: Dreams of each start, of which one is kept: that which reaches the
                goal soonest or comes nearest to it, or to the return, as the dream itself says.
            sampler: How frames are sampled; None takes the config's.
            seed: Of the dream.

        Raises:
            ConfigError: If the model has not learned actions, not exactly one of `goal` and
                `desired_return` is given, or a number is out of its range.
            ShapeError: If goal or return do not fit the observation space or the starts.
        """
        return fill_in(
            self,
            context,
            goal,
            desired_return=desired_return,
            horizon=horizon,
            guidance=guidance,
            num_candidates=num_candidates,
            sampler=sampler,
            seed=seed,
        )

    def surprise(
        self,
        episodes: Sequence[Episode] | TokenDataset,
        *,
        num_samples: int = 4,
        seed: int = 0,
        progress: bool = False,
    ) -> Surprise:
        """Say how little the model expected each transition of real episodes, in nats.

        Every transition is scored given the C real frames before it. It costs `num_samples` + 1
        network passes over the episodes, many transitions at a time.

        Args:
            episodes: N transitions in all, or what `dataset` made of them.
            num_samples: Masks a frame for the bound on its tokens, which is a mean over masks;
                more make it less noisy, and 2^K - 1 make it exact. With 0 the first pass stands
                for the bound, which is true of dreams with one denoising step, and costs least;
                in Gaussian diffusion, which has no masks, it always does.
            seed: Of the masks.
            progress: Show a progress bar.

        Returns:
            Arrays (N,), the episodes one after the other.

        Raises:
            DatasetError: If the model has not been trained, or there is no episode.
            ConfigError: If `num_samples` is under 0.
        """
        if not self.is_fitted:
            raise DatasetError("the world model has not been trained: call `fit` first")
        require(num_samples >= 0, "num_samples", "be at least 0", num_samples)
        dataset = episodes if isinstance(episodes, TokenDataset) else self.dataset(episodes)
        generator = torch.Generator(self.device).manual_seed(derived_seed(seed, "surprise"))
        num_codes = int(self.tokenizer.token_nvec.max())
        count = dataset.num_frames - len(dataset.first_frames)
        with Progress("surprise", count, enabled=progress, unit="transitions") as bar:
            return score_episodes(self.dynamics, dataset, num_codes, num_samples, generator, bar)

    def summarise(self, context: Context) -> Tensor:
        """Give the network's own summary of what was before the newest frame of each world.

        It is of the pass that reads the second-last frame and the action taken in it, and
        predicts the last: the mean over that frame's K + 1 outputs, normalised to mean 0 and
        deviation 1. A world without an earlier frame has zeros.

        Every layer sees C frames, so that a summary depends on `dynamics.reach` frames. Given as
        many, it is `Imagination.summary`, which has read them one by one.

        Args:
            context: Of B worlds, of any length.

        Returns:
            (B, D) float32, D the width of the transformer.

        Raises:
            DatasetError: If the model has not been trained.
        """
        if not self.is_fitted:
            raise DatasetError("the world model has not been trained: call `fit` first")
        return self.dynamics.summarise(context)

    def first_frames(self, tokens: Tensor) -> Context:
        """Give the context of B worlds at the first frames (B, K) of their episodes."""
        batch = len(tokens)
        return Context(
            tokens.unsqueeze(1),
            self.action_codec.none(batch, 1, device=self.device),
            torch.ones(batch, 1, dtype=torch.bool, device=self.device),
        )

    def check_compatible(
        self, observation_space: spaces.Space[Any], action_space: spaces.Space[Any]
    ) -> None:
        """Make sure that the model was built for these spaces.

        Raises:
            SpaceError: If a space differs; the message names both.
        """
        for name, own, other in (
            ("observation", self.observation_space, observation_space),
            ("action", self.action_space, action_space),
        ):
            if own != other:
                raise SpaceError(
                    f"the model was built for the {name} space {space_tools.in_short(own)}, the "
                    f"environment has {space_tools.in_short(other)}: use the model's own "
                    "environment, or train a model for this one"
                )

    def state_dict(self) -> dict[str, Tensor]:
        """All weights and statistics, by name."""
        return {
            **{f"tokenizer.{name}": value for name, value in self.tokenizer.state_dict().items()},
            **{f"dynamics.{name}": value for name, value in self.dynamics.state_dict().items()},
            "num_fits": torch.tensor(self.num_fits),
        }

    def load_state_dict(self, state: Mapping[str, Tensor], strict: bool = True) -> None:
        """Restore what `state_dict` gave."""
        for prefix, module in (("tokenizer.", self.tokenizer), ("dynamics.", self.dynamics)):
            part = {
                name.removeprefix(prefix): value
                for name, value in state.items()
                if name.startswith(prefix)
            }
            module.load_state_dict(part, strict=strict)
        self.num_fits = int(state["num_fits"])
        self.tokenizer.refresh()

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the model to a folder of JSON and safetensors.

        Raises:
            CheckpointError: If the folder exists and `overwrite` is not set.
        """
        description = {
            "config": self.config.to_dict(),
            "observation_space": space_tools.space_to_json(self.observation_space),
            "action_space": space_tools.space_to_json(self.action_space),
            "environment": self.environment.to_dict() if self.environment else None,
            "seed": self.seed,
            "num_fits": self.num_fits,
        }
        tensors = {
            "tokenizer": self.tokenizer.state_dict(),
            "dynamics": self.dynamics.state_dict(),
        }
        save_folder(path, "world_model", description, tensors, overwrite=overwrite)

    @classmethod
    def load(cls, path: str | Path, *, device: str | torch.device = "auto") -> Self:
        """Read what `save` wrote.

        Raises:
            CheckpointError: If the folder is missing, damaged or holds something else.
        """
        folder = load_folder(path, "world_model", ("tokenizer", "dynamics"))
        environment = folder.field("environment")
        model = cls.for_spaces(
            space_tools.space_from_json(folder.field("observation_space")),
            space_tools.space_from_json(folder.field("action_space")),
            environment=EnvironmentSpec.from_dict(environment) if environment else None,
            config=WorldModelConfig.from_dict(folder.field("config")),
            seed=folder.field("seed"),
            device=device,
        )
        folder.restore("tokenizer", model.tokenizer)
        folder.restore("dynamics", model.dynamics)
        model.num_fits = folder.field("num_fits")
        model.tokenizer.refresh()
        return model


def _parts(episodes: Sequence[Episode]) -> Iterator[list[Episode]]:
    """Cut episodes into parts of a few thousand frames: pictures are many bytes, tokens few."""
    part: list[Episode] = []
    frames = 0
    for episode in episodes:
        part.append(episode)
        frames += len(episode) + 1
        if frames >= _FRAMES_AT_ONCE:
            yield part
            part, frames = [], 0
    if part:
        yield part


def _refuse_text(space: spaces.Space[Any]) -> None:
    texts = [p for p, leaf in space_tools.leaves(space).items() if isinstance(leaf, spaces.Text)]
    if texts:
        raise SpaceError(
            f"a world model does not dream text yet, got {', '.join(texts)}: make the environment "
            "without `text=True`, or use a `Tokenizer` alone"
        )
