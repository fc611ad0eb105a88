"""Signed requests, logins, lockout, the audit log, security headers; and that no secret reaches a log."""
import hashlib
import hmac
import json
import pathlib
import secrets
import sqlite3
import subprocess
import time

from conftest import BINARY, NAME, wait_until
from test_keys import ADMIN, ENTERPRISES, bearer, complete, guarded, home, make_key  # noqa: F401 (fixtures)

PASSWORD = "correct horse battery staple"


def sign(key, method, target, body, nonce=None, at=None):
    at = str(int(time.time() if at is None else at))
    nonce = nonce or secrets.token_hex(16)
    message = ":".join([method, target, hashlib.sha256(body).hexdigest(), at, nonce])
    signature = hmac.new(hashlib.sha256(key["api_key"].encode()).digest(), message.encode(), hashlib.sha256).hexdigest()
    return {"X-API-Key-Id": key["id"], "X-Timestamp": at, "X-Nonce": nonce, "X-Signature": signature}


def login(server, name, password=PASSWORD):
    return server.post("/api/v1/auth/login", {"username": name, "password": password})


def add_user(server, name, role):
    answer = server.post("/api/v1/admin/users", {"username": name, "role": role, "password": PASSWORD}, headers=ADMIN)
    assert answer.status_code == 200, answer.text


def test_a_signed_request_counts_once_and_only_as_it_was_signed(guarded):
    key = make_key(guarded, require_signature=True)
    target = "/v1/completions"
    body = json.dumps({"model": NAME, "prompt": "Hi", "max_tokens": 1}).encode()
    headers = sign(key, "POST", target, body)
    assert guarded.post(target, body, headers=headers).status_code == 200
    again = guarded.post(target, body, headers=headers)
    assert again.status_code == 401 and again.json()["error"]["code"] == "replayed"
    assert guarded.post(target, body + b" ", headers=sign(key, "POST", target, body)).status_code == 401
    assert guarded.post(target, body, headers=sign(key, "POST", target, body, at=time.time() - 400)).status_code == 401
    assert guarded.post(target, body, headers=bearer(key)).status_code == 401, "this key must sign"
    assert guarded.post(target, body, headers=sign(key, "POST", target, body)).status_code == 200
    wrong = {**key, "api_key": "ent_wrong"}
    statuses = [guarded.post(target, body, headers=sign(wrong, "POST", target, body)).status_code for _ in range(5)]
    assert statuses[:3] == [401] * 3 and statuses[-1] == 429
    assert guarded.post(target, body, headers=sign(key, "POST", target, body)).status_code == 429, "locked, right or wrong"
    other = make_key(guarded)
    assert guarded.post(target, body, headers=sign(other, "POST", target, body)).status_code == 200


def test_people_log_in_with_roles_and_tokens_that_rotate(guarded):
    add_user(guarded, "ann", "viewer")
    add_user(guarded, "bob", "admin")
    tokens = login(guarded, "ann").json()
    token = {"Authorization": "Bearer " + tokens["access_token"]}
    assert guarded.get(ENTERPRISES, headers=token).status_code == 200
    assert guarded.post(ENTERPRISES, {"name": "x", "code": "x"}, headers=token).status_code == 403
    assert guarded.get("/api/v1/admin/users", headers=token).status_code == 403
    assert guarded.get("/api/v1/me", headers=token).json()["key"] == "user:ann"
    bob = {"Authorization": "Bearer " + login(guarded, "bob").json()["access_token"]}
    assert guarded.post(ENTERPRISES, {"name": "x", "code": "x"}, headers=bob).status_code == 200
    new = guarded.post("/api/v1/auth/refresh", {"refresh_token": tokens["refresh_token"]}).json()
    assert guarded.get(ENTERPRISES, headers=token).status_code == 401, "replaced"
    token = {"Authorization": "Bearer " + new["access_token"]}
    assert guarded.get(ENTERPRISES, headers=token).status_code == 200
    assert guarded.post("/api/v1/auth/refresh", {"refresh_token": tokens["refresh_token"]}).status_code == 401
    assert guarded.get(ENTERPRISES, headers=token).status_code == 401, "a stolen refresh token ends the login"
    assert guarded.post("/api/v1/auth/logout", {}, headers=bob).status_code == 200
    assert guarded.get(ENTERPRISES, headers=bob).status_code == 401


