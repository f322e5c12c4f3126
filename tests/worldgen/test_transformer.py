"""Who sees whom, and that the cached engine equals full recomputation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch.nn import functional

from worldgen import transformer
from worldgen.actions import ActionCodec
from worldgen.codes import Codebook
from worldgen.data.token_dataset import Context, Windows
from worldgen.diffusion.masked_diffusion import SamplerConfig, unmask
from worldgen.dynamics import Dynamics, DynamicsConfig, Prediction
from worldgen.errors import ConfigError, ShapeError
from worldgen.imagination import Imagination
from worldgen.transformer import TransformerConfig, attend, visible_past

TOKENS, CODES = 3, 7


def make_dynamics(
    context: int = 3,
    space: spaces.Space | None = None,
    *,
    path: bool = False,
    outcome_from: Any = "action",
) -> Dynamics:
    """Build a small network in float32 whose random heads say something.

    `path` gives it path integration and a pointer.
    """
    torch.manual_seed(0)
    config = DynamicsConfig(
        transformer=TransformerConfig(width=16, layers=2, heads=2, path_integration=path),
        context=context,
        precision="float32",
        pointer=path,
        outcome_from=outcome_from,
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
    if path:
        torch.nn.init.normal_(dynamics.pointer.weight, std=0.5)
    return dynamics.eval()


def make_windows(batch: int, length: int, seed: int = 0) -> Windows:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, 5, (batch, length, TOKENS), generator=generator)
    actions = torch.randint(1, 5, (batch, length, 1), generator=generator)
    return as_windows(tokens, actions)


def as_windows(tokens: torch.Tensor, actions: torch.Tensor) -> Windows:
    """Make windows of one episode each, without rewards and ends."""
    flags = torch.zeros(tokens.shape[:2], dtype=torch.bool)
    return Windows(tokens, actions, flags.float(), flags, flags.long(), flags.long())


def full_recomputation(dynamics: Dynamics, windows: Windows) -> Prediction:
    """Predict the last frame of the windows from nothing but the past, without any cache."""
    with torch.no_grad():
        prediction, _ = dynamics(windows, windows.tokens)
    return Prediction(*(part[:, -1] for part in prediction))


def test_visible_past_by_hand() -> None:
    sees = visible_past(torch.tensor([[0, 0, 1, 1]]), 1)
    assert torch.equal(sees[0], torch.eye(4, dtype=torch.bool))
    sees = visible_past(torch.tensor([[0, 0, 0, 1, 1]]), 2)
    assert sees[0].int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [0, 1, 1, 0, 0],
        [0, 0, 0, 1, 0],
        [0, 0, 0, 1, 1],
    ]


def changed(dynamics: Dynamics, change: slice, length: int = 6) -> list[bool]:
    """Which predicted frames change when the tokens of some clean frames do."""
    windows = make_windows(2, length)
    masked = torch.ones_like(windows.tokens[:, 1:], dtype=torch.bool)
    past = windows.tokens.clone()
    past[:, change] = (past[:, change] + 1) % 5
    with torch.no_grad():
        before = dynamics(windows, windows.tokens, masked)
        after = dynamics(windows, past, masked)
    first, drafts = (
        (one.reward_logits - other.reward_logits).abs().amax((0, 2)) > 1e-6
        for one, other in zip(before, after, strict=True)
    )
    assert torch.equal(first, drafts)
    return first.tolist()


def test_a_frame_depends_on_its_past_and_never_on_its_future() -> None:
    dynamics = make_dynamics(context=6)
    # Prediction t is of frame t + 1; frame 2 is in the past of frames 3, 4 and 5.
    assert changed(dynamics, slice(2, 3)) == [False, False, True, True, True]


@pytest.mark.parametrize("length", [8, 9, 15, 16, 17])
def test_attention_in_bfloat16_is_torchs_own_for_any_number_of_keys(length: int) -> None:
    torch.manual_seed(length)
    queries = torch.randn(3, 2, length, 8, requires_grad=True)
    keys, values = (torch.randn(3, 2, length, 8, requires_grad=True) for _ in range(2))
    hidden = torch.rand(3, 1, length, length) < 0.3
    hidden[..., 0] = False  # No query sees nothing.
    bias = torch.zeros(hidden.shape).masked_fill(hidden, -torch.inf)
    parts = queries, keys, values
    oracle = functional.scaled_dot_product_attention(*parts, attn_mask=bias)
    found = attend(queries.bfloat16(), keys.bfloat16(), values.bfloat16(), bias)
    assert found.dtype == torch.bfloat16
    assert torch.allclose(found.float(), oracle, atol=0.05)
    wanted = torch.randn_like(oracle)
    expected = torch.autograd.grad(oracle, parts, wanted)
    for made, right in zip(
        torch.autograd.grad(found.float(), parts, wanted), expected, strict=True
    ):
        assert torch.allclose(made, right, atol=0.1)


@pytest.mark.parametrize("rows_of_bias", [1, 5])
def test_attention_of_many_scores_is_the_same_in_parts(
    rows_of_bias: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randn(5, 2, 12, 4, generator=generator).bfloat16() for _ in range(3)]
    hidden = torch.rand(rows_of_bias, 1, 12, 12, generator=generator) < 0.3
    bias = torch.zeros(hidden.shape).masked_fill(
        hidden & ~torch.eye(12, dtype=torch.bool), -torch.inf
    )
    results = []
    for most in (10**9, 2 * 2 * 12 * 16, 1):  # All rows at once, two at a time, one by one.
        monkeypatch.setattr(transformer, "_MOST_SCORES", most)
        inputs = [vectors.clone().requires_grad_() for vectors in drawn]
        queries, keys, values = inputs
        attended = attend(queries, keys, values, bias)
        attended.float().square().sum().backward()
        results.append([attended, *(vectors.grad for vectors in inputs)])
    for other in results[1:]:
        for whole, parts in zip(results[0], other, strict=True):
            torch.testing.assert_close(parts, whole, rtol=0, atol=0)


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
            past = windows.tokens
            first, second = (dynamics(w, past, masked) for w in (windows, variant))
            assert torch.equal(first[1].token_logits[:, 2], second[1].token_logits[:, 2]) == equal
            assert torch.equal(first[0].token_logits, second[0].token_logits)


@pytest.mark.parametrize("path", [False, True])
def test_frames_of_another_episode_are_not_seen(path: bool) -> None:
    dynamics = make_dynamics(context=3, path=path)
    windows = make_windows(2, 6)
    windows.episode[:, 3:] = 1
    other = windows.tokens.clone()
    other[:, :3] = (other[:, :3] + 1) % 5
    with torch.no_grad():
        before, after = (dynamics(windows, past)[0] for past in (windows.tokens, other))
    tolerance = 1e-5 if path else 0.0  # Angles add up over all frames; only differences count.
    close = torch.isclose(before.reward_logits, after.reward_logits, rtol=0, atol=tolerance)
    assert close[:, 3:].all()
    assert not close[:, 2].any()


def stand_still(dynamics: Dynamics) -> None:
    """Take away the path and what the pointer says of outputs."""
    with torch.no_grad():
        for block in dynamics.transformer.each_block():
            assert block.moves is not None
            assert block.moves.weight.any()
            block.moves.weight.zero_()
            block.moves.bias.zero_()
        dynamics.pointer.weight.zero_()


def test_a_path_that_never_turns_and_a_pointer_at_nothing_change_nothing() -> None:
    along, plain, windows = make_dynamics(path=True), make_dynamics(), make_windows(2, 6)
    missing = plain.load_state_dict(along.state_dict(), strict=False)
    assert {name.split(".")[-2] for name in missing.unexpected_keys} == {"moves", "pointer"}
    moving = full_recomputation(along, windows)
    stand_still(along)
    still, expected = full_recomputation(along, windows), full_recomputation(plain, windows)
    assert torch.equal(still.token_logits, expected.token_logits)
    assert not torch.allclose(moving.token_logits, expected.token_logits)


def test_a_pointer_scores_what_stood_there_and_no_other_episode() -> None:
    dynamics, windows = make_dynamics(), make_windows(2, 6)
    pointing = make_dynamics(path=True)
    stand_still(pointing)
    with torch.no_grad():
        pointing.pointer.bias.copy_(torch.tensor([0.0, 2.0, 3.0]))  # One and two frames before.
    pointing.load_state_dict(dynamics.state_dict(), strict=False)
    windows.episode[:, 2:] = 1
    with torch.no_grad():
        expected = dynamics(windows, windows.tokens)[0].token_logits
        found = pointing(windows, windows.tokens)[0].token_logits
    for time in range(5):
        for back, score in ((1, 2.0), (2, 3.0)):
            if time - back >= (0 if time < 2 else 2):
                stood = windows.tokens[:, time - back].unsqueeze(-1)
                expected[:, time].scatter_add_(-1, stood, torch.full(stood.shape, score))
    assert torch.allclose(found, expected, atol=1e-5)


def test_there_is_no_path_within_one_frame() -> None:
    with pytest.raises(ConfigError, match=r"`transformer\.path_integration` must be False"):
        make_dynamics(context=1, path=True)


def engine(dynamics: Dynamics, rows: int, denoising_steps: int = 1) -> Imagination:
    sampler = SamplerConfig(denoising_steps=denoising_steps, temperature=0.0)
    return Imagination(dynamics, rows, sampler, torch.Generator().manual_seed(0))


def context_of(windows: Windows, frames: int) -> Context:
    valid = torch.ones_like(windows.terminated[:, :frames])
    return Context(windows.tokens[:, :frames], windows.actions[:, :frames], valid)


@pytest.mark.parametrize(
    ("context", "path", "outcome_from"),
    [
        (1, False, "action"),
        (3, False, "action"),
        (5, False, "action"),
        (3, True, "action"),
        (1, False, "next_frame"),
        (3, True, "next_frame"),
    ],
)
def test_cached_imagination_equals_full_recomputation(
    context: int, path: bool, outcome_from: str
) -> None:
    dynamics = make_dynamics(context, path=path, outcome_from=outcome_from)
    windows = make_windows(4, context)
    imagination = engine(dynamics, 4)
    imagination.reset(context_of(windows, context))
    tokens, actions = windows.tokens, windows.actions
    generator = torch.Generator().manual_seed(1)
    for _ in range(3 * context + 2):  # the ring turns more than twice
        action = torch.randint(1, 5, (4, 1), generator=generator)
        step = imagination.step(action)
        actions = torch.cat([actions, action.unsqueeze(1)], 1)
        tokens = torch.cat([tokens, step.tokens.unsqueeze(1)], 1)  # Outcomes may depend on them.
        full = full_recomputation(dynamics, as_windows(tokens, actions))
        assert torch.allclose(step.reward, dynamics.two_hot.decode(full.reward_logits), rtol=1e-4)
        assert torch.allclose(
            step.termination_probability, full.termination_logits.sigmoid(), atol=1e-5
        )
        assert torch.equal(step.tokens, full.token_logits.argmax(-1))


@pytest.mark.parametrize("path", [False, True])
def test_a_refined_frame_equals_full_recomputation_pass_by_pass(path: bool) -> None:
    dynamics = make_dynamics(3, path=path)
    windows = make_windows(4, 3)
    imagination = engine(dynamics, 4, denoising_steps=TOKENS)
    imagination.reset(context_of(windows, 3))
    action = torch.tensor([[1], [2], [3], [4]])
    step = imagination.step(action)
    tokens = torch.cat([windows.tokens, torch.zeros(4, 1, TOKENS, dtype=torch.int64)], 1)
    full = as_windows(tokens, torch.cat([windows.actions, action.unsqueeze(1)], 1))
    generator = torch.Generator().manual_seed(0)
    known = torch.zeros(4, TOKENS, dtype=torch.bool)
    for count in range(1, TOKENS + 1):
        masked = torch.ones(4, 3, TOKENS, dtype=torch.bool)
        masked[:, -1] = ~known
        with torch.no_grad():
            first, drafts = dynamics(full, full.tokens, masked if count > 1 else None)
        prediction = drafts or first
        drawn = prediction.token_logits[:, -1].argmax(-1)
        tokens[:, -1] = torch.where(known, tokens[:, -1], drawn)
        if count < TOKENS:
            known = unmask(known, torch.zeros(4, TOKENS), count, imagination.sampler, generator)
    assert torch.equal(step.tokens, tokens[:, -1])
    logits = prediction.reward_logits[:, -1]
    assert torch.allclose(step.reward, dynamics.two_hot.decode(logits), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("path", [False, True])
def test_a_row_restarts_without_touching_the_others(path: bool) -> None:
    dynamics = make_dynamics(3, path=path)
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


@pytest.mark.parametrize("path", [False, True])
def test_many_rows_begin_in_few_sizes_and_as_each_alone(path: bool, monkeypatch) -> None:
    dynamics = make_dynamics(3, path=path)
    sizes = []

    def noting(inputs, *arguments):
        sizes.append(len(inputs))
        return prefill(inputs, *arguments)

    prefill = dynamics.transformer.prefill
    monkeypatch.setattr(dynamics.transformer, "prefill", noting)
    windows, action = make_windows(150, 3), torch.ones(150, 1, dtype=torch.int64)
    together = engine(dynamics, 150)
    together.reset(context_of(windows, 3))
    assert sizes == [64, 64, 32]
    for count in range(1, 151):  # As in a dream, whose rows end when they end.
        together.reset_rows(torch.arange(count), context_of(windows, 3).rows(torch.arange(count)))
    assert set(sizes) == {1, 2, 4, 8, 16, 32, 64}
    imagined = together.step(action)
    for row in (0, 63, 64, 127, 128, 149):
        alone = engine(dynamics, 1)
        alone.reset(context_of(windows, 3).rows(torch.tensor([row])))
        single = alone.step(action[:1])
        assert torch.allclose(imagined.reward[row], single.reward, rtol=1e-4)
        assert torch.equal(imagined.tokens[row], single.tokens[0])


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
    imagination.reset(Context(windows.tokens, codec.none(3, 3), torch.ones(3, 3, dtype=torch.bool)))
    step = imagination.step(codec.encode(np.array([[-2, 0], [2, 1], [0.5, 0.5]], np.float32)))
    assert step.reward.isfinite().all()
    imagination.reset(Context(windows.tokens, codec.none(3, 3), torch.ones(3, 3, dtype=torch.bool)))
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
