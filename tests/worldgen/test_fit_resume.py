"""A fit that is killed at any moment ends with the weights that it would have had."""

from __future__ import annotations

import copy
import signal

import numpy as np
import pytest
import torch
from worlds import GridWorld

import worldgen
from worldgen import WorldModel, WorldModelConfig
from worldgen.dynamics import DynamicsConfig
from worldgen.dynamics_trainer import DynamicsTrainer
from worldgen.dynamics_training_config import DynamicsTrainingConfig
from worldgen.errors import CheckpointError, TrainingError
from worldgen.tokenizer import QuantizerConfig, TokenizerConfig
from worldgen.training_state import load_state
from worldgen.transformer import TransformerConfig

STEPS, EVERY = 24, 5


class Killed(BaseException):
    """The process is killed."""


def make_model(seed: int = 0) -> WorldModel:
    config = WorldModelConfig(
        tokenizer=TokenizerConfig(hidden=16, quantizer=QuantizerConfig(num_codes=32)),
        dynamics=DynamicsConfig(
            context=2, transformer=TransformerConfig(width=16, layers=2, heads=2)
        ),
        training=DynamicsTrainingConfig(batch_size=4),
    )
    return WorldModel.for_env(GridWorld, config=config, seed=seed, device="cpu")


@pytest.fixture(scope="module")
def episodes(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "episodes"
    return worldgen.collect(GridWorld, 300, seed=0, path=path, progress=False)


def fit(model: WorldModel, episodes, **arguments) -> dict[str, float]:
    result = model.fit(
        episodes, tokenizer_steps=25, dynamics_steps=STEPS, progress=False, **arguments
    )
    return result.metrics


@pytest.fixture(scope="module")
def undisturbed(episodes):
    model = make_model()
    return model.state_dict() | {"metrics": fit(model, episodes)} | model.state_dict()


def assert_as_undisturbed(model: WorldModel, metrics, undisturbed):
    assert metrics == undisturbed["metrics"]
    for name, value in model.state_dict().items():
        assert torch.equal(value, undisturbed[name]), name


def kill_at(monkeypatch, step: int) -> None:
    original = DynamicsTrainer.step

    def dying(trainer: DynamicsTrainer):
        if trainer.gradient_step == step:
            raise Killed
        return original(trainer)

    monkeypatch.setattr(DynamicsTrainer, "step", dying)


def test_a_checkpoint_changes_nothing(episodes, undisturbed, tmp_path):
    model = make_model()
    metrics = fit(model, episodes, checkpoint=tmp_path / "fit", checkpoint_every=EVERY)
    assert_as_undisturbed(model, metrics, undisturbed)


@pytest.mark.parametrize("step", [0, 1, 5, 13, 23])
def test_a_fit_that_is_broken_off_goes_on(episodes, undisturbed, tmp_path, monkeypatch, step):
    path = tmp_path / "fit"
    with monkeypatch.context() as patch:
        kill_at(patch, step)
        with pytest.raises(Killed):
            fit(make_model(), episodes, checkpoint=path, checkpoint_every=EVERY)
    assert load_state(path)["trainer"]["gradient_step"] == step // EVERY * EVERY
    model = make_model()
    metrics = fit(model, episodes, checkpoint=path, checkpoint_every=EVERY)
    assert_as_undisturbed(model, metrics, undisturbed)
    # Killed again, after the fit and before the model was saved: nothing is done twice.
    with monkeypatch.context() as patch:
        kill_at(patch, STEPS)
        model = make_model()
        metrics = fit(model, episodes, checkpoint=path, checkpoint_every=EVERY)
    assert_as_undisturbed(model, metrics, undisturbed)


def interrupt_in(monkeypatch, step: int, times: int = 1) -> None:
    """Press Ctrl-C in the middle of a gradient step."""
    original = DynamicsTrainer._clip

    def interrupted(trainer: DynamicsTrainer):
        if trainer.gradient_step == step:
            for _ in range(times):
                signal.raise_signal(signal.SIGINT)
        return original(trainer)

    monkeypatch.setattr(DynamicsTrainer, "_clip", interrupted)


@pytest.mark.parametrize("step", [0, 12, 23])
def test_ctrl_c_loses_no_gradient_step(episodes, undisturbed, tmp_path, monkeypatch, step):
    path = tmp_path / "fit"
    with monkeypatch.context() as patch:
        interrupt_in(patch, step)
        with pytest.raises(KeyboardInterrupt):
            fit(make_model(), episodes, checkpoint=path, checkpoint_every=1000)
    assert load_state(path)["trainer"]["gradient_step"] == step + 1
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    model = make_model()
    metrics = fit(model, episodes, checkpoint=path, checkpoint_every=1000)
    assert_as_undisturbed(model, metrics, undisturbed)


def test_a_second_ctrl_c_is_heard_at_once(episodes, tmp_path, monkeypatch):
    interrupt_in(monkeypatch, 12, times=2)
    with pytest.raises(KeyboardInterrupt):
        fit(make_model(), episodes, checkpoint=tmp_path / "fit", checkpoint_every=EVERY)
    assert load_state(tmp_path / "fit")["trainer"]["gradient_step"] == 10


def test_without_a_checkpoint_ctrl_c_is_heard_at_once(episodes, monkeypatch):
    interrupt_in(monkeypatch, 12)
    model = make_model()
    with pytest.raises(KeyboardInterrupt) as caught:
        fit(model, episodes)
    assert "interrupted" in [entry.name for entry in caught.traceback]


def test_another_handler_of_ctrl_c_is_left_alone(episodes, tmp_path, monkeypatch):
    heard = []
    before = signal.signal(signal.SIGINT, lambda *_: heard.append(1))
    try:
        interrupt_in(monkeypatch, 12)
        fit(make_model(), episodes, checkpoint=tmp_path / "fit")
    finally:
        signal.signal(signal.SIGINT, before)
    assert heard == [1]


def test_another_fit_is_told_what_differs(episodes, tmp_path, monkeypatch):
    path = tmp_path / "fit"
    with monkeypatch.context() as patch:
        kill_at(patch, 7)
        with pytest.raises(Killed):
            fit(make_model(), episodes, checkpoint=path)
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match=r"another fit, .* differs in seed;"):
        fit(make_model(seed=1), episodes, checkpoint=path)
    with pytest.raises(CheckpointError, match="differs in episodes;"):
        fit(make_model(), episodes[:-1], checkpoint=path)
    with pytest.raises(CheckpointError, match="differs in gradient steps;"):
        make_model().fit(episodes, dynamics_steps=3, progress=False, checkpoint=path)
    assert path.read_bytes() == before


