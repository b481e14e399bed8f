//! Memory delivery with real tokens and real pod objects: who gets files, and who does not and is on record for it.
//!
//! No kubelet runs. Pods are objects on nodes that are objects too; tokens are those that a kubelet would ask for.

use std::net::TcpListener;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use sealedenv_delivery::client::{Client, FetchError, Settings};
use sealedenv_delivery::{Answer, Outcome, Reason, Token, Wanted};
use sealedenv_e2e::cluster::{Namespace, kubectl, kubectl_with, wait};
use sealedenv_e2e::operator::{Home, Operator};
use sealedenv_e2e::seal::{self, sealedenv};
use sealedenv_e2e::setting;
use serde_json::{Value, json};

const CANARY: &str = "canary-7be2";

/// A node that nobody runs. Without it, the pods that name it would soon be collected as garbage.
struct Node(String);

/// An operator that serves, a SealedEnv `checkout` of ServiceAccount `buyer`, and pods.
struct Shop {
    home: Home,
    operator: Operator,
    address: String,
    /// Two.
    nodes: [Node; 2],
}

/// What came of a call.
#[derive(Debug, PartialEq, Eq)]
enum Got {
    Files(Vec<(String, String)>),
    Unchanged,
    Refused(Reason),
    Unauthenticated,
    Denied,
}

/// How a pod asks for its SealedEnv.
#[derive(Clone, Copy)]
enum Way {
    Csi,
    Agent,
}

impl Node {
    fn new(home: &Home, name: &str) -> Result<Self> {
        let name = format!("{}-{name}", home.namespace().name());
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": {"unschedulable": true}});
        kubectl_with(&["create", "-f", "-"], &node.to_string())?;
        Ok(Self(name))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Err(error) = kubectl(&["delete", "node", &self.0, "--ignore-not-found", "--wait=false"]) {
            eprintln!("{error:#}");
        }
    }
}

impl Shop {
    fn open(test: &str) -> Result<Self> {
        let home = Home::new(test)?;
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let operator = home.start("one", &["--delivery-listen", &address])?;
        operator.wait_ready()?;
        for account in ["buyer", "other", "sealedenv-node"] {
            home.namespace().kubectl(&["create", "serviceaccount", account])?;
        }
        home.apply("checkout", CANARY)?;
        home.apply("payments", CANARY)?;
        home.wait_value("checkout", CANARY)?;
        let nodes = [Node::new(&home, "a")?, Node::new(&home, "b")?];
        let shop = Self { home, operator, address, nodes };
        shop.spec(&json!({"delivery": "Memory", "allow": {"serviceAccounts": ["buyer"]}}))?;
        Ok(shop)
    }

    fn namespace(&self) -> &Namespace {
        self.home.namespace()
    }

    /// Changes the SealedEnv.
    fn spec(&self, spec: &Value) -> Result<()> {
        let patch = json!({ "spec": spec }).to_string();
        self.namespace().kubectl(&["patch", "sealedenv", "checkout", "--type=merge", "-p", &patch]).map(drop)
    }

    fn node(&self, number: usize) -> &str {
        &self.nodes[number].0
    }

    /// A pod that names a SealedEnv.
    fn pod(&self, name: &str, node: usize, account: &str, way: Way, env: &str) -> Result<()> {
        pod_in(self.namespace().name(), name, self.node(node), account, way, env)
    }

    fn token(&self, pod: &str, account: &str) -> Result<String> {
        token_in(self.namespace().name(), pod, account, "sealedenv.dev")
    }

    /// The token of a node plugin on that node.
    fn plugin(&self, node: usize) -> Result<String> {
        let name = format!("plugin-{node}");
        self.pod(&name, node, "sealedenv-node", Way::Csi, "none")?;
        self.token(&name, "sealedenv-node")
    }

    fn client(&self) -> Result<Client> {
        let authorities = wait("the authorities to be published", || {
            let map = self.namespace().find("configmap", "sealedenv-delivery-ca")?;
            Ok(map.and_then(|map| map["data"]["ca.crt"].as_str().map(str::to_owned)))
        })?;
        Ok(Client::new(Settings {
            endpoint: format!("https://{}", self.address),
            server_name: Some(format!("sealedenv-delivery.{}.svc", self.namespace().name())),
            authorities: authorities.into_bytes(),
            connect_timeout: Duration::from_secs(20),
            timeout: Duration::from_secs(20),
        })?)
    }

