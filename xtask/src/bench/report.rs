//! What is printed: for people a table of each kind, for programs all values as JSON.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::bars::{Bar, Limit};
use super::columns::{Column, others};
use super::figures::Figures;
use super::rows::{OTHERS, ROWS};
use super::statistics::Spread;

/// For `--only`.
pub(crate) fn list_rows() {
    for row in ROWS {
        let columns: Vec<_> = row.columns.iter().map(|column| column.name()).collect();
        println!("{:<20} {}", row.name, columns.join(" "));
    }
    for name in OTHERS {
        println!("{name}");
    }
    for delay in super::DELAYS {
        for row in ROWS.iter().filter(|row| row.delayed) {
            println!("{}", row.delayed_name(delay));
        }
    }
}

/// All of it on standard output; with `json` the text goes to standard error.
pub(crate) fn print(figures: &Figures, bars: &[Bar], took: Duration, json: bool) {
    let mut text = tables(figures);
    let _ = writeln!(text, "\nbars");
    for bar in bars {
        let _ = writeln!(text, "{}", line(bar));
    }
    for failure in figures.failures() {
        let _ = writeln!(text, "no figure: {failure}");
    }
    for (tool, installed) in others() {
        let said = if installed { "on PATH, has no column yet" } else { "not installed, no column" };
        let _ = writeln!(text, "{tool}: {said}");
    }
    let _ = writeln!(text, "{} s on {} processors, Linux {}", took.as_secs(), processors(), kernel());
    if json {
        eprint!("{text}");
        println!("{:#}", as_json(figures, bars, took));
    } else {
        print!("{text}");
    }
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn kernel() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}

/// Figures of a row are told one below the other; a column is as wide as its spread needs.
fn tables(figures: &Figures) -> String {
    let mut text = String::new();
    let mut head: Vec<String> = Vec::new();
    for (row, figure) in figures.order() {
        // How busy everybody was is for profiles: of most rows it is in the JSON only.
        if figure.starts_with("CPU %")
            && !["bulk-down-1", "bulk-up-1", "connections", "http1"].contains(&row.as_str())
        {
            continue;
        }
        let load = ROWS.iter().any(|load| row.split('@').next() == Some(load.name));
        let columns: Vec<_> = if load {
            Column::ALL.iter().map(|column| column.name().to_owned()).collect()
        } else {
            figures.columns(row, figure).map(|(column, _)| column.to_owned()).collect()
        };
        if columns != head {
            let _ = write!(text, "\n{:<46}", "");
            for column in &columns {
                let _ = write!(text, " {column:>24}");
            }
            let _ = writeln!(text);
            head.clone_from(&columns);
        }
        let _ = write!(text, "{:<46}", format!("{row}, {figure}"));
        for column in &columns {
            let shown = Spread::of(figures.of(row, figure, column)).map_or_else(|| "–".to_owned(), spread);
            let _ = write!(text, " {shown:>24}");
        }
        let _ = writeln!(text);
    }
    text
}

fn spread(spread: Spread) -> String {
    let Spread { median, least, most } = spread;
    if least.to_bits() == most.to_bits() {
        number(median)
    } else {
        format!("{} ({}–{})", number(median), number(least), number(most))
    }
}

/// Three digits or so.
fn number(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        small if small >= 1.0 || small == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

fn line(bar: &Bar) -> String {
    let mark = match bar.passed() {
        Some(true) => "✓",
        Some(false) => "✗",
        None => "–",
    };
    let (relation, limit) = match bar.limit {
        Limit::AtLeast(limit) => ("≥", limit),
        Limit::AtMost(limit) => ("≤", limit),
        Limit::Below(limit) => ("<", limit),
    };
    let seen =
        bar.seen.map_or_else(|| "not measured".to_owned(), |seen| format!("{} {}", number(seen), bar.unit));
    format!("  {mark} {:<58} {seen:>14}   {relation} {limit} {}", bar.what, bar.unit)
}

fn as_json(figures: &Figures, bars: &[Bar], took: Duration) -> Value {
    let rows: Vec<Value> = figures
        .order()
        .iter()
        .flat_map(|(row, figure)| {
            figures.columns(row, figure).map(move |(column, values)| {
                json!({"row": row, "figure": figure, "column": column, "spread": Spread::of(values), "values": values})
            })
        })
        .collect();
    let bars: Vec<Value> = bars
        .iter()
        .map(|bar| json!({"what": bar.what, "unit": bar.unit, "seen": bar.seen, "limit": bar.limit, "passed": bar.passed()}))
        .collect();
    json!({
        "processors": processors(), "kernel": kernel(), "seconds": took.as_secs(), "figures": rows, "bars": bars,
        "without_figure": figures.failures(),
        "other_tools": others().into_iter().collect::<std::collections::BTreeMap<_, _>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_about_three_digits() {
        let shown = [1234.5, 12.345, 1.2345, 0.12345, 0.0].map(number);
        assert_eq!(shown, ["1234", "12.3", "1.23", "0.123", "0.00"]);
    }

    #[test]
    fn a_bar_is_a_line_with_its_limit() {
        let bar = Bar { what: "speed".into(), unit: "×", seen: Some(1.5), limit: Limit::AtLeast(1.15) };
        let line = line(&bar);
        assert!(line.starts_with("  ✓ speed ") && line.ends_with("1.50 ×   ≥ 1.15 ×"), "{line}");
    }

    #[test]
    fn every_value_is_in_the_json() {
        let mut figures = Figures::default();
        figures.put("latency", "p50 ms", "outbound", 0.5);
        figures.put("latency", "p50 ms", "outbound", 0.7);
        let json = as_json(&figures, &[], Duration::from_secs(3));
        assert_eq!(json["figures"][0]["values"], json!([0.5, 0.7]));
        assert_eq!(json["figures"][0]["column"], "outbound");
    }
}
