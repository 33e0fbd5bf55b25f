"""Programs that people write mail with."""

from host import Host, own_house


@own_house
def test_bsd_mailx():
    """mail(1) of bsd-mailx sends what it reads, with 8-bit text whole."""
    with Host() as host:
        print(host.run(["mail", "-s", "grüße", "bob"], "ann", input="Guten Morgen, Müßiggänger.\n"))
        print(host.wait_mail("bob")[0].decode())
        import subprocess; subprocess.run(["ls","-la","/var/mail","/run/mailwren","/var/spool/mailwren"])
        print(host.log())
        assert 0
