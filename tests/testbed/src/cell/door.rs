//! Ways in from outside: a port of loopback leads to an address inside the cell.

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

/// The cell's side: a line with the address to call, then what is said to it.
const SOCKET: &str = "door.sock";

/// The outside's half of one way. Dropping it closes it.
pub struct Door {
    /// The port of loopback.
    pub outside: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Door {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Door {
    /// Opens one, to an address inside.
    pub async fn open(folder: &Path, inside: &str) -> Result<Self, Error> {
        let io = |e| Error::io(Path::new("loopback"), e);
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(io)?;
        let outside = listener.local_addr().map_err(io)?;
        let (socket, inside) = (folder.join(SOCKET), inside.to_owned());
        let task = tokio::spawn(async move {
            while let Ok((from, _)) = listener.accept().await {
                tokio::spawn(pass(from, socket.clone(), inside.clone()));
            }
        });
        Ok(Self { outside, task })
    }
}

async fn pass(mut from: TcpStream, socket: PathBuf, inside: String) -> std::io::Result<()> {
    let mut to = UnixStream::connect(socket).await?;
    to.write_all(format!("{inside}\n").as_bytes()).await?;
    copy_bidirectional(&mut from, &mut to).await?;
    Ok(())
}

/// The inside's half of all ways.
pub struct Threshold(UnixListener);

impl Threshold {
    /// Lays it.
    pub fn lay(folder: &Path) -> Result<Self, Error> {
        let socket = folder.join(SOCKET);
        let listener = UnixListener::bind(&socket).map_err(|e| Error::io(&socket, e))?;
        Ok(Self(listener))
    }

    /// Lets in whoever comes.
    pub async fn serve(self) -> Result<(), Error> {
        loop {
            let accepted = self.0.accept().await;
            let (from, _) = accepted.map_err(|e| Error::io(Path::new(SOCKET), e))?;
            tokio::spawn(let_in(from));
        }
    }
}

async fn let_in(from: UnixStream) -> std::io::Result<()> {
    let mut from = BufReader::new(from);
    let mut address = String::new();
    from.read_line(&mut address).await?;
    let mut to = TcpStream::connect(address.trim()).await?;
    copy_bidirectional(&mut from, &mut to).await?;
    Ok(())
}
