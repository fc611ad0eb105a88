"""A cluster over wide-area links: each process in a network namespace of its own, 10 ms one way between any two of them."""
import pathlib

import netns
import pytest
from cluster import Cluster, complete, ready, serve, stock, stream, wait_until
from conftest import DEFAULT_MODEL

SITES = ["tgw", "tw1", "tw2", "tw3", "tw4"]
MEMORY = ("--memory", "400MiB")
GREEDY = {"prompt": "Once upon a time", "max_tokens": 24, "temperature": 0, "ignore_eos": True}
SEEDED = {"prompt": "Once upon a time", "max_tokens": 24, "temperature": 0.9, "seed": 4, "n": 2, "ignore_eos": True}


@pytest.fixture
def wan(tmp_path):
    """{site: address}"""
    try:
        with netns.wide_area(SITES, 10, 200, tmp_path) as addresses:
            yield addresses
    except netns.Unavailable as error:
        pytest.skip(str(error))


def test_a_cluster_over_a_wide_area(wan, tmp_path, default_model):
    store = pathlib.Path(default_model).parents[1]
    with serve(tmp_path / "single", DEFAULT_MODEL, store) as url:
        wanted = {"greedy": complete(url, GREEDY), "seeded": complete(url, SEEDED)}
        long = complete(url, {**GREEDY, "max_tokens": 120})
    with netns.inside("tgw"):
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
            site_of = lambda worker: 1 + workers.index(worker)
            # Whichever of the two serves the middle goes dark: no reset, no farewell, packets just stop coming.
            dark = []

            def partition(count):
                if count >= 20 and not dark:
                    busy = [w for w in (workers[1], workers[3]) if cluster.member(w.name)["instances"][0]["sessions"] > 0]
                    victim = busy[0] if busy else workers[1]
                    dark.append(victim)
                    netns.cut_link(site_of(victim))

            got = stream(cluster.url, {**GREEDY, "max_tokens": 120}, partition)
            assert dark and got[0]["token_ids"] == long[0]["token_ids"] and got[0]["text"] == long[0]["text"]
            wait_until(lambda: cluster.member(dark[0].name)["state"] == "lost", lambda: cluster.view())
            # The link comes back, and so does the worker.
            netns.mend_link(site_of(dark[0]))
            cluster.wait_hosting(dark[0], seconds=120)
            assert complete(cluster.url, SEEDED) == wanted["seeded"]
            cluster.assert_nothing_left()
        finally:
            assert cluster.stop() == 0, cluster.gateway.log
