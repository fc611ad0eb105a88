"""Enterprises and their API keys, over HTTP and through `tessera keys`."""
import json
import os
import subprocess

import pytest
from conftest import BINARY, NAME

ADMIN = {"Authorization": "Bearer sk-administrator"}
ENTERPRISES = "/api/v1/admin/enterprises"


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A state folder of this test's own; the models stay where they are."""
    store = os.path.join(os.environ.get("TESSERA_HOME", os.path.expanduser("~/.local/share/tessera")), "models")
    os.symlink(store, tmp_path / "models")
    monkeypatch.setenv("TESSERA_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def guarded(home, start):
    return start("--require-key", "--api-key", "sk-administrator")


def make_key(server, enterprise="default", **terms):
    answer = server.post(f"{ENTERPRISES}/{enterprise}/api-keys", terms, headers=ADMIN)
    assert answer.status_code == 200, answer.text
    return answer.json()


def bearer(key):
    return {"Authorization": "Bearer " + key["api_key"]}


def complete(server, headers, **fields):
    return server.post("/v1/completions", {"model": NAME, "prompt": "Hi", "max_tokens": 1, **fields}, headers=headers)


def test_a_key_opens_what_its_scope_holds_and_nothing_of_the_administrators(guarded):
    acme = guarded.post(ENTERPRISES, {"name": "Acme", "code": "acme"}, headers=ADMIN).json()
    key = make_key(guarded, "acme", name="laptop", allowed_models=[NAME], allowed_types=["llm"], ip_whitelist=["127.0.0.0/8"])
    assert key["api_key"].startswith("ent_") and len(key["api_key"]) == 47
    assert complete(guarded, bearer(key)).status_code == 200
    assert complete(guarded, {"X-API-Key": key["api_key"]}).status_code == 200
    me = guarded.get("/api/v1/me", headers=bearer(key)).json()
    assert me["enterprise_id"] == acme["id"] and me["role"] == "client" and me["key"] == key["id"]
    assert guarded.get(ENTERPRISES, headers=bearer(key)).status_code == 403
    assert guarded.post(ENTERPRISES, {"name": "x", "code": "x"}, headers=bearer(key)).status_code == 403
    assert guarded.get("/metrics", headers=bearer(key)).status_code == 403
    listed = guarded.get(f"{ENTERPRISES}/acme/api-keys", headers=ADMIN)
    assert key["api_key"] not in listed.text and listed.json()["api_keys"][0]["id"] == key["id"]

    assert complete(guarded, bearer(make_key(guarded, "acme", allowed_models=["other"]))).json()["error"]["code"] == "model_not_allowed"
    assert complete(guarded, bearer(make_key(guarded, "acme", allowed_types=["image_gen"]))).status_code == 403
    assert complete(guarded, bearer(make_key(guarded, "acme", ip_whitelist=["10.0.0.0/8"]))).json()["error"]["code"] == "address_not_allowed"
    guarded.http.put(guarded.url + f"{ENTERPRISES}/acme", json={"is_active": False}, headers=ADMIN)
    assert complete(guarded, bearer(key)).json()["error"]["code"] == "enterprise_inactive"


def test_rotation_and_revocation_count_at_once(guarded):
    key = make_key(guarded)
    path = f"{ENTERPRISES}/default/api-keys/{key['id']}"
    new = guarded.post(path + "/rotate", {}, headers=ADMIN).json()
    assert new["id"] == key["id"]
    assert complete(guarded, bearer(key)).status_code == 401
    assert complete(guarded, bearer(new)).status_code == 200
    assert guarded.http.delete(guarded.url + path, headers=ADMIN).status_code == 200
    assert complete(guarded, bearer(new)).status_code == 401


def test_bad_values_name_their_field(guarded):
    for body, param in (({"code": 7}, "code"), ({"allow_logging": "yes"}, "allow_logging"), ({"monthly_budget": -1}, "monthly_budget")):
        answer = guarded.post(ENTERPRISES, {"name": "x", "code": "x", **body}, headers=ADMIN)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert guarded.post(f"{ENTERPRISES}/default/api-keys", {"ip_whitelist": "10.0.0.0/8"}, headers=ADMIN).status_code == 400
    assert guarded.post(f"{ENTERPRISES}/nobody/api-keys", {}, headers=ADMIN).status_code == 404


def test_the_terminal_makes_lists_rotates_and_revokes(home, start):
    server = start("--require-key")

    def keys(*arguments):
        done = subprocess.run([BINARY, "keys", *arguments], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    assert (home / "state" / "gateway.json").stat().st_mode & 0o077 == 0
    assert complete(server, {}).status_code == 401
    keys("enterprise", "acme")
    secret = keys("create", "--enterprise", "acme", "--name", "laptop", "--allow-model", NAME)
    assert complete(server, {"X-API-Key": secret}).status_code == 200
    (key,) = json.loads(keys("list", "--json"))["api_keys"]
    assert key["name"] == "laptop" and secret.startswith(key["prefix"])
    rotated = keys("rotate", key["id"])
    assert complete(server, {"X-API-Key": secret}).status_code == 401
    assert complete(server, {"X-API-Key": rotated}).status_code == 200
    keys("revoke", key["id"])
    assert complete(server, {"X-API-Key": rotated}).status_code == 401
    for secret in (secret, rotated, json.loads((home / "state" / "gateway.json").read_text())["api_key"]):
        assert secret not in server.log
    wrong = subprocess.run([BINARY, "keys", "revoke", "key_none"], capture_output=True, text=True, timeout=60)
    assert wrong.returncode == 1 and "tessera keys list" in wrong.stderr
