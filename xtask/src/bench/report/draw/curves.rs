//! Curves over a number.

use anyhow::Result;
use plotters::prelude::DrawingBackend;

use super::super::chart::{Chart, Curve};
use super::super::table::digits;
use super::axis::{self, Axis};
use super::canvas::{Anchor, Canvas, FAINT, GRID, INK, PLAIN, colors};
use super::{RIGHT, TOP, WIDTH};

pub(super) const HEIGHT: f64 = 380.0;

const LEFT: f64 = 90.0;

pub(super) fn draw<DB: DrawingBackend>(
    canvas: &Canvas<'_, DB>,
    chart: &Chart,
    across: &str,
    curves: &[Curve],
    targets: &[(f64, f64)],
) -> Result<()> {
    let (top, bottom) = (TOP + 14.0, TOP + HEIGHT - 8.0);
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let x_axis = Axis::over(points().map(|(at, _)| *at), true, (LEFT, f64::from(WIDTH) - RIGHT));
    let figures = points().flat_map(|(_, spread)| [spread.min, spread.max]);
    let y_axis = Axis::over(
        figures.chain(targets.iter().map(|(_, bound)| *bound)),
        chart.is_logarithmic,
        (bottom, top),
    );
    for tick in y_axis.ticks() {
        let y = y_axis.at(tick);
        canvas.line(&[(LEFT, y), (f64::from(WIDTH) - RIGHT, y)], GRID, 1.0)?;
        canvas.text((LEFT - 10.0, y), &axis::name(tick), 13.0, FAINT, Anchor::Right, PLAIN)?;
    }
    let mut named = f64::NEG_INFINITY;
    let mut places: Vec<f64> = points().map(|(at, _)| *at).collect();
    places.sort_by(f64::total_cmp);
    places.dedup();
    for place in places {
        let x = x_axis.at(place);
        canvas.line(&[(x, top), (x, bottom)], GRID, 1.0)?;
        if x - named > 44.0 {
            canvas.text((x, bottom + 16.0), &axis::name(place), 13.0, FAINT, Anchor::Center, PLAIN)?;
            named = x;
        }
    }
    canvas.line(&[(LEFT, top), (LEFT, bottom), (f64::from(WIDTH) - RIGHT, bottom)], INK, 1.0)?;
    canvas.text((24.0, top - 14.0), chart.axis, 13.0, INK, Anchor::Left, PLAIN)?;
    canvas.text((f64::from(WIDTH) - RIGHT, bottom + 38.0), across, 13.0, INK, Anchor::Right, PLAIN)?;
    let colors = colors(curves.iter().map(|curve| curve.path.as_str()));
    let end = canvas.legend((24.0, 54.0), &colors)?;
    if !targets.is_empty() {
        canvas.line(&[(end, 54.0), (end + 18.0, 54.0)], INK, 3.0)?;
        canvas.text((end + 24.0, 54.0), "target: at most", 14.0, INK, Anchor::Left, PLAIN)?;
    }
    for (at, bound) in targets {
        let (x, y) = (x_axis.at(*at), y_axis.at(*bound));
        canvas.line(&[(x - 12.0, y), (x + 12.0, y)], INK, 3.0)?;
    }
    for (curve, (_, color)) in curves.iter().zip(&colors) {
        let line: Vec<_> =
            curve.points.iter().map(|(at, spread)| (x_axis.at(*at), y_axis.at(spread.median))).collect();
        canvas.line(&line, *color, 2.0)?;
        for ((at, spread), point) in curve.points.iter().zip(&line) {
            let x = x_axis.at(*at);
            let (low, high) = (y_axis.at(spread.min), y_axis.at(spread.max));
            canvas.line(&[(x, low), (x, high)], *color, 1.0)?;
            canvas.dot(*point, 4.0, *color)?;
        }
        if let (Some((_, spread)), Some((x, y))) = (curve.points.last(), line.last()) {
            canvas.text((x + 10.0, *y), &digits(spread.median), 13.0, *color, Anchor::Left, PLAIN)?;
        }
    }
    Ok(())
}
