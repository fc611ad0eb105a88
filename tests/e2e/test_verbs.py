import json
import os
import shutil
import signal
import socket
import subprocess
import time

import pytest
from conftest import BINARY, GOLDEN
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
        ("run", "--model", GOLDEN / "llama", "--threads", "-1", "hi"),
        ("run", "--model", GOLDEN / "llama", "--context", "1000000", "hi"),
        ("bench", "--url", "notaurl"),
        ("bench", "--url", "http://127.0.0.1:1", "--rate", "1", "--clients", "2"),
        ("bench", "--url", "http://127.0.0.1:1", "--model", GOLDEN / "llama"),
        ("bench", "--model", GOLDEN / "llama", "--sequences", "1,1000"),
    ],
)
def test_wrong_usage_is_status_2_and_one_sentence(tessera, arguments):
    done = tessera(*arguments, expect=2, stdin="[1]\n")
    assert done.stdout == ""
    assert done.stderr.strip()


def test_unknown_verb_is_named(tessera):
    assert tessera("foo", expect=2).stderr.startswith('tessera: unknown verb "foo"')
    assert 'did you mean "serve"?' in tessera("serv", expect=2).stderr


@pytest.mark.parametrize("stdin", ["", "\n"])
def test_no_prompt_is_wrong_usage(tessera, stdin):
    done = tessera("run", "--model", GOLDEN / "llama", stdin=stdin, expect=2)
    assert done.stdout == "" and "prompt" in done.stderr


def test_context_above_the_models_names_the_maximum(tessera):
    maximum = json.load(open(GOLDEN / "llama/config.json"))["max_position_embeddings"]
    done = tessera("run", "--model", GOLDEN / "llama", "--context", maximum + 1, "hi", expect=2)
    assert str(maximum) in done.stderr and len(done.stderr.splitlines()) == 1


def test_too_little_kv_memory_says_how_much(tessera):
    done = tessera("run", "--model", GOLDEN / "llama", "--kv-memory", "1KiB", "hi", expect=1)
    assert "does not fit in 1KiB:" in done.stderr
    advice = done.stderr.split("use --kv-memory ")[1].split()[0]
    tessera("run", "--model", GOLDEN / "llama", "--kv-memory", advice, "--max-tokens", 1, "hi")


def test_run_without_tokenizer_says_so(tessera, tmp_path):
    for file in (GOLDEN / "llama").iterdir():
        if file.name in ("config.json", "model.safetensors"):
            shutil.copy(file, tmp_path)
    done = tessera("run", "--model", tmp_path, "hi", expect=1)
    assert done.stdout == "" and "tokenizer" in done.stderr


def test_quantising_what_is_quantised_is_said(tessera):
    file = next(iter(sorted((GOLDEN / "gguf").glob("*q8_0*.gguf"))))
    for bits in ("int8", "int4"):
        done = tessera("logits", "--model", file, "--quantize", bits, "--out", "/dev/null", stdin="[1,2]\n")
        assert "quantised" in done.stderr and "Q8_0" in done.stderr


def test_bad_lines_of_stdin(tessera, tmp_path, default_model):
    for line in ("not json", '{"a":1}', "[1,99999999]", "[]"):
        done = tessera("logits", "--model", GOLDEN / "llama", "--out", tmp_path / "x", stdin=f"[1]\n{line}\n", expect=1)
        assert "line 2" in done.stderr and not (tmp_path / "x").exists()
    for verb in ("tokenize", "detokenize"):
        done = tessera(verb, "--model", default_model, stdin="not json\n", expect=1)
        assert "error" in json.loads(done.stdout)
    done = tessera("template", "--model", default_model, stdin='{"messages":5}\nnot json\n', expect=1)
    assert "error" in json.loads(done.stdout) and "line 2" in done.stderr


def wait_for_log(process, text):
    log = ""
    for line in process.stderr:
        log += line
        if text in line:
            return log
    raise AssertionError(log)


def start_program(*arguments, **options):
    return subprocess.Popen([BINARY, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


@pytest.fixture
def slow_model(tmp_path):
    """A model whose loading waits: its weights come out of a pipe that nobody fills."""
    os.mkfifo(tmp_path / "slow.gguf")
    return tmp_path / "slow.gguf"


@pytest.mark.parametrize("verb", ["serve", "run"])
def test_interrupt_while_a_model_loads(slow_model, verb):
    arguments = ["--port", "0"] if verb == "serve" else ["hi"]
    process = start_program(verb, "--model", slow_model, *arguments)
    time.sleep(1)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(5) == 130


def test_served_name_of_the_current_folder():
    process = start_program("serve", "--model", ".", "--port", "0", cwd=GOLDEN / "llama")
    try:
        assert "model=llama " in wait_for_log(process, "listening on")
    finally:
        process.terminate()
        assert process.wait(60) == 0


def test_a_port_in_use_is_one_sentence(tessera):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = tessera("serve", "--model", GOLDEN / "llama", "--port", port, expect=1)
    lines = [line for line in done.stderr.splitlines() if line.startswith("tessera: ")]
    assert len(lines) == 1 and str(port) in lines[0]


def test_failed_requests_are_no_throughput(tessera):
    done = tessera("bench", "--url", "http://127.0.0.1:1", "--requests", 3, "--json", expect=1)
    report = json.loads(done.stdout)
    assert report["requests"] == report["failed"] == 3
    assert report["requests_per_s"] == report["goodput_per_s"] == report["output_tokens_per_s"] == 0


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
