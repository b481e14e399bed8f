//! Metrics, alerts and the dashboard fit together: names are as Prometheus wants them, each alert fires when it should
//! and only then, and no query asks for what no program tells.
//!
//! What the programs tell stands in charts/sealedenv/tests/metrics, written by a test of each.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in tests they are the report of a failure"
)]

mod pages;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::LazyLock,
};

use pages::{prose, read, root};
use serde_json::{Value, json};
use xtask::{Checkout, chart, tools};

static CHECKOUT: LazyLock<Checkout> = LazyLock::new(|| Checkout::find().unwrap());
static PROMTOOL: LazyLock<PathBuf> = LazyLock::new(|| tools::promtool(&CHECKOUT).unwrap());

/// What one program tells: type and labels of each metric.
type Metrics = BTreeMap<String, (String, BTreeSet<String>)>;

fn exposition(component: &str) -> String {
    read(&CHECKOUT.chart().join(format!("tests/metrics/{component}.txt")))
}

/// Reads an exposition in Prometheus' text format.
fn metrics(text: &str) -> Metrics {
    let mut metrics = Metrics::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            metrics.insert(name.to_owned(), (kind.to_owned(), BTreeSet::new()));
        } else if !line.starts_with('#') {
            let (name, labels) = line.split_once(['{', ' ']).unwrap();
            let (_, known) = find(&mut metrics, name).unwrap_or_else(|| panic!("no type before {line}"));
            let names = labels.split("\",").filter_map(|label| Some(label.split_once("=\"")?.0));
            known.extend(names.filter(|name| *name != "le").map(str::to_owned));
        }
    }
    metrics
}

/// The metric that a series belongs to: a histogram has three kinds of them.
fn find<'m>(metrics: &'m mut Metrics, series: &str) -> Option<&'m mut (String, BTreeSet<String>)> {
    let part = ["_bucket", "_sum", "_count"].iter().find_map(|part| series.strip_suffix(part));
    let histogram = part.filter(|name| metrics.get(*name).is_some_and(|(kind, _)| kind == "histogram"));
    metrics.get_mut(histogram.unwrap_or(series))
}

fn all_metrics() -> Metrics {
    let all: Metrics = ["operator", "webhook", "node"]
        .into_iter()
        .flat_map(|component| metrics(&exposition(component)))
        .collect();
    assert!(all.len() > 30, "only {} metrics", all.len());
    all
}

/// Runs promtool with a standard input. Gives whether it was content, and all it said.
fn promtool(arguments: &[&str], folder: &Path, stdin: &str) -> (bool, String) {
    let mut child = Command::new(&*PROMTOOL)
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // One that does not read its input closes the pipe; what it says tells why.
    let _closed_pipe = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    let output = child.wait_with_output().unwrap();
    let said =
        [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    (output.status.success(), said)
}

fn lint(exposition: &str) -> (bool, String) {
    promtool(&["check", "metrics"], &root(), exposition)
}

// --- names ---

#[test]
fn promtool_finds_no_fault_with_any_metric() {
    for component in ["operator", "webhook", "node"] {
        let (content, said) = lint(&exposition(component));
        assert!(content && said.trim().is_empty(), "{component}: {said}");
    }
    let (content, said) =
        lint("# HELP x_milliseconds Time\n# TYPE x_milliseconds counter\nx_milliseconds 1\n");
    assert!(!content && said.contains("_total") && said.contains("milliseconds"), "it does look: {said}");
}

#[test]
fn every_metric_is_documented_with_its_type_and_labels() {
    let page = read(&root().join("docs/src/metrics.md"));
    let documented: Metrics = prose(&page)
        .into_iter()
        .filter_map(|(_, line)| line.strip_prefix("| `sealedenv_"))
        .map(|row| {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            assert!(cells.len() == 5 && cells[3].len() > 10, "name, type, labels, meaning: {row}");
            let labels = cells[2].split(", ").filter(|label| !label.is_empty());
            let labels = labels.map(|label| label.trim_matches('`').to_owned()).collect();
            (format!("sealedenv_{}", cells[0].trim_end_matches('`')), (cells[1].to_owned(), labels))
        })
        .collect();
    let told = all_metrics();
    for (name, about) in &told {
        assert_eq!(documented.get(name), Some(about), "docs/src/metrics.md on {name}");
    }
    let names = |metrics: &Metrics| metrics.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(names(&documented), names(&told), "docs/src/metrics.md documents what is not there");
}

// --- queries ---

/// Labels that Prometheus adds when it scrapes through the chart's ServiceMonitor, and that of histograms.
const SCRAPED: [&str; 3] = ["namespace", "pod", "le"];

/// What is wrong with a query: metrics that nobody tells, labels that none of its metrics has.
fn wrong_with(query: &str, told: &Metrics) -> Vec<String> {
    let mut told = told.clone();
    let words = || query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let mut labels: BTreeSet<String> = SCRAPED.into_iter().map(str::to_owned).collect();
    let mut wrong = Vec::new();
    let mut found = 0;
    for name in words().filter(|word| word.starts_with("sealedenv_")) {
        found += 1;
        match find(&mut told, name) {
            Some((_, of_metric)) => labels.extend(of_metric.iter().cloned()),
            None => wrong.push(format!("no metric {name}")),
        }
    }
    if found == 0 {
        wrong.push("it asks for no metric of ours".to_owned());
    }
    let grouped = query.split("by (").skip(1).flat_map(|rest| rest.split(')').next().unwrap().split(','));
    let matched = query
        .split('{')
        .skip(1)
        .flat_map(|rest| rest.split('}').next().unwrap().split("\","))
        .filter_map(|matcher| matcher.split(['=', '!']).next());
    for label in grouped.chain(matched).map(str::trim).filter(|label| !label.is_empty()) {
        if !labels.contains(label) {
            wrong.push(format!("no metric of it has the label {label}"));
        }
    }
    wrong
}

#[test]
fn a_query_for_what_is_not_there_is_found() {
    let told = all_metrics();
    for (query, wrong) in [
        ("sum(rate(sealedenv_operator_reconciles_total[5m]))", ""),
        ("sealedenv_operator_reconcile_duration_seconds_bucket{le=\"1\"}", ""),
        ("sealedenv_operator_reconcile_total", "no metric sealedenv_operator_reconcile_total"),
        ("sealedenv_operator_queue_depth_bucket", "no metric sealedenv_operator_queue_depth_bucket"),
        ("sum by (reasn) (sealedenv_operator_sealedenvs)", "no metric of it has the label reasn"),
        ("sealedenv_operator_sealedenvs{ready=\"True\",kind!~\"x\"}", "no metric of it has the label kind"),
        ("vector(0)", "it asks for no metric of ours"),
    ] {
        assert_eq!(wrong_with(query, &told).concat(), wrong, "{query}");
    }
}

// --- alerts ---

fn yaml(path: &Path) -> Value {
    serde_saphyr::from_str(&read(path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn list<'v>(value: &'v Value, pointer: &str) -> &'v [Value] {
    value.pointer(pointer).and_then(Value::as_array).unwrap_or_else(|| panic!("no list {pointer} in {value}"))
}

fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("no text {pointer} in {value}"))
}

