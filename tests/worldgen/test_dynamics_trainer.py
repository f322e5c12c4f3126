"""What the trainer does to weights, against naive formulas; what it does not let happen."""

from __future__ import annotations

import copy
import math
from functools import cache, partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from killed_fits import new_model, some_episodes
from torch import Tensor
from torch._dynamo.utils import counters as _counters

from worldgen import Episode, Episodes, WorldModel
from worldgen.compiling import compiled
from worldgen.data.token_dataset import TokenDataset
from worldgen.dynamics_trainer import DynamicsTrainer
from worldgen.errors import TrainingError


@pytest.fixture(scope="module")
def episodes() -> Episodes:
    return some_episodes()


@cache
def with_tokenizer(**options: Any) -> WorldModel:
    """A model that knows the tokens of `some_episodes`, and nothing else."""
    model = new_model(**options)
    model.fit(some_episodes(), tokenizer_steps=3, dynamics_steps=0, progress=False)
    return model


def new_trainer(episodes: Episodes, steps: int = 12, **options: Any) -> DynamicsTrainer:
    check_every = options.pop("check_every", None)
    model = copy.deepcopy(with_tokenizer(**options))
    return DynamicsTrainer(
        model.dynamics,
        model.dataset(episodes),
        model.config.training,
        steps,
        torch.Generator().manual_seed(7),
        check_every=check_every,
    )


def weights_of(trainer: DynamicsTrainer) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in trainer.dynamics.named_parameters()}


def muon(weight: Tensor, gradient: Tensor, momentum: Tensor, rate: float, decay: float) -> Tensor:
    """One step of https://kellerjordan.github.io/posts/muon/, as simple as it can be written.

    With Nesterov's momentum of 0.95, and the rate scaled to the size of AdamW's updates
    (https://arxiv.org/abs/2502.16982, section 2.2).
    """
    momentum = 0.95 * momentum + 0.05 * gradient
    update = 0.05 * gradient + 0.95 * momentum
    update = update / update.norm()
    turned = update.shape[0] > update.shape[1]
    x = update.T if turned else update
    for _ in range(5):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    update = x.T if turned else x
    return weight - rate * decay * weight - rate * 0.2 * math.sqrt(max(weight.shape)) * update


@pytest.mark.parametrize(("window", "share"), [(2, 0.1), (5, 0.4), (9, 0.5)])
def test_short_windows_are_placed_around_events_less_often(
    episodes: Episodes, monkeypatch: pytest.MonkeyPatch, window: int, share: float
) -> None:
    trainer = new_trainer(episodes, steps=1, window=window, event_share=0.5)
    shares: list[float] = []
    draw = trainer.dataset.sample_windows

    def recorded(*arguments: Any, **options: Any) -> Any:
        shares.append(options["event_share"])
        return draw(*arguments, **options)

    monkeypatch.setattr(trainer.dataset, "sample_windows", recorded)
    trainer.step()
    assert shares == pytest.approx([share])


@pytest.mark.parametrize(("precision", "within"), [("bfloat16", 0.05), ("float32", 1e-3)])
def test_matrices_of_the_transformer_move_by_muon(
    episodes: Episodes, precision: str, within: float
) -> None:
    """In float64; the optimizer works in the network's precision, and bfloat16 has few digits.

    The gradients are random ones: what is left of the true ones in directions that hardly
    occur is rounding, which the formula blows up.
    """
    trainer = new_trainer(episodes, steps=1, precision=precision, weight_decay=0.1)
    before = weights_of(trainer)
    matrices = dict(trainer.dynamics.transformer.blocks.named_parameters(prefix="blocks"))
    found = {name: value for name, value in matrices.items() if value.ndim == 2}
    assert len(found) == 4
    draw = torch.Generator().manual_seed(1)
    for value in found.values():
        value.register_hook(lambda gradient: torch.randn(gradient.shape, generator=draw))
    trainer.step()
    rate = trainer.config.learning_rate
    for name, value in found.items():
        old = before[f"transformer.{name}"].double()
        gradient = value.grad.double()
        expected = muon(old, gradient, torch.zeros_like(old), rate, 0.1) - old
        moved = value.detach().double() - old
        assert (moved - expected).norm() < within * expected.norm(), name
        assert float(moved.pow(2).mean().sqrt()) == pytest.approx(0.2 * rate, rel=0.4), name


def test_everything_else_moves_by_adamw(episodes: Episodes) -> None:
    trainer = new_trainer(episodes, steps=1, precision="float32", weight_decay=0.1)
    before = weights_of(trainer)
    trainer.step()
    rate = trainer.config.learning_rate
    for name, value in trainer.dynamics.named_parameters():
        if name.startswith("transformer.blocks.") and value.ndim == 2:
            continue
        gradient = torch.zeros_like(value) if value.grad is None else value.grad
        # After one step both moments are the gradient's own: its sign is left.
        expected = before[name] * (1 - rate * 0.1) - rate * gradient / (gradient.abs() + 1e-8)
        if value.grad is None:
            expected = before[name]
        torch.testing.assert_close(value.detach(), expected, atol=1e-6, rtol=1e-5)


