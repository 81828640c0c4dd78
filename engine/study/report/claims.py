"""Claims that a study's report looks at."""

from __future__ import annotations

from dataclasses import replace

from engine.study.report import controls
from engine.study.report.claim import Claim
from engine.study.report.evidence import Evidence
from engine.study.report.papers import lr, xh


def claims(evidence: Evidence) -> dict[str, list[Claim]]:
    """The claims that a study's report looks at, by what they are called: those of its paper, and our controls."""
    paper = evidence.plan.report.get("paper", "")
    found: dict[str, list[Claim]] = {}
    if paper == "lr":
        found["Claims of Learning Regularizers (arXiv:2510.08968)"] = lr.claims(evidence)
    if paper == "xh":
        found["Claims of Learning to Learn with Smooth Regularization (ECCV 2022)"] = xh.claims(evidence)
    found["Controls"] = controls.claims(evidence)
    return {title: [_marked(claim, evidence) for claim in own] for title, own in found.items()}


def _marked(claim: Claim, evidence: Evidence) -> Claim:
    """With the arms of which something may still come."""
    return replace(claim, waiting=tuple(arm for arm in evidence.planned if arm in evidence.waiting & claim.arms))
