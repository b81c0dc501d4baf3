"""Descriptions asked of an endpoint, tried against a server on this machine that misbehaves as servers do."""

from __future__ import annotations

import json
import multiprocessing
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from pathlib import Path

import pytest

from scripts.describing.__main__ import main
from scripts.describing.answers import fault, sentences_in
from scripts.describing.classes import NamedClass, named_classes
from tests.scripts.fake_endpoint import FakeEndpoint, Reply, good
from trainers.parts.descriptions import load_descriptions, names_class

Describe = Callable[..., int]


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEndpoint]:
    with FakeEndpoint() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        monkeypatch.setenv("OPENAI_API_KEY", "secret-key")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield server


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    path = tmp_path / "pets.txt"
    path.write_text("cat\ngolden_retriever\nguinea pig\n")
    return path


@pytest.fixture
def describe(classes: Path, tmp_path: Path) -> Describe:
    def call(*argv: str) -> int:
        return main(["--classes", str(classes), "--model", "writer", "--cache", str(tmp_path / "kept"), *argv])

    return call


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("error: "), error
    return error


def test_every_class_is_described(endpoint: FakeEndpoint, describe: Describe, classes: Path) -> None:
    assert describe() == 0
    found = json.loads(classes.with_suffix(".json").read_text())
    assert list(found) == ["cat", "golden_retriever", "guinea pig"]
    for name, sentences in found.items():
        assert len(set(sentences)) == 5 and all(names_class(sentence, name) for sentence in sentences)
    assert load_descriptions(classes.with_suffix(".json"))["golden retriever"] == found["golden_retriever"]
    assert {request["model"] for request in endpoint.requests} == {"writer"}
    assert set(endpoint.keys) == {"Bearer secret-key"}


