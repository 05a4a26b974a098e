"""What every command has in common."""

import pytest

from attacker_metrics.commands import cli

COMMANDS = ("evaluate", "views", "compare", "faithfulness", "semsim", "annotate", "study", "zoo", "selftest")


@pytest.mark.parametrize("command", ["", *COMMANDS, "semsim train", "zoo apply"])
def test_help_is_printed_whole(command, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([*command.split(), "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: attacker-metrics {command}".rstrip())
    assert "%%" not in text
    assert "--help" in text