def test_the_rate_rises_and_falls(episodes: Episodes) -> None:
    trainer = new_trainer(episodes, steps=40, learning_rate=0.01, final_rate=0.1)
    rates = []
    for _ in range(40):
        trainer.step()
        optimizers = trainer.state_dict()["optimizers"]
        rates.append({group["lr"] for each in optimizers for group in each["param_groups"]})
    assert all(len(each) == 1 for each in rates), "both optimizers have one rate"
    found = [rate for each in rates for rate in each]
    assert found[:5] == pytest.approx([0.0025, 0.005, 0.0075, 0.01, 0.01])
    cosine = [0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * i / 36)) for i in range(36)]
    assert found[4:] == pytest.approx([0.01 * part for part in cosine])


def train_and_save(trainer: DynamicsTrainer) -> None:
    for _ in range(7):
        trainer.step()
    trainer.state_dict()  # for a checkpoint, say


@pytest.mark.parametrize("check_every", [1, 3, 50])
@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_no_bad_number_reaches_what_is_kept(
    episodes: Episodes, monkeypatch: pytest.MonkeyPatch, what: str, check_every: int
) -> None:
    """At gradient step 5; several steps are checked at once, as on a GPU."""
    trainer = new_trainer(episodes, check_every=check_every)
    good = [weights_of(trainer)]
    for _ in range(5):
        trainer.step()
        good.append(weights_of(trainer))
    if what == "loss":
        trainer.dataset.rewards.fill_(torch.nan)
    else:
        weight = trainer.dynamics.reward_head.weight
        weight.register_hook(lambda gradient: gradient * torch.inf)
    with pytest.raises(TrainingError, match=r"must stay finite, got .* at gradient step 5: lower"):
        train_and_save(trainer)
    found = weights_of(trainer)
    kept = [all(torch.equal(found[name], past[name]) for name in found) for past in good]
    assert any(kept)
    assert kept.index(True) == {1: 5, 3: 2, 50: 0}[check_every]


def test_a_bad_number_at_the_end_is_found_too(episodes: Episodes) -> None:
    trainer = new_trainer(episodes, steps=4, check_every=50)
    for _ in range(4):
        trainer.step()
    bad = new_trainer(episodes, steps=1, check_every=50)
    bad.dataset.rewards.fill_(torch.nan)
    bad.step()
    trainer.finish()
    with pytest.raises(TrainingError, match="at gradient step 0"):
        bad.finish()


@pytest.mark.parametrize("reward", [1e38, -1e38])
def test_a_reward_of_any_size_is_learned_from(episodes: Episodes, reward: float) -> None:
    """It counts as the outermost bin's."""
    trainer = new_trainer(episodes)
    trainer.dataset.rewards[5:50] = reward
    for _ in range(12):
        losses = trainer.step()
    trainer.finish()
    assert all(bool(value.isfinite()) for value in losses.values())
    assert all(bool(value.isfinite().all()) for value in trainer.dynamics.parameters())


@given(st.integers(0, 12), st.integers(0, 12), st.sampled_from([1, 5]))
@settings(max_examples=8)
def test_a_trainer_goes_on_from_any_state(first: int, second: int, check_every: int) -> None:
    """Saved at one gradient step, and once more at a later one; into a fresh trainer."""
    episodes = some_episodes()

    def train(stops: list[int]) -> dict[str, Tensor]:
        trainer = new_trainer(episodes, check_every=check_every)
        for _ in range(12):
            if trainer.gradient_step in stops:
                state = trainer.state_dict()
                trainer = new_trainer(episodes, check_every=check_every)
                trainer.load_state_dict(state)
            trainer.step()
        trainer.finish()
        return weights_of(trainer)

    alone, stopped = train([]), train([first, second])
    assert all(torch.equal(alone[name], stopped[name]) for name in alone)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # torch's own
def test_compiled_layers_learn_the_same(
    episodes: Episodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without the C++ compiler, which takes a minute; the graphs are the same.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    compiled.cache_clear()
    plain, fast = (new_trainer(episodes, draft_share=0.5, compiled=c) for c in (False, True))
    before = _counters["stats"]["unique_graphs"]
    for trainer in (plain, fast):
        trainer.step()
    compiled.cache_clear()
    shapes, functions = 2, 2
    assert _counters["stats"]["unique_graphs"] - before == shapes * functions
    for name, weights in plain.dynamics.named_parameters():
        other = fast.dynamics.get_parameter(name)
        assert weights.grad is not None
        assert other.grad is not None
        assert torch.allclose(weights.grad, other.grad, rtol=1e-3, atol=1e-5), name


def test_the_priority_does_not_depend_on_the_order_of_windows() -> None:
    """A transition may be in several windows, and a GPU writes them in any order."""
    episode = Episode(
        observations={"observation": np.zeros((6, 1), np.float32)},
        actions=np.zeros(5, np.int64),
        rewards=np.zeros(5, np.float32),
        terminated=np.zeros(5, bool),
        truncated=np.zeros(5, bool),
    )
    codec = new_model().action_codec
    losses = torch.tensor([[0.1, 0.2, 0.3], [0.9, 0.0, 1.5], [0.4, 3.0, 0.6]])
    for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0]):
        dataset = TokenDataset(torch.zeros(6, 1, dtype=torch.int64), [episode], codec, 2)
        windows = dataset.windows_at(torch.tensor(order), 4)
        dataset.set_priority(windows, losses[order])
        # The highest of what each window of a frame says, at most 2; half of the old 1 stays.
        expected = torch.tensor([1, 0.55, 0.95, 0.7, 1.5, 0.8])
        torch.testing.assert_close(dataset.priority, expected)
