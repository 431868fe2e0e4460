//! Boxes: headings in capitals and centred, cells to the right.

use std::io::{self, Write};

pub(super) fn print(header: &[&str], rows: &[Vec<String>], out: &mut Vec<u8>) -> io::Result<()> {
    let header: Vec<String> = header
        .iter()
        .map(|name| name.replace('_', " ").to_uppercase())
        .collect();
    let rows: Vec<Vec<&str>> = rows
        .iter()
        .map(|row| row.iter().map(|cell| cell.trim()).collect())
        .collect();
    let widths: Vec<usize> = header
        .iter()
        .enumerate()
        .map(|(column, name)| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            let widest = cells.map(|cell| width(cell)).max().unwrap_or(0);
            widest.max(width(name))
        })
        .collect();

    rule(&widths, ['┌', '┬', '┐'], out)?;
    line(
        header.iter().zip(&widths).map(|(name, room)| {
            let left = (room - width(name)) / 2;
            let right = room - width(name) - left;
            format!("{:left$}{name}{:right$}", "", "")
        }),
        out,
    )?;
    if !rows.is_empty() {
        rule(&widths, ['├', '┼', '┤'], out)?;
    }
    for row in &rows {
        line(
            row.iter().zip(&widths).map(|(cell, room)| {
                let left = room - width(cell);
                format!("{:left$}{cell}", "")
            }),
            out,
        )?;
    }
    rule(&widths, ['└', '┴', '┘'], out)
}

fn width(text: &str) -> usize {
    text.chars().count()
}

fn rule(widths: &[usize], [left, middle, right]: [char; 3], out: &mut Vec<u8>) -> io::Result<()> {
    let parts: Vec<String> = widths.iter().map(|width| "─".repeat(width + 2)).collect();
    writeln!(out, "{left}{}{right}", parts.join(&middle.to_string()))
}

fn line(cells: impl Iterator<Item = String>, out: &mut Vec<u8>) -> io::Result<()> {
    let cells: Vec<String> = cells.collect();
    writeln!(out, "│ {} │", cells.join(" │ "))
}
