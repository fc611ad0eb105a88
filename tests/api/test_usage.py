"""Limits, budgets, usage and bills, over HTTP with real answers."""
import csv
import io
import time

from conftest import NAME, wait_until
from test_keys import ADMIN, ENTERPRISES, bearer, complete, guarded, home, make_key  # noqa: F401 (fixtures)


def records(server, **query):
    return server.get("/api/v1/admin/usage/records", params=query, headers=ADMIN).json()["records"]


def test_usage_is_metered_once_whatever_the_client_calls_its_request(guarded):
    acme = guarded.post(ENTERPRISES, {"name": "Acme", "code": "acme", "custom_pricing": {"llm_tokens": 1000}}, headers=ADMIN).json()
    key = make_key(guarded, "acme")
    headers = {**bearer(key), "X-Request-Id": "always-the-same"}
    usage = [complete(guarded, headers, max_tokens=n, ignore_eos=True).json()["usage"] for n in (1, 4)]
    streamed = complete(guarded, headers, max_tokens=3, ignore_eos=True, stream=True)
    assert streamed.text.count('"text"') >= 3
    with guarded.http.stream(
        "POST", guarded.url + "/v1/completions", headers=headers,
        json={"model": NAME, "prompt": "Count:", "max_tokens": 900, "ignore_eos": True, "stream": True},
    ) as answer:  # fmt: skip
        for got, _ in enumerate(answer.iter_lines()):
            if got > 10:
                break
    wait_until(lambda: len(records(guarded, enterprise="acme")) == 4, 30)
    by_status = {}
    for record in records(guarded, enterprise="acme"):
        by_status.setdefault(record["status"], []).append(record)
        assert record["request_id"] == "always-the-same" and record["key"] == key["id"] and record["model"] == NAME
        assert record["quantity"] == record["prompt_tokens"] + record["completion_tokens"]
        assert abs(record["amount"] - record["quantity"]) < 1e-9  # 1000 for a thousand
    assert sorted(r["completion_tokens"] for r in by_status[200]) == [1, 3, 4]
    assert {u["prompt_tokens"] for u in usage} == {r["prompt_tokens"] for r in by_status[200]}
    (cancelled,) = by_status[499]
    assert 0 < cancelled["completion_tokens"] < 900 and cancelled["prompt_tokens"] > 0

    total = sum(r["amount"] for rs in by_status.values() for r in rs)
    me = guarded.get("/api/v1/me", headers=bearer(key)).json()
    assert abs(me["credit_balance"] + total) < 1e-6
    summary = guarded.get("/api/v1/admin/usage/summary", params={"group_by": "status", "enterprise": acme["id"]}, headers=ADMIN).json()
    assert {g["status"]: g["requests"] for g in summary["groups"]} == {"200": 3, "499": 1}
    assert abs(summary["totals"]["amount"] - total) < 1e-6 and summary["totals"]["failed"] == 1
    for group_by in ("enterprise", "key", "model", "type", "hour", "day", "week", "month"):
        groups = guarded.get(f"{ENTERPRISES}/acme/usage", params={"group_by": group_by}, headers=ADMIN).json()["groups"]
        assert sum(g["requests"] for g in groups) == 4 and group_by in groups[0]
    assert guarded.get("/api/v1/admin/usage/summary", params={"group_by": "colour"}, headers=ADMIN).status_code == 400
    assert records(guarded, start_time="2020-01-01", end_time="2020-01-02") == []
    own = guarded.get("/api/v1/me/usage", headers=bearer(key)).json()
    assert own["totals"]["requests"] == 4
    other = make_key(guarded)
    assert guarded.get("/api/v1/me/usage", params={"enterprise": "acme"}, headers=bearer(other)).json()["totals"]["requests"] == 0

    text = guarded.get("/api/v1/admin/usage/records", params={"enterprise": "acme", "format": "csv"}, headers=ADMIN)
    assert text.headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(text.text)))
    assert {r["id"] for r in rows} == {r["id"] for rs in by_status.values() for r in rs}


