"""Features of symbols, pictures and tokens."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.preprocessing import preprocess_obs
from stable_baselines3.common.vec_env import DummyVecEnv

from tests.agents.small_agents import some_episodes, some_model
from worldgen import Tokenizer, make_env
from worldgen.agents import SymbolicExtractor, TokenExtractor
from worldgen.envs import ImaginedVecEnv
from worldgen.envs.observation_view import ObservationView
from worldgen.errors import ConfigError, SpaceError


def naive_one_hot(values: np.ndarray, space: spaces.Box) -> np.ndarray:
    parts = []
    for place in np.ndindex(space.shape):
        part = np.zeros(int(space.high[place]) - int(space.low[place]) + 1, np.float32)
        part[int(values[place]) - int(space.low[place])] = 1
        parts.append(part)
    return np.concatenate(parts)


def minigrid_space() -> spaces.Box:
    high = np.broadcast_to(np.array([10, 5, 3], np.uint8), (7, 7, 3)).copy()
    return spaces.Box(np.zeros_like(high), high, dtype=np.uint8)


@pytest.mark.parametrize(
    "space",
    [
        minigrid_space(),
        spaces.Box(-2, 3, (2, 3, 1), np.int64),
        spaces.Box(0, np.arange(12, dtype=np.uint8).reshape(4, 3), (4, 3), np.uint8),
    ],
)
def test_symbols_become_one_hot_as_the_naive_loop_says(space):
    extractor = SymbolicExtractor(space)
    space.seed(0)
    values = np.stack([space.sample() for _ in range(5)])
    given = preprocess_obs(torch.from_numpy(values), space)
    features = extractor(given)
    expected = np.stack([naive_one_hot(value, space) for value in values])
    np.testing.assert_array_equal(features.numpy(), expected)
    assert features.shape == (5, extractor.features_dim)


def test_a_minigrid_view_has_1029_features():
    assert SymbolicExtractor(minigrid_space()).features_dim == 49 * (11 + 6 + 4)


@pytest.mark.parametrize("size", [(3, 16, 16), (1, 36, 40), (3, 64, 64), (4, 84, 84), (3, 8, 5)])
def test_pictures_of_any_size_become_features(size):
    space = spaces.Box(0, 255, size, np.uint8)
    extractor = SymbolicExtractor(space, image_features=32)
    picture = torch.from_numpy(space.sample()[None])
    assert extractor(preprocess_obs(picture, space)).shape == (1, 32)
    assert sum(p.numel() for p in extractor.parameters()) < 600_000


def test_parts_of_a_dict_lie_side_by_side():
    space = spaces.Dict(
        {
            "image": minigrid_space(),
            "direction": spaces.Discrete(4),
            "speed.now": spaces.Box(-1, 1, (2,), np.float32),
            "flags": spaces.MultiBinary(3),
            "kinds": spaces.MultiDiscrete([2, 3]),
        }
    )
    extractor = SymbolicExtractor(space)
    assert extractor.features_dim == 1029 + 4 + 2 + 3 + 5
    sample = space.sample()
    batch = {key: torch.as_tensor(np.asarray(value)[None]) for key, value in sample.items()}
    features = extractor(preprocess_obs(batch, space))[0].detach().numpy()
    assert len(features) == extractor.features_dim
    direction = np.eye(4)[sample["direction"]]
    expected = {
        "direction": direction,
        "flags": sample["flags"],
        "image": naive_one_hot(sample["image"], space["image"]),
        "kinds": np.concatenate([np.eye(2)[sample["kinds"][0]], np.eye(3)[sample["kinds"][1]]]),
        "speed.now": sample["speed.now"],
    }
    laid = np.concatenate([expected[key] for key in space.spaces])
    np.testing.assert_array_equal(features, laid)


def test_numbers_are_standardised_once_and_constant_ones_only_centred():
    space = spaces.Dict({"a": spaces.Box(-9, 9, (2, 2), np.float32), "b": spaces.Discrete(3)})
    extractor = SymbolicExtractor(space)
    generator = np.random.default_rng(0)
    values = generator.normal(5, [[1, 0.001], [100, 0]], (500, 2, 2)).astype(np.float32)
    extractor.standardise({"a": values, "b": np.zeros(500, np.int64)})
    batch = {"a": torch.as_tensor(values), "b": torch.eye(3)[torch.zeros(500, dtype=torch.long)]}
    features = extractor(batch).numpy()
    np.testing.assert_allclose(features[:, :4].mean(0), 0, atol=2e-3)
    np.testing.assert_allclose(3 * features[:, :4].std(0), [1, 1, 1, 0], atol=5e-3)
    np.testing.assert_array_equal(features[:, 4:], batch["b"])
    extractor.standardise({"a": 2 * values})
    np.testing.assert_array_equal(extractor(batch), features)


def test_a_rare_flag_is_no_giant():
    extractor = SymbolicExtractor(spaces.Box(0, 1, (1,), np.float32))
    flags = np.zeros((1000, 1), np.float32)
    flags[7] = 1
    extractor.standardise({"observation": flags})
    features = extractor(torch.as_tensor(flags)).flatten()
    assert float(features[7] - features[0]) == pytest.approx(10 / 3)


def test_sb3_reads_minigrid_by_it():
    """SB3's own extractors take the symbols for a picture or for magnitudes."""
    env = DummyVecEnv([lambda: make_env("MiniGrid-Empty-5x5-v0")])
    kwargs = {"features_extractor_class": SymbolicExtractor}
    agent = PPO(
        "MultiInputPolicy", env, n_steps=8, batch_size=8, policy_kwargs=kwargs, device="cpu"
    ).learn(8)
    assert agent.get_env() is env  # no VecTransposeImage around symbols
    features = agent.policy.extract_features(agent.policy.obs_to_tensor(env.reset())[0])
    assert set(features.unique().tolist()) == {0.0, 1.0}
    assert features.sum() == 7 * 7 * 3 + 1


