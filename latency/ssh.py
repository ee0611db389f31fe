"""Boards over ssh: any Linux machine with python3, numpy and onnxruntime.

The ``ssh`` program does the connecting, not a library: it alone reads the user's whole configuration (aliases, jump hosts,
agents, hardware keys, certificates) as the user knows it from the command line, so what works there works here. Host keys are
always verified, nothing is ever asked. Each command is one connection; ``ControlMaster`` in the configuration makes it cheaper.
"""

import re
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

from latency.address import SshAddress
from latency.errors import DeviceError, DeviceUnreachable
from latency.remote import PythonRemote
from latency.shell import Shell

FAILED = 255  # ssh's own exit code when it is ssh that failed
OPTIONS = {
    "BatchMode": "yes",  # fail instead of asking
    "StrictHostKeyChecking": "yes",
    "ConnectTimeout": "10",
    "ServerAliveInterval": "5",
    "ServerAliveCountMax": "3",
    "ClearAllForwardings": "yes",
    "LogLevel": "ERROR",
}


class SshShell(Shell):
    """Runs commands over ``ssh``."""

    def __init__(self, address: SshAddress) -> None:
        self.address = address
        user = f"{address.user}@" if address.user else ""
        port = f":{address.port}" if address.port else ""
        super().__init__(f"ssh {user}{address.address}{port}", folder=address.folder)

    def command(self, args: Sequence[str]) -> list[str]:
        return [*self._client(), shlex.join(args)]

    def trouble(self, code: int, stderr: str) -> DeviceError | None:
        if code != FAILED:
            return None
        where = self.name
        by_hand = shlex.join(self._client(asking=True))
        if "REMOTE HOST IDENTIFICATION HAS CHANGED" in stderr:
            file = re.search(r"^Offending .* key in (.+):\d+", stderr, re.MULTILINE)
            forget = shlex.join(["ssh-keygen", *(["-f", file[1]] if file else []), "-R", self._known_as()])
            return DeviceError(
                f"{where}: its host key must be the one it had before, it is another: if the device was set up anew, run "
                f"`{forget}` and then `{by_hand}` once; if not, someone may be in between"
            )
        if "Host key verification failed" in stderr or "host key is known" in stderr:
            return DeviceError(
                f"{where}: its host key must be known, and is not yet: run `{by_hand}` once, compare and accept"
            )
        if "Permission denied" in stderr or "Too many authentication failures" in stderr:
            return DeviceError(
                f"{where}: it refuses the keys it was offered: give it one with `ssh-copy-id`, name another under "
                f"`device: key`, or start the agent; `{by_hand}` must connect without a password"
            )
        reason = next((line.strip() for line in reversed(stderr.splitlines()) if line.strip()), "the connection broke")
        if "onfiguration" in reason or "Bad owner" in reason:
            return DeviceError(f"{where}: {reason}")
        return DeviceUnreachable(f"{where}: {reason}: is it on, and does `{by_hand}` connect?")

    def _client(self, *, asking: bool = False) -> list[str]:
        """The program with its options, up to the device's name; `asking`: as a person would call it."""
        address = self.address
        options = (
            [] if asking else ["-T", *(part for key, value in OPTIONS.items() for part in ("-o", f"{key}={value}"))]
        )
        if address.config:
            options += ["-F", str(Path(address.config).expanduser())]
        if address.key:
            options += ["-i", str(Path(address.key).expanduser()), "-o", "IdentitiesOnly=yes"]
        if address.port:
            options += ["-p", str(address.port)]
        if address.user:
            options += ["-l", address.user]
        return ["ssh", *options, "--", address.address]

    def _known_as(self) -> str:
        """The name in the file of known hosts, by the user's configuration."""
        client, *options = self._client(asking=True)
        done = subprocess.run([client, "-G", *options], capture_output=True, text=True, check=False)
        told = dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)
        host, port = told.get("hostname", self.address.address), told.get("port", "22")
        return told.get("hostkeyalias") or (host if port == "22" else f"[{host}]:{port}")


def ssh_device(name: str, address: SshAddress) -> PythonRemote:
    """The board at an address.

    Raises:
        DeviceError: a file that the address names is not there.
    """
    for key, path in (("key", address.key), ("config", address.config)):
        if path is not None and not Path(path).expanduser().is_file():
            raise DeviceError(f"{name}: `device: {key}` must name a file, got {path}")
    return PythonRemote(name, SshShell(address), python=address.python)
