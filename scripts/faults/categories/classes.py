"""Class lists and descriptions: texts of all kinds."""

from __future__ import annotations

import json
import random
from functools import partial

from coft.backbones.descriptions import load_descriptions
from coft.engine.class_names import check_classnames, read_classes
from coft.inference.sorting import folder_names

from ..case import Case, Right, Wrong
from ..scene import Scene
from ..texts import DESCRIPTIONS, LISTS, TEXTS, drawn

CATEGORY = "classes"
REFUSED, FINE = Right.REFUSED, Right.FINE
ALPHABETS = (
    "abc ,|\t\n",
    "äöüßéèñ ,",
    "犬猫鳥,、 ",
    "👩‍🔬🐈🇩🇪,",
    "\u200b\u202e\ufeff\u0301a,",
    "<>&;\"'{}%s$`\\,",
    "\x00\x1b[31m\r\n,a",
    "ﬁﬂＡＢ½,",
    "0123456789.,-",
    "\ud800\udfff,a",
)
SAME = {
    "NFC and NFD": ("caf\u00e9", "cafe\u0301"),
    "a ligature": ("\ufb01sh", "fish"),
    "full width": ("\uff23at", "Cat"),
    "an entity": ("salt &amp; pepper", "salt & pepper"),
    "curled quotes": ("cat\u2019s eye", "cat's eye"),
    "case": ("Cat", "cat"),
    "underscores": ("tabby_cat", "tabby cat"),
    "blanks": ("tabby  cat", "tabby cat"),
    "a blank of no break": ("cat", "cat\u00a0"),
    "the same": ("cat", "cat"),
}
GOOD = (
    "cat, dog",
    "犬, 猫",
    "a, b, c",
    "caña, cana",
    "0, 1",
    "it's, its",
    "C++, C#",
    "cat | kitten, dog | puppy",
    "None, nan",
)
FILES: dict[str, tuple[bytes, Right]] = {
    "empty": (b"", REFUSED),
    "blank lines": (b"\n\n \n", REFUSED),
    "one name": (b"cat\n", REFUSED),
    "a byte order mark": (b"\xef\xbb\xbfcat\ndog\n", FINE),
    "line ends of Windows": (b"cat\r\ndog\r\n", FINE),
    "line ends of old Macs": (b"cat\rdog\r", FINE),
    "latin 1": (b"caf\xe9\ndog\n", REFUSED),
    "utf-16": ("cat\ndog\n".encode("utf-16"), REFUSED),
    "zeros": (bytes(1000), REFUSED),
    "a name twice": (b"cat\ndog\ncat\n", REFUSED),
    "a tab first": (b"\tcat\ndog\n", Right.EITHER),
    "a bar alone": (b"cat\n|\n", REFUSED),
    "a synonym twice": (b"cat | dog\ndog\n", REFUSED),
    "an image": (b"\x89PNG\r\n\x1a\n\x00\x00", REFUSED),
    "a name of 5,000 words": (b"cat\n" + b"dog " * 5000 + b"\n", Right.EITHER),
    "fifty thousand names": (b"\n".join(b"thing %d" % n for n in range(50_000)), REFUSED),
}
SENTENCES: dict[str, str] = {
    "no JSON": "cat: furry",
    "a list": '["cat"]',
    "nothing": "{}",
    "numbers": '{"cat": [1]}',
    "a text for a list": '{"cat": "a cat"}',
    "an empty list": '{"cat": []}',
    "an empty sentence": '{"cat": [" "]}',
    "a sentence twice": '{"cat": ["A cat.", "a  cat."]}',
    "a sentence of 5,000 words": json.dumps({"cat": ["word " * 5000]}),
    "three hundred thousand sentences": json.dumps({"cat": [f"A cat number {n}." for n in range(300_000)]}),
    "as many, of many classes": json.dumps({f"cat {n}": [f"A cat {k}." for k in range(300)] for n in range(1000)}),
    "nested deeply": "[" * 100_000,
    "half a character": '{"cat": ["A \\ud800 cat."]}',
    "NaN": '{"cat": [NaN]}',
    "a key twice": '{"cat": ["A cat."], "cat": 5}',
}


