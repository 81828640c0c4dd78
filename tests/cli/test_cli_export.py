"""`lreg export`: what it prints, where it writes, what it refuses."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
import torch

from engine.optimizers.learned.base import LEARNED_OPTIMIZERS
from engine.presets.preset import from_mapping
from engine.runs import checkpoint as checkpoints
from engine.runs.writer import Run


@pytest.fixture
def run(home):
    made = Run.create(home / "runs", from_mapping({"name": "small", "optimizer": {"kind": "simple", "hidden": 3}}))
    phi = LEARNED_OPTIMIZERS.create("simple", hidden=3).init_phi(torch.Generator().manual_seed(0))
    checkpoints.save(made.path / "checkpoint", "best", {f"frozen/{name}": t for name, t in phi.items()}, {})
    with made:
        made.append([{"step": 1, "meta_loss": 1.0}])
    return made


@pytest.mark.parametrize(
    ("form", "ending"),
    [("safetensors", ".safetensors"), ("html", ".html"), ("csv", "-csv"), ("tensorboard", "-tensorboard")],
)
def test_the_default_path_is_the_runs_id_and_it_is_printed(lreg, home, run, form, ending):
    outcome = lreg("export", "last", "--to", form)
    assert outcome.code == 0 and outcome.out == f"{run.id}{ending}\n"
    assert (home / f"{run.id}{ending}").exists()
    refused = lreg("export", "last", "--to", form)
    assert refused.code == 2 and "--force" in refused.err and len(refused.err.splitlines()) == 1
    assert lreg("export", "last", "--to", form, "--force").code == 0


def test_json_says_what_was_exported(lreg, home, run):
    (line,) = lreg("export", run.id, "--to", "safetensors", "-o", "o.safetensors", "--scale", "1.5", "--json").lines
    assert (line["run"], line["checkpoint"], line["scale"]) == (run.id, "best", 1.5)
    assert line["path"] == str(home / "o.safetensors")
    (line,) = lreg("export", run.id, "--to", "csv", "--json").lines
    assert line["rows"] == {"metrics.csv": 1, "machine.csv": 0, "transfers.csv": 0}


class Page(HTMLParser):
    """The tags of a page, what they load, and its ids."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.ids: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.links += [value for name, value in attrs if name in ("href", "src", "xlink:href", "srcset", "action")]
        self.ids += [value for name, value in attrs if name == "id"]


def test_a_page_shows_curves_results_and_settings_and_loads_nothing(lreg, home):
    hostile = "<img src=http://evil/x onerror=alert(1)>"
    made = Run.create(home / "runs", from_mapping({"name": hostile, "description": "</pre><script>alert(2)</script>"}))
    marks = [{"inner_step": 20, "train_loss": 0.5, "test_loss": 0.625, "sharpness": {"0.05": 1e-3}}]
    seeds = [{"seed": 0, "diverged": False, "curve": {"inner_step": [0, 20], "train_loss": [2, 0.5]}, "marks": marks}]
    task = {"dataset": "<b>mnist", "optimizee": "mlp"}
    with made:
        made.append([{"step": step, "meta_loss": 1 / step, hostile: step} for step in (1, 2, 3)])
        made.write_transfer("a", {"optimizer": "simple", "label": hostile, "task": task, "seeds": seeds, "run": "x"})
    assert lreg("export", "last", "--to", "html", "-o", "page.html").code == 0
    text = (home / "page.html").read_text()
    page = Page(text)
    svg = {"svg", "g", "path", "defs", "use", "text", "clippath", "rect", "style", "tspan"}
    html = {
        "html",
        "meta",
        "title",
        "h1",
        "h2",
        "h3",
        "table",
        "tr",
        "td",
        "th",
        "p",
        "div",
        "details",
        "summary",
        "pre",
    }
    assert page.tags <= svg | html | {"b", "br"}
    assert page.links and all(link.startswith("#") for link in page.links)
    assert len(page.ids) == len(set(page.ids)) and {link[1:] for link in page.links} <= set(page.ids)
    assert "meta-loss" in text and "0.625" in text and "optimizer.kind" in text and "&lt;img" in text
    assert "default-src 'none'" in text


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--to", "xlsx"), "safetensors, html, tensorboard, csv"),
        (("--to", "csv", "--scale", "2"), "--scale"),
        (("--to", "tensorboard", "--checkpoint", "last"), "--checkpoint"),
        (("--to", "safetensors", "--checkpoint", "newest"), "best, last, initial"),
        (("--to", "safetensors", "--checkpoint", "last"), "no such checkpoint"),
        (("--to", "safetensors", "--scale", "0"), "a number > 0"),
        (("--to", "safetensors", "--scale", "much"), "a number > 0"),
        (("--to", "safetensors", "--scale", "best"), "lreg transfer"),
        (("--to", "csv", "-o", "nowhere/out"), "no folder"),
        (("--to", "safetensors", "-o", "."), "a folder, should be a file"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(lreg, home, run, options, word):
    before = sorted(home.iterdir())
    outcome = lreg("export", "last", *options)
    assert outcome.code == 2 and outcome.out == ""
    assert word in outcome.err and len(outcome.err.splitlines()) == 1 and outcome.err.startswith("error: ")
    assert sorted(home.iterdir()) == before
