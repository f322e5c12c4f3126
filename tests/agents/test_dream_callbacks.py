"""SB3's callbacks, and `PhaseCallback`, around `DreamPPO`."""

from __future__ import annotations

import pytest
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CallbackList,
    CheckpointCallback,
    EvalCallback,
    EveryNTimesteps,
    ProgressBarCallback,
    StopTrainingOnMaxEpisodes,
    StopTrainingOnRewardThreshold,
)
from stable_baselines3.common.monitor import Monitor
from worlds import CountingWorld, DictWorld

from tests.agents.small_agents import DICT, Diary, make_agent
from worldgen.agents import DreamPPO
from worldgen.agents.callbacks import phase_callbacks


class Calls(BaseCallback):
    """Counts what SB3 promises to call."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def _on_training_start(self):
        assert self.locals["total_timesteps"] == 96
        self.calls.append("start")

    def _on_rollout_start(self):
        self.calls.append("rollout")

    def _on_step(self):
        assert {"infos", "rewards", "dones", "actions", "new_obs"} <= self.locals.keys()
        assert self.training_env.num_envs == 8
        self.calls.append("step")
        return True

    def _on_rollout_end(self):
        self.calls.append("rollout end")

    def _on_training_end(self):
        self.calls.append("end")


def test_callbacks_see_the_real_environment_steps():
    calls = Calls()
    make_agent().learn(96, calls)
    expected = ["rollout", *["step"] * 8, "rollout end", "rollout", *["step"] * 4, "rollout end"]
    assert calls.calls == ["start", *expected, "end"]
    assert calls.n_calls == 12


def test_a_function_stops_the_training_at_once_and_it_can_go_on(diary):
    agent = make_agent()
    agent.learn(96, lambda *_: agent.num_timesteps < 24)
    assert (agent.num_timesteps, agent.phase) == (24, "collect")
    assert not agent.world_model.is_fitted
    agent.learn(72, diary, reset_num_timesteps=False)
    assert (agent.num_timesteps, agent.round) == (96, 2)
    assert diary.metrics[0]["real_timesteps"] == 64  # the first collection, completed


def test_evaluation_and_its_stopping_rule():
    stop = StopTrainingOnRewardThreshold(-1.0)
    evaluation = EvalCallback(
        Monitor(DictWorld()), stop, n_eval_episodes=1, eval_freq=10, deterministic=False, verbose=0
    )
    agent = make_agent(DICT).learn(160, evaluation)
    assert evaluation.last_mean_reward == 1.0
    assert agent.num_timesteps == 80  # ten steps of eight rows, in the second collection


def test_checkpoints_can_be_loaded(tmp_path):
    make_agent().learn(96, CheckpointCallback(4, str(tmp_path), "agent"))
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["agent_32_steps.zip", "agent_64_steps.zip", "agent_96_steps.zip"]
    agent = DreamPPO.load(tmp_path / "agent_32_steps.zip", device="cpu")
    assert (agent.num_timesteps, agent.phase, agent.round) == (32, "collect", 0)


def test_episodes_are_counted():
    agent = make_agent(CountingWorld).learn(96, StopTrainingOnMaxEpisodes(2))
    assert agent.num_timesteps == 32  # episodes of 3 and 1 environment steps


@pytest.mark.filterwarnings("ignore::tqdm.TqdmExperimentalWarning")
def test_sb3s_own_progress_bar_works():
    bar = ProgressBarCallback()
    make_agent().learn(96, bar)
    assert bar.pbar.n == 96


def test_phase_callbacks_are_found_inside_others():
    inner, outer, listed = Diary(), Diary(), Diary()
    nested = CallbackList([EveryNTimesteps(8, inner), CallbackList([listed]), outer, Calls()])
    assert list(phase_callbacks(nested)) == [inner, listed, outer]
    make_agent().learn(96, [nested])
    assert inner.phases == listed.phases == outer.phases == ["collect", "fit", "dream"] * 2


def test_the_state_at_a_phases_end_is_that_of_the_next(tmp_path):
    states = []

    class Saving(Diary):
        def on_phase_end(self, phase, metrics):
            self.model.save(tmp_path / f"{len(states)}.zip")
            states.append((self.model.phase, self.model.round))

    make_agent().learn(96, Saving())
    assert states[:4] == [("fit", 0), ("dream", 0), ("collect", 1), ("fit", 1)]
    for index, state in enumerate(states):
        agent = DreamPPO.load(tmp_path / f"{index}.zip", device="cpu")
        assert (agent.phase, agent.round) == state
