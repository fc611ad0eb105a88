"""PostgreSQL and Redis as Debian installs them, on loopback ports of their own, in a folder of the test's. Standard library only."""
import os
import pathlib
import pwd
import signal
import socket
import subprocess
import time

import pytest


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def children(pid):
    try:
        return [int(x) for x in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


class Server:
    """A server that can die as in a power cut (it and its children at once) and come back on the same port with the same files."""

    user = None
    process = None

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()

    def _as_user(self):
        """PostgreSQL refuses root."""
        return {"user": self.user, "group": self.user, "extra_groups": []} if self.user and os.getuid() == 0 else {}

    def start(self, seconds=60):
        deadline = time.monotonic() + seconds
        while True:
            if self.process is None or self.process.poll() is not None:
                with open(self.folder / "log", "a") as log:
                    self.process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, **self._as_user())
            if self.answers():
                return self
            assert time.monotonic() < deadline, (self.folder / "log").read_text()
            time.sleep(0.1)

    def kill(self):
        if self.process and self.process.poll() is None:
            for pid in [self.process.pid, *children(self.process.pid)]:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            self.process.wait()


class Postgres(Server):
    user = "postgres"

    def __init__(self, folder):
        super().__init__(folder)
        programs = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin"))
        if not programs:
            pytest.skip("PostgreSQL's server is not installed (package postgresql)")
        self.programs = programs[-1]
        if os.getuid() == 0:
            account = pwd.getpwnam(self.user)
            os.chown(self.folder, account.pw_uid, account.pw_gid)
            for parent in self.folder.parents:  # pytest's folders are root's alone
                if parent == pathlib.Path("/tmp") or parent.stat().st_mode & 0o001:
                    break
                parent.chmod(parent.stat().st_mode | 0o011)
        initdb = [self.programs / "initdb", "-D", self.folder / "data", "-U", "tessera", "-A", "trust", "-E", "UTF8", "--locale", "C.UTF-8", "-N"]
        subprocess.run(initdb, check=True, capture_output=True, cwd="/", **self._as_user())
        self.url = f"postgresql://tessera@127.0.0.1:{self.port}/postgres"

    def command(self):
        return [self.programs / "postgres", "-D", self.folder / "data", "-p", str(self.port), "-h", "127.0.0.1", "-k", ""]

    def answers(self):
        return subprocess.run(["psql", self.url, "-Atc", "SELECT 1"], capture_output=True).returncode == 0

    def ask(self, sql):
        done = subprocess.run(["psql", self.url, "-AtF", "|", "-c", sql], capture_output=True, text=True, check=True)
        return [line.split("|") for line in done.stdout.splitlines()]


class Redis(Server):
    def __init__(self, folder):
        super().__init__(folder)
        if not pathlib.Path("/usr/bin/redis-server").exists():
            pytest.skip("Redis' server is not installed (package redis-server)")
        self.url = f"redis://127.0.0.1:{self.port}"

    def command(self):
        return ["/usr/bin/redis-server", "--bind", "127.0.0.1", "--port", str(self.port), "--save", "", "--appendonly", "no", "--dir", str(self.folder)]

    def answers(self):
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False
