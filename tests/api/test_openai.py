"""The API as OpenAI's own client reads it."""
import json
import math
import re

import openai
import pytest
from conftest import CLUSTER, CONTEXT, NAME, events, wait_until

QUESTION = [{"role": "user", "content": "Name three colours."}]
GREEDY = {"temperature": 0, "seed": 1}


def chat(client, **fields):
    return client.chat.completions.create(**{"model": NAME, "messages": QUESTION, "max_tokens": 12, **GREEDY, **fields})


def complete(client, **fields):
    return client.completions.create(
        **{"model": NAME, "prompt": "The capital of France is", "max_tokens": 12, **GREEDY, **fields}
    )


def collect(stream):
    """Text by choice, finish reasons by choice, and the last usage of a chat stream."""
    texts, finishes, usage = {}, {}, None
    for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            texts[choice.index] = texts.get(choice.index, "") + (choice.delta.content or "")
            finishes[choice.index] = choice.finish_reason or finishes.get(choice.index)
    return texts, finishes, usage


# --- chat


def test_chat_answer_is_whole(client):
    answer = chat(client)
    choice = answer.choices[0]
    assert answer.id.startswith("chatcmpl-") and answer.object == "chat.completion" and answer.model == NAME
    assert answer.system_fingerprint
    assert choice.message.role == "assistant" and choice.message.content
    assert choice.finish_reason in ("stop", "length")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert 1 <= answer.usage.completion_tokens <= 12
    assert answer.usage.prompt_tokens_details.cached_tokens >= 0


