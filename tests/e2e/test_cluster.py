"""A cluster of real processes gives what one machine gives, whatever is cut, killed, stopped, drained or restarted."""
import concurrent.futures
import json
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import threading
import urllib.error

import pytest
from cluster import Cluster, StreamError, complete, get, post, ready, serve, stream, wait_until
from conftest import DEFAULT_MODEL, GOLDEN
from gguf_sizes import gguf_sizes

ROOT = pathlib.Path(__file__).resolve().parents[2]
MEMORY = ("--memory", "400MiB")  # small pools: three workers and a test run on one machine
LEASE = ("--lease", "600")
TINY = GOLDEN / "llama"  # four blocks
CUTS_OF_TINY = ["0:4", "0:1,1:4", "0:2,2:4", "0:3,3:4", "0:1,1:2,2:4", "0:1,1:3,3:4", "0:2,2:3,3:4", "0:1,1:2,2:3,3:4"]
CUTS = ["0:15,15:30", "0:10,10:20,20:30", "0:8,8:15,15:23,23:30", "0:2,2:3,3:21,21:30"]

WORDS = "Once upon a time there was a small boat on a wide river, and"
REQUESTS = {
    "greedy": {"prompt": WORDS, "max_tokens": 24, "temperature": 0},
    "seeded": {"prompt": WORDS, "max_tokens": 24, "temperature": 0.9, "top_p": 0.9, "seed": 7},
    "n": {"prompt": "The colours are", "max_tokens": 12, "temperature": 1, "seed": 3, "n": 3},
    "logprobs": {"prompt": WORDS, "max_tokens": 8, "temperature": 0, "logprobs": 3},
    "penalties": {"prompt": WORDS, "max_tokens": 16, "temperature": 0.7, "seed": 5, "frequency_penalty": 0.5},
    "stop": {"prompt": "1, 2, 3, 4,", "max_tokens": 40, "temperature": 0, "stop": [" 9", "nine"]},
    "long": {"prompt": [1000 + i * 37 % 3000 for i in range(700)], "max_tokens": 8, "temperature": 0},
}
TINY_REQUESTS = {  # its tokenizer's vocabulary is small: ids
    "greedy": {"prompt": [5, 6, 7, 8], "max_tokens": 24, "temperature": 0, "ignore_eos": True},
    "seeded": {"prompt": [5, 6, 7, 8], "max_tokens": 24, "temperature": 0.9, "seed": 7, "n": 2, "ignore_eos": True},
    "logprobs": {"prompt": [9, 10, 11], "max_tokens": 8, "temperature": 0, "logprobs": 3, "ignore_eos": True},
}


@pytest.fixture(scope="module")
def store(default_model):
    """The folder of pulled models."""
    return pathlib.Path(default_model).parents[1]


@pytest.fixture(scope="module")
def single(tmp_path_factory, store):
    """The single machine: single(request) → its answer, asked once."""
    answers = {}
    with serve(tmp_path_factory.mktemp("single"), DEFAULT_MODEL, store) as url:

        def answer(request):
            key = json.dumps(request, sort_keys=True)
            if key not in answers:
                answers[key] = complete(url, request)
            return answers[key]

        yield answer


@pytest.fixture
def cluster(tmp_path, store):
    running = Cluster(tmp_path, DEFAULT_MODEL, *LEASE, models=store)
    yield running
    assert running.stop() == 0, running.gateway.log


def ask_all(cluster, single, requests):
    for name, request in requests.items():
        assert complete(cluster.url, request) == single(request), name


# --- every cut


