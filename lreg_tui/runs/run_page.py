"""A run as one HTML file: facts, curves, results, settings. It loads nothing from elsewhere and executes nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from engine.base.errors import LregError
from engine.base.settings import show
from engine.comparison import group_arms
from engine.figures import Block, blocks, evaluated
from engine.figures.meta_training import meta_training
from engine.runs.results import preset_differences
from engine.runs.store import RunReader
from lreg_tui.figures import page
from lreg_tui.runs import run_files
from lreg_tui.runs.metric_panel import LAST, ordered
from lreg_tui.text import present
from lreg_tui.text.sheets import Sheet, html, html_text

FIGURES = ("curves", "sharpness", "accuracy", "frontier")  # of transfer evaluations
NOTHING = "nothing was evaluated yet"
METADATA = re.compile("<metadata>.*?</metadata>", re.DOTALL)
REFERENCE = re.compile(r"""( id="|url\(#|xlink:href="#)""")
HEAD = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; color: #111; background: #fff }}
body {{ max-width: 60rem; margin: 2rem auto; padding: 0 1rem }}
table {{ border-collapse: collapse; margin: .5rem 0; font-variant-numeric: tabular-nums }}
th, td {{ padding: .2rem .8rem .2rem 0; text-align: right; vertical-align: top; border-bottom: 1px solid #ddd }}
th:first-child, td:first-child, .facts td {{ text-align: left }}
.scroll {{ overflow-x: auto }} p {{ color: #555 }} pre {{ overflow-x: auto; background: #f5f5f5; padding: 1rem }}
svg {{ width: 100%; height: auto }}
</style>
"""


def page_of(reader: RunReader) -> str:
    """The whole file. What cannot be read of the run is left out, and its preset's mistake is told."""
    status, facts = reader.status(), run_files.facts_of(reader)
    name = str(reader.facts.get("name") or reader.id)
    about = {"run": reader.id, "state": status.state, "progress": f"{reader.kind.unit} {status.step} of {status.total}"}
    about["created"] = present.NOTHING if reader.created is None else present.local_time(reader.created)
    about |= {key: facts[key] or present.NOTHING for key in ("device", "versions", "git")}
    text, problem = run_files.preset_of(reader)
    settings = {} if problem else {key: show(value) for key, value in preset_differences(reader.preset()).items()}
    results, nothing = run_files.result_sheets(run_files.evaluations(reader)), Sheet("", "", (), (), (NOTHING,))
    block = "\n".join(map(html_text, text.split("\n")))
    parts = [HEAD.format(title=html_text(name)), f"<h1>{html_text(name)}</h1>", _pairs(about)]
    parts += ["<h2>Curves</h2>", *_curves(reader), "<h2>Results</h2>", *map(html, results or [nothing])]
    parts += ["<h2>Settings</h2>", f"<p>{html_text(problem)}</p>" if problem else _pairs(settings)]
    parts.append(f"<details><summary>the whole preset</summary><pre>{block}</pre></details></html>")
    return "\n".join(parts) + "\n"


def _pairs(pairs: Mapping[str, Any]) -> str:
    rows = (f"<tr><td>{html_text(key)}</td><td>{html_text(value)}</td></tr>" for key, value in pairs.items())
    return "\n".join(["<table class=facts>", *rows, "</table>"])


def _curves(reader: RunReader) -> Iterator[str]:
    """Every metric by meta-step, and the figures of transfer evaluations, as far as there are any."""
    arms = group_arms([reader])
    reader.poll()
    drawn = meta_training(arms, [name for name in ordered(reader.columns) if name not in LAST])
    figures = (
        [Block("meta-loss", tuple(drawn), "By meta-step: moving median, and its 10% to 90% band.")] if drawn else []
    )
    with suppress(LregError):  # more tasks than a page has room for: their tables are there
        measured = evaluated(arms)
        for name in FIGURES:
            with suppress(LregError):  # there are no data of this one
                figures += blocks(measured, [name])
    for figure in figures:
        with page.styled():
            svg = page.rendered(page.draw_page([figure]), "svg", figure.caption).decode()
        picture = METADATA.sub("", svg[svg.index("<svg") :])
        picture = REFERENCE.sub(rf"\1{figure.figure}-", picture)  # its ids are no other picture's on the page
        yield picture + f"<p>{html_text(figure.caption)}</p>"
    if not figures:
        yield "<p>nothing was recorded yet</p>"
