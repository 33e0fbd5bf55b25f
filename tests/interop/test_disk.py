"""A spool whose disk is full, read-only or away: clients are told to come again, nothing is
lost, the log is not flooded, and mail flows again without a restart."""

import contextlib
import os
import socket

from disk import mount, own_mounts, tmpfs
from harness import Client, Server, binary, run, smarthost, wait_for
from ledger import FAR, LOCAL, at_peer, in_maildir, send
from peers import Peer

KIB = 1 << 10
EX_TEMPFAIL = 75


@contextlib.contextmanager
def small_spool(reserve, settings=None):
    """A server with a spool of 1 MiB, of which so many KiB are kept free, and a next hop."""
    with contextlib.ExitStack() as stack:
        peer = stack.enter_context(Peer())
        server = Server({
            "server": {"min_free_space": f"{reserve}K", "max_message_size": "10M"},
            "smarthost": smarthost(peer.port), **(settings or {})})
        # Before the folder goes, the mount in it does.
        server.stack.enter_context(tmpfs(server.spool, "1m"))
        stack.enter_context(server)
        yield server, peer


@contextlib.contextmanager
def blocked_mailbox(server):
    """Nothing can be delivered to ann."""
    path = server.mail / "ann"
    path.write_bytes(b"This is no Maildir.\n")
    yield
    path.unlink()