@pytest.mark.parametrize("kind", ["tiny", "default"])
def test_every_cut_gives_the_tokens_of_one_machine(tmp_path, store, kind):
    """All cuts of a model of four blocks; equal and unequal ones of the default model. One gateway sees them come and go."""
    model, cuts, requests = (TINY, CUTS_OF_TINY, TINY_REQUESTS) if kind == "tiny" else (DEFAULT_MODEL, CUTS, REQUESTS)
    memory = ("--memory", "64MiB") if kind == "tiny" else MEMORY
    with serve(tmp_path / "single", model, store) as url:
        wanted = {name: complete(url, request) for name, request in requests.items()}
    cluster = Cluster(tmp_path, model, *LEASE, models=store)
    try:
        for cut in cuts:
            cluster.start(cut, *memory)
            for name, request in requests.items():
                assert complete(cluster.url, request) == wanted[name], (cut, name)
                if name in ("greedy", "stop", "seeded"):
                    streamed = stream(cluster.url, request)
                    for choice in wanted[name]:
                        assert streamed[choice["index"]]["token_ids"] == choice["token_ids"], (cut, name)
                        assert streamed[choice["index"]]["text"] == choice["text"], (cut, name)
            cluster.assert_nothing_left()
            cluster.end_workers()
    finally:
        assert cluster.stop() == 0, cluster.gateway.log


def random_model(folder, what):
    subprocess.run([sys.executable, ROOT / "tools/random_model.py", what, folder], check=True)
    return folder


def test_a_plan_for_machines_that_are_not_there_is_a_cut_that_works(tmp_path, tessera, store):
    """Llama-3-70B on three unlike workers: which formats fit, and an unequal cut; a small model of as many blocks is computed by that cut."""
    large = random_model(tmp_path / "large", "70b:hollow")
    workers = [w for w in ("rack:72GB:2000:700", "left:22GB:900:80", "right:22GB:900:80") for w in ("--worker", w)]
    ahead = json.loads(tessera("plan", "--model", large, *workers, "--rtt", "1", "--json").stdout)
    formats = {f["format"]: f for f in ahead["formats"]}
    assert {name: f["fits"] for name, f in formats.items()} == {"as stored": False, "int8": True, "int4": True}
    assert formats["as stored"]["weight_bytes"] > 141e9 and "missing" in formats["as stored"]["models"][0]["reason"]
    assert ahead["measured"] is False and ahead["speeds_assumed"] is False
    route = formats["int8"]["models"][0]["route"]
    assert len(route) >= 2 and route[0]["worker"] == "rack", route
    sizes = [hop["blocks"][1] - hop["blocks"][0] for hop in route]
    assert max(sizes) > 2 * min(sizes) and sum(sizes) == 80
    words = tessera("plan", "--model", large, *workers).stdout
    assert "does not fit" in words and "nothing here is measured" in words
    for wrong in (["--worker", "rack"], ["--worker", "a:1GB", "--worker", "a:2GB"], ["--worker", "a:1GB:fast"]):
        assert tessera("plan", "--model", large, *wrong, expect=2).stderr.count("\n") == 1

    small = random_model(tmp_path / "small", "small-70b:safetensors")
    request = {"prompt": [7, 8, 9, 10], "max_tokens": 24, "temperature": 0, "ignore_eos": True}
    with serve(tmp_path / "single", small, store) as url:
        wanted = complete(url, request)
    cluster = Cluster(tmp_path, small, *LEASE, models=store)
    try:
        cluster.start(",".join(f"{hop['blocks'][0]}:{hop['blocks'][1]}" for hop in route), "--memory", "256MiB")
        assert complete(cluster.url, request) == wanted
        cluster.assert_nothing_left()
    finally:
        assert cluster.stop() == 0, cluster.gateway.log


# --- what dies


class Load:
    """Streams that run at once, each held against the single machine's answer."""

    def __init__(self, cluster, single, count, tokens=90):
        rng = random.Random(count)
        self.requests = []
        for i in range(count):
            prompt = f"{WORDS} number {i}" if i % 2 else [500 + (i * 131 + k * 17) % 4000 for k in range(60)]
            sampling = {"temperature": 0} if i % 3 == 0 else {"temperature": 0.8, "seed": rng.randrange(1000), "n": 1 + i % 2}
            self.requests.append({"prompt": prompt, "max_tokens": tokens, "ignore_eos": True, **sampling})
        self.wanted = [single(r) for r in self.requests]
        self.counts = [0] * count
        self.pool = concurrent.futures.ThreadPoolExecutor(count)
        self.futures = [self.pool.submit(self._run, cluster.url, i) for i in range(count)]

    def _run(self, url, i):
        def hear(count):
            self.counts[i] = count

        return stream(url, self.requests[i], hear)

    def wait_tokens(self, count):
        """Until all streams together have had so many tokens."""
        wait_until(lambda: sum(self.counts) >= count or self.done(), lambda: f"tokens: {self.counts}", 120)

    def done(self):
        return all(f.done() for f in self.futures)

    def check(self):
        for i, future in enumerate(self.futures):
            got = future.result(300)
            assert sorted(got) == [c["index"] for c in self.wanted[i]]
            for choice in self.wanted[i]:
                whole = got[choice["index"]]
                assert whole["token_ids"] == choice["token_ids"], f"stream {i} choice {choice['index']}"
                assert (whole["text"], whole["finish_reason"]) == (choice["text"], choice["finish_reason"])
        self.pool.shutdown()


