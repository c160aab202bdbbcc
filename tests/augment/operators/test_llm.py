"""Paraphrasing speaks the OpenAI protocol to a real local server, survives its failures, and never asks twice."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from crywolf.augment.operators.llm import Endpoint, estimate, paraphrase
from crywolf.data import BadInput

Serve = Callable[[Callable[[int, dict], tuple[int, str]]], Any]
PROMPTS = pl.DataFrame({"id": [f"id{i}" for i in range(6)], "text": [f"How do I ignore row {i}?" for i in range(6)]})


def completion(texts: list[str]) -> str:
    return wrapped(json.dumps({"paraphrases": texts}))


def wrapped(content: str | None) -> str:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}
    return json.dumps({"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]})


def good(_: int, asked: dict) -> tuple[int, str]:
    return 200, completion([f"{asked['prompt']} variant {i}" for i in range(asked["n"])])


def endpoint(server: Any, **changes: object) -> Endpoint:
    return Endpoint(server.url, "tiny", **{"per_prompt": 2, "timeout": 5.0, **changes})  # type: ignore[arg-type]


def test_every_prompt_gets_its_paraphrases_and_the_prompt_goes_as_data(serve: Serve, tmp_path: Path) -> None:
    server = serve(good)
    found = paraphrase(PROMPTS, endpoint(server), tmp_path / "kept.jsonl")
    assert found.frame.height == 12
    assert set(found.frame["origin_id"]) == set(PROMPTS["id"])
    assert set(found.frame["how"]) == {"paraphrase:tiny"}
    assert {item["path"] for item in server.seen} == {"/v1/chat/completions"}
    assert all(item["messages"][0]["role"] == "system" and item["model"] == "tiny" for item in server.seen)


def test_what_was_answered_is_not_asked_again_and_half_a_line_does_no_harm(serve: Serve, tmp_path: Path) -> None:
    server, kept = serve(good), tmp_path / "kept.jsonl"
    paraphrase(PROMPTS.head(4), endpoint(server), kept)
    with kept.open("a") as store:
        store.write('{"key": "half a li')
    before = estimate(PROMPTS, endpoint(server), kept)
    again = paraphrase(PROMPTS, endpoint(server), kept)
    assert (before.requests, before.known) == (2, 4)
    assert len(server.seen) == 6
    assert (again.asked, again.known, again.frame.height) == (2, 4, 12)


def test_another_model_is_asked_anew(serve: Serve, tmp_path: Path) -> None:
    server, kept = serve(good), tmp_path / "kept.jsonl"
    paraphrase(PROMPTS, endpoint(server), kept)
    paraphrase(PROMPTS, Endpoint(server.url, "other", per_prompt=2), kept)
    assert len(server.seen) == 12


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_or_broken_server_is_asked_again(serve: Serve, tmp_path: Path, status: int) -> None:
    server = serve(lambda n, asked: (status, "{}") if n <= 3 else good(n, asked))
    found = paraphrase(PROMPTS, endpoint(server, retries=4, concurrency=1), tmp_path / "kept.jsonl")
    assert found.frame.height == 12
    assert not found.failed
    assert len(server.seen) == 9


def test_a_server_that_stays_broken_is_given_up_and_what_came_before_is_kept(serve: Serve, tmp_path: Path) -> None:
    server, kept = serve(lambda n, asked: good(n, asked) if n == 1 else (500, "{}")), tmp_path / "kept.jsonl"
    with pytest.raises(BadInput, match="5 requests in a row failed, the last one: status 500"):
        paraphrase(PROMPTS, endpoint(server, retries=0, concurrency=1), kept)
    assert len(kept.read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (completion(["a"])[:60], "no JSON"),  # half a body
        (wrapped('{"paraphrases": ["How could I'), "an answer that is no JSON"),
        (wrapped('{"something": 1}'), "an answer without paraphrases"),
        (wrapped(None), "an answer without text"),
    ],
)
def test_an_answer_that_cannot_be_read_is_asked_for_again_then_counted(
    serve: Serve, tmp_path: Path, content: str, reason: str
) -> None:
    server = serve(lambda n, asked: (200, content) if asked["prompt"].endswith("0?") else good(n, asked))
    found = paraphrase(PROMPTS, endpoint(server, retries=1), tmp_path / "kept.jsonl")
    assert found.frame.height == 10
    assert [count for text, count in found.failed.items() if reason in text] == [1]
    assert sum(item["prompt"].endswith("0?") for item in server.seen) == 2


@pytest.mark.parametrize("n", [1, 4])
@pytest.mark.parametrize("reply", [(500, "{}"), (200, wrapped("no")), (200, wrapped(None))])
def test_a_call_in_which_nothing_was_answered_is_an_error_that_names_the_url(
    serve: Serve, tmp_path: Path, n: int, reply: tuple[int, str]
) -> None:
    server = serve(lambda *_: reply)
    with pytest.raises(BadInput, match=f"all {n} requests failed") as caught:
        paraphrase(PROMPTS.head(n), endpoint(server, retries=0), tmp_path / "kept.jsonl")
    assert server.url in str(caught.value)


def test_a_prompt_that_is_never_answered_properly_stops_no_later_call_but_a_broken_server_does(
    serve: Serve, tmp_path: Path
) -> None:
    kept = tmp_path / "kept.jsonl"
    server = serve(lambda n, asked: (200, wrapped("no")) if asked["prompt"].endswith("0?") else good(n, asked))
    for _ in range(2):
        found = paraphrase(PROMPTS, endpoint(server, retries=0), kept)
        assert (found.frame.height, found.failed) == (10, {"an answer that is no JSON": 1})
    broken = serve(lambda *_: (503, "{}"))
    with pytest.raises(BadInput, match="all 1 requests failed: status 503"):
        paraphrase(PROMPTS, endpoint(broken, retries=0), kept)


def test_a_slow_answer_is_a_time_out(serve: Serve, tmp_path: Path) -> None:
    hold = threading.Event()

    def slow(n: int, asked: dict) -> tuple[int, str]:
        if asked["prompt"].endswith("0?"):
            hold.wait(5)
        return good(n, asked)

    found = paraphrase(PROMPTS, endpoint(serve(slow), retries=0, timeout=0.4), tmp_path / "kept.jsonl")
    hold.set()
    assert found.failed == {"time-out": 1}
    assert found.frame.height == 10


def test_a_wrong_key_ends_the_run_with_the_servers_reason_and_without_the_key(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_LLM_KEY", "sk-very-secret")
    server = serve(lambda *_: (401, json.dumps({"error": {"message": "no such key"}})))
    with pytest.raises(BadInput, match="refused with 401") as caught:
        paraphrase(PROMPTS, endpoint(server, key="TEST_LLM_KEY"), tmp_path / "kept.jsonl")
    assert "sk-very-secret" not in str(caught.value)
    assert server.keys[0] == "Bearer sk-very-secret"


def test_nothing_listens_there(tmp_path: Path) -> None:
    nowhere = Endpoint("http://127.0.0.1:9/v1", "tiny", retries=0, concurrency=1)
    with pytest.raises(BadInput, match="in a row failed"):
        paraphrase(PROMPTS, nowhere, tmp_path / "kept.jsonl")


def test_an_estimate_counts_tokens_and_asks_nothing(serve: Serve, tmp_path: Path) -> None:
    server = serve(good)
    plan = estimate(PROMPTS, endpoint(server), tmp_path / "kept.jsonl")
    assert plan.requests == 6
    assert plan.tokens_in > 6 * 100  # the instruction goes with each
    assert plan.cost(1.0, 2.0) == pytest.approx((plan.tokens_in + 2 * plan.tokens_out) / 1e6)
    assert not server.seen


@pytest.mark.parametrize(("url", "model"), [("localhost:1", "m"), ("file:///etc/passwd", "m"), ("http://h/v1", " ")])
def test_what_is_no_endpoint_is_refused_before_anything_is_asked(url: str, model: str) -> None:
    with pytest.raises(BadInput, match="--llm"):
        Endpoint(url, model)
