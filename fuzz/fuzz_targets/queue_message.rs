//! Any bytes as a message of the queue: a job that goes round, or refused as none.
//! Run: `cargo +nightly fuzz run queue_message fuzz/corpus/queue_message fuzz/seeds/queue_message`
#![no_main]

use brisk_fleet::Job;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok((job, kind)) = Job::read(bytes) else {
        return;
    };
    // Written again it may be too large for the queue, as its signs and numbers may have had shorter forms.
    if let Ok(written) = job.bytes() {
        let (read, again) = Job::read(&written).expect("what was read");
        assert_eq!((read.message_id(), again), (job.message_id(), kind));
        let names = |job: &Job| job.items.iter().map(|item| item.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&read), names(&job));
    }
    assert!(job.tries.attempt() > 0);
});
