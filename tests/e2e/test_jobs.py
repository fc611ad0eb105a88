"""Jobs through the public routes: kept until they are done, whoever dies meanwhile."""
import concurrent.futures
import hashlib
import hmac
import http.server
import json
import pathlib
import signal
import threading
import time
import urllib.error
import urllib.request

import pytest
from cluster import Cluster, get, post, wait_until
from conftest import DEFAULT_MODEL
from servers import Postgres

MEMORY = ("--memory", "400MiB")
ENDED = ("completed", "failed", "cancelled")


def ask(text, max_tokens=8, **more):
    params = {"messages": [{"role": "user", "content": text}], "max_tokens": max_tokens, "temperature": 0}
    return {"type": "llm", "params": params, **more}


def long(text, **more):
    """Seconds of work."""
    job = ask(text, 200, **more)
    job["params"]["ignore_eos"] = True
    return job


def refused(call):
    with pytest.raises(urllib.error.HTTPError) as caught:
        call()
    return caught.value.code, json.loads(caught.value.read())


class Jobs:
    def __init__(self, url):
        self.url = url + "/api/v1/jobs"

    def create(self, job):
        return post(self.url, job)

    def get(self, job_id):
        return get(f"{self.url}/{job_id}")

    def cancel(self, job_id):
        return post(f"{self.url}/{job_id}", None, "DELETE")

    def list(self, query=""):
        return get(self.url + query)["jobs"]

    def wait(self, job_id, seconds=120):
        return wait_until(lambda: (job := self.get(job_id))["status"] in ENDED and job, lambda: self.get(job_id), seconds)

    def wait_running(self, job_id):
        wait_until(lambda: self.get(job_id)["status"] != "queued", lambda: self.get(job_id), 60)


@pytest.fixture
def store(default_model):
    return pathlib.Path(default_model).parents[1]


@pytest.fixture
def cluster(tmp_path, store):
    hook = Hook()
    running = Cluster(tmp_path, DEFAULT_MODEL, "--lease", "600", "--job-lease", "2000", "--job-slots", "2", "--webhook-host", "127.0.0.1", models=store)
    running.hook = hook
    yield running
    hook.close()
    assert running.stop() == 0, running.gateway.log


class Hook:
    """A server that webhooks go to; it refuses the first."""

    def __init__(self):
        self.calls = calls = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                calls.append((dict(self.headers), body))
                self.send_response(500 if len(calls) == 1 else 204)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()


def events(url, job, seconds=120):
    request = urllib.request.Request(url, json.dumps(job).encode(), {"Content-Type": "application/json", "Accept": "text/event-stream"})
    with urllib.request.urlopen(request, timeout=seconds) as answer:
        return [json.loads(line[6:]) for line in answer if line.startswith(b"data: ")]


