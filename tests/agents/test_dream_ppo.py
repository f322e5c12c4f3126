"""The loop of `DreamPPO`: what it counts, keeps, logs and refuses."""

from __future__ import annotations

import gc
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.logger import configure
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize, VecTransposeImage
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from worlds import CountingWorld, GridWorld

from tests.agents.small_agents import (
    DICT,
    GRID,
    IMAGE,
    VECTOR,
    Diary,
    Paid,
    an_episode,
    assert_equal_weights,
    make_agent,
    some_episodes,
    some_model,
    weights,
)
from worldgen import EnvironmentSpec, Episodes, WorldModelConfig
from worldgen.agents import DreamConfig, DreamPPO, PhaseCallback, SymbolicExtractor, train_offline
from worldgen.agents.dream_training import best_gain, is_paid
from worldgen.dynamics_training_config import DynamicsTrainingConfig
from worldgen.envs import ImaginedVecEnv
from worldgen.errors import ConfigError, DatasetError, EnvironmentIdError, SpaceError


def test_it_counts_real_and_imagined_environment_steps(diary):
    agent = make_agent().learn(150, diary)  # 64 + 32 + 32, and what is left: 16 of 22
    assert agent.num_timesteps == agent.episodes.num_steps == 144
    assert agent.imagined_timesteps == 4 * 32
    assert diary.phases == diary.begun == ["collect", "fit", "dream"] * 4
    assert diary.timesteps == list(range(8, 145, 8))
    assert (agent.phase, agent.round) == ("collect", 4)


@pytest.mark.parametrize(("n_envs", "total"), [(8, 64), (3, 64), (3, 65), (5, 69), (64, 127)])
def test_it_never_makes_more_environment_steps_than_asked_for(n_envs, total):
    agent = make_agent(n_envs=n_envs).learn(total)
    assert agent.num_timesteps == total // n_envs * n_envs
    assert agent.num_timesteps == agent.episodes.num_steps


def test_no_dream_outlives_its_phase():
    class Count(PhaseCallback):
        def on_phase_end(self, phase, metrics):
            alive.append(sum(type(each) in (ImaginedVecEnv, PPO) for each in gc.get_objects()))

    alive: list[int] = []
    agent = make_agent(doubted_model_steps=3, stuck_dream_steps=64)
    gc.collect()
    gc.disable()  # Whoever waits for Python to look for circles waits long in a long training.
    try:
        agent.learn(64 + 3 * 32, Count())
    finally:
        gc.enable()
    assert alive == [alive[0]] * 12


def test_too_few_environment_steps_are_refused():
    with pytest.raises(ConfigError, match=r"`total_timesteps` must be at least 8, .*, got 7"):
        make_agent().learn(7)


def test_metrics_of_the_phases(diary):
    make_agent().learn(64, diary)
    collected, fitted, dreamt = diary.metrics
    assert collected["real_timesteps"] == 64
    assert collected["episodes"] >= 8
    assert {"tokenizer/kept_frames", "dynamics/token_loss"} <= fitted.keys()
    assert dreamt["dream/imagined_timesteps"] == 32
    assert {"dream/ep_rew_mean", "train/value_loss"} <= dreamt.keys()


def counting_episodes(total: int, n_envs: int = 2) -> Episodes:
    agent = make_agent(
        lambda: CountingWorld(same_memory=True),
        n_envs=n_envs,
        steps_per_round=10,
        initial_steps=18,
        fresh_rounds=False,
    )
    return agent.learn(total).episodes


def test_no_frame_is_lost_or_invented():
    for episode in counting_episodes(48):
        frames = episode.observations["observation"]
        number, first = frames[0, 0], frames[0, 1]
        length = (3, 1, 4)[int(number) % 3]
        np.testing.assert_array_equal(frames[:, 0], number)
        np.testing.assert_array_equal(frames[:, 1], first + np.arange(len(frames)))
        np.testing.assert_array_equal(frames[1:, 2], episode.actions)
        np.testing.assert_array_equal(episode.rewards, 100 * number + frames[1:, 1])
        over = frames[-1, 1] == length
        assert episode.terminated[-1] == (over and number % 2 == 0)
        assert episode.truncated[-1] == (over and number % 2 == 1)