def test_chat_stream_equals_the_whole_answer(client):
    whole = chat(client)
    chunks = list(chat(client, stream=True, stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert len({c.id for c in chunks}) == 1 and all(c.object == "chat.completion.chunk" for c in chunks)
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert all(c.usage is None for c in chunks[:-1])
    texts, finishes, _ = collect(chunks)
    assert texts[0] == whole.choices[0].message.content
    assert finishes[0] == whole.choices[0].finish_reason


def test_stream_without_include_usage_has_none(client):
    assert all(chunk.usage is None and chunk.choices for chunk in chat(client, stream=True))


def test_stream_on_the_wire(server):
    answer = server.post(
        "/v1/chat/completions", {"messages": QUESTION, "max_tokens": 4, "stream": True}
    )
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["x-request-id"]
    parsed = events(answer.text)
    assert parsed[-1] == "[DONE]" and parsed.count("[DONE]") == 1
    assert "usage" not in parsed[0]


def test_same_conversation_twice_is_cached(client):
    long = [{"role": "user", "content": "Repeat: " + "one two three four five " * 20}]
    first = chat(client, messages=long, max_tokens=2)
    again = chat(client, messages=long, max_tokens=2)
    assert again.usage.prompt_tokens == first.usage.prompt_tokens
    assert again.usage.prompt_tokens_details.cached_tokens > 0
    assert again.choices[0].message.content == first.choices[0].message.content


def test_roles_and_parts(client):
    parts = [{"type": "text", "text": "Name three colours."}]
    developer = chat(client, messages=[{"role": "developer", "content": "Be brief."}, *QUESTION])
    system = chat(client, messages=[{"role": "system", "content": "Be brief."}, *QUESTION])
    assert developer.choices[0].message.content == system.choices[0].message.content
    assert (
        chat(client, messages=[{"role": "user", "content": parts}]).choices[0].message.content
        == chat(client).choices[0].message.content
    )


def test_max_completion_tokens_and_finish_length(client):
    answer = chat(client, max_tokens=openai.NOT_GIVEN, max_completion_tokens=3)
    assert answer.usage.completion_tokens <= 3
    answer = complete(client, max_tokens=3, extra_body={"ignore_eos": True})
    assert answer.choices[0].finish_reason == "length" and answer.usage.completion_tokens == 3


def test_harmless_fields_are_accepted(client):
    chat(client, user="u", metadata={"a": "b"}, store=False, extra_body={"made_up_field": {"x": [1]}})


# --- sampling


@pytest.mark.parametrize("stream", [False, True])
def test_n_with_seed_is_reproducible(client, stream):
    options = {"n": 3, "seed": 7, "temperature": 1.0, "max_tokens": 8}

    def once(streamed):
        if not streamed:
            return [c.message.content for c in chat(client, **options).choices]
        texts, _, _ = collect(chat(client, stream=True, **options))
        return [texts[i] for i in range(3)]

    first = once(False)
    assert once(stream) == first
    assert len(set(first)) > 1, "three choices at temperature 1 should differ"


def test_other_seed_other_text(client):
    texts = {complete(client, temperature=1.5, seed=s, max_tokens=16).choices[0].text for s in range(4)}
    assert len(texts) > 1


def test_greedy_needs_no_seed(client):
    assert complete(client).choices[0].text == complete(client, seed=99).choices[0].text


def test_top_k_of_one_is_greedy(client):
    greedy = complete(client).choices[0].text
    assert complete(client, temperature=2, extra_body={"top_k": 1}).choices[0].text == greedy


def test_logit_bias_forces_a_token(client):
    forced = client.completions.create(
        model=NAME, prompt="x", max_tokens=4, temperature=0, logit_bias={"42": 100}, extra_body={"return_token_ids": True}
    )
    assert forced.choices[0].model_extra["token_ids"] == [42] * 4


def test_stop_string_is_no_part_of_the_text(client):
    text = complete(client, max_tokens=16, extra_body={"ignore_eos": True}).choices[0].text
    stop = text[len(text) // 2 : len(text) // 2 + 3]
    for stream in (False, True):
        answer = complete(client, max_tokens=16, stop=[stop], stream=stream, extra_body={"ignore_eos": True})
        got = "".join(c.choices[0].text for c in answer) if stream else answer.choices[0].text
        assert got == text[: text.index(stop)]


def test_stop_token_ids_end_the_answer(client):
    extra = {"return_token_ids": True, "ignore_eos": True}
    ids = complete(client, extra_body=extra).choices[0].model_extra["token_ids"]
    answer = complete(client, extra_body={**extra, "stop_token_ids": [ids[4]]}).choices[0]
    assert answer.finish_reason == "stop"
    assert answer.model_extra["token_ids"][: ids.index(ids[4])] == ids[: ids.index(ids[4])]
    assert len(answer.model_extra["token_ids"]) <= ids.index(ids[4]) + 1


def test_min_tokens_holds_the_end_back(client):
    answer = complete(client, prompt="Hi", max_tokens=6, extra_body={"min_tokens": 6})
    assert answer.usage.completion_tokens == 6


@pytest.mark.parametrize("stream", [False, True])
def test_min_tokens_holds_stop_strings_back(client, stream):
    text = complete(client, max_tokens=16, extra_body={"ignore_eos": True}).choices[0].text
    stop = text[2:5]  # within the first tokens
    extra = {"ignore_eos": True, "min_tokens": 10}
    answer = complete(client, max_tokens=16, stop=[stop], stream=stream, extra_body=extra)
    got = "".join(c.choices[0].text for c in answer) if stream else answer.choices[0].text
    assert len(got) > text.index(stop) + len(stop) and text.startswith(got)
    if not stream:
        assert answer.usage.completion_tokens >= 10


def test_stop_token_ids_wait_for_min_tokens(client):
    extra = {"return_token_ids": True, "ignore_eos": True}
    ids = complete(client, extra_body=extra).choices[0].model_extra["token_ids"]
    held = complete(client, max_tokens=12, extra_body={**extra, "min_tokens": 8, "stop_token_ids": [ids[1]]}).choices[0]
    assert ids[1] not in held.model_extra["token_ids"][:8] and len(held.model_extra["token_ids"]) >= 8


# --- prompts, ids, scores


def test_four_kinds_of_prompt_agree(client, server):
    text = "The capital of France is"
    ids = server.post("/tokenize", {"prompt": text}).json()["tokens"]
    expected = complete(client, prompt=text).choices[0].text
    assert complete(client, prompt=ids).choices[0].text == expected
    assert [c.text for c in complete(client, prompt=[text, text]).choices] == [expected] * 2
    assert [c.text for c in complete(client, prompt=[ids, ids]).choices] == [expected] * 2


def test_several_prompts_times_n(client):
    answer = complete(client, prompt=["one", "two"], n=2, max_tokens=2, temperature=1)
    assert [c.index for c in answer.choices] == [0, 1, 2, 3]


def test_token_ids_streamed_and_whole(client):
    extra = {"return_token_ids": True}
    whole = complete(client, extra_body=extra).choices[0].model_extra["token_ids"]
    streamed = []
    for chunk in complete(client, stream=True, extra_body=extra):
        for choice in chunk.choices:
            streamed += choice.model_extra.get("token_ids") or []
    assert streamed == whole and len(whole) >= 1


def test_chat_logprobs(client):
    answer = chat(client, logprobs=True, top_logprobs=3, max_tokens=5)
    content = answer.choices[0].logprobs.content
    assert 1 <= len(content) <= 5
    text = b"".join(bytes(t.bytes) for t in content).decode()
    assert answer.choices[0].message.content in text
    for token in content:
        assert token.logprob <= 0 and len(token.top_logprobs) == 3
        best = token.top_logprobs[0]
        assert best.logprob == pytest.approx(token.logprob, abs=1e-5), "greedy takes the best"
        assert [t.logprob for t in token.top_logprobs] == sorted((t.logprob for t in token.top_logprobs), reverse=True)


def test_logprobs_ignore_temperature_and_bias(client):
    plain = chat(client, logprobs=True, max_tokens=1).choices[0].logprobs.content[0]
    hot = chat(client, logprobs=True, max_tokens=1, temperature=2, extra_body={"top_k": 1})
    assert hot.choices[0].logprobs.content[0].logprob == pytest.approx(plain.logprob, abs=1e-5)


def test_echo_scores_a_prompt(client, server):
    text = "The capital of France is Paris."
    ids = server.post("/tokenize", {"prompt": text}).json()["tokens"]
    answer = complete(client, prompt=text, echo=True, logprobs=2, max_tokens=0)
    scores = answer.choices[0].logprobs
    assert answer.choices[0].text == text and answer.usage.completion_tokens == 0
    assert answer.choices[0].finish_reason == "length"
    assert len(scores.tokens) == len(scores.token_logprobs) == len(scores.top_logprobs) == len(scores.text_offset) == len(ids)
    assert scores.token_logprobs[0] is None and scores.top_logprobs[0] is None
    assert all(p <= 0 for p in scores.token_logprobs[1:])
    assert all(2 <= len(top) <= 3 for top in scores.top_logprobs[1:])
    assert "".join(scores.tokens) == text
    assert scores.text_offset[-1] == len(text) - len(scores.tokens[-1])
    assert math.exp(scores.token_logprobs[-2]) > 1e-4, "Paris is not that unlikely"


def test_scores_of_prompt_and_of_generation_agree(client):
    generated = complete(client, max_tokens=4, logprobs=0, extra_body={"return_token_ids": True})
    ids = generated.choices[0].model_extra["token_ids"]
    prompt = generated.choices[0].model_extra["prompt_token_ids"]
    scored = complete(client, prompt=prompt + ids, echo=True, logprobs=0, max_tokens=0)
    assert scored.choices[0].logprobs.token_logprobs[-len(ids) :] == pytest.approx(
        generated.choices[0].logprobs.token_logprobs, abs=1e-3
    )


def test_max_tokens_zero_is_an_empty_answer(client):
    answer = complete(client, max_tokens=0)
    assert answer.choices[0].text == "" and answer.choices[0].finish_reason == "length"


def test_final_message_is_continued(client, server):
    begun = [*QUESTION, {"role": "assistant", "content": "Three colours are red, "}]
    open_end = server.post("/tokenize", {"messages": begun, "continue_final_message": True}).json()["tokens"]
    closed = server.post("/tokenize", {"messages": begun, "add_generation_prompt": False}).json()["tokens"]
    text = server.post("/detokenize", {"tokens": open_end}).json()["prompt"]
    assert text.endswith("Three colours are red, ") and len(closed) > len(open_end)
    extra = {"continue_final_message": True, "add_generation_prompt": False}
    continued = chat(client, messages=begun, extra_body=extra)
    assert continued.usage.prompt_tokens == len(open_end)
    assert continued.choices[0].message.content == complete(client, prompt=open_end).choices[0].text


# --- models, tokenize, health


def test_models(client):
    assert [m.id for m in client.models.list()] == [NAME]
    assert client.models.retrieve(NAME).owned_by == "tessera"
    with pytest.raises(openai.NotFoundError) as error:
        client.models.retrieve("other")
    assert error.value.code == "model_not_found"


def test_tokenize_and_back(server):
    answer = server.post("/tokenize", {"prompt": "Grüße, 世界! 🙂", "return_token_strs": True}).json()
    assert answer["count"] == len(answer["tokens"]) == len(answer["token_strs"])
    assert answer["max_model_len"] == CONTEXT
    assert server.post("/detokenize", {"tokens": answer["tokens"]}).json()["prompt"] == "Grüße, 世界! 🙂"
    chat_ids = server.post("/tokenize", {"messages": QUESTION}).json()
    without = server.post("/tokenize", {"messages": QUESTION, "add_generation_prompt": False}).json()
    assert without["tokens"] == chat_ids["tokens"][: without["count"]] and without["count"] < chat_ids["count"]


def test_health_ready_metrics(server, client):
    assert server.get("/health").status_code == 200 and server.get("/ready").status_code == 200
    before = server.metric("tessera_tokens_generated_total", model=NAME)
    complete(client, max_tokens=5, extra_body={"ignore_eos": True})
    assert server.metric("tessera_tokens_generated_total", model=NAME) == before + 5
    assert server.metric("tessera_time_to_first_token_seconds_count", model=NAME) > 0
    assert server.metric("tessera_requests_total", route="/v1/completions", status="200") > 0
    if not CLUSTER:  # there the blocks are the workers'
        blocks = {s: server.metric("tessera_kv_blocks", state=s) for s in ("free", "cached", "used")}
        assert sum(blocks.values()) == server.metric("tessera_kv_blocks_capacity") > 0


def test_log_names_the_request_and_not_its_text(server):
    answer = server.post(
        "/v1/completions",
        {"prompt": "xylophone-secret", "max_tokens": 1},
        headers={"X-Request-Id": "find-me-42"},
    )
    assert answer.headers["x-request-id"] == "find-me-42"
    # Written after the answer, and read by another thread.
    wait_until(lambda: re.search(r".*find-me-42.*\n", server.log))
    line = next(l for l in server.log.splitlines() if "find-me-42" in l)
    assert "status=200" in line and "ttft_ms=" in line
    assert "xylophone-secret" not in server.log


# --- errors


def body_of(error):
    return error.value.body


@pytest.mark.parametrize(
    "fields, param",
    [
        ({"max_tokens": -1}, "max_tokens"),
        ({"temperature": 2.5}, "temperature"),
        ({"n": 0}, "n"),
        ({"n": 129}, "n"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"stop": [""]}, "stop"),
        ({"logit_bias": {"999999999": 1}}, "logit_bias"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]}, "tools"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:x"}}]}]},
            "messages[0].content[0]",
        ),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"extra_body": {"n_predict": 4}}, "n_predict"),
        ({"extra_body": {"thinking": {"type": "enabled"}}}, "thinking"),
        ({"extra_body": {"lora": [{"id": 0, "scale": 1}]}}, "lora"),
        ({"extra_body": {"continue_final_message": True}}, "continue_final_message"),
    ],
)
def test_wrong_chat_fields(client, fields, param):
    with pytest.raises(openai.BadRequestError) as error:
        chat(client, **fields)
    assert body_of(error)["param"] == param and body_of(error)["type"] == "invalid_request_error"
    assert body_of(error)["message"]


