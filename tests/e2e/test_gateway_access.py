"""A gateway lets nobody in without a key, on any of its routes, the cluster's among them."""
import json
import re
import urllib.error
import urllib.request

from cluster import Gateway
from conftest import GOLDEN

OPEN = {"/health", "/ready", "/api/v1/auth/login", "/api/v1/auth/refresh"}


def status(url, method, key=None):
    request = urllib.request.Request(url, method=method, headers={"Authorization": f"Bearer {key}"} if key else {})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def test_the_whole_route_table_of_a_gateway_needs_a_key(tmp_path):
    model = next(p for p in sorted(GOLDEN.iterdir()) if (p / "config.json").exists())
    gateway = Gateway(tmp_path / "gateway", "--require-key", model=str(model))
    try:
        admin = json.loads((gateway.home / "state" / "gateway.json").read_text())["api_key"]
        request = urllib.request.Request(gateway.url + "/api/v1/routes", headers={"Authorization": f"Bearer {admin}"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            routes = json.load(answer)["routes"]
        paths = {r["path"] for r in routes}
        assert {"/api/v1/cluster/drain", "/api/v1/cluster/tokens", "/api/v1/admin/enterprises", "/api/v1/admin/users"} <= paths
        for route in routes:
            assert (route["access"] == "open") == (route["path"] in OPEN), route
            if route["path"] in OPEN:
                continue
            url = gateway.url + re.sub(r"\{[^}]*\}", "x", route["path"])
            for key in (None, "wrong", "adm_wrong"):
                assert status(url, route["method"], key) == 401, (route, key)
        assert status(gateway.url + "/api/v1/cluster", "GET", admin) == 200
    finally:
        gateway.signal(15)
        assert gateway.wait() == 0, gateway.log
