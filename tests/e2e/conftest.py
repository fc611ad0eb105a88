"""Runs the program as a person would: real processes, their stdin, stdout, stderr and exit status."""
import os
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = os.environ.get("TESSERA_BINARY", str(ROOT / "build/release/tessera"))
GOLDEN = ROOT / "tests/parity/models"
DEFAULT_MODEL = os.environ.get("TESSERA_TEST_MODEL", "smollm2:135m")


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("tessera_home")


@pytest.fixture
def tessera(home):
    def run(*arguments, stdin="", expect=0, env=None, timeout=300):
        done = subprocess.run(
            [BINARY, *map(str, arguments)],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**os.environ, "HOME": str(home), **(env or {})},
        )
        assert done.returncode == expect, f"status {done.returncode}, wanted {expect}\n{done.stdout}\n{done.stderr}"
        return done

    return run


@pytest.fixture(scope="session")
def default_model():
    """The default model, pulled once into the user's store (where the quickstart puts it)."""
    done = subprocess.run([BINARY, "pull", DEFAULT_MODEL], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    listed = subprocess.run([BINARY, "models", "--json"], capture_output=True, text=True, check=True)
    import json

    for model in json.loads(listed.stdout)["models"]:
        if model["name"] == DEFAULT_MODEL:
            return model["path"]
    raise AssertionError(f"{DEFAULT_MODEL} was pulled but is not listed: {listed.stdout}")
