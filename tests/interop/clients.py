"""Programs that people submit mail with, each in plain, STARTTLS and implicit TLS, with every
mechanism that it knows. Where the program can, it checks the server's certificate."""

import json
import smtplib
import ssl
import subprocess
import time
from pathlib import Path
from urllib.parse import quote

from harness import TOOLS, program

# The name that the clients connect to, which the certificate bears.
HOST = "localhost"
TRANSPORTS = ("plain", "starttls", "implicit")
SENDER = "ann@mx.test"
NODE = """
const [,, library, options, message] = process.argv;
const transport = require(library).createTransport(JSON.parse(options));
transport.sendMail(JSON.parse(message)).then(
  info => console.log(info.response),
  error => { console.error(String(error)); process.exit(1); });
"""


class Verdict:
    """Whether the client was content, and what it said."""

    def __init__(self, ok, output):
        self.ok, self.output = ok, output

    def __repr__(self):
        return f"{'sent' if self.ok else 'failed'}:\n{self.output}"


class Submission:
    """What to submit, and how. `mechanism` None logs in not at all. `host` and `port` are where
    the client goes; `ca` is the file of the authority that it trusts."""

    def __init__(self, port, transport, mechanism, ca, folder, user="ann", password="secret",
                 recipient="zoe@mx.test", sender=SENDER, subject="hello"):
        self.port, self.transport, self.mechanism, self.ca = port, transport, mechanism, Path(ca)
        self.folder = Path(folder)
        self.user, self.password = user, password
        self.recipient, self.sender, self.subject = recipient, sender, subject

    @property
    def message(self):
        """The message, with LF as a Unix program has it."""
        return (f"From: {self.sender}\nTo: {self.recipient}\nSubject: {self.subject}\n"
                "\nGood morning.\n")

    def file(self, name, text):
        """A file for the client alone."""
        path = self.folder / name
        path.write_text(text)
        path.chmod(0o600)
        return path


def run(command, text="", **options):
    """Runs a client to its end."""
    done = subprocess.run(list(map(str, command)), input=text.encode(), timeout=60,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)
    return Verdict(done.returncode == 0, done.stdout.decode(errors="replace"))


def swaks(mail):
    """swaks, in Perl with OpenSSL."""
    transport = {"plain": [], "starttls": ["--tls"], "implicit": ["--tls-on-connect"]}
    trust = [] if mail.transport == "plain" else ["--tls-verify", "--tls-ca-path", mail.ca]
    login = ["--auth", mail.mechanism, "--auth-user", mail.user, "--auth-password",
             mail.password] if mail.mechanism else []
    return run([program("swaks"), "--server", HOST, "--port", mail.port, "--from", mail.sender,
                "--to", mail.recipient, "--h-Subject", mail.subject, *transport[mail.transport],
                *trust, *login])


def curl(mail):
    """curl, with OpenSSL."""
    scheme = "smtps" if mail.transport == "implicit" else "smtp"
    letter = mail.file("curl.eml", mail.message.replace("\n", "\r\n"))
    config = [f'user = "{mail.user}:{mail.password}"',
              f'login-options = "AUTH={mail.mechanism}"'] if mail.mechanism else []
    secure = ["--ssl-reqd"] if mail.transport == "starttls" else []
    return run([program("curl"), "-sS", "-v", "-K", mail.file("curl.conf", "\n".join(config)),
                "--url", f"{scheme}://{HOST}:{mail.port}/client.test", "--cacert", mail.ca,
                "--mail-from", mail.sender, "--mail-rcpt", mail.recipient, "-T", letter, *secure])


def msmtp(mail):
    """msmtp, with GnuTLS and GNU SASL."""
    lines = ["account default", f"host {HOST}", f"port {mail.port}", f"from {mail.sender}",
             "timeout 30", f"tls {'off' if mail.transport == 'plain' else 'on'}"]
    if mail.transport != "plain":
        lines += [f"tls_starttls {'on' if mail.transport == 'starttls' else 'off'}",
                  f"tls_trust_file {mail.ca}"]
    if mail.mechanism:
        lines += [f"auth {mail.mechanism.lower()}", f"user {mail.user}",
                  f"password {mail.password}"]
    config = mail.file("msmtp.conf", "\n".join(lines) + "\n")
    return run([program("msmtp"), "-C", config, "--debug", "--", mail.recipient], mail.message)


