"""What the two READMEs tell users to type exists, and the Chinese one is a counterpart of the English one."""

from __future__ import annotations

import re
import shlex

import click
import pytest
from readme import ROOT, commands, text_of

from streams.cli import cli

NAMES = ("README.md", "README.zh-CN.md")


def test_both_languages_give_the_same_commands_examples_and_links() -> None:
    english, chinese = NAMES
    assert commands(english) == commands(chinese)
    assert len(commands(english)) >= 30
    for pattern in (r"```json\n(.*?)```", r"`([^`\n]+)`", r"\]\(([^)]+)\)"):
        found = [set(re.findall(pattern, re.sub(r"```sh\n.*?```", "", text_of(name), flags=re.S), re.S))
                 for name in NAMES]  # fmt: skip
        assert found[0] - {chinese} == found[1] - {english}
    titles = [re.findall(r"^(#+) ", text_of(name), re.M) for name in NAMES]
    assert titles[0] == titles[1]


def test_both_languages_give_the_same_figures() -> None:
    """Every number of three digits or more, and every decimal and percentage."""
    pattern = r"\d[\d,]*\d{2}|\.\d+|\d+\.\d+|\d+%"
    english, chinese = (sorted(re.findall(pattern, text_of(name))) for name in NAMES)
    assert set(english) == set(chinese)


def test_they_lead_to_each_other_and_to_files_that_are_there() -> None:
    for name in NAMES:
        for link in re.findall(r"\]\(([^)]+)\)", text_of(name)):
            assert (ROOT / link).exists(), link


@pytest.mark.parametrize("line", [line for line in commands(NAMES[0]) if line.startswith("tocsin ")])
def test_every_command_is_one_that_the_command_line_takes(line: str) -> None:
    group, words = cli, shlex.split(line)[1:]
    context = click.Context(cli, info_name="tocsin")
    while True:
        name, command, words = group.resolve_command(context, words)
        assert command is not None, name
        if not isinstance(command, click.Group):
            break
        context, group = click.Context(command, info_name=name, parent=context), command
    parser = command.make_parser(click.Context(command, info_name=name, parent=context))
    _, left, _ = parser.parse_args(args=list(words))
    assert left == [], f"{line}: {left}"
