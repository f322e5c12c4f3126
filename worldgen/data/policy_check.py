"""Whether a policy was made for an environment.

Functions:
    check_fits: refuse one that was not.
"""

from __future__ import annotations

from typing import Any

from gymnasium import spaces

from worldgen.errors import SpaceError
from worldgen.spaces import in_short, leaves

__all__ = ["check_fits"]


def check_fits(
    policy: object, observation_space: spaces.Space[Any], action_space: spaces.Space[Any]
) -> None:
    """Make sure that an SB3 model or policy was made for such observations and actions.

    Parts and shapes are compared, not bounds; other policies are taken as they are.

    Raises:
        SpaceError: If it was not.
    """
    own, actions = (getattr(policy, f"{kind}_space", None) for kind in ("observation", "action"))
    if not isinstance(own, spaces.Space) or not isinstance(actions, spaces.Space):
        return
    if _shapes(own) != _shapes(observation_space) or type(actions) is not type(action_space):
        raise SpaceError(
            f"the policy must have been made for the observation space "
            f"{in_short(observation_space)} and the action space {action_space}, got one for "
            f"{in_short(own)} and {actions}"
        )


def _shapes(space: spaces.Space[Any]) -> dict[str, list[int]]:
    """Give the sizes of each part in ascending order, since SB3 puts channels first."""
    return {path: sorted(leaf.shape or ()) for path, leaf in leaves(space).items()}
