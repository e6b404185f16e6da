//! Key files: the X25519 secret of a host and the Ed25519 seed of an admin.
//!
//! A key file is one line, `diskwire-host-key` or `diskwire-admin-key` and 64 hex digits, so that one
//! cannot be taken for the other. It is made with mode 0600 and never over an existing file; it is
//! read only if it is a regular file, no symbolic link, owned by the user and closed to
//! everybody else. Secrets are wiped from memory when they are dropped. Not here: handshakes and
//! signatures.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use rustix::fs::{Mode, OFlags};
use snow::params::DHChoice;
use snow::resolvers::{CryptoResolver, DefaultResolver};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::config::{Hex, PublicKey};
use crate::escape;

/// Bytes of a secret of either kind.
const SECRET_BYTES: usize = 32;
/// More than any key file has.
const FILE_MAX_BYTES: usize = 256;

/// Why a key cannot be made or used.
#[derive(Debug, Error)]
pub enum KeyError {
    /// Not the line that a key file is.
    #[error("{file} is not {kind} key file; make one with `{command}`")]
    Content {
        /// The file.
        file: String,
        /// What it should be.
        kind: &'static str,
        /// What makes one.
        command: &'static str,
    },
    /// There already.
    #[error("{file} is there already; keys are never overwritten, choose another name or move it away")]
    Exists {
        /// The file.
        file: String,
    },
    /// It cannot be read or written.
    #[error("cannot {verb} key file {file}")]
    Io {
        /// What failed.
        verb: &'static str,
        /// The file.
        file: String,
        /// Why.
        source: io::Error,
    },
    /// Not there.
    #[error("key file {file} is not there; make it with `diskwire keygen`, or correct its name")]
    Missing {
        /// The file.
        file: String,
    },
    /// Somebody else may read or replace it.
    #[error("key file {file} is readable by others (mode {mode:04o}); run: chmod 600 {file}")]
    Mode {
        /// The file.
        file: String,
        /// Its permissions.
        mode: u32,
    },
    /// A folder, a device, a symbolic link.
    #[error("key file {file} is not a regular file; name the file itself, links are not followed")]
    NotRegular {
        /// The file.
        file: String,
    },
    /// It belongs to another user.
    #[error("key file {file} belongs to user {owner}, not to user {user}; run as its owner, or chown it")]
    Owner {
        /// The file.
        file: String,
        /// Its owner.
        owner: u32,
        /// Who runs.
        user: u32,
    },
    /// No randomness from the system.
    #[error("the system gives no random bytes; a key cannot be made now")]
    Random,
}

/// The static key of a host.
pub struct HostKey {
    secret: Zeroizing<[u8; SECRET_BYTES]>,
    public: PublicKey,
}

/// The key that signs volumes.
pub struct AdminKey {
    seed: Zeroizing<[u8; SECRET_BYTES]>,
    pair: Ed25519KeyPair,
}

impl HostKey {
    const KIND: FileKind =
        FileKind { word: "diskwire-host-key", owner: "a host's", command: "diskwire keygen" };

    /// Makes a key and its file.
    ///
    /// # Errors
    /// [`KeyError::Exists`], [`KeyError::Io`], [`KeyError::Random`].
    pub fn create(file: &Path) -> Result<Self, KeyError> {
        let secret = random()?;
        write_secret(file, &Self::KIND, &secret)?;
        Ok(Self::from_secret(secret))
    }

    /// Reads a key file.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn load(file: &Path) -> Result<Self, KeyError> {
        Ok(Self::from_secret(read_secret(file, &Self::KIND)?))
    }

    /// The secret half.
    #[must_use]
    pub fn secret(&self) -> &[u8; SECRET_BYTES] {
        &self.secret
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// The public half comes from the library that does the handshake, so that both agree.
    fn from_secret(secret: Zeroizing<[u8; SECRET_BYTES]>) -> Self {
        let mut x25519 =
            DefaultResolver.resolve_dh(&DHChoice::Curve25519).expect("X25519 is built into the handshake");
        x25519.set(&secret[..]);
        let public = x25519.pubkey().try_into().expect("an X25519 key has 32 bytes");
        Self { secret, public: Hex(public) }
    }
}

