//! Sessions of pages over WebTransport.

use crate::harness::*;
use crate::web::WebNode;
use bytes::{BufMut, BytesMut};
use headwater_model::node::{Known, SourceAccess};
use headwater_model::{Hash, report};
use headwater_transport::{
    Identity, PAGE_PATH, ProofError, Proved, Shows, Unproved, https_client_config, prove_as_page,
};
use headwater_wire::web::WebHello;
use headwater_wire::{FromControl, FromNode, Heartbeat};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, RecvStream, SendStream, VarInt as Code};
use std::sync::Arc;
use std::time::Duration;
use web_transport_proto::{ConnectError, ConnectRequest, ConnectResponse, Frame, Settings, VarInt};

/// What is not to happen is waited for so long.
const A_MOMENT: Duration = Duration::from_millis(200);

/// Hashes of the certificates that pages see, as the API says without a token.
async fn hashes(control: &Control) -> Vec<Hash> {
    let answer = soon("an answer", client().get(format!("{}/v1/page", control.api_url)).send()).await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["access-control-allow-origin"]),
        (200, &"*".parse().unwrap())
    );
    let said: serde_json::Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    let all = said["webtransport"]["certificate_hashes"].as_array().unwrap();
    all.iter().map(|hash| hash.as_str().unwrap().parse().unwrap()).collect()
}

/// A page's connection, and what stays open on it.
struct Browser {
    connection: Connection,
    settings: SendStream,
    _session: Option<(SendStream, RecvStream)>,
}

impl Browser {
    /// Connected: no certificate of its own, the other's known by its hash.
    async fn dial(control: &Control, shows: Hash) -> Result<Browser, quinn::ConnectionError> {
        let (mut tls, _) = https_client_config(Shows::This(shows)).unwrap();
        tls.alpn_protocols = vec![b"h3".to_vec()];
        let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
        let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let dialling = endpoint.connect_with(config, control.address, "127.0.0.1").unwrap();
        let connection = soon("a connection", dialling).await?;
        let mut settings = Settings::default();
        settings.enable_webtransport(1);
        let mut stream = connection.open_uni().await.unwrap();
        settings.write(&mut stream).await.unwrap();
        Ok(Browser { connection, settings: stream, _session: None })
    }

    /// Asks for a session; the answer's status.
    async fn ask(&mut self, path: &str) -> u16 {
        let (mut send, mut receive) = self.connection.open_bi().await.unwrap();
        let url: url::Url = format!("https://127.0.0.1{path}").parse().unwrap();
        ConnectRequest::new(url).write(&mut send).await.unwrap();
        let status = match soon("an answer", ConnectResponse::read(&mut receive)).await {
            Ok(answer) => answer.status,
            Err(ConnectError::WrongStatus(Some(status))) => status,
            Err(e) => panic!("{e}"),
        };
        self._session = Some((send, receive));
        status.as_u16()
    }

    /// With a session.
    async fn connect(control: &Control) -> Browser {
        let mut browser = Self::dial(control, hashes(control).await[0]).await.unwrap();
        assert_eq!(browser.ask(PAGE_PATH).await, 200);
        browser
    }

    /// A stream on the session with this number.
    async fn stream_of(&self, session: u32) -> (SendStream, RecvStream) {
        let (mut send, receive) = self.connection.open_bi().await.unwrap();
        let mut header = Vec::new();
        Frame::WEBTRANSPORT.encode(&mut header);
        VarInt::from_u32(session).encode(&mut header);
        send.write_all(&header).await.unwrap();
        (send, receive)
    }

    async fn prove(&self, control: &Control, identity: &Identity, shown: Hash) -> Result<Proved, ProofError> {
        let (send, receive) = self.stream_of(0).await;
        let stream = Unproved::Page(self.connection.clone().into(), send, receive);
        soon("the proofs", prove_as_page(stream, identity, Some(control.node), Some(shown))).await
    }
}

/// A page with a session.
async fn arrive(control: &Control, identity: &Identity, hello: headwater_wire::Hello) -> (Browser, WebNode) {
    let browser = Browser::connect(control).await;
    let proved = browser.prove(control, identity, hashes(control).await[0]).await.unwrap();
    (browser, WebNode::greet(proved, hello).await)
}

