"""Train an agent in a dream of its environment, from a Gymnasium id to films and numbers."""

from __future__ import annotations

import math
import shlex
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from rich.console import Console

from worldgen.agents.dream_config import DreamConfig, refuse_model_steps
from worldgen.checkpoint import write_text
from worldgen.cli.arguments import CommonArguments, Environment, Flag, Wrappers
from worldgen.config import Config, require
from worldgen.data.environment import EnvironmentSpec
from worldgen.device import resolve_device
from worldgen.run_folder import RunFolder, read_json
from worldgen.world_model import WorldModelConfig

__all__ = ["Arguments", "JudgementConfig", "refuse_unused_steps", "run", "show_results"]


_TIMESTEPS = 5_000


@dataclass(frozen=True, kw_only=True)
class JudgementConfig(Config):
    """How agent and model are measured after training."""

    episodes: int = 100
    """Real episodes of held-out seeds that the agent and the random policy play."""
    held_out_steps: int = 2_000
    """Real environment steps that the random policy, and then the agent, make for the episodes
    on which the model is measured."""
    dreams: int = 256
    """Dreams in the fidelity report."""
    film_steps: int = 40
    """Most environment steps of a film."""
    round_episodes: int = 20
    """Real episodes of further held-out seeds that the agent plays after each round, for the curve
    and for best_agent.zip; 0 for none."""
    compare_ppo: bool = False
    """Whether SB3's PPO is trained in the real environment for as many steps, to compare."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("episodes", "held_out_steps", "dreams", "film_steps"):
            require(getattr(self, name) >= 1, name, "be at least 1", getattr(self, name))
        require(self.round_episodes >= 0, "round_episodes", "be at least 0", self.round_episodes)


@dataclass(frozen=True, kw_only=True)
class Arguments(CommonArguments):
    """Options of `worldgen train`."""

    env: Environment
    """Gymnasium id, such as MiniGrid-DoorKey-5x5-v0."""
    wrapper: Wrappers = ()
    """Wrapper around it, as module:Class; may be repeated, the innermost first."""
    run: Path | None = None
    """Folder of the run; by default runs/ENV, with the wrappers' class names behind it."""
    timesteps: int | None = None
    """Real environment steps that may be used: 5,000 if nothing is said, or with --resume as many
    as before. More than before let the run go on."""
    stop_at_return: float | None = None
    """Stop once the mean return of the held-out episodes was this or more after two rounds in a
    row, earlier ones included; inf for never. With --resume as before if nothing is said."""
    num_envs: int = 4
    """Real environments that are stepped side by side; 1 where vectors of reals are seen."""
    resume: Flag = False
    """Go on with the run in the folder, if there is one; episodes and finished phases stay."""
    overwrite: Flag = False
    """Replace the run in the folder."""
    device: str = "auto"
    """cpu, cuda, or auto: cuda where there is one."""
    dream: DreamConfig = DreamConfig()
    """The loop, and PPO in the dream."""
    model: WorldModelConfig = WorldModelConfig()
    """The world model."""
    judgement: JudgementConfig = JudgementConfig()
    """Measurements after training."""
    offline: Flag = False
    """Train from logged episodes alone: see worldgen train --offline --help."""
    dataset: str | None = None
    """Of --offline: folder of episodes, or id of a Minari dataset."""

    def suited(self) -> Self:
        """Give the defaults that suit what the environment shows."""
        from worldgen.agents.dream_defaults import dream_defaults, observation_space_of

        suited = dream_defaults(observation_space_of(self.environment))
        return type(self)(
            env=self.env,
            dream=suited.config,
            model=suited.model_config,
            num_envs=suited.n_envs,
        )

    @property
    def environment(self) -> EnvironmentSpec:
        """How to make the environment."""
        return EnvironmentSpec(id=self.env, wrappers=self.wrapper)

    def with_end(self) -> Self:
        """Say when the training ends, where the user did not."""
        config = RunFolder(self.folder).config
        own = read_json(config) if self.resume and config.is_file() else {}
        target = own.get("stop_at_return") if self.stop_at_return is None else self.stop_at_return
        return replace(
            self,
            timesteps=self.timesteps or own.get("timesteps") or _TIMESTEPS,
            stop_at_return=None if target == math.inf else target,
        )

    def goes_on(self) -> str:
        """Say how to go on after Ctrl-C."""
        return f"--resume goes on with {self.folder}" if self.folder.exists() else ""

    @property
    def folder(self) -> Path:
        """Where the run is, or will be."""
        name = "-".join([self.env, *(wrapper.rpartition(":")[2] for wrapper in self.wrapper)])
        return self.run or Path("runs") / name.replace("/", "-").replace(":", "-")

    def settings(self) -> dict[str, Any]:
        """Give all that decides about the results, for config.json."""
        return {
            "environment": self.environment.to_dict(),
            "seed": self.seed,
            "timesteps": self.timesteps,
            "stop_at_return": self.stop_at_return,
            "num_envs": self.num_envs,
            "dream": self.dream.to_dict(),
            "model": self.model.to_dict(),
            "judgement": self.judgement.to_dict(),
        }


