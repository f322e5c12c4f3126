"""Two frames in one network pass: who sees what, and the engine against full recomputation."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from gymnasium import spaces

from worldgen.actions import ActionCodec
from worldgen.codes import Codebook
from worldgen.data.token_dataset import Context, Windows
from worldgen.diffusion.frame_sampler import Process
from worldgen.diffusion.sampler_config import SamplerConfig
from worldgen.dynamics import Dynamics, DynamicsConfig
from worldgen.errors import ConfigError
from worldgen.imagination import Imagination
from worldgen.transformer import TransformerConfig

TOKENS, CODES, ROWS, CONTEXT = 3, 7, 4, 3


def make_dynamics(process: Process = "masked", flight: int = 2, *, path: bool = False) -> Dynamics:
    torch.manual_seed(0)
    config = DynamicsConfig(
        transformer=TransformerConfig(width=16, layers=2, heads=2, path_integration=path),
        context=CONTEXT,
        precision="float32",
        pointer=path,
        outcome_from="next_frame" if path else "action",
        process=process,
        frames_in_flight=flight,
    )
    codebooks = [
        Codebook(CODES, 0, 2, num_features=4, numbers=False),
        Codebook(CODES, 2, 1, num_features=2, numbers=True),
    ]
    dynamics = Dynamics(config, codebooks, ActionCodec(spaces.Discrete(4)), 5)
    dynamics.set_code_contents([torch.randn(CODES, 4), torch.randn(CODES, 2)])
    dynamics.set_code_vectors([torch.randn(CODES, 5), torch.randn(CODES, 5)])
    dynamics.two_hot.restrict(torch.tensor([-1.0, 1.0]))
    names, numbers = dynamics.ports
    for head in (names.write, numbers.change, dynamics.reward_head, dynamics.termination_head):
        torch.nn.init.normal_(head.weight, std=1.0)
    if path:
        torch.nn.init.normal_(dynamics.pointer.weight, std=0.5)
    return dynamics.eval()


def make_windows(length: int, seed: int = 0) -> Windows:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, CODES, (ROWS, length, TOKENS), generator=generator)
    actions = torch.randint(1, 5, (ROWS, length, 1), generator=generator)
    flags = torch.zeros(tokens.shape[:2], dtype=torch.bool)
    return Windows(tokens, actions, flags.float(), flags, flags.long(), flags.long())


def context_of(windows: Windows) -> Context:
    length = CONTEXT
    valid = torch.ones(len(windows.tokens), length, dtype=torch.bool)
    return Context(windows.tokens[:, :length], windows.actions[:, :length], valid)


def engine(dynamics: Dynamics, rows: int = ROWS, **settings: object) -> Imagination:
    sampler = SamplerConfig(**{"temperature": 0.0, "frames_in_flight": 2, **settings})
    return Imagination(dynamics, rows, sampler, torch.Generator().manual_seed(0))


def test_an_unseen_frame_is_not_seen_and_its_actions_are() -> None:
    dynamics, windows = make_dynamics(), make_windows(5)
    unseen = torch.zeros(ROWS, 5, dtype=torch.bool)
    unseen[:, 2] = True
    tokens = windows.tokens.clone()
    tokens[:, 2] = (tokens[:, 2] + 1) % CODES
    with torch.no_grad():
        first, _ = dynamics(windows, windows.tokens, unseen=unseen)
        second, _ = dynamics(windows, tokens, unseen=unseen)
        assert torch.equal(first.reward_logits, second.reward_logits)
        assert torch.equal(first.token_logits, second.token_logits)
        for time, changed in ((2, [False, True, True, True]), (3, [False, False, True, True])):
            actions = windows.actions.clone()
            actions[:, time] = actions[:, time] % 4 + 1
            other = dataclasses.replace(windows, actions=actions)
            second, _ = dynamics(other, windows.tokens, unseen=unseen)
            differs = (first.reward_logits - second.reward_logits).abs().amax((0, 2)) > 1e-6
            assert differs.tolist() == changed


@pytest.mark.parametrize("process", ["masked", "gaussian"])
@pytest.mark.parametrize("confidence", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("path", [False, True])
def test_two_frames_in_flight_equal_full_recomputation(
    process: Process, confidence: float, path: bool
) -> None:
    dynamics = make_dynamics(process, path=path)
    steps = 2 * CONTEXT + 2
    windows = make_windows(CONTEXT + 2 * steps + 1)
    imagination = engine(dynamics, flight_confidence=confidence)
    imagination.reset(context_of(windows))
    tokens, unseen = windows.tokens.clone(), torch.zeros(windows.tokens.shape[:2], dtype=torch.bool)
    made_again = 0
    for step in range(steps):  # the ring turns more than twice
        time = CONTEXT - 1 + 2 * step  # of the last finished frame
        passes = imagination.network_passes
        pair = imagination.step_twice(windows.actions[:, time + 1], windows.actions[:, time + 2])
        unseen[:, time + 1] = True
        for rows in (None, "unsure"):
            if rows is None:
                tokens[:, time + 1] = pair[0].tokens
                # Outcomes may depend on the frames that they led to.
                made = dataclasses.replace(windows, tokens=tokens.clone())
                made.tokens[:, time + 2] = pair[1].tokens
            with torch.no_grad():
                full, _ = dynamics(made, tokens, unseen=unseen)
            if rows is None:
                expected = dynamics.two_hot.decode(full.reward_logits[:, time])
                assert torch.allclose(pair[0].reward, expected, rtol=1e-4, atol=1e-5)
                if process == "masked":
                    assert torch.equal(pair[0].tokens, full.token_logits[:, time].argmax(-1))
                sure = full.token_logits[:, time + 1].softmax(-1).amax(-1).prod(-1)
                unsure = sure < confidence
                made_again += int(unsure.sum())
                assert imagination.network_passes - passes == 1 + unsure.sum() / ROWS
                unseen[:, time + 1] = ~unsure
        expected = dynamics.two_hot.decode(full.reward_logits[:, time + 1])
        assert torch.allclose(pair[1].reward, expected, rtol=1e-4, atol=1e-5)
        ends = full.termination_logits[:, time + 1].sigmoid()
        assert torch.allclose(pair[1].termination_probability, ends, atol=1e-5)
        if process == "masked":
            assert torch.equal(pair[1].tokens, full.token_logits[:, time + 1].argmax(-1))
        tokens[:, time + 2] = pair[1].tokens
    assert made_again == {0.0: 0, 1.0: steps * ROWS}.get(confidence, made_again)
    assert confidence != 0.6 or 0 < made_again < steps * ROWS


def test_a_frame_alone_is_the_same_with_room_for_two() -> None:
    dynamics, windows = make_dynamics(), make_windows(20)
    pair, single = engine(dynamics), engine(dynamics, frames_in_flight=1)
    for imagination in (pair, single):
        imagination.reset(context_of(windows))
    for time in range(CONTEXT, 20):
        one, other = (each.step(windows.actions[:, time]) for each in (pair, single))
        assert torch.equal(one.tokens, other.tokens)
        assert torch.allclose(one.reward, other.reward, atol=1e-5)


def test_a_row_restarts_without_touching_the_others() -> None:
    dynamics, windows, second = make_dynamics(), make_windows(20), make_windows(CONTEXT, seed=5)
    undisturbed, restarted, alone = engine(dynamics), engine(dynamics), engine(dynamics, rows=1)
    undisturbed.reset(context_of(windows))
    restarted.reset(context_of(windows))
    one, others = context_of(second).rows(torch.tensor([2])), torch.tensor([0, 1, 3])
    for time in range(CONTEXT, 18, 2):
        if time == CONTEXT + 4:
            restarted.reset_rows(torch.tensor([2]), one)
            alone.reset(one)
        pair = windows.actions[:, time], windows.actions[:, time + 1]
        expected, steps = undisturbed.step_twice(*pair), restarted.step_twice(*pair)
        for wanted, step in zip(expected, steps, strict=True):
            assert torch.equal(step.tokens[others], wanted.tokens[others])
        if time >= CONTEXT + 4:
            singles = alone.step_twice(*(action[2:3] for action in pair))
            for single, step in zip(singles, steps, strict=True):
                assert torch.equal(single.tokens, step.tokens[2:3])
                assert torch.allclose(single.reward, step.reward[2:3], rtol=1e-4)


def test_wrong_use_is_explained() -> None:
    with pytest.raises(ConfigError, match="`frames_in_flight` must be at most 1"):
        engine(make_dynamics(flight=1))
    with pytest.raises(ConfigError, match="`denoising_steps` must be 1 with two frames in flight"):
        SamplerConfig(frames_in_flight=2, denoising_steps=2)
    with pytest.raises(ConfigError, match="`frames_in_flight` must be 1 or 2, got 3"):
        DynamicsConfig(frames_in_flight=3)
    imagination = engine(make_dynamics(), frames_in_flight=1)
    imagination.reset(context_of(make_windows(CONTEXT)))
    action = torch.ones(ROWS, 1, dtype=torch.int64)
    with pytest.raises(ConfigError, match="`step_twice` needs"):
        imagination.step_twice(action, action)


def test_rolling_takes_pairs_and_an_odd_step_alone() -> None:
    dynamics, windows = make_dynamics(), make_windows(CONTEXT + 5)
    rolled, stepped = engine(dynamics, flight_confidence=0.0), engine(dynamics)
    for imagination in (rolled, stepped):
        imagination.reset(context_of(windows))
    actions = windows.actions[:, CONTEXT:]
    steps = rolled.roll(actions)
    assert rolled.network_passes == 3
    assert len(steps) == 5
    one = stepped.step_twice(actions[:, 0], actions[:, 1])
    assert torch.equal(steps[0].tokens, one[0].tokens)