def test_a_collection_goes_on_where_the_last_one_was_cut():
    episodes = counting_episodes(48)
    seen = sorted(
        (frame[0], frame[1])
        for episode in episodes
        for frame in episode.observations["observation"][1:]
    )
    expected = [(n, c) for n in range(9) for c in range(1, (3, 1, 4)[n % 3] + 1)][:24]
    assert seen == sorted(expected * 2)  # 24 environment steps in each of two rows
    cut = [e for e in episodes if not (e.terminated[-1] or e.truncated[-1])]
    assert cut


@pytest.mark.parametrize("env_id", [VECTOR, DICT, IMAGE])
def test_every_kind_of_observation_is_learnt_from(env_id):
    agent = make_agent(env_id).learn(96)
    with gym.make(env_id) as env:
        assert agent.episodes.observation_space == env.observation_space
        observation, _ = env.reset(seed=0)
        action, _ = agent.predict(observation)
        assert action in env.action_space
        assert all(action in env.action_space for action in agent.episodes[0].actions)


def test_pictures_are_kept_as_the_environment_gives_them():
    agent = make_agent(IMAGE).learn(64)
    assert isinstance(agent.env, VecTransposeImage)
    assert agent.observation_space.shape == (3, 16, 16)
    for episode in agent.episodes:
        frames = episode.observations["observation"]
        assert frames.shape[1:] == (16, 16, 3)
        corners = frames[:, ::4, ::4].reshape(-1, 3)
        assert {tuple(c) for c in corners.tolist()} <= {(20, 20, 60), (0, 200, 0), (220, 40, 40)}
        assert all((frame == (220, 40, 40)).all(-1).sum() == 16 for frame in frames)


@pytest.mark.parametrize(
    ("env", "rows"),
    [
        (GRID, 3),
        (EnvironmentSpec(id=GRID), 3),
        (GridWorld, 3),
        (GridWorld(), 1),
        (DummyVecEnv([GridWorld, GridWorld]), 2),
    ],
)
def test_every_way_to_name_an_environment(env, rows):
    agent = make_agent(env, n_envs=3).learn(66)
    assert agent.n_envs == rows
    assert agent.num_timesteps == 66


def test_the_environment_is_known_for_later():
    assert make_agent().episodes.environment == EnvironmentSpec(id=GRID)
    assert make_agent().world_model.environment == EnvironmentSpec(id=GRID)


def test_equal_seeds_give_equal_agents():
    one, two, other = (make_agent(seed=seed).learn(96) for seed in (1, 1, 2))
    assert_equal_weights(one, two)
    assert not torch.equal(weights(one)["policy.action_net.weight"], other.policy.action_net.weight)
    for ours, theirs in zip(one.episodes, two.episodes, strict=True):
        np.testing.assert_array_equal(ours.actions, theirs.actions)


def test_without_a_seed_agents_differ():
    one, two = make_agent(seed=None), make_agent(seed=None)
    assert one.world_model.seed != two.world_model.seed


def test_rows_are_seeded_at_their_first_reset_only():
    given: list[int | None] = []

    class Seeded(CountingWorld):
        def reset(self, *, seed=None, options=None):
            given.append(seed)
            return super().reset(seed=seed, options=options)

    make_agent(Seeded, seed=7, n_envs=4, fresh_rounds=False).learn(64)
    assert given[:4] == [7, 8, 9, 10]
    assert len(given) > 10
    assert set(given[4:]) == {None}


def test_each_collection_begins_episodes_of_its_own():
    given: list[int | None] = []

    class Seeded(CountingWorld):
        def reset(self, *, seed=None, options=None):
            given.append(seed)
            return super().reset(seed=seed, options=options)

    rounds = {"initial_steps": 20, "steps_per_round": 20, "fresh_rounds": True}
    agent = make_agent(Seeded, seed=7, n_envs=2, **rounds).learn(60)
    seeds = [seed for seed in given if seed is not None]
    assert seeds[:2] == [7, 8]
    assert len(set(seeds)) == len(seeds) == 2 + 3 * 2  # SB3's own reset, then three collections
    steps = np.cumsum([len(episode) for episode in agent.episodes])
    assert {20, 40, 60} <= set(steps.tolist())
    beginnings = [episode.observations["observation"][0, 1] for episode in agent.episodes]
    assert set(beginnings) == {0}  # never amid an episode of the environment