def token_policy(trainable: bool) -> A2C:
    model = some_model()
    dream = ImaginedVecEnv(model, 4, 4, starts=some_episodes(), observation="tokens")
    kwargs = TokenExtractor.policy_kwargs(model, trainable=trainable)
    return A2C("MlpPolicy", dream, n_steps=4, policy_kwargs=kwargs, seed=0, device="cpu")


def test_tokens_become_the_models_code_vectors():
    agent, model = token_policy(trainable=False), some_model()
    tokens = agent.env.reset()
    features = agent.policy.extract_features(agent.policy.obs_to_tensor(tokens)[0])
    view = ObservationView(model.tokenizer, "embeddings")
    expected = torch.from_numpy(view.flat(torch.from_numpy(tokens))["observation"])
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5)


def test_a_frozen_extractor_stays_frozen():
    agent = token_policy(trainable=False)
    extractor = agent.policy.features_extractor
    before = torch.clone(extractor.vectors)
    agent.policy.train()
    agent.learn(64)
    agent.policy.set_training_mode(True)
    assert torch.equal(extractor.vectors, before)
    assert not extractor.vectors.requires_grad
    assert list(extractor.parameters()) == []
    ours = {id(p) for group in agent.policy.optimizer.param_groups for p in group["params"]}
    assert id(extractor.vectors) not in ours


def test_a_trainable_extractor_learns_and_leaves_the_model_alone():
    agent, model = token_policy(trainable=True), some_model()
    extractor = agent.policy.features_extractor
    before = torch.clone(extractor.vectors.data)
    codes = [vectors.clone() for vectors in model.tokenizer.codebook_vectors()]
    agent.learn(64)
    assert not torch.equal(extractor.vectors, before)
    after = model.tokenizer.codebook_vectors()
    assert all(torch.equal(old, new) for old, new in zip(codes, after, strict=True))


def test_a_policy_with_tokens_is_saved_and_loaded(tmp_path):
    agent = token_policy(trainable=False)
    agent.save(tmp_path / "agent")
    loaded = A2C.load(tmp_path / "agent", device="cpu")
    tokens = agent.env.reset()
    np.testing.assert_array_equal(
        loaded.predict(tokens, deterministic=True)[0], agent.predict(tokens, deterministic=True)[0]
    )


def test_errors():
    with pytest.raises(SpaceError, match='make the environment with observation="tokens"'):
        TokenExtractor(spaces.Box(0, 1, (4,)), np.zeros((4, 2)))
    with pytest.raises(ConfigError, match="one row for each of 5 codes, got 4"):
        TokenExtractor(spaces.MultiDiscrete([2, 3]), np.zeros((4, 2)))
    untrained = Tokenizer.for_space(spaces.Box(0, 1, (4,)), device="cpu")
    with pytest.raises(ConfigError, match="has not been trained"):
        TokenExtractor.policy_kwargs(untrained)
    with pytest.raises(ConfigError, match="`model` must be a WorldModel, a Tokenizer or a path"):
        TokenExtractor.policy_kwargs(3)
    with pytest.raises(ConfigError, match="`image_features` must be at least 1, got 0"):
        SymbolicExtractor(spaces.Box(0, 1, (4,)), image_features=0)
