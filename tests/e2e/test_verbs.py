import json
import pathlib

import pytest
from conftest import GOLDEN
from safetensors_reader import read_safetensors

FAMILIES = sorted(p.name for p in GOLDEN.iterdir() if (p / "golden.safetensors").exists())


def test_help_teaches(tessera):
    out = tessera("--help").stdout
    for verb in "serve run chat pull models tokenize detokenize template logits bench doctor".split():
        assert verb in out
        assert tessera(verb, "--help").stdout.strip()


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("no-such-verb",),
        ("serve", "--no-such-option"),
        ("serve",),
        ("run", "--model", "x", "--temperature", "warm", "hi"),
        ("serve", "--model", "m", "--host", "0.0.0.0"),
        ("logits", "--model", GOLDEN / "llama"),
        ("logits", "--model", GOLDEN / "llama", "--out", "/tmp/x", "--blocks", "0:2,3:4"),
        ("logits", "--model", GOLDEN / "llama", "--out", "/tmp/x", "--blocks", "0:2"),
    ],
)
def test_wrong_usage_is_status_2_and_one_sentence(tessera, arguments):
    done = tessera(*arguments, expect=2, stdin="[1]\n")
    assert done.stdout == ""
    assert done.stderr.strip()


def test_missing_model_says_what_to_do(tessera):
    done = tessera("run", "--model", "nobody/nothing", "hi", expect=1)
    assert "tessera pull" in done.stderr


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_match_the_reference_however_the_model_is_cut(tessera, tmp_path, family):
    golden = read_safetensors(GOLDEN / family / "golden.safetensors")
    prompt = golden["input_ids"]
    whole = tmp_path / "whole.safetensors"
    tessera("logits", "--model", GOLDEN / family, "--out", whole, stdin=json.dumps(prompt) + "\n")
    got = read_safetensors(whole)["0"]
    assert len(got) == len(golden["logits"])
    assert max(abs(a - b) for a, b in zip(got, golden["logits"])) < 1e-4
    blocks = json.load(open(GOLDEN / family / "config.json"))["num_hidden_layers"]
    for cut in range(1, blocks):
        parts = tmp_path / f"cut{cut}.safetensors"
        tessera("logits", "--model", GOLDEN / family, "--blocks", f"0:{cut},{cut}:{blocks}", "--out", parts, stdin=json.dumps(prompt) + "\n")
        assert whole.read_bytes() == parts.read_bytes()


@pytest.mark.parametrize("file", sorted((GOLDEN / "gguf").glob("*.gguf")), ids=lambda p: p.stem)
def test_gguf_logits_match_the_dequantised_reference(tessera, tmp_path, file):
    golden = read_safetensors(file.with_suffix(".golden.safetensors"))
    out = tmp_path / "logits.safetensors"
    tessera("logits", "--model", file, "--out", out, stdin=json.dumps(golden["input_ids"]) + "\n")
    got = read_safetensors(out)["0"]
    assert max(abs(a - b) for a, b in zip(got, golden["logits"])) < 1e-4


def test_every_kernel_path_gives_the_same_bits(tessera, tmp_path):
    file = GOLDEN / "gguf/llama-k256-q4_k_m.gguf"
    ids = json.dumps(list(range(5, 60))) + "\n"
    reference = {}
    for dtype in ("auto", "float32"):
        for isa in ("portable", "auto"):
            for threads in (1, 2, 3):
                out = tmp_path / "logits.safetensors"
                tessera("logits", "--model", file, "--out", out, "--dtype", dtype, "--isa", isa, "--threads", threads, stdin=ids)
                assert reference.setdefault(dtype, out.read_bytes()) == out.read_bytes(), (dtype, isa, threads)
    assert reference["auto"] != reference["float32"]


def test_text_verbs_are_json_lines(tessera, default_model):
    lines = ['"Hello world"', '"naïve 🌞"', "7", '"<|im_start|>user"']
    done = tessera("tokenize", "--model", default_model, stdin="\n".join(lines) + "\n", expect=1)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert answers[0] == [19556, 905]
    assert "error" in answers[2]
    assert answers[3][0] == 1
    back = tessera("detokenize", "--model", default_model, stdin=json.dumps(answers[1]) + "\n")
    assert json.loads(back.stdout) == "naïve 🌞"
    chat = {"messages": [{"role": "user", "content": "Hi"}]}
    rendered = json.loads(tessera("template", "--model", default_model, stdin=json.dumps(chat) + "\n").stdout)
    assert rendered.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
    tessera("template", "--model", default_model, stdin="not json\n", expect=1)


def test_run_streams_one_answer(tessera, default_model):
    question = "What is the capital of France?"
    exact = tessera("run", "--model", default_model, "--dtype", "float32", "--temperature", 0, "--max-tokens", 32, question)
    assert exact.stdout == "The capital of France is Paris.\n"
    served = tessera("run", "--model", default_model, "--temperature", 0, "--max-tokens", 32, question)
    piped = tessera("run", "--model", default_model, "--temperature", 0, "--max-tokens", 32, stdin=question + "\n")
    assert piped.stdout == served.stdout
    cut = tessera("run", "--model", default_model, "--temperature", 0, "--max-tokens", 32, "--blocks", "0:7,7:30", question)
    assert cut.stdout == served.stdout


def test_options_come_from_flag_environment_file_in_that_order(tessera, tmp_path):
    config = tmp_path / "config.toml"
    config.write_text('max-tokens = 1\n[run]\nmodel = "from-file"\n')
    assert "from-file" in tessera("run", "--config", config, "hi", expect=1).stderr
    env = {"TESSERA_MODEL": "from-environment"}
    assert "from-environment" in tessera("run", "--config", config, "hi", expect=1, env=env).stderr
    assert "from-flag" in tessera("run", "--config", config, "--model", "from-flag", "hi", expect=1, env=env).stderr
    config.write_text("modle = 3\n")
    assert "modle" in tessera("run", "--config", config, "hi", expect=2).stderr


def test_doctor_and_bench_speak_json(tessera):
    assert json.loads(tessera("doctor", "--json", "--quick").stdout)["findings"]
    done = tessera("bench", "--model", GOLDEN / "llama", "--prompt", 32, "--generate", 8, "--sequences", "1,3", "--repeat", 1, "--json")
    results = json.loads(done.stdout)["results"]
    assert [(r["test"], r["sequences"]) for r in results] == [("prefill", 1), ("decode", 1), ("decode", 3)]
    assert all(r["tokens_per_s"] > 0 for r in results)
