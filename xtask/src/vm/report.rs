//! What the machine says of itself on its third serial line (`image/init.sh`): `up`, then when the command has ended
//! the lines that it left in `/run/report`, each behind its file's name, and `status` last.

/// What has come so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Report {
    /// Whether the first process ran.
    pub(super) up: bool,
    /// Name of the file, and the line.
    pub(super) lines: Vec<(String, String)>,
    /// The command's exit status, which closes a complete report.
    pub(super) status: Option<u8>,
}

impl Report {
    pub(super) fn parse(text: &str) -> Self {
        let mut report = Self::default();
        for line in text.lines().map(|line| line.trim_end_matches('\r')) {
            match line.split_once('\t') {
                None => report.up |= line == "up",
                Some(("status", status)) => report.status = status.parse().ok(),
                Some((file, line)) => report.lines.push((file.to_owned(), line.to_owned())),
            }
        }
        report
    }

    /// The lines of one file.
    pub(super) fn lines_of(&self, file: &str) -> impl Iterator<Item = &str> {
        self.lines.iter().filter(move |(name, _)| name == file).map(|(_, line)| line.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read_with_the_line_ends_of_a_terminal() {
        let report = Report::parse("up\r\nskipped\ta::b\tno TCX\r\nverified\topen 3\r\nstatus\t101\r\n");
        assert_eq!(report.status, Some(101));
        assert!(report.up);
        assert_eq!(report.lines_of("skipped").collect::<Vec<_>>(), ["a::b\tno TCX"]);
        assert_eq!(report.lines_of("verified").count(), 1);
    }

    #[test]
    fn without_its_end_it_has_no_status() {
        for text in ["", "up\n", "up\nskipped\ta\tb\nstatus\t"] {
            assert_eq!(Report::parse(text).status, None, "{text:?}");
        }
        assert!(!Report::parse("Booting\n").up);
    }
}
