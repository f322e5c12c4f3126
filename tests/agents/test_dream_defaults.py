"""Settings that suit what an environment shows, wherever nobody says otherwise."""

from __future__ import annotations

from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv

from worldgen import WorldModelConfig, collect
from worldgen.agents import OFFLINE_CONFIG, DreamConfig, DreamPPO, dream_defaults
from worldgen.agents.dream_defaults import observation_space_of
from worldgen.cli.arguments import parse
from worldgen.cli.train import Arguments
from worldgen.cli.train_offline import Arguments as OfflineArguments
from worldgen.errors import EnvironmentIdError

REALS = spaces.Box(-1.0, 1.0, (4,))


@pytest.mark.parametrize(
    ("space", "process"),
    [
        (REALS, "gaussian"),
        (spaces.Dict(a=REALS, b=REALS), "gaussian"),
        (spaces.Dict(a=REALS, b=spaces.Discrete(3)), "masked"),
        (spaces.Box(0, 255, (64, 64, 3), np.uint8), "masked"),
    ],
)
def test_vectors_of_reals_have_settings_of_their_own(space, process):
    suited = dream_defaults(space)
    assert suited.model_config.dynamics.process == process
    usual = (suited.config, suited.model_config, suited.n_envs)
    assert (usual == (DreamConfig(), WorldModelConfig(), 4)) == (process == "masked")
    offline = dream_defaults(space, offline=True).config
    assert offline.initial_steps == 0
    assert (offline == OFFLINE_CONFIG) == (process == "masked")
    for config in (suited.config, offline):  # Nothing is done about vectors that seem stuck.
        done = (config.logit_shrink < 1, config.stuck_gamma < 1, config.stuck_dream_steps > 0)
        assert done == (process == "masked",) * 3


def test_numbers_of_states_are_taken_for_a_world_of_chance():
    usual = WorldModelConfig()
    dynamics = replace(usual.dynamics, outcome_from="next_frame")
    numbers = spaces.Tuple([spaces.Discrete(32), spaces.Discrete(11)])
    for space in (spaces.Discrete(16), numbers):
        suited = dream_defaults(space)
        assert suited.model_config == replace(usual, dynamics=dynamics)
        assert suited.config == replace(DreamConfig(), silent_novelty=0.3)
        assert dream_defaults(space, offline=True).config == OFFLINE_CONFIG
    mixed = spaces.Dict(a=spaces.Discrete(3), b=spaces.MultiDiscrete([2, 3]))
    assert dream_defaults(mixed).model_config == usual


@pytest.mark.parametrize(
    "env",
    [
        "CartPole-v1",
        lambda: gym.make("CartPole-v1"),
        pytest.param(lambda: DummyVecEnv([lambda: gym.make("CartPole-v1")]), id="rows"),
    ],
)
def test_an_agent_takes_them_however_its_environment_is_given(env):
    made = env() if callable(env) else env
    agent = DreamPPO("MlpPolicy", made, device="cpu", gamma=0.9)
    suited = dream_defaults(gym.make("CartPole-v1").observation_space)
    assert agent.config.gamma == 0.9
    assert agent.config.horizon == suited.config.horizon
    assert agent.world_model.config == suited.model_config
    assert agent.n_envs == 1


def test_they_are_for_what_is_left_of_an_environment_once_it_is_prepared():
    class Titled(gym.ObservationWrapper):
        def __init__(self, env):
            super().__init__(env)
            parts = {"obs": env.observation_space, "title": spaces.Text(9)}
            self.observation_space = spaces.Dict(parts)

        def observation(self, observation):
            return {"obs": observation, "title": "a pole"}

    def make():
        return Titled(gym.make("CartPole-v1"))

    given = [observation_space_of(env) for env in (make, make())]
    assert given[0] == given[1]
    assert dream_defaults(given[1]).n_envs == 1


def test_what_is_given_is_taken():
    agent = DreamPPO("MlpPolicy", "CartPole-v1", device="cpu", n_envs=3, config=DreamConfig())
    assert (agent.config, agent.n_envs) == (DreamConfig(), 3)
    model = WorldModelConfig()
    agent = DreamPPO("MlpPolicy", "CartPole-v1", device="cpu", model_config=model)
    assert agent.world_model.config == model
    assert agent.config.horizon == dream_defaults(REALS).config.horizon
    with pytest.raises(ValueError, match="`n_envs` must be at least 1, got 0"):
        DreamPPO("MlpPolicy", "CartPole-v1", n_envs=0)


def test_a_loaded_agent_keeps_its_own(tmp_path):
    episodes = collect("CartPole-v1", 64, progress=False)
    agent = DreamPPO("MlpPolicy", "CartPole-v1", device="cpu", horizon=7, n_envs=2)
    agent.save(tmp_path / "agent")
    loaded = DreamPPO.load(tmp_path / "agent", env="CartPole-v1", n_envs=2, episodes=episodes)
    assert loaded.config == agent.config
    assert loaded.world_model.config == agent.world_model.config


def test_the_command_line_shows_and_takes_them(capsys):
    suited = dream_defaults(REALS)
    given = parse(Arguments, "train", "", ["--dream.gamma", "0.5", "CartPole-v1", "--seed", "3"])
    assert given.dream == DreamConfig(
        **{**suited.config.to_dict(), "gamma": 0.5, "starts": suited.config.starts}
    )
    assert (given.env, given.seed, given.num_envs) == ("CartPole-v1", 3, 1)
    assert given.model == suited.model_config
    usual = parse(Arguments, "train", "", ["MiniGrid-Empty-5x5-v0"])
    assert (usual.dream, usual.model, usual.num_envs) == (DreamConfig(), WorldModelConfig(), 4)
    for named in (["CartPole-v1"], [], ["NoSuch-v0"]):
        with pytest.raises(SystemExit) as ended:
            parse(Arguments, "train", "", [*named, "--help"])
        assert not ended.value.code
        horizon = suited.config.horizon if named == ["CartPole-v1"] else DreamConfig().horizon
        shown = capsys.readouterr().out.split("--dream.horizon")[1]
        assert f"(default: {horizon})" in shown[:400]
    with pytest.raises(EnvironmentIdError, match="NoSuch-v0"):
        parse(Arguments, "train", "", ["NoSuch-v0"])


def test_the_command_line_takes_them_offline(tmp_path):
    collect("CartPole-v1", 64, path=tmp_path / "data", progress=False)
    given = ["--offline", "--dataset", str(tmp_path / "data"), "--dream.horizon", "9"]
    arguments = parse(OfflineArguments, "train", "", given)
    suited = dream_defaults(REALS, offline=True)
    assert (arguments.dream.horizon, arguments.dream.gamma) == (9, suited.config.gamma)
    assert arguments.model == suited.model_config
