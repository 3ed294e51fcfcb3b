//! Any text as a chat template, and what it accepts at work: a text or an error, never a panic.
//! Run: `cargo +nightly fuzz run chat_template fuzz/corpus/chat_template fuzz/seeds/chat_template`
#![no_main]

use brisk_text::{ChatMessage, ChatTemplate};

libfuzzer_sys::fuzz_target!(|text: String| {
    let specials = vec![("bos_token".to_owned(), "<s>".to_owned())];
    let Ok(template) = ChatTemplate::new(text, specials, "fuzz") else {
        return;
    };
    let turns = [("system", "Be brief."), ("user", "  How many? "), ("assistant", "Two.")];
    let turns = turns.map(|(role, content)| ChatMessage {
        role: role.to_owned(),
        content: content.to_owned(),
    });
    for thinking in [None, Some(false)] {
        drop(template.render(&turns[1..2], thinking));
        drop(template.render(&turns, thinking));
    }
});
