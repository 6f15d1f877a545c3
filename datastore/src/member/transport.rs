//! The thread that carries bytes between members. It has a runtime of its
//! own: however busy requests keep the others, raft's heartbeats go out.

use std::io;
use std::thread::JoinHandle;

use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// A runtime on its own thread; ends when this is dropped.
pub struct Transport {
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Transport {
    /// Starts the thread.
    pub fn start() -> io::Result<Transport> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let work = move || {
            // An error means that the owner is gone, which is a stop as well.
            let _ = runtime.block_on(stopped);
            runtime.shutdown_background();
        };
        let thread = std::thread::Builder::new().name("transport".to_owned()).spawn(work)?;
        Ok(Transport { handle, stop: Some(stop), thread: Some(thread) })
    }

    /// To spawn on it.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Transport {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It does nothing that could panic but what it was given.
            let _ = thread.join();
        }
    }
}
