//! The whole API on a port.

use super::*;

/// The whole way: a certificate of an authority that is published, TLS, the contract's client.
#[tokio::test]
async fn served_over_tls_to_who_trusts_the_published_authority() {
    let (log, memory) = recorded();
    let bench = bench(log, Leadership::alone());
    let shutdown = Shutdown::new();
    let (address, mut tasks) = bench.serve(&shutdown);
    let authorities = bench.published().await;
    assert_eq!(bench.world.lock().unwrap().answers[SECRETS].1.as_array().unwrap().len(), 1, "one authority");
    assert!(!authorities.contains("PRIVATE"), "a key is published");
    assert!(authorities.contains("BEGIN CERTIFICATE"));
    let client_of = |address: std::net::SocketAddr, name: &str| {
        client::Client::new(client::Settings {
            endpoint: format!("https://{address}"),
            server_name: Some(name.to_owned()),
            authorities: authorities.clone().into_bytes(),
            connect_timeout: Duration::from_secs(20),
            timeout: Duration::from_secs(20),
        })
        .unwrap()
    };
    let wanted = [Wanted { name: "checkout".to_owned(), held: None }];
    let client = |name: &str| client_of(address, name);
    let by_name = client("sealedenv-delivery.system.svc");
    let fetched = by_name.fetch(&token("pod"), Some(&token("plugin")), &wanted).await.unwrap();
    assert_eq!(fetched.authorities.unwrap().as_str(), authorities, "each answer says whom to trust");
    let answers = fetched.answers;
    assert!(
        matches!(&answers[0].outcome, Outcome::Files(files) if files.files[0].content.expose() == CANARY.as_bytes())
    );
    let denied = by_name.fetch(&token("made.up"), None, &wanted).await;
    assert!(matches!(denied, Err(client::FetchError::Unauthenticated(_))));
    let elsewhere = client("sealedenv-delivery.other.svc").fetch(&token("pod"), None, &wanted).await;
    assert!(matches!(elsewhere, Err(client::FetchError::Unavailable(_))), "the certificate has another name");
    assert_eq!(lines(&memory).len(), 2);

    // Another replica, or the same one started again, is known to the same clients: the authority was kept.
    let (address, more) = bench.serve(&shutdown);
    tasks.extend(more);
    let other = client_of(address, "sealedenv-delivery.system.svc");
    let answers = async {
        loop {
            // Until it has a certificate it takes no handshake.
            match other.fetch(&token("pod"), None, &wanted).await {
                Err(client::FetchError::Unavailable(_)) => tokio::task::yield_now().await,
                answers => return answers,
            }
        }
    };
    let answers =
        tokio::time::timeout(Duration::from_mins(1), answers).await.expect("it serves").unwrap().answers;
    assert!(matches!(answers[0].outcome, Outcome::Files(_)));
    assert_eq!(bench.world.lock().unwrap().answers[SECRETS].1.as_array().unwrap().len(), 1, "made once");
    shutdown.trigger();
    for task in tasks {
        tokio::time::timeout(Duration::from_mins(1), task).await.expect("it ends").unwrap();
    }
}

impl Bench {
    /// Serves all of it on a free port.
    fn serve(&self, shutdown: &Shutdown) -> (std::net::SocketAddr, Vec<tokio::task::JoinHandle<()>>) {
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let ready = Readiness::new().gate("delivery");
        let settings = Settings::new(address, "sealedenv-delivery", "system", "sealedenv-node");
        let parts = Parts {
            ctx: Arc::clone(&self.ctx),
            client: self.ctx.client.clone(),
            extents: vec![Extent::Cluster],
            steady: Steady::system(),
            metrics: Deliveries::default(),
            ready,
        };
        (address, serve::start(settings, parts, shutdown.clone()).unwrap())
    }

    /// The authorities, when they are published.
    async fn published(&self) -> String {
        let published = async {
            loop {
                let map = self.world.lock().unwrap().answers.get(BUNDLE).cloned();
                if let Some((_, map)) = map {
                    return map["data"]["ca.crt"].as_str().unwrap().to_owned();
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_mins(1), published).await.expect("the authorities are published")
    }
}