def test_a_full_minute_is_429_and_the_headers_say_what_is_left(guarded):
    key = make_key(guarded, rate_limit_per_minute=2, tokens_per_minute=500)
    first = complete(guarded, bearer(key))
    assert first.status_code == 200 and first.headers["x-ratelimit-limit-requests"] == "2"
    assert first.headers["x-ratelimit-remaining-requests"] == "1" and first.headers["x-ratelimit-limit-tokens"] == "500"
    assert complete(guarded, bearer(key), stream=True).headers["x-ratelimit-remaining-requests"] == "0"
    refused = complete(guarded, bearer(key))
    assert refused.status_code == 429 and int(refused.headers["retry-after"]) > 0
    assert refused.json()["error"]["code"] == "rate_limit_exceeded" and refused.json()["error"]["type"] == "rate_limit_error"
    assert complete(guarded, bearer(make_key(guarded, tokens_per_minute=50)), max_tokens=400).status_code == 429
    assert complete(guarded, ADMIN).status_code == 200


def test_requests_at_a_time_are_bounded_and_released(guarded):
    key = make_key(guarded, max_concurrent=1)
    with guarded.http.stream(
        "POST", guarded.url + "/v1/completions", headers=bearer(key),
        json={"model": NAME, "prompt": "Count:", "max_tokens": 900, "ignore_eos": True, "stream": True},
    ) as answer:  # fmt: skip
        next(answer.iter_lines())
        assert complete(guarded, bearer(key)).status_code == 429
    wait_until(lambda: complete(guarded, bearer(key)).status_code == 200, 30)


def test_a_budget_ends_and_credit_runs_out(guarded):
    guarded.post(ENTERPRISES, {"name": "A", "code": "a", "monthly_budget": 0.000001}, headers=ADMIN)
    key = make_key(guarded, "a")
    assert complete(guarded, bearer(key)).status_code == 200
    wait_until(lambda: complete(guarded, bearer(key)).status_code == 402, 30)
    assert complete(guarded, bearer(key)).json()["error"]["code"] == "budget_exceeded"
    guarded.http.put(guarded.url + f"{ENTERPRISES}/a", json={"monthly_budget": 0, "prepaid": True}, headers=ADMIN)
    assert complete(guarded, bearer(key)).json()["error"]["code"] == "insufficient_credit"
    guarded.http.put(guarded.url + f"{ENTERPRISES}/a", json={"credit_balance": 5}, headers=ADMIN)
    assert complete(guarded, bearer(key)).status_code == 200


def test_plans_and_bills(guarded):
    plan = guarded.http.put(guarded.url + "/api/v1/admin/price-plans/big", json={"prices": {"llm_tokens": 2}}, headers=ADMIN)
    assert plan.json() == {"name": "big", "prices": {"llm_tokens": 2.0}}
    bad = guarded.http.put(guarded.url + "/api/v1/admin/price-plans/x", json={"prices": {"tokens": 2}}, headers=ADMIN)
    assert bad.status_code == 400 and bad.json()["error"]["param"] == "prices"
    guarded.post(ENTERPRISES, {"name": "B", "code": "b", "plan": "big"}, headers=ADMIN)
    usage = complete(guarded, bearer(make_key(guarded, "b"))).json()["usage"]
    wait_until(lambda: records(guarded, enterprise="b"), 30)
    assert abs(records(guarded, enterprise="b")[0]["amount"] - usage["total_tokens"] * 0.002) < 1e-9
    early = guarded.post("/api/v1/admin/bills", {"enterprise": "b", "time": time.strftime("%Y-%m-%d", time.gmtime())}, headers=ADMIN)
    assert early.status_code == 400, "its period is not over"
    bill = guarded.post("/api/v1/admin/bills", {"enterprise": "b"}, headers=ADMIN).json()
    assert bill["amount"] == 0 and bill["period_end"].endswith("-01T00:00:00Z")
    assert guarded.post("/api/v1/admin/bills", {"enterprise": "b"}, headers=ADMIN).json()["id"] == bill["id"]
    assert guarded.get("/api/v1/admin/bills/" + bill["id"], headers=ADMIN).json() == bill
    assert [b["id"] for b in guarded.get("/api/v1/admin/bills?enterprise=b", headers=ADMIN).json()["bills"]] == [bill["id"]]