def s_nail(mail):
    """s-nail, with OpenSSL."""
    scheme = "smtps" if mail.transport == "implicit" else "smtp"
    mechanism = (mail.mechanism or "none").lower()
    account = f"{quote(mail.user, safe='')}:{quote(mail.password, safe='')}@" \
        if mail.mechanism else ""
    lines = ["set v15-compat", f"set mta={scheme}://{account}{HOST}:{mail.port}",
             f"set smtp-auth={mechanism}", f"set from={mail.sender}", "set hostname=client.test",
             f"set tls-ca-file={mail.ca}", "set tls-ca-no-defaults", "set tls-verify=strict",
             "set sendwait", "set nosave"]
    if mail.transport == "starttls":
        lines.append("set smtp-use-starttls")
    config = mail.file("s-nail.rc", "\n".join(lines) + "\n")
    return run([program("s-nail"), "-v", "-v", "-:u", "-s", mail.subject, mail.recipient],
               "Good morning.\n", env={"MAILRC": str(config), "HOME": str(mail.folder),
                                       "PATH": "/usr/bin:/bin", "TERM": "dumb"})


def mutt(mail):
    """mutt, with GnuTLS and GNU SASL."""
    scheme = "smtps" if mail.transport == "implicit" else "smtp"
    account = f"{mail.user}@" if mail.mechanism else ""
    lines = [f'set smtp_url="{scheme}://{account}{HOST}:{mail.port}/"', f'set from="{mail.sender}"',
             "set use_from=yes use_envelope_from=yes", 'set copy=no record="" sendmail_wait=0',
             f"set ssl_starttls={'yes' if mail.transport == 'starttls' else 'no'}",
             f"set ssl_force_tls={'no' if mail.transport == 'plain' else 'yes'}",
             f'set certificate_file="{mail.ca}" ssl_ca_certificates_file="{mail.ca}"']
    if mail.mechanism:
        lines += [f'set smtp_pass="{mail.password}"',
                  f'set smtp_authenticators="{mail.mechanism.lower()}"']
    config = mail.file("muttrc", "\n".join(lines) + "\n")
    verdict = run([program("mutt"), "-n", "-F", config, "-d", "2", "-s", mail.subject, "--",
                   mail.recipient], "Good morning.\n", cwd=mail.folder,
                  env={"HOME": str(mail.folder), "PATH": "/usr/bin:/bin", "TERM": "dumb"})
    # The dialogue is in a file.
    dialogue = mail.folder / ".muttdebug0"
    if dialogue.exists():
        verdict.output += dialogue.read_text(errors="replace")
    return verdict


def python(mail):
    """smtplib of Python's standard library."""
    context = ssl.create_default_context(cafile=str(mail.ca))
    try:
        if mail.transport == "implicit":
            client = smtplib.SMTP_SSL(HOST, mail.port, "client.test", timeout=30, context=context)
        else:
            client = smtplib.SMTP(HOST, mail.port, "client.test", timeout=30)
        with client:
            if mail.transport == "starttls":
                client.starttls(context=context)
            client.ehlo()
            if mail.mechanism:
                client.user, client.password = mail.user, mail.password
                method = getattr(client, "auth_" + mail.mechanism.lower().replace("-", "_"))
                client.auth(mail.mechanism, method)
            client.sendmail(mail.sender, [mail.recipient], mail.message)
    except (smtplib.SMTPException, OSError) as error:
        return Verdict(False, f"{type(error).__name__}: {error}")
    return Verdict(True, "")


def nodemailer(mail):
    """nodemailer, in Node.js."""
    # It takes the first address of a name only, which for this host may be the IPv6 one.
    options = {"host": "127.0.0.1", "port": mail.port, "secure": mail.transport == "implicit",
               "ignoreTLS": mail.transport == "plain", "requireTLS": mail.transport == "starttls",
               "tls": {"ca": mail.ca.read_text(), "servername": HOST}, "name": "client.test"}
    if mail.mechanism:
        options |= {"auth": {"user": mail.user, "pass": mail.password},
                    "authMethod": mail.mechanism}
    message = {"from": mail.sender, "to": mail.recipient, "subject": mail.subject,
               "text": "Good morning."}
    library = TOOLS / "usr/share/nodejs/nodemailer/lib/nodemailer.js"
    return run([program("node"), mail.file("send.js", NODE), library, json.dumps(options),
                json.dumps(message)])


BASIC = ("PLAIN", "LOGIN", "CRAM-MD5")
SCRAM = ("SCRAM-SHA-1", "SCRAM-SHA-256")
# Which mechanisms each of them knows.
KNOWN = {swaks: BASIC, curl: BASIC, s_nail: BASIC, python: BASIC, nodemailer: BASIC,
         msmtp: BASIC + SCRAM, mutt: BASIC + SCRAM}


def combinations(client):
    """Every transport and mechanism of a client."""
    return [(transport, mechanism) for transport in TRANSPORTS for mechanism in KNOWN[client]]


def timed(client, mail):
    """Submits, and gives the verdict and the seconds that it took."""
    begin = time.monotonic()
    return client(mail), time.monotonic() - begin
