"""What is installed: the folder mapping, the declared dependencies, and the wheel itself."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

SHIPPED = ("pyproject.toml", "README.md", "LICENSE", "worldgen", "envs", "agents")
USED_THROUGH_OTHERS = {"tensorboard", "rich"}
"""Dependencies that torch, SB3 and tqdm import for us when we ask them to log or draw."""


@pytest.fixture(scope="module")
def project(repository: Path) -> dict[str, Any]:
    return tomllib.loads((repository / "pyproject.toml").read_text())


def distribution(requirement: str) -> str:
    """The normalised name in a requirement: `Foo_bar[x]>=1` gives `foo-bar`."""
    name = re.match(r"[\w.-]+", requirement)
    assert name is not None
    return re.sub(r"[-_.]+", "-", name.group()).lower()


def test_every_package_of_the_tree_is_listed(
    project: dict[str, Any], library_modules: dict[str, Path]
) -> None:
    packages = {name for name, path in library_modules.items() if path.name == "__init__.py"}
    folders = {
        name if path.name == "__init__.py" else name.rpartition(".")[0]
        for name, path in library_modules.items()
    }
    assert folders == packages, "a folder has no __init__.py"
    assert set(project["tool"]["setuptools"]["packages"]) == packages


def test_dependencies_are_those_that_are_imported(
    project: dict[str, Any], library_modules: dict[str, Path]
) -> None:
    extras = project["project"]["optional-dependencies"]
    core = set(map(distribution, project["project"]["dependencies"]))
    optional = {distribution(need) for name in extras if name != "dev" for need in extras[name]}
    providers = importlib.metadata.packages_distributions()
    imported: set[str] = set()
    for path in library_modules.values():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported.update(alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.split(".")[0])
    imported -= {*sys.stdlib_module_names, "worldgen"}
    needed = {distribution(providers.get(name, [name])[0]) for name in imported}
    assert needed <= core | optional, "imported and not declared"
    assert core - USED_THROUGH_OTHERS <= needed, "declared and not imported"


def test_everything_declared_is_pinned(project: dict[str, Any], repository: Path) -> None:
    lines = (repository / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    loose = [pin for pin in pins if not re.fullmatch(r"[\w.-]+==[\w.]+", pin)]
    assert loose == []
    declared = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
    for needs in project["project"]["optional-dependencies"].values():
        declared += needs
    assert {distribution(need) for need in declared} <= {distribution(pin) for pin in pins}


@pytest.fixture(scope="session")
def wheel(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source archive of a copy, so that no file strays in or is left."""
    copy = tmp_path_factory.mktemp("source")
    for name in SHIPPED:
        if (repository / name).is_dir():
            shutil.copytree(
                repository / name, copy / name, ignore=shutil.ignore_patterns("__pycache__")
            )
        else:
            shutil.copy(repository / name, copy)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(copy / "dist"), "."]
    built = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = (copy / "dist").glob("*.whl")
    return path


@pytest.fixture(scope="session")
def unpacked(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds what the wheel installs."""
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def run_outside(unpacked: Path, cwd: Path, *arguments: str) -> str:
    """Run Python with the unpacked wheel from `cwd` and give what it prints.

    `-S` leaves out the hooks of the editable install, which would find what the wheel lacks.
    """
    path = os.pathsep.join([str(unpacked), sysconfig.get_path("purelib")])
    done = subprocess.run(
        [sys.executable, "-S", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_wheel_holds_the_library_and_nothing_else(
    unpacked: Path, library_modules: dict[str, Path], repository: Path
) -> None:
    (info,) = unpacked.glob("*.dist-info")
    assert (info / "top_level.txt").read_text().split() == ["worldgen"]
    assert "worldgen = worldgen.cli:main" in (info / "entry_points.txt").read_text()
    assert (info / "licenses" / "LICENSE").read_text() == (repository / "LICENSE").read_text()
    assert sorted(path.name for path in unpacked.iterdir()) == sorted(["worldgen", info.name])
    files = {str(path.relative_to(unpacked)) for path in unpacked.rglob("*") if path.is_file()}
    expected = {"worldgen/py.typed"}
    for name, path in library_modules.items():
        stem = name.replace(".", "/")
        expected.add(f"{stem}/__init__.py" if path.name == "__init__.py" else f"{stem}.py")
    assert {file for file in files if not file.startswith(info.name)} == expected


def test_wheel_imports_elsewhere(
    unpacked: Path, tmp_path: Path, library_modules: dict[str, Path]
) -> None:
    names = [name for name in library_modules if not name.endswith("__main__")]
    code = f"""
import importlib
for name in {names!r}:
    print(importlib.import_module(name).__file__)
"""
    files = run_outside(unpacked, tmp_path, "-c", code).split()
    assert len(files) == len(names)
    assert [file for file in files if not file.startswith(str(unpacked))] == []


def test_wheel_runs_elsewhere(unpacked: Path, tmp_path: Path) -> None:
    text = run_outside(unpacked, tmp_path, "-m", "worldgen", "--help")
    for verb in ("collect", "fit", "evaluate", "dream", "train"):
        assert verb in text
