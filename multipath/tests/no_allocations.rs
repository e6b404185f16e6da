//! Once warm, an I/O through the layer allocates nothing.

use multipath::selector::{Selector, SelectorKind};
use multipath::{FailoverConfig, MultipathDevice, PathConfig};
use storage_mapping::device::NullDevice;
use storage_mapping::{BlockDevice, Buffer, Instant, IoBuffer, IoRequest, IoTag, Lba, SharedBuffer};

const DEPTH: u64 = 16;

/// So many rounds of reads and fenced writes.
fn rounds(
    device: &mut MultipathDevice,
    shared: &SharedBuffer,
    buffers: &mut Vec<Buffer>,
    from: u64,
    count: u64,
) {
    for round in from..from + count {
        let now = Instant(round * 1_000_000);
        for at in 0..DEPTH {
            let (tag, lba) = (IoTag(round * DEPTH + at), Lba(at));
            let request = match buffers.pop() {
                Some(buffer) => IoRequest::read(tag, lba, buffer),
                None => IoRequest::write(tag, lba, shared.clone(), false),
            };
            assert!(device.submit(now, request).is_ok());
        }
        let mut done = 0;
        while let Some(completion) = device.poll(now) {
            done += 1;
            if let IoBuffer::Read(buffer) = completion.buffer {
                buffers.push(buffer);
            }
        }
        assert_eq!(done, DEPTH);
    }
}

#[test]
fn an_io_allocates_nothing_once_the_layer_is_warm() {
    for word in ["round-robin", "queue-length", "service-time", "weighted:3,1", "latency"] {
        let kind: SelectorKind = word.parse().unwrap();
        let paths =
            (0..4).map(|_| (PathConfig::default(), Box::new(NullDevice::default()) as Box<dyn BlockDevice>));
        let selector = Selector::new(Instant::ZERO, kind);
        let mut device =
            MultipathDevice::with_selector(paths.collect(), selector, FailoverConfig::default()).unwrap();
        let shared = Buffer::zeroed(4096).freeze();
        let mut buffers: Vec<Buffer> = (0..DEPTH / 2).map(|_| Buffer::zeroed(4096)).collect();
        rounds(&mut device, &shared, &mut buffers, 0, 100);
        for explains in [false, true] {
            device.explain(explains);
            let found = allocation_counter::measure(|| rounds(&mut device, &shared, &mut buffers, 100, 1000));
            assert_eq!(found.count_total, 0, "{word}, explained: {explains}: {found:?}");
        }
    }
}
