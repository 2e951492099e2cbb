//! Listening sockets: TCP on every core with `SO_REUSEPORT`, Unix sockets once.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use socket2::{Domain, Protocol, Socket, Type};

/// How many connections the kernel keeps for us while we are busy.
const BACKLOG: i32 = 4096;

/// A TCP listener for one core. The first core's bind is exclusive in effect: see [`probe`].
///
/// # Errors
/// The operating system's.
pub fn tcp(address: SocketAddr, shared: bool) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Fails if another process listens there: with `SO_REUSEPORT` alone two gateways would share a port by accident and
/// each answer half of the requests.
///
/// # Errors
/// `AddrInUse`, or what else the operating system says.
pub fn probe(address: SocketAddr) -> io::Result<()> {
    tcp(address, false).map(drop)
}

/// Lets no new connection begin: the kernel drops their first packets, so that clients try again and find the port
/// closed, while every handshake that has begun still ends in the queue. Closing alone would reset the whole queue.
pub fn shut(listener: &impl std::os::fd::AsFd) {
    #[cfg(target_os = "linux")]
    {
        use socket2::{SockFilter, SockRef};
        // Classic BPF over the TCP header: load the byte of flags; SYN (0x02) drops the packet, all others pass.
        let program = [
            SockFilter::new(0x30, 0, 0, 13),
            SockFilter::new(0x45, 0, 1, 0x02),
            SockFilter::new(0x06, 0, 0, 0),
            SockFilter::new(0x06, 0, 0, u32::MAX),
        ];
        if let Err(error) = SockRef::from(listener).attach_filter(&program) {
            tracing::debug!("the listener cannot be shut before it is closed: {error}");
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = listener;
}

/// A Unix listener.
#[derive(Debug)]
pub struct Unix {
    /// The socket.
    pub listener: std::os::unix::net::UnixListener,
    /// Its name in the file system.
    pub file: File,
}

/// A socket's file, removed when this is dropped.
#[derive(Debug)]
pub struct File(PathBuf);

impl Unix {
    /// Binds `path` with permission bits `mode` and, where given, a group. A socket that nobody listens on any more is
    /// replaced; anything else in the way is an error.
    ///
    /// # Errors
    /// The operating system's, or `AddrInUse`.
    pub fn bind(path: &Path, mode: u32, group: Option<u32>) -> io::Result<Self> {
        clear(path)?;
        // Bound under a name of its own and moved into place once its permissions are right: nobody can connect earlier.
        let hidden = path.with_extension(format!("{}.tmp", std::process::id()));
        let _ = fs::remove_file(&hidden);
        let listener = std::os::unix::net::UnixListener::bind(&hidden)?;
        let ready = fs::set_permissions(&hidden, fs::Permissions::from_mode(mode))
            .and_then(|()| group.map_or(Ok(()), |group| std::os::unix::fs::chown(&hidden, None, Some(group))))
            .and_then(|()| listener.set_nonblocking(true))
            .and_then(|()| fs::rename(&hidden, path));
        if let Err(error) = ready {
            let _ = fs::remove_file(&hidden);
            return Err(error);
        }
        Ok(Self { listener, file: File(path.to_owned()) })
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn clear(path: &Path) -> io::Result<()> {
    let Ok(metadata) = fs::symlink_metadata(path) else { return Ok(()) };
    if !metadata.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "something that is not a socket is in the way"));
    }
    if UnixStream::connect(path).is_ok() {
        return Err(io::ErrorKind::AddrInUse.into());
    }
    fs::remove_file(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_taken_is_noticed_although_it_could_be_shared() {
        let first = tcp("127.0.0.1:0".parse().unwrap(), true).unwrap();
        let address = first.local_addr().unwrap();
        assert!(tcp(address, true).is_ok());
        assert_eq!(probe(address).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        let live = Unix::bind(&path, 0o600, None).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Unix::bind(&path, 0o600, None).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        std::mem::forget(live.listener.try_clone().unwrap());
        drop(live);
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(Unix::bind(&path, 0o600, None).is_ok());
    }

    #[test]
    fn a_file_in_the_way_is_not_touched() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        fs::write(&path, "precious").unwrap();
        assert!(Unix::bind(&path, 0o600, None).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }
}
