//! What the tests of this crate share: a loop that waits like a real driver, in virtual time.

#![allow(dead_code, reason = "each test file uses its part")]

use std::os::fd::BorrowedFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use storage_mapping::{BlockDevice, Buffer, CopyFate, Effect, Instant, IoCompletion, IoRequest, IoTag, Lba};

/// Drives one device: polls, waits on its descriptors, and jumps to its wake-ups.
pub(crate) struct Driver<'a> {
    pub(crate) device: &'a mut dyn BlockDevice,
    pub(crate) now: Instant,
}

impl<'a> Driver<'a> {
    pub(crate) fn new(device: &'a mut dyn BlockDevice) -> Self {
        Self { device, now: Instant::ZERO }
    }

    pub(crate) fn submit(&mut self, request: IoRequest) {
        self.device.submit(self.now, request).expect("the device has room");
    }

    /// The next completion; fails the test if none comes for ten seconds.
    pub(crate) fn next(&mut self) -> IoCompletion {
        for _ in 0..10_000 {
            if let Some(done) = self.device.poll(self.now) {
                return done;
            }
            let mut descriptors = Vec::new();
            self.device.wait_on(&mut descriptors);
            let wakeup = self.device.next_wakeup();
            if let Some(at) = wakeup {
                self.now = self.now.max(at);
            }
            let timeout = if wakeup.is_some() { 1 } else { 10_000_u16 };
            #[expect(unsafe_code, reason = "the trait names descriptors by number")]
            let mut waiting: Vec<_> = descriptors
                .iter()
                // SAFETY: the device is borrowed and keeps its descriptors open.
                .map(|fd| PollFd::new(unsafe { BorrowedFd::borrow_raw(*fd) }, PollFlags::POLLIN))
                .collect();
            if !waiting.is_empty() {
                let ready = poll(&mut waiting, PollTimeout::from(timeout)).expect("poll works");
                assert!(ready > 0 || wakeup.is_some(), "the device went silent");
            } else {
                assert!(wakeup.is_some(), "nothing to wait for");
            }
        }
        panic!("the device never completes");
    }

    /// Submits one request and waits for it.
    pub(crate) fn run(&mut self, request: IoRequest) -> IoCompletion {
        let tag = request.tag;
        self.submit(request);
        let done = self.next();
        assert_eq!(done.tag, tag);
        done
    }
}

/// A small generator of numbers, so that a failing run can be repeated.
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// The same random program on a device and on a model; every read is compared.
pub(crate) fn verified_random_io(device: &mut dyn BlockDevice, rounds: u64) {
    let geometry = device.geometry();
    let block = geometry.block_size.bytes();
    let mut numbers = Numbers(7);
    let mut model = vec![0_u8; usize::try_from(geometry.byte_size()).expect("it fits")];
    let mut driver = Driver::new(device);
    for round in 0..rounds {
        let count = 1 + numbers.below(200);
        let lba = numbers.below(geometry.block_count.0 - count);
        let start = usize::try_from(lba).expect("it fits") * block;
        let range = start..start + usize::try_from(count).expect("it fits") * block;
        match numbers.below(8) {
            0..4 => {
                let bytes: Vec<u8> = range.clone().map(|at| (at as u64 / 7 + round) as u8).collect();
                model[range].copy_from_slice(&bytes);
                let data = Buffer::copy_of(&bytes).freeze();
                let done = driver.run(IoRequest::write(IoTag(round), Lba(lba), data, numbers.below(4) == 0));
                assert_eq!((done.outcome, done.effect, done.copy), (Ok(()), Effect::Full, CopyFate::Dead));
            }
            4 => assert!(driver.run(IoRequest::flush(IoTag(round))).outcome.is_ok()),
            _ => {
                let buffer = Buffer::zeroed(range.len());
                let done = driver.run(IoRequest::read(IoTag(round), Lba(lba), buffer));
                assert_eq!(done.outcome, Ok(()));
                assert!(
                    done.buffer.into_read().expect("it fits")[..] == model[range],
                    "round {round}, block {lba}"
                );
            }
        }
    }
}
