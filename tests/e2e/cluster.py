"""A cluster of real processes for tests: one gateway and workers, each with a TESSERA_HOME of its own. Standard library only."""
import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = os.environ.get("TESSERA_BINARY", str(ROOT / "build/release/tessera"))


def wait_until(condition, what, seconds=60):
    """The condition's first true value. A limit against hanging, not a measurement: the machine may be busy."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what() if callable(what) else what}")
        time.sleep(0.15)


class Process:
    """A `tessera` verb in the background, in a network namespace if one is named; its output goes to files in its home."""

    def __init__(self, home, *arguments, netns=None):
        self.home = pathlib.Path(home)
        self.home.mkdir(parents=True, exist_ok=True)
        prefix = ["ip", "netns", "exec", netns] if netns else []
        self.out, self.err = self.home / "stdout", self.home / "stderr"
        with open(self.out, "w") as out, open(self.err, "a") as err:
            self.popen = subprocess.Popen(
                [*prefix, BINARY, *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env={**os.environ, "TESSERA_HOME": str(self.home)},
            )

    @property
    def log(self):
        return self.err.read_text(errors="replace")

    def alive(self):
        return self.popen.poll() is None

    def signal(self, number):
        self.popen.send_signal(number)

    def kill(self):
        if self.alive():
            self.popen.kill()
        self.popen.wait()

    def wait(self, seconds=90):
        return self.popen.wait(seconds)


class Worker(Process):
    def __init__(self, home, name, join, *arguments, netns=None, listen="127.0.0.1:0"):
        self.name = name
        super().__init__(home, "worker", "--join", join, "--name", name, "--threads", "1", "--listen", listen, *arguments, netns=netns)


class Gateway(Process):
    """`tessera gateway`; restart() comes back on the same ports with the same state."""

    def __init__(self, home, *arguments, model=None, netns=None, advertise="127.0.0.1", host="127.0.0.1"):
        home = pathlib.Path(home)
        self.arguments = [*(["--model", model] if model else []), *arguments]
        self.advertise, self.host, self.netns = advertise, host, netns
        self.port = self.control_port = 0
        self._start(home)

    def _start(self, home):
        super().__init__(
            home, "gateway", "--host", self.host, "--port", self.port, "--control-port", self.control_port,
            "--advertise", self.advertise, *self.arguments, netns=self.netns,
        )  # fmt: skip
        wait_until(lambda: not self.alive() or "--join" in self.out.read_text(), lambda: self.log, 120)
        if not self.alive():
            raise AssertionError("the gateway did not start:\n" + self.log)
        self.join = self.out.read_text().split("--join ")[1].strip()
        self.url = re.findall(r"listening on (http://\S+)", self.log)[-1]
        self.port = int(self.url.rsplit(":", 1)[1])
        self.control_port = int(self.join.split("/")[2].rsplit(":", 1)[1])

    def restart(self, number=signal.SIGTERM):
        self.signal(number)
        self.wait()
        self._start(self.home)


class Cluster:
    """A gateway and the workers that joined it. `models` is a folder of models to serve by name (a store)."""

    def __init__(self, folder, model, *gateway_arguments, models=None, netns=None, **gateway):
        self.folder = pathlib.Path(folder)
        self.workers = {}
        self._count = 0
        home = self.folder / "gateway"
        home.mkdir(parents=True, exist_ok=True)
        if models:
            stock(home, models)
        self.gateway = Gateway(home, *gateway_arguments, model=model, netns=netns, **gateway)

    @property
    def url(self):
        return self.gateway.url

    def worker(self, blocks=None, *arguments, name=None, home=None, join=None, **options):
        """Starts a worker, pinned to "FIRST:LAST" if given. It joins meanwhile."""
        self._count += 1
        name = name or f"w{self._count}"
        pinned = ["--blocks", blocks] if blocks else []
        worker = Worker(home or self.folder / name, name, join or self.gateway.join, *pinned, *arguments, **options)
        worker.blocks = blocks
        self.workers[name] = worker
        return worker

    def get(self, path):
        return get(self.url + path)

    def view(self):
        return self.get("/api/v1/cluster")

    def member(self, name):
        return next((w for w in self.view()["workers"] if w["name"] == name), None)

    def model(self, name=None):
        return next((m for m in self.view()["models"] if name in (None, m["name"])), None)

    def hosts(self, name, blocks=None):
        """Does this worker host a ready range (these blocks)?"""
        member = self.member(name)
        ranges = [i["blocks"] for i in member["instances"] if i["state"] == "ready"] if member else []
        return member["state"] in ("ready", "cooling") and (parse(blocks) in ranges if blocks else bool(ranges)) if member else False

    def wait_hosting(self, *workers, seconds=90):
        for worker in workers:
            wait_until(
                lambda: self.hosts(worker.name, worker.blocks),
                lambda: f"{worker.name} hosts {worker.blocks}: {self.member(worker.name)}\n{worker.log}\n{self.gateway.log}",
                seconds,
            )

    def start(self, cut, *arguments):
        """One pinned worker for each range of "0:8,8:30"; returns them when they serve."""
        workers = [self.worker(blocks, *arguments) for blocks in cut.split(",")]
        self.wait_hosting(*workers)
        wait_until(lambda: self.model()["covered"], lambda: f"covered: {self.view()}", 60)
        return workers

    def end_workers(self):
        for worker in self.workers.values():
            with contextlib.suppress(ProcessLookupError):
                worker.signal(signal.SIGCONT)
            worker.kill()
        self.workers = {}

    def tessera(self, *arguments, expect=0, seconds=120):
        done = subprocess.run(
            [BINARY, *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=seconds,
            env={**os.environ, "TESSERA_HOME": str(self.gateway.home)},
        )
        assert done.returncode == expect, f"status {done.returncode}, wanted {expect}\n{done.stdout}\n{done.stderr}"
        return done

    def assert_nothing_left(self):
        """Every session has ended everywhere: none counted, none on any worker, no KV of one held."""

        def clean():
            view = self.view()
            gateway = all(m["sessions"][k] == 0 for m in view["models"] for k in ("running", "waiting", "without_route"))
            alive = [i for w in view["workers"] if w["state"] != "lost" for i in w["instances"] if i["state"] == "ready"]
            return gateway and all(i["sessions"] == 0 and i["kv_tokens_free"] == i["kv_tokens"] for i in alive)

        wait_until(clean, lambda: f"nothing is left behind: {json.dumps(self.view(), indent=1)}", 90)

    def stop(self):
        self.end_workers()
        if self.gateway.alive():
            self.gateway.signal(signal.SIGTERM)
            try:
                return self.gateway.wait()
            except subprocess.TimeoutExpired:
                self.gateway.kill()
                raise


def stock(home, models):
    """Puts the models of a store into a home, as links."""
    folder = pathlib.Path(home) / "models"
    folder.mkdir(parents=True, exist_ok=True)
    for entry in pathlib.Path(models).iterdir():
        if not entry.name.startswith("."):
            (folder / entry.name).symlink_to(entry)


def parse(blocks):
    return [int(x) for x in blocks.split(":")]


def get(url, seconds=60):
    with urllib.request.urlopen(url, timeout=seconds) as answer:
        return json.loads(answer.read())


def post(url, body, method="POST", seconds=300):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    with urllib.request.urlopen(request, timeout=seconds) as answer:
        return json.loads(answer.read())


def complete(url, body):
    """What a completion's choices are: everything that must not depend on where it was computed."""
    answer = post(url + "/v1/completions", {"return_token_ids": True, **body})
    assert "tessera" not in answer, answer["tessera"]  # says that tokens are not exact
    return [{k: c[k] for k in ("index", "text", "token_ids", "finish_reason", "logprobs")} for c in answer["choices"]]


