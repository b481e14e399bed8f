//! Counters in the Prometheus text format, as far as a sum of some of them is wanted.

/// The sum of all samples of a metric whose labels satisfy a condition. `labels` finds a label's value by its name.
pub fn sum(text: &str, metric: &str, mut wanted: impl FnMut(&Labels<'_>) -> bool) -> f64 {
    let samples = text.lines().filter_map(|line| sample(line, metric));
    // The fold starts at +0: the sum of nothing is -0 otherwise.
    samples.filter(|(labels, _)| wanted(labels)).fold(0.0, |sum, (_, value)| sum + value)
}

/// The labels of a sample, as they stand between the braces.
pub struct Labels<'a>(&'a str);

impl<'a> Labels<'a> {
    /// The value of a label; empty when there is none. Values with escaped quotes are cut there.
    pub fn get(&self, name: &str) -> &'a str {
        let mut rest = self.0;
        while let Some((key, after)) = rest.split_once("=\"") {
            let (value, more) = after.split_once('"').unwrap_or((after, ""));
            if key.trim_start_matches(',').trim() == name {
                return value;
            }
            rest = more;
        }
        ""
    }
}

fn sample<'a>(line: &'a str, metric: &str) -> Option<(Labels<'a>, f64)> {
    let rest = line.strip_prefix(metric)?;
    let (labels, value) = match rest.strip_prefix('{') {
        Some(rest) => rest.rsplit_once('}')?,
        None => ("", rest.strip_prefix(' ')?),
    };
    Some((Labels(labels), value.split_whitespace().next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP requests_total x\n\
        requests_total{verb=\"GET\",resource=\"pods\"} 3\n\
        requests_total{verb=\"PATCH\",resource=\"secrets\"} 4 1700000000\n\
        requests_total{verb=\"PATCH\",resource=\"pods\"} 1e1\n\
        requests_total_other{verb=\"PATCH\"} 100\n\
        plain 7\n";

    #[test]
    fn only_the_wanted_samples_are_added() {
        assert!((sum(TEXT, "requests_total", |l| l.get("verb") == "PATCH") - 14.0).abs() < 1e-9);
        assert!((sum(TEXT, "requests_total", |l| l.get("resource") == "pods") - 13.0).abs() < 1e-9);
        assert!((sum(TEXT, "plain", |_| true) - 7.0).abs() < 1e-9);
        assert!(sum(TEXT, "requests", |_| true).abs() < 1e-9);
        assert!(sum(TEXT, "requests_total", |l| l.get("source") == "pods").abs() < 1e-9);
    }
}
