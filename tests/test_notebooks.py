"""The notebooks of docs/: they run from top to bottom, and are kept without outputs."""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

REPOSITORY = Path(__file__).parents[1]
NOTEBOOKS = sorted((REPOSITORY / "docs").glob("*.ipynb"))
MOST_BYTES = 50_000


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert path.stat().st_size < MOST_BYTES


@pytest.fixture(scope="module")
def codes(tmp_path_factory):
    """The notebook on codes, after it has run."""
    patch = pytest.MonkeyPatch()
    # Nothing is read from or written to the user's own folders.
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR"):
        patch.setenv(name, str(tmp_path_factory.mktemp(name.lower())))
    patch.setenv("OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "2"))
    patch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    notebook = nbformat.read(REPOSITORY / "docs" / "codes.ipynb", as_version=4)
    folder = tmp_path_factory.mktemp("notebook")
    client = NotebookClient(
        notebook,
        timeout=120,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
    )
    try:
        client.execute()
    finally:
        patch.undo()
    return notebook


def outputs(notebook, kind):
    """All that the cells gave of one MIME type."""
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [output.data[kind] for output in shown if kind in output.get("data", {})]


@pytest.mark.timeout(180)
def test_the_notebook_on_codes_shows_what_it_says(codes):
    assert len(outputs(codes, "image/png")) == 3  # atlas, plot, overlay
    said = "".join(
        output.text
        for cell in codes.cells
        for output in cell.get("outputs", [])
        if output.output_type == "stream" and output.name == "stdout"
    )
    share = float(said.split("exactly right: ")[1].split("%")[0])
    assert share > 98
    assert "key " in said
    assert "door " in said
    assert outputs(codes, "text/plain")[-1] == "512"
    warned = [
        output.text
        for cell in codes.cells
        for output in cell.get("outputs", [])
        if output.output_type == "stream" and output.name == "stderr"
    ]
    assert warned == []
