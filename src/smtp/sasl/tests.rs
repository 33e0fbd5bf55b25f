//! The exchanges against the examples of their RFCs, against each other, and against nonsense.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;

use super::client::{ClientError, ClientExchange, Credentials, choose};
use super::keys::{CramMd5Keys, ScramHash, ScramKeys};
use super::prepare::prepared;
use super::server::{Account, Accounts, Exchange, Progress, Refusal, Start, Unavailable};
use super::{MAX_SECRET, MAX_TOKEN, Mechanism, Nonce, scram};

/// One account, whose name is known in any case, and what it is asked with.
struct One {
    name: Arc<str>,
    password: String,
    salt: Vec<u8>,
}

impl One {
    fn new(name: &str, password: &str) -> Self {
        Self { name: name.into(), password: password.into(), salt: b"0123456789abcdef".to_vec() }
    }

    fn knows(&self, user: &str) -> bool {
        user.to_lowercase() == self.name.to_lowercase()
    }
}

impl Accounts for One {
    fn check_password(&self, user: &str, password: &[u8]) -> Result<Option<Arc<str>>, Unavailable> {
        let own = prepared(self.password.as_bytes()).unwrap();
        let is_right = self.knows(user) && password == own.as_bytes();
        Ok(is_right.then(|| Arc::clone(&self.name)))
    }

    fn scram_keys(&self, user: &str, hash: ScramHash) -> Result<Account<ScramKeys>, Unavailable> {
        let keys = match self.knows(user) {
            true => ScramKeys::from_password(hash, self.password.as_bytes(), &self.salt, 4096),
            false => Ok(ScramKeys::made_up(hash, [7; 16], 4096, &[9; 64])),
        };
        let name = if self.knows(user) { Arc::clone(&self.name) } else { user.into() };
        Ok(Account { name, keys: keys.unwrap() })
    }

    fn cram_md5_keys(&self, user: &str) -> Result<Option<Account<CramMd5Keys>>, Unavailable> {
        let keys = CramMd5Keys::from_password(self.password.as_bytes()).unwrap();
        Ok(self.knows(user).then(|| Account { name: Arc::clone(&self.name), keys }))
    }
}

/// Accounts that are away.
struct Away;

impl Accounts for Away {
    fn check_password(&self, _: &str, _: &[u8]) -> Result<Option<Arc<str>>, Unavailable> {
        Err(Unavailable)
    }

    fn scram_keys(&self, _: &str, _: ScramHash) -> Result<Account<ScramKeys>, Unavailable> {
        Err(Unavailable)
    }

    fn cram_md5_keys(&self, _: &str) -> Result<Option<Account<CramMd5Keys>>, Unavailable> {
        Err(Unavailable)
    }
}

fn begin(mechanism: Mechanism, initial: Option<&[u8]>, accounts: &dyn Accounts) -> Progress {
    let (nonce, external) = (Nonce::new(&[1; 18]), Arc::from("ann"));
    let hostname = "mx.test";
    let start = Start { mechanism, initial, nonce: &nonce, hostname, external: Some(&external) };
    Exchange::begin(start, accounts)
}

fn challenge(progress: Progress) -> (String, Exchange) {
    match progress {
        Progress::Challenge(octets, exchange) => (String::from_utf8(octets).unwrap(), exchange),
        other => panic!("no challenge: {other:?}"),
    }
}

/// The name, or why not.
fn outcome(progress: Progress) -> Result<String, Refusal> {
    match progress {
        Progress::Accepted(name) => Ok(name.to_string()),
        Progress::Refused { refusal, .. } => Err(refusal),
        Progress::Challenge(octets, _) => panic!("a challenge: {octets:?}"),
    }
}

fn client(mechanism: Mechanism, user: &str, secret: &str) -> Result<ClientExchange, ClientError> {
    let credentials = Credentials { user, secret, host: "mx.test", port: 587 };
    ClientExchange::new(mechanism, &credentials, &Nonce::new(&[2; 18]))
}

