"""The folder of one training run, and the record of how it was made.

Classes:
    RunFolder: paths, `run.json` and the stages that are finished.

Functions:
    read_json: JSON, with an error that names the file.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from worldgen.checkpoint import write_json
from worldgen.errors import CheckpointError
from worldgen.version import __version__

__all__ = ["RunFolder", "read_json"]

_PACKAGES = ("torch", "numpy", "gymnasium", "stable-baselines3", "minigrid", "safetensors")
_FILES = (
    "config.json",
    "agent.zip",
    "best_agent.zip",
    "curve.json",
    "page.html",
    "fit.safetensors",
    "report.json",
    "timings.json",
    "stages.json",
    "run.json",
)
_FOLDERS = ("episodes", "held_out", "model", "films", "tensorboard", "codes")


@dataclass(frozen=True)
class RunFolder:
    """Everything that one run writes. Make it with `create`, or `open` one that exists."""

    path: Path
    """The folder itself."""

    @property
    def record(self) -> Path:
        """run.json: commit, versions, command, seed, hardware, start times."""
        return self.path / "run.json"

    @property
    def config(self) -> Path:
        """config.json: all settings of the run."""
        return self.path / "config.json"

    @property
    def episodes(self) -> Path:
        """Folder of the real episodes that the model learns from."""
        return self.path / "episodes"

    @property
    def held_out(self) -> Path:
        """Folder of the real episodes that the model is measured on."""
        return self.path / "held_out"

    @property
    def model(self) -> Path:
        """Folder of the world model."""
        return self.path / "model"

    @property
    def agent(self) -> Path:
        """agent.zip: the agent as SB3 saves it."""
        return self.path / "agent.zip"

    @property
    def best_agent(self) -> Path:
        """best_agent.zip: the agent that did best on held-out seeds during training."""
        return self.path / "best_agent.zip"

    @property
    def curve(self) -> Path:
        """curve.json: an entry for each round of training."""
        return self.path / "curve.json"

    @property
    def page(self) -> Path:
        """page.html: the run to look at, in a browser."""
        return self.path / "page.html"

    @property
    def fit_checkpoint(self) -> Path:
        """fit.safetensors: the state of the fit that is going on."""
        return self.path / "fit.safetensors"

    @property
    def report(self) -> Path:
        """report.json: results, without times and paths."""
        return self.path / "report.json"

    @property
    def timings(self) -> Path:
        """timings.json: wall time of each phase in seconds."""
        return self.path / "timings.json"

    @property
    def films(self) -> Path:
        """Folder of the films."""
        return self.path / "films"

    @property
    def tensorboard(self) -> Path:
        """Folder of TensorBoard's event files."""
        return self.path / "tensorboard"

    @classmethod
    def create(
        cls,
        path: str | Path,
        config: Mapping[str, Any],
        *,
        seed: int,
        command: str = "",
        overwrite: bool = False,
        resume: bool = False,
        may_grow: str | None = None,
        may_change: str | None = None,
    ) -> Self:
        """Begin a run, or go on with one.

        Args:
            path: The folder; missing parents are made.
            config: JSON values; a run is gone on with only under the same ones.
            seed: Of the run, for run.json.
            command: Command line, for run.json.
            overwrite: Remove what an earlier run wrote to the folder.
            resume: Go on with the run in the folder, or begin where there is none.
            may_grow: Name of a number in `config` of which a run may be given more.
            may_change: Name of a value that may be another.

        Raises:
            CheckpointError: If there is a run and neither `overwrite` nor `resume` is set, the
                folder holds something else, or the run to resume has another config.
        """
        folder = cls(Path(path))
        if overwrite and resume:
            raise CheckpointError("`overwrite` and `resume` exclude each other: choose one")
        if folder._begun() and resume:
            if folder._check_same(config, may_grow, may_change):
                write_json(folder.config, config)
            folder._note_start(command, seed)
            return folder
        folder._clear(overwrite or resume)
        folder.path.mkdir(parents=True, exist_ok=True)
        folder._note_start(command, seed)
        write_json(folder.config, config)
        return folder

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Take a run folder that exists.

        Raises:
            CheckpointError: If it holds no run.
        """
        folder = cls(Path(path))
        if not folder.record.is_file():
            raise CheckpointError(f"{path} must be a run folder with run.json, as `train` makes it")
        return folder

    def stages(self) -> dict[str, Any]:
        """Give the results of the finished stages by name."""
        return read_json(self._stages) if self._stages.is_file() else {}

    def finish_stage(self, name: str, result: Any) -> None:
        """Record a stage's result, JSON values, so that a resumed run need not repeat it."""
        write_json(self._stages, {**self.stages(), name: result})

    def forget_stages(self, but: Collection[str] = ()) -> None:
        """Drop recorded results, all but some, and what was made of them."""
        stages = self.stages()
        kept = {name: result for name, result in stages.items() if name in but}
        for path in (self.report, self.page):
            path.unlink(missing_ok=True)
        if kept != stages:
            write_json(self._stages, kept)

    def what_is_next(self, due: str) -> str:
        """Say what a run that is gone on with does next: what is `due`, unless it is finished."""
        return "nothing is left to do" if self.report.is_file() else f"next is {due}"

    def add_time(self, phase: str, seconds: float) -> None:
        """Add wall time to a phase; the times of a resumed run add up."""
        times = self.times()
        write_json(self.timings, {**times, phase: round(times.get(phase, 0.0) + seconds, 3)})

    def times(self) -> dict[str, float]:
        """Give the wall time of each phase so far, in seconds."""
        return read_json(self.timings) if self.timings.is_file() else {}

    @property
    def _stages(self) -> Path:
        return self.path / "stages.json"

    def _begun(self) -> bool:
        """Whether a run left its record and its config here."""
        return self.record.is_file() and self.config.is_file()

    def _check_same(
        self, config: Mapping[str, Any], may_grow: str | None, may_change: str | None
    ) -> bool:
        """Refuse another config than the run's; tell whether it has changed where it may."""
        own, new = _flat(read_json(self.config)), _flat(json.loads(json.dumps(config)))
        before, now = (values.get(may_grow or "") for values in (own, new))
        grown = isinstance(before, int) and isinstance(now, int) and now > before
        # Another environment, or dataset, has other defaults, which nobody set.
        first = ("environment", "dataset")
        names = sorted(own.keys() | new.keys(), key=lambda n: (not n.startswith(first), n))
        changed = [name for name in names if own.get(name) != new.get(name)]
        others = [
            name for name in changed if name != may_change and not (name == may_grow and grown)
        ]
        if others and others[0].startswith(first):
            others = others[:1]
        if others:
            what = ", ".join(
                f"{name} = {own.get(name)!r} (now {new.get(name)!r})" for name in others
            )
            hint = f" ({may_grow} may become more, not fewer)" if may_grow in others else ""
            raise CheckpointError(
                f"{self.path} was begun with {what}: resume with the same settings{hint} or "
                "choose another folder"
            )
        return bool(changed)

    def _clear(self, overwrite: bool) -> None:
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise CheckpointError(f"{self.path} is a file: choose another run folder")
        present = any(not _is_leftover(file) for file in self.path.iterdir())
        if present and not self.record.is_file():
            raise CheckpointError(f"{self.path} holds no run and is not empty: choose another")
        if present and not overwrite:
            raise CheckpointError(
                f"{self.path} holds a run already: pass --resume to go on with it, --overwrite to "
                "begin anew, or choose another --run"
            )
        for name in _FOLDERS:
            shutil.rmtree(self.path / name, ignore_errors=True)
        for name in _FILES:  # run.json last: until then the folder is known for a run's.
            (self.path / name).unlink(missing_ok=True)

    def _note_start(self, command: str, seed: int) -> None:
        starts = read_json(self.record)["starts"] if self.record.is_file() else []
        start = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "command": command}
        write_json(
            self.record,
            {
                "worldgen_version": __version__,
                "commit": _commit(),
                "versions": _versions(),
                "seed": seed,
                "hardware": _hardware(),
                "starts": [*starts, start],
            },
        )


def _is_leftover(file: Path) -> bool:
    """Whether a killed write left this."""
    return file.name.startswith(".") and file.name.endswith(".tmp")


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        CheckpointError: If the file is missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is missing or damaged: {error}") from error


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    """Give nested dictionaries as dotted name -> value."""
    if not isinstance(values, dict):
        return {prefix.rstrip("."): values}
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.")
    return flat


def _commit() -> str | None:
    """Name the commit of the source that runs, with "+" where files differ; None outside git."""
    source = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(source), *arguments],
            check=True,
            capture_output=True,
            text=True,
            timeout=10,
        ).stdout.strip()

    try:
        if not git("ls-files", "--", Path(__file__).name):
            return None  # installed inside somebody else's repository
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "missing"
    return found


def _hardware() -> dict[str, Any]:
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": gpu,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
