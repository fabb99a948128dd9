"""Scripts that complete: bash runs its one here; zsh and fish where they are installed."""

from __future__ import annotations

import shlex
import shutil
import subprocess

import pytest

import framebank
from framebank import cli
from framebank.features.commands.completion_command import SHELLS, Taken, find_commands


@pytest.fixture(scope="module")
def commands() -> dict[str, Taken]:
    return find_commands()


_COMPLETE = """
source /dev/stdin <<'END'
%s
END
while read -r line; do
    read -r -a COMP_WORDS <<< "$line"
    [[ $line == *. ]] && COMP_WORDS[${#COMP_WORDS[@]}-1]=
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) COMPREPLY=()
    _framebank
    echo "${COMPREPLY[*]}"
done <<'END'
%s
END
"""


def test_bash_completes_commands_options_and_choices(commands: dict[str, Taken]) -> None:
    wanted = {
        "framebank insp": "inspect",
        "framebank models li": "list",
        "framebank .": " ".join(cli.COMMANDS),
        "framebank --v": "--version",
        "framebank models .": " ".join(commands["models"].inner),
        "framebank models list --reg": "--registry",
        "framebank train --model-kind b": "bigru",
        "framebank train --model-kind = b": "bigru",
        "framebank train --lr-schedule = .": "constant cosine plateau",
        "framebank train --max": "--max-unmatched-ratio",
        "framebank extract clips --runner P": "PrismRunner",
        "framebank extract --quiet clips --che": "--check",
        "framebank train --labels cl": "",  # files come by the shell's own default
        "framebank completion .": "bash zsh fish",
    }
    script = "\n".join(SHELLS["bash"](commands))
    typed = _COMPLETE % (script, "\n".join(wanted))
    done = subprocess.run(["bash", "-c", typed], capture_output=True, text=True, check=True)
    found = dict(zip(wanted, done.stdout.split("\n"), strict=False))
    assert done.stderr == "" and found == wanted


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_names_every_option_and_is_no_mistake(
    shell: str, commands: dict[str, Taken], capsys: pytest.CaptureFixture[str]
) -> None:
    script = "\n".join(SHELLS[shell](commands))
    for name, taken in commands.items():
        assert name in script and len(taken.options) > 2
        for option in taken.options:
            assert all(text.lstrip("-") in script for text in option.names)
    if shell == "fish":
        for line in script.splitlines()[1:]:
            assert shlex.split(line.replace("\\'", ""))[:3] == ["complete", "-c", "framebank"]
    if shutil.which(shell):
        no_run = [shell, "-n"] if shell != "fish" else [shell, "--no-execute"]
        assert subprocess.run(no_run, input=script, text=True).returncode == 0
    if shell == "bash":
        assert framebank.main(["completion", shell]) == 0
        said = capsys.readouterr()
        assert (said.out, said.err) == (f"{script}\n", "")
