"""Saving and loading of `DreamPPO`."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from stable_baselines3 import PPO
from worlds import CountingWorld

from tests.agents.small_agents import (
    DICT,
    GRID,
    IMAGE,
    VECTOR,
    Diary,
    assert_equal_weights,
    gone_on_with,
    make_agent,
)
from worldgen import Episodes, WorldModelConfig
from worldgen.agents import DreamPPO
from worldgen.errors import CheckpointError, ConfigError, DatasetError, SpaceError

IN_ANOTHER_PROCESS = """
import json, sys
import numpy as np
import torch
torch.set_num_threads(1)
import gymnasium
from worldgen import Episodes
from worldgen.agents import DreamPPO
folder, env_id, tests = sys.argv[1:]
sys.path.append(tests)  # now, since tests/worldgen would be taken for the library
import worlds
agent = DreamPPO.load(folder + "/agent.zip", env=env_id, n_envs=4, device="cpu",
                      episodes=Episodes.load(folder + "/episodes"))
observation, _ = gymnasium.make(env_id).reset(seed=3)
before = agent.predict(observation, deterministic=True)[0].tolist()
tokens = agent.world_model.encode({k: np.asarray(v)[None] for k, v in observation.items()}
    if isinstance(observation, dict) else observation[None]).tolist()
agent.learn(32, reset_num_timesteps=False)
print(json.dumps([before, tokens, agent.num_timesteps, agent.imagined_timesteps, agent.round,
                  agent.episodes.num_steps, agent.world_model.num_fits]))