def test_number_pictures_and_meaning_reach_the_model(
    endpoint: FakeEndpoint, describe: Describe, classes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    classes.write_text("crane\ta bird, no machine\n")
    assert describe("--sentences", "3", "--about", "satellite images") == 0
    question = endpoint.requests[0]["messages"][1]["content"]
    assert "Write 3 " in question and "in satellite images. What is meant: a bird, no machine." in question
    assert "1 classes, 3 sentences" in capsys.readouterr().out


def test_what_is_done_is_not_asked_again(endpoint: FakeEndpoint, describe: Describe, classes: Path) -> None:
    assert describe() == 0
    out = classes.with_suffix(".json")
    first = out.read_bytes()
    assert describe() == 0 and out.read_bytes() == first and len(endpoint.asked) == 3
    out.unlink()
    assert describe() == 0 and out.read_bytes() == first and len(endpoint.asked) == 3  # from the kept answers
    out.unlink()
    assert describe("--sentences", "2") == 0 and len(endpoint.asked) == 6  # another question


def test_what_the_file_has_is_left_as_it_is(endpoint: FakeEndpoint, describe: Describe, classes: Path) -> None:
    out = classes.with_suffix(".json")
    own = {"Cat": ["A cat of my own words."], "owl": ["An owl that nobody lists."]}
    out.write_text(json.dumps(own))
    assert describe() == 0
    found = json.loads(out.read_text())
    assert list(found) == ["Cat", "owl", "golden_retriever", "guinea pig"]
    assert found["Cat"] == own["Cat"] and found["owl"] == own["owl"] and "cat" not in endpoint.asked


def test_a_file_that_is_none_of_descriptions_is_not_overwritten(
    endpoint: FakeEndpoint, describe: Describe, classes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = classes.with_suffix(".json")
    out.write_text("[1, 2]")
    assert describe() == 2 and "expected JSON" in one_line(capsys)
    assert out.read_text() == "[1, 2]" and not endpoint.asked


BAD = {
    "empty": Reply(""),
    "refusal": Reply("I am sorry, I cannot help with that."),
    "cut off": Reply(good("cat"), ending="length"),
    "withheld": Reply(good("cat"), ending="content_filter"),
    "no name": Reply(json.dumps([f"A small soft animal {i}." for i in range(5)])),
    "another word": Reply(json.dumps([f"A category of things with number {i}." for i in range(5)])),
    "repeated": Reply(json.dumps(["A cat with a long striped tail."] * 5)),
    "too short": Reply(json.dumps([f"A cat {i}." for i in range(5)])),
    "too long": Reply(json.dumps([f"A cat {i} " + "with a tail " * 30 for i in range(5)])),
    "numbers": Reply("[1, 2, 3, 4, 5]"),
    "no choices": Reply(body={"error": {"message": "the model is overloaded"}}),
    "no message": Reply(body={"choices": [{"index": 0}]}),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_a_bad_answer_is_asked_for_again(endpoint: FakeEndpoint, describe: Describe, classes: Path, bad: Reply) -> None:
    endpoint.replies["cat"] = [bad, Reply(good("cat"))]
    assert describe() == 0
    assert endpoint.asked.count("cat") == 2 and endpoint.asked.count("guinea pig") == 1
    found = load_descriptions(classes.with_suffix(".json"))["cat"]
    assert len(found) == 5 and all(names_class(sentence, "cat") and len(sentence) < 200 for sentence in found)
    second = [r for r in endpoint.requests if "'cat'" in r["messages"][1]["content"]][1]["messages"]
    assert [message["role"] for message in second] == ["system", "user", "assistant", "user"]
    assert second[3]["content"].startswith("That cannot be used: ")


def test_usable_sentences_of_a_bad_answer_count(endpoint: FakeEndpoint, describe: Describe, classes: Path) -> None:
    half = ["A cat that sleeps on a red sofa.", "A dog in the snow.", "A cat that climbs an old apple tree."]
    endpoint.replies["cat"] = [Reply(json.dumps(half)), Reply(good("cat", 3))]
    assert describe() == 0
    found = load_descriptions(classes.with_suffix(".json"))["cat"]
    assert found == [half[0], half[2], *json.loads(good("cat", 3))]
    asked = [r for r in endpoint.requests if "'cat'" in r["messages"][1]["content"]][1]["messages"][3]["content"]
    assert "'A dog in the snow.' does not have the words 'cat' in it" in asked and "Write 3 more" in asked


def test_a_class_that_stays_bad_is_named_and_the_others_are_kept(
    endpoint: FakeEndpoint, describe: Describe, classes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    endpoint.replies["cat"] = [BAD["refusal"]]
    assert describe("--attempts", "3") == 2
    error = one_line(capsys)
    assert "class 'cat': 0 of 5 usable sentences after 3 answers" in error and "2 of 3 classes are done" in error
    assert endpoint.asked.count("cat") == 3 and not classes.with_suffix(".json").exists()
    endpoint.replies.clear()
    endpoint.asked.clear()
    assert describe() == 0 and endpoint.asked == ["cat"]


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_rejected_request_is_sent_again(endpoint: FakeEndpoint, describe: Describe, status: int) -> None:
    endpoint.replies["cat"] = [Reply("slow down", status)] * 3 + [Reply(good("cat"))]
    assert describe() == 0
    assert endpoint.asked.count("cat") == 4


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (Reply("slow down", 429), "limits the rate, or the quota is used up (Error code: 429"),
        (Reply("out of order", 500), "out of order"),
        (Reply("wrong key", 401), "refuses the key of OPENAI_API_KEY"),
        (Reply("no such model", 404), "does not know the model 'writer'"),
        (Reply("context is too long", 400), "context is too long"),
        (Reply("<html>\nwelcome</html>", raw=True), "answers in no form of OpenAI's chat completions; mind the /v1"),
    ],
)
def test_an_endpoint_that_fails_is_one_line(
    endpoint: FakeEndpoint,
    describe: Describe,
    classes: Path,
    capsys: pytest.CaptureFixture[str],
    reply: Reply,
    message: str,
) -> None:
    endpoint.replies["cat"] = [reply]
    assert describe("--workers", "1", "--retries", "2") == 2
    error = one_line(capsys)
    assert message in error and endpoint.url in error and "secret-key" not in error
    assert not classes.with_suffix(".json").exists()
    assert endpoint.asked == ["cat"] * (3 if reply.status in (429, 500) else 1)  # the other classes are not asked for


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_worker_does_not_go_on_before_the_failure_is_seen(
    endpoint: FakeEndpoint,
    describe: Describe,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    workers: str,
) -> None:
    def seen_late(pending: Iterable[Future[object]]) -> Iterator[Future[object]]:
        wait(pending)
        return iter(pending)

    monkeypatch.setattr("scripts.describing.__main__.as_completed", seen_late)
    endpoint.replies |= {"cat": [Reply("wrong key", 401)], "golden retriever": [Reply("wrong key", 401)]}
    assert describe("--workers", workers, "--retries", "0") == 2
    assert "refuses the key" in one_line(capsys) and "guinea pig" not in endpoint.asked


def test_an_endpoint_that_is_not_there_is_one_line(
    endpoint: FakeEndpoint, describe: Describe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    assert describe("--retries", "0") == 2
    assert "http://127.0.0.1:9/v1/: cannot be reached" in one_line(capsys)


def test_a_slow_endpoint_is_one_line(
    endpoint: FakeEndpoint, describe: Describe, capsys: pytest.CaptureFixture[str]
) -> None:
    done = threading.Event()
    endpoint.before = lambda name: done.wait(10) and None
    assert describe("--retries", "0", "--timeout", "0.2") == 2
    done.set()
    assert "does not answer in time; try a longer --timeout" in one_line(capsys)


def test_a_run_that_is_killed_goes_on(endpoint: FakeEndpoint, classes: Path, tmp_path: Path) -> None:
    classes.write_text("\n".join(f"animal {letter}" for letter in "abcdef"))
    words = ["--classes", str(classes), "--model", "writer", "--workers", "1", "--cache", str(tmp_path / "kept")]
    reached, never = threading.Event(), threading.Event()

    def wait_at_the_fourth(name: str) -> None:
        if name == "animal d":
            reached.set()
            never.wait(60)

    endpoint.before = wait_at_the_fourth
    process = multiprocessing.get_context("fork").Process(target=main, args=(words,))  # has no imports to wait for
    process.start()
    assert reached.wait(60)
    process.kill()
    process.join(10)
    assert process.exitcode == -signal.SIGKILL
    assert not classes.with_suffix(".json").exists() and len(list((tmp_path / "kept").iterdir())) == 3
    endpoint.before = lambda name: None
    never.set()
    assert main(words) == 0
    assert endpoint.asked.count("animal a") == endpoint.asked.count("animal c") == 1
    assert list(load_descriptions(classes.with_suffix(".json"))) == [f"animal {letter}" for letter in "abcdef"]


@pytest.mark.parametrize("damage", ["{", '{"sentences": ["A dog."]}', '{"sentences": [3]}', "[]"])
def test_a_damaged_answer_is_asked_for_again(
    endpoint: FakeEndpoint, describe: Describe, classes: Path, tmp_path: Path, damage: str
) -> None:
    assert describe() == 0
    for path in (tmp_path / "kept").iterdir():
        path.write_text(damage)
    classes.with_suffix(".json").unlink()
    assert describe() == 0 and len(endpoint.asked) == 6


def test_another_model_or_endpoint_is_another_question(
    endpoint: FakeEndpoint, describe: Describe, classes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def again(*argv: str) -> int:
        asked = len(endpoint.asked)
        classes.with_suffix(".json").unlink(missing_ok=True)
        assert describe(*argv) == 0
        return len(endpoint.asked) - asked

    assert [again(), again(), again("--model", "other"), again("--about", "drawings")] == [3, 0, 3, 3]
    monkeypatch.setenv("OPENAI_BASE_URL", f"{endpoint.url}/other")
    assert again() == 3


def test_a_folder_that_cannot_be_written_to_costs_no_answer(
    endpoint: FakeEndpoint, describe: Describe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert describe("--out", str(tmp_path / "file" / "pets.json")) == 2
    assert "cannot be written" in one_line(capsys)
    assert describe() == 0 and len(endpoint.asked) == 3


def test_no_key_is_needed_where_the_address_is_ones_own(
    endpoint: FakeEndpoint, describe: Describe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    assert describe() == 0
    monkeypatch.delenv("OPENAI_BASE_URL")
    monkeypatch.setattr("scripts.describing.__main__.described_already", lambda path: {})
    assert describe() == 2 and "OPENAI_API_KEY is not set" in one_line(capsys)
    monkeypatch.setenv("OPENAI_BASE_URL", "localhost:8000")
    assert describe() == 2 and "OPENAI_BASE_URL is 'localhost:8000'" in one_line(capsys)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--model", ""), "--model is missing"),
        (("--sentences", "0"), "--sentences is 0; expected at least 1"),
        (("--workers", "0"), "--workers is 0"),
        (("--timeout", "nan"), "--timeout is nan"),
        (("--classes", "nowhere.txt"), "--classes nowhere.txt: no such file"),
        (("--classes", "cat, dog"), "--out is missing"),
        (("--classes", "cat, dog, cat"), "'cat' stands there twice"),
    ],
)
def test_mistakes_are_one_line(
    describe: Describe, capsys: pytest.CaptureFixture[str], flags: tuple[str, str], message: str
) -> None:
    assert describe(*flags) == 2
    assert message in one_line(capsys)


@pytest.mark.parametrize("content", ["", "\n \n", "a " * 60])
def test_a_file_without_class_names_is_one_line(
    describe: Describe, classes: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    classes.write_text(content)
    assert describe() == 2 and "--classes" in one_line(capsys)


def test_class_names_are_read_once_with_their_meaning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALLED_FROM", str(tmp_path))
    path = tmp_path / "classes.txt"
    lines = (
        "\ufeffcrane\tA bird.\tNo machine.\n\n Guinea_Pig \r\nCrane\tlifts things\nn01440764 tench\nn01440765 tench\n"
    )
    path.write_bytes(lines.encode())
    found = named_classes("classes.txt")
    assert found == [NamedClass("crane", "A bird. No machine"), NamedClass("Guinea_Pig"), NamedClass("tench")]
    assert found[1].plain == "Guinea Pig"
    assert named_classes("cat, guinea pig") == [NamedClass("cat"), NamedClass("guinea pig")]


def test_names_may_stand_in_the_command(endpoint: FakeEndpoint, describe: Describe, tmp_path: Path) -> None:
    assert describe("--classes", "cat, guinea pig", "--out", str(tmp_path / "own.json")) == 0
    assert list(load_descriptions(tmp_path / "own.json")) == ["cat", "guinea pig"]


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
def test_sentences_are_found_in_many_forms(answer: str, expected: list[str]) -> None:
    assert sentences_in(answer) == expected


@pytest.mark.parametrize(
    ("sentence", "others", "expected"),
    [
        ("A cat with a long tail and whiskers.", [], None),
        ("A dog with a long tail and whiskers.", [], "does not have the words"),
        ("A cat with a long tail and whiskers.", ["a cat with a long tail and whiskers"], "twice"),
        ("A cat here.", [], "says too little"),
        ("A cat " + "with a tail " * 30, [], "tokens"),
    ],
)
def test_faults_are_named(sentence: str, others: list[str], expected: str | None) -> None:
    found = fault(sentence, "cat", others)
    assert found is None if expected is None else expected in str(found)
