//! What the candidates share: their three options, the lines that they say, and the wish to end.

use std::path::PathBuf;

use rustix::time::{clock_gettime, ClockId};
use tokio::signal::unix::{signal, SignalKind};

/// `-kubeconfig FILE -lease NAME -identity WHO`, as all candidates take them.
#[derive(Debug, Default)]
pub struct Options {
    pub kubeconfig: PathBuf,
    pub lease: String,
    pub identity: String,
}

impl Options {
    /// Read them from the command line; ends the process with status 2 if one is unknown or missing.
    #[must_use]
    pub fn from_args() -> Self {
        let mut found = Self::default();
        let mut arguments = std::env::args().skip(1);
        while let (Some(name), Some(value)) = (arguments.next(), arguments.next()) {
            match name.as_str() {
                "-kubeconfig" => found.kubeconfig = value.into(),
                "-lease" => found.lease = value,
                "-identity" => found.identity = value,
                _ => usage(),
            }
        }
        if found.lease.is_empty() || found.identity.is_empty() {
            usage();
        }
        found
    }
}

fn usage() -> ! {
    eprintln!("usage: -kubeconfig FILE -lease NAME -identity WHO");
    std::process::exit(2)
}

/// One JSON line with CLOCK_BOOTTIME, which all processes of a machine share.
pub fn say(event: &str, holder: &str) {
    let now = clock_gettime(ClockId::Boottime);
    #[allow(clippy::cast_precision_loss)] // microseconds are enough
    let at = now.tv_sec as f64 + now.tv_nsec as f64 / 1e9;
    let line = if holder.is_empty() {
        serde_json::json!({"at": at, "event": event})
    } else {
        serde_json::json!({"at": at, "event": event, "holder": holder})
    };
    println!("{line}"); // standard output is flushed at each line
}

/// Say who leads, if that is news.
pub fn tell(leads: bool, holder: &str, before: &mut Option<bool>) {
    if *before != Some(leads) {
        *before = Some(leads);
        say(
            if leads { "leading" } else { "following" },
            if leads { "" } else { holder },
        );
    }
}

/// Returns at SIGTERM or SIGINT.
///
/// # Panics
/// If the kernel takes no handler.
pub async fn asked_to_end() {
    let mut terminate = signal(SignalKind::terminate()).expect("a handler for SIGTERM");
    let mut interrupt = signal(SignalKind::interrupt()).expect("a handler for SIGINT");
    tokio::select! {
        _ = terminate.recv() => (),
        _ = interrupt.recv() => (),
    }
}