"""


@pytest.mark.parametrize(("env_id", "memory"), [(DICT, False), (IMAGE, False), (IMAGE, True)])
def test_another_process_acts_alike_and_goes_on(env_id, memory, tmp_path, repository):
    agent = make_agent(env_id, n_envs=4, memory=memory, episodes_path=tmp_path / "episodes").learn(
        64
    )
    agent.save(tmp_path / "agent")
    tests = str(repository / "tests")
    command = [sys.executable, "-c", IN_ANOTHER_PROCESS, str(tmp_path), env_id, tests]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    acted, tokens, real, imagined, rounds, recorded, fits = json.loads(done.stdout)
    observation, _ = (
        agent.env.venv.envs[0].reset(seed=3)
        if env_id == IMAGE
        else (agent.env.envs[0].reset(seed=3))
    )
    assert agent.predict(observation, deterministic=True)[0].tolist() == acted
    batch = (
        {key: np.asarray(part)[None] for key, part in observation.items()}
        if isinstance(observation, dict)
        else observation[None]
    )
    assert agent.world_model.encode(batch).tolist() == tokens
    assert (real, imagined, rounds, recorded, fits) == (96, 64, 2, 96, 2)


def test_everything_comes_back(tmp_path):
    agent = make_agent().learn(96)
    agent.save(tmp_path / "agent.zip")
    loaded = DreamPPO.load(tmp_path / "agent.zip", device="cpu")
    assert_equal_weights(agent, loaded)
    for name in ("num_timesteps", "imagined_timesteps", "phase", "round", "config", "seed"):
        assert getattr(loaded, name) == getattr(agent, name)
    assert loaded.world_model.config == agent.world_model.config
    assert loaded.world_model.environment == agent.world_model.environment
    moments = agent.policy.optimizer.state_dict()["state"]
    restored = loaded.policy.optimizer.state_dict()["state"]
    assert torch.equal(moments[0]["exp_avg"], restored[0]["exp_avg"])


@pytest.mark.parametrize("pause", [(0, "collect"), (0, "fit"), (0, "dream"), (1, "collect")])
def test_going_on_equals_never_having_stopped(pause, tmp_path):
    whole = make_agent().learn(96)
    part = make_agent().learn(96, Diary(stop_after=pause))
    loaded = gone_on_with(part, tmp_path / "agent.zip", 96)
    assert loaded.num_timesteps == whole.num_timesteps
    assert_equal_weights(whole, loaded)


def test_steps_made_after_the_save_are_counted(tmp_path, caplog):
    agent = make_agent(CountingWorld, episodes_path=tmp_path / "episodes")
    agent.save(tmp_path / "agent.zip")
    agent.learn(64, lambda *_: agent.num_timesteps < 40)  # killed in the first collection
    loaded = DreamPPO.load(
        tmp_path / "agent.zip",
        env=CountingWorld,
        device="cpu",
        episodes=Episodes.load(tmp_path / "episodes"),
    )
    assert loaded.num_timesteps == 40
    assert "40 environment steps of `episodes` are unknown to the agent" in caplog.text
    diary = Diary()
    loaded.learn(24, diary, reset_num_timesteps=False)
    assert loaded.num_timesteps == loaded.episodes.num_steps == 64
    assert diary.phases == ["collect", "fit", "dream"]


def test_a_resumed_agent_does_not_meet_its_first_episodes_again(tmp_path):
    agent = make_agent().learn(64)
    agent.save(tmp_path / "agent.zip")
    episodes = agent.episodes.subset(range(len(agent.episodes)))
    loaded = DreamPPO.load(
        tmp_path / "agent.zip", env=GRID, device="cpu", episodes=episodes, n_envs=8
    )
    loaded.learn(32, reset_num_timesteps=False)
    firsts = [e.observations["observation"][0].tobytes() for e in loaded.episodes]
    assert set(firsts[:8]).isdisjoint(firsts[-8:])


@pytest.mark.parametrize("rows", [1, 3])
def test_a_loaded_agent_has_as_many_rows_as_it_had(rows, tmp_path):
    agent = make_agent(n_envs=rows)
    agent.save(tmp_path / "agent.zip")
    assert DreamPPO.load(tmp_path / "agent.zip", env=GRID, device="cpu").n_envs == rows
    with (tmp_path / "agent.zip").open("rb") as file:
        assert DreamPPO.load(file, env=GRID, device="cpu").n_envs == rows
    assert DreamPPO.load(tmp_path / "agent.zip", env=GRID, device="cpu", n_envs=2).n_envs == 2


def test_what_is_no_agent_of_this_kind_is_said(tmp_path):
    with pytest.raises(CheckpointError, match=r"there is no saved agent at .*nowhere"):
        DreamPPO.load(tmp_path / "nowhere")
    (tmp_path / "text.zip").write_text("hello")
    with pytest.raises(CheckpointError, match=r"text.zip is damaged, or no saved agent"):
        DreamPPO.load(tmp_path / "text.zip")
    make_agent().save(tmp_path / "agent.zip")
    with pytest.raises(CheckpointError, match=r"is a folder, .* did you mean .*agent.zip"):
        DreamPPO.load(tmp_path)
    with (
        zipfile.ZipFile(tmp_path / "agent.zip") as whole,
        zipfile.ZipFile(tmp_path / "torn.zip", "w") as torn,
    ):
        for name in whole.namelist():
            content = whole.read(name)
            torn.writestr(name, content[:200] if name == "policy.pth" else content)
    with pytest.raises(CheckpointError, match=r"torn.zip is damaged"):
        DreamPPO.load(tmp_path / "torn.zip")
    other = PPO("MlpPolicy", "CartPole-v1", n_steps=4, batch_size=4, device="cpu")
    other.save(tmp_path / "ppo.zip")
    with pytest.raises(CheckpointError, match=r"ppo.zip was saved by another algorithm"):
        DreamPPO.load(tmp_path / "ppo.zip")


def test_another_environment_is_refused_in_a_line(tmp_path):
    make_agent().save(tmp_path / "agent")
    with pytest.raises(SpaceError, match=r"was made for, .*, got Box\(-2.0, 2.0") as error:
        DreamPPO.load(tmp_path / "agent", env=VECTOR)
    assert len(str(error.value)) < 300


def test_a_world_model_and_other_settings_for_one_are_refused():
    model = make_agent().world_model
    again = DreamPPO("MlpPolicy", GRID, world_model=model, model_config=model.config, device="cpu")
    assert again.world_model is model
    with pytest.raises(ConfigError, match="`model_config` must be left out with a `world_model`"):
        DreamPPO(
            "MlpPolicy", GRID, world_model=model, model_config=WorldModelConfig(), device="cpu"
        )


def test_what_is_missing_is_named(tmp_path):
    agent = make_agent().learn(64)
    agent.save(tmp_path / "agent.zip")
    loaded = DreamPPO.load(tmp_path / "agent.zip", device="cpu")
    with pytest.raises(ConfigError, match="no environment: pass `env` to `load`"):
        loaded.learn(64)
    loaded.set_env(GRID)
    with pytest.raises(DatasetError, match="no episodes: pass `episodes` to `load`"):
        loaded.learn(64)
    other = make_agent("worlds/Vector-v0").episodes
    with pytest.raises(SpaceError, match="`episodes` must come from"):
        loaded.set_episodes(other)
    loaded.set_episodes(agent.episodes)
    assert loaded.learn(32, reset_num_timesteps=False).num_timesteps == 96


def test_hyperparameters_may_be_changed_on_loading(tmp_path):
    agent = make_agent().learn(64)
    agent.save(tmp_path / "agent.zip")
    changes = {"ent_coef": 0.5, "horizon": 7}
    loaded = DreamPPO.load(tmp_path / "agent.zip", device="cpu", **changes)
    assert loaded.ent_coef == loaded.config.ent_coef == 0.5
    assert loaded.config.horizon == 7
    with pytest.raises(ConfigError, match=r"`DreamPPO.load` has no argument horizn"):
        DreamPPO.load(tmp_path / "agent.zip", device="cpu", horizn=7)
    with pytest.raises(ConfigError, match=r"`horizon` must be an integer"):
        DreamPPO.load(tmp_path / "agent.zip", device="cpu", horizon=7.5)


def test_episodes_may_be_named_by_their_folder(tmp_path):
    agent = make_agent(episodes_path=tmp_path / "episodes").learn(64)
    agent.save(tmp_path / "agent.zip")
    loaded = DreamPPO.load(tmp_path / "agent.zip", device="cpu", episodes=tmp_path / "episodes")
    assert loaded.episodes.num_steps == 64