    fn fetch(
        &self,
        pod: &str,
        node: Option<&str>,
        env: &str,
        held: Option<&str>,
    ) -> Result<Result<Vec<Answer>, FetchError>> {
        let token = |text: &str| Token::new(text.to_owned());
        let (pod, node) = (token(pod)?, node.map(token).transpose()?);
        let wanted = [Wanted { name: env.to_owned(), held: held.map(str::to_owned) }];
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            Ok(self.client()?.fetch(&pod, node.as_ref(), &wanted).await.map(|fetched| fetched.answers))
        })
    }

    fn ask(&self, pod: &str, node: Option<&str>, env: &str) -> Result<Got> {
        self.ask_holding(pod, node, env, None)
    }

    fn ask_holding(&self, pod: &str, node: Option<&str>, env: &str, held: Option<&str>) -> Result<Got> {
        let mut answers = match self.fetch(pod, node, env, held)? {
            Err(FetchError::Unauthenticated(_)) => return Ok(Got::Unauthenticated),
            Err(FetchError::Denied(_)) => return Ok(Got::Denied),
            answers => answers?,
        };
        Ok(match answers.pop().context("an answer")?.outcome {
            Outcome::Files(files) => Got::Files(
                (files.files.iter())
                    .map(|f| (f.path.to_string(), String::from_utf8_lossy(f.content.expose()).into_owned()))
                    .collect(),
            ),
            Outcome::Unchanged { .. } => Got::Unchanged,
            Outcome::Refused(refused) => Got::Refused(refused.reason),
        })
    }

    /// The last record of a delivery.
    fn last(&self) -> Result<Value> {
        let trail = self.operator.trail()?;
        trail.into_iter().rfind(|line| line["action"] == "deliver").context("no delivery on the trail")
    }

    /// Asks, and holds the answer and the record against what they must be.
    fn refused(&self, pod: &str, node: Option<&str>, env: &str, got: &Got, rung: &str) -> Result<()> {
        let found = self.ask(pod, node, env)?;
        if found != *got {
            bail!("{rung}: {found:?} instead of {got:?}\n{}", self.operator.log());
        }
        let line = self.last()?;
        assert_eq!((&line["outcome"], &line["reason"]), (&json!("refused"), &json!(rung)), "{line}");
        Ok(())
    }
}

fn pod_in(namespace: &str, name: &str, node: &str, account: &str, way: Way, env: &str) -> Result<()> {
    let volume = match way {
        Way::Csi => json!({"name": "env", "csi": {
            "driver": "csi.sealedenv.dev", "readOnly": true, "volumeAttributes": {"sealedenv": env},
        }}),
        Way::Agent => json!({"name": "env", "projected": {"sources": [
            {"serviceAccountToken": {"audience": "sealedenv.dev", "path": format!("{env}/token")}},
        ]}}),
    };
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {
            "nodeName": node, "serviceAccountName": account, "volumes": [volume],
            "automountServiceAccountToken": false,
            "tolerations": [{"operator": "Exists"}],
            "containers": [{"name": "main", "image": "none"}],
        },
    });
    kubectl_with(&["-n", namespace, "create", "-f", "-"], &pod.to_string()).map(drop)
}

fn token_in(namespace: &str, pod: &str, account: &str, audience: &str) -> Result<String> {
    let bound = ["--bound-object-kind=Pod", &format!("--bound-object-name={pod}")].map(str::to_owned);
    let audience = format!("--audience={audience}");
    let args = ["-n", namespace, "create", "token", account, &audience, &bound[0], &bound[1]];
    Ok(kubectl_with(&args, "")?.trim().to_owned())
}

fn files() -> Got {
    Got::Files(vec![("A".to_owned(), CANARY.to_owned())])
}