@pytest.mark.parametrize(
    "fields, param",
    [({"prompt": []}, "prompt"), ({"prompt": [10**8]}, "prompt"), ({"logprobs": 21}, "logprobs"), ({"best_of": 5}, "best_of"), ({"prompt": ""}, "prompt"), ({"suffix": "x"}, "suffix")],
)
def test_wrong_text_fields(client, fields, param):
    with pytest.raises(openai.BadRequestError) as error:
        complete(client, **fields)
    assert body_of(error)["param"] == param


def test_unknown_model(client):
    with pytest.raises(openai.NotFoundError) as error:
        chat(client, model="gpt-4o")
    assert body_of(error)["code"] == "model_not_found" and body_of(error)["param"] == "model"


def test_no_model_is_the_one_that_is_served(server):
    assert server.post("/v1/completions", {"prompt": "x", "max_tokens": 1}).json()["model"] == NAME


@pytest.mark.parametrize("stream", [False, True])
def test_prompt_longer_than_the_context(client, stream):
    for prompt in ([5] * (CONTEXT + 1), "word " * (2 * CONTEXT)):
        with pytest.raises(openai.BadRequestError) as error:
            complete(client, prompt=prompt, stream=stream)
        assert body_of(error)["code"] == "context_length_exceeded"


def test_routes_and_methods(server):
    assert server.get("/v1/nothing").status_code == 404
    assert server.get("/v1/nothing").json()["error"]["type"] == "invalid_request_error"
    wrong = server.get("/v1/chat/completions")
    assert wrong.status_code == 405 and wrong.headers["allow"] == "POST"


