"""The filter language: what it finds, and what it says about what it does not understand."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from engine.runs.kinds import TRANSFER
from lreg_tui.runs import filters
from lreg_tui.runs.feed import RunRow

ALPHA = RunRow(
    id="20261101-120000-alpha-k3f9",
    path=Path("runs/20261101-120000-alpha-k3f9"),
    name="Alpha one",
    state="running",
    step=50,
    total=200,
    eta_s=600.0,
    created=time.time() - 3 * 3600,
    seed=0,
    message="evaluating",
    device="cuda:0",
    latest={"meta_loss": 0.4, "test_accuracy": 0.92, "sam_penalty": 0.01, "sharpness": None},
    task="mnist/mlp+fmnist/cnn",
    optimizer="dm",
    estimator="tbptt",
    penalties=("sam", "smooth"),
    tags=("paper", "night run"),
    pinned=True,
    settings={"optimizer.kind": "dm", "penalty.gam.rho": 0.05, "penalty.smooth.weight": 2.0, "task.hidden": (20, 10)},
)
BETA = replace(
    ALPHA,
    id="20261102-120000-beta-zzzz",
    name="beta[x]?",
    state="finished",
    step=200,
    created=time.time() - 3 * 86400,
    seed=11,
    message="",
    device="cpu",
    latest={"meta_loss": 0.6, "objective_sharpness": 2.0},
    task="fmnist/mlp-relu",
    optimizer="simple",
    estimator="es",
    penalties=("gsam", "sharpness"),
    tags=(),
    pinned=False,
    settings={"optimizer.kind": "simple", "penalty.gsam.rho": 0.1, "task.hidden": (), "meta.learn_start": True},
    eta_s=None,
)
JOB = replace(
    BETA, id="20261103-120000-transfer-aaaa", name="transfer", state="crashed", kind=TRANSFER, task="", optimizer="",
    estimator="", penalties=(), latest={}, created=None, seed=None, total=0, step=0, settings={},
)  # fmt: skip


def found(text: str) -> str:
    """Initials of the runs that a filter leaves."""
    predicate = filters.compile(text, filters.names_of((ALPHA, BETA, JOB)))
    return "".join(row.name[0].lower() for row in (ALPHA, BETA, JOB) if predicate(row))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "abt"),
        ("   ", "abt"),
        # words: part of name or id, whatever the case
        ("alpha", "a"),
        ("ALPHA ONE", "a"),
        ("20261102", "b"),
        ("[x]?", "b"),
        ("al*", "a"),
        ("lph*", ""),  # no name begins so
        ("*one", "a"),
        ("*LPHA*", "a"),
        ("20261102*", "b"),
        ("name:pha*", ""),
        ("zzzz alpha", ""),
        # ... or a whole word of task, optimizer, penalties, tags
        ("sam fmnist/cnn", "a"),
        ("gsam -paper", "b"),
        ("fmnist", "ab"),
        ('"Alpha one"', "a"),
        ('"one Alpha"', ""),
        # state: one of several, a beginning does
        ("state:running", "a"),
        ("state:run", "a"),
        ("state:running,crashed", "at"),
        ("state:f", "b"),
        ("state:stopping", ""),
        ("STATE:Running", "a"),
        # whole words
        ("penalty:sam", "a"),
        ("penalty:gsam", "b"),
        ("penalty:sharpness", "b"),
        ("estimator:es", "b"),
        ("-estimator:es", "at"),
        ("objective_sharpness>1", "b"),
        ("penalty:*sam", "ab"),
        ("penalty:none", "t"),
        ("task:mnist", "a"),
        ("task:fmnist", "ab"),
        ("task:fmnist/cnn", "a"),
        ("task:mlp", "a"),
        ("task:mlp*", "ab"),
        ("optimizer:dm", "a"),
        ("optimizer:d", ""),
        ("tag:paper", "a"),
        ("tag:pap", ""),
        ('tag:"night run"', "a"),
        ("tag:none", "bt"),
        # parts
        ("name:alp", "a"),
        ("name:a*one", "a"),
        ("name:[x]?", "b"),
        ("id:k3f9", "a"),
        ("device:cuda", "a"),
        ("message:evalu", "a"),
        ("seed:0", "a"),
        ("seed:1", ""),
        ("seed:0,11", "ab"),
        ("is:live", "a"),
        ("is:pinned", "a"),
        ("is:transfer", "t"),
        # figures
        ("meta_loss<0.5", "a"),
        ("meta-loss<0.5", "a"),
        ("meta_loss<=0.4", "a"),
        ("meta_loss>=0.4", "ab"),
        ("meta_loss=0.6", "b"),
        ("meta_loss!=0.6", "a"),
        ("meta_loss>-1", "ab"),
        ("meta_loss<6e-1", "a"),
        ("test_accuracy>=90%", "a"),
        ("test_accuracy>=0.93", ""),
        ("sharpness<1", ""),  # never measured: no comparison holds
        ("-sharpness<1", "abt"),
        ("sam_penalty>0", "a"),
        ("step>100", "b"),
        ("progress<50%", "at"),
        ("eta<1h", "a"),
        ("age<1d", "a"),
        ("age>2h30m", "ab"),
        ("age>1w", ""),
        # the other way round
        ("-state:finished", "at"),
        ("-alpha", "bt"),
        ('-"Alpha one"', "bt"),
        ("-penalty:sam,gsam", "t"),
        ("-meta_loss<0.5", "bt"),
        # settings, by their path or its end
        ("optimizer.kind:dm", "a"),
        ("kind:d*,simple", "ab"),
        ("penalty.gsam.rho>0.05", "b"),
        ("gsam.rho=0.1", "b"),
        ("gsam.rho:1e-1", "b"),
        ("rho>=0.05", "ab"),  # of whichever penalty
        ("-gam.rho>0", "bt"),  # the whole word: gsam is not gam
        ("gam.rho:none", "bt"),
        ("hidden=10", "a"),  # one of several
        ("optimizer.kind!=dm", "bt"),
        ("learn_start:true", "b"),
        # regular expressions
        ("name~^al.*(one|two)$", "a"),
        ("name~(a|b)", "abt"),
        ("-name~^a", "bt"),
        ("penalty~^g?sam$", "ab"),
        ("optimizer.kind~^s", "b"),
        ("gam.rho~0\\.05", "a"),
        ('name~"alpha o"', "a"),
        # all must hold
        ("state:finished meta_loss<1 task:fmnist", "b"),
        ("state:finished meta_loss<0.5", ""),
        # quotes keep a word a word
        ('"state:running"', ""),
    ],
)
def test_what_a_filter_leaves(text, expected):
    assert found(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("state:runing", "(did you mean running?)"),
        ("stat:running", "(did you mean state?)"),
        ("state:", "state: without a value"),
        ("penalty:,", "penalty: without a value"),
        ("meta_los<1", "(did you mean meta_loss?)"),
        ("meta_loss<", "allowed: a number"),
        ("meta_loss<half", "allowed: a number"),
        ("meta_loss<nan", "allowed: a number"),
        ("age<2", "a length of time"),
        ("age<2y", "a length of time"),
        ("seed:x", "a whole number"),
        ("is:alive", "(did you mean live?)"),
        ("name~(", "a regular expression"),
        ("colour~x", "name"),
        ('"open', 'a closing "'),
        ("alpha -", "a term after -"),
        ('""', "something between the quotes"),
    ],
)
def test_what_is_not_understood_is_told(text, expected):
    with pytest.raises(filters.FilterError, match="^found .+; allowed: ") as caught:
        filters.compile(text)
    assert expected in str(caught.value)


def test_every_state_is_allowed_where_one_is_wrong():
    with pytest.raises(filters.FilterError) as caught:
        filters.compile("state:dead")
    assert all(state in str(caught.value) for state in ("queued", "running", "paused", "stopped", "crashed"))


def test_a_metric_that_only_these_runs_have_may_be_compared():
    with pytest.raises(filters.FilterError):
        filters.compile("temperature>30")
    assert filters.compile("temperature>30", {"temperature"})(replace(ALPHA, latest={"temperature": 31.0}))


def test_a_setting_that_no_run_has_is_told_with_the_nearest():
    names = filters.names_of((ALPHA, BETA))
    for text, nearest in (("penalty.gma.rho>0", "penalty.gam.rho"), ("optimizer.knd:dm", "optimizer.kind")):
        with pytest.raises(filters.FilterError, match=f"did you mean {nearest}?"):
            filters.compile(text, names)
    with pytest.raises(filters.FilterError, match="allowed: a number"):
        filters.compile("optimizer.kind>dm", names)
    assert filters.compile("penalty.gam.rho>0")(ALPHA)  # as it is before any run is read


def test_what_is_not_finite_is_as_if_it_were_not_there():
    assert not filters.compile("meta_loss>0")(replace(ALPHA, latest={"meta_loss": float("inf")}))


def test_errors_do_no_harm_to_a_terminal():
    with pytest.raises(filters.FilterError) as caught:
        filters.compile("state:\x1b[31mred")
    assert "\x1b" not in str(caught.value)


def test_the_help_names_every_field():
    assert all(name in filters.HELP for name in filters.FIELDS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("sta", "state:"),
        ("alpha sta", "alpha state:"),
        ("-sta", "-state:"),
        ("state:ru", "state:running"),
        ("state:finished,ru", "state:finished,running"),
        ("penalty:g", "penalty:gsam"),
        ("-tag:pa", "-tag:paper"),
        ("meta_", "meta_loss<"),
        ("penalty.ga", "penalty.gam.rho:"),
        ("optimizer.kind:s", "optimizer.kind:simple"),
        ("xyz", "xyz"),
        ("seed:1", "seed:1"),
        ("state:", "state:"),
    ],
)
def test_completion(text, expected):
    assert filters.complete(text, [ALPHA, BETA, JOB]) == expected
