"""Updates of the policy on real environment steps, against SB3's own rollouts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback

from tests.agents.small_agents import (
    DICT,
    GRID,
    IMAGE,
    VECTOR,
    Diary,
    assert_equal_weights,
    gone_on_with,
    make_agent,
    some_episodes,
    some_model,
)
from worldgen.agents.dream_training import learner_for
from worldgen.agents.real_env import EpisodeRecorder
from worldgen.agents.real_update import real_rollout
from worldgen.data import Episode, Episodes
from worldgen.envs.observation_view import MEMORY

NUM_STEPS = 150


class Recorded(BaseCallback):
    """Writes what SB3 collects into episodes."""

    def __init__(self, recorder: EpisodeRecorder) -> None:
        super().__init__()
        self.recorder = recorder

    def _on_rollout_start(self):
        self.recorder.begin(self.model._last_obs)

    def _on_step(self):
        seen = self.locals
        self.recorder.add(
            seen["clipped_actions"], seen["rewards"], seen["dones"], seen["infos"], seen["new_obs"]
        )
        return True


@pytest.mark.parametrize("env", [GRID, VECTOR, DICT, IMAGE])
def test_episodes_give_the_rollout_that_sb3_has_collected(env):
    agent = make_agent(env, n_envs=1, batch_size=4)
    learner = learner_for(agent, agent.env)
    with EpisodeRecorder(agent.env, agent.episodes, None) as recorder:
        _, callback = learner._setup_learn(NUM_STEPS, Recorded(recorder))
        theirs = type(learner.rollout_buffer)(
            NUM_STEPS,
            learner.observation_space,
            learner.action_space,
            "cpu",
            gamma=agent.gamma,
            gae_lambda=agent.gae_lambda,
        )
        learner.collect_rollouts(learner.env, callback, theirs, NUM_STEPS)
    ours = real_rollout(agent, agent.episodes)
    ends = [(episode.terminated[-1], episode.truncated[-1]) for episode in agent.episodes]
    assert (False, False) in ends
    assert len(set(ends)) > 1
    assert torch.equal(tensor(ours.observations), tensor(theirs.observations))
    for name in ("episode_starts", "values", "advantages", "returns"):
        assert np.allclose(getattr(ours, name), getattr(theirs, name), atol=1e-5), name
    within = (ours.actions == theirs.actions).all(-1)  # SB3 keeps actions as they were drawn
    assert within.all() or env == VECTOR
    assert within.sum() > 10
    assert np.allclose(ours.log_probs[within], theirs.log_probs[within], atol=1e-5)


def tensor(observations) -> torch.Tensor:
    """Flatten a Dict of observations, or a Box, to (T, entries)."""
    parts = observations if isinstance(observations, dict) else {"": observations}
    columns = [torch.as_tensor(part).float().reshape(NUM_STEPS, -1) for part in parts.values()]
    return torch.cat(columns, 1)


def test_a_policy_with_memory_is_shown_what_it_remembers():
    model, episodes = some_model(GRID), some_episodes(GRID)[:2]
    agent = make_agent(GRID, memory=True, world_model=model, model_config=None, episodes=episodes)
    rollout = real_rollout(agent, episodes)
    assert isinstance(rollout.observations, dict)
    dataset = model.dataset(episodes)
    contexts = dataset.contexts_to(dataset.moments, model.dynamics.reach)
    remembered = rollout.observations[MEMORY][:, 0]
    assert np.allclose(remembered, model.summarise(contexts).numpy(), atol=0.02)
    assert np.abs(remembered).sum(1).astype(bool).sum() == episodes.num_steps - len(episodes)


def test_the_policy_learns_from_what_it_did_itself():
    plain, both = make_agent().learn(128), make_agent(real_epochs=2)
    diary = Diary()
    both.learn(128, callback=diary)
    dreams = diary.metrics[2::3]
    assert ["real_train/loss" in metrics for metrics in dreams] == [False, True, True]
    assert both._n_updates == plain._n_updates + 2 * 2
    assert all(np.isfinite(value) for value in dreams[1].values())


def test_a_dream_that_is_made_again_learns_from_reality_once():
    agent = make_agent(real_epochs=2).learn(96)
    agent.phase, agent.round = "dream", 1  # as it was when a dream was broken off
    agent._round_timesteps = 32
    assert "real_train/loss" not in agent._dream_phase()


def test_saved_amid_and_loaded_equals_undisturbed(tmp_path):
    undisturbed = make_agent(real_epochs=2).learn(128)
    broken = make_agent(real_epochs=2)
    broken.learn(128, callback=Diary(stop_after=(1, "fit")))
    assert_equal_weights(gone_on_with(broken, tmp_path / "agent.zip", 128), undisturbed)


def test_a_single_real_step_is_no_obstacle():
    agent = make_agent(n_envs=1, steps_per_round=1, initial_steps=8, real_epochs=1).learn(9)
    assert agent.num_timesteps == 9


@pytest.mark.parametrize("actions", [spaces.MultiBinary(3), spaces.MultiDiscrete([2, 3])])
def test_actions_of_several_entries(actions):
    rows = np.random.default_rng(0)
    observations = rows.uniform(-1, 1, (9, 3)).astype(np.float32)
    episode = Episode(
        observations={"observation": observations},
        actions=np.stack([actions.sample() for _ in range(8)]),
        rewards=np.ones(8, np.float32),
        terminated=np.arange(8) == 7,
        truncated=np.zeros(8, bool),
    )
    episodes = Episodes(spaces.Box(-1, 1, (3,)), actions, [episode])
    agent = make_agent(None, "MlpPolicy", episodes=episodes)
    rollout = real_rollout(agent, episodes)
    assert np.array_equal(rollout.actions[:, 0], episode.actions)
    assert (rollout.log_probs < 0).all()
    assert rollout.returns[-1, 0] == pytest.approx(1.0)


def test_buffers_are_sb3s_own():
    agent = make_agent(VECTOR, episodes=some_episodes(VECTOR)[:])
    assert type(real_rollout(agent, agent.episodes)) is RolloutBuffer