def test_body_over_the_limit(server):
    answer = server.post("/v1/completions", b'{"prompt":"' + b"x" * (17 << 20) + b'"}')
    assert answer.status_code == 413 and "error" in answer.json()


# --- servers with other options


def test_keys_and_origins(start):
    guarded = start("--api-key", "sk-one", "--api-key", "sk-two", "--cors-origin", "https://page.example", ready=False)
    for path in ("/health", "/ready"):
        assert guarded.get(path).status_code == 200
    for path in ("/v1/models", "/metrics", "/nothing"):
        assert guarded.get(path).status_code == 401
    with pytest.raises(openai.AuthenticationError) as error:
        guarded.client(api_key="sk-on").models.list()
    assert body_of(error)["code"] == "invalid_api_key"
    assert list(guarded.client(api_key="sk-two").models.list())
    preflight = guarded.http.options(
        guarded.url + "/v1/chat/completions",
        headers={"Origin": "https://page.example", "Access-Control-Request-Method": "POST"},
    )
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-origin"] == "https://page.example"
    refused = guarded.get("/health", headers={"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in refused.headers


def test_sigterm_lets_a_stream_end(start):
    running = start()
    stream = complete(running.client(), max_tokens=150, stream=True, extra_body={"ignore_eos": True, "return_token_ids": True})
    ids, finish = [], None
    for chunk in stream:
        if not ids:
            running.process.terminate()
        ids += chunk.choices[0].model_extra.get("token_ids") or []
        finish = chunk.choices[0].finish_reason or finish
    assert len(ids) == 150 and finish == "length"
    assert running.process.wait(60) == 0, running.log


def test_stream_past_the_shutdown_timeout_ends_with_an_error(start):
    running = start("--shutdown-timeout", "1")
    body = {"prompt": "x", "max_tokens": 1000, "stream": True, "ignore_eos": True}
    headers = {"X-Request-Id": "cut-me"}
    lines = []
    with running.http.stream("POST", running.url + "/v1/completions", json=body, headers=headers) as answer:
        for line in answer.iter_lines():
            if not lines:
                running.process.terminate()
            lines += [line] if line else []
    last = events(lines[-1])[0]
    assert last["error"]["message"] and last["error"]["code"] == "service_unavailable"
    assert "data: [DONE]" not in lines
    assert running.process.wait(60) == 0, running.log
    wait_until(lambda: re.search(r"cut running answers.*count=1.*cut-me", running.log))


def test_queue_is_bounded_or_serves_all(client, server):
    """More sequences than run at once: all are answered, each the same."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(24) as pool:
        texts = list(pool.map(lambda _: complete(client, max_tokens=6).choices[0].text, range(24)))
    assert len(set(texts)) == 1
    assert json.loads(server.get("/health").text)["status"] == "ok"
