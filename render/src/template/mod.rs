//! Templates, in Jinja's syntax.

mod filters;
mod subset;

use std::error::Error as _;
use std::io;

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, ErrorKind, Output, State, UndefinedBehavior, Value};
use sealedenv_seal::Plain;
use zeroize::Zeroizing;

pub(crate) use subset::check;

use crate::fault::At;
use crate::{Fault, Values};

/// The name by which a template has all keys.
pub(crate) const KEYS: &str = "keys";

/// What a template may use up: one for each step, and one for each 64 bytes that it makes, reads or writes.
const FUEL: u64 = 100_000;

/// Loops and conditions in one another, as the engine counts them.
const RECURSION: usize = 64;

/// Makes a file of a template.
pub(crate) fn render(text: &str, values: &Values) -> Result<Plain, Fault> {
    subset::check(text, &|key| values.has(key))?;
    let env = environment();
    let template = env.template_from_named_str("", text).map_err(|error| fault(&error))?;
    let mut out = Wiped(Zeroizing::new(Vec::new()));
    values.take_misuse();
    template.render_captured_to(values.root(), &mut out).map_err(|error| fault(&error))?;
    if values.take_misuse() {
        return Err(Fault::NotTextHere(At(None)));
    }
    Ok(Plain::new(std::mem::take(&mut *out.0)))
}

fn environment() -> Environment<'static> {
    // Without any function, test or loader.
    let mut env = Environment::empty();
    env.set_syntax(syntax());
    env.set_undefined_behavior(UndefinedBehavior::Strict);
    env.set_fuel(Some(FUEL));
    env.set_recursion_limit(RECURSION);
    env.set_formatter(format);
    filters::add(&mut env);
    env
}

/// Lines with nothing but a tag leave nothing; all else stays as it is written.
fn syntax() -> SyntaxConfig {
    let mut builder = SyntaxConfig::builder();
    builder.trim_blocks(true).lstrip_blocks(true).keep_trailing_newline(true);
    // Only delimiters of one's own can be wrong.
    builder.build().unwrap_or_default()
}

fn format(out: &mut Output<'_>, _: &mut State<'_, '_>, value: &Value) -> Result<(), Error> {
    out.write_str(&filters::text(value)?).map_err(Error::from)
}

/// A fault on its way through the engine.
pub(crate) fn error(fault: Fault) -> Error {
    Error::from(ErrorKind::InvalidOperation).with_source(fault)
}

/// What an error of the engine means. Of the error only its kind and line count: its text may quote the template.
fn fault(error: &Error) -> Fault {
    let at = At(error.line());
    let mut source = error.source();
    while let Some(inner) = source {
        if let Some(fault) = inner.downcast_ref::<Fault>() {
            return match fault {
                Fault::NotTextHere(_) => Fault::NotTextHere(at),
                fault => fault.clone(),
            };
        }
        source = inner.source();
    }
    match error.kind() {
        ErrorKind::SyntaxError | ErrorKind::BadEscape => Fault::Syntax(at),
        ErrorKind::OutOfFuel => Fault::TooMuchWork,
        ErrorKind::UndefinedError => Fault::UnknownName(at),
        _ => Fault::Failed(at),
    }
}

/// Output that is wiped. Fuel bounds it.
struct Wiped(Zeroizing<Vec<u8>>);

impl io::Write for Wiped {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
