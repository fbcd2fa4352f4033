//! The demo's output: titles, commands, and green or red results as they come.

use std::env;
use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write as _};

use anyhow::{Context as _, Result};

use super::interrupt;

/// An effect of ECMA-48, "select graphic rendition".
#[derive(Clone, Copy)]
enum Style {
    Bold = 1,
    Faint = 2,
    Red = 31,
    Green = 32,
}

/// Standard output.
pub(super) struct Screen {
    colour: bool,
}

impl Screen {
    /// With colour where a terminal shows it and nobody asked for none.
    pub(super) fn new() -> Self {
        let colour = io::stdout().is_terminal() && colour_is_welcome(|name| env::var(name).ok());
        Self { colour }
    }

    /// Writes text as it is.
    pub(super) fn print(&self, text: &str) -> Result<()> {
        let mut output = io::stdout().lock();
        output.write_all(text.as_bytes()).and_then(|()| output.flush()).context("cannot write the output")
    }

    fn styled(&self, style: Style, text: impl Display) -> String {
        if self.colour { format!("\x1b[{}m{text}\x1b[0m", style as u8) } else { text.to_string() }
    }

    /// A line of a list that ends the demo.
    pub(super) fn heading(&self, text: &str) -> Result<()> {
        self.print(&format!("\n{}\n", self.styled(Style::Bold, text)))
    }

    /// A line with the mark of success or failure before it.
    pub(super) fn verdict(&self, good: bool, text: &str) -> Result<()> {
        let (style, mark) = if good { (Style::Green, "✓") } else { (Style::Red, "✗") };
        let mut lines = text.lines();
        let first = self.styled(style, format!("{mark} {}", lines.next().unwrap_or_default()));
        let rest: String = lines.map(|line| format!("    {line}\n")).collect();
        self.print(&format!("  {first}\n{rest}"))
    }

    /// Shows a step: its title, its commands as it names them, and its result, green, or its error, red.
    ///
    /// None is a red step, or one that was interrupted.
    pub(super) fn step<T>(
        &mut self,
        title: &str,
        check: impl FnOnce(&mut Told<'_>) -> Result<T>,
    ) -> Result<Option<T>> {
        self.heading(title)?;
        let mut told = Told { screen: self, output: Ok(()), result: String::new(), pasted: String::new() };
        let checked = check(&mut told);
        let Told { output, result, pasted, .. } = told;
        output?;
        let value = match checked {
            Ok(value) => {
                self.verdict(true, &result)?;
                Some(value)
            }
            // Its command was ended together with the demo: that is no result.
            Err(_) if interrupt::caught().is_some() => None,
            Err(error) => {
                self.verdict(false, &format!("{error:#}"))?;
                None
            }
        };
        self.print(&pasted)?;
        Ok(value)
    }
}

/// What a step tells of itself.
pub(super) struct Told<'a> {
    screen: &'a Screen,
    output: Result<()>,
    result: String,
    pasted: String,
}

impl Told<'_> {
    /// Before it is run: a command, and in which namespace (see [`super::network::INTRODUCTION`]).
    pub(super) fn command(&mut self, namespace: &str, command: impl Display) {
        let line = self.screen.styled(Style::Faint, format!("{namespace}$ {command}"));
        let printed = self.screen.print(&format!("    {line}\n"));
        self.output = std::mem::replace(&mut self.output, Ok(())).and(printed);
    }

    /// A line of the result, for when the step succeeds.
    pub(super) fn result(&mut self, line: impl Display) {
        self.result += &format!("{line}\n");
    }

    /// A command's output, to be shown below the result, good or bad.
    pub(super) fn paste(&mut self, text: &str) {
        for line in text.lines() {
            let indent = if line.is_empty() { "" } else { "    " };
            self.pasted += &format!("{indent}{line}\n");
        }
    }
}

/// Whether the environment has nothing against colour (<https://no-color.org>; terminfo's `dumb`).
fn colour_is_welcome(variable: impl Fn(&str) -> Option<String>) -> bool {
    let refused = variable("NO_COLOR").is_some_and(|value| !value.is_empty());
    !refused && variable("TERM").is_none_or(|terminal| terminal != "dumb")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_gives_way_to_the_environment() {
        let with = |name: &'static str, value: &'static str| {
            colour_is_welcome(move |asked| (asked == name).then(|| value.to_owned()))
        };
        assert!(with("TERM", "xterm") && with("NO_COLOR", "") && with("PATH", "/bin"));
        assert!(!with("NO_COLOR", "1") && !with("TERM", "dumb"));
    }

    #[test]
    fn plain_text_has_no_escapes() {
        assert_eq!(Screen { colour: false }.styled(Style::Green, "good"), "good");
        assert_eq!(Screen { colour: true }.styled(Style::Green, "good"), "\x1b[32mgood\x1b[0m");
    }

    #[test]
    fn a_step_has_a_value_or_is_red() -> Result<()> {
        let mut screen = Screen { colour: false };
        assert_eq!(screen.step("good", |_| Ok(7))?, Some(7));
        assert_eq!(screen.step("bad", |_| -> Result<()> { anyhow::bail!("no such luck") })?, None);
        Ok(())
    }
}