def test_killed_and_stopped_workers_cost_no_token(cluster, single):
    """Each worker in turn is killed or stopped for longer than its lease, under six streams; a replacement joins."""
    rng = random.Random(20)
    workers = cluster.start("0:8,8:19,19:30", *MEMORY)
    for hop in range(3):
        load = Load(cluster, single, 6)
        load.wait_tokens(rng.randrange(30, 200))
        victim = workers[hop]
        number = signal.SIGSTOP if hop == 1 else signal.SIGKILL
        victim.signal(number)
        replacement = cluster.worker(victim.blocks, *MEMORY)
        load.check()
        cluster.wait_hosting(replacement)
        workers[hop] = replacement
        if number == signal.SIGSTOP:
            # It wakes up, says what it had to say of sessions that went on elsewhere, and is a member again.
            victim.signal(signal.SIGCONT)
            cluster.wait_hosting(victim)
            victim.kill()
        else:
            victim.wait()
    cluster.assert_nothing_left()
    view = cluster.view()
    assert cluster.model()["sessions"]["failovers"] > 0
    assert view["failovers"] and all(f["worker"] and f["cause"] for f in view["failovers"])
    assert all(i["tokens_recomputed"] == 0 for name in (workers[0].name,) for i in cluster.member(name)["instances"])


def test_without_a_substitute_a_stream_ends_with_a_clear_error(tmp_path, store):
    cluster = Cluster(tmp_path, DEFAULT_MODEL, *LEASE, "--failover-timeout", "2", models=store)
    try:
        workers = cluster.start("0:15,15:30", *MEMORY)
        killed = threading.Event()

        def kill(count):
            if count > 5 and not killed.is_set():
                killed.set()
                workers[1].kill()

        with pytest.raises(StreamError, match="from 15 on"):
            stream(cluster.url, {"prompt": WORDS, "max_tokens": 200, "ignore_eos": True}, kill)
        status, why = ready(cluster.url)
        assert status == 503 and "from 15 on" in why
        # Nothing of an answer was sent yet: the refusal is its status, for a stream, too.
        for ask in (complete, stream):
            with pytest.raises(urllib.error.HTTPError) as refused:
                ask(cluster.url, REQUESTS["greedy"])
            assert refused.value.code == 503
        cluster.assert_nothing_left()
    finally:
        assert cluster.stop() == 0, cluster.gateway.log


# --- what people do


def test_readiness_names_what_is_missing(cluster, single):
    status, why = ready(cluster.url)
    assert status == 503 and "blocks from 0" in why
    first = cluster.worker("0:8", *MEMORY)
    cluster.wait_hosting(first)
    status, why = ready(cluster.url)
    assert status == 503 and "blocks from 8" in why
    last = cluster.worker("8:30", *MEMORY)
    cluster.wait_hosting(last)
    wait_until(lambda: ready(cluster.url)[0] == 200, lambda: ready(cluster.url))
    ask_all(cluster, single, {"greedy": REQUESTS["greedy"]})
    # What status and plan tell scripts.
    view = json.loads(cluster.tessera("status", "--json").stdout)
    assert {w["name"]: [i["blocks"] for i in w["instances"]] for w in view["workers"]} == {first.name: [[0, 8]], last.name: [[8, 30]]}
    plan = json.loads(cluster.tessera("plan", "--json").stdout)
    assert plan["models"][0]["model"] == DEFAULT_MODEL and plan["models"][0]["tokens_per_s"] > 0
    for words in (cluster.tessera("status").stdout, cluster.tessera("plan").stdout):
        assert first.name in words and "0:8" in words
    cluster.assert_nothing_left()


