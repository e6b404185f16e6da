//! The edge: the event loop, the workers, the clock. Everything above and below is pure or a device.

pub mod clock;
pub mod event_loop;
pub mod work_pool;

pub use event_loop::Driver;
