//! Rows in groups: bars with whiskers, or points.

use anyhow::Result;
use plotters::prelude::DrawingBackend;

use super::super::super::finding::Spread;
use super::super::chart::{Chart, Group, Mark, Row};
use super::super::table::digits;
use super::axis::{self, Axis};
use super::canvas::{Anchor, Canvas, Color, FAINT, GRID, INK, PLAIN, colors};
use super::{RIGHT, TOP, WIDTH};

/// Height of a row with a bar, and of one with points, whose names stand above them.
const BAR: f64 = 19.0;
const POINTS: f64 = 28.0;
const GAP: f64 = 13.0;
/// Room for a figure behind its bar.
const FIGURE: f64 = 60.0;
/// Widest a label's column gets.
const MOST_LABEL: f64 = 470.0;

pub(super) fn height(groups: &[Group]) -> f64 {
    groups.iter().map(|group| group_height(group) + GAP).sum()
}

fn group_height(group: &Group) -> f64 {
    group.rows.iter().map(row_height).sum()
}

fn row_height(row: &Row) -> f64 {
    match row.mark {
        Mark::Bar(_) => BAR,
        Mark::Points(_) => POINTS,
    }
}

pub(super) fn draw<DB: DrawingBackend>(
    canvas: &Canvas<'_, DB>,
    chart: &Chart,
    origin: f64,
    groups: &[Group],
) -> Result<()> {
    let rows = || groups.iter().flat_map(|group| &group.rows);
    let mut label_width: f64 = 0.0;
    for group in groups {
        label_width = label_width.max(canvas.width(&group.label, 13.0, PLAIN)?);
    }
    let left = 24.0 + label_width.min(MOST_LABEL) + 14.0;
    // Behind points all of their figures stand.
    let right = if rows().any(|row| matches!(row.mark, Mark::Points(_))) { 2.0 * RIGHT } else { RIGHT };
    let figures = rows().flat_map(|row| {
        let mut figures = match &row.mark {
            Mark::Bar(spread) => vec![spread.min, spread.max],
            Mark::Points(points) => points.iter().map(|(_, figure)| *figure).collect(),
        };
        figures.extend(row.target);
        figures
    });
    let axis = Axis::over(figures.chain([origin]), chart.is_logarithmic, (left, f64::from(WIDTH) - right));
    let bottom = TOP + height(groups);
    for tick in axis.ticks() {
        let x = axis.at(tick);
        canvas.line(&[(x, TOP - 6.0), (x, bottom)], GRID, 1.0)?;
        canvas.text((x, bottom + 14.0), &axis::name(tick), 13.0, FAINT, Anchor::Center, PLAIN)?;
    }
    canvas.text((axis.at(origin), bottom + 36.0), chart.axis, 13.0, INK, Anchor::Left, PLAIN)?;
    let colors = colors(rows().map(|row| row.path.as_str()));
    let end = canvas.legend((24.0, 54.0), &colors)?;
    if rows().any(|row| row.target.is_some()) {
        canvas.line(&[(end, 46.0), (end, 62.0)], INK, 3.0)?;
        canvas.text((end + 9.0, 54.0), "target", 14.0, INK, Anchor::Left, PLAIN)?;
    }
    let mut y = TOP + GAP / 2.0;
    for group in groups {
        let middle = y + group_height(group) / 2.0;
        canvas.text((24.0, middle), &group.label, 13.0, INK, Anchor::Left, PLAIN)?;
        for row in &group.rows {
            let color = colors.iter().find(|(name, _)| *name == row.path).map_or(INK, |(_, color)| *color);
            let height = row_height(row);
            one(canvas, row, &axis, origin, y + height / 2.0, color)?;
            y += height;
        }
        y += GAP;
    }
    let x = axis.at(origin);
    if origin > 0.0 || !chart.is_logarithmic {
        canvas.line(&[(x, TOP - 6.0), (x, bottom)], INK, 1.0)?;
    }
    Ok(())
}

fn one<DB: DrawingBackend>(
    canvas: &Canvas<'_, DB>,
    row: &Row,
    axis: &Axis,
    origin: f64,
    y: f64,
    color: Color,
) -> Result<()> {
    let mut right = axis.at(origin);
    match &row.mark {
        Mark::Bar(Spread { median, min, max }) => {
            let (from, to) = (axis.at(origin), axis.at(*median));
            canvas.area((from.min(to), y - BAR / 2.0 + 2.0), (from.max(to), y + BAR / 2.0 - 2.0), color)?;
            let (low, high) = (axis.at(*min), axis.at(*max));
            if high - low > 1.0 {
                canvas.line(&[(low, y), (high, y)], INK, 1.0)?;
                for end in [low, high] {
                    canvas.line(&[(end, y - 4.0), (end, y + 4.0)], INK, 1.0)?;
                }
            }
            right = right.max(high).max(to);
        }
        Mark::Points(points) => {
            let ends = points.iter().map(|(_, figure)| axis.at(*figure));
            let (low, high) =
                ends.fold((f64::INFINITY, 0.0), |(low, high): (f64, f64), x| (low.min(x), high.max(x)));
            canvas.line(&[(low, y), (high, y)], color, 2.0)?;
            let mut last = f64::NEG_INFINITY;
            for (name, figure) in points {
                let x = axis.at(*figure);
                canvas.dot((x, y), 4.0, color)?;
                // Names that would lie on each other are left out: the order is always the same.
                if x - last > 26.0 {
                    canvas.text((x, y - 10.0), name, 10.0, FAINT, Anchor::Center, PLAIN)?;
                    last = x;
                }
            }
            right = high;
        }
    }
    if let Some(target) = row.target {
        let x = axis.at(target);
        canvas.line(&[(x, y - BAR / 2.0 + 1.0), (x, y + BAR / 2.0 - 1.0)], INK, 3.0)?;
        // The figure stands before a target that is far off.
        if x - right < FIGURE {
            right = right.max(x);
        }
    }
    let text = match &row.mark {
        Mark::Bar(spread) => digits(spread.median),
        Mark::Points(points) => {
            let figures = points.iter().map(|(_, figure)| digits(*figure));
            figures.collect::<Vec<_>>().join(" / ")
        }
    };
    canvas.text((right + 8.0, y), &text, 13.0, INK, Anchor::Left, PLAIN)
}