/// Plays a client against a server, with and without an initial response.
fn play(
    mechanism: Mechanism,
    (user, secret): (&str, &str),
    accounts: &dyn Accounts,
    takes_initial: bool,
) -> Result<String, Refusal> {
    let mut client = client(mechanism, user, secret).unwrap();
    let initial = if takes_initial { client.initial_response() } else { None };
    let mut progress = begin(mechanism, initial.as_deref(), accounts);
    while let Progress::Challenge(octets, exchange) = progress {
        let response = client.respond(&octets).unwrap();
        progress = exchange.respond(&response, accounts);
    }
    let outcome = outcome(progress);
    if outcome.is_ok() {
        assert_eq!(client.accept(), Ok(()));
    }
    outcome
}

const BY_PASSWORD: [Mechanism; 5] = Mechanism::OF_LISTENERS;

#[test]
fn each_client_logs_in_at_our_server() {
    let accounts = One::new("Ann", "p\u{e4}ss=w,\u{2168} 1");
    for mechanism in BY_PASSWORD {
        for takes_initial in [true, false] {
            let login = |user, secret| play(mechanism, (user, secret), &accounts, takes_initial);
            assert_eq!(login("ann", "p\u{e4}ss=w,\u{2168} 1"), Ok("Ann".into()), "{mechanism}");
            for (user, secret) in [("ann", "wrong"), ("bob", "p\u{e4}ss=w,\u{2168} 1")] {
                assert_eq!(login(user, secret), Err(Refusal::Credentials), "{mechanism}");
            }
        }
        assert_eq!(play(mechanism, ("a", "b"), &Away, true), Err(Refusal::Unavailable));
    }
    assert_eq!(play(Mechanism::External, ("ann", ""), &accounts, true), Ok("ann".into()));
    assert_eq!(play(Mechanism::External, ("ann", ""), &accounts, false), Ok("ann".into()));
}

/// A name with the characters that SCRAM has to write otherwise, and a password that is the
/// same as another for SASLprep.
#[test]
fn names_and_passwords_are_prepared() {
    let accounts = One::new("a,b=c\u{e5}", "I\u{ad}X");
    for mechanism in [Mechanism::ScramSha256, Mechanism::ScramSha1, Mechanism::Plain] {
        let outcome = play(mechanism, ("a,b=ca\u{30a}", "\u{2168}"), &accounts, true);
        assert_eq!(outcome, Ok("a,b=c\u{e5}".into()), "{mechanism}");
    }
}

#[test]
fn rfc_4616_and_login() {
    let accounts = One::new("tim", "tanstaaftanstaaf");
    let plain = |message: &[u8]| outcome(begin(Mechanism::Plain, Some(message), &accounts));
    assert_eq!(plain(b"\0tim\0tanstaaftanstaaf"), Ok("tim".into()));
    assert_eq!(plain(b"tim\0tim\0tanstaaftanstaaf"), Ok("tim".into()));
    for message in [
        &b"Ursel\0tim\0tanstaaftanstaaf"[..],
        b"\0tim\0tanstaaftanstaa",
        b"\0tim\0",
        b"\0\0tanstaaftanstaaf",
        b"\0tim\0tanstaaf\xff",
        &[&b"\0tim\0"[..], &[b'a'; MAX_SECRET + 1]].concat(),
    ] {
        assert_eq!(plain(message), Err(Refusal::Credentials), "{message:?}");
    }
    for message in [&b""[..], b"tim", b"\0tim", b"\0tim\0tanstaaftanstaaf\0", &[0; 9999]] {
        assert_eq!(plain(message), Err(Refusal::Malformed), "{message:?}");
    }

    let (asked, exchange) = challenge(begin(Mechanism::Login, None, &accounts));
    assert_eq!(asked, "Username:");
    let (asked, exchange) = challenge(exchange.respond(b"tim", &accounts));
    assert_eq!(asked, "Password:");
    assert_eq!(outcome(exchange.respond(b"tanstaaftanstaaf", &accounts)), Ok("tim".into()));
    let (asked, exchange) = challenge(begin(Mechanism::Login, Some(b"tim"), &accounts));
    assert_eq!(asked, "Password:");
    assert_eq!(outcome(exchange.respond(b"\0", &accounts)), Err(Refusal::Credentials));
}