class StreamError(Exception):
    """The stream ended with an error object."""


def stream(url, body, on_tokens=None, seconds=300):
    """The same from a stream: {index: {"token_ids", "text", "finish_reason"}}. on_tokens(count) hears of each event."""
    request = urllib.request.Request(
        url + "/v1/completions",
        json.dumps({"return_token_ids": True, "stream": True, **body}).encode(),
        {"Content-Type": "application/json"},
    )
    choices, count, ended = {}, 0, False
    with urllib.request.urlopen(request, timeout=seconds) as answer:
        for line in answer:
            if not line.startswith(b"data: "):
                continue
            if line.strip() == b"data: [DONE]":
                ended = True
                continue
            event = json.loads(line[6:])
            if "error" in event:
                raise StreamError(event["error"]["message"])
            assert "tessera" not in event, event["tessera"]
            for choice in event["choices"]:
                whole = choices.setdefault(choice["index"], {"token_ids": [], "text": "", "finish_reason": None})
                whole["token_ids"] += choice.get("token_ids") or []
                whole["text"] += choice["text"]
                whole["finish_reason"] = choice["finish_reason"] or whole["finish_reason"]
                count += len(choice.get("token_ids") or [])
            if on_tokens:
                on_tokens(count)
    if not ended:
        raise StreamError("the stream ended without [DONE]")
    return choices


@contextlib.contextmanager
def serve(folder, model, models=None):
    """`tessera serve`: the single machine that every answer must equal. Yields its URL."""
    home = pathlib.Path(folder)
    home.mkdir(parents=True, exist_ok=True)
    if models:
        (home / "models").symlink_to(models)
    process = Process(home, "serve", "--model", model, "--port", "0")
    try:
        wait_until(lambda: not process.alive() or "listening on http" in process.log, lambda: process.log)
        assert process.alive(), process.log
        url = re.search(r"listening on (http://\S+)", process.log)[1]
        wait_until(lambda: ready(url)[0] == 200, lambda: process.log)
        yield url
    finally:
        process.kill()


def ready(url):
    """(status, message) of /ready."""
    try:
        with urllib.request.urlopen(url + "/ready", timeout=60) as answer:
            return answer.status, ""
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read()).get("error", {}).get("message", "")
