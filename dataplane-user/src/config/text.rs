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
        self.position_after(offset, None)
    }

    /// The same, counted on from an offset before it and its position: a line may be as long as a file, with as many faults.
    pub(super) fn position_after(
        &self,
        offset: usize,
        known: Option<(usize, (usize, usize))>,
    ) -> (usize, usize) {
        let line = self.line(offset);
        let start = self.starts[line - 1];
        let end = self.starts.get(line).map_or(self.text.len(), |next| next - 1);
        let content = self.text[start..end].strip_suffix('\n').unwrap_or(&self.text[start..end]);
        let (from, column) = match known {
            Some((before, (same, column))) if same == line && before <= offset => (before - start, column),
            _ => (0, 1),
        };
        let (from, to) = (from.min(content.len()), (offset - start).min(content.len()));
        let begins = (from..to).filter(|&at| content.is_char_boundary(at)).count();
        (line, column + begins)
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
    fn positions_can_be_counted_on() {
        let text = Text::new("é = [\"ä\", \"→\", \"b\"]\nc = 1");
        let mut known = None;
        for offset in 0..=text.text.len() {
            let position = text.position_after(offset, known);
            assert_eq!(position, text.position(offset), "at {offset}");
            known = text.text.is_char_boundary(offset).then_some((offset, position)).or(known);
        }
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