def test_policy_and_optimizer_are_the_same_objects_from_round_to_round():
    agent = make_agent()
    policy, optimizer = agent.policy, agent.policy.optimizer
    before = weights(agent)["policy.action_net.weight"].clone()
    agent.learn(64)
    after_one = next(iter(optimizer.state.values()))["step"].item()
    agent.learn(64, reset_num_timesteps=False)
    assert agent.policy is policy
    assert agent.policy.optimizer is optimizer
    assert next(iter(optimizer.state.values()))["step"].item() > after_one > 0
    assert not torch.equal(before, policy.action_net.weight)


def test_the_learning_rate_follows_the_schedule_over_real_environment_steps(diary):
    agent = make_agent()
    agent.lr_schedule = lambda remaining: 1e-3 * remaining
    agent.learn(128, diary)
    rates = [m["train/learning_rate"] for m in diary.metrics if "train/learning_rate" in m]
    assert rates == pytest.approx([1e-3, 0.5e-3, 0.25e-3])


def test_learn_again_counts_anew_or_goes_on():
    agent = make_agent().learn(64)
    agent.learn(64, reset_num_timesteps=False)
    assert (agent.num_timesteps, agent.round) == (128, 3)
    agent.learn(32)
    assert (agent.num_timesteps, agent.imagined_timesteps, agent.round) == (32, 32, 4)
    assert agent.episodes.num_steps == 160


def test_only_the_first_collection_acts_at_random(monkeypatch):
    agent = make_agent()
    asked = []
    predict = agent.policy.predict

    def listening(*args, **kwargs):
        asked.append(agent.num_timesteps)
        return predict(*args, **kwargs)

    monkeypatch.setattr(agent.policy, "predict", listening)
    agent.learn(96)
    assert asked == list(range(64, 96, 8))


def test_given_model_and_episodes_are_gone_on_with(diary):
    model, known = some_model(), some_episodes()
    episodes = known.subset(range(len(known)))
    before = episodes.num_steps
    fits = model.num_fits
    agent = make_agent(world_model=model, episodes=episodes, initial_steps=0).learn(32, diary)
    assert agent.world_model is model
    assert agent.episodes is episodes
    assert episodes.num_steps == before + 32
    assert diary.phases == ["collect", "fit", "dream"] * 2  # the first collection is empty
    assert model.num_fits == fits + 2


def test_episodes_are_written_as_they_end(tmp_path):
    agent = make_agent(episodes_path=tmp_path / "episodes").learn(64)
    loaded = Episodes.load(tmp_path / "episodes")
    assert loaded.num_steps == agent.num_timesteps
    assert loaded.environment == EnvironmentSpec(id=GRID)


def test_a_collection_that_breaks_keeps_its_steps():
    agent = make_agent()

    def interrupt(*_):
        if agent.num_timesteps == 40:
            raise KeyboardInterrupt
        return True

    with pytest.raises(KeyboardInterrupt):
        agent.learn(64, interrupt)
    assert agent.episodes.num_steps == agent.num_timesteps == 40
    agent.learn(56, reset_num_timesteps=False)
    assert (agent.num_timesteps, agent.episodes.num_steps, agent.round) == (96, 96, 2)


def test_minigrid_tells_its_successes():
    agent = make_agent("MiniGrid-Empty-5x5-v0", "MultiInputPolicy", initial_steps=400)
    agent.learn(400)
    assert len(agent.ep_success_buffer) > 0
    finished = [bool(e.terminated[-1]) for e in agent.episodes]
    assert sum(agent.ep_success_buffer) == sum(finished)


def test_the_log_holds_reality_model_and_dream(tmp_path, capsys):
    agent = make_agent(CountingWorld, tensorboard_log=str(tmp_path), verbose=1).learn(96)
    (folder,) = tmp_path.iterdir()
    assert folder.name == "DreamPPO_1"
    log = EventAccumulator(str(folder)).Reload()
    for tag in (
        "rollout/ep_rew_mean",
        "dream/ep_rew_mean",
        "dream/imagined_timesteps",
        "model/dynamics/token_loss",
        "train/value_loss",
    ):
        assert [event.step for event in log.Scalars(tag)] == [64, 96], tag
    assert [event.value for event in log.Scalars("dream/imagined_timesteps")] == [32, 64]
    assert "imagined_timesteps" in capsys.readouterr().out
    assert agent.logger.dir == str(folder)


