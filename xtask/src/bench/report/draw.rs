//! Drawing: rows and curves, by whatever backend.

mod axis;
mod canvas;
mod curves;
mod rows;

use anyhow::Result;
use plotters::prelude::DrawingBackend;

use super::chart::{Body, Chart};
use canvas::{BOLD, INK};

pub(super) use canvas::{Canvas, FONT};

const WIDTH: u32 = 1120;

/// Space above what is drawn, for the title and the legend, and below it, for the axis.
const TOP: f64 = 78.0;
const BOTTOM: f64 = 56.0;

const RIGHT: f64 = 110.0;

/// Width and height of a picture.
pub(super) fn size(chart: &Chart) -> (u32, u32) {
    let inside = match &chart.body {
        Body::Rows { groups, .. } => rows::height(groups),
        Body::Curves { .. } => curves::HEIGHT,
    };
    (WIDTH, (TOP + inside + BOTTOM) as u32)
}

/// Draws it on a canvas of that size.
pub(super) fn draw<DB: DrawingBackend>(chart: &Chart, canvas: &Canvas<'_, DB>) -> Result<()> {
    canvas.clear()?;
    canvas.text((24.0, 26.0), chart.title, 20.0, INK, canvas::Anchor::Left, BOLD)?;
    match &chart.body {
        Body::Rows { origin, groups } => rows::draw(canvas, chart, *origin, groups),
        Body::Curves { across, curves, targets } => curves::draw(canvas, chart, across, curves, targets),
    }
}
