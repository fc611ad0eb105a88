"""A worker behind NAT: its neighbours reach it through the gateway, and nothing else changes."""
import re
import urllib.request

import pytest
from cluster import Cluster, ready, serve, stream, wait_until

from conftest import GOLDEN

MODEL = GOLDEN / "llama"  # 4 blocks
BODY = {"prompt": "Once upon a time", "max_tokens": 600, "temperature": 0, "ignore_eos": True}
ROOM = ("--memory", "200MiB")


@pytest.fixture
def cluster(tmp_path):
    cluster = Cluster(tmp_path, MODEL)
    yield cluster
    cluster.end_workers()
    cluster.gateway.kill()


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """What one machine answers."""
    with serve(tmp_path_factory.mktemp("alone") / "home", MODEL) as url:
        return stream(url, BODY)


def wait_ready(cluster):
    logs = lambda: "\n".join(p.log for p in [cluster.gateway, *cluster.workers.values()])
    wait_until(lambda: ready(cluster.url)[0] == 200, logs, 90)


def relayed(cluster):
    return {worker["name"]: worker["relay"] for worker in cluster.view()["workers"]}


def metric(cluster, name):
    with urllib.request.urlopen(cluster.url + "/metrics", timeout=60) as answer:
        return float(re.search(rf"^{name} (\S+)", answer.read().decode(), re.M)[1])


def test_a_relayed_worker_computes_the_same_and_can_be_lost(cluster, expected):
    cluster.worker("0:2", *ROOM, name="direct")
    victim = cluster.worker("2:4", *ROOM, "--relay", "always", name="relayed")
    wait_ready(cluster)
    assert relayed(cluster) == {"direct": False, "relayed": True}
    assert stream(cluster.url, BODY) == expected
    assert metric(cluster, "tessera_relay_tunnels") >= 1
    carried = metric(cluster, "tessera_relay_bytes")
    assert carried > 600 * 64 * 4, "the rows did not pass through the tunnel"

    def kill_in_the_middle(count):
        if count >= 100 and victim.alive():
            victim.kill()
            cluster.worker("2:4", *ROOM, "--relay", "always", name="substitute")

    assert stream(cluster.url, BODY, kill_in_the_middle) == expected
    assert any(failover["worker"] == "relayed" for failover in cluster.view()["failovers"])


def test_who_cannot_be_reached_is_relayed_or_told_what_to_open(cluster):
    # Nothing of ours answers there, as behind a NAT that forwards nothing.
    never = cluster.worker("0:4", *ROOM, "--relay", "never", "--advertise", "127.0.0.1:9", name="never")
    assert never.wait() != 0
    assert "open TCP port" in never.log and "--relay auto" in never.log, never.log
    auto = cluster.worker("0:4", *ROOM, "--advertise", "127.0.0.1:9", name="auto")
    wait_until(lambda: "joined as auto" in auto.log, lambda: auto.log)
    wait_ready(cluster)
    assert relayed(cluster) == {"auto": True}
    shown = cluster.tessera("status", "--gateway", cluster.url).stdout
    assert re.search(r"auto\s+\S+\s+relay", shown), shown
