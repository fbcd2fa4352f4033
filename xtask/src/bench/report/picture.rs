//! The pictures' files: SVG for the page, which is sharp at any size, and PNG beside it.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use anyhow::{Result, anyhow};
use plotters::prelude::{BitMapBackend, FontStyle, IntoDrawingArea as _, SVGBackend};
use plotters::style::register_font;

use super::chart::Chart;
use super::draw::{self, Canvas, FONT};

/// Pixels of a PNG for each one of the drawing.
const PNG_SCALE: u32 = 2;

/// Where Debian has its usual font (package fonts-dejavu-core).
const FONTS: [(&str, FontStyle); 2] = [
    ("/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf", FontStyle::Normal),
    ("/usr/share/fonts/truetype/dejavu/DejaVuSans-Bold.ttf", FontStyle::Bold),
];

/// A drawn picture.
pub(super) struct Picture {
    /// Name of the PNG.
    pub(super) file: String,
    pub(super) title: &'static str,
    /// The same as SVG.
    pub(super) svg: String,
}

/// Draws all of them, and writes the PNGs.
pub(super) fn draw(charts: &[Chart], directory: &Path) -> Result<Vec<Picture>> {
    load_fonts()?;
    charts.iter().map(|chart| one(chart, directory)).collect()
}

fn one(chart: &Chart, directory: &Path) -> Result<Picture> {
    let (width, height) = draw::size(chart);
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (width, height)).into_drawing_area();
        draw::draw(chart, &Canvas::new(&area, 1))?;
        area.present().map_err(|error| anyhow!("cannot draw {}: {error}", chart.name))?;
    }
    let file = format!("{}.png", chart.name);
    let path = directory.join(&file);
    let size = (width * PNG_SCALE, height * PNG_SCALE);
    let area = BitMapBackend::new(&path, size).into_drawing_area();
    draw::draw(chart, &Canvas::new(&area, PNG_SCALE))?;
    area.present().map_err(|error| anyhow!("cannot write {}: {error}", path.display()))?;
    Ok(Picture { file, title: chart.title, svg })
}

/// Reads the fonts, once.
fn load_fonts() -> Result<()> {
    static LOADED: OnceLock<Result<(), String>> = OnceLock::new();
    LOADED
        .get_or_init(|| FONTS.iter().try_for_each(|(path, style)| load(path, *style)))
        .clone()
        .map_err(|error| anyhow!("{error}; `cargo xtask setup` installs the package fonts-dejavu-core"))
}

fn load(path: &str, style: FontStyle) -> Result<(), String> {
    let bytes = fs::read(path).map_err(|error| format!("cannot read {path}: {error}"))?;
    // The library keeps fonts as long as the program runs.
    register_font(FONT, style, bytes.leak()).map_err(|_| format!("{path} is no font"))
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::super::super::finding::{Finding, Sample};
    use super::*;

    /// Draws every kind of picture; a machine without the font shows that the error names the mend.
    #[test]
    fn every_kind_of_picture_is_drawn() -> Result<()> {
        let directory = tempfile::tempdir().context("no temporary directory")?;
        let pair = || vec![Sample::pair(1.5e6, 0.6e6), Sample::pair(1.4e6, 0.7e6)];
        let mut findings = vec![
            Finding::new("pps-deliver", "a < b & \"c\"", "rate", "packets/s", pair()).against("iptables"),
            Finding::new("udp-rr", "across nodes", "latency-p50", "us", vec![Sample::pair(20.0, 31.0)])
                .against("iptables"),
        ];
        for at in [10, 1000, 100_000] {
            let samples = vec![Sample::pair(9.0, at as f64)];
            let finding = Finding::new("lookup", "", "time", "ns/lookup", samples).against("LPM_TRIE");
            findings.push(Finding { at: Some(at), ..finding });
        }
        match draw(&Chart::all(&findings), directory.path()) {
            Err(error) => assert!(format!("{error:#}").contains("fonts-dejavu-core"), "{error:#}"),
            Ok(pictures) => {
                let names: Vec<&str> = pictures.iter().map(|picture| picture.file.as_str()).collect();
                assert_eq!(names, ["gain.png", "packets.png", "latency.png", "lookup.png"]);
                assert!(pictures[0].svg.contains("a &lt; b &amp; "), "{}", pictures[0].svg);
                for picture in &pictures {
                    let png = fs::read(directory.path().join(&picture.file))?;
                    assert!(png.starts_with(b"\x89PNG") && png.len() > 1000, "{}", picture.file);
                }
            }
        }
        Ok(())
    }
}
