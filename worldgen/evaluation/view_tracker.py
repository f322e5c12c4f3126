"""What of MiniGrid's partial view the past determines, read from frames and actions alone.

Classes:
    ViewTracker: maps of what was seen, in the agent's own frame of reference.

Functions:
    tracked_view: the path of an observation's partial view, where it has one.
    follow_contexts: trackers that have seen the frames before a dream.
    visible_cells: MiniGrid's rule of which cells of a view are in sight.

No simulator is asked. A forward move happens where the cell in front is free, so the agent's
pose follows from the actions and the cells that were seen; so does what it carries.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from gymnasium import spaces

__all__ = ["Expected", "ViewTracker", "follow_contexts", "tracked_view", "visible_cells"]

_UNSEEN, _EMPTY, _WALL, _FLOOR, _DOOR, _KEY, _BALL, _BOX, _GOAL, _LAVA, _AGENT = range(11)
_OPEN, _CLOSED, _LOCKED = range(3)
_LEFT, _RIGHT, _FORWARD, _PICK_UP, _DROP, _TOGGLE, _DONE = range(7)
_AHEAD = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)])
_NOTHING = np.array((_EMPTY, 0, 0), np.uint8)
_HIGHS = (10, 5, 3)
_LARGEST_MAP = 129
"""Side of the map, which goes round at its edges: over twice the largest of MiniGrid's worlds."""


def tracked_view(
    leaves: Mapping[str, spaces.Space[object]],
    action_space: spaces.Space[object],
    observations: Mapping[str, np.ndarray],
) -> str | None:
    """Find the one leaf that is MiniGrid's partial view; None where there is not exactly one.

    A view is square with an odd side, and never shows the agent, as MiniGrid's whole grid does.

    Args:
        leaves: Path -> leaf space.
        action_space: MiniGrid's has 7 actions.
        observations: Path -> (N, ...), frames of the environment.
    """
    if action_space != spaces.Discrete(7):
        return None
    found = [
        path
        for path, leaf in leaves.items()
        if isinstance(leaf, spaces.Box)
        and leaf.shape[2:] == (3,)
        and leaf.shape[0] == leaf.shape[1]
        and leaf.shape[0] % 2 == 1
        and tuple(leaf.high.reshape(-1, 3).max(0)) == _HIGHS
        and not (observations[path][..., 0] == _AGENT).any()
    ]
    return found[0] if len(found) == 1 else None


