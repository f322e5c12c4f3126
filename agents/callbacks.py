"""Callbacks that see the phases of `DreamPPO`.

Classes:
    PhaseCallback: base of callbacks that act before and after a phase.

Functions:
    phase_callbacks: all callbacks inside a callback that know phases.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from stable_baselines3.common.callbacks import BaseCallback, CallbackList, EventCallback

__all__ = ["PhaseCallback", "phase_callbacks"]


class PhaseCallback(BaseCallback):
    """An SB3 callback that is also called around the phases "collect", "fit" and "dream".

    Override `on_phase_start` and `on_phase_end`. When the latter is called, the agent's state
    is already that of the next phase, so that an agent saved there goes on with it.
    """

    def on_phase_start(self, phase: str) -> None:
        """Act before a phase."""

    def on_phase_end(self, phase: str, metrics: Mapping[str, float]) -> bool | None:
        """Act after a phase.

        Args:
            phase: "collect", "fit" or "dream".
            metrics: What the phase achieved. After "collect": "real_timesteps", "episodes" and,
                once an episode is over, "ep_rew_mean" and "ep_len_mean"; after "fit": those of
                `FitResult`; after "dream": "dream/..." and "train/..." as they are logged.

        Returns:
            False to stop the training.
        """

    def _on_step(self) -> bool:
        return True


def phase_callbacks(callback: BaseCallback) -> Iterator[PhaseCallback]:
    """List the `PhaseCallback`s in `callback`, those inside lists and events included."""
    if isinstance(callback, PhaseCallback):
        yield callback
    if isinstance(callback, CallbackList):
        for child in callback.callbacks:
            yield from phase_callbacks(child)
    elif isinstance(callback, EventCallback) and callback.callback is not None:
        yield from phase_callbacks(callback.callback)
