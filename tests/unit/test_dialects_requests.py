"""What each dialect sends to each engine: ENGINES' rules on values that are legal in one and not in the next."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llmpar.dialects import DIALECTS, Sampling, Unsupported
from llmpar.engines import ENGINES

WIRE = Path(__file__).resolve().parent.parent / "wire"
STUDY = Sampling(max_tokens=400, temperature=0.1, top_k=100, top_p=0.3)


def call(api: str, sampling: Sampling, engine: str | None = None, stream: bool = True, prompt: str = "Once upon"):
    return DIALECTS[api].request(prompt, "m", sampling, stream, engine)


def test_tgi_sends_what_the_study_sent() -> None:
    wanted = json.loads((WIRE / "tgi/request_generate_for_measuring.json").read_text())
    sampling = Sampling(max_tokens=400, temperature=0.1, top_k=100, top_p=0.3, seed=1)
    made = call("tgi", sampling, "tgi", prompt=wanted["inputs"])
    assert made.path == "/generate_stream" and made.body == wanted
    assert list(made.body["parameters"]) == list(wanted["parameters"])
    assert call("tgi", sampling, "tgi", stream=False).path == "/generate"


def test_vllm_sends_what_the_study_sent_and_asks_for_counts() -> None:
    made = call("openai-completions", STUDY, "vllm")
    assert made.path == "/v1/completions"
    assert made.body == {
        "model": "m",
        "prompt": "Once upon",
        "max_tokens": 400,
        "temperature": 0.1,
        "top_k": 100,
        "top_p": 0.3,
        "stream": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
    }
    assert "stream_options" not in call("openai-completions", STUDY, "vllm", stream=False).body


@pytest.mark.parametrize("api", sorted(DIALECTS))
@pytest.mark.parametrize("engine", ["vllm", "llamacpp", None])
def test_sampling_is_the_body_without_what_was_asked(api: str, engine: str | None) -> None:
    made = call(api, STUDY, engine, stream=api != "mii", prompt="a secret prompt")
    assert "a secret prompt" in json.dumps(made.body)
    assert "a secret prompt" not in json.dumps(made.sampling)
    flat = made.body.get("parameters") or {**made.body, **made.body.get("options", {})}
    assert made.sampling == {key: value for key, value in flat.items() if key in made.sampling}
    assert set(flat) - set(made.sampling) <= {"model", "prompt", "prompts", "messages", "inputs", "options"}


@pytest.mark.parametrize("top_k,top_p", [(0, 1.0), (-1, 1.0), (None, None)])
def test_tgi_leaves_out_what_it_would_refuse(top_k: int | None, top_p: float | None) -> None:
    made = call("tgi", Sampling(max_tokens=8, temperature=0.5, top_k=top_k, top_p=top_p), "tgi")
    assert made.sampling == {"max_new_tokens": 8, "temperature": 0.5, "details": True}


def test_tgi_greedy_sends_nothing_that_would_make_it_sample() -> None:
    made = call("tgi", Sampling(max_tokens=8, temperature=0, top_k=100, top_p=0.3, seed=1), "tgi")
    assert made.sampling == {"max_new_tokens": 8, "do_sample": False, "seed": 1, "details": True}


def test_tgi_at_temperature_one_is_told_to_sample() -> None:
    assert call("tgi", Sampling(temperature=1.0, top_p=1.0), "tgi").sampling == {
        "temperature": 1.0,
        "do_sample": True,
        "details": True,
    }


@pytest.mark.parametrize(
    "engine,off",
    [
        ("vllm", -1),
        ("aphrodite", -1),
        ("sglang", -1),
        ("llamacpp", 0),
        ("lmdeploy", 0),
        ("trtllm", 0),
        (None, None),
        ("mii", None),
    ],
)
@pytest.mark.parametrize("api", ["openai-completions", "openai-chat"])
def test_top_k_off_is_each_engines_own_word(api: str, engine: str | None, off: int | None) -> None:
    for value in (0, -1):
        assert call(api, Sampling(top_k=value), engine).body.get("top_k") == off
    assert call(api, Sampling(top_k=40), engine).body["top_k"] == 40
    assert "top_k" not in call(api, Sampling(), engine).body


@pytest.mark.parametrize(
    "sampling,words",
    [
        (Sampling(top_k=100), ["top_k", "--api tgi"]),
        (Sampling(ignore_eos=True), ["end of text", "output tokens"]),
        (Sampling(temperature=0), ["temperature 0", "--api tgi"]),
    ],
)
@pytest.mark.parametrize("api", ["openai-completions", "openai-chat"])
def test_tgis_openai_routes_refuse_rather_than_drop(api: str, sampling: Sampling, words: list[str]) -> None:
    with pytest.raises(Unsupported) as caught:
        call(api, sampling, "tgi")
    assert all(word in str(caught.value) for word in words)


def test_tgis_openai_routes_leave_top_p_one_out() -> None:
    assert call("openai-completions", Sampling(max_tokens=4, temperature=0.5, top_p=1.0, top_k=0), "tgi").sampling == {
        "max_tokens": 4,
        "temperature": 0.5,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_tgi_cannot_ignore_the_end_of_text() -> None:
    with pytest.raises(Unsupported, match="compare by output tokens"):
        call("tgi", Sampling(ignore_eos=True), "tgi")


@pytest.mark.parametrize("api", ["llamacpp", "openai-completions", "openai-chat"])
def test_llamacpp_is_told_what_it_would_add(api: str) -> None:
    sent = call(api, Sampling(max_tokens=8, temperature=0, ignore_eos=True), "llamacpp").sampling
    assert (
        sent["min_p"] == 0 and sent["cache_prompt"] is False and sent["ignore_eos"] is True and sent["temperature"] == 0
    )
    assert call(api, Sampling(cache_prompt=True), "llamacpp").sampling["cache_prompt"] is True


def test_llamacpp_native_names() -> None:
    made = call(
        "llamacpp", Sampling(max_tokens=8, temperature=0.1, top_k=-1, top_p=1.0, seed=7, stop=["\n"]), "llamacpp"
    )
    assert made.path == "/completion"
    assert made.body == {
        "prompt": "Once upon",
        "n_predict": 8,
        "temperature": 0.1,
        "top_k": 0,
        "top_p": 1.0,
        "min_p": 0,
        "seed": 7,
        "stop": ["\n"],
        "cache_prompt": False,
        "stream": True,
    }


def test_powerinfer_is_told_not_to_punish_repeats_and_has_no_openai_routes() -> None:
    assert call("llamacpp", STUDY, "powerinfer").sampling["repeat_penalty"] == 1.0
    with pytest.raises(Unsupported, match="--api llamacpp"):
        call("openai-completions", STUDY, "powerinfer")


@pytest.mark.parametrize("api", ["openai-completions", "openai-chat"])
def test_transformers_gets_only_fields_of_its_schema(api: str) -> None:
    made = call(
        api,
        Sampling(max_tokens=32, temperature=0.1, top_k=100, top_p=0.3, seed=1, ignore_eos=True, stop=["x"]),
        "transformers",
    )
    assert set(made.body) <= {
        "model",
        "prompt",
        "messages",
        "max_tokens",
        "temperature",
        "top_p",
        "seed",
        "stop",
        "stream",
        "generation_config",
    }
    assert json.loads(made.body["generation_config"]) == {"do_sample": True, "top_k": 100, "min_new_tokens": 32}
    assert json.loads(call(api, Sampling(temperature=0, top_k=-1), "transformers").body["generation_config"]) == {
        "top_k": 0
    }
    assert "generation_config" not in call(api, Sampling(max_tokens=4, temperature=0), "transformers").body
    with pytest.raises(Unsupported, match="--max-tokens"):
        call(api, Sampling(ignore_eos=True), "transformers")


def test_mii_names_path_and_limits() -> None:
    made = DIALECTS["mii"].request("Once upon", "my model", STUDY, False, "mii")
    assert made.path == "/mii/my%20model"
    assert made.body == {
        "prompts": ["Once upon"],
        "max_new_tokens": 400,
        "temperature": 0.1,
        "top_k": 100,
        "top_p": 0.3,
    }
    assert DIALECTS["mii"].request(
        "x", "d", Sampling(temperature=0, top_k=3, ignore_eos=True), False, "mii"
    ).sampling == {"do_sample": False, "ignore_eos": True}
    for sampling, stream, model, word in (
        (STUDY, True, "d", "stream"),
        (Sampling(seed=1), False, "d", "seed"),
        (STUDY, False, None, "--model"),
    ):
        with pytest.raises(Unsupported, match=word):
            DIALECTS["mii"].request("x", model, sampling, stream, "mii")
    with pytest.raises(Unsupported, match="seed"):
        call("openai-completions", Sampling(seed=1), "mii")


def test_chat_wraps_the_prompt_and_keeps_its_bytes() -> None:
    prompt = ' "quoted"\n\tünïcode 🙂 \n'
    made = call("openai-chat", Sampling(max_tokens=1), None, prompt=prompt)
    assert made.path == "/v1/chat/completions"
    assert made.body["messages"] == [{"role": "user", "content": prompt}]
    assert call("openai-completions", Sampling(), None, prompt=prompt).body["prompt"] == prompt


def test_without_a_model_none_is_sent() -> None:
    assert "model" not in DIALECTS["openai-completions"].request("x", None, Sampling(), True).body


@pytest.mark.parametrize("engine", sorted(name for name, engine in ENGINES.items() if engine.openai))
def test_only_engines_that_take_them_get_stream_options(engine: str) -> None:
    options = call("openai-completions", Sampling(max_tokens=1), engine).body.get("stream_options")
    wanted = {"mii": None, "transformers": None}.get(engine, {"include_usage": True})
    if engine in (
        "vllm",
        "aphrodite",
        "sglang",
        "ctranslate2",
    ):  # the last is llmpar's own server, which counts as vLLM does
        wanted = {"include_usage": True, "continuous_usage_stats": True}
    assert options == wanted


def test_mii_takes_one_stop_text() -> None:
    """Its gateway answers 500 to every request with a list, for its protocol has no lists."""
    assert DIALECTS["mii"].request("x", "m", Sampling(stop=["\n"]), False).body["stop"] == "\n"
    with pytest.raises(Unsupported, match="one stop text"):
        DIALECTS["mii"].request("x", "m", Sampling(stop=["a", "b"]), False)


def test_ollama_is_asked_for_the_prompt_as_it_is() -> None:
    made = call("ollama", Sampling(max_tokens=8, temperature=0, top_k=-1, top_p=0.9, seed=7, stop=["\n"]), "ollama")
    assert made.path == "/api/generate" and made.body["raw"] is True and made.body["stream"] is True
    assert made.body["options"] == {
        "min_p": 0.0,
        "repeat_penalty": 1.0,
        "num_predict": 8,
        "temperature": 0,
        "top_k": 0,
        "top_p": 0.9,
        "seed": 7,
        "stop": ["\n"],
    }
    # A length other than the server's would make it load the model again, in the middle of a measurement.
    assert "num_ctx" not in json.dumps(made.body)
    with pytest.raises(Unsupported, match="ignore_eos"):
        call("ollama", Sampling(ignore_eos=True), "ollama")
    with pytest.raises(Unsupported, match="--model"):
        DIALECTS["ollama"].request("x", None, Sampling(), True)
    with pytest.raises(Unsupported, match="top_k.*--api ollama"):
        call("openai-completions", Sampling(top_k=40), "ollama")
