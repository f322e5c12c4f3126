"""PPO with a world model, whose policy may see the model's summary of the past.

Classes:
    RememberingPPO: base of `DreamPPO`; acts in the real environment.

Functions:
    policy_with_memory: the policy for observations with a memory beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from stable_baselines3.common.policies import (
    ActorCriticCnnPolicy,
    ActorCriticPolicy,
    MultiInputActorCriticPolicy,
)
from stable_baselines3.common.torch_layers import FlattenExtractor, NatureCNN

from worldgen.acting import Acting, State
from worldgen.agents.dream_config import DreamConfig
from worldgen.agents.real_memory import RealMemory
from worldgen.agents.recording_ppo import RecordingPPO
from worldgen.config import require
from worldgen.data.token_dataset import Context
from worldgen.envs.observation_view import MEMORY, with_memory
from worldgen.errors import ConfigError, ShapeError
from worldgen.seeding import derived_seed
from worldgen.spaces import flatten, leaves
from worldgen.world_model import WorldModel, WorldModelConfig

__all__ = ["RememberingPPO", "policy_with_memory"]


class RememberingPPO(RecordingPPO):
    """A `RecordingPPO` with a world model.

    With `DreamConfig.memory` the policy reads a Dict of the observation and the model's summary of
    the past, while `observation_space` stays the environment's: `predict` takes what that gives,
    and a state.

    Attributes:
        config: Numbers of the loop.
    """

    config: DreamConfig
    _entropy: int
    _model_config: WorldModelConfig | None
    _world_model: WorldModel | None

    def _setup_model(self) -> None:
        real = self.observation_space
        if self.config.memory:
            config = self._world_model.config if self._world_model else self._model_config
            width = (config or WorldModelConfig()).dynamics.transformer.width
            self.observation_space = with_memory(real, width)
        super()._setup_model()  # makes the policy, for this space
        self.observation_space = real
        if self._world_model is None:
            self._world_model = WorldModel.for_spaces(
                self._real_space,
                self.action_space,
                environment=self._environment,
                config=self._model_config,
                seed=derived_seed(self._entropy, "world model"),
                device=self.device,
            )
        model = self._world_model
        model.check_compatible(self._real_space, self.action_space)
        if model.device != self.device:
            raise ConfigError(
                f"`device` must be the world model's, {model.device}, got {self.device}"
            )
        self._model_config = model.config

    @property
    def world_model(self) -> WorldModel:
        """The model of the environment."""
        assert self._world_model is not None
        return self._world_model

    def predict(
        self,
        observation: Any,
        state: State | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, State | None]:
        """Choose actions in the real environment, as in SB3.

        With `DreamConfig.memory` the state is what was seen and done in the last frames, and to be
        given back at the next step, as with sb3-contrib's recurrent policies. The actions are taken
        to be what is done. States belong to the world model as it is: begin anew after `learn`.

        Args:
            observation: One of the environment's observations, or a batch of N.
            state: What the last call gave; None at the beginning, and without memory.
            episode_start: (N,) bool, rows in which an episode begins, whose past is forgotten.
            deterministic: Whether to take the likeliest actions.

        Returns:
            An action, or a batch of them, and the state: arrays whose second axis has the N rows,
            or None without memory.

        Raises:
            ShapeError: With memory, if an observation does not have the environment's shape, or the
                state is not one of N rows.
        """
        if not self.config.memory:
            return super().predict(observation, state, episode_start, deterministic)
        frames, is_batch = self._raw_frames(observation)
        memory = RealMemory(self.world_model)
        shown = {**frames, MEMORY: memory.read(frames, state, episode_start)}
        actions, _ = self.policy.predict(shown, deterministic=deterministic)
        return (actions if is_batch else actions[0]), memory.after(actions)

    def state_before(self, model: WorldModel, context: Context) -> State | None:
        """Give the state for `predict` at the newest frames of a dream's context.

        Args:
            model: Whose tokens are in `context`.
            context: As `WorldModel.imagine` takes it.
        """
        if not self.config.memory or context.tokens.shape[1] == 1:
            return None
        if model is not self.world_model:
            decoded = model.tokenizer.decode_flat(context.tokens.flatten(0, 1))
            tokens = self.world_model.tokenizer.encode_flat(decoded)
            tokens = tokens.view(*context.tokens.shape[:2], -1)
            context = Context(tokens, context.actions, context.valid)
        return RealMemory(self.world_model).before(context)

    def _raw_frames(self, observation: Any) -> tuple[dict[str, np.ndarray], bool]:
        """Give a flat batch, pictures with channels last, and whether it was a batch already."""
        shown = flatten(self._real_space, observation)
        as_sb3_has_it = leaves(self.observation_space)  # pictures with channels first
        frames, batched = {}, set()
        for path, leaf in leaves(self._real_space).items():
            part, shape = shown[path].astype(leaf.dtype, copy=False), leaf.shape or ()
            behind = part.shape[part.ndim - len(shape) :]
            if behind != shape and behind == as_sb3_has_it[path].shape:
                part = np.moveaxis(part, -3, -1)
            elif behind != shape or part.ndim > len(shape) + 1:
                raise ShapeError(
                    f"the observation's {path!r} must have shape {shape}, or a batch of it, got "
                    f"{part.shape}"
                )
            batched.add(part.ndim > len(shape))
            frames[path] = part.reshape(-1, *shape)
        return frames, batched == {True}

    def _policy_actions(self) -> Callable[[], np.ndarray]:
        """Give what acts in a collection; memory begins where the recorded episodes begin."""
        acting = Acting(self.predict, deterministic=False)

        def choose() -> np.ndarray:
            assert self._last_episode_starts is not None
            return np.asarray(acting(self._last_obs, self._last_episode_starts))

        return choose


def policy_with_memory(
    policy: str | type[ActorCriticPolicy], policy_kwargs: Mapping[str, Any] | None
) -> type[ActorCriticPolicy]:
    """Give the policy that reads a Dict, whatever the environment's observation is.

    Args:
        policy: "MlpPolicy" and "MultiInputPolicy" name the same here; or a class.
        policy_kwargs: Of the policy; its features extractor must read a Dict.

    Raises:
        ConfigError: If the policy, or its features extractor, cannot read a Dict.
    """
    known: dict[str, type[ActorCriticPolicy]] = {
        "MlpPolicy": MultiInputActorCriticPolicy,
        "MultiInputPolicy": MultiInputActorCriticPolicy,
        "CnnPolicy": ActorCriticCnnPolicy,
    }
    found = known.get(policy, policy) if isinstance(policy, str) else policy
    rule = 'be "MultiInputPolicy" with `memory=True`, which makes observations a Dict'
    require(not isinstance(found, str), "policy", rule, policy)
    assert not isinstance(found, str)
    usual: dict[type, type] = {ActorCriticPolicy: FlattenExtractor, ActorCriticCnnPolicy: NatureCNN}
    extractor = (policy_kwargs or {}).get("features_extractor_class", usual.get(found, object))
    reads_one = isinstance(extractor, type) and issubclass(extractor, FlattenExtractor | NatureCNN)
    if reads_one and "features_extractor_class" in (policy_kwargs or {}):
        rule = "read a Dict with `memory=True`, as `SymbolicExtractor` does"
        require(False, "policy_kwargs['features_extractor_class']", rule, extractor.__name__)
    require(not reads_one, "policy", rule, policy)
    return found