#[test]
fn rfc_4422_external() {
    let accounts = One::new("ann", "x");
    let external = |wanted: &[u8]| outcome(begin(Mechanism::External, Some(wanted), &accounts));
    assert_eq!(external(b""), Ok("ann".into()));
    assert_eq!(external(b"ann"), Ok("ann".into()));
    for wanted in [&b"root"[..], b"ann\0", b"ANN", b"\xff"] {
        assert_eq!(external(wanted), Err(Refusal::Credentials));
    }
    let nonce = Nonce::new(&[1; 18]);
    let mechanism = Mechanism::External;
    let start =
        Start { mechanism, initial: Some(b""), nonce: &nonce, hostname: "mx.test", external: None };
    assert_eq!(outcome(Exchange::begin(start, &accounts)), Err(Refusal::Credentials));
}

#[test]
fn rfc_2195() {
    let keys = CramMd5Keys::from_password(b"tanstaaftanstaaf").unwrap();
    let digest = keys.mac(b"<1896.697170952@postoffice.reston.mci.net>");
    assert_eq!(super::keys::hex(&digest), "b913a602c7eda7a495b4e6e7334d3890");
    let mut tim = client(Mechanism::CramMd5, "tim", "tanstaaftanstaaf").unwrap();
    assert_eq!(tim.initial_response(), None);
    let response = tim.respond(b"<1896.697170952@postoffice.reston.mci.net>").unwrap();
    assert_eq!(response, b"tim b913a602c7eda7a495b4e6e7334d3890");

    let accounts = One::new("tim", "tanstaaftanstaaf");
    let progress = begin(Mechanism::CramMd5, Some(b""), &accounts);
    assert_eq!(outcome(progress), Err(Refusal::ServerFirst));
    let (asked, _) = challenge(begin(Mechanism::CramMd5, None, &accounts));
    assert_eq!(asked, "<AQEBAQEBAQEBAQEBAQEBAQEB@mx.test>");
    for response in [&b""[..], b"tim", b"tim b913", b"tim\0b913a602c7eda7a495b4e6e7334d3890"] {
        let (_, exchange) = challenge(begin(Mechanism::CramMd5, None, &accounts));
        assert_eq!(outcome(exchange.respond(response, &accounts)), Err(Refusal::Malformed));
    }
    // The states of an account that is not there are no way in.
    let digest = super::keys::hex(&CramMd5Keys::made_up().mac(asked.as_bytes()));
    let (_, exchange) = challenge(begin(Mechanism::CramMd5, None, &accounts));
    let response = format!("bob {digest}");
    assert_eq!(
        outcome(exchange.respond(response.as_bytes(), &accounts)),
        Err(Refusal::Credentials)
    );
}

/// An example of an RFC: the server's part of the nonce, and the messages.
struct Example {
    mechanism: Mechanism,
    client_nonce: &'static str,
    server_nonce: &'static str,
    salt: &'static str,
    proof: &'static str,
    verifier: &'static str,
}

/// RFC 5802 §5 and RFC 7677 §3.
const EXAMPLES: [Example; 2] = [
    Example {
        mechanism: Mechanism::ScramSha1,
        client_nonce: "fyko+d2lbbFgONRv9qkxdawL",
        server_nonce: "3rfcNHYJY1ZVvWVs7j",
        salt: "QSXCR+Q6sek8bf92",
        proof: "v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
        verifier: "v=rmF9pqV8S7suAoZWja4dJRkFsKQ=",
    },
    Example {
        mechanism: Mechanism::ScramSha256,
        client_nonce: "rOprNGfwEbeRWgbNEkqO",
        server_nonce: "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
        salt: "W22ZaJ0SNY7soEsUEjb6gQ==",
        proof: "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
        verifier: "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
    },
];

