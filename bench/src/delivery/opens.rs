//! How often the operator opens a SealedEnv for a pod: beside a floor of the same questions to the API server, and by the
//! CPU time it takes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use futures::future::try_join_all;
use sealedenv_delivery::client::{Client, Settings};
use sealedenv_delivery::{Outcome, Token, Wanted};
use serde_json::json;

use super::{AUDIENCE, MEMORY, NAMESPACE, Options, Place, token};
use crate::api::{POD, SEALED_ENV};
use crate::objects::KEYS;
use crate::report::{Line, number};
use crate::stats::{median, milliseconds, quantile, range, rate};

/// Connections, and calls at once on each.
const CONNECTIONS: usize = 2;
const CALLS: usize = 8;

/// How often floor and operator take turns.
const ROUNDS: usize = 3;

/// A pod that asks as an agent does. No node takes it: it is there, and nothing more is needed.
const ASKING: &str = "asking";

/// What one turn came to.
struct Turn {
    rate: f64,
    took: Vec<f64>,
}

/// Measures it.
pub(super) async fn measure(place: &Place, options: &Options) -> Result<Vec<Line>> {
    let token = asking(place).await?;
    let clients = clients(place, options).await?;
    let each = Duration::from_secs(options.seconds);
    turn(each / 4, CONNECTIONS * CALLS, |index| opening(&clients, &token, index)).await?;
    let (mut rates, mut ratios, mut took, mut costs) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let floor = turn(each, CONNECTIONS * CALLS, |_| looking(place, &token)).await?;
        let before = cpu(place)?;
        let ours = turn(each, CONNECTIONS * CALLS, |index| opening(&clients, &token, index)).await?;
        costs.push(milliseconds(cpu(place)?.saturating_sub(before)) / f64::max(count(&ours), 1.0));
        ratios.push(ours.rate / floor.rate);
        rates.push(ours.rate);
        took.extend(ours.took);
    }
    let of = |sample: &[f64]| median(sample).context("nothing was measured");
    let cost = of(&costs)?;
    let (least, most) = range(&ratios).context("nothing was measured")?;
    let values = u32::try_from(KEYS).unwrap_or(u32::MAX);
    Ok(vec![
        Line::at_least(
            format!("openings of {values} values for pods, by the operator's CPU time, on two cores"),
            2000.0 / cost,
            2000.0,
            "/s",
            &format!("{} ms of CPU time each", number(cost)),
        ),
        Line::told(
            "the same as measured, API server and caller on the same two cores",
            format!("{}/s, {} values/s", number(of(&rates)?), number(of(&rates)? * f64::from(values))),
        ),
        Line::told(
            "the same beside a floor that asks the API server the same three questions",
            format!("{} × (rounds {} to {})", number(of(&ratios)?), number(least), number(most)),
        ),
        Line::told(
            format!("a call, {} at once", CONNECTIONS * CALLS),
            format!(
                "p50 {} ms, p99 {} ms",
                number(quantile(&took, 0.5).unwrap_or_default()),
                number(quantile(&took, 0.99).unwrap_or_default())
            ),
        ),
    ])
}

#[allow(clippy::cast_precision_loss)]
fn count(turn: &Turn) -> f64 {
    turn.took.len() as f64
}

fn cpu(place: &Place) -> Result<Duration> {
    place.operators.iter().map(|operator| operator.cpu()).sum()
}

/// Makes calls for some time.
async fn turn<F>(time: Duration, at_once: usize, one: impl Fn(usize) -> F) -> Result<Turn>
where
    F: Future<Output = Result<()>>,
{
    let start = Instant::now();
    let done = Arc::new(AtomicUsize::new(0));
    let lane = |index: usize| {
        let (one, done) = (&one, Arc::clone(&done));
        async move {
            let mut took = Vec::new();
            while start.elapsed() < time {
                let begun = Instant::now();
                one(index).await?;
                took.push(milliseconds(begun.elapsed()));
                done.fetch_add(1, Ordering::Relaxed);
            }
            anyhow::Ok(took)
        }
    };
    let took: Vec<Vec<f64>> = try_join_all((0..at_once).map(lane)).await?;
    let rate = rate(done.load(Ordering::Relaxed), start.elapsed());
    Ok(Turn { rate, took: took.concat() })
}

/// One call of the operator, and whether it gave all.
async fn opening(clients: &[Client], token: &Token, index: usize) -> Result<()> {
    let client = clients.get(index % clients.len()).context("a client")?;
    let wanted = Wanted { name: MEMORY.to_owned(), held: None };
    let fetched = client.fetch(token, None, &[wanted]).await?;
    match fetched.answers.first().map(|answer| &answer.outcome) {
        Some(Outcome::Files(files)) if files.files.len() == KEYS => Ok(()),
        Some(Outcome::Refused(refused)) => bail!("refused: {}", refused.message),
        _ => bail!("not the {KEYS} files"),
    }
}

/// The questions that the operator asks for it.
async fn looking(place: &Place, token: &Token) -> Result<()> {
    let review = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
        "spec": { "audiences": [AUDIENCE], "token": token.expose() },
    });
    let reviewed =
        place.cluster.post("/apis/authentication.k8s.io/v1/tokenreviews", review.to_string()).await?;
    ensure!(reviewed["status"]["authenticated"] == true, "the token is not good");
    place.cluster.get(&format!("{}/{ASKING}", POD.within(NAMESPACE))).await?;
    place.cluster.get(&format!("{}/{MEMORY}", SEALED_ENV.within(NAMESPACE))).await?;
    Ok(())
}

/// Makes the pod that asks; gives its token.
async fn asking(place: &Place) -> Result<Token> {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": ASKING },
        "spec": {
            "nodeSelector": { "example.com/none": "true" },
            "automountServiceAccountToken": false,
            "containers": [{ "name": "app", "image": "localhost/none:v1" }],
            "volumes": [{ "name": "token", "projected": { "sources": [{
                "serviceAccountToken": { "audience": AUDIENCE, "path": format!("{MEMORY}/token") },
            }] } }],
        },
    });
    let written = place.cluster.create(&POD.within(NAMESPACE), pod.to_string()).await?;
    Ok(Token::new(token(&place.cluster, ASKING, &written.uid).await?)?)
}

/// Clients of the operator's Service, with a connection each.
async fn clients(place: &Place, options: &Options) -> Result<Vec<Client>> {
    let Options { system, release, .. } = options;
    let get = async |what: &str, name: &str| {
        place.cluster.get(&format!("/api/v1/namespaces/{system}/{what}/{name}")).await
    };
    let service = get("services", &format!("{release}-delivery")).await?;
    let published = get("configmaps", "sealedenv-delivery-ca").await?;
    let address = service["spec"]["clusterIP"].as_str().context("the Service's address")?;
    let port = service["spec"]["ports"][0]["port"].as_u64().context("the Service's port")?;
    let authorities = published["data"]["ca.crt"].as_str().context("the operator's authorities")?;
    let client = |_| {
        Client::new(Settings {
            endpoint: format!("https://{address}:{port}"),
            server_name: Some(format!("{release}-delivery.{system}.svc")),
            authorities: authorities.as_bytes().to_vec(),
            connect_timeout: Duration::from_secs(5),
            timeout: Duration::from_secs(10),
        })
    };
    (0..CONNECTIONS).map(client).collect::<Result<_, _>>().context("making a client of the operator")
}
