//! Port forwarding into a cell: a port of loopback leads to an address in the cell.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, copy_bidirectional},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    task::JoinHandle,
};

use crate::Error;

/// The Unix socket between both halves. A connection starts with a line that has the address in the cell; the rest is forwarded.
const SOCKET: &str = "forward.sock";

/// The half outside of the cell, for one port. Dropping it closes the port.
pub struct PortForward {
    /// The address on loopback.
    pub outside: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for PortForward {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl PortForward {
    /// Opens a port that leads to the address `inside`.
    pub async fn open(folder: &Path, inside: &str) -> Result<Self, Error> {
        let io = |e| Error::io(Path::new("loopback"), e);
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(io)?;
        let outside = listener.local_addr().map_err(io)?;
        let (socket, inside) = (folder.join(SOCKET), inside.to_owned());
        let task = tokio::spawn(async move {
            while let Ok((from, _)) = listener.accept().await {
                tokio::spawn(forward(from, socket.clone(), inside.clone()));
            }
        });
        Ok(Self { outside, task })
    }
}

async fn forward(mut from: TcpStream, socket: PathBuf, inside: String) -> std::io::Result<()> {
    let mut to = UnixStream::connect(socket).await?;
    to.write_all(format!("{inside}\n").as_bytes()).await?;
    copy_bidirectional(&mut from, &mut to).await?;
    Ok(())
}

/// The half in the cell, for all ports.
pub struct Forwarder(UnixListener);

impl Forwarder {
    /// Binds the socket.
    pub fn bind(folder: &Path) -> Result<Self, Error> {
        let socket = folder.join(SOCKET);
        let listener = UnixListener::bind(&socket).map_err(|e| Error::io(&socket, e))?;
        Ok(Self(listener))
    }

    /// Accepts connections until an error.
    pub async fn serve(self) -> Result<(), Error> {
        loop {
            let accepted = self.0.accept().await;
            let (from, _) = accepted.map_err(|e| Error::io(Path::new(SOCKET), e))?;
            tokio::spawn(connect(from));
        }
    }
}

async fn connect(from: UnixStream) -> std::io::Result<()> {
    let mut from = BufReader::new(from);
    let mut address = String::new();
    from.read_line(&mut address).await?;
    let mut to = TcpStream::connect(address.trim()).await?;
    copy_bidirectional(&mut from, &mut to).await?;
    Ok(())
}
