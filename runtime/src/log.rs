//! Logging to stderr: one event, one line.
//!
//! Whatever a field holds, an event cannot start a second line or drive a terminal: every control character is
//! written as an escape, in both formats. Standard output is left to results and audit records.

use std::io::{self, Write};
use std::str::FromStr;

use tracing_subscriber::filter::EnvFilter;

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people: time, level, target, message, fields.
    Text,
    /// For collectors: one JSON object a line, with `timestamp` in RFC 3339, UTC.
    Json,
}

/// A format name that is neither `text` nor `json`.
#[derive(Debug, thiserror::Error)]
#[error("unknown log format: expected text or json")]
pub struct UnknownFormat;

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(text: &str) -> Result<Self, UnknownFormat> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(UnknownFormat),
        }
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The level is not a level or a filter.
    #[error(
        "cannot read the log level: expected error, warn, info, debug, trace, or a filter such as info,kube=debug"
    )]
    Level(#[source] tracing_subscriber::filter::ParseError),
    /// Something else in the process has set up logging.
    #[error("cannot set up logging: it is set up already")]
    AlreadySet,
}

/// Sends events of `level` and above to stderr as `format`, and installs the panic hook.
///
/// `level` is a level, or directives such as `info,kube=debug`. After this a panic is one `ERROR` event with the
/// place in the source and the thread's name. The payload is left out: it may quote what was being worked on.
///
/// # Errors
/// A level that cannot be read, or a second call in one process. The panic hook is installed only on success.
pub fn init(format: Format, level: &str) -> Result<(), InitError> {
    let subscriber = subscriber(format, level, io::stderr)?;
    tracing::subscriber::set_global_default(subscriber).map_err(|_| InitError::AlreadySet)?;
    std::panic::set_hook(Box::new(report_panic));
    Ok(())
}

/// What [`init`] sets up, over another writer: for tests of what is logged.
///
/// # Errors
/// A level that cannot be read.
pub fn subscriber<W: Write + 'static>(
    format: Format,
    level: &str,
    writer: impl Fn() -> W + Send + Sync + 'static,
) -> Result<Box<dyn tracing::Subscriber + Send + Sync>, InitError> {
    let filter = EnvFilter::try_new(level).map_err(InitError::Level)?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(move || Escaped(writer()))
        .with_ansi(false)
        .log_internal_errors(false);
    Ok(match format {
        Format::Text => Box::new(builder.finish()),
        // All spans and not only the innermost: the outer one names the object that a line is about.
        Format::Json => Box::new(
            builder.json().flatten_event(true).with_current_span(false).with_span_list(true).finish(),
        ),
    })
}

fn report_panic(info: &std::panic::PanicHookInfo<'_>) {
    let place = info.location().map_or_else(|| "unknown".to_owned(), ToString::to_string);
    let thread = std::thread::current();
    tracing::error!(place, thread = thread.name().unwrap_or("unnamed"), "panicked (payload withheld)");
}

/// Passes text on with control characters escaped, except the line feed that ends it. One is made for each event, which
/// the formatter writes in one piece.
struct Escaped<W>(W);

impl<W: Write> Write for Escaped<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write_all(&escape(bytes))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// `\u00XX` for C0, DEL and C1 control characters and for the Unicode line breaks and direction marks; valid inside
/// a JSON string too, the only place where one can occur there.
fn escape(line: &[u8]) -> Vec<u8> {
    use std::fmt::Write as _;
    let text = String::from_utf8_lossy(line);
    let (body, end) = text.strip_suffix('\n').map_or((&*text, ""), |body| (body, "\n"));
    let mut escaped = String::with_capacity(text.len());
    for character in body.chars() {
        if character.is_control() || matches!(character, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}') {
            let _infallible = write!(escaped, "\\u{:04x}", u32::from(character));
        } else {
            escaped.push(character);
        }
    }
    escaped.push_str(end);
    escaped.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_stays_on_one_line_and_drives_no_terminal() {
        let hostile = "a\nb\r\u{1b}[2Jc\u{9b}31m\u{7f}\u{202e}d\u{2028}e é\n";
        assert_eq!(
            String::from_utf8(escape(hostile.as_bytes())).unwrap(),
            "a\\u000ab\\u000d\\u001b[2Jc\\u009b31m\\u007f\\u202ed\\u2028e é\n"
        );
    }

    #[test]
    fn invalid_utf8_is_replaced_not_refused() {
        assert_eq!(String::from_utf8(escape(b"a\xffb\n")).unwrap(), "a\u{fffd}b\n");
    }

    #[test]
    fn a_json_event_parses_and_keeps_its_field() {
        use std::sync::{Arc, Mutex};
        #[derive(Clone, Default)]
        struct Sink(Arc<Mutex<Vec<u8>>>);
        impl Write for Sink {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().unwrap().extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let sink = Sink::default();
        let make = sink.clone();
        let subscriber = subscriber(Format::Json, "info", move || make.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || tracing::info!(name = "x\n\u{9b}y", "seen"));
        let bytes = sink.0.lock().unwrap().clone();
        let text = String::from_utf8(bytes).unwrap();
        assert_eq!(text.matches('\n').count(), 1, "{text:?}");
        assert!(text.contains(r#""name":"x\n\u009by""#), "{text:?}");
        assert!(text.contains(r#""timestamp":"2"#), "{text:?}");
    }

    #[test]
    fn formats_are_read_back() {
        for format in [Format::Text, Format::Json] {
            assert_eq!(format.to_string().parse::<Format>().unwrap(), format);
        }
        assert!("yaml".parse::<Format>().is_err());
    }

    #[test]
    fn a_level_that_is_none_is_an_error() {
        assert!(matches!(init(Format::Text, "info,=,"), Err(InitError::Level(_))));
    }
}
