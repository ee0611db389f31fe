"""The README's commands do what they say: every block of shell commands and of Python runs, in order, as a newcomer runs them.

A block is run if its fence says `sh` or `python`. A comment before it says otherwise: ``<!-- slow -->`` for what takes minutes
(run by `make test-all`), ``<!-- needs: … -->`` for what cannot run everywhere. YAML files are read as what they are for; what is
to be looked at only is `text`.
"""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from PIL import Image
from sklearn.datasets import load_digits

from latency.target import load_target
from nas.cli import commands
from nas.cli.console import app
from searchspace.sampling import RandomSuggest
from searchspace.space import load_space

__all__ = ["commands"]  # what registers the commands

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(
    r"(?:<!-- (?P<mark>[^>]*) -->\n+)?^```(?P<language>[^\n]*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE
)
LANGUAGES = {"sh", "python", "yaml", "text"}
RUN = ("sh", "python")
COMMAND = re.compile(r"^(\$ )?(\S*/)?(nas|make|pip|python3?|ssh|torchrun|export|exec) ", re.MULTILINE)
TIMEOUT_S = 1200


@dataclass(frozen=True)
class Block:
    """A block of the README: what its fence says it holds, what the comment before it says, its text."""

    language: str
    mark: str
    text: str

    @property
    def slow(self) -> bool:
        return self.mark == "slow"

    @property
    def needs(self) -> str:
        return self.mark.removeprefix("needs: ") if self.mark.startswith("needs: ") else ""


def blocks() -> list[Block]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return [Block(found["language"], found["mark"] or "", found["text"]) for found in BLOCK.finditer(text)]


def photos(folder: Path) -> None:
    """A folder of labelled images, one sub-folder a class."""
    digits = load_digits()
    for index, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        path = folder / f"class-{label}" / f"{index:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * 15.9).astype("uint8")).resize((16, 16)).save(path)


def commands_of(block: Block) -> list[list[str]]:
    """Every command of ours in a block of shell commands, as words."""
    lines = [shlex.split(line, comments=True) for line in block.text.splitlines()]
    starts = [[at for at, word in enumerate(words) if word.rpartition("/")[2] == "nas"][:1] for words in lines]
    return [words[at:] for words, found in zip(lines, starts, strict=True) for at in found]


def check_options(words: Sequence[str]) -> None:
    """Whether a command of ours, as words, is one that there is, with options that it takes."""
    left = list(words[1:])
    command: Any = typer.main.get_command(app)
    while left and left[0] in getattr(command, "commands", {}):
        command = command.commands[left.pop(0)]
    assert not hasattr(command, "commands"), f"{' '.join(words)}: there is no such command"
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    given = {word.partition("=")[0] for word in left if word.startswith("-")}
    assert given <= known, f"{' '.join(words)}: there is no {', '.join(sorted(given - known))}"


def run(block: Block, folder: Path) -> None:
    environment = {
        **os.environ,
        "HOME": str(folder),
        "XDG_DATA_HOME": str(folder / "data"),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-c", block.text] if block.language == "python" else ["bash", "-euc", block.text]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, f"{block.text}\n{done.stdout}\n{done.stderr}"


def test_there_are_blocks_of_each_sort() -> None:
    found = blocks()
    assert {block.language for block in found} == LANGUAGES, "every fence says what it holds"
    assert any(block.slow for block in found)
    assert all(block.mark in ("", "slow") or block.needs for block in found)


def test_no_command_is_in_a_block_that_is_not_run() -> None:
    for block in blocks():
        assert block.language in RUN or not COMMAND.search(block.text), block.text
    assert all(COMMAND.search(block.text) for block in blocks() if block.language == "sh")


def test_yaml_files_are_what_they_are_said_to_be(tmp_path: Path) -> None:
    kinds = []
    for index, block in enumerate(block for block in blocks() if block.language == "yaml"):
        path = tmp_path / f"{index}.yaml"
        path.write_text(block.text, encoding="utf-8")
        content = yaml.safe_load(block.text)
        if "stages" in content:
            kinds.append("space")
            space = load_space(str(path)).adapt(channels=3, classes=10, resolution=32)
            assert space.sample(RandomSuggest(0)).classes == 10
        elif "device" in content:
            kinds.append("target")
            assert load_target(str(path)).name == content["name"]
        else:
            kinds.append(content["kind"])
            (container,) = content["spec"]["template"]["spec"]["containers"]
            check_options(container["command"])
    assert kinds == ["space", "Job", "target"]


def test_commands_that_cannot_run_everywhere_have_options_that_there_are() -> None:
    commands = [words for block in blocks() if block.language == "sh" and block.needs for words in commands_of(block)]
    assert {"search", "train", "worker", "profile", "targets"} <= {words[1] for words in commands}
    for words in commands:
        check_options(words)
    for wrong in (["nas", "worker", "--storge", "x"], ["nas", "serch"]):
        with pytest.raises(AssertionError, match="there is no"):
            check_options(wrong)


def test_quick_blocks_run(tmp_path: Path) -> None:
    photos(tmp_path / "photos")
    for block in blocks():
        if block.language in RUN and not block.mark:
            run(block, tmp_path)


@pytest.mark.slow
def test_the_whole_tour_runs(tmp_path: Path) -> None:
    photos(tmp_path / "photos")
    for block in blocks():
        if block.language in RUN and not block.needs:
            run(block, tmp_path)