#[test]
fn a_pod_gets_its_files_no_secret_is_there_and_the_trail_says_who() -> Result<()> {
    let shop = Shop::open("delivered")?;
    shop.pod("web", 0, "buyer", Way::Csi, "checkout")?;
    shop.pod("job", 1, "buyer", Way::Agent, "checkout")?;
    let (web, plugin) = (shop.token("web", "buyer")?, shop.plugin(0)?);
    assert_eq!(shop.ask(&web, Some(&plugin), "checkout")?, files(), "{}", shop.operator.log());
    let line = shop.last()?;
    let uid = shop.namespace().get("pod", "web")?["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
    let detail = line["detail"].as_str().unwrap_or_default();
    assert!(detail.contains(&uid) && detail.contains(&format!("node plugin of {}", shop.node(0))), "{line}");
    assert_eq!(line["actor"]["name"], format!("system:serviceaccount:{}:buyer", shop.namespace().name()));
    assert_eq!((&line["outcome"], &line["keys"]), (&json!("ok"), &json!(["A"])));

    let digest = line["after"].as_str().context("a digest")?.to_owned();
    assert_eq!(shop.ask_holding(&web, Some(&plugin), "checkout", Some(&digest))?, Got::Unchanged);
    assert_eq!(shop.ask(&shop.token("job", "buyer")?, None, "checkout")?, files());

    // It was a Secret for the moment before delivery became Memory; that one goes.
    wait("the Secret to go", || {
        let status = shop.namespace().get("sealedenv", "checkout")?;
        let ready = status["status"]["conditions"].to_string().contains("no Secret is written");
        Ok((shop.namespace().find("secret", "checkout")?.is_none() && ready).then_some(()))
    })?;
    assert!(!shop.operator.log().contains(CANARY));
    let trail: Vec<Value> = shop.operator.trail()?;
    assert!(!json!(trail).to_string().contains(CANARY));
    let moved = trail.iter().any(|line| line["reason"] == "DeliveredInMemory" && line["action"] == "delete");
    assert!(moved, "the deletion is not on record");
    Ok(())
}

#[test]
fn tokens_that_prove_no_pod_are_refused() -> Result<()> {
    let shop = Shop::open("tokens")?;
    let namespace = shop.namespace().name();
    shop.pod("web", 0, "buyer", Way::Agent, "checkout")?;
    let good = shop.token("web", "buyer")?;
    let unauthenticated = |token: &str, node: Option<&str>, rung: &str| {
        shop.refused(token, node, "checkout", &Got::Unauthenticated, rung)
    };
    let torn = format!("{}AAAA", &good[..good.len() - 4]);
    unauthenticated(&torn, None, "Authenticated")?;
    unauthenticated("made.up.token", None, "Authenticated")?;
    // The API server calls a token of another audience not authenticated; a server that knows no audiences is in the unit tests.
    for audience in ["https://kubernetes.default.svc", "sealedenv.dev.evil"] {
        unauthenticated(&token_in(namespace, "web", "buyer", audience)?, None, "Authenticated")?;
    }
    let unbound = shop.namespace().kubectl(&["create", "token", "buyer", "--audience=sealedenv.dev"])?;
    unauthenticated(unbound.trim(), None, "BoundToPod")?;
    let person = shop.namespace().kubectl(&["create", "token", "buyer"])?;
    unauthenticated(person.trim(), None, "Authenticated")?;
    // Another pod's token where the node plugin's should be.
    unauthenticated(&good, Some(&good), "PluginAccount")?;
    unauthenticated(&good, Some("made.up"), "PluginAuthenticated")?;
    // A token of another namespace that this operator does not serve.
    let other = Namespace::new("tokens_elsewhere")?;
    other.kubectl(&["create", "serviceaccount", "buyer"])?;
    pod_in(other.name(), "web", shop.node(0), "buyer", Way::Agent, "checkout")?;
    unauthenticated(&token_in(other.name(), "web", "buyer", "sealedenv.dev")?, None, "NamespaceServed")?;
    assert_eq!(shop.ask(&good, None, "checkout")?, files());
    assert!(!shop.operator.log().contains(&good[good.len() - 40..]), "a token in the log");
    Ok(())
}

#[test]
fn pods_that_are_not_what_the_token_says_are_refused() -> Result<()> {
    let shop = Shop::open("pods")?;
    let denied = |token: &str, node: Option<&str>, rung: &str| {
        shop.refused(token, node, "checkout", &Got::Denied, rung)
    };
    // A node gets what its own pods may have, whoever's token it holds.
    shop.pod("web", 0, "buyer", Way::Csi, "checkout")?;
    let (web, here, elsewhere) = (shop.token("web", "buyer")?, shop.plugin(0)?, shop.plugin(1)?);
    denied(&web, Some(&elsewhere), "PodOnNode")?;
    // And cannot leave its own token out and ask as an agent.
    shop.refused(&web, None, "checkout", &Got::Refused(Reason::NotNamed), "Named")?;
    assert_eq!(shop.ask(&web, Some(&here), "checkout")?, files());

    for phase in ["Succeeded", "Failed"] {
        let patch = json!({"status": {"phase": phase}}).to_string();
        shop.namespace().kubectl(&[
            "patch",
            "pod",
            "web",
            "--subresource=status",
            "--type=merge",
            "-p",
            &patch,
        ])?;
        denied(&web, Some(&here), "PodNotFinished")?;
    }

    shop.pod("going", 0, "buyer", Way::Csi, "checkout")?;
    let going = shop.token("going", "buyer")?;
    let hold = json!({"metadata": {"finalizers": ["example.com/hold"]}}).to_string();
    shop.namespace().kubectl(&["patch", "pod", "going", "--type=merge", "-p", &hold])?;
    shop.namespace().kubectl(&["delete", "pod", "going", "--wait=false"])?;
    denied(&going, Some(&here), "PodNotTerminating")?;
    let release = json!({"metadata": {"finalizers": null}}).to_string();
    shop.namespace().kubectl(&["patch", "pod", "going", "--type=merge", "-p", &release])?;
    shop.namespace().kubectl(&[
        "delete",
        "pod",
        "going",
        "--force",
        "--grace-period=0",
        "--ignore-not-found",
    ])?;

    // Deleted: whichever of the two sees it first, the API server's review or our read.
    let found = shop.ask(&going, Some(&here), "checkout")?;
    assert!(matches!(found, Got::Denied | Got::Unauthenticated), "{found:?}");
    let rung = shop.last()?["reason"].clone();
    assert!(rung == "PodLives" || rung == "Authenticated", "{rung}");
    // Another pod of the same name, with the former one's token.
    shop.pod("going", 0, "buyer", Way::Csi, "checkout")?;
    let found = shop.ask(&going, Some(&here), "checkout")?;
    assert!(matches!(found, Got::Denied | Got::Unauthenticated), "{found:?}");
    let rung = shop.last()?["reason"].clone();
    assert!(rung == "PodUid" || rung == "Authenticated", "{rung}");
    Ok(())
}

#[test]
fn a_pod_gets_only_what_its_spec_names_and_the_sealed_env_allows() -> Result<()> {
    let shop = Shop::open("named")?;
    shop.pod("web", 0, "buyer", Way::Agent, "checkout")?;
    shop.pod("intruder", 0, "other", Way::Agent, "checkout")?;
    shop.pod("early", 0, "buyer", Way::Agent, "missing")?;
    shop.pod("plain", 0, "buyer", Way::Agent, "payments")?;
    let web = shop.token("web", "buyer")?;
    let refused = |token: &str, env: &str, reason: Reason, rung: &str| {
        shop.refused(token, None, env, &Got::Refused(reason), rung)
    };
    // What can be patched on a running pod names nothing.
    shop.namespace().kubectl(&["annotate", "pod", "web", "sealedenv.dev/inject=payments"])?;
    refused(&web, "payments", Reason::NotNamed, "Named")?;
    refused(&web, "missing", Reason::NotNamed, "Named")?;
    refused(&shop.token("early", "buyer")?, "missing", Reason::NotFound, "Found")?;
    refused(&shop.token("plain", "buyer")?, "payments", Reason::NotMemory, "InMemory")?;
    refused(&shop.token("intruder", "other")?, "checkout", Reason::NotAllowed, "Allowed")?;
    assert_eq!(shop.ask(&web, None, "checkout")?, files());
    // Authorised anew each time.
    shop.spec(&json!({"allow": {"serviceAccounts": ["other"]}}))?;
    refused(&web, "checkout", Reason::NotAllowed, "Allowed")?;
    shop.spec(&json!({"allow": null, "suspend": true}))?;
    refused(&web, "checkout", Reason::Suspended, "Active")?;
    shop.spec(&json!({"suspend": null}))?;
    assert_eq!(shop.ask(&web, None, "checkout")?, files());
    Ok(())
}

impl Shop {
    /// What `sealedenv who` says of each pod: what it has, and why it was refused.
    fn who(&self) -> Result<Vec<(String, String, String)>> {
        let kubeconfig = setting::kubeconfig()?;
        let namespace = self.namespace().name();
        let args = ["who", "checkout", "-n", namespace, "--kubeconfig", &kubeconfig, "--output", "json"];
        let found: Value = serde_json::from_slice(&sealedenv(&args, b"")?)?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let holders = found["holders"].as_array().context("a list")?;
        Ok(holders
            .iter()
            .map(|one| (text(&one["pod"]), text(&one["version"]), text(&one["refused"])))
            .collect())
    }

    fn wait_who(&self, wanted: &[(&str, &str, &str)]) -> Result<()> {
        let wanted: Vec<_> =
            wanted.iter().map(|(a, b, c)| ((*a).to_owned(), (*b).to_owned(), (*c).to_owned())).collect();
        wait("what is told of pods", || {
            let found = self.who()?;
            if found == wanted { Ok(Some(())) } else { bail!("{found:?}\n{}", self.operator.log()) }
        })
    }
}

#[test]
fn the_status_tells_which_pods_hold_the_values_and_who_shows_it() -> Result<()> {
    let mut shop = Shop::open("who")?;
    shop.pod("web", 0, "buyer", Way::Agent, "checkout")?;
    shop.pod("late", 0, "buyer", Way::Agent, "checkout")?;
    shop.pod("stranger", 0, "buyer", Way::Agent, "payments")?;
    let web = shop.token("web", "buyer")?;
    assert_eq!(shop.ask(&web, None, "checkout")?, files());
    shop.wait_who(&[("late", "unknown", ""), ("web", "current", "")])?;

    // A standby tells as well.
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
    let standby = shop.home.start("two", &["--delivery-listen", &address])?;
    standby.wait_ready()?;
    let leader = std::mem::replace(&mut shop.operator, standby);
    let of_leader = std::mem::replace(&mut shop.address, address);
    assert_eq!(shop.ask(&shop.token("late", "buyer")?, None, "checkout")?, files());
    shop.wait_who(&[("late", "current", ""), ("web", "current", "")])?;
    let _standby = std::mem::replace(&mut shop.operator, leader);
    shop.address = of_leader;

    // A pod that does not ask again has what it had.
    let sealed = seal::strict(shop.home.recipient(), shop.namespace().name(), "checkout", "A", "newer")?;
    shop.spec(&json!({"data": {"A": sealed}}))?;
    shop.wait_who(&[("late", "outdated", ""), ("web", "outdated", "")])?;
    shop.spec(&json!({"allow": {"serviceAccounts": ["other"]}}))?;
    assert_eq!(shop.ask(&web, None, "checkout")?, Got::Refused(Reason::NotAllowed));
    shop.wait_who(&[("late", "outdated", ""), ("web", "outdated", "NotAllowed")])?;
    let condition = |type_: &str| -> Result<Option<Value>> {
        let env = shop.namespace().get("sealedenv", "checkout")?;
        let all = env["status"]["conditions"].as_array().context("conditions")?;
        Ok(all.iter().find(|one| one["type"] == type_).cloned())
    };
    let told = condition("DeliveryRefused")?.context("a condition")?;
    assert!(told["message"].as_str().unwrap_or_default().contains("web (NotAllowed)"), "{told}");
    assert_eq!(condition("Ready")?.context("Ready")?["status"], "True", "the object is as its spec says");
    wait("an Event on the SealedEnv", || {
        let events = shop.namespace().kubectl(&["get", "events", "-o", "json"])?;
        let events: Value = serde_json::from_str(&events)?;
        let all = events["items"].as_array().context("events")?;
        let ours = all.iter().find(|one| one["reason"] == "DeliveryRefused");
        Ok(ours.filter(|one| one["involvedObject"]["name"] == "checkout").map(drop))
    })?;

    shop.spec(&json!({"allow": null}))?;
    assert!(matches!(shop.ask(&web, None, "checkout")?, Got::Files(_)));
    shop.wait_who(&[("late", "outdated", ""), ("web", "current", "")])?;
    assert_eq!(condition("DeliveryRefused")?, None);
    Ok(())
}

#[test]
fn a_standby_serves_too_and_both_have_one_authority() -> Result<()> {
    let mut shop = Shop::open("standby")?;
    shop.pod("web", 0, "buyer", Way::Agent, "checkout")?;
    let web = shop.token("web", "buyer")?;
    assert_eq!(shop.ask(&web, None, "checkout")?, files());
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
    let standby = shop.home.start("two", &["--delivery-listen", &address])?;
    standby.wait_ready()?;
    assert!(!standby.leads()?);
    let leader = std::mem::replace(&mut shop.operator, standby);
    shop.address = address;
    let deliveries = |operator: &Operator| -> Result<usize> {
        Ok(operator.trail()?.iter().filter(|line| line["action"] == "deliver").count())
    };
    let before = deliveries(&leader)?;
    assert_eq!(shop.ask(&web, None, "checkout")?, files());
    assert_eq!(shop.last()?["outcome"], "ok", "on the standby's own trail");
    assert_eq!(deliveries(&leader)?, before);
    let kept =
        shop.namespace().kubectl(&["get", "secrets", "-l", "sealedenv.dev/delivery-ca", "-o", "name"])?;
    assert_eq!(kept.lines().count(), 1, "{kept}");
    Ok(())
}
