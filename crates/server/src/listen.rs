//! The socket: connections are few, speak HTTP/1, and are closed when they say or take nothing.

use std::future::{Future, Ready};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum_server::Handle;
use axum_server::accept::Accept;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};

/// How many connections there may be, and how long they may do nothing.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Most connections.
    pub connections: usize,
    /// Longest time until a request's header is there.
    pub header: Duration,
    /// Longest time that a reader takes nothing.
    pub unread: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connections: 512,
            header: Duration::from_secs(10),
            unread: Duration::from_secs(30),
        }
    }
}

/// Serves connections until the handle says to stop.
///
/// # Errors
/// An address that cannot be listened on.
pub async fn serve(
    listener: std::net::TcpListener,
    handle: Handle<SocketAddr>,
    routes: Router,
    patience: Patience,
) -> io::Result<()> {
    let mut server = axum_server::from_tcp(listener)?
        .handle(handle)
        .acceptor(Few {
            permits: Arc::new(Semaphore::new(patience.connections)),
            unread: patience.unread,
        })
        .first_request_timeout(patience.header)
        .http1_only();
    server
        .http_builder()
        .http1()
        .header_read_timeout(patience.header);
    server
        .serve(routes.into_make_service_with_connect_info::<SocketAddr>())
        .await
}

/// Accepts so many connections at a time.
#[derive(Debug, Clone)]
struct Few {
    permits: Arc<Semaphore>,
    unread: Duration,
}

impl<S> Accept<TcpStream, S> for Few {
    type Stream = Connection<TcpStream>;
    type Service = S;
    type Future = Ready<io::Result<(Self::Stream, S)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let accepted = match Arc::clone(&self.permits).try_acquire_owned() {
            // Small events of a stream are not held back to be sent with the next.
            Ok(permit) => stream.set_nodelay(true).map(|()| {
                let connection = Connection {
                    stream,
                    unread: None,
                    longest: self.unread,
                    _permit: Some(permit),
                };
                (connection, service)
            }),
            Err(_) => Err(io::Error::other("too many connections")),
        };
        std::future::ready(accepted)
    }
}

/// A connection that fails when its reader takes nothing for a while.
struct Connection<S> {
    stream: S,
    unread: Option<Pin<Box<Sleep>>>,
    longest: Duration,
    _permit: Option<OwnedSemaphorePermit>,
}

impl<S> Connection<S> {
    fn watch<T>(
        &mut self,
        written: Poll<io::Result<T>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.unread = None;
            return written;
        }
        let longest = self.longest;
        let unread = self
            .unread
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + longest)));
        match unread.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Connection<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(written, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.watch(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.watch(flushed, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(context);
        self.watch(shut, context)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    /// Takes nothing, ever.
    struct Deaf;

    impl AsyncWrite for Deaf {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Pending
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// A server with little patience, and its address.
    async fn impatient() -> (SocketAddr, Handle<SocketAddr>) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let handle = Handle::new();
        let routes = Router::new().route("/", axum::routing::get(|| async { "here" }));
        let patience = Patience {
            connections: 2,
            header: Duration::from_millis(300),
            unread: Duration::from_secs(1),
        };
        tokio::spawn(serve(listener, handle.clone(), routes, patience));
        handle.listening().await;
        (address, handle)
    }

    /// What a server says to these bytes until it closes the connection.
    fn said(address: SocketAddr, bytes: &[u8]) -> (String, Duration) {
        use std::io::{Read, Write};
        let began = std::time::Instant::now();
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let _ = stream.write_all(bytes);
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said);
        (String::from_utf8_lossy(&said).into_owned(), began.elapsed())
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn silent_connections_are_closed() {
        let (address, handle) = impatient().await;
        let tried = tokio::task::spawn_blocking(move || {
            let partial: [&[u8]; 4] = [
                b"",
                b"GET / HTTP/1.1\r\nHost: localhost\r\n",
                b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            ];
            partial.map(|bytes| said(address, bytes))
        });
        let tried = tried.await.unwrap();
        for (said, took) in &tried {
            assert!(*took < Duration::from_secs(10), "{took:?}: {said}");
        }
        assert!(tried[2].0.starts_with("HTTP/1.1 200") && tried[2].0.ends_with("here"));
        assert!(!tried[3].0.contains("HTTP/2"), "{}", tried[3].0);
        handle.shutdown();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn connections_are_few() {
        let (address, handle) = impatient().await;
        let tried = tokio::task::spawn_blocking(move || {
            let open: Vec<_> = (0..2)
                .map(|_| std::net::TcpStream::connect(address).unwrap())
                .collect();
            std::thread::sleep(Duration::from_millis(50));
            let request = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
            let refused = said(address, request).0;
            drop(open);
            std::thread::sleep(Duration::from_millis(100));
            (refused, said(address, request).0)
        });
        let (refused, answered) = tried.await.unwrap();
        assert_eq!(refused, "");
        assert!(answered.starts_with("HTTP/1.1 200"), "{answered}");
        handle.shutdown();
    }

    #[tokio::test]
    async fn a_reader_that_takes_nothing_is_gone() {
        let mut connection = Connection {
            stream: Deaf,
            unread: None,
            longest: Duration::from_millis(20),
            _permit: None,
        };
        let written =
            poll_fn(|context| Pin::new(&mut connection).poll_write(context, b"data")).await;
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
