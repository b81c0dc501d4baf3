"""Answers of a model: which are used, and which are requested again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from coft.backbones.descriptions import load_descriptions, names_class
from scripts.describing.answers import sentences_in

from .endpoint import Describe, FakeEndpoint, Reply, good, one_line

BAD = {
    "empty": Reply(""),
    "refusal": Reply("I am sorry, I cannot help with that."),
    "cut off": Reply(good("cat"), ending="length"),
    "another word": Reply(json.dumps([f"A category of things with number {i}." for i in range(5)])),
    "repeated": Reply(json.dumps(["A cat with a long striped tail."] * 5)),
    "too short": Reply(json.dumps([f"A cat {i}." for i in range(5)])),
    "too long": Reply(json.dumps([f"A cat {i} " + "with a tail " * 30 for i in range(5)])),
    "numbers": Reply("[1, 2, 3, 4, 5]"),
    "control characters": Reply(json.dumps([f"A cat {i} with a long \x1b[31m striped tail on it." for i in range(5)])),
    "half a character": Reply(json.dumps(["A cat with a long \u2028 striped tail on it, and whiskers."] * 5)),
    "no message": Reply(body={"choices": [{"index": 0}]}),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_bad_answer_is_requested_again(endpoint: FakeEndpoint, describe: Describe, classes: Path, bad: Reply) -> None:
    endpoint.replies["cat"] = [bad, Reply(good("cat"))]
    assert describe() == 0
    assert endpoint.asked.count("cat") == 2 and endpoint.asked.count("guinea pig") == 1
    sentences = load_descriptions(classes.with_suffix(".json"))["cat"]
    assert len(sentences) == 5 and all(names_class(sentence, "cat") and len(sentence) < 200 for sentence in sentences)
    second = [r for r in endpoint.requests if "'cat'" in r["messages"][1]["content"]][1]["messages"]
    assert [message["role"] for message in second] == ["system", "user", "assistant", "user"]
    assert second[3]["content"].startswith("That cannot be used: ")


def test_usable_sentences_of_a_bad_answer_are_kept(endpoint: FakeEndpoint, describe: Describe, classes: Path) -> None:
    mixed = ["A cat that sleeps on a red sofa.", "A dog in the snow.", "A cat that climbs an old apple tree."]
    endpoint.replies["cat"] = [Reply(json.dumps(mixed)), Reply(good("cat", 3))]
    assert describe() == 0
    sentences = load_descriptions(classes.with_suffix(".json"))["cat"]
    assert sentences == [mixed[0], mixed[2], *json.loads(good("cat", 3))]
    question = [r for r in endpoint.requests if "'cat'" in r["messages"][1]["content"]][1]["messages"][3]["content"]
    assert "'A dog in the snow.'" in question and "3 more" in question


def test_class_without_usable_answer_is_named_and_others_are_kept(
    endpoint: FakeEndpoint, describe: Describe, classes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    endpoint.replies["cat"] = [BAD["refusal"]]
    assert describe("--attempts", "3") == 2
    error = one_line(capsys)
    assert "'cat'" in error and "2 of 3" in error
    assert endpoint.asked.count("cat") == 3
    assert list(load_descriptions(classes.with_suffix(".json"))) == ["golden retriever", "guinea pig"]
    endpoint.replies.clear()
    endpoint.asked.clear()
    assert describe() == 0 and endpoint.asked == ["cat"]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ('["A b.", "C  d."]', ["A b.", "C d."]),
        ('Sure!\n```json\n["A b.",\n "C d."]\n```\nHave fun', ["A b.", "C d."]),
        ('{"cat": ["A b.", "C d."]}', ["A b.", "C d."]),
        ('[{"text": "A b."}, {"text": "C d."}]', ["A b.", "C d."]),
        ('<think>["no", "no"]</think>["A b."]', ["A b."]),
        ("<think>never ends [1", []),
        ('1. A b.\n2) "C d."\n', ["A b.", "C d."]),
        ("Here they are:\n- A b.\n* C d.", ["A b.", "C d."]),
        ('["A b.", "C', []),
        ("A cat is an animal.", []),
        ("[1, null, true]", []),
    ],
)
def test_formats_of_answers(answer: str, expected: list[str]) -> None:
    assert sentences_in(answer) == expected