async fn answered(page: &mut WebNode, interval: u64) {
    let beat = report::Heartbeat { interval, ..Default::default() };
    page.say(FromNode::Heartbeat(Heartbeat::new(beat, interval))).await;
    page.wait(|m| {
        matches!(m, FromControl::HeartbeatReply { echo_local_us, .. } if echo_local_us == interval).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_over_webtransport_has_shown_that_udp_gets_through() {
    let control = Control::start().await;
    assert_eq!(hashes(&control).await.len(), 2, "the one that is shown, and the next");
    let identity = Identity::ephemeral().unwrap();
    let (_browser, mut page) = arrive(&control, &identity, hello()).await;
    answered(&mut page, 1).await;
    let nodes = control.get("/v1/nodes").await;
    let shown = &nodes[0];
    assert_eq!((&shown["node"], &shown["page"]), (&identity.node.to_string().into(), &true.into()));
    assert_eq!((&shown["udp"], &shown["udp_from"], &shown["enrolled"]), (&true.into(), &"test".into(), &false.into()));
    assert_eq!((&shown["accepts"], &shown["listens"]), (&"dial-only".into(), &false.into()));

    // A policy of its site lets it reach no peer: that is its word.
    let mut listed = hello();
    listed.introduction.capabilities.sources = Known::claim(SourceAccess::Listed);
    let (_other, _page) = arrive(&control, &identity, listed).await;
    page.wait(|m| matches!(m, FromControl::Goodbye { .. }).then_some(())).await;
    let nodes = control.get("/v1/nodes").await;
    assert_eq!((&nodes[0]["udp_from"], &nodes[0]["limited"]), (&"claim".into(), &"no UDP (as it says)".into()));
    control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_session_ends_with_the_page_and_with_the_control_center() {
    let control = Control::start().await;
    let (browser, mut page) = arrive(&control, &Identity::ephemeral().unwrap(), hello()).await;
    browser.connection.close(Code::from_u32(0), b"the tab was closed");
    soon("the end", async {
        while control.get("/v1/status").await["sessions"] != 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert!(page.reader.next().await.is_err());
    let (_browser, mut page) = arrive(&control, &Identity::ephemeral().unwrap(), hello()).await;
    let stopping = tokio::spawn(control.stop());
    let come_back = page.wait(|m| if let FromControl::Goodbye { come_back, .. } = m { Some(come_back) } else { None });
    assert!(come_back.await);
    drop(page);
    stopping.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_beginnings_get_nowhere() {
    let control = Control::start().await;
    let shown = hashes(&control).await;
    assert!(Browser::dial(&control, shown[1]).await.is_err(), "the next certificate is not shown yet");
    let mut other_path = Browser::dial(&control, shown[0]).await.unwrap();
    assert_eq!(other_path.ask("/other").await, 404);

    let no_request = Browser::dial(&control, shown[0]).await.unwrap();
    let (mut send, _receive) = no_request.connection.open_bi().await.unwrap();
    send.write_all(&[0xff; 64]).await.unwrap();
    soon("the end", no_request.connection.closed()).await;

    let silent = Browser::connect(&control).await;
    let other_session = Browser::connect(&control).await;
    let _stream = other_session.stream_of(4).await;
    soon("the end", other_session.connection.closed()).await;

    let identity = Identity::ephemeral().unwrap();
    let hello = |bytes: usize| WebHello { nonce: [1; 32], certificate: vec![0x30; bytes].into(), page: bytes == 91 };
    let node = WebHello { certificate: identity.certificate_and_key().0.to_vec().into(), ..hello(0) };
    for (what, body) in [
        ("no key", hello(91).encode()),
        ("too large", hello(5000).encode()),
        ("a node", node.encode()),
        ("garbage", vec![0xff; 40].into()),
    ] {
        let page = Browser::connect(&control).await;
        let (mut send, mut receive) = page.stream_of(0).await;
        let mut frame = BytesMut::new();
        frame.put_u32(body.len() as u32);
        frame.put(body);
        send.write_all(&frame).await.unwrap();
        assert!(soon("the end", receive.read_to_end(5000)).await.is_err(), "{what} is not answered");
        soon("the end", page.connection.closed()).await;
    }
    let other = Browser::connect(&control).await.prove(&control, &identity, Hash([1; 32])).await;
    assert!(matches!(other, Err(ProofError::Middleman)), "{other:?}");
    soon("the end of one that says nothing", silent.connection.closed()).await;
    assert_eq!(control.get("/v1/status").await["sessions"], 0);
    arrive(&control, &identity, crate::harness::hello()).await;
    control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_with_many_streams_and_much_to_say_harms_itself_only() {
    let control = Control::start().await;
    let (browser, mut page) = arrive(&control, &Identity::ephemeral().unwrap(), hello()).await;
    let mut streams = Vec::new();
    while let Ok(stream) = tokio::time::timeout(A_MOMENT, browser.connection.open_uni()).await {
        let mut stream = stream.unwrap();
        // Of its session: nobody takes it.
        stream.write_all(&[0x40, 0x54, 0x00, 1, 2, 3]).await.unwrap();
        streams.push(stream);
        assert!(streams.len() < 9, "more streams than were allowed");
    }
    let another = tokio::time::timeout(A_MOMENT, browser.connection.open_bi()).await;
    assert!(another.is_err(), "another stream in both directions");
    answered(&mut page, 1).await;

    let (loud, mut page) = arrive(&control, &Identity::ephemeral().unwrap(), hello()).await;
    let Browser { connection, mut settings, _session } = loud;
    let _ = settings.write_all(&[0; 64 << 10]).await;
    soon("the end", connection.closed()).await;
    assert!(page.reader.next().await.is_err());

    let (_large, mut page) = arrive(&control, &Identity::ephemeral().unwrap(), hello()).await;
    let mut oversized = BytesMut::new();
    oversized.put_u32(6 << 20);
    page.writer.send(oversized.freeze()).await.unwrap();
    let why = page.wait(|m| if let FromControl::Goodbye { why, .. } = m { Some(why) } else { None }).await;
    assert!(why.contains("5242880 is the limit"), "{why}");
    control.stop().await;
}
