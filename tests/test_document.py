"""Files, `extends` and `--set`: what they say together, and who is told when they say nonsense."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from engine.base.errors import PresetError
from engine.presets.preset import find, load_preset, merge, shipped


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name: str, text: str | bytes) -> str:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return name


def refused(name: str | os.PathLike[str], *sets: str) -> list[str]:
    """The lines of the error: each names its source, what was found and what is allowed, and harms no terminal."""
    with pytest.raises(PresetError) as caught:
        load_preset(name, sets)
    lines, more = str(caught.value).splitlines(), caught.value.more
    assert len(lines) == len(caught.value.problems) + bool(more)
    assert all(line.isprintable() and ": found " in line and "; allowed: " in line for line in lines if not more), lines
    return lines


# -- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", ["", "# nothing\n", b"\xef\xbb\xbf", "\r\n"])
def test_an_empty_file_is_a_valid_preset_called_after_it(content):
    preset = load_preset(write("my first.toml", content))
    assert preset.name == "my first" and preset["optimizer"]["kind"] == "dm" and preset["penalty"] == {}
    assert load_preset(write("explicit.toml", 'name = ""')).name == "explicit"


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("[meta\n", "no valid TOML: Expected ']'"),
        ("a = 1\na = 2\n", "no valid TOML: Cannot overwrite"),
        ("a\x00b = 1", "no valid TOML"),
        ('a = "\x1b[31m"', "no valid TOML: Illegal character '\\x1b'"),
        (b"\xff\xfe\x00", "bytes that are not UTF-8"),
        ("a = " + "[" * 100_000, "no valid TOML"),
        ("a = " + "1" * 5000, "no valid TOML: a number of thousands of digits"),
        (".".join("a" * 900) + " = 1", "tables nested too deeply"),
        ("x = '" + "y" * 2_000_000 + "'", "more than a megabyte"),
    ],
    ids=["syntax", "twice", "null", "escape", "bytes", "brackets", "digits", "dots", "large"],
)
def test_a_file_that_is_no_preset(content, found):
    (line,) = refused(write("bad.toml", content))
    assert line.startswith(f"bad.toml: found {found}"), line


@pytest.mark.parametrize(
    ("argument", "found"),
    [
        ("nowhere.toml", "no such file and no shipped preset of that name"),
        ("", "a folder"),
        ("..", "a folder"),
        ("pipe", "no ordinary file"),
        ("x" * 5000, "no such file"),
        ("a\x00b", "no such file"),
        ("\x1b[2J\n", "no such file"),
        ("./lo", "no such file"),
    ],
)
def test_a_preset_that_is_not_there(argument, found):
    os.mkfifo("pipe")
    (line,) = refused(argument)
    assert f": found {found}" in line and "one of: adafac, flat-1, " in line


def test_a_near_miss_of_a_shipped_name():
    for argument in ("quikstart", "Quickstart", "quikstart.toml", "presets/quikstart.toml"):
        assert "did you mean quickstart?" in refused(argument)[0]
    assert find("lo") == find("lo.toml") == shipped()["lo"]
    write("lo", "seed = 7")
    assert load_preset("lo").seed == 7  # a file that is there comes first


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read():
    os.chmod(write("secret.toml", ""), 0)
    assert refused("secret.toml") == ["secret.toml: found Permission denied; allowed: a readable file"]


def test_a_file_that_cannot_be_read(monkeypatch):
    def fail(*arguments, **options):
        raise OSError(5, "Input/output error")

    write("broken.toml", "")
    monkeypatch.setattr("os.open", fail)
    assert refused("broken.toml") == ["broken.toml: found Input/output error; allowed: a readable file"]


# -- extends ---------------------------------------------------------------------------------------------------------


def test_a_child_says_only_what_differs():
    write("base.toml", "name = 'base'\nseed = 3\ntags = ['a', 'b']\n[meta]\nepochs = 7\ninner_steps = [50, 60]\n")
    child = load_preset(write("sub/child.toml", "extends = '../base.toml'\ntags = ['c']\n[meta]\ntruncation = 5\n"))
    assert (child.name, child.seed, child["tags"]) == ("child", 3, ("c",))  # its own name; lists are replaced
    assert [child["meta"][key] for key in ("epochs", "truncation", "inner_steps")] == [7, 5, (50, 60)]  # tables merge
    grandchild = load_preset(write("grandchild.toml", "extends = 'sub/child.toml'\nname = 'own'\nmeta.epochs = 8\n"))
    assert (grandchild.name, grandchild["meta"]["epochs"], grandchild["meta"]["truncation"]) == ("own", 8, 5)


def test_a_shipped_preset_can_be_extended_even_by_a_file_of_its_name():
    for parent in ("lo-sam", "lo-sam.toml"):
        assert load_preset(write("mine.toml", f"extends = '{parent}'"))["penalty"]["sam"]["weight"] == 10.0
    assert load_preset(write("lo.toml", "extends = 'lo'\nseed = 1"))["meta"]["epochs"] == 1000
    assert 'extends = "lo" is the shipped one' in refused(write("lo.toml", "extends = 'lo.toml'"))[0]


def test_a_parent_is_looked_for_beside_its_child_not_in_the_current_folder():
    write("other.toml", "")
    assert "no such file" in refused(write("sub/child.toml", "extends = 'other.toml'"))[0]


def test_a_circle_and_an_endless_chain():
    write("a.toml", "extends = 'b.toml'")
    write("b.toml", "extends = './a.toml'")
    assert refused("a.toml") == [
        "b.toml: extends: found a circle of presets; allowed: a preset that does not extend this one"
    ]
    for index in range(1200):
        write(f"{index}.toml", f"extends = '{index + 1}.toml'")
    write("1200.toml", "")
    assert "extends: found too long a chain" in refused("0.toml")[0]
    assert load_preset("1190.toml").name == "1190"


def test_a_chain_is_bounded_as_a_file_is():
    for index in range(5):
        write(f"{index}.toml", f"extends = '{index + 1}.toml'\n" + "# \n" * 80_000)
    write("5.toml", "")
    (line,) = refused("0.toml")
    assert "extends: found a chain of presets of more than a megabyte; allowed: at most a megabyte in all" in line
    assert load_preset("3.toml").name == "3"


@pytest.mark.parametrize(
    "value", ["3", "['lo']", "''", "'nowhere'", "'.'", f"'{'x' * 5000}'", '"a\\u0000b"', '"\\u001b"']
)
def test_a_parent_that_is_none(value):
    (line,) = refused(write("child.toml", f"extends = {value}"))
    assert line.startswith("child.toml: extends: found ")


def test_a_problem_is_reported_where_it_stands():
    write("base.toml", "[meta]\nepoch = 1\nmomentum = 2\n[penalty.sam]\nrho = -1\n")
    lines = refused(
        write("child.toml", "extends = 'base.toml'\n[meta]\nmomentum = 3\n"), "penalty.sam.rho=-2", "seed=x"
    )
    assert [line.split(": found")[0] for line in lines] == [
        "--set: seed", "child.toml: meta.momentum", "base.toml: meta.epoch", "--set: penalty.sam.rho"
    ]  # fmt: skip
    write("base.toml", "[meta\n")
    assert refused("child.toml")[0].startswith("base.toml: found no valid TOML")


def test_another_member_does_not_inherit_the_settings_of_the_old_one():
    write(
        "base.toml", "[optimizer]\nlayers = 1\nhidden = 5\n[task]\ndataset = 'cifar10'\naugment = true\nhidden = [3]\n"
    )
    child = load_preset(
        write("child.toml", "extends = 'base.toml'\n[optimizer]\nkind = 'simple'\n[task]\noptimizee = 'lenet'\n")
    )
    later = {"features": (), "step_scale": "none", "base_width": 32, "sparse_rows": True}
    assert child["optimizer"] == {"kind": "simple", "hidden": 5, "theta_input": False, "output_scale": 1.0, **later}
    assert child.tasks[0]["augment"] and "hidden" not in child.tasks[0]
    again = load_preset("base.toml", ["task.dataset=mnist", "optimizer.kind=rnnprop"])
    assert again["optimizer"]["layers"] == 1 and again.tasks[0]["hidden"] == (3,) and "augment" not in again.tasks[0]
    for sets in (["optimizer.kind=simple", "optimizer.layers=2"], ["optimizer.layers=2", "optimizer.kind=simple"]):
        assert refused("base.toml", *sets)[0].startswith('--set: optimizer.layers: found a key that kind = "simple"')
    assert "child.toml: task.augment" in refused(
        write("child.toml", "extends = 'base.toml'\n[task]\ndataset = 'mnist'\naugment = true\n")
    )[0]  # fmt: skip


def test_merge_leaves_its_arguments_alone():
    base, over = {"a": {"b": [1], "c": 1}, "d": 1}, {"a": {"b": [2]}, "d": {"e": 1}}
    merged = merge(base, over)
    assert merged == {"a": {"b": [2], "c": 1}, "d": {"e": 1}}
    merged["a"]["b"].append(3)
    assert (base, over) == ({"a": {"b": [1], "c": 1}, "d": 1}, {"a": {"b": [2]}, "d": {"e": 1}})


# -- overrides -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("seed=5", "seed", 5),
        ("meta.epochs=5", "meta.epochs", 5),
        (" meta . epochs = 5 ", "meta.epochs", 5),
        ("meta.learning_rate=1e-3", "meta.learning_rate", 0.001),
        ("meta.learning_rate=1", "meta.learning_rate", 1.0),
        ("meta.second_order=true", "meta.second_order", True),
        ("meta.weights=linear", "meta.weights", "linear"),
        ('meta.weights="linear"', "meta.weights", "linear"),
        ("meta.inner_steps=[30, 40]", "meta.inner_steps", (30, 40)),
        ("meta.inner_steps=30", "meta.inner_steps", 30),
        ("evaluation.radii=[1,2]", "evaluation.radii", (1.0, 2.0)),
        ("evaluation.radii.1=7", "evaluation.radii", (0.1, 7.0)),
        ("tags=[]", "tags", ()),
        ('tags=["a", "b"]', "tags", ("a", "b")),
        ("name='2024'", "name", "2024"),
        ("name=", "name", "base"),
        ("description=a=b", "description", "a=b"),
        ("description=#1", "description", "#1"),
        ("description=two words", "description", "two words"),
        ("description=a\nseed = 3", "description", "a\nseed = 3"),
        ("task.dataset=mnist", "task.dataset", "mnist"),
        ("task.0.dataset=mnist", "task.dataset", "mnist"),
        ("penalty.sam={}", "penalty.sam.rho", 0.01),
        ("penalty.gam.rho=0.5", "penalty.gam.rho", 0.5),
        ("penalty.smooth={epsilon = 2}", "penalty.smooth.epsilon", 2.0),
    ],
)  # fmt: skip
def test_an_override(text, path, value):
    write("parent.toml", "[task]\ndataset = 'fmnist'\n[meta]\nepochs = 1\n[evaluation]\nradii = [0.1, 0.2]\n")
    write("base.toml", "extends = 'parent.toml'\n[penalty.gam]\nweight = 3\n")
    preset = load_preset("base.toml", [text])
    found = preset.flat()[path]
    assert found == value and type(found) is type(value)
    assert preset["penalty"]["gam"]["weight"] == 3.0  # what was inherited stays


def test_an_override_can_take_a_table_away():
    assert load_preset("lo-sam", ["penalty={}"])["penalty"] == {}
    assert load_preset("lo-sam", ["penalty={}", "penalty.gam.rho=1"])["penalty"].keys() == {"gam"}


def test_the_last_override_wins_and_files_stay_as_they_are():
    assert load_preset("quickstart", ["seed=1", "seed=2"]).seed == 2
    assert load_preset("quickstart").seed == 0


def test_overrides_of_several_tasks():
    write("tasks.toml", "[[task]]\n[[task]]\ndataset = 'mnist'\n")
    preset = load_preset("tasks.toml", ["task.1.batch_size=5", "task.0.dataset=fmnist"])
    assert [(task["dataset"], task["batch_size"]) for task in preset.tasks] == [("fmnist", 128), ("mnist", 5)]
    assert preset.flat()["task.1.batch_size"] == 5
    for text in ("task.2.dataset=mnist", "task.dataset=mnist", "task.-1.dataset=mnist", "task.².dataset=mnist"):
        assert "allowed: task.0 to task.1" in refused("tasks.toml", text)[0]
    assert refused("tasks.toml", f"task.{'9' * 5000}.dataset=mnist")[0].endswith("task.0 to task.1")
    write("lone.toml", "[[task]]\ndataset = 'mnist'\n")
    for text in ("task.batch_size=5", "task.0.batch_size=5"):
        assert load_preset("lone.toml", [text]).tasks[0]["batch_size"] == 5


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("meta.epochs", 'found "meta.epochs"; allowed: key.path=value (as in --set meta.epochs=5)'),
        ("", "key.path=value"),
        ("=3", "key.path=value"),
        ("meta..epochs=3", "key.path=value"),
        ("meta.epochs=", 'meta.epochs: found ""; allowed: an integer >= 0'),
        ("meta.epochs=ten", 'meta.epochs: found "ten"'),
        ("meta.epochs=5.0", "(write 5)"),
        ("meta.epochs.x=1", "meta.epochs.x: found no table at meta.epochs, but 1"),
        ("evaluation.radii=[0.1", 'evaluation.radii: found "[0.1"; allowed: a TOML value (unclosed array'),
        ("evaluation.radii=0.1,0.2", "write [0.1, 0.2] without quotes"),
        ('name="a', "name: found"),
        ('name="a"\nseed = 3', "allowed: a TOML value (more than a value)"),
        ("name=5", 'write "5", in quotes'),
        ("name=\udcff", "no Unicode text"),
        ("penalty.sam=false", "penalty.sam.weight = 0 makes it count nothing"),
        ("penalty=sam", "did you mean [penalty.sam]?"),
        ("optimizer=simple", 'did you mean optimizer.kind = "simple"?'),
        ("task=mnist", 'did you mean task.dataset = "mnist"?'),
        ("extends=lo", "extends in a file"),
        ("epochs=3", "did you mean meta.epochs?"),
        ("\x1b[2J.x=\x1b", r"\x1b[2J: found an unknown key"),
        ("meta.epochs={x=1}", "found a table"),
    ],
)
def test_a_bad_override(text, words):
    (line,) = refused(write("base.toml", "meta.epochs = 1"), text)
    assert line.startswith("--set: ") and words in line


def test_all_bad_overrides_at_once_with_the_files_own_problems():
    lines = refused(write("base.toml", "sede = 1"), "nope", "meta.epochs=x", "seed=-1", "meta.epochs.y=2")
    assert [line.split(": found")[0] for line in lines] == [
        "--set", "--set: meta.epochs.y", "--set: seed", "base.toml: sede", "--set: meta.epochs"
    ]  # fmt: skip


# -- of strangers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["/proc/kmsg", "/dev/zero", "/proc/self/mem", "pipe.toml", "."])
def test_nothing_but_a_file_is_opened_and_nothing_waits(target):
    os.mkfifo("pipe.toml")
    write("child.toml", f'extends = "{target}"')
    (line,) = refused("child.toml")
    assert "not a regular file" in line or "no ordinary file" in line or "a folder" in line


@pytest.mark.parametrize(
    "text",
    [
        "\n".join(f"key{number} = 1" for number in range(20_000)),
        "[meta]\n" + "\n".join(f"epoch{number} = 1" for number in range(20_000)),
        "\n".join(f"[penalty.sma{number}]" for number in range(20_000)),
        "\n".join("[[task]]\ndataset = 'minst'" for _ in range(20_000)),
        "x" * 500_000 + " = 1",
    ],
)
def test_many_mistakes_are_counted_not_told(text):
    write("many.toml", text)
    began = time.process_time()
    lines = refused("many.toml")
    assert time.process_time() - began < 5
    assert len(lines) <= 50 and sum(map(len, lines)) < 50_000
    assert len(lines) == 1 or lines[-1] == "and 19960 more problems"


def test_many_overrides_are_counted_not_told():
    write("fine.toml", "")
    lines = refused("fine.toml", *(f"meta.key{number}=1" for number in range(2000)))
    assert lines[-1] == "and 1960 more problems" and len(lines) == 41
