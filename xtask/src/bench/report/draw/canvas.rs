//! Points, lines, boxes and words in the drawing's own pixels.

use std::fmt::Display;

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::{
    Circle, DrawingArea, DrawingBackend, FontStyle, PathElement, RGBColor, Rectangle, Text,
};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color as _, FontDesc, FontFamily, TextStyle, WHITE};

use super::super::chart::OURS;

/// The font's name: as it is registered, and as a browser reads it in an SVG.
pub(in super::super) const FONT: &str = "DejaVu Sans, Verdana, sans-serif";

pub(super) type Color = RGBColor;

pub(super) const INK: Color = RGBColor(0x22, 0x22, 0x22);
pub(super) const FAINT: Color = RGBColor(0x66, 0x66, 0x66);
pub(super) const GRID: Color = RGBColor(0xe2, 0xe2, 0xe2);

pub(super) const BOLD: FontStyle = FontStyle::Bold;
pub(super) const PLAIN: FontStyle = FontStyle::Normal;

/// Masataka Okabe's and Kei Ito's palette, which is told apart with every kind of colour vision. Each name
/// that is often compared has its own colour on all pictures.
const NAMED: [(&str, Color); 9] = [
    (OURS, RGBColor(0x00, 0x72, 0xb2)),
    ("iptables", RGBColor(0xd5, 0x5e, 0x00)),
    ("nftables", RGBColor(0xe6, 0x9f, 0x00)),
    ("flowtable", RGBColor(0x00, 0x9e, 0x73)),
    ("route", RGBColor(0x8c, 0x8c, 0x8c)),
    ("direct", RGBColor(0x22, 0x22, 0x22)),
    ("blackhole", RGBColor(0x44, 0x44, 0x44)),
    ("BIRD", RGBColor(0xcc, 0x79, 0xa7)),
    ("LPM_TRIE", RGBColor(0x9a, 0x8a, 0x00)),
];

/// For other names: the first that is free.
const OTHERS: [Color; 4] = [
    RGBColor(0x56, 0xb4, 0xe9),
    RGBColor(0x00, 0x9e, 0x73),
    RGBColor(0xcc, 0x79, 0xa7),
    RGBColor(0xe6, 0x9f, 0x00),
];

/// The colours of these names, each of its own.
pub(super) fn colors<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<(&'a str, Color)> {
    let mut colors: Vec<(&str, Color)> = Vec::new();
    for name in names {
        if colors.iter().any(|(known, _)| *known == name) {
            continue;
        }
        let named = NAMED.iter().find(|(known, _)| *known == name).map(|(_, color)| *color);
        let is_free = |color: &Color| colors.iter().all(|(_, used)| used.rgb() != color.rgb());
        let other = OTHERS.iter().copied().find(is_free).unwrap_or(FAINT);
        let color = named.unwrap_or(other);
        colors.push((name, color));
    }
    colors
}

/// On which side of its point a word stands.
#[derive(Clone, Copy)]
pub(super) enum Anchor {
    /// It begins there.
    Left,
    Center,
    /// It ends there.
    Right,
}

/// Something to draw on: coordinates are pixels from the top left corner, of which a bitmap may have more.
pub(in super::super) struct Canvas<'a, DB: DrawingBackend> {
    area: &'a DrawingArea<DB, Shift>,
    scale: f64,
}

impl<'a, DB: DrawingBackend> Canvas<'a, DB> {
    /// On an area that has `scale` times as many pixels in each direction.
    pub(in super::super) fn new(area: &'a DrawingArea<DB, Shift>, scale: u32) -> Self {
        Self { area, scale: f64::from(scale) }
    }

    pub(super) fn clear(&self) -> Result<()> {
        self.area.fill(&WHITE).map_err(cannot_draw)
    }

    pub(super) fn text(
        &self,
        at: (f64, f64),
        text: &str,
        size: f64,
        color: Color,
        anchor: Anchor,
        style: FontStyle,
    ) -> Result<()> {
        let style = self.style(size, color, anchor, style);
        self.area.draw(&Text::new(text.to_owned(), self.point(at), style)).map_err(cannot_draw)
    }

    /// Width of a word.
    pub(super) fn width(&self, text: &str, size: f64, style: FontStyle) -> Result<f64> {
        let style = self.style(size, INK, Anchor::Left, style);
        let (width, _) = self.area.estimate_text_size(text, &style).map_err(cannot_draw)?;
        Ok(f64::from(width) / self.scale)
    }

    pub(super) fn line(&self, points: &[(f64, f64)], color: Color, width: f64) -> Result<()> {
        let points: Vec<_> = points.iter().map(|at| self.point(*at)).collect();
        let style = color.stroke_width((width * self.scale).round().max(1.0) as u32);
        self.area.draw(&PathElement::new(points, style)).map_err(cannot_draw)
    }

    /// A filled box between two corners.
    pub(super) fn area(&self, from: (f64, f64), to: (f64, f64), color: Color) -> Result<()> {
        let corners = [self.point(from), self.point(to)];
        self.area.draw(&Rectangle::new(corners, color.filled())).map_err(cannot_draw)
    }

    /// A filled disc.
    pub(super) fn dot(&self, at: (f64, f64), radius: f64, color: Color) -> Result<()> {
        let radius = (radius * self.scale).round() as i32;
        self.area.draw(&Circle::new(self.point(at), radius, color.filled())).map_err(cannot_draw)
    }

    /// The names with their colours, in a row that begins there.
    pub(super) fn legend(&self, at: (f64, f64), names: &[(&str, Color)]) -> Result<f64> {
        let (mut x, y) = at;
        for (name, color) in names {
            self.area((x, y - 5.0), (x + 18.0, y + 5.0), *color)?;
            self.text((x + 24.0, y), name, 14.0, INK, Anchor::Left, PLAIN)?;
            x += 24.0 + self.width(name, 14.0, PLAIN)? + 26.0;
        }
        Ok(x)
    }

    fn style(&self, size: f64, color: Color, anchor: Anchor, style: FontStyle) -> TextStyle<'static> {
        let horizontal = match anchor {
            Anchor::Left => HPos::Left,
            Anchor::Center => HPos::Center,
            Anchor::Right => HPos::Right,
        };
        TextStyle {
            font: FontDesc::new(FontFamily::Name(FONT), size * self.scale, style),
            color: color.to_backend_color(),
            pos: Pos::new(horizontal, VPos::Center),
        }
    }

    fn point(&self, (x, y): (f64, f64)) -> (i32, i32) {
        ((x * self.scale).round() as i32, (y * self.scale).round() as i32)
    }
}

fn cannot_draw(error: impl Display) -> anyhow::Error {
    anyhow!("cannot draw: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_has_a_colour_of_its_own() {
        let colors = colors(["dataplane", "x", "y", "dataplane", "iptables"]);
        assert_eq!(
            colors.iter().map(|(name, _)| *name).collect::<Vec<_>>(),
            ["dataplane", "x", "y", "iptables"]
        );
        for (index, (_, color)) in colors.iter().enumerate() {
            assert!(colors[index + 1..].iter().all(|(_, other)| color.rgb() != other.rgb()));
        }
    }
}
