"""Model card of an export."""

from __future__ import annotations

import html
from collections.abc import Sequence

from clip import clip

from coft.backbones.members import member_names
from coft.core.words import counted
from coft.inference.model import AdaptedModel

ICONS = "MIT, from freely licensed icons and fonts (weights/README.md of the project)"
PHOTOGRAPHS = "Apache-2.0 and WordNet's licence (weights/photographs.md of the project)"
UNKNOWN = "not known here; see where it is from"
LICENCES = {
    **dict.fromkeys(clip.available_models(), "MIT (OpenAI's CLIP)"),
    **dict.fromkeys(("embedded", "embedded-vit"), ICONS),
    **dict.fromkeys(("photo", "photo-lite1"), PHOTOGRAPHS),
}
LIMITS = (
    "Every image gets one of the classes above, whatever it shows.",
    "It knows images like those that it was trained on; others were not tried.",
)
CALIBRATED = (
    "Confidences of both peers together are calibrated on the unlabeled images, without a label; those of one peer, or "
    "of an average of their weights, were not calibrated anew."
)
UNCALIBRATED = "Confidences are not calibrated."
UNLABELED = "No label was read in training: classes may be confused in a way that no number here shows."


def escaped(text: str) -> str:
    """Return a text on one line, escaped for Markdown and HTML."""
    plain = html.escape(" ".join(text.split()), quote=False)
    return "".join(f"\\{character}" if character in "\\`*_[]|#" else character for character in plain)


def card(model: AdaptedModel, title: str, files: Sequence[str], use: str, export_lines: Sequence[str]) -> str:
    """Return the model card as Markdown.

    Args:
        model: The model.
        title: Title of the card.
        files: One line about each file.
        use: Python code that uses the files.
        export_lines: Lines with the measurements of the export.
    """
    about = model.about
    classes = ", ".join(map(escaped, model.classes))
    accuracy = about.get("results", {}).get("accuracy_test")
    of_run = [] if accuracy is None else [f"{accuracy:.1f} % of the test images, by the run's model"]
    measured = [*of_run, *export_lines] or ["nothing"]
    settings = [f"`{key}` = `{value!r}`" for key, value in about.get("not_default", {}).items()] or ["none"]
    labels = about.get("labels_used", 0)
    trainer, data = (escaped(str(about.get(key, "unknown"))) for key in ("trainer", "dataset"))
    project = f"CoFT for Dassl {about.get('versions', {}).get('coft', '')}".strip()
    limits = [*LIMITS, CALIBRATED if about.get("calibrated") else UNCALIBRATED, *([] if labels else [UNLABELED])]
    licences = [LICENCES.get(name, UNKNOWN) for name in member_names(model.backbone.name)]
    rows = {
        "Trainer": f"{trainer}{' (our reconstruction)' if trainer.startswith('CoFT') else ''}, of {project}",
        "Data": f"{data}: {counted(about.get('unlabeled_images', 0), 'unlabeled image')}, {counted(labels, 'label')}",
        "Backbone": f"{escaped(model.backbone.name)}, fingerprint {model.backbone.fingerprint}",
        "Licence of the backbone": escaped("; ".join(dict.fromkeys(licences))),
        "Input": f"{model.inputs.size} x {model.inputs.size} pixels",
        "Seed": str(about.get("seed", "unknown")),
    }
    parts = [
        f"# {escaped(title)}",
        f"{counted(len(model.classes), 'class', 'classes')}: {classes}.",
        "| | |\n|---|---|\n" + "\n".join(f"| {key} | {value} |" for key, value in rows.items()),
        _list("Files", files),
        f"## Use\n\n```python\n{use.strip()}\n```",
        _list("Measured", measured),
        _list("Settings of the backbone's config, and of the run's own", settings),
        _list("Limits", limits),
    ]
    return "\n\n".join(parts) + "\n"


def _list(title: str, lines: Sequence[str]) -> str:
    return f"## {title}\n\n" + "\n".join(f"- {line}" for line in lines)
