"""Other engines behind a worker: real servers, real processes. `tessera serve` is one of them (--engine tessera); llama.cpp's
server another, where bench/peers/llama_cpp.sh has set it up (TESSERA_LLAMA_ROOT names another folder)."""
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import threading
import urllib.error
import urllib.request

import pytest
from cluster import BINARY, Cluster, get, post, ready, serve, wait_until
from conftest import DEFAULT_MODEL

WORDS = "Once upon a time there was a small boat on a wide river, and"
LLAMA_ROOT = pathlib.Path(
    os.environ.get("TESSERA_LLAMA_ROOT", pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "tessera/peers/sid")
)


@pytest.fixture(scope="module")
def store(default_model):
    return pathlib.Path(default_model).parents[1]


@pytest.fixture(scope="module")
def engine_url(tmp_path_factory, store):
    with serve(tmp_path_factory.mktemp("engine"), DEFAULT_MODEL, store) as url:
        yield url


@pytest.fixture
def cluster(tmp_path):
    made = []

    def make(model=None, *arguments, **options):
        made.append(Cluster(tmp_path / f"c{len(made)}", model, *arguments, **options))
        return made[-1]

    yield make
    for each in made:
        each.stop()


def attach(cluster, *arguments, name=None):
    """A worker that stands for an engine; returns when it serves."""
    worker = cluster.worker(None, "--engine", *arguments, name=name)
    wait_until(
        lambda: not worker.alive() or (engine_of(cluster, worker.name) or {}).get("state") == "ready",
        lambda: f"the engine of {worker.name} is ready: {cluster.view()}\n{worker.log}",
        180,
    )
    assert worker.alive(), worker.log
    return worker


def engine_of(cluster, name):
    member = cluster.member(name)
    return member.get("engine") if member else None


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def refused(url, path, body):
    with pytest.raises(urllib.error.HTTPError) as caught:
        post(url + path, body)
    return caught.value.code, json.loads(caught.value.read())["error"]


def events_of(url, path, body, seconds=300):
    """The JSON events of a stream, as they come."""
    request = urllib.request.Request(url + path, json.dumps({"stream": True, **body}).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=seconds) as answer:
        for line in answer:
            if line.startswith(b"data: ") and line.strip() != b"data: [DONE]":
                yield json.loads(line[6:])


def metric(url, name):
    """Sum of a gauge's or counter's samples whose line begins so."""
    with urllib.request.urlopen(url + "/metrics", timeout=30) as answer:
        text = answer.read().decode()
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name))


def test_an_engines_model_is_served_whole(cluster, engine_url):
    c = cluster()
    assert ready(c.url)[0] == 503
    worker = attach(c, "tessera", "--url", engine_url)
    wait_until(lambda: ready(c.url)[0] == 200, lambda: ready(c.url))
    assert [m["id"] for m in get(c.url + "/v1/models")["data"]] == [DEFAULT_MODEL]

    body = {"model": DEFAULT_MODEL, "prompt": WORDS, "max_tokens": 24, "temperature": 0, "logprobs": 2}
    direct, through = (post(url + "/v1/completions", body) for url in (engine_url, c.url))
    assert through["choices"] == direct["choices"]
    assert {k: through["usage"][k] for k in ("prompt_tokens", "completion_tokens")} == {
        k: direct["usage"][k] for k in ("prompt_tokens", "completion_tokens")
    }
    assert through["tessera"]["token_exact"] is False and worker.name in through["tessera"]["reason"]

    chat = {"messages": [{"role": "user", "content": "Name a colour."}], "max_tokens": 12, "temperature": 0, "n": 2}
    direct, through = (post(url + "/v1/chat/completions", chat) for url in (engine_url, c.url))
    assert through["choices"] == direct["choices"]

    events = list(events_of(c.url, "/v1/chat/completions", {**chat, "n": 1, "stream_options": {"include_usage": True}}))
    text = "".join(choice["delta"].get("content") or "" for e in events for choice in e["choices"])
    assert text == direct["choices"][0]["message"]["content"]
    assert events[0]["tessera"]["token_exact"] is False
    assert events[-1]["usage"]["completion_tokens"] == direct["usage"]["completion_tokens"] // 2
    assert any(choice["finish_reason"] for e in events for choice in e["choices"])

    status = c.tessera("status").stdout
    assert "tessera: " + DEFAULT_MODEL in status and "not token-exact" in status
    member = c.member(worker.name)
    assert member["state"] == "ready" and member["engine"]["whole_model"] and not member["instances"]
    assert {"n", "logprobs", "chat completions"} <= set(member["engine"]["features"])
    assert "tools" not in member["engine"]["features"]


def test_what_the_engine_lacks_is_refused_by_name(cluster, engine_url):
    c = cluster()
    attach(c, "tessera", "--url", engine_url)
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    chat = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}
    code, error = refused(c.url, "/v1/chat/completions", {**chat, "tools": tools})
    assert code == 400 and error["param"] == "tools"
    code, error = refused(c.url, "/v1/completions", {"prompt": WORDS, "max_tokens": 4, "return_token_ids": True})
    assert code == 400 and "return_token_ids" in error["message"], error
    code, error = refused(c.url, "/v1/completions", {"prompt": [1] * 100000, "max_tokens": 4})
    assert code == 400 and error["code"] == "context_length_exceeded", error


