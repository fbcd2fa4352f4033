//! From a byte offset to the line and column that a person counts.

/// A file's text, and where its lines start.
pub(super) struct Text<'t> {
    text: &'t str,
    starts: Vec<usize>,
}

impl<'t> Text<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        let after_newlines =
            text.bytes().enumerate().filter(|&(_, byte)| byte == b'\n').map(|(at, _)| at + 1);
        let starts = std::iter::once(0).chain(after_newlines.filter(|&start| start < text.len())).collect();
        Self { text, starts }
    }

    /// The line of an offset, from 1.
    pub(super) fn line(&self, offset: usize) -> usize {
        self.starts.partition_point(|&start| start <= offset)
    }

    /// The line and the column of an offset, both from 1.
    ///
    /// What lies behind the last newline, as the end of a file does, is shown at the end of the last line
    /// that has something in it: a place that an editor can go to.
    pub(super) fn position(&self, offset: usize) -> (usize, usize) {
        let line = self.line(offset);
        let rest = &self.text[self.starts[line - 1]..];
        let content = rest.split('\n').next().unwrap_or(rest);
        let in_line = offset - self.starts[line - 1];
        let column = 1 + content.char_indices().take_while(|&(at, _)| at < in_line).count();
        (line, column)
    }

    /// The text between two offsets; empty where they are none of a character's.
    pub(super) fn slice(&self, range: std::ops::Range<usize>) -> &'t str {
        self.text.get(range).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters() {
        let text = Text::new("a = \"é→\"\nbß = 1\n");
        let place = |what: &str| text.position(text.text.find(what).unwrap());
        assert_eq!(place("a"), (1, 1));
        assert_eq!(place("→"), (1, 7));
        assert_eq!(place("bß"), (2, 1));
        assert_eq!(place("= 1"), (2, 4));
    }

    #[test]
    fn the_end_of_a_file_lies_in_its_last_line() {
        for (text, end) in
            [("", (1, 1)), ("a", (1, 2)), ("a\n", (1, 2)), ("a\nbc\n", (2, 3)), ("\n\n", (2, 1))]
        {
            assert_eq!(Text::new(text).position(text.len()), end, "{text:?}");
        }
    }
}
