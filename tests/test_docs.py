"""Every Python example in the documentation runs; every verb shown on a command line exists."""

import re
from pathlib import Path

import pytest
from typer.main import get_command

from higan import load_scorer
from higan.cli import app

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
EXAMPLES = [
    pytest.param(block, id=f"{page.name}-{k}")
    for page in PAGES
    for k, block in enumerate(re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE))
]


@pytest.mark.parametrize("example", EXAMPLES)
def test_example_runs(example, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "example", "exec"), {"__name__": "example"})


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_verbs_exist(page):
    for line in re.findall(r"^(?:\$ )?higan ([^\n#]*)", page.read_text(), re.MULTILINE):
        command = get_command(app)
        for word in line.split():
            if not hasattr(command, "commands"):
                break
            assert word in command.commands, f"{page.name}: higan {line}"
            command = command.commands[word]
        options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
        used = set(re.findall(r"(?<!\S)--[a-z-]+", line))
        assert used <= options | {"--help"}, f"{page.name}: higan {line}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_scorers_that_need_nothing_are_opened_as_they_are_named(page):
    free = {"rooms", "rooms-128", "colour", "layout", "lines", "scheme", "toy", "transparent", "nulls"}
    for name in re.findall(r"--scorer ([a-z0-9+-]+)(?=[\s`])", page.read_text()):
        if free.issuperset(name.split("+")):
            load_scorer(name)


def test_readme_starts_with_two_one_line_commands():
    blocks = re.findall(r"^```bash\n(.*?)^```", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    assert len(blocks) == 2
    assert all(len(block.strip().splitlines()) == 1 for block in blocks)
    assert "higan demo --out demo" in blocks[0]
    assert "pytest" in blocks[1]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"
