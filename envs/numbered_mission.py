"""MiniGrid's mission as numbers, for networks that read no text.

Classes:
    NumberedMission.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from worldgen.data.prepared_observation import is_minigrid
from worldgen.errors import SpaceError

__all__ = ["NumberedMission"]

_MOST_MISSIONS = 100_000
"""That are spelt out to look them up."""


class NumberedMission(
    gym.ObservationWrapper[dict[str, Any], Any, Any], gym.utils.RecordConstructorArgs
):
    """Show what differs between a MiniGrid environment's missions as a MultiDiscrete.

    A mission is a sentence with blanks ("go to the {color} door"), and an entry of "mission" says
    which of its possible words fills a blank, in MiniGrid's own order. Blanks with one possible
    word have no entry. Where all missions are the same, there is no "mission" at all.

    What a world model and SB3's policies leave out by default is then seen by both: without it
    MiniGrid's GoToDoor, GoToObject, Fetch and PutNear are guesswork. Put it outside of wrappers
    that replace the observation, such as `FullyObservedMiniGrid`. SB3 on its own takes MiniGrid's
    grid for a picture: `worldgen.make_env(NumberedMission(env))` says that it is none.

    >>> import minigrid  # registers its ids
    >>> env = NumberedMission(gym.make("MiniGrid-GoToDoor-5x5-v0"))
    >>> env.observation_space["mission"]
    MultiDiscrete([6])
    >>> observation, _ = env.reset(seed=0)
    >>> env.unwrapped.mission, env.words[0][int(observation["mission"][0])]
    ('go to the green door', 'green')

    Args:
        env: Any MiniGrid environment that shows a Dict, wrapped or not.

    Attributes:
        words: Of each entry, what its values stand for.

    Raises:
        SpaceError: If it is none, or its missions cannot be counted, as BabyAI's; while playing,
            if a mission is none of those that the environment's space has.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        shown = env.observation_space
        if not is_minigrid(env) or not isinstance(shown, spaces.Dict):
            raise SpaceError(
                "`env` must be a MiniGrid environment that shows a Dict, got "
                f"{type(env.unwrapped).__name__} with {type(shown).__name__}: leave "
                "NumberedMission away, or the wrapper that takes the Dict apart"
            )
        gym.utils.RecordConstructorArgs.__init__(self)
        gym.ObservationWrapper.__init__(self, env)
        self._base: Any = env.unwrapped
        blanks, self._numbers = _spelt_out(self._base.observation_space)
        self.words = tuple(blank for blank in blanks if len(blank) > 1)
        # A list, since a Dict made from a dictionary sorts its keys.
        parts = [(key, part) for key, part in shown.spaces.items() if key != "mission"]
        self._others = [key for key, _ in parts]
        if self.words:
            parts.append(("mission", spaces.MultiDiscrete([len(words) for words in self.words])))
        self.observation_space = spaces.Dict(parts)

    def observation(self, observation: dict[str, Any]) -> dict[str, Any]:
        """Replace the sentence by its numbers."""
        shown = {key: observation[key] for key in self._others}
        if not self.words:
            return shown
        mission = self._base.mission
        if mission not in self._numbers:
            raise SpaceError(
                f"the mission must be one of those that the environment's space has, got "
                f"{mission!r}: leave NumberedMission away"
            )
        return {**shown, "mission": self._numbers[mission].copy()}


def _spelt_out(shown: Any) -> tuple[list[tuple[str, ...]], dict[str, np.ndarray]]:
    """Give the words of each blank, and the numbers of each mission, without lonely words."""
    space = shown["mission"]
    if type(space).__name__ != "MissionSpace":  # BabyAI's claims to have one mission
        raise SpaceError(
            f"the missions of a {type(space).__name__} cannot be counted, and text is not read by "
            "world models and agents yet: leave NumberedMission away"
        )
    blanks = [tuple(words) for words in space.ordered_placeholders or ()]
    count = math.prod(len(words) for words in blanks)
    if count > _MOST_MISSIONS:
        raise SpaceError(
            f"there may be at most {_MOST_MISSIONS:,} missions, got {count:,}: leave "
            "NumberedMission away"
        )
    varies = [place for place, words in enumerate(blanks) if len(words) > 1]
    numbers: dict[str, np.ndarray] = {}
    for chosen in itertools.product(*(range(len(words)) for words in blanks)):
        sentence = space.mission_func(*(blanks[i][word] for i, word in enumerate(chosen)))
        numbers.setdefault(sentence, np.array([chosen[place] for place in varies], np.int64))
    return blanks, numbers