def test_five_wrong_passwords_lock_the_user_out(guarded):
    add_user(guarded, "ann", "admin")
    statuses = [login(guarded, "ann", "wrong password").status_code for _ in range(6)]
    assert statuses == [401] * 4 + [429] * 2
    locked = login(guarded, "ann")
    assert locked.status_code == 429 and int(locked.headers["retry-after"]) > 600
    assert login(guarded, "nobody", "wrong password").status_code == 401


def test_every_change_is_audited_and_tampering_is_found(guarded, home):  # noqa: F811
    add_user(guarded, "ann", "admin")
    ann = {"Authorization": "Bearer " + login(guarded, "ann").json()["access_token"]}
    guarded.post(ENTERPRISES, {"name": "x", "code": "x"}, headers=ann)
    login(guarded, "ann", "wrong password")
    guarded.get(ENTERPRISES, headers=ann)
    guarded.post(ENTERPRISES, {"name": "y", "code": "y"}, headers=bearer(make_key(guarded)))

    def entries():
        return guarded.get("/api/v1/admin/audit", headers=ADMIN).json()["entries"][::-1]

    wait_until(lambda: len(entries()) == 6)
    assert [(e["action"].split(" ")[1], e["status"]) for e in entries()] == [
        ("/api/v1/admin/users", 200), ("/api/v1/auth/login", 200), ("/api/v1/admin/enterprises", 200),
        ("/api/v1/auth/login", 401), ("/api/v1/admin/enterprises/{id}/api-keys", 200), ("/api/v1/admin/enterprises", 403),
    ]  # fmt: skip
    assert entries()[2]["actor"] == "user:ann" and entries()[0]["actor"].startswith("flag-")
    audit = [BINARY, "audit", "verify"]
    assert subprocess.run(audit, capture_output=True, text=True, timeout=60).returncode == 0
    with sqlite3.connect(home / "state" / "tessera.db") as database:
        database.execute("UPDATE audit SET actor = 'user:eve' WHERE number = 3")
    done = subprocess.run(audit, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "entry 3" in done.stdout


def test_users_at_the_terminal(guarded):
    def users(*arguments, stdin=""):
        done = subprocess.run([BINARY, "users", *arguments], input=stdin, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    users("add", "ann", "--role", "operator", stdin=PASSWORD + "\n")
    assert login(guarded, "ann").json()["role"] == "operator"
    assert "operator" in users()
    users("role", "ann", "--role", "viewer")
    assert login(guarded, "ann").json()["role"] == "viewer"
    users("disable", "ann")
    assert login(guarded, "ann").status_code == 401
    users("remove", "ann")
    assert "ann" not in users()


def test_answers_carry_security_headers(guarded):
    for path in ("/health", "/v1/models", "/nothing", "/api/v1/me"):
        headers = guarded.get(path, headers=ADMIN).headers
        assert headers["x-content-type-options"] == "nosniff" and headers["x-frame-options"] == "DENY", path
        assert headers["referrer-policy"] == "no-referrer"
    assert guarded.get("/api/v1/me", headers=ADMIN).headers["cache-control"] == "no-store"


def test_no_secret_and_no_prompt_reaches_log_or_database(home, start):  # noqa: F811
    server = start("--require-key", "--api-key", "sk-administrator", "--log-level", "debug")
    key = make_key(server)
    add_user(server, "ann", "admin")
    tokens = login(server, "ann").json()
    login(server, "ann", "a wrong password of somebody")
    prompt = "the prompt that nobody may keep"
    complete(server, bearer(key), prompt=prompt)
    complete(server, {"Authorization": "Bearer ent_a-wrong-key-of-somebody"}, prompt=prompt)
    complete(server, {"X-API-Key": "sk-a-mistyped-secret"}, prompt=prompt)
    server.post("/api/v1/auth/refresh", {"refresh_token": "ref_a-wrong-refresh-token"})
    subprocess.run([BINARY, "keys", "rotate", key["id"]], capture_output=True, timeout=60, check=True)
    admin_key = json.loads((home / "state" / "gateway.json").read_text())["api_key"]
    assert server.stop() == 0
    kept = server.log.encode() + b"".join(p.read_bytes() for p in pathlib.Path(home / "state").glob("tessera.db*"))
    for secret in (
        key["api_key"], tokens["access_token"], tokens["refresh_token"], PASSWORD, "a wrong password of somebody", prompt, admin_key,
        "sk-administrator", "ent_a-wrong-key-of-somebody", "sk-a-mistyped-secret", "ref_a-wrong-refresh-token",
    ):  # fmt: skip
        assert secret.encode() not in kept, secret
