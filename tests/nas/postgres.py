"""A real PostgreSQL server from Debian's package, run by a user who is not root, on a port of its own."""

import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.shared import free_port

PASSWORD = "swordfish-4711"


@dataclass(frozen=True)
class Postgres:
    folder: Path
    binaries: Path
    port: int
    user: str | None  # None: this one
    options: str = "-c fsync=off"

    @property
    def url(self) -> str:
        return self.url_with(PASSWORD)

    def url_with(self, password: str) -> str:
        return f"postgresql://nas:{password}@127.0.0.1:{self.port}/postgres"

    def run(self, name: str, *arguments: object) -> None:
        command = [str(self.binaries / name), *map(str, arguments)]
        ended = subprocess.run(command, user=self.user, capture_output=True, text=True, timeout=60, cwd="/")
        assert ended.returncode == 0, ended.stderr

    def start(self) -> None:
        options = (
            f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self.folder} {self.options}"
        )
        log = self.folder / "log"
        with log.open("ab"):
            pass
        if self.user:
            shutil.chown(log, self.user)
        self.run("pg_ctl", "start", "-w", "-D", self.folder / "data", "-l", log, "-o", options)

    def stop(self) -> None:
        self.run("pg_ctl", "stop", "-w", "-m", "fast", "-D", self.folder / "data")


def open_postgres(options: str = Postgres.options) -> Postgres:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        pytest.skip("PostgreSQL is not installed (Debian: postgresql)")
    pytest.importorskip("psycopg", reason="the extra postgresql is not installed")
    user = "postgres" if os.getuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="nas-pg-", dir="/tmp"))
    (folder / "password").write_text(PASSWORD)
    if user:
        shutil.chown(folder, user)
        shutil.chown(folder / "password", user)
    port = free_port()
    server = Postgres(folder, found[-1].parent, port, user, options)
    server.run(
        *("initdb", "-D", folder / "data", "-U", "nas", "-A", "scram-sha-256", "--no-sync"),
        *("--pwfile", folder / "password"),
    )
    server.start()
    return server
