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
    fn the_terminal_obeys_no_word_of_the_cluster() {
        assert_eq!(printable("a\x1b[2Jb\u{9b}31m\tc\nd\u{202e}"), "a\u{fffd}[2Jb\u{fffd}31m c d\u{fffd}");
        assert_eq!(printable("plain → text …"), "plain → text …");
    }

    proptest! {
        #[test]
        fn nothing_is_wider_than_its_room(text in "\\PC{0,60}", room in 0usize..40) {
            prop_assert!(width(&middle(&text, room)) <= room.max(width(&text).min(room)));
        }
    }
}