def test_trace_says_where_a_tokens_time_goes(cluster, single):
    cluster.start("0:15,15:30", *MEMORY)
    assert "no such session runs" in cluster.tessera("status", "--trace", "12", expect=1).stderr
    load = Load(cluster, single, 2, tokens=400)
    load.wait_tokens(10)
    sessions = json.loads(cluster.tessera("status", "--sessions", "--json").stdout)["sessions"]
    running = [s for s in sessions if s["state"] == "running"]
    assert running and all(len(s["route"]) == 2 for s in running), sessions
    assert running[0]["session"] in cluster.tessera("status", "--sessions").stdout
    trace = json.loads(cluster.tessera("status", "--trace", running[0]["session"], "--json").stdout)
    assert len(trace["tokens"]) >= 1
    for token in trace["tokens"]:
        assert [h["blocks"] for h in token["hops"]] == [[0, 15], [15, 30]]
        assert all(h["compute_us"] > 0 for h in token["hops"])
        spent = sum(h[part] for h in token["hops"] for part in ("wake_us", "queue_us", "compute_us", "send_us"))
        assert token["links_us"] == max(token["cycle_us"] - spent, 0)
    load.check()  # being watched changes no token
    cluster.assert_nothing_left()


def test_drain_moves_every_stream_and_loses_none(cluster, single):
    workers = cluster.start("0:15,15:30", *MEMORY)
    load = Load(cluster, single, 4)
    load.wait_tokens(20)
    spare = cluster.worker("15:30", *MEMORY)
    cluster.wait_hosting(spare)
    failovers = cluster.model()["sessions"]["failovers"]
    drained = cluster.tessera("drain", workers[1].name)
    assert "has left" in drained.stdout
    assert workers[1].wait() == 0, workers[1].log
    load.check()
    assert cluster.model()["sessions"]["failovers"] == failovers, "a drain is no failure"
    assert "no worker named" in cluster.tessera("drain", "nobody", expect=1).stderr
    # SIGTERM on the worker's machine is a drain, too.
    again = cluster.worker("15:30", *MEMORY)
    cluster.wait_hosting(again)
    load = Load(cluster, single, 2)
    load.wait_tokens(10)
    spare.signal(signal.SIGTERM)
    assert spare.wait() == 0, spare.log
    load.check()
    cluster.assert_nothing_left()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_gateway_restart_reloads_no_weights(cluster, single, how):
    workers = cluster.start("0:15,15:30", *MEMORY)
    before = {w.name: cluster.member(w.name)["instances"] for w in workers}
    if how == signal.SIGTERM:  # what runs may end
        load = Load(cluster, single, 2, tokens=40)
        load.wait_tokens(10)
        cluster.gateway.restart(how)
        load.check()
    else:
        cluster.gateway.restart(how)
    cluster.wait_hosting(*workers)
    wait_until(lambda: ready(cluster.url)[0] == 200, lambda: ready(cluster.url))
    ask_all(cluster, single, {"seeded": REQUESTS["seeded"]})
    for worker in workers:
        assert worker.alive()
        after = cluster.member(worker.name)["instances"]
        assert [(i["id"], i["bytes_fetched"]) for i in after] == [(i["id"], i["bytes_fetched"]) for i in before[worker.name]]
    cluster.assert_nothing_left()


def test_join_tokens(cluster, single, tmp_path):
    old = cluster.gateway.join
    (member,) = cluster.start("0:30", *MEMORY)
    new = cluster.tessera("token", "--rotate").stdout.split("--join ")[1].strip()
    assert new != old
    refused = cluster.worker(join=old)
    assert refused.wait() == 1 and "token" in refused.log, refused.log
    assert cluster.hosts(member.name), "a member stays"
    ask_all(cluster, single, {"greedy": REQUESTS["greedy"]})
    # Its certificate, not the token, brings a member back: the old invitation says which cluster it is.
    member.kill()
    back = cluster.worker("0:30", *MEMORY, name=member.name, home=member.home, join=old)
    cluster.wait_hosting(back)
    cluster.worker("0:30", *MEMORY, join=new, name="newcomer")
    cluster.wait_hosting(cluster.workers["newcomer"])


