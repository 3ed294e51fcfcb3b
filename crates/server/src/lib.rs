//! Pictures and texts over HTTP: OpenAI's interface with brisk's options, jobs, metrics.
//!
//! A request's fields are read by tables that derive from the models' options ([`fields`]), checked against
//! the model, which plans it, and become a job that waits for its turn. Two threads compute in turn, one draws and one writes; whoever waits
//! looks at the job's newest state, so that a slow reader holds up nobody. This crate touches no tensor:
//! it stands on the library `brisk` and its one channel of events.
//!
//! ```no_run
//! use brisk_server::{Settings, serve};
//!
//! serve(Settings::default(), &brisk_store::hub::NoProgress, |address| {
//!     assert!(address.ip().is_loopback());
//! })?;
//! # Ok::<(), brisk_server::StartError>(())
//! ```
#![forbid(unsafe_code)]

mod answer;
mod app;
mod ask;
mod capabilities;
mod compute;
mod error;
pub mod fields;
mod finish;
mod http;
mod job;
mod kept;
mod listen;
mod metrics;
mod openapi;
mod outcome;
mod page;
mod queue;
mod reply;
mod residents;
mod security;
mod served;
mod settings;
mod speed;
mod stream;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use axum_server::Handle;
use brisk::HubProgress;
use listen::Patience;
use tokio::signal;

pub use app::App;
pub use error::{ApiError, StartError};
pub use http::router;
pub use openapi::{OPERATIONS, Operation, document as openapi_document};
pub use settings::Settings;

/// Threads that serve connections; what computes has its own.
const THREADS: usize = 2;
/// Time that connections get to end when their jobs have.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Serves until the process is told to end; `listening` is told the address when connections are accepted.
///
/// # Errors
/// Settings, models or an address that do not work.
pub fn serve(
    settings: Settings,
    progress: &dyn HubProgress,
    listening: impl FnOnce(SocketAddr),
) -> Result<(), StartError> {
    let system = |what: &str| {
        let what = what.to_owned();
        move |error| StartError::System(what, error)
    };
    let cannot_listen = format!("cannot listen on {}", settings.listen);
    let listener = TcpListener::bind(settings.listen).map_err(system(&cannot_listen))?;
    let address = listener.local_addr().map_err(system(&cannot_listen))?;
    let app = App::start(settings, progress)?;
    let routes = router(&app)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .thread_name("http")
        .enable_all()
        .build()
        .map_err(system("cannot start the threads that serve"))?;
    let served = runtime.block_on(async {
        let handle = Handle::new();
        tokio::spawn(Arc::clone(&app).sweep_always());
        tokio::spawn(end(Arc::clone(&app), handle.clone()));
        listening(address);
        listen::serve(listener, handle, routes, Patience::default()).await
    });
    // What still computes ends with the process.
    runtime.shutdown_background();
    served.map_err(system(&cannot_listen))
}

/// Ends the server when the process is told to: first what it does, then its connections; at once the second
/// time.
async fn end(app: Arc<App>, handle: Handle<SocketAddr>) {
    told_to_end().await;
    tracing::info!("ending: no more jobs are taken");
    tokio::select! {
        () = app.drain() => {}
        () = told_to_end() => return handle.shutdown(),
    }
    handle.graceful_shutdown(Some(LAST_WORDS));
    told_to_end().await;
    handle.shutdown();
}

async fn told_to_end() {
    let interrupt = async {
        if signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    #[cfg(unix)]
    let terminate = async {
        match signal::unix::signal(signal::unix::SignalKind::terminate()) {
            Ok(mut terminate) => {
                terminate.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    #[cfg(not(unix))]
    let terminate = std::future::pending::<()>();
    tokio::select! {
        () = interrupt => {}
        () = terminate => {}
    }
}
