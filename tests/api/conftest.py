"""Starts `tessera serve` once for the suite and gives tests ways to talk to it.

TESSERA_BINARY       the program (default build/release/tessera)
TESSERA_TEST_MODEL   what --model gets (default: smollm2:135m, pulled into the user's store)
TESSERA_TEST_BLOCKS  what --blocks gets (default: not given), e.g. 0:8,8:19,19:30
TESSERA_TEST_CLUSTER the same ranges, but each on a worker process behind `tessera gateway`; tests that start a server of their own
                     are skipped then: what they ask is the HTTP half's
"""
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import tempfile
import threading
import time

import httpx
import openai
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = os.environ.get("TESSERA_BINARY", str(ROOT / "build/release/tessera"))
MODEL = os.environ.get("TESSERA_TEST_MODEL", "smollm2:135m")
BLOCKS = os.environ.get("TESSERA_TEST_BLOCKS", "")
CLUSTER = os.environ.get("TESSERA_TEST_CLUSTER", "")
NAME = MODEL if CLUSTER else "test-model"
KEY = "sk-test-key"
CONTEXT = 1024


class Workers:
    """Homes for a cluster's processes, and one worker for each range of CLUSTER."""

    def __init__(self):
        self._folder = tempfile.TemporaryDirectory()
        self._processes = []
        store = os.path.join(os.environ.get("TESSERA_HOME", os.path.expanduser("~/.local/share/tessera")), "models")
        os.mkdir(self._home("gateway"))
        os.symlink(store, os.path.join(self._home("gateway"), "models"))

    def _home(self, name):
        return os.path.join(self._folder.name, name)

    def environment(self, name="gateway"):
        return {**os.environ, "TESSERA_HOME": self._home(name)}

    def start(self, join):
        for i, blocks in enumerate(CLUSTER.split(",")):
            command = [BINARY, "worker", "--join", join, "--blocks", blocks, "--listen", "127.0.0.1:0", "--threads", "1"]
            command += ["--memory", "600MiB", "--name", f"w{i}", "--log-level", "warn"]
            self._processes.append(subprocess.Popen(command, env=self.environment(f"w{i}")))

    def stop(self):
        for process in self._processes:
            process.kill()
            process.wait()
        self._folder.cleanup()


class Server:
    """A running `tessera serve`, or a gateway with its workers; `log` is what it has said so far."""

    def __init__(self, *arguments, ready=True, max_files=None):
        command = [BINARY, "serve", "--model", MODEL, "--served-name", NAME, "--port", "0"]
        self._workers = Workers() if CLUSTER else None
        if CLUSTER:
            command = [BINARY, "gateway", "--model", MODEL, "--port", "0", "--control-port", "0", "--advertise", "127.0.0.1"]
        command += ["--context", str(CONTEXT), *arguments]
        if BLOCKS:
            command += ["--blocks", BLOCKS]
        if max_files:
            command = ["prlimit", f"--nofile={max_files}:{max_files}", *command]
        self.log = ""
        self.http = httpx.Client(verify=False, timeout=120, limits=httpx.Limits(max_connections=None))
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=self._workers.environment() if self._workers else None,
        )
        self._listening = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if not self._listening.wait(120) or self.process.poll() is not None:
            self.stop()
            raise RuntimeError("the server did not start:\n" + self.log)
        match = re.search(r"listening on (http://([^\s:]+):(\d+))", self.log)
        self.url, self.host, self.port = match[1], match[2], int(match[3])
        if self._workers:
            wait_until(lambda: re.search(r"--join \S+\n", self.log))
            self._workers.start(re.search(r"--join (\S+)\n", self.log)[1])
        if ready:
            self.wait_ready(240 if CLUSTER else 60)

    def _read(self):
        for line in self.process.stdout:
            self.log += line
            if "listening on http" in line:
                self._listening.set()
        self._listening.set()  # the process has ended

    def wait_ready(self, seconds=60):
        deadline = time.monotonic() + seconds
        while True:
            answer = self.http.get(self.url + "/ready")
            if answer.status_code == 200:
                return
            assert time.monotonic() < deadline, f"not ready: {answer.text}\n{self.log}"
            time.sleep(0.2)

    def client(self, **options):
        options = {"api_key": KEY, "max_retries": 0, "timeout": 120, **options}
        return openai.OpenAI(base_url=self.url + "/v1", **options)

    def post(self, path, body, **options):
        """JSON (or bytes as they are) in, httpx.Response out."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.http.post(self.url + path, content=content, **options)

    def get(self, path, **options):
        return self.http.get(self.url + path, **options)

    def connect(self, timeout=60):
        return socket.create_connection((self.host, self.port), timeout=timeout)

    def metric(self, name, **labels):
        """The value of a sample of /metrics; 0 when it has not been counted yet."""
        from prometheus_client.parser import text_string_to_metric_families

        total = 0.0
        for family in text_string_to_metric_families(self.get("/metrics").text):
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    total += sample.value
        return total

    def stop(self, seconds=60):
        self.http.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        self._reader.join(10)
        if self._workers:
            self._workers.stop()
        return self.process.returncode


@pytest.fixture(scope="session")
def pulled():
    if not pathlib.Path(MODEL).exists():
        done = subprocess.run([BINARY, "pull", MODEL], capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def server(pulled):
    running = Server()
    yield running
    assert running.stop() == 0, running.log


@pytest.fixture(scope="session")
def client(server):
    return server.client()


@pytest.fixture
def start(pulled):
    """start(*arguments) → a Server of this test's own, stopped at its end."""
    if CLUSTER:
        pytest.skip("starts a server of its own: asked of `serve`")
    servers = []

    def make(*arguments, **options):
        servers.append(Server(*arguments, **options))
        return servers[-1]

    yield make
    for running in servers:
        running.stop()


def events(response_text):
    """The data of a stream's events, parsed; the end mark stays "[DONE]"."""
    out = []
    for block in response_text.split("\n\n"):
        for line in block.splitlines():
            if line.startswith("data: "):
                data = line[len("data: ") :]
                out.append(data if data == "[DONE]" else json.loads(data))
    return out


def wait_until(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.05)
