//! Text that came from elsewhere, so that it shows as what it is.

use std::borrow::Cow;

/// The text with its control characters written out: a peer or a file could otherwise move the cursor, or make a line read
/// from right to left (Unicode Standard Annex 9). As JSON it stays what it was.
pub fn plain(text: &str) -> Cow<'_, str> {
    if !text.contains(is_control) {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        if is_control(character) {
            plain.push_str(&format!("\\u{:04x}", u32::from(character)));
        } else {
            plain.push(character);
        }
    }
    Cow::Owned(plain)
}

fn is_control(character: char) -> bool {
    let bidirectional = matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    // The separators of lines and paragraphs end a line as well.
    let separates = matches!(character, '\u{2028}' | '\u{2029}');
    bidirectional || separates || character.is_control() && !matches!(character, '\n' | '\t')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_change_the_line_is_written_out() {
        assert_eq!(plain("AS 64512 \u{202e}evil\u{2066}\u{1b}[2J"), "AS 64512 \\u202eevil\\u2066\\u001b[2J");
        assert_eq!(plain("größer, 日本\n\tתשובה"), "größer, 日本\n\tתשובה");
        let json = format!("{{\"error\":\"{}\"}}", "a\u{202e}b");
        let read = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(read(&plain(&json)), read(&json));
    }
}
