"""Mail providers to submit to: Postfix with Dovecot's accounts, and Exim with its own. They
are unpacked, not installed, and run in the foreground out of a folder of the test."""

import base64
import contextlib
import hashlib
import hmac
import json
import os
import pwd
import subprocess
import time
from pathlib import Path

import harness
from harness import TOOLS, wait_for
from peers import listens

# Who owns what the providers' processes write; no human's account.
OWNER, GROUP = "daemon", "mail"
NAME = "smtp.provider.test"
USER, PASSWORD = "ann@provider.test", "correct horse"
TRANSPORTS = ("plain", "starttls", "implicit")
TOKEN_KEY = b"the key that tokens are signed with"


def unpacked(path):
    """A program out of a package that is unpacked, not installed."""
    found = TOOLS / path
    if not found.exists():
        raise AssertionError(f"{found} is missing: run `tests/interop/install-tools test`")
    return found


class Daemon(contextlib.AbstractContextManager):
    """A program that runs in the foreground until the end of the `with` block, and that the
    kernel ends when the test dies."""

    def __init__(self, command, log, environment=None):
        guarded = [harness.program("setpriv"), "--pdeathsig", "TERM", *map(str, command)]
        with open(log, "ab") as output:
            self.process = subprocess.Popen(
                guarded, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                env={**os.environ, **(environment or {})}, start_new_session=True)
        self.log = Path(log)

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(harness.PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(harness.PATIENCE)

    def wait(self, what, condition):
        """Waits until it is ready for something."""
        def ready():
            if self.process.poll() is not None:
                raise AssertionError(f"{what} ended:\n{self.log.read_text(errors='replace')}")
            return condition()
        wait_for(what, ready)


class Dovecot(contextlib.AbstractContextManager):
    """Dovecot's authentication service alone. `client` is its socket."""

    MECHANISMS = "plain login cram-md5 scram-sha-1 scram-sha-256 xoauth2 oauthbearer"

    def __init__(self, folder, users=None):
        self.folder = Path(folder) / "dovecot"
        self.folder.mkdir()
        self.client = self.folder / "client"
        users = users or {USER: PASSWORD}
        (self.folder / "users").write_text("".join(
            f"{name}:{{PLAIN}}{password}\n" for name, password in users.items()))
        keys = self.folder / "keys/default/HS256"
        keys.mkdir(parents=True)
        (keys / "default").write_text(base64.b64encode(TOKEN_KEY).decode())
        (self.folder / "oauth2.conf").write_text(
            "introspection_mode = local\nusername_attribute = sub\n"
            f"local_validation_key_dict = fs:posix:prefix={self.folder}/keys/\n")
        (self.folder / "dovecot.conf").write_text(self.config())
        libraries = [TOOLS / "usr/lib/dovecot" / part for part in ("", "modules/old-stats")]
        environment = {"LD_LIBRARY_PATH": ":".join(map(str, libraries))}
        version = harness.run([unpacked("usr/sbin/dovecot"), "--version"],
                              env={**os.environ, **environment})
        assert version.startswith("2.3."), f"the configuration here is of 2.3, not {version}"
        config = self.folder / "dovecot.conf"
        # Dovecot looks for doveconf in /usr/bin; here it is asked first.
        command = [unpacked("usr/bin/doveconf"), "-f", "service=master", "-c", config, "-m",
                   "master", "-p", "-e", unpacked("usr/sbin/dovecot"), "-F", "-c", config]
        self.daemon = Daemon(command, self.folder / "log", environment)
        try:
            self.daemon.wait("dovecot", self.client.exists)
        except BaseException:
            self.daemon.__exit__()
            raise

    def __exit__(self, *_):
        self.daemon.__exit__()

    def config(self):
        """Its configuration file, of Dovecot 2.3."""
        library = TOOLS / "usr/lib/dovecot"
        user = pwd.getpwuid(os.geteuid()).pw_name if os.geteuid() else "nobody"
        return f"""base_dir = {self.folder}/run
state_dir = {self.folder}/state
libexec_dir = {library}
mail_plugin_dir = {library}/modules
import_environment = LD_LIBRARY_PATH={library}:{library}/modules/old-stats
log_path = /dev/stderr
protocols =
default_internal_user = {user}
default_login_user = {user if os.geteuid() else OWNER}
default_internal_group =
ssl = no
disable_plaintext_auth = no
auth_mechanisms = {self.MECHANISMS}
auth_verbose = yes
auth_failure_delay = 0
auth_cache_size = 0
passdb {{
  driver = passwd-file
  mechanisms = plain login cram-md5 scram-sha-1 scram-sha-256
  args = {self.folder}/users
}}
passdb {{
  driver = oauth2
  mechanisms = xoauth2 oauthbearer
  args = {self.folder}/oauth2.conf
}}
userdb {{
  driver = static
  args = uid={user} gid=nogroup home=/tmp
}}
service auth {{
  user = {user}
  unix_listener {self.client} {{
    mode = 0666
  }}
}}
service anvil {{
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
"""


def token(user=USER, seconds=600):
    """An access token (JWT) of the provider that holds for some seconds, or did."""
    def part(value):
        octets = value if isinstance(value, bytes) else json.dumps(value).encode()
        return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()
    now = int(time.time())
    head = part({"alg": "HS256", "typ": "JWT"})
    body = part({"sub": user, "iat": now - 1000, "nbf": now - 1000, "exp": now + seconds})
    signature = hmac.new(TOKEN_KEY, f"{head}.{body}".encode(), hashlib.sha256).digest()
    return f"{head}.{body}.{part(signature)}"


class Provider(contextlib.AbstractContextManager):
    """What is the same for both: a port for each transport and certificate, and a Maildir.

    `ports` maps (transport, sort of certificate) to a port; `plain` has no certificate."""

    def __init__(self, folder, pairs):
        self.folder = Path(folder)
        self.pairs = pairs
        self.box = self.folder / "box"
        self.ports = {}
        for transport in TRANSPORTS:
            for sort in pairs if transport != "plain" else [None]:
                port = harness.free_port()
                while port in self.ports.values():
                    port = harness.free_port()
                self.ports[transport, sort] = port
        # The folder is the test's; the provider's own account passes through it.
        for path in (self.folder, self.folder.parent):
            if path.name.startswith("mw-"):
                path.chmod(0o711)

    def port(self, transport, sort="good"):
        """The port of a transport and of a sort of certificate."""
        return self.ports[transport, None if transport == "plain" else sort]

    def mail(self):
        """The messages that it took and delivered, oldest first."""
        files = sorted((self.box / "new").glob("*"), key=lambda file: file.stat().st_mtime_ns)
        return [file.read_bytes() for file in files]

    def wait_mail(self, count=1):
        """Waits for that many messages, not more, and returns them."""
        wait_for(f"{count} messages at the provider", lambda: len(self.mail()) >= count)
        messages = self.mail()
        assert len(messages) == count, f"{len(messages)} messages at the provider, not {count}"
        return messages

    def log(self):
        """What it has logged."""
        return (self.folder / "log").read_text(errors="replace")


class Postfix(Provider):
    """Postfix, with the accounts of a Dovecot."""

    QUEUE = ("active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming",
             "private", "saved", "trace")

    def __init__(self, folder, pairs, dovecot):
        super().__init__(Path(folder) / "postfix", pairs)
        self.folder.mkdir()
        self.config, self.queue = self.folder / "etc", self.folder / "queue"
        for path in (self.config, self.queue, self.folder / "data", self.box):
            path.mkdir()
        for name in (*self.QUEUE, "public", "maildrop", "pid"):
            (self.queue / name).mkdir(mode=0o730)
            if name != "pid":
                os.chown(self.queue / name, *ids(OWNER))
        for path in (self.folder / "data", self.box):
            os.chown(path, *ids(OWNER))
        (self.config / "main.cf").write_text(self.main(dovecot.client))
        (self.config / "master.cf").write_text(self.master())
        command = [unpacked("usr/lib/postfix/sbin/master"), "-c", self.config, "-s"]
        self.daemon = Daemon(command, self.folder / "log",
                             {"LD_LIBRARY_PATH": str(TOOLS / "usr/lib/postfix")})
        try:
            self.daemon.wait("postfix", lambda: all(map(listens, self.ports.values())))
        except BaseException:
            self.daemon.__exit__()
            raise

    def __exit__(self, *_):
        self.daemon.__exit__()

    def main(self, accounts):
        """main.cf."""
        library = TOOLS / "usr/lib/postfix"
        return f"""compatibility_level = 3.6
queue_directory = {self.queue}
data_directory = {self.folder}/data
daemon_directory = {library}/sbin
command_directory = {TOOLS}/usr/sbin
shlib_directory = {library}
meta_directory = {self.config}
import_environment = MAIL_CONFIG MAIL_LOGTAG TZ LD_LIBRARY_PATH={library}
maillog_file = {self.folder}/log
maillog_file_prefixes = {self.folder}
mail_owner = {OWNER}
setgid_group = {GROUP}
myhostname = {NAME}
mydestination =
mynetworks =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
alias_maps =
alias_database =
local_recipient_maps =
virtual_mailbox_domains = static:all
virtual_mailbox_maps = static:box/
virtual_mailbox_base = {self.folder}
virtual_minimum_uid = 1
virtual_uid_maps = static:{ids(OWNER)[0]}
virtual_gid_maps = static:{ids(OWNER)[1]}
smtpd_client_connection_rate_limit = 0
smtpd_client_restrictions =
smtpd_relay_restrictions = permit_sasl_authenticated, reject
smtpd_recipient_restrictions = permit_sasl_authenticated, reject
smtpd_sasl_auth_enable = yes
smtpd_sasl_authenticated_header = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = {accounts}
smtpd_sasl_security_options = noanonymous
smtpd_tls_received_header = yes
smtpd_tls_session_cache_database =
smtpd_tls_loglevel = 1
smtpd_error_sleep_time = 0
"""

    def master(self):
        """master.cf: a listener for each port."""
        lines = []
        for (transport, sort), port in self.ports.items():
            lines.append(f"127.0.0.1:{port} inet n - n - - smtpd")
            if sort:
                pair = self.pairs[sort]
                lines += [f"  -o smtpd_tls_cert_file={pair.certificate}",
                          f"  -o smtpd_tls_key_file={pair.key}",
                          "  -o smtpd_tls_auth_only=yes",
                          "  -o smtpd_tls_wrappermode=yes" if transport == "implicit" else
                          "  -o smtpd_tls_security_level=encrypt"]
        services = [
            "cleanup unix n - n - 0 cleanup", "qmgr unix n - n 300 1 qmgr",
            "rewrite unix - - n - - trivial-rewrite", "bounce unix - - n - 0 bounce",
            "defer unix - - n - 0 bounce", "trace unix - - n - 0 bounce",
            "proxymap unix - - n - - proxymap", "virtual unix - n n - - virtual",
            "error unix - - n - - error", "anvil unix - - n - 1 anvil",
            "tlsmgr unix - - n 1000? 1 tlsmgr", "postlog unix-dgram n - n - 1 postlogd"]
        return "\n".join([*lines, *services]) + "\n"


class Exim(Provider):
    """Exim, with a password in its configuration. Its TLS is GnuTLS's."""

    def __init__(self, folder, pairs):
        super().__init__(Path(folder) / "exim", pairs)
        for path in (self.folder, self.folder / "spool", self.folder / "logs", self.box):
            path.mkdir()
            os.chown(path, *ids(OWNER))
        for (_, sort), port in self.ports.items():
            if sort:
                text = pairs[sort].certificate.read_text() + pairs[sort].key.read_text()
                file = self.folder / f"{port}.pem"
                file.write_text(text)
                file.chmod(0o600)
                os.chown(file, *ids(OWNER))
        uid, gid = ids(OWNER)
        for name, line in ("passwd", f"x:{uid}:{gid}::/:/bin/false"), ("group", f"x:{gid}:"):
            known = Path("/etc", name).read_text()
            (self.folder / name).write_text(f"{known}Debian-exim:{line}\n")
        config = self.folder / "exim.conf"
        config.write_text(self.config())
        # The name of its account is compiled in; its processes alone see that account.
        script = ('mount --bind "$1/passwd" /etc/passwd && mount --bind "$1/group" /etc/group '
                  '&& shift && exec "$@"')
        command = [*harness.mount_prefix(), "sh", "-c", script, "sh", self.folder,
                   unpacked("usr/sbin/exim4"), "-C", config, "-bdf"]
        self.daemon = Daemon(command, self.folder / "log")
        try:
            self.daemon.wait("exim", lambda: all(map(listens, self.ports.values())))
        except BaseException:
            self.daemon.__exit__()
            raise

    def __exit__(self, *_):
        self.daemon.__exit__()

    def log(self):
        """What it has logged."""
        main = self.folder / "logs/main"
        return super().log() + (main.read_text(errors="replace") if main.exists() else "")

    def config(self):
        """Its configuration file."""
        implicit = [port for (transport, _), port in self.ports.items() if transport == "implicit"]
        plain = self.ports["plain", None]
        return f"""primary_hostname = {NAME}
spool_directory = {self.folder}/spool
log_file_path = {self.folder}/logs/%s
pid_file_path = {self.folder}/pid
exim_path = {unpacked("usr/sbin/exim4")}
exim_user = {OWNER}
exim_group = {GROUP}
trusted_users = root
local_interfaces = 127.0.0.1
daemon_smtp_ports = {" : ".join(map(str, self.ports.values()))}
tls_on_connect_ports = {" : ".join(map(str, implicit))}
tls_advertise_hosts = ${{if eq{{$received_port}}{{{plain}}}{{}}{{*}}}}
tls_certificate = {self.folder}/${{received_port}}.pem
keep_environment =
never_users =
host_lookup =
rfc1413_query_timeout = 0s
recipient_unqualified_hosts =
smtp_accept_max = 100
acl_smtp_rcpt = rcpt
log_selector = +tls_cipher +smtp_connection
received_header_text = Received: from $sender_helo_name by $primary_hostname with \\
  $received_protocol cipher=$tls_in_cipher user=$authenticated_id id $message_exim_id
begin acl
rcpt:
  accept authenticated = *
  deny message = log in first
begin routers
all:
  driver = accept
  transport = box
begin transports
box:
  driver = appendfile
  directory = {self.box}
  maildir_format
  user = {OWNER}
  group = {GROUP}
begin authenticators
plain:
  driver = plaintext
  public_name = PLAIN
  server_prompts = :
  server_condition = ${{if and{{{{eq{{$auth2}}{{{USER}}}}}{{eq{{$auth3}}{{{PASSWORD}}}}}}}}}
  server_set_id = $auth2
  server_advertise_condition = true
login:
  driver = plaintext
  public_name = LOGIN
  server_prompts = <| Username: | Password:
  server_condition = ${{if and{{{{eq{{$auth1}}{{{USER}}}}}{{eq{{$auth2}}{{{PASSWORD}}}}}}}}}
  server_set_id = $auth1
cram:
  driver = cram_md5
  public_name = CRAM-MD5
  server_secret = ${{if eq{{$auth1}}{{{USER}}}{{{PASSWORD}}}fail}}
  server_set_id = $auth1
"""


def ids(user):
    """The uid of an account and the gid of the providers' group."""
    return pwd.getpwnam(user).pw_uid, pwd.getpwnam(GROUP).pw_gid
