"""Actions of every space as codes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces

from worldgen.actions import ActionCodec, ActionEmbedding
from worldgen.errors import ShapeError, SpaceError


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(3),
        spaces.Discrete(3, start=-1),
        spaces.MultiDiscrete([2, 5]),
        spaces.MultiBinary(3),
        spaces.Box(-2, 5, (2,)),
        spaces.Box(0, 1, (2, 2)),
    ],
)
def test_every_action_space_is_embedded(space: spaces.Space) -> None:
    codec = ActionCodec(space)
    space.seed(0)
    actions = np.stack([np.stack([space.sample() for _ in range(4)]) for _ in range(2)])
    encoded = codec.encode(actions)
    assert encoded.shape == (2, 4, codec.num_dims)
    embedding = ActionEmbedding(codec, 8)
    vectors = embedding(encoded)
    assert vectors.shape == (2, 4, 8)
    none = embedding(codec.none(2, 4))
    assert torch.allclose(none, none[0, 0].expand_as(none))
    assert not torch.allclose(none, vectors)


def test_codes_start_behind_the_one_for_no_action() -> None:
    codec = ActionCodec(spaces.Discrete(3, start=-1))
    assert codec.encode(np.array([-1, 0, 1])).flatten().tolist() == [1, 2, 3]
    box = ActionCodec(spaces.Box(np.float32([0, -1]), np.float32([10, 1])))
    assert box.encode(np.array([5.0, 1.0])).tolist() == [0.0, 1.0]
    assert box.none(1).isnan().all()


def test_bad_actions_and_spaces_are_refused() -> None:
    with pytest.raises(ShapeError, match="must lie in"):
        ActionCodec(spaces.Discrete(3)).encode(np.array([3]))
    with pytest.raises(ShapeError, match=r"must end in shape \(2,\)"):
        ActionCodec(spaces.Box(0, 1, (2,))).encode(np.zeros(3))
    with pytest.raises(SpaceError, match="finite bounds"):
        ActionCodec(spaces.Box(-np.inf, np.inf, (2,)))
    with pytest.raises(SpaceError, match="not supported"):
        ActionCodec(spaces.Dict(a=spaces.Discrete(2)))
