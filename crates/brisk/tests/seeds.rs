//! The fuzzer's pictures and descriptions: the good ones become requests, every other one is refused.

use brisk::{REQUEST_KEYWORD, redraw};
use brisk_testkit::check_seeds;

#[test]
fn descriptions() {
    check_seeds("redraw", false, |name, bytes| {
        let texts = match bytes.first() {
            Some(b'{') => {
                let text = String::from_utf8(bytes.to_vec()).unwrap();
                vec![(REQUEST_KEYWORD.to_owned(), text)]
            }
            _ => brisk_media::read_png_metadata(bytes).unwrap(),
        };
        redraw(&texts, name)
    });
}
