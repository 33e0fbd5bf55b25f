"""Manual pages are well formed, and shells complete what the program takes."""

import re
import shlex
import subprocess

from harness import ROOT, binary, program, run

MAN = ROOT / "etc/man"
COMPLETIONS = ROOT / "etc/completions"


def test_man_pages_are_well_formed():
    """mandoc finds nothing to say, but that pages are not installed."""
    pages = sorted(MAN.iterdir())
    assert {page.name for page in pages} >= {
        "mailwren.8", "mailwren.ini.5", "mailwren-queue.8", "sendmail.1", "aliases.5"}
    done = subprocess.run([program("mandoc"), "-T", "lint", *pages], capture_output=True, text=True)
    said = [line for line in (done.stdout + done.stderr).splitlines()
            if "referenced manual not found" not in line and "mandoc.db" not in line]
    assert not said, "\n".join(said)


def commands():
    """The commands that the program has, with what each takes."""
    lines = [line.split("\t") for line in run([binary(), "help", "--table"]).splitlines()]
    return {name: {word for of, _, word, *_ in lines if of in (name, "") and word != name}
            for name, what, *_ in lines if what == "command"}


def bash(*words):
    """What bash offers for the last word."""
    script = f"""source {shlex.quote(str(COMPLETIONS / "mailwren.bash"))}
        COMP_WORDS=(mailwren {shlex.join(words)}); COMP_CWORD={len(words)}
        complete -p mailwren >&2; _mailwren; printf '%s\\n' "${{COMPREPLY[@]}}" """
    done = subprocess.run([program("bash"), "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0 and done.stderr == "complete -F _mailwren mailwren\n", done
    return set(done.stdout.split())


def fish(line):
    """What fish offers at the end of the line."""
    script = f"source {COMPLETIONS / 'mailwren.fish'}; complete -C {shlex.quote(line)}"
    output = run([program("fish"), "--no-config", "-c", script], cwd=ROOT)
    return {offer.split("\t")[0] for offer in output.splitlines()}


def zsh(*words):
    """What zsh would be given to choose from: the functions of its library print their
    arguments here, since they work within its line editor alone."""
    # What stands behind the command is looked at by `_arguments`, which sets the state.
    state, words = ("rest", words) if len(words) > 1 else ("command", words)
    script = f"""_arguments() {{
            print -rl -- "$@"; state={state}
            for one in "$@"; do [[ $one == *"{{"*"}}" ]] && eval "${{${{one##*\\{{}}%\\}}}}"; done; true
        }}
        _describe() {{ print -rl -- "${{(P@)2}}" }}
        words=({shlex.join(words)}); source {shlex.quote(str(COMPLETIONS / "mailwren.zsh"))}"""
    output = run([program("zsh"), "-f", "-c", script])
    return {re.split(r"[\[:]", line)[0] for line in output.splitlines()}


def test_bash_completes():
    """Commands, options, verbs and files."""
    known = commands()
    assert bash("") >= {*known, "help", "--config", "--version"}
    assert bash("de") == {"demo"}
    for name, words in known.items():
        assert bash(name, "") >= words, name
        assert bash("--config", "x", name, "") >= words, name
    assert "list" not in bash("queue", "hold", "") and "--all" in bash("queue", "hold", "")
    assert bash("check", "--config", "Cargo.t") == {"Cargo.toml"}
    assert bash("demo", "--dir", "sr") == {"src"}
    assert bash("demo", "--listen", "") == set()
    assert bash("help", "ch") == {"check"}


def test_fish_completes():
    """The same."""
    known = commands()
    assert fish("mailwren ") >= {*known, "help"}
    for name, words in known.items():
        offered = fish(f"mailwren {name} ") | fish(f"mailwren {name} --")
        assert offered >= words, (name, words - offered)
    assert "list" not in fish("mailwren queue hold ")
    assert "Cargo.toml" in fish("mailwren check --config Cargo.t")


def test_zsh_completes():
    """The same, as far as it can be asked without a terminal."""
    known = commands()
    assert zsh("") >= {*known, "help", "--config", "--version"}
    for name, words in known.items():
        offered = zsh(name, "")
        assert offered >= words - {"--help", "--config"}, (name, words - offered)
