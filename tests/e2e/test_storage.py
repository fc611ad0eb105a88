"""A gateway whose state lies on PostgreSQL and Redis, and what it does while one of them is dead."""
import concurrent.futures
import json
import pathlib
import threading
import urllib.error

import pytest
from cluster import Cluster, complete, get, post, ready, stream, wait_until
from conftest import DEFAULT_MODEL
from servers import Postgres, Redis


@pytest.fixture
def servers(tmp_path):
    running = []
    try:
        for kind in (Postgres, Redis):
            running.append(kind(tmp_path / kind.__name__.lower()))
            running[-1].start()
        yield running
    finally:
        for server in running:
            server.kill()


@pytest.fixture
def cluster(tmp_path, default_model, servers):
    postgres, redis = servers
    store = pathlib.Path(default_model).parents[1]
    arguments = ("--lease", "600", "--database", postgres.url, "--redis", redis.url)
    running = Cluster(tmp_path, DEFAULT_MODEL, *arguments, models=store)
    yield running
    assert running.stop() == 0, running.gateway.log


def health(cluster):
    return get(cluster.url + "/health")


def make_token(cluster):
    return post(cluster.url + "/api/v1/cluster/tokens", {})["join"]


REQUEST = {"prompt": "Once upon a time", "max_tokens": 8, "temperature": 0}


def test_streams_and_state_survive_the_death_of_either_server(cluster, servers):
    postgres, redis = servers
    cluster.start("0:30", "--memory", "400MiB")
    assert ready(cluster.url)[0] == 200
    wanted = complete(cluster.url, REQUEST)
    assert postgres.ask("SELECT name FROM workers") == [["w1"]]
    assert not (cluster.gateway.home / "state" / "tessera.db").exists()
    assert health(cluster) == {"status": "ok"}

    # Load: a stream that runs through everything, and somebody who makes join tokens all the time.
    stop, made, refused = threading.Event(), [], []

    def write():
        while not stop.is_set():
            try:
                made.append(make_token(cluster))
            except urllib.error.HTTPError as error:
                refused.append((error.code, json.loads(error.read())["error"]["message"]))
            stop.wait(0.02)

    counts = [0]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        writer = pool.submit(write)
        long = {**REQUEST, "max_tokens": 1200, "ignore_eos": True}
        running = pool.submit(stream, cluster.url, long, lambda count: counts.__setitem__(0, count))
        wait_until(lambda: counts[0] > 10 and len(made) > 3, "load")

        redis.kill()
        wait_until(lambda: "redis" in health(cluster).get("degraded", {}), "redis is missed")
        assert health(cluster)["status"] == "degraded"
        assert ready(cluster.url)[0] == 200
        before = len(made)
        assert complete(cluster.url, REQUEST) == wanted
        wait_until(lambda: len(made) > before + 3, "tokens are made without Redis")
        redis.start()
        wait_until(lambda: health(cluster)["status"] == "ok", "redis is back")
        assert not refused

        postgres.kill()
        wait_until(lambda: "database" in health(cluster).get("degraded", {}), "the database is missed")
        wait_until(lambda: refused, "new writes are refused")
        code, message = refused[0]
        assert code == 503 and "postgresql://127.0.0.1" in message
        before = counts[0]
        wait_until(lambda: counts[0] > before + 5 or running.done(), "the stream goes on")
        assert complete(cluster.url, REQUEST) == wanted
        postgres.start()
        wait_until(lambda: health(cluster)["status"] == "ok", "the database is back")
        before = len(made)
        wait_until(lambda: len(made) > before + 3, "tokens are made again")
        stop.set()
        writer.result()
        assert len(running.result()[0]["token_ids"]) == 1200

    # Nothing that was acknowledged is lost, and what it says holds: the last token admits a worker.
    assert int(postgres.ask("SELECT count(*) FROM join_tokens")[0][0]) >= len(made) + 1
    cluster.worker("0:30", "--memory", "400MiB", join=made[-1])
    wait_until(lambda: cluster.member("w2"), lambda: cluster.view())
    log = cluster.gateway.log
    for line in ("the redis is away", "the redis is back", "the database is away", "the database is back"):
        assert line in log, log


def test_a_gateway_without_its_database_says_so_and_ends(tmp_path, tessera):
    done = tessera("gateway", "--model", DEFAULT_MODEL, "--database", "postgresql://me:secret@127.0.0.1:1/x", "--port", "0", expect=1)
    assert "no connection to postgresql://127.0.0.1:1/x" in done.stderr and "secret" not in done.stderr
    done = tessera("gateway", "--model", DEFAULT_MODEL, "--redis", "http://127.0.0.1", "--port", "0", expect=2)
    assert "no Redis url" in done.stderr
