"""What programs send that people write themselves: git, PHP and Python."""

import json

from host import Host, own_house

ANN, BOB = "ann@house.test", "bob@house.test"
TEXT = "Grüße aus Köln\n.\n..\n"
PATCHES = """
set -e
git init -q repository
cd repository
git config --global user.name Ann
git config --global user.email ann@house.test
echo Grüße >file
git add file
git commit -qm 'Begin with ä'
echo '.' >>file
git commit -qam 'A lone dot'
git format-patch -q --root --cover-letter -o ../patches
sed -i 's/\\*\\*\\* .* HERE \\*\\*\\*/Two patches/' ../patches/0000-*
"""
PHP = r"""
$text = "Grüße aus Köln\n.\nFrom here on";
$subject = "=?UTF-8?B?" . base64_encode("Grüße") . "?=";
exit(mail("bob@house.test", $subject, $text) &&
  mail("Bob <bob@house.test>, root", $subject, $text,
       ["From" => "Ann <ann@house.test>", "Cc" => "ann", "X-Of" => "PHP"], "-fann+shop@house.test")
  ? 0 : 1);
"""
SYMFONY = r"""
require "Symfony/Component/Mailer/autoload.php";
use Symfony\Component\Mailer\{Mailer, Transport};
use Symfony\Component\Mime\Email;
$mailer = new Mailer(Transport::fromDsn("sendmail://default"));
foreach (["one", "two"] as $subject)
    $mailer->send((new Email())->from("Ann <ann@house.test>")->to("bob@house.test")
        ->bcc("root@house.test")->subject($subject)->text("Grüße aus Köln\n.\n"));
"""
PYTHON = """
import json, smtplib, subprocess, sys
from email.message import EmailMessage
from email.utils import localtime, make_msgid
way, text = json.load(sys.stdin)
message = EmailMessage()
message["From"], message["To"], message["Bcc"] = "Ann <ann@house.test>", "bob@house.test", "root"
message["Subject"] = "Grüße"
message.set_content(text, cte="8bit")
if way == "smtp":
    message["Date"], message["Message-ID"] = localtime(), make_msgid()
    message.replace_header("Bcc", "root@house.test")
    with smtplib.SMTP("localhost") as server:
        server.send_message(message)
else:
    subprocess.run(["/usr/sbin/sendmail", "-t", "-oi"], input=message.as_bytes(), check=True)
"""


@own_house
def test_git_send_email():
    """git send-email finds sendmail by itself or by --smtp-server; patches arrive as they were."""
    with Host() as host:
        host.run(["sh", "-c", PATCHES], "ann")
        for server in ([], ["--smtp-server=/usr/sbin/sendmail", "--envelope-sender=auto"]):
            host.run(["git", "send-email", "--to", BOB, "--cc", "Root <root@house.test>",
                      "--suppress-cc=author", "--confirm=never", *server,
                      "/home/ann/patches"], "ann")
            for user in ("bob", "root"):
                texts = host.wait_mail(user, 3)
                subjects = [line for text in texts for line in text.decode().splitlines()
                            if line.startswith("Subject: ")]
                assert subjects == ["Subject: [PATCH 0/2] Two patches",
                                    "Subject: [PATCH 1/2] =?UTF-8?q?Begin=20with=20=C3=A4?=",
                                    "Subject: [PATCH 2/2] A lone dot"], subjects
                assert "\n+Grüße\n".encode() in texts[1] and b"\n+.\n" in texts[2], texts
                for text in texts:
                    for line in (b"Return-Path: <ann@house.test>", b"From: Ann <ann@house.test>",
                                 b"Cc: Root <root@house.test>"):
                        assert text.count(line) == 1, text
                # What arrived is a patch for whoever reads the mailbox.
                host.run(["cp", f"/var/mail/{user}", "/tmp/patches"])
                host.run(["sh", "-c", f"""set -e; rm -rf copy; git init -q copy; cd copy
                    git config --global user.name {user}
                    git config --global user.email {user}@house.test
                    git mailsplit -o. /tmp/patches >/dev/null; git am -q 0002 0003
                    printf 'Grüße\\n.\\n' | cmp - file"""])
                host.empty(user)


@own_house
def test_php():
    """mail() of PHP with its own sendmail_path, and with -f as its fifth parameter."""
    with Host() as host:
        host.run(["php", "-r", PHP], "ann")
        texts = host.wait_mail("bob", 2)
        for text in texts:
            assert text.endswith("\n\nGrüße aus Köln\n.\n>From here on\n".encode()), text
        assert texts[0].startswith(b"Return-Path: <ann@house.test>\n"), texts[0]
        assert texts[1].startswith(b"Return-Path: <ann+shop@house.test>\n"), texts[1]
        for user in ("ann", "root"):
            message = host.take(user, "ann+shop@house.test", "Grüße", ("Ann", ANN), BOB)
            assert message["X-Of"] == "PHP", message


@own_house
def test_symfony():
    """The mailer of Symfony speaks SMTP with sendmail -bs, several messages in one session."""
    with Host() as host:
        host.run(["php", "-r", SYMFONY], "ann")
        for user in ("bob", "root"):
            texts = host.wait_mail(user, 2)
            for subject, text in zip(("one", "two"), texts, strict=True):
                for line in (b"Return-Path: <ann@house.test>\n", b"\nFrom: Ann <ann@house.test>\n",
                             f"\nSubject: {subject}\n".encode(), b"\nMessage-ID: <", b"\nDate: "):
                    assert text.count(line) == 1, (line, text)
                assert b"Bcc" not in text, text


@own_house
def test_python():
    """Python, through sendmail -t and with smtplib to localhost: blind copies stay blind."""
    with Host() as host:
        for way in ("sendmail", "smtp"):
            host.run(["/usr/bin/python3", "-c", PYTHON], "ann", input=json.dumps([way, TEXT]))
            for user in ("bob", "root"):
                message = host.take(user, ANN, "Grüße", ("Ann", ANN), BOB)
                assert message.get_content() == TEXT, message
