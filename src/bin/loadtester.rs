//! The load tester's process: reads the arguments, starts the server and stops on signals.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a binary reads its arguments and environment"
)]

use std::process::ExitCode;

use flagger_rs::{
    loadtester::{
        args::{self, Config},
        shell::{
            init,
            server::{self, Stop},
        },
    },
    shell::{http_server::listen, outside::probe, telemetry::logs},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use tracing::{error, info};

fn main() -> ExitCode {
    if let Some(code) = probe::called_as_wget() {
        return code;
    }
    let config = match args::parse(std::env::args().skip(1), |name| std::env::var(name).ok()) {
        Ok(config) => config,
        Err(exit) => {
            if exit.code == 0 {
                print!("{}", exit.text);
            } else {
                eprint!("{}", exit.text);
            }
            return ExitCode::from(exit.code);
        }
    };
    logs::start_logging(&config.log_level, config.log_json);
    let ended = if init::is_first() {
        init::run()
    } else {
        run(config).map(|()| ExitCode::SUCCESS)
    };
    match ended {
        Ok(code) => code,
        Err(problem) => {
            error!("{problem}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run(config: Config) -> Result<(), String> {
    let stop = stop_signal()?;
    let listener = listen(config.port)
        .await
        .map_err(|error| format!("HTTP server cannot listen on {}: {error}", config.port))?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    info!(
        "Starting load tester v{} API on port {}",
        env!("CARGO_PKG_VERSION"),
        address.port()
    );
    server::serve(config, listener, stop).await
}

/// Receives signals: the first SIGTERM or SIGINT stops the load tester soon, the second one at once. Neither leaves a process behind.
fn stop_signal() -> Result<watch::Receiver<Stop>, String> {
    let listen = |kind| signal(kind).map_err(|error| format!("signals: {error}"));
    let (mut terminate, mut interrupt) = (
        listen(SignalKind::terminate())?,
        listen(SignalKind::interrupt())?,
    );
    let (stop, stopped) = watch::channel(Stop::No);
    tokio::spawn(async move {
        for urgency in [Stop::Soon, Stop::Now] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            stop.send_replace(urgency);
        }
        // Keep the sender, so that the last value stays.
        std::future::pending::<()>().await;
    });
    Ok(stopped)
}
