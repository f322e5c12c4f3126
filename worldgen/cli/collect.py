"""Gather episodes of a Gymnasium environment into a folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from worldgen.cli.arguments import CommonArguments, Environment, Flag, Wrappers, refuse_existing
from worldgen.config import require

__all__ = ["Arguments", "run"]


@dataclass(frozen=True, kw_only=True)
class Arguments(CommonArguments):
    """Options of `worldgen collect`."""

    env: Environment
    """Gymnasium id, such as MiniGrid-DoorKey-5x5-v0."""
    wrapper: Wrappers = ()
    """Wrapper around it, as module:Class; may be repeated, the innermost first."""
    output: Path = Path("episodes")
    """Folder to write."""
    timesteps: int = 10_000
    """Real environment steps."""
    agent: Path | None = None
    """Agent that acts, as `worldgen train` saves it (agent.zip); random actions by default."""
    num_envs: int = 8
    """Environments that are stepped side by side."""
    overwrite: Flag = False
    """Replace the folder."""

    def prepare(self) -> None:
        """Check what `collect` would call by another name, too."""
        super().prepare()
        require(self.timesteps >= 1, "timesteps", "be at least 1", self.timesteps)

    def goes_on(self) -> str:
        """Say what is left of a collection after Ctrl-C."""
        count = len(list(self.output.glob("episode-*")))
        if not count:
            return ""
        episodes = f"{count} episode{'s' if count > 1 else ''}"
        return f"{self.output} keeps {episodes}; --overwrite begins anew"


def run(arguments: Arguments) -> None:
    """Collect, and say what was found."""
    refuse_existing(arguments.output, arguments.overwrite)
    from worldgen.cli.summaries import describe_episodes
    from worldgen.data.collect import collect
    from worldgen.data.environment import EnvironmentSpec

    policy = None
    if arguments.agent is not None:
        from worldgen.agents import DreamPPO

        policy = DreamPPO.load(arguments.agent)
    episodes = collect(
        EnvironmentSpec(id=arguments.env, wrappers=arguments.wrapper),
        arguments.timesteps,
        policy,
        seed=arguments.seed,
        num_envs=arguments.num_envs,
        path=arguments.output,
        overwrite=arguments.overwrite,
    )
    print(f"{describe_episodes(episodes)}: {arguments.output}")
