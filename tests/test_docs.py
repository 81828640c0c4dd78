"""The documentation holds: links, commands, presets, keys, names and snippets are those of the code."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import itertools
import json
import re
import shlex
from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tomli

import engine
from engine.presets import catalog
from engine.presets.preset import load_preset, shipped
from engine.study.plan.document import load_study
from engine.study.plan.sources import shipped_studies

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
CODE = re.compile(r"`([^`]+)`")
VARIABLE = re.compile(r"\bLREG_[A-Z_]+")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


@cache
def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path, language: str) -> list[str]:
    return [code for kind, code in FENCE.findall(text_of(page)) if kind == language]


def prose(page: Path) -> str:
    return FENCE.sub("", text_of(page))


def inline(page: Path) -> list[str]:
    return [" ".join(code.split()) for code in CODE.findall(prose(page))]


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_the_generated_references_are_up_to_date():
    spec = importlib.util.spec_from_file_location("reference", ROOT / "docs" / "reference.py")
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    for name, text in reference.pages().items():
        assert text == text_of(ROOT / "docs" / name), f"docs/{name} is out of date: python docs/reference.py"


@each_page
def test_links_lead_somewhere(page):
    for target in LINK.findall(CODE.sub("", prose(page))):
        if re.match(r"\w+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = page if not path else page.parent / path
        assert linked.exists(), f"{page.name}: {target}: no such file"
        assert not anchor or anchor in anchors(linked), f"{page.name}: {target}: no such heading"


def test_what_the_code_cites_is_there():
    for path in itertools.chain(*((ROOT / package).rglob("*.py") for package in ("engine", "lreg_tui", "tests"))):
        for page, _, anchor in re.findall(r"(docs/[\w-]+\.md)(#([\w-]+))?", path.read_text(encoding="utf-8")):
            assert (ROOT / page).exists(), f"{path.name}: no {page}"
            assert not anchor or anchor in anchors(ROOT / page), f"{path.name}: no {page}#{anchor}"


def test_every_page_is_reached_from_the_readme():
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        reached.add(page)
        links = (page.parent / target.partition("#")[0] for target in LINK.findall(prose(page)))
        waiting += [link.resolve() for link in links if link.suffix == ".md" and link.resolve() not in reached]
    assert {page for page in PAGES if page.parent.name == "docs"} <= reached


# the command line


@cache
def lreg() -> Any:
    import typer

    from lreg_tui.cli.commands import app

    return typer.main.get_command(app)


def shell_commands(page: Path) -> Iterator[list[str]]:
    """Every command of a page's shell snippets, as words."""
    for line in "\n".join(blocks(page, "sh")).replace("\\\n", " ").splitlines():
        words = shell_words(line)
        for is_end, group in itertools.groupby(words, lambda word: word in (";", "&", "&&", "||", "|")):
            if not is_end:
                yield list(group)


def shell_words(line: str) -> list[str]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|")
    lexer.whitespace_split = True
    return list(lexer)


def is_lreg(words: list[str]) -> bool:
    return Path(words[0]).name == "lreg"


def command_of(words: list[str]) -> tuple[Any, list[str]]:
    """The command that words after `lreg` name, and what is left of them."""
    command, rest = lreg(), list(words)
    while rest and hasattr(command, "commands") and not rest[0].startswith("-"):
        name = rest.pop(0)
        assert name in command.commands, f"lreg {' '.join(words)}: no command {name}"
        command = command.commands[name]
    return command, rest


@each_page
def test_commands_in_shell_snippets_are_understood(page, monkeypatch):
    monkeypatch.setattr("engine.base.plugins.use", lambda names, *_: None)  # they name files of the reader
    monkeypatch.setattr("engine.export.loggers.use", lambda names: None)  # and packages
    for words in filter(is_lreg, shell_commands(page)):
        command, rest = command_of(words[1:])
        command.make_context("lreg", rest)  # raises a usage error for what it does not know


@each_page
def test_commands_in_the_text_exist(page):
    for code in inline(page):
        words = shell_words(code) if code.startswith("lreg ") else []
        if len(words) < 2 or words[1].isupper():
            continue
        command, rest = command_of([word for word in words[1:] if word != "&"])
        options = {name for item in command.params for name in (*item.opts, *item.secondary_opts)} | {"--help"}
        for word in rest:
            assert not word.startswith("--") or word in options, f"{code}: no option {word}"


