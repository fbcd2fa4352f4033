//! The page: everything in one file.

use std::fmt::Write as _;

use super::Report;
use super::picture::Picture;
use super::table;

const STYLE: &str = "\
body { font: 15px/1.5 'DejaVu Sans', Verdana, sans-serif; color: #222; max-width: 1160px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.5em; } h2 { font-size: 1.2em; margin-top: 2em; }
table { border-collapse: collapse; font-size: 13px; width: 100%; }
th, td { text-align: left; padding: .3em .6em; border-bottom: 1px solid #e2e2e2; }
td.figure { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
td.missed { font-weight: bold; }
.warning { border-left: 4px solid #e69f00; background: #fdf6e6; padding: .4em .8em; margin: .4em 0; }
pre { background: #f5f5f5; padding: .8em; overflow-x: auto; font-size: 12px; line-height: 1.35; }
svg { max-width: 100%; height: auto; } figure { margin: 1.5em 0; } figcaption { font-size: 12px; color: #666; }
";

const HEADINGS: [&str; 7] = ["case", "variant", "metric", "this data path", "baseline", "ratio", "target"];

pub(super) fn page(report: &Report, pictures: &[Picture]) -> String {
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <title>Benchmarks of dataplane</title>\n<style>{STYLE}</style></head><body>\n\
         <h1>This data path and the kernel's own, on this machine</h1>\n<p>{}</p>\n<pre>$ {}</pre>\n",
        escape(&report.conditions()).replace('\n', "<br>"),
        escape(&report.command)
    );
    for warning in report.warnings() {
        let _ = writeln!(page, "<div class=\"warning\">{}</div>", escape(&warning));
    }
    page += "<p>Both were measured in turn, in pairs, on the same topology and one CPU. A ratio is the median of \
             the pairs' ratios, with their extremes; only ratios compare from one run to another. Where a smaller \
             figure is better (cost, memory, time), so is a smaller ratio.</p>\n";
    for picture in pictures {
        let _ = writeln!(
            page,
            "<figure>\n{}\n<figcaption>{} ({})</figcaption></figure>",
            inline(&picture.svg),
            escape(picture.title),
            escape(&picture.file)
        );
    }
    page += "<h2>All figures</h2>\n<table><thead><tr>";
    HEADINGS.iter().for_each(|heading| {
        let _ = write!(page, "<th>{heading}</th>");
    });
    page += "</tr></thead>\n<tbody>\n";
    for row in table::rows(&report.findings) {
        page += "<tr>";
        for (index, cell) in row.iter().enumerate() {
            let class = match index {
                3..=5 => " class=\"figure\"",
                6 if cell.contains("missed") => " class=\"missed\"",
                _ => "",
            };
            let _ = write!(page, "<td{class}>{}</td>", escape(cell));
        }
        page += "</tr>\n";
    }
    page += "</tbody></table>\n<h2>The baselines' rules</h2>\n\
             <p>As the kernel had them, printed by its own tools on the measured node.</p>\n";
    for (name, rules) in &report.rules {
        let _ = writeln!(
            page,
            "<details><summary>{}</summary><pre>{}</pre></details>",
            escape(name),
            escape(rules)
        );
    }
    page + "</body></html>\n"
}

/// The picture without what only a file of its own has.
fn inline(svg: &str) -> &str {
    svg.find("<svg").map_or(svg, |start| &svg[start..])
}

/// The text as HTML shows it.
fn escape(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut escaped, c| {
        match c {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\'' => escaped += "&#39;",
            _ => escaped.push(c),
        }
        escaped
    })
}

#[cfg(test)]
mod tests {
    use super::super::super::finding::{Finding, Sample};
    use super::super::super::machine::Machine;
    use super::*;

    #[test]
    fn text_from_outside_cannot_become_markup() {
        assert_eq!(escape("a<b> & \"c\" 'd'"), "a&lt;b&gt; &amp; &quot;c&quot; &#39;d&#39;");
        let report = Report {
            machine: Machine {
                model: "CPU <1>".to_owned(),
                cpus: 2,
                kernel: "6.1".to_owned(),
                load: 0.0,
                busy: 0.0,
            },
            command: "cargo xtask bench --json '<x>'".to_owned(),
            cpu: 1,
            attach_mode: None,
            modes: Vec::new(),
            stolen: 0.0,
            findings: vec![Finding::new("case", "<variant>", "rate", "1/s", vec![Sample::alone(1.0)])],
            skipped: vec!["<skipped>".to_owned()],
            failed: Vec::new(),
            rules: vec![("nftables".to_owned(), "a & <b>".to_owned())],
        };
        let page = page(&report, &[]);
        for raw in ["CPU <1>", "<x>", "<variant>", "<skipped>", "a & <b>"] {
            assert!(!page.contains(raw), "{raw} stands in the page as it is");
            assert!(page.contains(&escape(raw)), "{raw} is missing");
        }
    }

    #[test]
    fn a_picture_has_no_prologue_inside_a_page() {
        assert_eq!(inline("<?xml version=\"1.0\"?><!DOCTYPE svg>\n<svg/>"), "<svg/>");
    }
}