impl Example {
    fn first(&self) -> String {
        format!("n,,n=user,r={}", self.client_nonce)
    }

    fn server_first(&self) -> String {
        format!("r={}{},s={},i=4096", self.client_nonce, self.server_nonce, self.salt)
    }

    fn last(&self) -> String {
        format!("c=biws,r={}{},p={}", self.client_nonce, self.server_nonce, self.proof)
    }

    /// The server, asked for its first message.
    fn server(&self, first: &str) -> (Progress, One) {
        let mut accounts = One::new("user", "pencil");
        accounts.salt = STANDARD.decode(self.salt).unwrap();
        let nonce = Nonce(self.server_nonce.into());
        let (mechanism, initial) = (self.mechanism, Some(first.as_bytes()));
        let start = Start { mechanism, initial, nonce: &nonce, hostname: "", external: None };
        (Exchange::begin(start, &accounts), accounts)
    }

    fn client(&self) -> ClientExchange {
        let credentials = Credentials { user: "user", secret: "pencil", host: "", port: 0 };
        let nonce = Nonce(self.client_nonce.into());
        let mut client = ClientExchange::new(self.mechanism, &credentials, &nonce).unwrap();
        assert_eq!(client.initial_response().unwrap(), self.first().as_bytes());
        client
    }
}

#[test]
fn rfc_5802_and_7677() {
    for example in EXAMPLES {
        let (progress, accounts) = example.server(&example.first());
        let (first, exchange) = challenge(progress);
        assert_eq!(first, example.server_first());
        let (last, exchange) = challenge(exchange.respond(example.last().as_bytes(), &accounts));
        assert_eq!(last, example.verifier);
        assert_eq!(outcome(exchange.respond(b"", &accounts)), Ok("user".into()));

        let mut client = example.client();
        let last = client.respond(example.server_first().as_bytes()).unwrap();
        assert_eq!(String::from_utf8(last).unwrap(), example.last());
        assert_eq!(client.accept(), Err(ClientError::Impostor));
        assert_eq!(client.respond(example.verifier.as_bytes()), Ok(Vec::new()));
        assert_eq!(client.accept(), Ok(()));
    }
}

