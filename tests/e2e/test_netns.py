"""A cluster over wide-area links: each process in a network namespace of its own, 10 ms one way between any two of them.

Needs root, iproute2, /dev/net/tun and a compiler for tools/wan_relay.cpp; is skipped, and says why, where one is missing.
"""
import contextlib
import ctypes
import os
import pathlib
import shutil
import subprocess

import pytest
from cluster import Cluster, complete, ready, serve, stock, stream, wait_until
from conftest import DEFAULT_MODEL, ROOT

SITES = ["tgw", "tw1", "tw2", "tw3", "tw4"]
HUB = "thub"
HALF_MS = 5  # from a site to the hub; twice that between two sites
MBIT = 200
MEMORY = ("--memory", "400MiB")
GREEDY = {"prompt": "Once upon a time", "max_tokens": 24, "temperature": 0, "ignore_eos": True}
SEEDED = {"prompt": "Once upon a time", "max_tokens": 24, "temperature": 0.9, "seed": 4, "n": 2, "ignore_eos": True}


def sh(command):
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{command}: {done.stderr.strip()}")


@contextlib.contextmanager
def inside(netns):
    """This thread's new sockets belong to the namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    other = os.open(f"/var/run/netns/{netns}", os.O_RDONLY)
    try:
        assert libc.setns(other, 0) == 0, os.strerror(ctypes.get_errno())
        yield
    finally:
        assert libc.setns(own, 0) == 0
        os.close(own)
        os.close(other)


@pytest.fixture
def wan(tmp_path):
    """Namespaces around a hub, all links up: {name: address}."""
    relay = tmp_path / "wan_relay"
    relays = []

    def clean():
        for process in relays:
            process.kill()
            process.wait()
        for name in [*SITES, HUB]:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)

    try:
        clean()
        sh(f"c++ -O2 -std=c++20 -o {relay} {ROOT / 'tools/wan_relay.cpp'}")
        for name in [*SITES, HUB]:
            sh(f"ip netns add {name} && ip -n {name} link set lo up")
        sh(f"ip netns exec {HUB} sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'")
        addresses = {}
        for i, name in enumerate(SITES, 1):
            process = subprocess.Popen(
                [relay, HUB, name, str(HALF_MS), "0", "0", str(MBIT), f"wan{i}", "wan0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
            relays.append(process)
            if process.stdout.readline().strip() != "up":
                raise RuntimeError("wan_relay: " + process.stderr.read())
            addresses[name] = f"10.9.{i}.2"
            sh(f"ip -n {HUB} addr add 10.9.{i}.1/24 dev wan{i} && ip -n {HUB} link set wan{i} up")
            sh(f"ip -n {name} addr add 10.9.{i}.2/24 dev wan0 && ip -n {name} link set wan0 up && ip -n {name} route add default via 10.9.{i}.1")
    except (RuntimeError, OSError) as error:
        clean()
        pytest.skip(f"no network namespaces here: {error}")
    yield addresses
    clean()


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("ip") is None, reason="network namespaces need root and iproute2")
def test_a_cluster_over_a_wide_area(wan, tmp_path, default_model):
    store = pathlib.Path(default_model).parents[1]
    with serve(tmp_path / "single", DEFAULT_MODEL, store) as url:
        wanted = {"greedy": complete(url, GREEDY), "seeded": complete(url, SEEDED)}
        long = complete(url, {**GREEDY, "max_tokens": 120})
    with inside("tgw"):
        cluster = Cluster(tmp_path, DEFAULT_MODEL, "--lease", "1000", models=store, netns="tgw", advertise=wan["tgw"])
        try:
            workers = []
            for site, blocks in (("tw1", "0:8"), ("tw2", "8:19"), ("tw3", "19:30"), ("tw4", "8:19")):
                stock(tmp_path / site, store)  # weights from the disk: the links are for tokens
                workers.append(cluster.worker(blocks, *MEMORY, home=tmp_path / site, netns=site, listen=wan[site] + ":0"))
            cluster.wait_hosting(*workers, seconds=180)
            wait_until(lambda: ready(cluster.url)[0] == 200, lambda: ready(cluster.url))
            assert complete(cluster.url, GREEDY) == wanted["greedy"]
            assert complete(cluster.url, SEEDED) == wanted["seeded"]
            # Whichever of the two serves the middle goes dark: no reset, no farewell, packets just stop coming.
            dark = []

            def partition(count):
                if count >= 20 and not dark:
                    busy = [w for w in (workers[1], workers[3]) if cluster.member(w.name)["instances"][0]["sessions"] > 0]
                    victim = busy[0] if busy else workers[1]
                    dark.append(victim)
                    sh(f"ip -n {HUB} link set wan{3 if victim is workers[1] else 5} down")

            got = stream(cluster.url, {**GREEDY, "max_tokens": 120}, partition)
            assert dark and got[0]["token_ids"] == long[0]["token_ids"] and got[0]["text"] == long[0]["text"]
            wait_until(lambda: cluster.member(dark[0].name)["state"] == "lost", lambda: cluster.view())
            # The link comes back, and so does the worker.
            sh(f"ip -n {HUB} link set wan{3 if dark[0] is workers[1] else 5} up")
            cluster.wait_hosting(dark[0], seconds=120)
            assert complete(cluster.url, SEEDED) == wanted["seeded"]
            cluster.assert_nothing_left()
        finally:
            assert cluster.stop() == 0, cluster.gateway.log
