"""The API as litellm reads it: the client behind many agents and gateways."""
import litellm
import pytest
from conftest import CONTEXT, KEY, NAME

# Of its own types, and none of our business.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")

QUESTION = [{"role": "user", "content": "Name three colours."}]


def ask(server, **fields):
    return litellm.completion(
        **{"model": "openai/" + NAME, "api_base": server.url + "/v1", "api_key": KEY, "messages": QUESTION,
           "max_tokens": 8, "temperature": 0, "num_retries": 0, **fields}
    )


def test_answer_and_usage(server):
    answer = ask(server)
    assert answer.choices[0].message.content
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_stream_equals_answer(server):
    whole = ask(server).choices[0].message.content
    chunks = list(ask(server, stream=True, stream_options={"include_usage": True}))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == whole
    assert chunks[-1].usage.completion_tokens > 0


def test_text_completion(server):
    answer = litellm.text_completion(
        model="text-completion-openai/" + NAME, api_base=server.url + "/v1", api_key=KEY, prompt="One, two,",
        max_tokens=4, temperature=0,
    )
    assert answer.choices[0].text


def test_errors_become_its_classes(server):
    with pytest.raises(litellm.BadRequestError):
        ask(server, temperature=3)
    with pytest.raises(litellm.NotFoundError):
        ask(server, model="openai/other")
    with pytest.raises(litellm.ContextWindowExceededError):
        ask(server, messages=[{"role": "user", "content": "word " * (2 * CONTEXT)}])