#[test]
fn the_server_wants_scram_as_it_is() {
    let [example, _] = EXAMPLES;
    let first = |text: &str| match example.server(text).0 {
        Progress::Challenge(..) => Ok(()),
        progress => outcome(progress).map(|_| ()),
    };
    for good in ["y,,n=user,r=x", "n,a=user,n=user,r=x", "n,,n=user,r=x,z=1", "n,,n==3D=2C,r=x"] {
        assert_eq!(first(good), Ok(()), "{good}");
    }
    for bad in [
        "",
        ",,",
        "n,,",
        "p=tls-unique,,n=user,r=x",
        "x,,n=user,r=x",
        "n,user,n=user,r=x",
        "n,,m=1,n=user,r=x",
        "n,,n=user,r=x,m=1",
        "n,,r=x,n=user",
        "n,,n=user",
        "n,,n=user,r=",
        "n,,n=user,r=\u{e9}",
        "n,,n=user,r=a b",
        "n,,n=u=ser,r=x",
        "n,,n=user=2,r=x",
        "n,,n==2c,r=x",
    ] {
        assert_eq!(first(bad), Err(Refusal::Malformed), "{bad}");
    }
    assert_eq!(first(&format!("n,,n=user,r={}", "x".repeat(1024))), Ok(()));
    let endless = format!("n,,n=user,r={}", "x".repeat(1025));
    assert_eq!(first(&endless), Err(Refusal::Malformed));
    for bad in ["n,a=root,n=user,r=x", "n,,n=,r=x", "n,,n=us\0er,r=x"] {
        assert_eq!(first(bad), Err(Refusal::Credentials), "{bad}");
    }

    let (good, nonce) = (example.last(), example.server_nonce);
    let last = |text: &str| {
        let (progress, accounts) = example.server(&example.first());
        outcome(challenge(progress).1.respond(text.as_bytes(), &accounts))
    };
    for (bad, refusal) in [
        (good.replace(nonce, ""), Refusal::Credentials),
        (good.replace(nonce, "x"), Refusal::Credentials),
        (good.replace("biws", "eSws"), Refusal::Credentials),
        (good.replace("p=v0X8", "p=v0X9"), Refusal::Credentials),
        (good.replace("4Ts=", ""), Refusal::Credentials),
        (good.replace("4Ts=", "4TsA"), Refusal::Credentials),
        (good.replace(",p=", ",z=1,p="), Refusal::Credentials),
        (good.replace(",p=", ",m=1,p="), Refusal::Malformed),
        (good.replace("4Ts=", "4Ts"), Refusal::Malformed),
        (good.replace("c=", "d="), Refusal::Malformed),
        (good.replace(",p=", ",q="), Refusal::Malformed),
        (String::new(), Refusal::Malformed),
    ] {
        assert_eq!(last(&bad), Err(refusal), "{bad}");
    }
    // Behind our signature nothing more is said.
    let (progress, accounts) = example.server(&example.first());
    let (_, exchange) = challenge(progress);
    let (_, exchange) = challenge(exchange.respond(good.as_bytes(), &accounts));
    assert_eq!(outcome(exchange.respond(b"x", &accounts)), Err(Refusal::Malformed));
}

/// RFC 5802 §5.1, `r` and `c`: who knows the password has to repeat what was said all the same,
/// or an old proof would do, and a binding could be taken out on the way.
#[test]
fn a_right_proof_of_something_else_is_none() {
    let [_, example] = EXAMPLES;
    let nonce = format!("{}{}", example.client_nonce, example.server_nonce);
    for (gs2_header, nonce, expected) in [
        ("n,,", &nonce[..], None),
        ("y,,", &nonce, Some(Refusal::Credentials)),
        ("", &nonce, Some(Refusal::Credentials)),
        ("n,,", example.client_nonce, Some(Refusal::Credentials)),
        ("n,,", "another", Some(Refusal::Credentials)),
    ] {
        let salt = STANDARD.decode(example.salt).unwrap();
        let secrets = scram::secrets(ScramHash::Sha256, "pencil", &salt, 4096).unwrap();
        let without_proof = scram::ClientFinal::without_proof(gs2_header, nonce);
        let first = example.first();
        let signed = scram::auth_message(&first[3..], &example.server_first(), &without_proof);
        let (proof, _) = secrets.sign(ScramHash::Sha256, &signed).unwrap();
        let last = scram::ClientFinal::write(&without_proof, &proof);
        let (progress, accounts) = example.server(&first);
        match (challenge(progress).1.respond(last.as_bytes(), &accounts), expected) {
            (Progress::Challenge(..), None) => {}
            (progress, Some(expected)) => assert_eq!(outcome(progress), Err(expected), "{last}"),
            (progress, None) => panic!("{progress:?}"),
        }
    }
}

