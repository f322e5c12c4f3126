"""README and docs/: links lead somewhere, examples import what there is, commands parse."""

from __future__ import annotations

import ast
import builtins
import importlib
import re
import shlex
import symtable
import sys
import types
from pathlib import Path

import gymnasium
import pytest
from gymnasium.envs.classic_control import CartPoleEnv

import worldgen
from worldgen.cli.application import VERBS, module_of
from worldgen.cli.arguments import parse

REPOSITORY = Path(__file__).parents[1]
DOCS = REPOSITORY / "docs"
PAGES = [REPOSITORY / "README.md", *sorted(DOCS.rglob("*.md"))]
TAUGHT = [REPOSITORY / "README.md", *sorted((DOCS / "guides").glob("*.md"))]
LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def named(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def anchors(page: Path) -> set[str]:
    """What GitHub calls the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def blocks(page: Path, language: str) -> list[str]:
    return [code for name, code in FENCE.findall(page.read_text()) if name == language]


def broken_links(page: Path) -> list[str]:
    broken = []
    for link in LINK.findall(FENCE.sub("", page.read_text())):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        known = target.exists() and (not anchor or anchor in anchors(target))
        broken += [] if known else [link]
    return broken


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_somewhere(page):
    assert broken_links(page) == []


def test_a_broken_link_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# A heading\n[a](#a-heading) [b](#no-heading) [c](nowhere.md) [d](page.md)")
    assert broken_links(page) == ["#no-heading", "nowhere.md"]


@pytest.mark.parametrize("page", TAUGHT, ids=named)
def test_examples_name_what_there_is(page):
    for code in blocks(page, "python"):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module or "")
                missing = [name.name for name in node.names if not hasattr(module, name.name)]
                assert missing == [], f"{node.module} in {code}"
            elif (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id == "worldgen"
            ):
                assert hasattr(worldgen, node.attr), node.attr


def undefined(page: Path) -> set[str]:
    """Names that the examples of a page use, and that none of them makes."""
    code = "\n".join(blocks(page, "python"))
    table = symtable.symtable(code, str(page), "exec")
    made = {symbol.get_name() for symbol in table.get_symbols() if symbol.is_assigned()}
    made |= {symbol.get_name() for symbol in table.get_symbols() if symbol.is_imported()}
    made |= {child.get_name() for child in table.get_children()}
    used = {symbol.get_name() for symbol in table.get_symbols() if symbol.is_referenced()}
    return used - made - set(dir(builtins))


@pytest.mark.parametrize("page", TAUGHT, ids=named)
def test_examples_make_what_they_use(page):
    assert undefined(page) == set()


def test_what_no_example_makes_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```python\nimport os\n```\n\n```python\nprint(os.name, model)\n```\n")
    assert undefined(page) == {"model"}


def commands(page: Path) -> list[list[str]]:
    """The words of each `worldgen VERB ...` of a page, in its shell blocks and in its tables."""
    text = page.read_text()
    lines = [line for code in blocks(page, "bash") for line in code.splitlines()]
    lines += re.findall(r"`(worldgen [a-z]+ [^`]*)`", FENCE.sub("", text))
    words = [shlex.split(line, comments=True) for line in lines]
    return [found[1:] for found in words if found[:1] == ["worldgen"] and found[1] in VERBS]


@pytest.fixture
def what_you_have(monkeypatch, tmp_path):
    """The package and the episodes that the pages let a user have."""
    monkeypatch.chdir(tmp_path)
    worldgen.collect("CartPole-v1", num_steps=40).save("data/doorkey")
    monkeypatch.setitem(sys.modules, "your_package", types.ModuleType("your_package"))
    gymnasium.register("YourEnv-v0", entry_point=CartPoleEnv)
    yield
    del gymnasium.registry["YourEnv-v0"]


@pytest.mark.usefixtures("what_you_have")
@pytest.mark.parametrize("page", TAUGHT, ids=named)
def test_commands_are_understood(page):
    for verb, *arguments in commands(page):
        if "--help" in arguments or any(word.isupper() for word in arguments):
            continue  # a form to be filled in, not a command
        module = importlib.import_module(f"worldgen.cli.{module_of(verb, arguments)}")
        parsed = parse(module.Arguments, verb, "", arguments)  # raises what a user would be told
        assert isinstance(parsed, module.Arguments)


def test_there_are_commands_to_understand():
    found = [verb for page in TAUGHT for verb, *_ in commands(page)]
    assert set(found) == set(VERBS)