def test_a_cancel_reaches_the_engine(cluster, engine_url):
    c = cluster()
    attach(c, "tessera", "--url", engine_url)
    body = {"prompt": WORDS, "max_tokens": 1500, "temperature": 1, "ignore_eos": True}
    request = urllib.request.Request(c.url + "/v1/completions", json.dumps({"stream": True, **body}).encode(), {"Content-Type": "application/json"})
    answer = urllib.request.urlopen(request, timeout=60)
    assert answer.readline().startswith(b"data: ")
    before = metric(engine_url, "tessera_tokens_generated_total")
    answer.close()
    wait_until(lambda: metric(c.url, "tessera_requests_active") <= 1, "the gateway noticed")
    wait_until(lambda: metric(engine_url, "tessera_requests_active") <= 1, "the engine heard that nobody listens")
    assert metric(engine_url, "tessera_tokens_generated_total") < before + 1500


def command_of(home, port):
    return f"env TESSERA_HOME={home} {BINARY} serve --model {DEFAULT_MODEL} --port {port} --threads 1"


def home_with(folder, store):
    folder.mkdir(parents=True)
    (folder / "models").symlink_to(store)
    return folder


def pid_of(worker):
    return int(re.findall(r"process is started.*?pid=(\d+)", worker.log)[-1])


class Load:
    """Streams under way; each ends whole, or with an error."""

    def __init__(self, url, count, body):
        self.outcomes = [None] * count
        self.begun = [threading.Event() for _ in range(count)]
        self.threads = [threading.Thread(target=self._one, args=(i, url, body)) for i in range(count)]
        for t in self.threads:
            t.start()

    def _one(self, i, url, body):
        try:
            worker, finish = None, None
            for event in events_of(url, "/v1/completions", body):
                if "error" in event:
                    self.outcomes[i] = ("error", worker, event["error"]["message"])
                    return
                if "tessera" in event:
                    worker = event["tessera"]["reason"].rsplit(" ", 1)[1]
                for choice in event["choices"]:
                    self.begun[i].set()
                    finish = choice["finish_reason"] or finish
            self.outcomes[i] = ("whole" if finish else "cut", worker, finish)
        except urllib.error.HTTPError as error:
            self.outcomes[i] = ("refused", None, error.read().decode())
        except Exception as error:  # noqa: BLE001: a test must see it
            self.outcomes[i] = ("broken", None, repr(error))
        finally:
            self.begun[i].set()

    def wait(self):
        for t in self.threads:
            t.join(300)
        return self.outcomes


def test_killing_an_engine_hurts_only_the_streams_it_held(cluster, store, tmp_path):
    c = cluster()
    workers = []
    for name in ("left", "right"):
        port = free_port()
        home = home_with(tmp_path / name, store)
        workers.append(attach(c, "tessera", "--url", f"http://127.0.0.1:{port}", "--command", command_of(home, port), name=name))
    load = Load(c.url, 8, {"prompt": WORDS, "max_tokens": 150, "temperature": 0, "ignore_eos": True})
    for event in load.begun:
        assert event.wait(120)
    os.kill(pid_of(workers[0]), signal.SIGKILL)
    outcomes = load.wait()
    assert {o[1] for o in outcomes} == {"left", "right"}, outcomes
    for kind, worker, detail in outcomes:
        if worker == "left":
            assert kind == "whole" or (kind == "error" and ("left" in detail or "Tessera" in detail)), outcomes
        else:
            assert (kind, detail) == ("whole", "length"), outcomes
    assert any(o[0] == "error" for o in outcomes), outcomes
    # The other one answers meanwhile, and the killed one comes back.
    assert post(c.url + "/v1/completions", {"prompt": WORDS, "max_tokens": 4})["choices"]
    wait_until(lambda: engine_of(c, "left")["state"] == "ready" and engine_of(c, "left")["restarts"] == 1, lambda: c.view(), 120)
    assert "signal 9 ended it" in workers[0].log
    assert "serve" in workers[0].log or "listening" in workers[0].log, "its log is in ours"
    # And with the worker's end its engine ends.
    pid = pid_of(workers[1])
    workers[1].signal(signal.SIGTERM)
    assert workers[1].wait() == 0
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_draining_lets_its_streams_end(cluster, engine_url):
    c = cluster()
    worker = attach(c, "tessera", "--url", engine_url)
    load = Load(c.url, 2, {"prompt": WORDS, "max_tokens": 120, "temperature": 0, "ignore_eos": True})
    for event in load.begun:
        assert event.wait(60)
    assert "has left" in c.tessera("drain", worker.name).stdout
    assert [o[0] for o in load.wait()] == ["whole", "whole"]
    assert worker.wait() == 0
    wait_until(lambda: get(c.url + "/v1/models")["data"] == [], "the model went with its last engine")