#[test]
fn the_client_leaves_a_server_that_is_not_the_one() {
    let [example, _] = EXAMPLES;
    let good = example.server_first();
    for (first, expected) in [
        (good.replace("i=4096", "i=4095"), Some(ClientError::Iterations(4095))),
        (good.replace("i=4096", "i=1000001"), Some(ClientError::Iterations(1_000_001))),
        (good.replace("i=4096", "i=99999999999"), None),
        (good.replace("i=4096", "i=-1"), None),
        (good.replace("i=4096", "i="), None),
        (good.replace(example.server_nonce, ""), None),
        (good.replace("fyko", "gyko"), None),
        (good.replace(example.salt, ""), None),
        (good.replace(example.salt, "!"), None),
        (format!("m=1,{good}"), None),
        (String::new(), None),
    ] {
        let error = example.client().respond(first.as_bytes()).unwrap_err();
        match expected {
            Some(expected) => assert_eq!(error, expected, "{first}"),
            None => assert!(matches!(error, ClientError::Challenge(_)), "{first}: {error}"),
        }
    }
    for (last, expected) in [
        (example.verifier.replace("v=r", "v=s"), ClientError::Impostor),
        ("v=".into(), ClientError::Impostor),
        ("e=invalid-proof\n".into(), ClientError::Refused("invalid-proof?".into())),
    ] {
        let mut client = example.client();
        client.respond(good.as_bytes()).unwrap();
        assert_eq!(client.respond(last.as_bytes()), Err(expected));
        assert_eq!(client.accept(), Err(ClientError::Impostor));
    }
}

#[test]
fn rfc_7628_and_xoauth2() {
    let token = "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==";
    let credentials = Credentials {
        user: "user@example.com",
        secret: token,
        host: "server.example.com",
        port: 143,
    };
    let nonce = Nonce::new(&[0; 18]);
    let mut client = ClientExchange::new(Mechanism::OauthBearer, &credentials, &nonce).unwrap();
    // RFC 7628 §4.1.
    let expected = "n,a=user@example.com,\x01host=server.example.com\x01port=143\x01\
                    auth=Bearer vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==\x01\x01";
    assert_eq!(client.initial_response().unwrap(), expected.as_bytes());
    assert_eq!(client.token_error(), "");
    assert_eq!(client.respond(b"{\"status\":\"401\"}\r\n"), Ok(b"\x01".to_vec()));
    assert_eq!(client.token_error(), "{\"status\":\"401\"}??");
    assert!(client.respond(b"").is_err());

    let mut client = ClientExchange::new(Mechanism::Xoauth2, &credentials, &nonce).unwrap();
    let expected = "user=user@example.com\x01\
                    auth=Bearer vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==\x01\x01";
    assert_eq!(client.initial_response().unwrap(), expected.as_bytes());
    assert_eq!(client.respond(&[b'x'; 9999]), Ok(Vec::new()));
    assert_eq!(client.token_error(), "x".repeat(500));

    // No listener of ours takes tokens.
    for mechanism in [Mechanism::OauthBearer, Mechanism::Xoauth2] {
        let progress = begin(mechanism, Some(expected.as_bytes()), &Away);
        assert_eq!(outcome(progress), Err(Refusal::NotOffered));
    }
}

/// RFC 4954 §4: a response that makes the line too long waits for a challenge.
#[test]
fn the_line_of_auth_stays_within_512_octets() {
    for length in 300..400 {
        let password = "p".repeat(length);
        let mut ann = client(Mechanism::Plain, "ann", &password).unwrap();
        let message = format!("\0ann\0{password}").into_bytes();
        let line = format!("AUTH PLAIN {}\r\n", STANDARD.encode(&message));
        let expected = (line.len() <= 512).then(|| message.clone());
        assert_eq!(ann.initial_response(), expected, "{length}");
        match expected {
            Some(_) => assert!(ann.respond(b"").is_err()),
            None => assert_eq!(ann.respond(b""), Ok(message)),
        }
    }
}

#[test]
fn what_cannot_be_sent_is_not() {
    for mechanism in Mechanism::OF_CLIENTS {
        for user in ["", "a\0b", "a\u{1}b", &"a".repeat(MAX_SECRET + 1)] {
            assert_eq!(client(mechanism, user, "x").unwrap_err(), ClientError::User);
        }
        for secret in ["", "a\0b", &"a".repeat(MAX_TOKEN + 1)] {
            assert_eq!(client(mechanism, "ann", secret).unwrap_err(), ClientError::Secret);
        }
    }
    assert!(client(Mechanism::Xoauth2, "ann", "a\u{1}b").is_err());
    assert!(client(Mechanism::Xoauth2, "ann", &"a".repeat(MAX_TOKEN)).is_ok());
}

