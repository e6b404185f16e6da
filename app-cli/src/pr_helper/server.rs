//! The socket of the helper: a thread for each client, one command at a time.
//!
//! Keeps true: a client that says nothing, too much or nonsense is let go and harms nobody else; a descriptor that came is
//! closed on every way out; no more than [`CLIENTS_MAX`] clients are served. Not here: the bytes (`protocol`), which disk a
//! descriptor is, and what is done with a command ([`Executor`]).

use std::fs;
use std::io::{self, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use rustix::fs::OFlags;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::protocol::{FEATURES, PrRequest, PrResponse, REQUEST_BYTES};

/// Clients at once.
pub const CLIENTS_MAX: usize = 64;
/// For the rest of a request that has begun, and for a response.
const PATIENCE: Duration = Duration::from_secs(10);
/// Descriptors that may come with one message; more than one is refused, and all are closed.
const DESCRIPTORS_MAX: usize = 8;

/// Who does what clients ask for.
pub trait Executor: Send + Sync + 'static {
    /// Does a command on the disk that `disk` is a descriptor of. `parameters` are those of a PERSISTENT RESERVE OUT.
    fn execute(&self, disk: BorrowedFd<'_>, request: &PrRequest, parameters: Vec<u8>) -> PrResponse;
}

/// Makes the socket at `path` with permissions `mode`. One that was left behind is replaced; one that somebody serves is not.
///
/// # Errors
/// Where it cannot be made, or somebody serves it.
pub fn listen(path: &Path, mode: u32) -> io::Result<UnixListener> {
    if UnixStream::connect(path).is_ok() {
        return Err(io::Error::new(io::ErrorKind::AddrInUse, "another helper serves this socket"));
    }
    match fs::symlink_metadata(path) {
        Ok(found) if std::os::unix::fs::FileTypeExt::is_socket(&found.file_type()) => fs::remove_file(path)?,
        Ok(_) => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is no socket"));
        }
        Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    Ok(listener)
}

/// Serves clients of a socket, for ever.
///
/// # Errors
/// Where the socket fails.
pub fn serve(listener: &UnixListener, executor: &Arc<impl Executor>) -> io::Result<()> {
    let clients = Arc::new(AtomicUsize::new(0));
    loop {
        let (stream, _) = match listener.accept() {
            Ok(accepted) => accepted,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let seat = Seat::take(&clients);
        if clients.load(Ordering::Relaxed) > CLIENTS_MAX {
            tracing::warn!("a client is turned away: {CLIENTS_MAX} are served already");
            continue;
        }
        let executor = Arc::clone(executor);
        let work = move || {
            let _seat = seat;
            if let Err(error) = client(&stream, executor.as_ref()) {
                tracing::info!(%error, "a client of the helper was let go");
            }
        };
        if let Err(error) = thread::Builder::new().name("pr-client".to_owned()).spawn(work) {
            tracing::warn!(%error, "no thread for a client");
        }
    }
}

/// One client, counted until it goes.
struct Seat(Arc<AtomicUsize>);

impl Seat {
    fn take(clients: &Arc<AtomicUsize>) -> Self {
        clients.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(clients))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn client(mut stream: &UnixStream, executor: &impl Executor) -> io::Result<()> {
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&FEATURES)?;
    let mut features = [0; 4];
    stream.read_exact(&mut features)?;
    if features != FEATURES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it wants features that this helper has not"));
    }
    loop {
        // A virtual machine may be silent for days between two commands.
        stream.set_read_timeout(None)?;
        let Some((bytes, disk)) = request(stream)? else { return Ok(()) };
        let request = PrRequest::parse(&bytes)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
        let mut parameters = vec![0; request.parameter_bytes()];
        stream.read_exact(&mut parameters)?;
        let response = match request {
            PrRequest::Out { .. } if !may_write(&disk)? => PrResponse::check_condition(5, 0x20, 0),
            _ => executor.execute(disk.as_fd(), &request, parameters),
        };
        stream.write_all(&response.bytes())?;
    }
}

fn may_write(disk: &OwnedFd) -> io::Result<bool> {
    let flags = rustix::fs::fcntl_getfl(disk)?;
    Ok(flags.intersects(OFlags::WRONLY | OFlags::RDWR))
}

/// The next request and the descriptor that came with it; `None` at the end.
fn request(mut stream: &UnixStream) -> io::Result<Option<([u8; REQUEST_BYTES], OwnedFd)>> {
    let mut bytes = [0; REQUEST_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received =
        recvmsg(stream, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(more) = message {
            descriptors.extend(more);
        }
    }
    if received.bytes == 0 {
        return Ok(None);
    }
    let wrong = |what| io::Error::new(io::ErrorKind::InvalidData, what);
    let (Some(disk), None) = (descriptors.pop(), descriptors.pop()) else {
        return Err(wrong("a request comes with exactly one descriptor"));
    };
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.read_exact(&mut bytes[received.bytes..])?;
    Ok(Some((bytes, disk)))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::IoSlice;

    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

    use super::*;

    /// Answers PERSISTENT RESERVE IN with its allocation length in data, and OUT with its parameters' sum as status.
    struct Echo;

    impl Executor for Echo {
        fn execute(&self, _: BorrowedFd<'_>, request: &PrRequest, parameters: Vec<u8>) -> PrResponse {
            match request {
                PrRequest::In { length, .. } => {
                    PrResponse { status: 0, sense: Vec::new(), data: vec![9; *length] }
                }
                PrRequest::Out { .. } => {
                    let status = parameters.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
                    PrResponse { status, sense: Vec::new(), data: Vec::new() }
                }
            }
        }
    }

    fn with_client<T>(talk: impl FnOnce(&UnixStream) -> T) -> (T, io::Result<()>) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let server = thread::spawn(move || client(&ours, &Echo));
        let mut features = [1; 4];
        (&theirs).read_exact(&mut features).unwrap();
        assert_eq!(features, FEATURES);
        (&theirs).write_all(&FEATURES).unwrap();
        let told = talk(&theirs);
        drop(theirs);
        (told, server.join().unwrap())
    }

    fn send(stream: &UnixStream, bytes: &[u8], disks: &[BorrowedFd<'_>]) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        assert!(disks.is_empty() || ancillary.push(SendAncillaryMessage::ScmRights(disks)));
        sendmsg(stream, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::empty()).unwrap();
    }

    fn response(mut stream: &UnixStream) -> Vec<u8> {
        let mut head = vec![0; 104];
        stream.read_exact(&mut head).unwrap();
        let mut data = vec![0; usize::from(head[7])];
        stream.read_exact(&mut data).unwrap();
        head.extend(data);
        head
    }

    const READ_KEYS: [u8; 16] = [0x5e, 0, 0, 0, 0, 0, 0, 0, 24, 0, 0, 0, 0, 0, 0, 0];
    const REGISTER: [u8; 16] = [0x5f, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0];

    #[test]
    fn commands_are_answered_in_turn() {
        let disk = tempfile::tempfile().unwrap();
        let (_, ended) = with_client(|stream| {
            send(stream, &READ_KEYS, &[disk.as_fd()]);
            assert_eq!(response(stream)[104..], [9; 24]);
            send(stream, &REGISTER, &[disk.as_fd()]);
            let mut stream = stream;
            stream.write_all(&[1, 2, 3]).unwrap();
            assert_eq!(response(stream)[..8], [0, 0, 0, 6, 0, 0, 0, 0]);
        });
        ended.unwrap();
    }

    #[test]
    fn a_descriptor_that_may_not_write_changes_nothing() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let disk = File::open(file.path()).unwrap();
        let (_, ended) = with_client(|stream| {
            send(stream, &REGISTER, &[disk.as_fd()]);
            let mut writer = stream;
            writer.write_all(&[0; 3]).unwrap();
            let refused = response(stream);
            assert_eq!((refused[3], refused[10], refused[20]), (2, 5, 0x20));
            send(stream, &READ_KEYS, &[disk.as_fd()]);
            assert_eq!(response(stream)[3], 0);
        });
        ended.unwrap();
    }

    #[test]
    fn who_does_not_keep_to_the_protocol_is_let_go() {
        let disk = tempfile::tempfile().unwrap();
        let inquiry = [0x12; 16];
        let cases: [(&[u8], usize); 3] = [(&READ_KEYS, 0), (&READ_KEYS, 2), (&inquiry, 1)];
        for (bytes, count) in cases {
            let (_, ended) = with_client(|stream| {
                send(stream, bytes, &vec![disk.as_fd(); count]);
                let mut stream = stream;
                assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0, "let go");
            });
            assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::InvalidData, "{count}");
        }
    }

    #[test]
    fn a_socket_that_somebody_serves_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let first = listen(&path, 0o600).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(listen(&path, 0o600).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(first);
        listen(&path, 0o600).unwrap();
        fs::write(folder.path().join("file"), b"x").unwrap();
        assert!(listen(&folder.path().join("file"), 0o600).is_err());
    }
}
