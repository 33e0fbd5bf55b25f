"""`check`, `demo` and the command line."""

import os
import re
import signal
import subprocess

from harness import ROOT, Server, binary, emulated, folder, free_port, run, wait_for

EX_USAGE, EX_CONFIG = 64, 78


def check(path, expect):
    """Runs `mailwren check` on a file."""
    return run([binary(), "check", "--config", path], expect=expect)


def test_check_good():
    """A good configuration ends with 0."""
    with Server() as server:
        # In an emulator a server that runs goes by the emulator's name, and would be another one.
        server.stop()
        check(server.config_path, 0)


def test_check_shipped():
    """The configuration that is shipped has no mistake in it."""
    # Its hosts and folders need not exist here; every line of it must be understood.
    done = subprocess.run([binary(), "check", "--config", "etc/mailwren.ini"], timeout=60,
                          cwd=ROOT, capture_output=True, text=True)
    assert done.returncode in (0, EX_CONFIG), done
    complaints = re.findall(r"mailwren\.ini:\d+: .*", done.stdout + done.stderr)
    assert not complaints, complaints


def test_check_mistakes():
    """Every mistake is told as file:line, what, and what to do; the exit code is 78."""
    mistakes = [
        ("[server]\nhostnam = mx.test\n", 2, "hostname"),
        ("[sever]\nhostname = mx.test\n", 1, "server"),
        ("[server]\nhostname = mx.test\n\nmax_sessions = many\n", 4, "max_sessions"),
        ("[local]\nformat = mailder\n", 2, "maildir"),
        ("[server]\nmax_message_size = 35X\n", 2, "max_message_size"),
        ("[queue]\nretry = soon\n", 2, "retry"),
        ("[listen.smtp]\naddress = nowhere\n", 2, "address"),
        ("[relay]\nnetworks = 127.0.0.0/33\n", 2, "networks"),
        ("[server]\nno equals sign\n", 2, "="),
        ("[server]\nhostname = mx.test\nhostname = my.test\n", 3, "hostname"),
        ("hostname = mx.test\n", 1, "section"),
        ("[log]\nlevel = loud\n", 2, "info"),
    ]
    with folder() as files:
        path = files / "broken.ini"
        for text, line, hint in mistakes:
            path.write_text(text)
            printed = check(path, EX_CONFIG)
            found = [p for p in printed.splitlines() if p.startswith(f"{path}:{line}: ")]
            assert found, f"{text!r} gave {printed!r}"
            assert hint in found[0], f"{text!r} gave {found[0]!r}"
        path.write_text("[server]\nhostnam = a\n[local]\nformat = b\n")
        printed = check(path, EX_CONFIG)
        assert f"{path}:2: " in printed and f"{path}:4: " in printed, "only one is told"


def test_check_no_file():
    """A configuration that is not there ends with 78 and its name."""
    with folder() as files:
        assert "none.ini" in check(files / "none.ini", EX_CONFIG)


def test_serve_refuses_a_broken_configuration():
    """`serve` tells the same mistakes and ends with 78."""
    with folder() as files:
        (files / "broken.ini").write_text("[server]\nhostnam = mx.test\n")
        printed = run([binary(), "serve", "--config", files / "broken.ini"], expect=EX_CONFIG)
        assert "broken.ini:2: " in printed, printed


def test_address_in_use():
    """A second server on the same port says so and does not end with 0."""
    with Server() as server:
        text = server.config_path.read_text().replace(str(server.dir), f"{server.dir}/2")
        (server.dir / "2").mkdir()
        (server.dir / "2/mailwren.ini").write_text(text)
        done = subprocess.run([binary(), "serve", "--config", server.dir / "2/mailwren.ini"],
                              capture_output=True, text=True, timeout=60)
        assert done.returncode not in (0, 101), done
        assert str(server.port) in done.stderr and "in use" in done.stderr, done.stderr


def test_unknown_command():
    """An unknown command or option ends with 64 and a hint."""
    assert "frobnicate" in run([binary(), "frobnicate"], expect=EX_USAGE)
    run([binary(), "serve", "--frob"], expect=EX_USAGE)
    assert "serve" in run([binary(), "--help"])
    # Of sendmail alone: among other words, as a program might have it, it loses no mail.
    assert "-f SENDER" in run([binary(), "sendmail", "--help"])
    assert re.search(r"mailwren \d+\.\d+", run([binary(), "--version"]))


def test_demo():
    """`demo` prints two commands that send a first message and show it."""
    with folder() as files:
        port = free_port()
        with (files / "printed").open("wb") as printed:
            process = subprocess.Popen(
                [binary(), "demo", "--listen", f"127.0.0.1:{port}", "--dir", files / "demo"],
                stdout=printed, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, cwd=files)
        try:
            commands = wait_for("the two commands", lambda: commands_in(files / "printed"))
            assert len(commands) == 2, commands
            # As a person would: in a shell in that folder, where the binary's folder is in PATH.
            shell = {"shell": True, "cwd": files, "timeout": 60, "capture_output": True,
                     "text": True,
                     "env": {**os.environ, "PATH": f"{binary().parent}:{os.environ['PATH']}"}}
            sent = subprocess.run(commands[0], **shell)
            assert sent.returncode == 0, sent
            wait_for("the message", lambda: list((files / "demo/mail").glob("*/new/*")))
            shown = subprocess.run(commands[1], **shell)
            assert shown.returncode == 0, shown
            assert "Subject:" in shown.stdout and "Received:" in shown.stdout, shown
        finally:
            process.send_signal(signal.SIGINT)
            code = process.wait(60)
        assert code == 0, f"{code}: {(files / 'printed').read_text()}"
        assert "panicked" not in (files / "printed").read_text()


def commands_in(path):
    """The commands that the demo printed: the lines that are set in by four blanks or more."""
    lines = emulated(path.read_text()).splitlines(keepends=True)
    return [line.strip().removeprefix("$ ") for line in lines
            if re.match(r"(?:\t| {2,})\S", line) and line.endswith("\n")]
