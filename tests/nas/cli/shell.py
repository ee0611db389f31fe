"""Runs `nas` in the tests' own process."""

import json
import sys
from typing import Any

import pytest

from nas.cli import main


class Shell:
    """Runs `nas` in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.capsys, self.monkeypatch = capsys, monkeypatch

    def __call__(self, *arguments: object) -> tuple[int, str, str]:
        self.monkeypatch.setattr(sys, "argv", ["nas", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as leaving:
            code = int(leaving.code or 0)
        out, err = self.capsys.readouterr()
        return code, out, err

    def json(self, *arguments: object) -> dict[str, Any]:
        code, out, err = self(*arguments, "--json")
        assert code == 0, err
        result: dict[str, Any] = json.loads(out)
        return result

    def error(self, *arguments: object) -> str:
        code, out, err = self(*arguments)
        assert (code, out) == (2, "")
        (line,) = [line for line in err.splitlines() if line.startswith("error:")]
        return line