/// The rules as the chart gives them to the cluster.
fn rendered_rules(arguments: &[&str]) -> Value {
    let helm = chart::helm().unwrap();
    let always = ["--set", "prometheusRule.enabled=true,prometheusRule.renderMode=alwaysRender"];
    let rendering = chart::render(&helm, &CHECKOUT, &[], &[&always, arguments].concat()).unwrap();
    let rules: Vec<Value> =
        chart::objects(&rendering).unwrap().into_iter().filter(|o| o["kind"] == "PrometheusRule").collect();
    assert_eq!(rules.len(), 1);
    rules[0]["spec"].clone()
}

fn alerts(rules: &Value) -> Vec<&Value> {
    list(rules, "/groups").iter().flat_map(|group| list(group, "/rules")).collect()
}

#[test]
fn each_alert_fires_when_it_should_and_only_then() {
    let rules = rendered_rules(&[]);
    let tests = CHECKOUT.chart().join("tests/alerts.yaml");
    let folder = tempfile::tempdir().unwrap();
    // JSON is YAML.
    std::fs::write(folder.path().join("alerts.yaml"), rules.to_string()).unwrap();
    std::fs::copy(&tests, folder.path().join("tests.yaml")).unwrap();
    let (content, said) = promtool(&["test", "rules", "tests.yaml"], folder.path(), "");
    assert!(content, "{said}");

    let mut cases: BTreeMap<&str, [u32; 2]> = BTreeMap::new();
    let tests = yaml(&tests);
    for case in list(&tests, "/tests").iter().flat_map(|test| list(test, "/alert_rule_test")) {
        let fires = !list(case, "/exp_alerts").is_empty();
        cases.entry(text(case, "/alertname")).or_default()[usize::from(fires)] += 1;
    }
    for alert in alerts(&rules) {
        let name = text(alert, "/alert");
        let [quiet, fires] = cases.get(name).copied().unwrap_or_default();
        assert!(quiet > 0 && fires > 0, "{name}: {fires} cases in which it fires, {quiet} in which not");
    }
}

#[test]
fn an_alert_that_never_fires_is_found() {
    let mut rules = rendered_rules(&[]);
    let group =
        rules["groups"].as_array_mut().unwrap().iter_mut().find(|g| g["name"] == "sealedenv-operator");
    for rule in group.unwrap()["rules"].as_array_mut().unwrap() {
        if rule["alert"] == "SealedEnvStalled" {
            rule["expr"] = json!("vector(0) > 1");
        }
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("alerts.yaml"), rules.to_string()).unwrap();
    std::fs::copy(CHECKOUT.chart().join("tests/alerts.yaml"), folder.path().join("tests.yaml")).unwrap();
    let (content, said) = promtool(&["test", "rules", "tests.yaml"], folder.path(), "");
    assert!(!content && said.contains("SealedEnvStalled fires"), "{said}");
}

