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
//! let listening = |address: std::net::SocketAddr| println!("http://{address}");
//! serve(Settings::default(), &brisk_store::hub::NoProgress, &listening)?;
//! # Ok::<(), brisk_server::StartError>(())
//! ```
#![forbid(unsafe_code)]

mod answer;
mod app;
mod ask;
mod capabilities;
mod compute;
pub mod elsewhere;
pub mod engine;
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
mod videos;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use axum_server::Handle;
use brisk::HubProgress;
use listen::Patience;
use tokio::signal;

pub use app::App;
pub use elsewhere::Elsewhere;
pub use error::{ApiError, StartError};
pub use http::router;
pub use openapi::{OPERATIONS, Operation, document as openapi_document};
pub use settings::{Settings, bytes as parse_bytes};

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
    listening: &dyn Fn(SocketAddr),
) -> Result<(), StartError> {
    let (listener, address) = listen_on(&settings)?;
    let app = App::start(settings, progress)?;
    let routes = router(&app)?;
    let runtime = runtime()?;
    let served = runtime.block_on(async {
        let handle = Handle::new();
        tokio::spawn(Arc::clone(&app).sweep_always());
        tokio::spawn(end(Arc::clone(&app), handle.clone(), LAST_WORDS));
        listening(address);
        listen::serve(listener, handle, routes, Patience::default()).await
    });
    // What still computes ends with the process.
    runtime.shutdown_background();
    served.map_err(|error| cannot_listen(address, error))
}

/// As [`serve`], for requests that are answered elsewhere, by whoever `find` finds.
///
/// # Errors
/// Settings or an address that do not work; what `find` says.
pub fn serve_elsewhere<E, F: Future<Output = Result<Arc<dyn Elsewhere>, E>>>(
    settings: Settings,
    find: impl FnOnce() -> F,
    listening: &dyn Fn(SocketAddr),
) -> Result<(), E>
where
    E: From<StartError>,
{
    let (listener, address) = listen_on(&settings)?;
    let app = App::without_models(settings)?;
    let runtime = runtime()?;
    let served = runtime.block_on(async {
        let routes = elsewhere::router(&app, find().await?)?;
        let handle = Handle::new();
        tokio::spawn(Arc::clone(&app).sweep_always());
        let grace = app.settings.grace();
        tokio::spawn(end(Arc::clone(&app), handle.clone(), grace));
        listening(address);
        let served = listen::serve(listener, handle, routes, Patience::default()).await;
        Ok(served.map_err(|error| cannot_listen(address, error))?)
    });
    runtime.shutdown_background();
    served
}

fn listen_on(settings: &Settings) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |error| cannot_listen(settings.listen, error);
    let listener = TcpListener::bind(settings.listen).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

fn cannot_listen(address: SocketAddr, error: std::io::Error) -> StartError {
    StartError::System(format!("cannot listen on {address}"), error)
}

fn runtime() -> Result<tokio::runtime::Runtime, StartError> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .thread_name("http")
        .enable_all()
        .build()
        .map_err(|error| {
            StartError::System("cannot start the threads that serve".to_owned(), error)
        })
}

/// Ends the server when the process is told to: first what it does, then its connections; at once the second
/// time.
async fn end(app: Arc<App>, handle: Handle<SocketAddr>, last_words: Duration) {
    told_to_end().await;
    tracing::info!("ending: no more jobs are taken");
    tokio::select! {
        () = app.drain() => {}
        () = told_to_end() => return handle.shutdown(),
    }
    handle.graceful_shutdown(Some(last_words));
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
