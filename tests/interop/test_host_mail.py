"""Programs that people write mail with, installed from their packages, as ann calls them."""

from host import Host, own_house

# What a program may damage on its way: 8-bit text, lone dots, a line that looks like an mbox's,
# blanks at the end, and a long line.
TEXT = "Grüße aus Köln\n.\n..\nFrom here on\ntrailing  \n" + "long " * 150 + "\nend\n"
ANN, BOB, ROOT = "ann@house.test", "bob@house.test", "root@house.test"
# Another address of ann's, who may not send as somebody else.
SHOP = "ann+shop@house.test"


def text_of(message):
    """The text of a message as a reader sees it; the first part's, where it has parts."""
    return message.get_body(("plain",)).get_content()


def unquoted(text):
    """The text of a message in an mbox, whose readers take the `>` away."""
    return text.replace("\n>From ", "\nFrom ")


def files_of(message):
    """The names and octets of the files that are attached."""
    return {part.get_filename(): part.get_payload(decode=True)
            for part in message.iter_attachments()}


@own_house
def test_bsd_mailx():
    """mail(1) of bsd-mailx delivers 8-bit text whole, to blind copies too, and with -r."""
    with Host() as host:
        host.run(["mail", "-s", "grüße", "bob"], "ann", input=TEXT)
        message = host.take("bob", ANN, "grüße", to=BOB)
        assert unquoted(text_of(message)) == TEXT, text_of(message)
        host.run(["mail", "-s", "copies", "-c", "root", "-b", "ann", "-r", SHOP, "bob"], "ann",
                 input=TEXT)
        for user in ("bob", "root", "ann"):
            message = host.take(user, SHOP, "copies", to=BOB)
            assert unquoted(text_of(message)) == TEXT, text_of(message)


@own_house
def test_mailutils():
    """mail(1) of GNU Mailutils delivers text and attached files, with its own -f and with -r."""
    # It ends its input at a lone dot itself.
    text = TEXT.replace("\n.\n", "\n")
    with Host() as host:
        host.run(["mail.mailutils", "-s", "plain", "bob"], "ann", input=text)
        message = host.take("bob", ANN, "plain", to=BOB)
        assert unquoted(message.get_payload(decode=True).decode()) == text, message
        host.run(["tee", "/home/ann/file"], "ann", input=TEXT)
        host.run(["mail.mailutils", "-s", "file", "-r", SHOP, "-A", "/home/ann/file", "bob"], "ann",
                 input=text)
        message = host.take("bob", SHOP, "file", to=BOB)
        assert unquoted(text_of(message)) == text, message
        assert files_of(message) == {"file": TEXT.encode()}, message


@own_house
def test_s_nail():
    """mail(1) of s-nail delivers text and attached files, with a name and a sender by -r."""
    with Host() as host:
        host.run(["s-nail", "-s", "grüße", "bob"], "ann", input=TEXT)
        assert text_of(host.take("bob", ANN, "grüße", to=BOB)) == TEXT
        host.run(["tee", "/home/ann/file"], "ann", input=TEXT)
        host.run(["s-nail", "-s", "file", "-r", f"Shop <{SHOP}>", "-b", "root", "-a",
                  "/home/ann/file", "bob"], "ann", input=TEXT)
        for user in ("bob", "root"):
            message = host.take(user, SHOP, "file", author=("Shop", SHOP), to=BOB)
            assert text_of(message) == TEXT and files_of(message) == {"file": TEXT.encode()}


@own_house
def test_mutt():
    """mutt delivers text, files and blind copies, with a sender of its own by `set from`."""
    with Host() as host:
        host.run(["mutt", "-s", "grüße", "bob"], "ann", input=TEXT)
        message = host.take("bob", ANN, "grüße", to=BOB)
        assert unquoted(text_of(message)) == TEXT, message
        host.run(["tee", "/home/ann/file"], "ann", input=TEXT)
        host.run(["mutt", "-e", f"set from={SHOP} envelope_from=yes", "-s", "file", "-c", "root",
                  "-b", "ann", "-a", "/home/ann/file", "--", "bob"], "ann", input=TEXT)
        for user in ("bob", "root", "ann"):
            message = host.take(user, SHOP, "file", to=BOB)
            assert unquoted(text_of(message)) == TEXT, message
            assert list(files_of(message)) == ["file"], message


@own_house
def test_into_maildirs():
    """The same into Maildirs in homes, which nobody but their owner can look into."""
    with Host({"local": {"format": "maildir"}}) as host:
        for user in ("bob", "root"):
            host.run(["mail", "-s", "grüße", user], "ann", input=TEXT)
            message = host.take(user, ANN, "grüße", to=f"{user}@house.test")
            assert text_of(message) == TEXT, message


@own_house
def test_other_senders():
    """Root sends as whom it likes; ann does not, unless the configuration trusts her."""
    command = ["mail", "-s", "as bob", "-r", BOB, "root"]
    with Host() as host:
        host.run(command, input=TEXT)
        host.take("root", BOB, "as bob", to=ROOT)
        said = host.run(command, "ann", 1, input=TEXT)
        assert "no address of ann" in said and "error code 77" in said, said
        host.wait_queue(0)
        assert not host.contents("root")
    with Host({"auth": {"trusted_users": "ann"}}) as host:
        host.run(command, "ann", input=TEXT)
        host.take("root", BOB, "as bob", to=ROOT)


@own_house
def test_nobody_of_that_name():
    """Mail to a name that nobody has is refused at once, in words that mail(1) shows."""
    with Host() as host:
        said = host.run(["mail", "-s", "lost", "nobdy"], "ann", 1, input=TEXT)
        assert "no such user" in said and "error code 67" in said, said
        host.wait_queue(0)
        assert not host.contents("ann")