def test_own_workers_and_an_engine_share_one_model(cluster, engine_url, store):
    c = cluster(DEFAULT_MODEL, models=store)
    own = c.worker(None, "--memory", "400MiB", name="own")
    c.wait_hosting(own)
    exact = post(c.url + "/v1/completions", {"prompt": WORDS, "max_tokens": 8, "temperature": 0})
    assert "tessera" not in exact
    attach(c, "tessera", "--url", engine_url, name="foreign")
    load = Load(c.url, 12, {"prompt": WORDS, "max_tokens": 60, "temperature": 0, "ignore_eos": True})
    outcomes = load.wait()
    assert all(o[0] == "whole" for o in outcomes), outcomes
    assert {o[1] for o in outcomes} == {None, "foreign"}, outcomes
    # What only our own can do goes there whatever the load is.
    ids = post(c.url + "/v1/completions", {"prompt": WORDS, "max_tokens": 8, "temperature": 0, "return_token_ids": True})
    assert ids["choices"][0]["text"] == exact["choices"][0]["text"] and "tessera" not in ids
    # Without our own worker the engine goes on.
    own.kill()
    assert post(c.url + "/v1/completions", {"prompt": WORDS, "max_tokens": 4})["tessera"]["token_exact"] is False


def test_wrong_usage_is_said(tessera):
    for arguments, why in (
        (["--engine", "nothing", "--url", "http://127.0.0.1:1"], "vllm, sglang"),
        (["--engine", "vllm"], "--url"),
        (["--url", "http://127.0.0.1:1"], "--engine"),
        (["--engine", "vllm", "--url", "ftp://x"], "--url"),
        (["--engine", "vllm", "--command", "a 'b"], "quote"),
        (["--engine", "vllm", "--url", "http://127.0.0.1:1", "--blocks", "0:2"], "whole models"),
    ):
        assert why in tessera("worker", "--join", "tessera://127.0.0.1:1/x", *arguments, expect=2).stderr


@pytest.fixture(scope="module")
def llama(default_model):
    """The command that serves the default model with llama.cpp's server on a port."""
    if not (LLAMA_ROOT / "usr/bin/llama-server").exists():
        pytest.skip(f"no llama.cpp in {LLAMA_ROOT}: bench/peers/llama_cpp.sh sets it up")
    if os.geteuid() != 0:
        pytest.skip("chroot needs root")
    inside = LLAMA_ROOT / "root/engine-test.gguf"
    shutil.copyfile(default_model, inside)
    yield lambda port: (
        f"chroot {LLAMA_ROOT} llama-server --model /root/engine-test.gguf --alias {DEFAULT_MODEL} --host 127.0.0.1 --port {port} "
        "--ctx-size 2048 --parallel 4 --threads 2 --metrics --jinja"
    )
    inside.unlink()


def test_llama_cpp_serves_end_to_end(cluster, llama):
    port = free_port()
    c = cluster()
    worker = attach(c, "llama.cpp", "--url", f"http://127.0.0.1:{port}", "--command", llama(port))
    engine = engine_of(c, worker.name)
    print("probed:", engine["version"], engine["features"])
    assert engine["version"] and engine["models"][0]["name"] == DEFAULT_MODEL
    assert engine["models"][0]["context_length"] > 0
    assert {"chat completions", "text completions", "logprobs", "json_schema"} <= set(engine["features"]), engine
    chat = {"messages": [{"role": "user", "content": "Name a colour."}], "max_tokens": 16, "temperature": 0}
    events = list(events_of(c.url, "/v1/chat/completions", {**chat, "logprobs": True, "top_logprobs": 2, "stream_options": {"include_usage": True}}))
    text = "".join(choice["delta"].get("content") or "" for e in events for choice in e["choices"])
    assert text and events[-1]["usage"]["completion_tokens"] > 0
    assert any(choice["logprobs"] for e in events for choice in e["choices"])
    schema = {"type": "object", "properties": {"colour": {"type": "string", "enum": ["red", "blue"]}}, "required": ["colour"]}
    formatted = post(c.url + "/v1/chat/completions", {**chat, "max_tokens": 32, "response_format": {"type": "json_schema", "json_schema": {"name": "c", "schema": schema}}})
    assert json.loads(formatted["choices"][0]["message"]["content"])["colour"] in ("red", "blue")
    assert engine_of(c, worker.name)["miscounted"] == 0

    # Killed under load: its streams end with an error that says so, and it comes back.
    load = Load(c.url, 4, {"prompt": WORDS, "max_tokens": 400, "temperature": 1, "ignore_eos": True})
    for event in load.begun:
        assert event.wait(120)
    os.kill(pid_of(worker), signal.SIGKILL)
    outcomes = load.wait()
    assert all(kind in ("error", "whole") for kind, _, _ in outcomes), outcomes
    assert any("llama.cpp" in str(detail) for _, _, detail in outcomes), outcomes
    wait_until(lambda: engine_of(c, worker.name)["state"] == "ready" and engine_of(c, worker.name)["restarts"] == 1, lambda: worker.log, 120)
    assert post(c.url + "/v1/chat/completions", chat)["choices"][0]["message"]["content"]
