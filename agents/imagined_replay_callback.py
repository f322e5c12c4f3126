"""What brings an agent and its `ImaginedReplayBuffer` together.

Classes:
    ImaginedReplayCallback: lets the buffer follow the agent's policy, and logs.
"""

from __future__ import annotations

from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from worldgen.agents.imagined_replay_buffer import ImaginedReplayBuffer
from worldgen.errors import ConfigError

__all__ = ["ImaginedReplayCallback"]


class ImaginedReplayCallback(BaseCallback):
    """Let the agent's `ImaginedReplayBuffer` follow its policy, and log what its fits found.

    Logged are "imagined/transitions", "imagined/horizon" and what `WorldModel.fit` found, as
    "imagined/...".
    """

    def _on_training_start(self) -> None:
        self._buffer().attach(self._agent())

    def _agent(self) -> OffPolicyAlgorithm:
        if not isinstance(self.model, OffPolicyAlgorithm):
            raise ConfigError(
                "the agent must be DQN, SAC, TD3 or another with a replay buffer, got "
                f"{type(self.model).__name__}: leave the ImaginedReplayCallback out"
            )
        return self.model

    def _buffer(self) -> ImaginedReplayBuffer:
        buffer = self._agent().replay_buffer
        if not isinstance(buffer, ImaginedReplayBuffer):
            raise ConfigError(
                "`replay_buffer_class` of the agent must be ImaginedReplayBuffer, got "
                f"{type(buffer).__name__}"
            )
        return buffer

    def _on_step(self) -> bool:
        buffer = self._buffer()
        if buffer.is_imagining:
            self.logger.record(
                "imagined/transitions", buffer.imagined.size() * buffer.config.rollouts
            )
            self.logger.record("imagined/horizon", buffer.config.horizon_at(buffer.real_steps))
            for name, value in buffer.metrics.items():
                self.logger.record(f"imagined/{name}", value)
        return True
