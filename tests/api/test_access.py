"""Who may come in: the served table of routes, walked without a key."""
import re

OPEN = {"/health", "/ready", "/api/v1/auth/login", "/api/v1/auth/refresh"}  # probes, and how to get a token
NO_KEY = "A valid API key is needed: send 'Authorization: Bearer KEY'."
ADMIN = {"Authorization": "Bearer sk-administrator"}


def test_every_route_but_the_probes_needs_a_key(start):
    server = start("--api-key", "sk-administrator")
    routes = server.get("/api/v1/routes", headers=ADMIN).json()["routes"]
    assert len(routes) >= 10
    answered = set()
    for route in routes:
        path = re.sub(r"\{[^}]*\}", "x", route["path"])
        assert (route["access"] == "open") == (route["path"] in OPEN), route
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic c2s6"}):
            answer = server.http.request(route["method"], server.url + path, headers=headers)
            if answer.status_code != 401:
                answered.add(route["path"])
            elif route["path"] in OPEN:  # a login without a name
                assert answer.json()["error"]["message"] != NO_KEY
                answered.add(route["path"])
    assert answered == OPEN
    assert server.get("/v1/models", headers=ADMIN).status_code == 200