def test_bad_invitations_are_refused_with_a_sentence(cluster, tmp_path):
    host = cluster.gateway.join.rsplit("/", 1)[0]
    other = Cluster(tmp_path / "other", TINY, *LEASE)
    expired = cluster.gateway.join
    try:
        for join, sentence in [
            ("nonsense", "tessera://"),
            (host + "/nonsense", "token"),
            (host + "/" + expired.rsplit("/", 1)[1][:-4] + "AAAA", "token"),
            (host + "/" + other.gateway.join.rsplit("/", 1)[1], "authority"),
        ]:
            worker = cluster.worker(join=join)
            assert worker.wait() in (1, 2), join
            assert sentence in worker.log and len(worker.log.splitlines()) <= 3, worker.log
    finally:
        other.stop()
    assert all(w["state"] != "ready" for w in cluster.view()["workers"])


def test_a_worker_fetches_only_its_tensors(cluster, default_model):
    """Held against the sizes in the file itself, not against what the worker says it needs."""
    header, sizes = gguf_sizes(default_model)
    for blocks in ("0:8", "8:19", "19:30"):
        first, last = map(int, blocks.split(":"))
        worker = cluster.worker(blocks, *MEMORY)
        cluster.wait_hosting(worker)
        needed = sum(n for name, n in sizes.items() if name.startswith("blk.") and first <= int(name.split(".")[1]) < last)
        if first == 0 or last == 30:  # the embedding is the output matrix, too
            needed += sizes["token_embd.weight"]
        fetched = cluster.member(worker.name)["instances"][0]["bytes_fetched"]
        assert needed <= fetched <= 1.05 * (needed + header), (blocks, needed, header, fetched)


def test_two_models_load_and_unload_while_running(cluster, single):
    cluster.start("0:30", *MEMORY)
    load = Load(cluster, single, 2)
    load.wait_tokens(2)  # they name no model, which is right only while there is one
    post(cluster.url + "/api/v1/models", {"model": str(TINY)})
    plain = cluster.worker(*(None, *MEMORY))  # pinned ranges are of every model: this one takes what is missing
    wait_until(lambda: all(m["covered"] for m in cluster.view()["models"]), lambda: cluster.view())
    names = {m["id"] for m in get(cluster.url + "/v1/models")["data"]}
    assert names == {DEFAULT_MODEL, "llama"}
    wait_until(lambda: ready(cluster.url)[0] == 200, lambda: ready(cluster.url))
    assert complete(cluster.url, {"model": "llama", **TINY_REQUESTS["greedy"]})[0]["token_ids"]
    with pytest.raises(urllib.error.HTTPError) as again:
        post(cluster.url + "/api/v1/models", {"model": str(TINY)})
    assert again.value.code == 400
    post(cluster.url + "/api/v1/models/llama", None, method="DELETE")
    wait_until(
        lambda: all(i["model"] != "llama" for i in cluster.member(plain.name)["instances"]), lambda: cluster.view()
    )
    with pytest.raises(urllib.error.HTTPError) as gone:
        complete(cluster.url, {"model": "llama", **TINY_REQUESTS["greedy"]})
    assert gone.value.code == 404
    with pytest.raises(urllib.error.HTTPError) as unknown:
        post(cluster.url + "/api/v1/models/llama", None, method="DELETE")
    assert unknown.value.code == 404
    load.check()
    post(cluster.url + "/api/v1/models", {"model": str(TINY)})  # and back
    wait_until(lambda: all(m["covered"] for m in cluster.view()["models"]), lambda: cluster.view())
    assert complete(cluster.url, {"model": "llama", **TINY_REQUESTS["greedy"]})[0]["token_ids"]
    cluster.assert_nothing_left()


def test_certificate_is_replaced_by_joining_anew(cluster, single):
    """The drill's last step: a worker that forgets its identity comes back under a new certificate."""
    worker = cluster.start("0:30", *MEMORY)[0]
    worker.kill()
    shutil.rmtree(worker.home / "tls")
    cluster.worker("0:30", *MEMORY, name="fresh", home=worker.home)
    cluster.wait_hosting(cluster.workers["fresh"])
    ask_all(cluster, single, {"greedy": REQUESTS["greedy"]})
