//! What is logged, to standard error. The filter can be changed while the program runs; under systemd lines carry their
//! level as journald reads it, and no time of their own.

use std::fmt;
use std::io::IsTerminal;
use std::sync::{Mutex, OnceLock, PoisonError};

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::{DefaultFields, Format, Full, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry};

/// What other crates have to say that helps nobody here.
const QUIET: &str = "h2=info,hyper=info,hyper_util=info,reqwest=info,rustls=info,quinn=info,quinn_proto=info,\
                     rustls_platform_verifier=off";
/// A longer filter is none.
const MAX_FILTER_BYTES: usize = 1024;

static FILTER: OnceLock<Handle<EnvFilter, Registry>> = OnceLock::new();
/// The filter in force, as it was asked for.
static ASKED: Mutex<String> = Mutex::new(String::new());

/// Begins to log what `filter` lets through: a level, or directives as `info,headwater_peer=trace`.
///
/// # Errors
/// Why `filter` is none.
pub fn start(filter: &str) -> Result<(), String> {
    let asked = filter.to_owned();
    let (filter, handle) = reload::Layer::new(read(filter)?);
    let journal = is_journal();
    let ansi = std::io::stderr().is_terminal();
    let lines: Box<dyn tracing_subscriber::Layer<_> + Send + Sync> = if journal {
        let format = tracing_subscriber::fmt::format().with_ansi(false).without_time().with_level(false);
        let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false);
        Box::new(lines.event_format(OneLine { format, journal }))
    } else {
        let format = tracing_subscriber::fmt::format().with_ansi(ansi);
        let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(ansi);
        Box::new(lines.event_format(OneLine { format, journal }))
    };
    tracing_subscriber::registry().with(filter).with(lines).init();
    let _ = FILTER.set(handle);
    *ASKED.lock().unwrap_or_else(PoisonError::into_inner) = asked;
    Ok(())
}

/// Logs what `filter` lets through from now on.
///
/// # Errors
/// Why `filter` is none.
pub fn change(filter: &str) -> Result<(), String> {
    let new = read(filter)?;
    let handle = FILTER.get().ok_or("nothing is logged yet")?;
    handle.reload(new).map_err(|e| e.to_string())?;
    filter.clone_into(&mut ASKED.lock().unwrap_or_else(PoisonError::into_inner));
    tracing::info!("logging {filter:?} from now on");
    Ok(())
}

/// The filter in force, as it was asked for.
pub fn current() -> String {
    ASKED.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

fn read(filter: &str) -> Result<EnvFilter, String> {
    let filter = filter.trim();
    if filter.is_empty() || filter.len() > MAX_FILTER_BYTES {
        return Err(
            "a filter is a level (error, warn, info, debug, trace), or directives as info,headwater_peer=trace".into(),
        );
    }
    // A level alone is meant for this program.
    let whole = if filter.parse::<Level>().is_ok() { format!("{filter},{QUIET}") } else { filter.to_owned() };
    EnvFilter::try_new(whole).map_err(|e| format!("{filter:?} is no filter: {e}"))
}

/// Whether standard error goes to the journal, as systemd says in `JOURNAL_STREAM`: device and inode.
#[cfg(target_os = "linux")]
fn is_journal() -> bool {
    use std::os::linux::fs::MetadataExt;
    let said = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    let is = std::fs::metadata("/proc/self/fd/2").map(|m| format!("{}:{}", m.st_dev(), m.st_ino()));
    is.is_ok_and(|is| is == said)
}

#[cfg(not(target_os = "linux"))]
fn is_journal() -> bool {
    false
}

/// An event is one line, whatever others' words are in it.
struct OneLine<T> {
    format: Format<Full, T>,
    journal: bool,
}

impl<S, T> FormatEvent<S, DefaultFields> for OneLine<T>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    Format<Full, T>: FormatEvent<S, DefaultFields>,
    DefaultFields: for<'a> FormatFields<'a>,
{
    fn format_event(
        &self,
        ctx: &FmtContext<'_, S, DefaultFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut text = String::new();
        self.format.format_event(ctx, Writer::new(&mut text), event)?;
        if self.journal {
            write!(writer, "<{}>", priority(*event.metadata().level()))?;
        }
        writeln!(writer, "{}", one_line(text.trim_end()))
    }
}

/// As syslog(3) numbers them.
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

fn one_line(text: &str) -> String {
    text.replace('\n', "\\n").replace('\r', "\\r")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_read() {
        for good in ["info", "WARN", " debug ", "info,headwater_peer=trace", "headwater_peer::node=debug"] {
            assert!(read(good).is_ok(), "{good}");
        }
        for bad in ["", "  ", "a=b=c", &"info,".repeat(300)] {
            assert!(read(bad).is_err(), "{bad}");
        }
        assert!(read("debug").unwrap().to_string().contains("quinn=info"));
    }

    #[test]
    fn nobody_writes_lines_of_a_log_from_outside() {
        assert_eq!(one_line("no answer\n<3>ERROR all is lost\r"), "no answer\\n<3>ERROR all is lost\\r");
    }
}
