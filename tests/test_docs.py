"""The examples in the documentation run."""

import importlib
import re
import shlex
from pathlib import Path

import pytest
import typer
import yaml

from stopgrad.catalog import CATALOG
from stopgrad.cli import app

DOCS = Path(__file__).parents[1] / "docs"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PAGES = [
    path
    for path in sorted(DOCS.rglob("*.md"))
    if BLOCK.search(path.read_text()) and path.name != "architecture.md"
]


def test_there_are_examples():
    assert any(path.name == "modes.md" for path in PAGES)


@pytest.mark.parametrize("page", PAGES, ids=[str(path.relative_to(DOCS)) for path in PAGES])
def test_the_examples_of_a_page_run_in_order(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in BLOCK.findall(page.read_text()):
        exec(compile(block, str(page), "exec"), names)


COMMANDS = [
    (path.name, command)
    for path in [*sorted(DOCS.rglob("*.md")), DOCS.parent / "README.md"]
    for command in re.findall(r"^(?: {4})?stopgrad (.+)$", path.read_text(), re.MULTILINE)
]


@pytest.mark.parametrize(("page", "line"), COMMANDS)
def test_the_command_line_takes_what_a_page_shows(page, line):
    """Verbs, flags and methods exist; nothing is run."""
    command, words = typer.main.get_command(app), shlex.split(line, comments=True)
    while hasattr(command, "commands"):
        command, words = command.commands[words[0]], words[1:]
    given = command.make_context(command.name, words).params
    assert given.get("method") in (None, *CATALOG)


MIGRATING = (DOCS / "migrating.md").read_text()


def _cells(heading):
    """The lines of the table under a heading, as lists of the names in each cell."""
    section = MIGRATING.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    lines = [line.split("|")[1:-1] for line in section.splitlines() if line.startswith("| `")]
    return [[re.findall(r"`([^`]+)`", cell) for cell in line] for line in lines]


def _settings():
    """Paths of all settings, of every kind of a part."""
    from stopgrad.training.settings import resolve

    def paths(content, prefix=""):
        for name, value in content.items():
            yield prefix + name
            if isinstance(value, dict):
                yield from paths(value, f"{prefix}{name}.")

    return {path for name in CATALOG for path in paths(resolve({"method": name}).model_dump())}


@pytest.mark.parametrize("heading", ["From solo-learn", "From lightly"])
def test_the_names_to_migrate_to_are_settings(heading):
    known = _settings()
    ours = [name.partition(":")[0] for cells in _cells(heading) for name in cells[1]]
    ours = [name for name in ours if not name.startswith(("sg.", "stopgrad", "torchrun", "--"))]
    assert len(ours) > 8
    assert not [name for name in ours if name not in known]


def test_the_values_to_migrate_to_are_valid():
    from stopgrad.training.settings import resolve

    named = [name.split(": ") for cells in _cells("From lightly") for name in cells[1] if ": " in name]
    assert ["method", "vicreg"] in named
    for path, value in named:
        settings = {"method": "byol"}
        place = settings
        *parents, last = path.split(".")
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
        resolve(settings)


def test_the_names_to_migrate_from_are_lightlys():
    for cells in _cells("From lightly"):
        for name in cells[0]:
            module, _, attribute = name.rpartition(".")
            assert hasattr(importlib.import_module(module), attribute), name


def test_the_settings_of_the_migrated_recipe_are_valid():
    from stopgrad.training.settings import resolve

    recipe = yaml.safe_load(re.search(r"```yaml\n(.*?)```", MIGRATING, re.DOTALL)[1])
    settings = resolve(recipe)
    assert (settings.optimizer.lr, settings.target.tau, settings.predictor.hidden) == (1.0, 0.99, 4096)