def visible_cells(opaque: np.ndarray) -> np.ndarray:
    """Say which cells of B views are in sight: MiniGrid's own spreading of light.

    Args:
        opaque: (B, n, n) bool, [row, x, y]; the agent stands at x = n // 2, y = n - 1 and looks
            towards y = 0.

    Returns:
        (B, n, n) bool. The fewer cells are opaque, the more are in sight.
    """
    size = opaque.shape[1]
    lit = np.zeros_like(opaque)
    lit[:, size // 2, size - 1] = True
    passes = ~opaque
    for y in range(size - 1, -1, -1):
        for xs, step in ((range(size - 1), 1), (range(size - 1, 0, -1), -1)):
            for x in xs:
                through = lit[:, x, y] & passes[:, x, y]
                lit[:, x + step, y] |= through
                if y > 0:
                    lit[:, x + step, y - 1] |= through
                    lit[:, x, y - 1] |= through
    return lit


class Expected(NamedTuple):
    """What the past says of the current views of B worlds."""

    cells: np.ndarray
    """(B, n, n, 3) uint8; means nothing where not determined."""
    determined: np.ndarray
    """(B, n, n) bool."""
    outcome: np.ndarray
    """(B,) bool: reward and termination of the last action are determined as well."""
    lost: np.ndarray
    """(B,) bool: where the agent is depends on what had not been seen."""


class ViewTracker:
    """Follow B agents and remember what they saw.

    A cell of the view is determined where it is in shadow whatever the cells that were never
    seen hold, or where it is in sight whatever they hold and its content was seen before, or
    follows by MiniGrid's rules from what was. What lies under the agent is not known before it
    is seen; nor is what a box holds.

    Args:
        views: (B, n, n, 3) uint8, the first frames.
        num_actions: Most actions that will follow.
    """

    def __init__(self, views: np.ndarray, num_actions: int) -> None:
        count, self._size = views.shape[:2]
        reach = num_actions + self._size
        self._side = min(2 * reach + 1, _LARGEST_MAP)
        self._cells = np.zeros((count, self._side, self._side, 3), np.uint8)
        self._known = np.zeros(self._cells.shape[:3], bool)
        self._rows = np.arange(count)
        self._position = np.full((count, 2), reach)
        self._direction = np.zeros(count, np.int64)
        self._carrying = np.tile(_NOTHING, (count, 1))
        self._carrying_known = np.ones(count, bool)
        self._lost = np.zeros(count, bool)
        self._outcome = np.ones(count, bool)
        self.observe(views)

    def observe(self, views: np.ndarray) -> None:
        """Take in the real views (B, n, n, 3) of the current moment."""
        size = self._size
        seen = views[..., 0] != _UNSEEN
        seen[:, size // 2, size - 1] = False  # There the view shows what is carried.
        row, x, y = np.nonzero(seen)
        place = self._places()[row, x, y]
        self._cells[row, place[:, 0], place[:, 1]] = views[row, x, y]
        self._known[row, place[:, 0], place[:, 1]] = True
        self._carrying = views[:, size // 2, size - 1].copy()
        self._carrying_known[:] = True

    def _places(self) -> np.ndarray:
        """Give the map's coordinates of each cell in view: (B, n, n, 2)."""
        size = self._size
        ahead = _AHEAD[self._direction][:, None, None]  # (B, 1, 1, 2)
        aside = np.stack([-ahead[..., 1], ahead[..., 0]], -1)
        x = (np.arange(size) - size // 2)[None, :, None, None]
        y = (size - 1 - np.arange(size))[None, None, :, None]
        places: np.ndarray = (self._position[:, None, None] + y * ahead + x * aside) % self._side
        return places

    def act(self, actions: np.ndarray) -> None:
        """Do what MiniGrid does with B actions."""
        front = (self._position + _AHEAD[self._direction]) % self._side
        place = (self._rows, front[:, 0], front[:, 1])
        cell, known = self._cells[place], self._known[place]
        kind = cell[:, 0]
        uses_front = (actions != _LEFT) & (actions != _RIGHT) & (actions != _DONE)
        self._outcome = ~self._lost & (~uses_front | (known & self._carrying_known))
        self._direction = (self._direction + (actions == _RIGHT) - (actions == _LEFT)) % 4
        forward = actions == _FORWARD
        free = np.isin(kind, (_EMPTY, _FLOOR, _GOAL, _LAVA))
        free |= (kind == _DOOR) & (cell[:, 2] == _OPEN)
        self._lost |= forward & ~known
        moves = (forward & known & free)[:, None]
        self._position = np.where(moves, front, self._position)
        self._use(actions, place, cell, known)

    def _use(
        self,
        actions: np.ndarray,
        place: tuple[np.ndarray, np.ndarray, np.ndarray],
        cell: np.ndarray,
        known: np.ndarray,
    ) -> None:
        """Pick up, drop and toggle; what depends on the unknown becomes unknown."""
        kind, held = cell[:, 0], self._carrying.copy()
        full, sure = held[:, 0] != _EMPTY, self._carrying_known.copy()
        can_be_held = np.isin(kind, (_KEY, _BALL, _BOX))
        cells, front_known = cell.copy(), known.copy()

        picks = (actions == _PICK_UP) & ~(sure & full) & ~(known & ~can_be_held)
        certainly = picks & known & sure
        self._carrying[certainly] = cell[certainly]
        cells[certainly] = _NOTHING
        drops = (actions == _DROP) & ~(sure & ~full) & ~(known & (kind != _EMPTY))
        surely = drops & known & sure
        cells[surely] = held[surely]
        self._carrying[surely] = _NOTHING
        doubtful = (picks & ~certainly) | (drops & ~surely)
        self._carrying_known &= ~doubtful

        toggles = (actions == _TOGGLE) & known
        door, locked = toggles & (kind == _DOOR), cell[:, 2] == _LOCKED
        fits = (held[:, 0] == _KEY) & (held[:, 1] == cell[:, 1])
        turns = door & (~locked | (sure & fits))
        cells[turns, 2] = np.where(cell[turns, 2] == _OPEN, _CLOSED, _OPEN)
        doubtful |= (door & locked & ~sure) | (toggles & (kind == _BOX))
        self._cells[place] = cells
        self._known[place] = front_known & ~doubtful

    def expected(self) -> Expected:
        """Say what the past determines of the views that are to be seen now."""
        size, row = self._size, self._rows[:, None, None]
        places = self._places()
        index = (row, places[..., 0], places[..., 1])
        cells, known = self._cells[index].copy(), self._known[index].copy()
        opaque = (cells[..., 0] == _WALL) | ((cells[..., 0] == _DOOR) & (cells[..., 2] != _OPEN))
        hides = opaque | ~known
        # The agent stands on nothing that it could not see from.
        hides[:, size // 2, size - 1] = opaque[:, size // 2, size - 1] = False
        at_most, at_least = visible_cells(opaque & known), visible_cells(hides)
        cells[:, size // 2, size - 1] = self._carrying
        known[:, size // 2, size - 1] = self._carrying_known
        dark = ~at_most
        cells[dark] = _UNSEEN
        determined = (dark | (at_least & known)) & ~self._lost[:, None, None]
        return Expected(cells, determined, self._outcome.copy(), self._lost.copy())


def follow_contexts(
    views: np.ndarray,
    actions: np.ndarray,
    frame: np.ndarray,
    index: np.ndarray,
    context: int,
    num_actions: int,
) -> ViewTracker:
    """Track B agents over the C frames that end at `index`.

    Args:
        views: (N, n, n, 3) of all frames.
        actions: (N,) that led to each.
        frame: (N,) index within the episode.
        index: (B,) the contexts' last frames.
        context: C.
        num_actions: Most actions that will follow.
    """
    earliest = index - frame[index]
    begin = np.maximum(index - context + 1, earliest)
    tracker = ViewTracker(views[begin], context + num_actions)
    for back in range(context - 2, -1, -1):
        at = np.maximum(index - back, begin)
        tracker.act(np.where(at > begin, actions[at], _DONE))
        tracker.observe(views[at])
    return tracker