def cases(quick: bool) -> list[Case]:
    """All cases."""
    found = [
        Case(CATEGORY, f"text {number} of {alphabet[:4]!r}", partial(text_of, alphabet=alphabet, seed=number))
        for alphabet in ALPHABETS
        for number in range(12)
    ]
    found += [
        Case(CATEGORY, f"the same by {name}", partial(same, names=names), REFUSED, (names[1].strip(), repr(names[1])))
        for name, names in SAME.items()
    ]
    found += [Case(CATEGORY, f"names {text}", partial(listed, text=text), FINE) for text in GOOD]
    found += [
        Case(CATEGORY, f"file: {name}", partial(in_file, content=content), right, ("names.txt",))
        for name, (content, right) in FILES.items()
    ]
    found += [
        Case(
            CATEGORY,
            f"descriptions: {name}",
            partial(described, text=text),
            Right.EITHER if "half" in name or "deep" in name else REFUSED,
            ("own.json",),
        )
        for name, text in SENTENCES.items()
    ]
    found += drawn_cases(60 if quick else 500)
    odd = ("\u200b, cat", "cat, ", ",", "\x00, cat", "no-such-file.txt", "/dev/zero", "/proc/self/environ")
    return found + [Case(CATEGORY, f"names {text!r}", partial(listed, text=text), REFUSED) for text in odd]


def drawn_cases(count: int) -> list[Case]:
    """Texts that hypothesis draws: in the command, on lines of a file, for classes and their descriptions."""
    found = [
        Case(CATEGORY, f"drawn names {number}", partial(listed, text=text))
        for number, text in enumerate(drawn(TEXTS, count))
    ]
    found += [
        Case(
            CATEGORY,
            f"drawn lines {number}",
            partial(in_file, content=in_bytes("\n".join(names))),
            names=("names.txt",),
        )
        for number, names in enumerate(drawn(LISTS, count))
    ]
    return found + [
        Case(CATEGORY, f"drawn descriptions {number}", partial(described, text=json.dumps(own)), names=("own.json",))
        for number, own in enumerate(drawn(DESCRIPTIONS, count))
    ]


def in_bytes(text: str) -> bytes:
    """A text as a careless program writes it."""
    return text.encode("utf-8", "surrogatepass")


def text_of(scene: Scene, alphabet: str, seed: int) -> None:
    """Names of random letters: whatever is accepted can be written and read again."""
    source = random.Random(seed)
    text = "".join(source.choice(alphabet) for _ in range(source.randrange(1, 40)))
    listed(scene, text)


def listed(scene: Scene, text: str) -> None:
    """Read names as a command has them, and check them as a run does."""
    from coft.backbones.tokens import CLIP_TOKENIZER
    from coft.engine.class_names import write_classes

    found = read_classes(text)
    check_classnames(found.names, "--classes")
    tokens = [tuple(CLIP_TOKENIZER.encode(name)) for name in found.names]
    if len(set(tokens)) < len(tokens) or () in tokens:
        raise Wrong("classes are the same to CLIP, or nothing")
    write_classes(scene.place / "classes.txt", found)
    if read_classes(str(scene.place / "classes.txt")).names != found.names:
        raise Wrong("classes are others once they are written and read again")
    folders = folder_names(found.names)
    for name in folders:
        (scene.place / "sorted" / name).mkdir(parents=True)
    if sorted(path.name for path in (scene.place / "sorted").iterdir()) != sorted(folders):
        raise Wrong("folders of classes are not what they are called")


def same(scene: Scene, names: tuple[str, str]) -> None:
    """Two names that CLIP reads as one."""
    check_classnames(read_classes(", ".join(names)).names, "--classes")


def in_file(scene: Scene, content: bytes) -> None:
    """Read a file of names."""
    found = read_classes(str(scene.file("names.txt", content)))
    check_classnames(found.names, "--classes names.txt")


def described(scene: Scene, text: str) -> None:
    """Read a file of descriptions."""
    load_descriptions(scene.file("own.json", text))
