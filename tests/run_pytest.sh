#!/usr/bin/env bash
# run_pytest.sh FOLDER [pytest arguments]: runs a Python suite in a virtual environment made once in build/venv.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=build/venv
stamp=$venv/.$(sha256sum tests/requirements.txt | cut -c1-16)
if [ ! -f "$stamp" ]; then
  (
    flock 9
    [ -f "$stamp" ] || {
      /usr/bin/python3 -m venv "$venv"
      "$venv/bin/python" -m pip install -q --disable-pip-version-check -r tests/requirements.txt
      touch "$stamp"
    }
  ) 9> build/venv.lock
fi
export LITELLM_LOCAL_MODEL_COST_MAP=True PYTHONDONTWRITEBYTECODE=1
exec "$venv/bin/python" -m pytest -q -p no:cacheprovider "$@"
