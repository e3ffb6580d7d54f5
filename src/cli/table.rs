//! Tables without lines.

use comfy_table::{CellAlignment, Table, presets};

use super::output::STRONG;

/// A column: its heading, and whether it holds numbers.
pub type Column = (&'static str, bool);

/// Rows under headings, as whole lines without the last line's end. Numbers go to the right.
pub fn table(columns: &[Column], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(columns.iter().map(|(heading, _)| *heading));
    table.add_rows(rows);
    for (place, (_, numbers)) in columns.iter().enumerate() {
        if let Some(column) = table.column_mut(place) {
            column.set_padding((0, 2));
            if *numbers {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
    }
    let mut lines = Vec::new();
    for (number, line) in table.lines().enumerate() {
        let line = line.trim_end();
        lines.push(if number == 0 { format!("{STRONG}{line}{STRONG:#}") } else { line.to_string() });
    }
    lines.join("\n")
}

/// Names and values, one pair a line, the values below each other. `indent` goes in front of each line.
pub fn pairs(indent: &str, pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines: Vec<String> =
        pairs.iter().map(|(name, value)| format!("{indent}{name:width$}  {value}").trim_end().to_string()).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_below_each_other() {
        let rows =
            vec![vec!["a".into(), "1 MB".into(), "x".into()], vec!["bcd".into(), "100 MB".into(), String::new()]];
        let text = table(&[("id", false), ("size", true), ("", false)], rows);
        let plain = anstream::adapter::strip_str(&text).to_string();
        assert_eq!(plain, "id     size\na      1 MB  x\nbcd  100 MB");
    }
}
