"""A worker behind NAT: its neighbours reach it through the gateway, and nothing else changes."""
import json
import os
import re
import subprocess
import threading
import time

import httpx
import pytest

from conftest import BINARY, GOLDEN

MODEL = GOLDEN / "llama"  # 4 blocks
REQUEST = {"prompt": "Once upon a time", "max_tokens": 600, "temperature": 0, "ignore_eos": True}


class Process:
    def __init__(self, home, *arguments):
        home.mkdir(parents=True, exist_ok=True)
        self.log = ""
        self._process = subprocess.Popen(
            [BINARY, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "TESSERA_HOME": str(home)},
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self._process.stdout:
            self.log += line

    def wait_for(self, pattern, seconds=60):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if match := re.search(pattern, self.log):
                return match
            if self._process.poll() is not None:
                break
            time.sleep(0.02)
        raise AssertionError(f"no {pattern!r} in:\n{self.log}")

    def ended(self, seconds=60):
        return self._process.wait(seconds)

    def kill(self):
        self._process.kill()
        self._process.wait()


class Cluster:
    def __init__(self, folder):
        self.folder = folder
        self.processes = []
        gateway = self._start("gateway", "gateway", "--model", MODEL, "--port", 0, "--control-port", 0,
                              "--host", "127.0.0.1", "--advertise", "127.0.0.1")  # fmt: skip
        self.url = gateway.wait_for(r"listening on (http://\S+)")[1]
        self.join = gateway.wait_for(r"--join (tessera://\S+)")[1]
        self.http = httpx.Client(base_url=self.url, timeout=120)

    def _start(self, name, *arguments):
        self.processes.append(Process(self.folder / name, *arguments))
        return self.processes[-1]

    def worker(self, name, blocks, *options):
        return self._start(name, "worker", "--join", self.join, "--name", name, "--blocks", blocks, "--threads", 1,
                           "--memory", "200MiB", "--listen", "127.0.0.1:0", *options)  # fmt: skip

    def status(self):
        return self.http.get("/api/v1/cluster").json()

    def wait_ready(self, seconds=90):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.http.get("/ready").status_code == 200:
                return
            time.sleep(0.1)
        raise AssertionError(json.dumps(self.status(), indent=1) + "".join(p.log for p in self.processes))

    def metric(self, name):
        return float(re.search(rf"^{name} (\S+)", self.http.get("/metrics").text, re.M)[1])

    def stop(self):
        for process in reversed(self.processes):
            process.kill()


@pytest.fixture
def cluster(tmp_path):
    cluster = Cluster(tmp_path)
    yield cluster
    cluster.stop()


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """What one machine answers."""
    server = Process(tmp_path_factory.mktemp("alone"), "serve", "--model", MODEL, "--port", 0)
    try:
        url = server.wait_for(r"listening on (http://\S+)")[1]
        return stream(url, lambda count: None)
    finally:
        server.kill()


def stream(url, on_chunk):
    """The text of a streamed completion; `on_chunk` is told of the number of chunks so far."""
    model = httpx.get(url + "/v1/models").json()["data"][0]["id"]
    text, count = "", 0
    body = {**REQUEST, "model": model, "stream": True}
    with httpx.stream("POST", url + "/v1/completions", json=body, timeout=120) as response:
        assert response.status_code == 200, response.read()
        for line in response.iter_lines():
            if not line.startswith("data: {"):
                continue
            event = json.loads(line[6:])
            assert "error" not in event, event
            text += "".join(choice["text"] for choice in event["choices"])
            count += 1
            on_chunk(count)
    return text


def test_a_relayed_worker_computes_the_same_and_can_be_lost(cluster, expected):
    cluster.worker("direct", "0:2")
    relayed = cluster.worker("relayed", "2:4", "--relay", "always")
    cluster.wait_ready()
    via = {worker["name"]: worker["relay"] for worker in cluster.status()["workers"]}
    assert via == {"direct": False, "relayed": True}
    assert stream(cluster.url, lambda count: None) == expected
    assert cluster.metric("tessera_relay_tunnels") >= 1
    carried = cluster.metric("tessera_relay_bytes")
    assert carried > 600 * 64 * 4, "the rows did not pass through the tunnel"

    def kill_in_the_middle(count):
        if count == 100:
            relayed.kill()
            cluster.worker("substitute", "2:4", "--relay", "always")

    assert stream(cluster.url, kill_in_the_middle) == expected
    assert any(failover["worker"] == "relayed" for failover in cluster.status()["failovers"])


def test_who_cannot_be_reached_is_relayed_or_told_what_to_open(cluster):
    # Nothing of ours answers there, as behind a NAT that forwards nothing.
    never = cluster.worker("never", "0:4", "--relay", "never", "--advertise", "127.0.0.1:9")
    assert never.ended() != 0
    assert "open TCP port" in never.log and "--relay auto" in never.log, never.log
    auto = cluster.worker("auto", "0:4", "--advertise", "127.0.0.1:9")
    auto.wait_for(r"joined as auto")
    cluster.wait_ready()
    assert {worker["name"]: worker["relay"] for worker in cluster.status()["workers"]} == {"auto": True}
    shown = subprocess.run([BINARY, "status", "--gateway", cluster.url], capture_output=True, text=True, timeout=60)
    assert re.search(r"auto\s+\S+\s+relay", shown.stdout), shown.stdout
