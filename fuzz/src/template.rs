//! A template of `spec.files`, as anybody who may write a SealedEnv can write it.

use sealedenv_crds::{RenderedFile, SealedEnvSpec};
use sealedenv_render::{MAX_FILE, Values, check, render};
use sealedenv_seal::Plain;

use crate::Seed;

/// Stands in the values, and in no seed.
const CANARY: &str = "c4n4ry";

/// # Panics
/// Unless judging and rendering end, what is taken without values is never refused for its text later, the file keeps
/// its bound, and no fault holds a value.
pub fn run(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let file = RenderedFile { template: Some(text.to_owned()), ..RenderedFile::default() };
    let keys = ["A", "B", "c.d", "BINARY", "CLOSED"];
    let spec = SealedEnvSpec {
        data: keys.map(|key| (key.to_owned(), String::new())).into(),
        files: [("f".to_owned(), file.clone())].into(),
        ..SealedEnvSpec::default()
    };
    let judged = check(&spec).pop().map(|problem| problem.fault);
    let (a, b, c) = (CANARY.to_owned(), String::new(), format!("it's {CANARY}\n\"$\""));
    let [a, b, c] = [a, b, c].map(Plain::from);
    let binary = Plain::from(vec![0xff; 9]);
    let values =
        [("A", Some(&a)), ("B", Some(&b)), ("c.d", Some(&c)), ("BINARY", Some(&binary)), ("CLOSED", None)];
    match (render(&file, &Values::new(values)), judged) {
        (Ok(made), judged) => {
            assert!(judged.is_none(), "it was refused before, and made");
            assert!(made.len() <= MAX_FILE);
        }
        (Err(fault), judged) => {
            let said = format!("{} {fault} {fault:?}", fault.reason());
            assert!(!said.contains(CANARY) && said.len() < 500 && !said.contains('\n'), "{said}");
            match judged {
                Some(judged) => assert_eq!(judged, fault, "it was refused for something else before"),
                None => {
                    let of_text = ["TemplateSyntax", "TemplateUnsupported", "TemplateFailed"];
                    assert!(!of_text.contains(&fault.reason()), "it was taken before: {fault:?}");
                }
            }
        }
    }
}

/// One template for each thing that there is.
pub fn seeds() -> Vec<Seed> {
    let texts: [&str; 14] = [
        "plain\n",
        "{{ A }}{{ keys.B }}{{ keys['c.d'] }}",
        "{% if A and not B %}\n1\n{% elif A == 'x' %}2{% else %}3{% endif %}\n",
        "{% for name in keys if name != 'CLOSED' %}{{ loop.index }}{{ name }}{% else %}x{% endfor %}",
        "{% for name in ['A', 'c.d'] %}{{ keys[name]|json }}{{ ',' if not loop.last else '' }}{% endfor %}",
        "{% set pair = A ~ ':' ~ B %}{{ pair|b64encode }}{{ BINARY|b64encode }}",
        "{{ A|append(B, 1, true)|trim|yaml|shell|dotenv|properties|urlencode }}",
        "{% raw %}{{ A }}{% endraw %}{# comment #}{%- if A -%} x {%- endif -%}",
        "{{ 'a' if 'A' in keys else \"b\" }}{{ 1.5 }}{{ none }}",
        "{{ CLOSED }}{{ BINARY }}",
        "{{ not not (A) }}{{ ((A)) }}",
        "{% include 'x' %}{% macro a() %}{% endmacro %}",
        "{{ [A, {'a': 1}] * 2 ** 3 }}{{ A[1:] }}{{ A.b() }}",
        "{{ A | nothing is defined }}",
    ];
    texts.iter().enumerate().map(|(n, text)| (format!("text-{n:02}"), text.as_bytes().to_vec())).collect()
}