#[test]
fn the_best_mechanism_is_chosen() {
    use Mechanism::{CramMd5, External, Login, Plain, ScramSha1, ScramSha256, Xoauth2};
    let all = Mechanism::OF_CLIENTS;
    assert_eq!(choose(&[Login, Plain, ScramSha1, ScramSha256], &all), Some(ScramSha256));
    assert_eq!(choose(&[Login, Plain, CramMd5], &[Login, Plain]), Some(Plain));
    assert_eq!(choose(&[Login], &all), Some(Login));
    assert_eq!(choose(&[Xoauth2, Plain], &[Login, Xoauth2]), Some(Xoauth2));
    assert_eq!(choose(&[External], &all), None);
    assert_eq!(choose(&[], &all), None);
}

#[test]
fn no_secret_is_shown() {
    for mechanism in Mechanism::OF_CLIENTS {
        let ann = client(mechanism, "ann", "Geheim1").unwrap();
        assert!(!format!("{ann:?}").contains("Geheim1"));
    }
    let credentials = Credentials { user: "ann", secret: "Geheim1", host: "mx.test", port: 25 };
    assert_eq!(format!("{credentials:?}"), "Credentials(\"ann\" at mx.test:25)");
}

fn any_message() -> impl Strategy<Value = Vec<u8>> {
    let attributes = prop::collection::vec("[ncrpsvieam]=[ -~]{0,12}|[nyp]?|\u{e9}|\0", 0..8);
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        attributes.prop_map(|parts| parts.join(",").into_bytes()),
        "(\0|ann|x)?(\0|ann|x)?(\0|ann|x)?( [0-9a-f]{32})?".prop_map(String::into_bytes),
    ]
}

fn any_mechanism() -> impl Strategy<Value = Mechanism> {
    prop::sample::select(BY_PASSWORD.to_vec())
}

proptest! {
    #[test]
    fn nonsense_is_never_accepted(
        mechanism in any_mechanism(),
        initial in prop::option::of(any_message()),
        messages in prop::collection::vec(any_message(), 4),
    ) {
        let accounts = One::new("ann", "a password that nobody finds");
        let mut progress = begin(mechanism, initial.as_deref(), &accounts);
        for message in messages {
            let Progress::Challenge(_, exchange) = progress else { break };
            progress = exchange.respond(&message, &accounts);
        }
        prop_assert!(matches!(progress, Progress::Refused { .. }), "{:?}", progress);
    }

    #[test]
    fn a_wrong_password_is_never_accepted(
        mechanism in any_mechanism(),
        right in "[!-~]{1,20}",
        wrong in "[!-~]{1,20}",
        takes_initial in any::<bool>(),
    ) {
        let accounts = One::new("ann", &right);
        let expected = if right == wrong { Ok("ann".into()) } else { Err(Refusal::Credentials) };
        let outcome = play(mechanism, ("ann", &wrong), &accounts, takes_initial);
        prop_assert_eq!(outcome, expected);
    }

    #[test]
    fn a_hostile_server_is_no_harm(
        mechanism in prop::sample::select(Mechanism::OF_CLIENTS.to_vec()),
        challenges in prop::collection::vec(any_message(), 1..5),
    ) {
        let mut ann = client(mechanism, "ann", "pencil").unwrap();
        ann.initial_response();
        for challenge in challenges {
            if ann.respond(&challenge).is_err() {
                break;
            }
        }
        let is_scram = mechanism.name().starts_with("SCRAM");
        prop_assert_eq!(ann.accept().is_ok(), !is_scram);
    }
}