impl AdminKey {
    const KIND: FileKind =
        FileKind { word: "diskwire-admin-key", owner: "an admin's", command: "diskwire keygen --admin" };

    /// Makes a key and its file.
    ///
    /// # Errors
    /// [`KeyError::Exists`], [`KeyError::Io`], [`KeyError::Random`].
    pub fn create(file: &Path) -> Result<Self, KeyError> {
        let seed = random()?;
        write_secret(file, &Self::KIND, &seed)?;
        Ok(Self::from_seed(seed))
    }

    /// Reads a key file.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn load(file: &Path) -> Result<Self, KeyError> {
        Ok(Self::from_seed(read_secret(file, &Self::KIND)?))
    }

    /// What signs.
    #[must_use]
    pub fn pair(&self) -> &Ed25519KeyPair {
        &self.pair
    }

    /// The seed.
    #[must_use]
    pub fn seed(&self) -> &[u8; SECRET_BYTES] {
        &self.seed
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        Hex(self.pair.public_key().as_ref().try_into().expect("an Ed25519 key has 32 bytes"))
    }

    fn from_seed(seed: Zeroizing<[u8; SECRET_BYTES]>) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed[..]).expect("any 32 bytes are a seed");
        Self { seed, pair }
    }
}

/// What tells key files of one kind from those of another.
struct FileKind {
    word: &'static str,
    owner: &'static str,
    command: &'static str,
}

fn random() -> Result<Zeroizing<[u8; SECRET_BYTES]>, KeyError> {
    let mut secret = Zeroizing::new([0; SECRET_BYTES]);
    SystemRandom::new().fill(&mut secret[..]).map_err(|_| KeyError::Random)?;
    Ok(secret)
}

fn write_secret(file: &Path, kind: &FileKind, secret: &[u8; SECRET_BYTES]) -> Result<(), KeyError> {
    let shown = escape::name(file);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::open(file, flags, Mode::RUSR | Mode::WUSR).map_err(|error| match error {
        rustix::io::Errno::EXIST => KeyError::Exists { file: shown.clone() },
        error => KeyError::Io { verb: "make", file: shown.clone(), source: error.into() },
    })?;
    let mut line = Zeroizing::new(Vec::with_capacity(FILE_MAX_BYTES));
    line.extend_from_slice(kind.word.as_bytes());
    line.push(b' ');
    for byte in secret {
        line.extend([byte >> 4, byte & 15].map(|digit| b"0123456789abcdef"[usize::from(digit)]));
    }
    line.push(b'\n');
    let mut opened = File::from(opened);
    opened.write_all(&line).and_then(|()| opened.sync_all()).map_err(|source| {
        // Half a key file would only be in the way.
        let _ = std::fs::remove_file(file);
        KeyError::Io { verb: "write", file: shown, source }
    })
}

