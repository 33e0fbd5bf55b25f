"""Manual pages are well formed, and shells complete what the program takes."""

import contextlib
import os
import pty
import shlex
import subprocess

from harness import ROOT, binary, folder, program, run

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


# What zsh reads at its start. Every word that its completion would offer is a line for the test; ^X
# adds the command line as it is then, behind a `=`, and begins a new one.
ZSHRC = """PS1=
autoload -U compinit && compinit -D -u
compadd() {
    local -a offers
    if [[ -z ${argv[(r)-[OAD]]} ]]; then
        builtin compadd -O offers "$@"
        print -rl -u $TOLD -- $offers
    fi
    builtin compadd "$@"
}
tell() { print -r -u $TOLD -- "=$BUFFER"; BUFFER= }
zle -N tell
zle-line-init() { print -u $TOLD ready }
zle -N zle-line-init
bindkey '^I' complete-word '^X' tell
"""


@contextlib.contextmanager
def zsh():
    """A zsh at a terminal: a function that says what it offers when Tab is pressed at the end of a
    line, and what the line is then."""
    with contextlib.ExitStack() as stack:
        home = stack.enter_context(folder())
        (home / "_mailwren").symlink_to(COMPLETIONS / "mailwren.zsh")
        (home / ".zshrc").write_text(f"fpath=({home} $fpath)\n{ZSHRC}")
        keys, terminal = pty.openpty()
        reader, writer = os.pipe()
        environment = {**os.environ, "ZDOTDIR": str(home), "TERM": "dumb", "TOLD": str(writer)}
        shell = subprocess.Popen(
            [program("zsh"), "-d", "-i"], stdin=terminal, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, cwd=ROOT, env=environment, pass_fds=[writer],
            start_new_session=True)
        stack.callback(shell.wait)
        stack.callback(shell.kill)
        for end in (keys, terminal):
            stack.callback(os.close, end)
        os.close(writer)
        told = stack.enter_context(open(reader))

        def ask(line):
            os.write(keys, line.encode() + b"\t\x18")
            offered = set()
            for word in iter(told.readline, ""):
                if word.startswith("="):
                    return offered, word[1:].rstrip("\n")
                offered |= {word.strip()} - {""}
            raise AssertionError(f"zsh has ended at {line!r}")
        assert told.readline() == "ready\n"
        yield ask


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
    assert bash("check", "--config", "=", "Cargo.t") == bash("--config", "=", "Cargo.t")
    assert bash("check", "--config", "=", "Cargo.t") == {"Cargo.toml"}
    assert bash("--config", "=", "x", "de") == {"demo"}
    assert bash("help", "ch") == {"check"}


def test_fish_completes():
    """The same."""
    known = commands()
    assert fish("mailwren ") >= {*known, "help"}
    for name, words in known.items():
        offered = fish(f"mailwren {name} ") | fish(f"mailwren {name} --")
        assert offered >= words, (name, words - offered)
        assert fish(f"mailwren --config x {name} --") >= words & {"--json", "--all"}, name
    assert fish("mailwren --config x de") == {"demo"} == fish("mailwren help de")
    assert "list" not in fish("mailwren queue hold ")
    assert fish("mailwren queue --to x ho") == {"hold"} and not fish("mailwren passwd queue ho")
    assert "Cargo.toml" in fish("mailwren check --config Cargo.t")


def test_zsh_completes():
    """The same, by its line editor on a terminal."""
    known = commands()
    with zsh() as ask:
        assert ask("mailwren ")[0] == {*known, "help"}
        for name, words in known.items():
            options = {word for word in words if word.startswith("--")}
            assert ask(f"mailwren {name} --")[0] == options, name
        assert ask("mailwren queue ")[0] == {word for word in known["queue"] if word[0] != "-"}
        for line, completed in {
                "q": "queue ", "--config x de": "--config x demo ", "--v": "--version ",
                "help st": "help status ", "demo --d": "demo --dir ", "queue ho": "queue hold ",
                "queue --to x ho": "queue --to x hold ",
                "queue hold --al": "queue hold --all ",
                "check --config Cargo.t": "check --config Cargo.toml ",
                "demo --dir sr": "demo --dir src/"}.items():
            assert ask(f"mailwren {line}")[1] == f"mailwren {completed}", line
