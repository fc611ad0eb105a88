"""Machines at a distance: network namespaces around a hub, their links delayed and limited by tools/wan_relay.cpp. Standard library only."""
import contextlib
import ctypes
import os
import pathlib
import shutil
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
HUB = "thub"


class Unavailable(Exception):
    """This machine cannot make namespaces; the text says what is missing."""


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


def device(index):
    """The hub's end of the link to the site of this index."""
    return f"wan{index + 1}"


def cut_link(index):
    """Packets to and from the site stop coming: no reset, no farewell."""
    sh(f"ip -n {HUB} link set {device(index)} down")


def mend_link(index):
    sh(f"ip -n {HUB} link set {device(index)} up")


@contextlib.contextmanager
def wide_area(sites, one_way_ms, mbit, folder):
    """Namespaces of these names, `one_way_ms` between any two, each link `mbit` fast: yields {site: address}. Needs root, iproute2,
    /dev/net/tun and a compiler; `folder` holds the relay's program."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        raise Unavailable("network namespaces need root and iproute2")
    relay = pathlib.Path(folder) / "wan_relay"
    relays = []

    def clean():
        for process in relays:
            process.kill()
            process.wait()
        for name in [*sites, HUB]:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)

    try:
        clean()
        sh(f"c++ -O2 -std=c++20 -o {relay} {ROOT / 'tools/wan_relay.cpp'}")
        for name in [*sites, HUB]:
            sh(f"ip netns add {name} && ip -n {name} link set lo up")
        sh(f"ip netns exec {HUB} sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'")
        addresses = {}
        for i, name in enumerate(sites):
            command = [relay, HUB, name, str(one_way_ms / 2), "0", "0", str(mbit), device(i), "wan0"]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            relays.append(process)
            if process.stdout.readline().strip() != "up":
                raise RuntimeError("wan_relay: " + process.stderr.read())
            net = f"10.9.{i + 1}"
            addresses[name] = f"{net}.2"
            sh(f"ip -n {HUB} addr add {net}.1/24 dev {device(i)} && ip -n {HUB} link set {device(i)} up")
            sh(f"ip -n {name} addr add {net}.2/24 dev wan0 && ip -n {name} link set wan0 up && ip -n {name} route add default via {net}.1")
    except (RuntimeError, OSError) as error:
        clean()
        raise Unavailable(f"no network namespaces here: {error}") from error
    try:
        yield addresses
    finally:
        clean()