def test_a_logger_of_ones_own(tmp_path):
    agent = make_agent()
    agent.set_logger(configure(str(tmp_path), ["csv"]))
    agent.learn(64)
    agent.logger.close()
    assert "dream/ep_rew_mean" in (tmp_path / "progress.csv").read_text()


def test_progress_is_shown_when_asked_for(capsys):
    make_agent().learn(64)
    assert capsys.readouterr().err == ""
    make_agent().learn(64, progress_bar=True)
    shown = capsys.readouterr().err
    assert "round 1: collect: 64 of 64" in shown
    assert "round 1: dream: 32 of 32" in shown


def test_the_features_extractor_is_the_symbols_or_the_users():
    assert isinstance(make_agent().policy.features_extractor, SymbolicExtractor)
    kwargs = {"features_extractor_class": FlattenExtractor, "net_arch": [8]}
    agent = make_agent(policy_kwargs=kwargs).learn(64)
    assert type(agent.policy.features_extractor) is FlattenExtractor
    assert agent.policy.net_arch == [8]


def test_set_env_goes_on_in_another_environment():
    agent = make_agent().learn(64)
    agent.set_env(GRID)
    assert agent.n_envs == 8
    agent.learn(32, reset_num_timesteps=False)
    assert agent.episodes.num_steps == 96
    with pytest.raises(SpaceError, match="`env` must have the observation space of the env"):
        agent.set_env(VECTOR)


def over(rewards):
    return an_episode(rewards, terminated=True)


SILENT = [an_episode([-1.0] * 8), an_episode([-1.0])]
DENSE = [an_episode(np.linspace(-0.2, 0.0, 9))]


@pytest.mark.parametrize(
    ("episodes", "paid"),
    [
        ([], False),
        (SILENT, False),
        ([*SILENT, an_episode([-100.0])], False),
        ([*SILENT, over([-1.0])], True),
        ([*SILENT, over([-1.0, -9.0])], False),  # a trap
        ([*SILENT, an_episode([-0.9])], True),
        ([over([0.0, 0.0])] * 3, False),  # holes
        ([over([0.0, 0.0]), over([0.0, 0.1])], True),
        ([over([1.0, 1.0])], True),  # falls
        (DENSE, False),
        ([*DENSE, an_episode([0.5])], True),
    ],
)
def test_when_rewards_say_what_to_do(episodes, paid):
    assert is_paid(episodes, 0.3) == paid


def test_rewards_that_have_said_something_have_for_good():
    """Though a good agent makes the best reward the usual one."""
    agent: Any = make_agent(VECTOR, silent_novelty=0.3).learn(32)
    agent._round_timesteps = 32
    found = [an_episode([0.0] * 9 + [1.0])]
    agent._episodes, agent._is_paid = [an_episode([0.0] * 9)], False
    assert agent._silent_novelty() == 0.3
    agent._episodes = found
    assert agent._silent_novelty() == 0
    agent._episodes = [*found, an_episode([1.0] * 30)]
    assert not is_paid(agent._episodes, 0.3)
    assert agent._silent_novelty() == 0


@pytest.fixture
def bonuses(monkeypatch):
    """Weight of each dream's bonus, and whether it is paid each time."""
    made = []

    def noted(*args, **kwargs):
        made.append((kwargs["novelty"], kwargs["novelty_repeats"]))
        return ImaginedVecEnv(*args, **kwargs)

    monkeypatch.setattr("worldgen.agents.dream_ppo.ImaginedVecEnv", noted)
    return made


@pytest.mark.parametrize(("env_id", "paid"), [("MountainCar-v0", False), ("CartPole-v1", True)])
def test_there_is_a_bonus_each_time_until_rewards_say_something(env_id, paid, bonuses):
    agent = make_agent(env_id, silent_novelty=0.3, novelty=0.01, n_envs=2).learn(96)
    assert bonuses == [(0.01, False) if paid else (0.3, True)] * 2
    assert "dream/ep_bonus_mean" in agent.round_metrics