def test_a_damaged_checkpoint_is_said_so(episodes, tmp_path):
    (tmp_path / "fit").write_bytes(b"torn")
    with pytest.raises(CheckpointError, match="is damaged"):
        fit(make_model(), episodes, checkpoint=tmp_path / "fit")


def test_a_finished_checkpoint_makes_room_for_the_next_fit(episodes, tmp_path):
    model, other = make_model(), make_model()
    for each, path in ((model, tmp_path / "fit"), (other, None)):
        for _ in range(2):
            each.fit(
                episodes, tokenizer_steps=25, dynamics_steps=3, progress=False, checkpoint=path
            )
    assert all(torch.equal(model.state_dict()[n], v) for n, v in other.state_dict().items())


@pytest.mark.parametrize("every", [1, 4])
def test_a_loss_that_is_no_number_stops_and_poisons_nothing(episodes, every):
    """`every` stands for a GPU, where the losses are looked at now and then."""
    model = make_model()
    fit(model, episodes)
    trainer = DynamicsTrainer(
        model.dynamics,
        model.dataset(episodes),
        model.config.training,
        20,
        torch.Generator().manual_seed(0),
        check_every=every,
    )
    good = []
    for _ in range(8):
        good.append(copy.deepcopy(model.dynamics.state_dict()))
        trainer.step()
    good.append(copy.deepcopy(model.dynamics.state_dict()))
    trainer.dataset.rewards.fill_(np.nan)
    for _ in range(every - 1):
        trainer.step()
    with pytest.raises(
        TrainingError, match=r"must stay finite, got nan and .* at gradient step 8:"
    ):
        trainer.step()
    found = model.dynamics.state_dict()
    kept = [all(torch.equal(found[name], past[name]) for name in found) for past in good]
    assert any(kept[-every:])


def test_the_average_of_the_weights_and_clipping_are_what_they_say(episodes):
    model = make_model()
    fit(model, episodes)
    trainer = DynamicsTrainer(
        model.dynamics,
        model.dataset(episodes),
        DynamicsTrainingConfig(batch_size=4, ema_decay=0.8, max_gradient_norm=0.01),
        30,
        torch.Generator().manual_seed(0),
    )
    weight = model.dynamics.reward_head.weight
    average = weight.detach().clone().double()
    for step in range(1, 31):
        trainer.step()
        decay = min(0.8, step / (step + 9))
        average = decay * average + (1 - decay) * weight.detach().double()
        norm = sum(p.grad.square().sum() for p in model.dynamics.parameters() if p.grad is not None)
        assert norm.sqrt() <= 0.01 * 1.001
    trainer.finish()
    assert torch.allclose(weight.double(), average, atol=1e-6)
    assert not model.dynamics.training