def test_the_life_of_a_job(cluster):
    jobs = Jobs(cluster.url)
    assert get(jobs.url + "/stats/queue")["estimated_wait_seconds"] == -1
    assert refused(lambda: post(jobs.url + "/sync?wait_for_worker=false", ask("x")))[1]["error"]["code"] == "no_workers_available"
    cluster.start("0:30", *MEMORY)

    # What a chat request answers.
    made = jobs.create(ask("Name a colour."))
    assert made["job_id"].startswith("job_") and made["status"] in ("queued", "running")
    done = jobs.wait(made["job_id"])
    assert done["status"] == "completed", done
    chat = post(cluster.url + "/v1/chat/completions", ask("Name a colour.")["params"])
    result = done["result"]
    assert result["response"] == chat["choices"][0]["message"]["content"]
    assert result["usage"]["completion_tokens"] == chat["usage"]["completion_tokens"]
    assert result["finish_reason"] == chat["choices"][0]["finish_reason"]
    assert result["model"] == DEFAULT_MODEL and done["attempts"] == 1
    assert done["created_at"] <= done["started_at"] <= done["completed_at"]

    # Waiting for it, in one piece and as events.
    sync = post(jobs.url + "/sync?timeout=60", ask("Name a colour."))
    assert sync["result"]["response"] == result["response"]
    assert sync["priority"] == 10
    seen = [e["status"] for e in events(jobs.url + "/sync?timeout=60", ask("Name a colour."))]
    assert seen[-1] == "completed" and seen == sorted(set(seen), key=["queued", "running", "completed"].index)
    code, body = refused(lambda: post(jobs.url + "/sync?timeout=1", long("a long story")))
    assert code == 408 and body["error"]["code"] == "timeout"
    assert jobs.wait(body["job_id"])["status"] == "completed"

    # Refused at once and by name.
    assert refused(lambda: jobs.create({"type": "whisper", "params": {}}))[1]["error"]["code"] == "unsupported_type"
    assert refused(lambda: jobs.create({"type": "llm"}))[1]["error"]["param"] == "params"
    assert refused(lambda: jobs.create(ask("x", model_none=1, priority="high")))[1]["error"]["param"] == "priority"
    bad = ask("x")
    bad["params"]["temperature"] = 9
    assert refused(lambda: jobs.create(bad))[1]["error"]["param"] == "temperature"
    bad["params"] = {"messages": [{"role": "user", "content": "x"}], "model": "none"}
    assert refused(lambda: jobs.create(bad))[0] == 404
    assert refused(lambda: jobs.get("job_none"))[0] == 404
    assert refused(lambda: jobs.create(ask("x", webhook={"url": "http://169.254.169.254/"})))[1]["error"]["param"] == "webhook"

    # One job for an idempotency key, and only for the same request.
    once = [jobs.create(ask("Once.", idempotency_key="k"))["job_id"] for _ in range(3)]
    assert len(set(once)) == 1
    code, body = refused(lambda: jobs.create(ask("Twice.", idempotency_key="k")))
    assert code == 409 and body["error"]["code"] == "idempotency_conflict"

    # More than there are slots: they wait, with a place; priority goes first; queued and running ones are cancelled.
    first = [jobs.create(long(f"story {i}"))["job_id"] for i in range(2)]
    for job_id in first:
        jobs.wait_running(job_id)
    low, high = jobs.create(ask("low")), jobs.create(ask("high", priority=5))
    assert low["queue_position"] == 1 and high["queue_position"] == 1
    assert jobs.get(low["job_id"])["queue_position"] == 2
    stats = get(jobs.url + "/stats/queue")
    assert stats["total_queued"] == 2 and stats["by_type"] == {"llm": 2} and stats["running"] == 2 and stats["available_workers"] == 1
    assert stats["mean_service_seconds"] > 0 and stats["estimated_wait_seconds"] > 0
    gone = jobs.create(ask("never"))
    assert jobs.cancel(gone["job_id"])["status"] == "cancelled"
    assert jobs.cancel(first[0])["status"] == "cancelled"
    assert jobs.wait(high["job_id"])["completed_at"] <= jobs.wait(low["job_id"])["completed_at"]
    assert jobs.get(first[0])["result"] is None and jobs.get(gone["job_id"])["attempts"] == 0
    assert refused(lambda: jobs.cancel(high["job_id"]))[0] == 409
    assert jobs.wait(first[1])["status"] == "completed"

    # A region that nobody stands in is waited for, unless the job may run elsewhere.
    strict = jobs.create(ask("x", region="moon", allow_cross_region=False))
    loose = jobs.create(ask("x", region="moon"))
    assert jobs.wait(loose["job_id"])["status"] == "completed"
    assert jobs.get(strict["job_id"])["status"] == "queued"
    jobs.cancel(strict["job_id"])

    # Too slow: every attempt is ended, and the last one fails it.
    slow = jobs.create(long("slow", timeout_seconds=1, max_retries=1))
    slow = jobs.wait(slow["job_id"])
    assert slow["status"] == "failed" and slow["attempts"] == 2 and "longer than 1 s" in slow["error"]

    # A webhook: signed, and told again where it was refused.
    hooked = jobs.create(ask("hook", webhook={"url": cluster.hook.url}))
    secret = hooked["webhook_secret"]
    wait_until(lambda: len(cluster.hook.calls) >= 2, lambda: cluster.gateway.log, 60)
    headers, body = cluster.hook.calls[1]
    parts = dict(p.split("=") for p in headers["X-Tessera-Signature"].split(","))
    assert parts["v1"] == hmac.new(secret.encode(), f"{parts['t']}.".encode() + body, hashlib.sha256).hexdigest()
    assert abs(int(parts["t"]) - time.time()) < 600
    told = json.loads(body)
    assert told["event"] == "job.completed" and told["job"]["job_id"] == hooked["job_id"] == headers["X-Tessera-Delivery"]
    assert secret not in json.dumps(jobs.list())

    # At the terminal.
    out = cluster.tessera("jobs", "submit", "--wait", "--max-tokens", "4", "Say", "yes.").stdout
    assert out.strip()
    listed = cluster.tessera("jobs", "list", "--json").stdout
    assert len(json.loads(listed)["jobs"]) > 5
    assert hooked["job_id"] in cluster.tessera("jobs", "list").stdout
    assert "completed" in cluster.tessera("jobs", "show", hooked["job_id"]).stdout
    assert "has ended" in cluster.tessera("jobs", "cancel", hooked["job_id"], expect=1).stderr
    cluster.assert_nothing_left()


