#!/usr/bin/env python3
"""What the cluster adds to a token of an engine behind a worker: a server whose tokens say when they were sent, read directly
and through worker and gateway. Prints the median and the 99th percentile of send-to-receive, in microseconds.

    bench/engine_delay.py [--tokens 500] [--gap-ms 5] [--streams 1]
"""
import argparse
import http.client
import http.server
import json
import pathlib
import statistics
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests/e2e"))
from cluster import Cluster, wait_until  # noqa: E402


class Engine(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    tokens, gap = 500, 0.005

    def log_message(self, *_):
        pass

    def answer(self, body):
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        self.answer({"data": [{"id": "clock", "max_model_len": 4096}]})

    def event(self, body):
        data = b"data: " + (body if isinstance(body, bytes) else json.dumps(body).encode()) + b"\n\n"
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not body.get("stream"):
            return self.answer({"choices": [{"index": 0, "message": {"role": "assistant", "content": "x"}, "text": "x", "finish_reason": "stop"}]})
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for _ in range(self.tokens):
            time.sleep(self.gap)
            self.event({"choices": [{"index": 0, "delta": {"content": f"{time.monotonic_ns()} "}, "finish_reason": None}]})
        self.event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        self.event({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": self.tokens}})
        self.event(b"[DONE]")
        self.wfile.write(b"0\r\n\r\n")


def delays(url, streams):
    found = []

    def one():
        host, port = url.removeprefix("http://").split(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=120)
        connection.request("POST", "/v1/chat/completions", json.dumps({"model": "clock", "stream": True, "messages": [{"role": "user", "content": "go"}]}),
                           {"Content-Type": "application/json"})  # fmt: skip
        answer = connection.getresponse()
        while line := answer.readline():
            now = time.monotonic_ns()
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line[6:])
            for choice in event.get("choices", []):
                if content := choice["delta"].get("content"):
                    found.append((now - int(content)) / 1e3)

    threads = [threading.Thread(target=one) for _ in range(streams)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=500)
    parser.add_argument("--gap-ms", type=float, default=5)
    parser.add_argument("--streams", type=int, default=1)
    options = parser.parse_args()
    Engine.tokens, Engine.gap = options.tokens, options.gap_ms / 1e3
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Engine)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    engine = f"http://127.0.0.1:{server.server_port}"
    with tempfile.TemporaryDirectory() as folder:
        cluster = Cluster(folder, None)
        try:
            worker = cluster.worker(None, "--engine", "openai", "--url", engine)
            wait_until(lambda: ((cluster.member(worker.name) or {}).get("engine") or {}).get("state") == "ready", lambda: worker.log)
            medians = []
            print(f"{options.streams} streams of {options.tokens} tokens, {options.gap_ms} ms apart; µs from send to receive")
            for name, url in (("direct", engine), ("through worker and gateway", cluster.url)):
                values = sorted(delays(url, options.streams))
                medians.append(statistics.median(values))
                print(f"{name:<28} p50 {medians[-1]:8.0f}   p99 {values[int(len(values) * 0.99)]:8.0f}   n {len(values)}")
            print(f"added at p50: {medians[1] - medians[0]:.0f} µs")
        finally:
            cluster.stop()


if __name__ == "__main__":
    main()