def run(arguments: Arguments) -> None:
    """Train, or go on training; measure; film; print the table and where everything is."""
    rule = "be given together with --offline"
    require(arguments.dataset is None, "--dataset", rule, arguments.dataset)
    require(arguments.num_envs >= 1, "num_envs", "be at least 1", arguments.num_envs)
    rule = f"be at least {arguments.num_envs}, one for each of num_envs"
    enough = arguments.timesteps is None or arguments.timesteps >= arguments.num_envs
    require(enough, "timesteps", rule, arguments.timesteps)
    target = arguments.stop_at_return
    rule = "be left out where `judgement.round_episodes` is 0: no agent is played between rounds"
    plays = arguments.judgement.round_episodes > 0
    require(plays or target is None, "stop_at_return", rule, target)
    is_number = target is None or target > -math.inf  # which NaN is not
    require(is_number, "stop_at_return", "be a number, or inf for never", target)
    refuse_unused_steps(arguments.model)
    resolve_device(arguments.device)
    arguments = arguments.with_end()
    from worldgen.cli.judgement import Judgement
    from worldgen.cli.training import train_agent

    arguments.environment.make().close()  # an unknown id ends here, before a folder is made
    folder = RunFolder.create(
        arguments.folder,
        arguments.settings(),
        seed=arguments.seed,
        command=shlex.join(["worldgen", *sys.argv[1:]]),
        overwrite=arguments.overwrite,
        resume=arguments.resume,
        may_grow="timesteps",
        may_change="stop_at_return",
    )
    print(f"run      {folder.path}", flush=True)
    agent = train_agent(folder, arguments)
    report = Judgement(folder, agent, arguments).run()
    show_results(folder, report)


def refuse_unused_steps(model: WorldModelConfig) -> None:
    """Refuse the model's own numbers of gradient steps, in the words of the command line."""
    refuse_model_steps(
        model,
        lambda field: "--model." + field.replace("_", "-"),
        lambda field: "--dream." + field.replace("_", "-"),
    )


def show_results(folder: RunFolder, report: dict[str, Any]) -> None:
    """Write the page of a run, print its table and what it has left behind."""
    from worldgen.cli.summaries import results_table

    _write_page(folder, report)
    console = Console(highlight=False)
    console.print()
    console.print(results_table(report, folder.times()))
    for label, path in _places(folder):
        print(f"{label:12} {path}")


def _write_page(folder: RunFolder, report: dict[str, Any]) -> None:
    from worldgen.cli.summaries import results_rows
    from worldgen.evaluation.run_page import run_page

    text = run_page(
        report,
        read_json(folder.curve) if folder.curve.is_file() else [],
        results=[row for rows in results_rows(report, folder.times()) for row in rows],
        films={path.stem: path.read_bytes() for path in sorted(folder.films.glob("*.gif"))},
        record=read_json(folder.record),
        settings=read_json(folder.config),
    )
    write_text(folder.page, text)


def _places(folder: RunFolder) -> list[tuple[str, str]]:
    """List what a run has left behind, each as a label and a path or a command."""
    films = [str(path) for path in sorted(folder.films.glob("*.gif"))]
    return [
        *(("film", film) for film in films),
        ("model", str(folder.model)),
        ("agent", str(folder.agent)),
        *([("best agent", str(folder.best_agent))] if folder.best_agent.is_file() else []),
        ("report", str(folder.report)),
        *([("page", str(folder.page))] if folder.page.is_file() else []),
        ("TensorBoard", f"tensorboard --logdir {folder.tensorboard}"),
    ]