#[test]
fn each_alert_says_what_it_means_and_what_to_do() {
    let page = read(&root().join("docs/src/alerts.md"));
    let headings: BTreeSet<String> = prose(&page)
        .into_iter()
        .filter_map(|(_, line)| line.strip_prefix("## "))
        .map(str::to_owned)
        .collect();
    let rules = rendered_rules(&["--set", "prometheusRule.runbookUrl=https://example.com/alerts"]);
    let mut names = BTreeSet::new();
    for alert in alerts(&rules) {
        let name = text(alert, "/alert");
        names.insert(name.to_owned());
        assert!(["warning", "critical"].contains(&text(alert, "/labels/severity")), "{name}");
        assert!(text(alert, "/annotations/summary").len() > 20, "{name}");
        assert!(text(alert, "/annotations/description").len() > 60, "{name}");
        let anchor = format!("https://example.com/alerts#{}", name.to_lowercase());
        assert_eq!(text(alert, "/annotations/runbook_url"), anchor);
    }
    assert!(names.len() >= 15, "{names:?}");
    assert_eq!(headings, names, "sections of docs/src/alerts.md");
}

#[test]
fn alerts_ask_only_for_what_the_programs_tell() {
    let told = all_metrics();
    for alert in alerts(&rendered_rules(&[])) {
        assert_eq!(wrong_with(text(alert, "/expr"), &told), Vec::<String>::new(), "{}", alert["alert"]);
    }
    let without = rendered_rules(&["--set", "webhook.create=false"]);
    assert!(
        !alerts(&without).iter().any(|alert| alert["alert"] == "SealedEnvWebhookAbsent"),
        "a webhook that is not wanted is not missed"
    );
    let names = |value: &Value| alerts(value).iter().map(|alert| alert["alert"].clone()).collect::<Vec<_>>();
    let file = yaml(&CHECKOUT.chart().join("files/alerts.yaml"));
    assert_eq!(names(&file), names(&rendered_rules(&[])), "the file by itself is the same");
}

// --- dashboard ---

fn dashboard() -> Value {
    let helm = chart::helm().unwrap();
    let set = ["--set", "grafanaDashboard.enabled=true"];
    let objects = chart::objects(&chart::render(&helm, &CHECKOUT, &[], &set).unwrap()).unwrap();
    let map = objects.iter().find(|object| object["metadata"]["labels"]["grafana_dashboard"] == "1");
    serde_json::from_str(text(map.expect("a ConfigMap that the sidecar finds"), "/data/sealedenv.json"))
        .unwrap()
}

/// Panels that show something, with their queries.
fn panels(dashboard: &Value) -> Vec<(&str, Vec<&str>)> {
    let shown = list(dashboard, "/panels").iter().filter(|panel| panel["type"] != "row");
    shown
        .map(|panel| {
            let queries = list(panel, "/targets").iter().map(|target| text(target, "/expr")).collect();
            (text(panel, "/title"), queries)
        })
        .collect()
}

#[test]
fn every_panel_asks_for_what_the_programs_tell() {
    let (dashboard, told) = (dashboard(), all_metrics());
    let panels = panels(&dashboard);
    assert!(panels.len() > 20, "only {} panels", panels.len());
    let mut rules = Vec::new();
    for (title, queries) in panels {
        assert!(!queries.is_empty(), "{title} asks nothing");
        for query in queries {
            assert_eq!(wrong_with(query, &told), Vec::<String>::new(), "{title}: {query}");
            let query = query.replace("$__rate_interval", "5m").replace("$namespace", ".*");
            assert!(!query.contains('$'), "{title}: an unknown variable in {query}");
            rules.push(json!({"record": format!("panel:{}", rules.len()), "expr": query}));
        }
    }
    // Prometheus' own parser reads each.
    let folder = tempfile::tempdir().unwrap();
    let rules = json!({"groups": [{"name": "panels", "rules": rules}]});
    std::fs::write(folder.path().join("panels.yaml"), rules.to_string()).unwrap();
    let (content, said) = promtool(&["check", "rules", "panels.yaml"], folder.path(), "");
    assert!(content, "{said}");
}

#[test]
fn panels_do_not_overlap_and_leave_no_room_beside_them() {
    let dashboard = dashboard();
    let mut taken = BTreeMap::new();
    let mut ids = BTreeSet::new();
    for panel in list(&dashboard, "/panels") {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "an id twice: {}", panel["title"]);
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|name| panel["gridPos"][name].as_u64().unwrap());
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            let other = taken.insert(cell, panel["title"].to_string());
            assert_eq!(other, None, "{} lies over it", panel["title"]);
        }
    }
    let height = taken.keys().map(|(_, y)| y + 1).max().unwrap();
    assert_eq!(u64::try_from(taken.len()).unwrap(), 24 * height, "a gap between panels");
    let uids = dashboard.to_string().matches("\"uid\":\"${datasource}\"").count();
    assert!(
        uids > 20 && dashboard.to_string().matches("\"uid\":").count() == uids + 1,
        "one data source, chosen"
    );
}