@pytest.mark.parametrize(
    ("episodes", "gain"),
    [
        ([an_episode([0.0] * 9)], 0.0),
        ([an_episode([0.0] * 9 + [0.25])], 0.25),
        ([an_episode([-1.0] * 9 + [-10.0, 20.0])], 21.0),
        ([an_episode([-1.0] * 9 + [-100.0])], 0.0),
    ],
)
def test_how_much_better_than_usual_a_reward_was(episodes, gain):
    assert best_gain(episodes) == gain


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_the_bonus_is_a_share_of_the_best_gain(scale, bonuses):
    """So that a goal which brings little, or much, is worth as much beside what is rare."""

    make_agent(lambda: Paid(scale), novelty=0.5).learn(64)
    assert bonuses == [(pytest.approx(0.5 * scale), False)]


def test_nobody_is_paid_each_time_for_what_nobody_collects(bonuses):
    agent = make_agent("MountainCar-v0", silent_novelty=0.3, novelty=0.01, n_envs=2).learn(64)
    train_offline(agent, 1)
    assert bonuses == [(0.3, True), (0.01, False)]


def standardised(agent):
    return agent.policy.features_extractor.layers[0]


def test_a_policy_sees_numbers_in_units_of_their_own_deviation():
    """Of the first real episodes, as long as it has learned nothing."""
    agent = make_agent("MountainCar-v0", n_envs=2, initial_steps=200).learn(200)
    first = agent.episodes[:]
    seen = np.concatenate([episode.observations["observation"] for episode in first])
    np.testing.assert_allclose(standardised(agent).std, 3 * seen.std(0), rtol=1e-4)
    features = agent.policy.extract_features(torch.as_tensor(seen)).detach()
    np.testing.assert_allclose(features.mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(features.std(0), 1 / 3, atol=1e-2)
    agent.learn(64, reset_num_timesteps=False)
    np.testing.assert_allclose(standardised(agent).std, 3 * seen.std(0), rtol=1e-4)


@pytest.mark.parametrize("settings", [{"memory": True}, {"policy_kwargs": {"net_arch": [8]}}])
def test_numbers_beside_others_are_standardised_too(settings):
    agent = make_agent(DICT, **settings).learn(64)
    extractor = agent.policy.features_extractor
    assert extractor.unknown_numbers == (("memory",) if "memory" in settings else ())
    layers = dict(zip(extractor._keys, extractor.layers, strict=True))
    seen = np.concatenate([episode.observations["place"] for episode in agent.episodes])
    np.testing.assert_allclose(layers["place"].mean, seen.mean(0), rtol=1e-4, atol=1e-6)


def test_a_policy_that_knows_numbers_as_they_are_keeps_them():
    kwargs = {"features_extractor_kwargs": {"standardises": False}}
    agent = make_agent(VECTOR, policy_kwargs=kwargs).learn(64)
    assert not standardised(agent).known


def test_the_deviations_are_saved_with_the_policy(tmp_path):
    agent = make_agent("MountainCar-v0", n_envs=2).learn(64)
    agent.save(tmp_path / "agent")
    loaded = DreamPPO.load(tmp_path / "agent", device="cpu")
    assert torch.equal(standardised(loaded).mean, standardised(agent).mean)
    assert (standardised(loaded).std < 1).any()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"horizont": 3}, ConfigError, r"no argument horizont; did you mean horizon\? `Dream"),
        ({"horizon": 0}, ConfigError, "`horizon` must be at least 1, got 0"),
        ({"horizon": 2.5}, ConfigError, "`horizon` must be an integer, got 2.5"),
        ({"n_steps": "a"}, ConfigError, "`n_steps` must be an integer, got 'a'"),
        ({"starts": 0.3}, ConfigError, "`starts` must be a StartConfig, got 0.3"),
        ({"memory": 1}, ConfigError, "`memory` must be True or False, got 1"),
        ({"learning_rate": len}, ConfigError, "`learning_rate` must be a number, for which no sch"),
        ({"n_envs": 0}, ConfigError, "`n_envs` must be at least 1, got 0"),
        ({"initial_steps": 0}, ConfigError, "`initial_steps` must be at least 1 without"),
        ({"batch_size": 33}, ConfigError, r"`batch_size` must be in \[2, .* = 32\], got 33"),
        ({"gamma": 1.5}, ConfigError, r"`gamma` must be in \[0, 1\], got 1.5"),
        ({"env": "Cartpole-v1"}, EnvironmentIdError, "did you mean 'CartPole-v1'"),
        ({"device": "abacus"}, ConfigError, "abacus"),
        ({"device": "cuda:77"}, ConfigError, "a device of this machine"),
        (
            {"model_config": WorldModelConfig(training=DynamicsTrainingConfig(gradient_steps=5))},
            ConfigError,
            r"`model_config.training.gradient_steps` must be left out, .* "
            r"`DreamConfig.initial_model_steps` and `DreamConfig.model_steps_per_round` instead",
        ),
        (
            {"model_config": WorldModelConfig(tokenizer_gradient_steps=5)},
            ConfigError,
            "`model_config.tokenizer_gradient_steps` .* `DreamConfig.tokenizer_steps` .* got 5",
        ),
        ({"policy": "MlPolicy"}, ConfigError, "be a class or one of CnnPolicy, MlpPolicy, MultiIn"),
        ({"env": DICT, "policy": "MlpPolicy"}, ConfigError, '`policy` must be "MultiInputPolicy"'),
        ({"env": DICT, "policy": "CnnPolicy"}, ConfigError, '`policy` must be "MultiInputPolicy"'),
        (
            {"policy": "MultiInputPolicy"},
            ConfigError,
            "`policy` must be \"MlpPolicy\" for a Box observation space, got 'MultiInputPolicy'",
        ),
    ],
)
def test_wrong_arguments_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        make_agent(**arguments)


