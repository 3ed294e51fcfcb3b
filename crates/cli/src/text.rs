//! Numbers and tables for people.

use std::io::IsTerminal;

pub use brisk_store::shown_within;

use crate::terminal;

/// Bytes with a binary unit.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{count} B")
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

/// A count of parameters: `591.7 M`.
pub fn count(number: u64) -> String {
    match number {
        0..10_000 => number.to_string(),
        10_000..1_000_000 => format!("{:.1} k", number as f64 / 1e3),
        1_000_000..10_000_000_000 => format!("{:.1} M", number as f64 / 1e6),
        _ => format!("{:.1} G", number as f64 / 1e9),
    }
}

/// Seconds as `7 s` or `3:05 min`.
pub fn seconds(value: f64) -> String {
    if value < 99.5 {
        return if value < 9.95 {
            format!("{value:.1} s")
        } else {
            format!("{value:.0} s")
        };
    }
    let whole = value.round() as u64;
    if whole < 3600 {
        format!("{}:{:02} min", whole / 60, whole % 60)
    } else {
        format!(
            "{}:{:02}:{:02} h",
            whole / 3600,
            whole / 60 % 60,
            whole % 60
        )
    }
}

/// Characters of a cell of a table.
const WIDEST_CELL: usize = 160;
/// Characters that the widest column keeps in a terminal too narrow for all.
const NARROWEST: usize = 8;

/// Rows of cells as aligned columns, two spaces apart, without spaces at the ends of lines. Cells may hold a
/// file's text; on a terminal the widest columns are cut until a row fits.
pub fn table(rows: &[Vec<String>]) -> String {
    let is_terminal = std::io::stdout().is_terminal();
    table_within(rows, is_terminal.then(terminal::stdout_columns).flatten())
}

fn table_within(rows: &[Vec<String>], room: Option<usize>) -> String {
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            row.iter()
                .map(|cell| shown_within(cell, WIDEST_CELL))
                .collect()
        })
        .collect();
    let mut widths: Vec<usize> = Vec::new();
    for row in &cells {
        widths.resize(widths.len().max(row.len()), 0);
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    if let Some(room) = room {
        let needed =
            |widths: &[usize]| widths.iter().sum::<usize>() + 2 * widths.len().saturating_sub(1);
        while needed(&widths) > room
            && let Some(widest) = widths.iter_mut().max()
            && *widest > NARROWEST
        {
            *widest -= 1;
        }
    }
    let mut text = String::new();
    for row in &cells {
        let mut line = String::new();
        for (cell, &width) in row.iter().zip(&widths) {
            let length = cell.chars().count();
            if length > width {
                line.extend(cell.chars().take(width.saturating_sub(1)));
                line.push('…');
            } else {
                line.push_str(cell);
                line.extend(std::iter::repeat_n(' ', width - length));
            }
            line.push_str("  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units() {
        assert_eq!(bytes(512), "512 B");
        assert_eq!(bytes(3 << 30), "3.0 GiB");
        assert_eq!(count(591_747_872), "591.7 M");
        assert_eq!(seconds(5.0), "5.0 s");
        assert_eq!(seconds(185.4), "3:05 min");
        assert_eq!(seconds(7265.0), "2:01:05 h");
    }

    #[test]
    fn columns_line_up() {
        let rows = [
            vec!["a".to_owned(), "b".to_owned()],
            vec!["long".to_owned(), "c".to_owned()],
        ];
        assert_eq!(table(&rows), "a     b\nlong  c\n");
    }

    #[test]
    fn a_table_fits_and_shows_no_more_than_it_should() {
        let rows = [
            vec!["n".repeat(70_000), "F32".to_owned(), "[1]".to_owned()],
            vec!["a\u{1b}[31m\nb".to_owned(), "BF16".to_owned()],
        ];
        let wide = table_within(&rows, None);
        assert!(
            wide.lines().all(|line| line.chars().count() < 220),
            "{wide}"
        );
        assert!(wide.contains("a\\u{1b}[31m\\nb"), "{wide}");
        for room in [0, 10, 30, 50, 100] {
            let narrow = table_within(&rows, Some(room));
            let longest = narrow
                .lines()
                .map(|line| line.chars().count())
                .max()
                .unwrap();
            assert!(longest <= room.max(24), "{room}: {narrow}");
        }
    }
}
