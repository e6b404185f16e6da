//! Two openings of one file as two paths: the same device as over memory, with real completions.

use multipath::{FailoverConfig, MultipathDevice};
use storage_mapping::{
    BlockDevice, Buffer, Instant, IoCompletion, IoRequest, IoTag, Lba, PathAddress, path_address,
};

/// Polls until something comes; the time limit is that of the test runner.
fn next(device: &mut MultipathDevice) -> IoCompletion {
    loop {
        if let Some(done) = device.poll(Instant::ZERO) {
            return done;
        }
        std::thread::yield_now();
    }
}

#[test]
fn two_openings_of_one_file_are_two_paths() {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(1 << 20).unwrap();
    for engine in ["", "?engine=threads"] {
        let address: PathAddress = format!("file:{}{engine}", file.path().display()).parse().unwrap();
        let paths = (0..2).map(|_| path_address::open(&address).unwrap().device).collect();
        let mut device = MultipathDevice::new(paths, FailoverConfig::default()).unwrap();
        for block in 0..32 {
            let data = Buffer::copy_of(&[u8::try_from(block).unwrap(); 4096]).freeze();
            let fua = block % 8 == 0;
            let request = IoRequest::write(IoTag(block), Lba(block), data, fua);
            if let Err(refused) = device.submit(Instant::ZERO, request) {
                assert!(next(&mut device).outcome.is_ok());
                device.submit(Instant::ZERO, refused.request).unwrap();
            }
        }
        let mut descriptors = Vec::new();
        device.wait_on(&mut descriptors);
        assert_eq!(descriptors.len(), 2);
        while device.status().iter().any(|path| path.in_flight > 0) {
            assert!(next(&mut device).outcome.is_ok());
        }
        while device.poll(Instant::ZERO).is_some() {}
        device.submit(Instant::ZERO, IoRequest::flush(IoTag(1 << 20))).unwrap();
        assert!(next(&mut device).outcome.is_ok());
        for block in 0..32 {
            let request = IoRequest::read(IoTag(block), Lba(block), Buffer::zeroed(4096));
            device.submit(Instant::ZERO, request).unwrap();
            let bytes = next(&mut device).buffer.into_read().unwrap();
            assert!(bytes.iter().all(|byte| u64::from(*byte) == block));
        }
        assert!(device.status().iter().all(|path| path.requests == 33 && path.errors == 0));
    }
}
