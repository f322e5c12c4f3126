"""Who sees whom, and that the cached engine equals full recomputation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces

from worldgen.actions import ActionCodec
from worldgen.codes import Codebook
from worldgen.data.token_dataset import Context, Windows
from worldgen.diffusion.masked_diffusion import SamplerConfig
from worldgen.dynamics import Dynamics, DynamicsConfig, Prediction
from worldgen.errors import ConfigError, ShapeError
from worldgen.imagination import Imagination
from worldgen.transformer import TransformerConfig, block_diffusion_mask

TOKENS, CODES = 3, 7


def make_dynamics(context: int = 3, space: spaces.Space | None = None) -> Dynamics:
    """Build a small network in float32 whose random heads say something."""
    torch.manual_seed(0)
    config = DynamicsConfig(
        transformer=TransformerConfig(width=16, layers=2, heads=2),
        context=context,
        precision="float32",
    )
    codec = ActionCodec(space or spaces.Discrete(4))
    codebooks = [
        Codebook(CODES, 0, 2, num_features=4, numbers=False),
        Codebook(5, 2, 1, num_features=2, numbers=True),
    ]
    dynamics = Dynamics(config, codebooks, codec)
    dynamics.set_code_contents([torch.randn(CODES, 4), torch.randn(5, 2)])
    dynamics.two_hot.restrict(torch.tensor([-1.0, 1.0]))
    names, numbers = dynamics.ports
    for head in (names.write, numbers.change, dynamics.reward_head, dynamics.termination_head):
        torch.nn.init.normal_(head.weight, std=1.0)
    return dynamics.eval()


def make_windows(batch: int, length: int, seed: int = 0) -> Windows:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, 5, (batch, length, TOKENS), generator=generator)
    actions = torch.randint(1, 5, (batch, length, 1), generator=generator)
    flags = torch.zeros(batch, length, dtype=torch.bool)
    return Windows(tokens, actions, flags.float(), flags, ~flags)


def full_recomputation(dynamics: Dynamics, windows: Windows) -> Prediction:
    """Predict the last frame of the windows, fully masked, without any cache."""
    masked = torch.ones_like(windows.tokens[:, 1:], dtype=torch.bool)
    with torch.no_grad():
        prediction = dynamics(windows, windows.tokens, masked)
    return Prediction(*(part[:, -1] for part in prediction))


def test_mask_by_hand() -> None:
    # Two pairs, one token a frame, one frame of context. Columns: clean t, noised t + 1.
    mask = block_diffusion_mask(2, 1, 1)
    assert mask.tolist() == [[[True, False], [True, True]]] * 2
    # With two frames of context, the first pair has no frame before time 0.
    mask = block_diffusion_mask(2, 1, 2)
    assert mask[0].tolist() == [[False, True, False], [False, True, True]]
    assert mask[1].tolist() == [[True, True, False], [True, True, True]]


def changed(dynamics: Dynamics, change: slice, length: int = 6) -> list[bool]:
    """Which predicted frames change when the tokens of some clean frames do."""
    windows = make_windows(2, length)
    masked = torch.ones_like(windows.tokens[:, 1:], dtype=torch.bool)
    past = windows.tokens.clone()
    past[:, change] = (past[:, change] + 1) % 5
    with torch.no_grad():
        before = dynamics(windows, windows.tokens, masked).reward_logits
        after = dynamics(windows, past, masked).reward_logits
    return [(before[:, t] - after[:, t]).abs().max().item() > 1e-6 for t in range(length - 1)]


def test_a_frame_depends_on_its_past_and_never_on_its_future() -> None:
    dynamics = make_dynamics(context=6)
    # Prediction t is of frame t + 1; frame 2 is in the past of frames 3, 4 and 5.
    assert changed(dynamics, slice(2, 3)) == [False, False, True, True, True]


def test_a_hidden_token_does_not_leak_and_a_known_one_helps() -> None:
    dynamics = make_dynamics()
    windows = make_windows(2, 4)
    other = windows.tokens.clone()
    other[:, 3, 1] = (other[:, 3, 1] + 1) % 5
    variant = Windows(other, *list(vars(windows).values())[1:])
    hidden = torch.ones(2, 3, TOKENS, dtype=torch.bool)
    known = hidden.clone()
    known[:, 2, 1] = False
    with torch.no_grad():
        for masked, equal in ((hidden, True), (known, False)):
            first = dynamics(windows, windows.tokens, masked).token_logits[:, 2]
            second = dynamics(variant, windows.tokens, masked).token_logits[:, 2]
            assert torch.equal(first, second) == equal


def engine(dynamics: Dynamics, rows: int, denoising_steps: int = 1) -> Imagination:
    sampler = SamplerConfig(denoising_steps=denoising_steps, temperature=0.0)
    return Imagination(dynamics, rows, sampler, torch.Generator().manual_seed(0))


def context_of(windows: Windows, frames: int) -> Context:
    return Context(
        windows.tokens[:, :frames], windows.actions[:, :frames], windows.valid[:, :frames]
    )


@pytest.mark.parametrize("context", [1, 3, 5])
def test_cached_imagination_equals_full_recomputation(context: int) -> None:
    dynamics = make_dynamics(context)
    windows = make_windows(4, context)
    imagination = engine(dynamics, 4)
    imagination.reset(context_of(windows, context))
    tokens, actions = windows.tokens, windows.actions
    generator = torch.Generator().manual_seed(1)
    for _ in range(3 * context + 2):  # the ring turns more than twice
        action = torch.randint(1, 5, (4, 1), generator=generator)
        step = imagination.step(action)
        actions = torch.cat([actions, action.unsqueeze(1)], 1)
        tokens = torch.cat([tokens, torch.zeros(4, 1, TOKENS, dtype=torch.int64)], 1)
        flags = torch.ones(tokens.shape[:2], dtype=torch.bool)
        full = full_recomputation(dynamics, Windows(tokens, actions, flags.float(), flags, flags))
        assert torch.allclose(step.reward, dynamics.two_hot.decode(full.reward_logits), rtol=1e-4)
        assert torch.allclose(
            step.termination_probability, full.termination_logits.sigmoid(), atol=1e-5
        )
        assert torch.equal(step.tokens, full.token_logits.argmax(-1))
        tokens[:, -1] = step.tokens


def test_a_row_restarts_without_touching_the_others() -> None:
    dynamics = make_dynamics(3)
    first, second = make_windows(4, 3, seed=0), make_windows(1, 3, seed=5)
    actions = torch.randint(1, 5, (8, 4, 1), generator=torch.Generator().manual_seed(2))
    undisturbed, restarted, alone = engine(dynamics, 4), engine(dynamics, 4), engine(dynamics, 1)
    undisturbed.reset(context_of(first, 3))
    restarted.reset(context_of(first, 3))
    for time in range(8):
        if time == 4:
            restarted.reset_rows(torch.tensor([2]), context_of(second, 3))
            alone.reset(context_of(second, 3))
        expected, step = undisturbed.step(actions[time]), restarted.step(actions[time])
        others = torch.tensor([0, 1, 3])
        assert torch.allclose(step.reward[others], expected.reward[others], rtol=1e-5)
        assert torch.equal(step.tokens[others], expected.tokens[others])
        if time >= 4:
            single = alone.step(actions[time, 2:3])
            assert torch.allclose(step.reward[2:3], single.reward, rtol=1e-4)
            assert torch.equal(step.tokens[2:3], single.tokens)


def test_frames_before_an_episode_are_not_seen() -> None:
    dynamics = make_dynamics(4)
    windows = make_windows(3, 4)
    valid = torch.tensor([[False, False, True, True]]).expand(3, 4)
    padded = Context(windows.tokens, windows.actions, valid)
    short = Context(windows.tokens[:, 2:], windows.actions[:, 2:], valid[:, 2:])
    first, second = engine(dynamics, 3), engine(dynamics, 3)
    first.reset(padded)
    second.reset(short)
    for _ in range(6):
        action = torch.ones(3, 1, dtype=torch.int64)
        a, b = first.step(action), second.step(action)
        assert torch.allclose(a.reward, b.reward, rtol=1e-4)
        assert torch.equal(a.tokens, b.tokens)


@pytest.mark.parametrize("denoising_steps", [1, 2, 3, 9])
def test_denoising_steps_and_determinism(denoising_steps: int) -> None:
    dynamics = make_dynamics()
    results = []
    for _ in range(2):
        imagination = Imagination(
            dynamics,
            5,
            SamplerConfig(denoising_steps=denoising_steps),
            torch.Generator().manual_seed(7),
        )
        imagination.reset(context_of(make_windows(5, 3), 3))
        steps = [imagination.step(torch.ones(5, 1, dtype=torch.int64)) for _ in range(10)]
        results.append(torch.stack([step.tokens for step in steps]))
    assert torch.equal(*results)
    assert (results[0] < torch.tensor([CODES, CODES, 5])).all()


def test_box_actions_matter() -> None:
    dynamics = make_dynamics(space=spaces.Box(-2, 2, (2,)))
    windows = make_windows(3, 3)
    imagination = engine(dynamics, 3)
    codec = ActionCodec(spaces.Box(-2, 2, (2,)))
    imagination.reset(Context(windows.tokens, codec.none(3, 3), windows.valid))
    step = imagination.step(codec.encode(np.array([[-2, 0], [2, 1], [0.5, 0.5]], np.float32)))
    assert step.reward.isfinite().all()
    imagination.reset(Context(windows.tokens, codec.none(3, 3), windows.valid))
    other = imagination.step(codec.encode(np.array([[2, 0], [2, 1], [0.5, 0.5]], np.float32)))
    assert step.reward[0] != other.reward[0]
    assert torch.allclose(step.reward[1:], other.reward[1:])


def test_wrong_use_is_explained() -> None:
    imagination = engine(make_dynamics(), 2)
    with pytest.raises(ShapeError, match="call `reset`"):
        imagination.step(torch.ones(2, 1, dtype=torch.int64))
    with pytest.raises(ShapeError, match="must hold 2 worlds, got 3"):
        imagination.reset(context_of(make_windows(3, 3), 3))
    with pytest.raises(ConfigError, match="`width` must be a multiple of"):
        TransformerConfig(width=30, heads=4)
