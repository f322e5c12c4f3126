"""Wrappers that RL Zoo's YAML names by dotted path and gives plain arguments.

RL Zoo is not among the developer's tools, since it needs packages that do not go with ours; the
last test runs its own programs where `pip install rl_zoo3` has been done. They run in processes of
their own: to import RL Zoo replaces Gymnasium's `TimeLimit`.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import SubprocVecEnv, VecEnv

from worldgen import Tokenizer, collect

MINIGRID, CARTPOLE = "MiniGrid-Empty-5x5-v0", "CartPole-v1"
SINGLE, WHOLE = "worldgen.envs.TokenObservation", "worldgen.envs.VecTokenObservation"
PPO_NUMBERS = {"n_steps": 16, "batch_size": 16, "n_epochs": 1}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folder of a tokenizer for each environment."""
    folder = tmp_path_factory.mktemp("tokenizers")
    for env_id in (MINIGRID, CARTPOLE):
        episodes = collect(env_id, 80, seed=0, num_envs=2, progress=False)
        tokenizer = Tokenizer.for_space(episodes.observation_space, device="cpu")
        tokenizer.fit(episodes, gradient_steps=5)
        tokenizer.save(folder / env_id)
    return {env_id: str(folder / env_id) for env_id in (MINIGRID, CARTPOLE)}


def named(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def make_rows(env_id: str, key: str, wrapper: str, arguments: dict[str, Any], **kwargs) -> VecEnv:
    """As RL Zoo does it: by SB3's `make_vec_env`, the wrapper named by a string."""
    if key == "env_wrapper":
        single = {"wrapper_class": named(wrapper), "wrapper_kwargs": arguments}
        return make_vec_env(env_id, n_envs=2, seed=0, **single, **kwargs)
    return named(wrapper)(make_vec_env(env_id, n_envs=2, seed=0, **kwargs), **arguments)


@pytest.mark.parametrize("mode", ["tokens", "embeddings"])
@pytest.mark.parametrize(
    ("env_id", "key", "wrapper"),
    [
        (MINIGRID, "env_wrapper", SINGLE),
        (CARTPOLE, "env_wrapper", SINGLE),
        (CARTPOLE, "vec_env_wrapper", WHOLE),
    ],
)
def test_sb3_trains_saves_and_evaluates(env_id, key, wrapper, mode, folders, tmp_path):
    arguments = json.loads(json.dumps({"model": folders[env_id], "mode": mode}))
    rows, judged = (make_rows(env_id, key, wrapper, arguments) for _ in range(2))
    assert rows.observation_space == judged.observation_space
    evaluation = EvalCallback(judged, n_eval_episodes=1, eval_freq=8, verbose=0)
    agent = PPO("MlpPolicy", rows, **PPO_NUMBERS, seed=0, device="cpu").learn(32, evaluation)
    assert evaluation.last_mean_reward >= 0
    assert len(agent.ep_info_buffer) > 0 or env_id == MINIGRID
    agent.save(tmp_path / "agent.zip")
    again = PPO.load(tmp_path / "agent.zip", device="cpu")
    observation = judged.reset()
    expected = agent.predict(observation, deterministic=True)[0]
    assert (again.predict(observation, deterministic=True)[0] == expected).all()


def test_minigrid_is_prepared_by_name_before_the_vector_wrapper(folders):
    rows = make_vec_env(MINIGRID, n_envs=2, seed=0, wrapper_class=named("worldgen.make_env"))
    shown = named(WHOLE)(rows, model=folders[MINIGRID])
    assert shown.observation_space.contains(shown.reset()[0])


@pytest.mark.slow
def test_rows_in_processes_of_their_own_see_the_same(folders):
    given = (CARTPOLE, "vec_env_wrapper", WHOLE, {"model": folders[CARTPOLE]})
    apart = make_rows(*given, vec_env_cls=SubprocVecEnv, vec_env_kwargs={"start_method": "spawn"})
    try:
        assert (apart.reset() == make_rows(*given).reset()).all()
    finally:
        apart.close()


def run_zoo(program: str, env_id: str, folder: Path, *arguments: str) -> str:
    common = ["--algo", "ppo", "--env", env_id, "-f", str(folder / "logs"), "--device", "cpu"]
    command = [sys.executable, "-m", f"rl_zoo3.{program}", *common, *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("rl_zoo3") is None, reason="needs rl_zoo3")
@pytest.mark.parametrize(
    ("env_id", "key", "wrapper"),
    [(MINIGRID, "env_wrapper", SINGLE), (CARTPOLE, "vec_env_wrapper", WHOLE)],
)
def test_rl_zoo_trains_saves_and_plays(env_id, key, wrapper, folders, tmp_path):
    arguments = {"model": folders[env_id], "mode": "embeddings"}
    numbers = {"policy": "MlpPolicy", "n_envs": 2, "n_timesteps": 64, **PPO_NUMBERS}
    config = {env_id: {key: [{wrapper: arguments}], **numbers}}
    (tmp_path / "ppo.yml").write_text(json.dumps(config))  # JSON is YAML
    judged = ("--eval-freq", "16", "--eval-episodes", "1")
    shown = run_zoo("train", env_id, tmp_path, "--conf-file", "ppo.yml", *judged)
    assert "Eval num_timesteps=64" in shown
    assert (tmp_path / "logs" / "ppo" / f"{env_id}_1" / f"{env_id}.zip").is_file()
    played = run_zoo("enjoy", env_id, tmp_path, "-n", "110", "--no-render")
    assert "Mean reward" in played