fn read_secret(file: &Path, kind: &FileKind) -> Result<Zeroizing<[u8; SECRET_BYTES]>, KeyError> {
    let shown = || escape::name(file);
    let failed = |source: io::Error| KeyError::Io { verb: "read", file: shown(), source };
    // NONBLOCK: a FIFO of this name must not keep us waiting.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let opened = rustix::fs::open(file, flags, Mode::empty()).map_err(|error| match error {
        rustix::io::Errno::LOOP => KeyError::NotRegular { file: shown() },
        rustix::io::Errno::NOENT => KeyError::Missing { file: shown() },
        error => failed(error.into()),
    })?;
    let mut opened = File::from(opened);
    let metadata = opened.metadata().map_err(failed)?;
    let user = rustix::process::geteuid().as_raw();
    if !metadata.is_file() {
        return Err(KeyError::NotRegular { file: shown() });
    }
    if metadata.uid() != user {
        return Err(KeyError::Owner { file: shown(), owner: metadata.uid(), user });
    }
    if metadata.mode() & 0o077 != 0 {
        return Err(KeyError::Mode { file: shown(), mode: metadata.mode() & 0o7777 });
    }
    let mut content = Zeroizing::new([0; FILE_MAX_BYTES]);
    let mut length = 0;
    while length < content.len() {
        match opened.read(&mut content[length..]).map_err(failed)? {
            0 => break,
            read => length += read,
        }
    }
    let mut secret = Zeroizing::new([0; SECRET_BYTES]);
    let digits = content[..length].trim_ascii().strip_prefix(kind.word.as_bytes());
    let digits = digits.and_then(|rest| rest.strip_prefix(b" "));
    if digits.is_some_and(|digits| crate::config::decode_hex(digits, &mut secret[..])) {
        Ok(secret)
    } else {
        Err(KeyError::Content { file: shown(), kind: kind.owner, command: kind.command })
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn error(file: &Path) -> String {
        HostKey::load(file).err().expect("it must be refused").to_string()
    }

    #[test]
    fn a_key_file_is_private_and_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.key");
        let made = HostKey::create(&file).unwrap();
        let read = HostKey::load(&file).unwrap();
        assert_eq!((made.secret(), made.public()), (read.secret(), read.public()));
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o600);
        assert!(HostKey::create(&file).err().unwrap().to_string().contains("never overwritten"));

        let file = dir.path().join("admin.key");
        let made = AdminKey::create(&file).unwrap();
        let read = AdminKey::load(&file).unwrap();
        assert_eq!((made.seed(), made.public()), (read.seed(), read.public()));
        assert!(error(&file).contains("is not a host's key file"));
    }

    /// RFC 7748, section 6.1, and RFC 8032, section 7.1.
    #[test]
    fn public_halves_are_those_of_the_standards() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let file = dir.path().join(name);
            fs::write(&file, text).unwrap();
            fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
            file
        };
        let alice = "diskwire-host-key 77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a\n";
        assert_eq!(
            HostKey::load(&file("alice", alice)).unwrap().public().to_string(),
            "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"
        );
        let first = "diskwire-admin-key 9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
        assert_eq!(
            AdminKey::load(&file("first", first)).unwrap().public().to_string(),
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
        );
    }

    #[test]
    fn files_that_are_no_private_key_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let good = dir.path().join("good");
        HostKey::create(&good).unwrap();
        for mode in [0o640, 0o604, 0o660, 0o610] {
            fs::set_permissions(&good, Permissions::from_mode(mode)).unwrap();
            let shown = error(&good);
            assert!(shown.contains(&format!("mode {mode:04o}")) && shown.contains("chmod 600"), "{shown}");
        }
        fs::set_permissions(&good, Permissions::from_mode(0o400)).unwrap();
        assert!(HostKey::load(&good).is_ok());

        let link = dir.path().join("link");
        symlink(&good, &link).unwrap();
        assert!(error(&link).contains("not a regular file"));
        assert!(HostKey::create(&link).err().unwrap().to_string().contains("there already"));
        assert!(error(dir.path()).contains("not a regular file"));
        assert!(error(&dir.path().join("none")).contains("is not there; make it"));

        let digits = "ab".repeat(32);
        for content in [
            String::new(),
            digits.clone(),
            format!("diskwire-host-key {}", &digits[1..]),
            format!("diskwire-host-key {digits}0"),
            format!("diskwire-host-key{digits}"),
            "x".repeat(300),
        ] {
            let file = dir.path().join("bad");
            fs::write(&file, &content).unwrap();
            fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
            assert!(error(&file).contains("is not a host's key file"), "{content}");
        }
    }
}
