"""A real OpenSSH server on loopback, run by whoever runs the tests, and a target that is reached through it."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from latency.address import SshAddress
from tests.shared import free_port

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


class Sshd:
    """Starts and stops the server; its client's configuration lies in `config` and knows it as ``board``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "ssh_config"
        self.jobs = folder / "jobs with spaces"
        self.jobs.mkdir(exist_ok=True)
        self.port = free_port()
        self.make_key("host_key")
        self.make_key("user_key")
        shutil.copy(folder / "user_key.pub", folder / "authorized_keys")
        (folder / "sshd_config").write_text(
            f"ListenAddress 127.0.0.1\nPort {self.port}\nHostKey {folder}/host_key\nPidFile none\nStrictModes no\nUsePAM no\n"
            f"AuthorizedKeysFile {folder}/authorized_keys\nPasswordAuthentication no\nPermitRootLogin yes\nMaxStartups 100\n"
        )
        self.config.write_text(
            f"Host board\n  HostName 127.0.0.1\n  Port {self.port}\n  IdentityFile {folder}/user_key\n  IdentityAgent none\n"
            f"  IdentitiesOnly yes\n  UserKnownHostsFile {folder}/known_hosts\n  GlobalKnownHostsFile /dev/null\n"
        )
        self.know((folder / "host_key.pub").read_text())
        self._process: subprocess.Popen[bytes] | None = None

    def make_key(self, name: str) -> None:
        (self.folder / name).unlink(missing_ok=True)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / name)], check=True)

    def know(self, public: str) -> None:
        """Makes this the only host key that the client expects; the empty text for none."""
        known = " ".join(public.split()[:2])
        (self.folder / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {known}\n" if known else "")

    @property
    def address(self) -> SshAddress:
        return SshAddress(address="board", config=str(self.config), python=sys.executable, folder=str(self.jobs))

    def target_file(self, path: Path, *, name: str = "board", **device: object) -> Path:
        """Writes a target that means this server."""
        plain = {
            "kind": "ssh",
            **{key: value for key, value in vars(self.address).items() if value is not None},
            **device,
        }
        path.write_text(yaml.safe_dump({"name": name, "device": plain}))
        return path

    def start(self) -> None:
        assert SSHD is not None
        self._process = subprocess.Popen(
            [SSHD, "-D", "-f", str(self.folder / "sshd_config"), "-E", str(self.folder / "log")],
            stdin=subprocess.DEVNULL,
        )
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            time.sleep(0.05)
        raise AssertionError(f"sshd does not listen: {(self.folder / 'log').read_text()}")

    def cut(self) -> None:
        """Kills the server with all of its connections, as a power cut would."""
        if self._process is None:
            return
        for pid in _servers(self._process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        self._process = None


def open_sshd(folder: Path) -> Sshd:
    """A started server; the test is skipped where there is none to start."""
    if SSHD is None or shutil.which("ssh") is None:
        pytest.skip("no OpenSSH server and client here: apt-get install openssh-server openssh-client")
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    server = Sshd(folder)
    server.start()
    return server


def _servers(root: int) -> list[int]:
    """The server's processes, those of its connections included, parents first."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            name, _, rest = path.read_text().rpartition(")")
            if "(sshd" in name:
                parents[int(path.parent.name)] = int(rest.split()[1])
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found
