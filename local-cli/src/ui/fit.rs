//! Text for a terminal of so many columns.

use std::borrow::Cow;

use console::measure_text_width;

/// Columns that `text` takes: a wide character takes two.
pub fn width(text: &str) -> usize {
    measure_text_width(text)
}

/// `text` in at most `room` columns, cut in the middle: the ends of a name say more than its middle.
pub fn middle(text: &str, room: usize) -> Cow<'_, str> {
    if width(text) <= room {
        return text.into();
    }
    let Some(room) = room.checked_sub(1) else { return "".into() };
    let head = taken(text.chars(), room.div_ceil(2));
    let tail: String = taken(text.chars().rev(), room - width(&head)).chars().rev().collect();
    format!("{head}…{tail}").into()
}

/// `text` in at most `room` columns, cut behind a word where that leaves more than half of them.
pub fn start(text: &str, room: usize) -> Cow<'_, str> {
    if width(text) <= room {
        return text.into();
    }
    let Some(room) = room.checked_sub(1) else { return "".into() };
    let head = taken(text.chars(), room);
    let is_whole = text[head.len()..].starts_with(' ');
    let last = if is_whole { None } else { head.rfind(' ').map(|at| &head[..at]) };
    let head = last.filter(|head| 2 * width(head) > room).unwrap_or(&head);
    format!("{}…", head.trim_end()).into()
}

/// As many of the characters as fit.
fn taken(characters: impl Iterator<Item = char>, room: usize) -> String {
    let mut taken = String::new();
    let mut left = room;
    for character in characters {
        let Some(rest) = left.checked_sub(width(character.encode_utf8(&mut [0; 4]))) else { break };
        left = rest;
        taken.push(character);
    }
    taken
}

/// `text` on one line, without what a terminal would obey: words of the cluster are shown, and anybody may write them.
pub fn printable(text: &str) -> Cow<'_, str> {
    let turned = |c: char| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let obeyed = |c: char| c.is_control() || turned(c);
    if !text.contains(obeyed) {
        return text.into();
    }
    let shown = |c: char| match c {
        '\n' | '\t' => ' ',
        c if obeyed(c) => '\u{fffd}',
        c => c,
    };
    text.chars().map(shown).collect::<String>().into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_long_name_keeps_both_ends() {
        assert_eq!(middle("cart-devproxy-k7f2", 18), "cart-devproxy-k7f2");
        assert_eq!(middle("cart-devproxy-k7f2", 11), "cart-…-k7f2");
        assert_eq!(middle("cart", 1), "…");
        assert_eq!(middle("cart", 0), "");
        assert_eq!(middle("世界世界世界", 7), "世…世界");
    }

    #[test]
    fn a_sentence_is_cut_between_words() {
        let text = "1 stand-in pod, cart 1 → 0 replicas";
        assert_eq!(start(text, 80), text);
        assert_eq!(start(text, 22), "1 stand-in pod, cart…");
        assert_eq!(start(text, 21), "1 stand-in pod, cart…");
        assert_eq!(start(text, 20), "1 stand-in pod,…");
        // A long word is worth more than none.
        assert_eq!(start("a cart-devproxy-k7f2", 12), "a cart-devp…");
        assert_eq!((start(text, 1), start(text, 0)), ("…".into(), "".into()));
    }

    #[test]
    fn the_terminal_obeys_no_word_of_the_cluster() {
        assert_eq!(printable("a\x1b[2Jb\u{9b}31m\tc\nd\u{202e}"), "a\u{fffd}[2Jb\u{fffd}31m c d\u{fffd}");
        assert_eq!(printable("plain → text …"), "plain → text …");
    }

    proptest! {
        #[test]
        fn nothing_is_wider_than_its_room(text in "\\PC{0,60}", room in 0usize..40) {
            for cut in [middle, start] {
                prop_assert!(width(&cut(&text, room)) <= room);
            }
        }
    }
}