@each_page
def test_console_options_exist(page):
    from lreg_tui.app import parse

    for words in shell_commands(page):
        if words[0] == "lreg-tui":
            parse(words[1:])
    for code in inline(page):
        if code.startswith("lreg-tui "):
            parse([word for word in code.split()[1:] if word != "[OPTIONS]"])


# presets


def check_preset(name: str) -> None:
    """A name that a reader is to type: a shipped preset, a file of the reader's own, or a PLACEHOLDER."""
    assert name.isupper() or name.endswith(".toml") or name in shipped(), f"no preset {name}"


@each_page
def test_presets_exist(page):
    for words in filter(is_lreg, shell_commands(page)):
        match words[1:]:
            case ["run", name, *_] | ["preset", "show" | "check", name, *_] | ["preset", "new", _, "--from", name]:
                check_preset(name)
            case ["study", name, *_]:
                assert name.isupper() or name.startswith("STUDY") or name.endswith(".toml") or name in shipped_studies()
    for name in re.findall(r'load_preset\("([^"]+)"', text_of(page)):
        check_preset(name)
    known = [*shipped(), *shipped_studies()]
    families = {name.split("-")[0] for name in known if "-" in name}
    members = catalog.load().learned_optimizers
    for code in inline(page):
        if re.fullmatch(r"[a-z]+(-[a-z0-9]+)+\*?", code) and code.split("-")[0] in families and code not in members:
            assert any(fnmatchcase(name, code) for name in known), f"{page.name}: no preset {code}"


TABLES = r"task|optimizer|meta|evaluation|penalty\.\w+|objective\.terms\.\w+(?=\.)|objective"


@each_page
def test_keys_exist(page):
    tables = catalog.build()
    keys = {f"{table}.{item.name}" for table, schema in tables.sections.items() for item in schema}
    families = {"task": (tables.datasets, tables.optimizees), "optimizer": (tables.learned_optimizers,)}
    families |= {"meta": (tables.estimators,)}
    for table, members in families.items():
        keys |= {f"{table}.{item.name}" for family in members for schema in family.values() for item in schema}
    keys |= {"optimizer.kind", "meta.estimator"}
    for section, named_members in tables.named_tables().items():
        keys |= {f"{section}.{name}.{item.name}" for name, schema in named_members.items() for item in schema}
    for code in inline(page):
        named = re.match(rf"((?:{TABLES})\.[a-z_]+)(?= |=|$)", code)
        assert named is None or named[1] in keys, f"{page.name}: no key {named[1]}"


@each_page
def test_toml_snippets_are_presets_and_studies(page, tmp_path):
    for code in blocks(page, "toml") if page.name != "extending.md" else ():  # which test_extending.py follows
        path = tmp_path / "mine.toml"
        path.write_text(code, encoding="utf-8")
        if "arm" in tomli.loads(code):
            load_study(path)
        else:
            load_preset(path)


# Python, JSON, files


@each_page
def test_json_snippets_parse(page):
    for code in blocks(page, "json"):
        json.loads(code)


@each_page
def test_names_of_the_engine_in_python_snippets_exist(page):
    for code in blocks(page, "python"):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.Attribute):
                resolve(node)
            if isinstance(node, ast.Call) and callable(function := resolve(node.func)):
                known = inspect.signature(function).parameters
                takes_any = any(item.kind is item.VAR_KEYWORD for item in known.values())
                for keyword in node.keywords:
                    assert takes_any or keyword.arg in known, f"{ast.unparse(node)}: no argument {keyword.arg}"


def resolve(node: ast.AST) -> Any:
    """What `engine.a.b` is; None for what begins otherwise. Raises AttributeError where there is no such name."""
    if isinstance(node, ast.Name):
        return engine if node.id == "engine" else None
    if isinstance(node, ast.Attribute):
        holder = resolve(node.value)
        return None if holder is None else getattr(holder, node.attr)
    return None


@each_page
def test_files_and_variables_of_the_text_exist(page):
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "engine").rglob("*.py"))
    unknown = set(re.findall(VARIABLE, text_of(page))) - set(re.findall(VARIABLE, sources))
    assert not unknown, f"{page.name}: no variable {unknown}"
    for code in inline(page):
        if re.fullmatch(r"(engine|lreg_tui|tests|docs|presets)/[\w./]+", code):
            assert (ROOT / code).exists(), f"{page.name}: no {code}"