def test_jobs_survive_the_death_of_gateway_and_worker(cluster):
    jobs = Jobs(cluster.url)
    (worker,) = cluster.start("0:30", *MEMORY)
    wanted = {}
    for i in range(3):
        wanted[i] = post(cluster.url + "/v1/chat/completions", long(f"story {i}")["params"])["choices"][0]["message"]["content"]
    made = [(i, jobs.create(long(f"story {i}"))["job_id"]) for i in range(3)]
    jobs.wait_running(made[0][1])
    cluster.gateway.restart(signal.SIGKILL)
    jobs = Jobs(cluster.url)
    assert {j["job_id"] for j in jobs.list()} == {job_id for _, job_id in made}
    jobs.wait_running(made[0][1])
    wait_until(lambda: cluster.hosts("w1", "0:30"), lambda: cluster.view())
    # The worker dies under them, another one comes.
    wait_until(lambda: any(m["sessions"]["running"] for m in cluster.view()["models"]), lambda: cluster.view())
    worker.kill()
    cluster.worker("0:30", *MEMORY)
    for i, job_id in made:
        done = jobs.wait(job_id, 180)
        assert done["status"] == "completed", done
        assert done["result"]["response"] == wanted[i]
    assert max(jobs.get(job_id)["attempts"] for _, job_id in made) >= 2, "those that the dead gateway ran"
    # SIGTERM gives back what runs, at once and without a lost attempt.
    given = jobs.create(long("story 0"))["job_id"]
    jobs.wait_running(given)
    cluster.gateway.restart(signal.SIGTERM)
    done = Jobs(cluster.url).wait(given, 180)
    assert done["status"] == "completed" and done["attempts"] == 1 and done["result"]["response"] == wanted[0]


def test_two_gateways_share_a_queue_and_no_acknowledged_job_is_lost(tmp_path, store):
    """Jobs are created at both gateways, on one PostgreSQL that is killed and comes back; one gateway is killed."""
    database = Postgres(tmp_path / "postgres")
    database.start()
    clusters = []
    try:
        for name in ("a", "b"):
            arguments = ("--database", database.url, "--lease", "600", "--job-lease", "2000", "--job-slots", "2")
            clusters.append(Cluster(tmp_path / name, DEFAULT_MODEL, *arguments, models=store))
            clusters[-1].wait_hosting(clusters[-1].worker("0:30", "--memory", "300MiB", name=f"w-{name}"))
        made, stop = [], threading.Event()

        def create(cluster):
            count = 0
            while not stop.is_set():
                try:
                    made.append(Jobs(cluster.url).create(ask(f"number {count}", 2, idempotency_key=f"{cluster.url}/{count}"))["job_id"])
                    count += 1
                except (urllib.error.URLError, ConnectionError):
                    pass  # with the same key once more
                stop.wait(0.2)

        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            writers = [pool.submit(create, c) for c in clusters]
            wait_until(lambda: len(made) > 10, "jobs are created")
            database.kill()
            database.start()
            before = len(made)
            wait_until(lambda: len(made) > before + 10, "jobs are created again")
            clusters[0].gateway.kill()
            before = len(made)
            wait_until(lambda: len(made) > before + 10, "the other one goes on")
            stop.set()
            for writer in writers:
                writer.result()
        jobs = Jobs(clusters[1].url)
        unknown = [job_id for job_id in made if not any(row for row in database.ask(f"SELECT 1 FROM jobs WHERE id = '{job_id}'"))]
        assert not unknown
        wait_until(lambda: get(jobs.url + "/stats/queue")["total_queued"] == 0, lambda: get(jobs.url + "/stats/queue"), 240)
        for job_id in made:
            assert jobs.wait(job_id)["status"] == "completed"
        # One job for each key; the last one of the gateway that was killed may be there without having been acknowledged.
        assert int(database.ask("SELECT count(*) FROM jobs")[0][0]) - len(set(made)) in (0, 1)
        assert len(set(made)) == len(made)
    finally:
        for cluster in clusters:
            cluster.end_workers()
            cluster.gateway.kill()
        database.kill()