def test_what_does_not_fit_together_is_refused(tmp_path):
    with pytest.raises(SpaceError, match="the model was built for the observation space"):
        make_agent(VECTOR, world_model=some_model())
    with pytest.raises(SpaceError, match="`episodes` must come from an environment with"):
        make_agent(VECTOR, episodes=some_episodes())
    with pytest.raises(ConfigError, match="`episodes_path` must be left out"):
        make_agent(episodes=some_episodes(), episodes_path=tmp_path)
    with pytest.raises(ConfigError, match="must not be a VecNormalize"):
        make_agent(VecNormalize(DummyVecEnv([GridWorld])))
    make_agent(episodes_path=tmp_path / "old").learn(64)
    with pytest.raises(DatasetError, match="old"):
        make_agent(episodes_path=tmp_path / "old")


def test_an_unsupported_space_is_refused_at_once():
    class Speaking(gym.Env):
        observation_space = spaces.Text(5)
        action_space = spaces.Discrete(2)

    with pytest.raises(SpaceError, match="SB3 policies cannot read the observation space Text"):
        make_agent(Speaking())


def test_the_config_holds_what_was_given():
    agent = make_agent(config=DreamConfig(horizon=9, dream_envs=8), horizon=5)
    assert (agent.config.horizon, agent.config.dream_envs) == (5, 8)
    assert DreamConfig.from_dict(agent.config.to_dict()) == agent.config


def test_a_callback_stops_after_a_phase():
    for stop_after, next_phase in (((1, "fit"), "dream"), ((0, "dream"), "collect")):
        diary = Diary(stop_after)
        agent = make_agent().learn(128, diary)
        assert diary.phases[-1] == stop_after[1]
        assert agent.phase == next_phase
        rest = Diary()
        agent.learn(128 - agent.num_timesteps, rest, reset_num_timesteps=False)
        assert rest.phases[0] == next_phase
        assert agent.num_timesteps == 128


@pytest.mark.parametrize("kind", ["action", "observation"])
def test_integers_that_do_not_begin_at_0_are_refused_at_once(kind: str):
    class Shifted(gym.Env):
        def __init__(self):
            self.action_space = spaces.Discrete(3, start=int(kind == "action"))
            self.observation_space = spaces.Discrete(4, start=int(kind == "observation"))

    with pytest.raises(SpaceError, match=f"ignores the start of the {kind} space"):
        DreamPPO("MlpPolicy", Shifted)


def test_continuous_actions_without_bounds_are_refused_at_once():
    class Unbounded(gym.Env):
        action_space = spaces.Box(-np.inf, np.inf, (2,))
        observation_space = spaces.Discrete(4)

    with pytest.raises(SpaceError, match="must have finite bounds"):
        DreamPPO("MlpPolicy", Unbounded)
