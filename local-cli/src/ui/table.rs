//! A table for stdout: columns where they fit, one line a cell where they do not.

use std::fmt::Write as _;

use super::fit::{middle, printable, width};

/// Between two columns.
const GAP: usize = 3;
/// A column with longer cells may be cut to this.
const ENOUGH: usize = 12;

/// `rows` below `head`, in at most `room` columns; nothing is cut when that is `usize::MAX`. The last `extra` columns
/// are shown where nothing need be cut for them.
pub fn table<const N: usize>(head: [&str; N], rows: &[[String; N]], room: usize, extra: usize) -> String {
    let head = head.map(str::to_owned);
    let rows: Vec<[String; N]> =
        rows.iter().map(|row| row.each_ref().map(|cell| printable(cell).into_owned())).collect();
    let all = || [&head].into_iter().chain(&rows);
    let mut widths: Vec<usize> =
        (0..N).map(|column| all().map(|row| width(&row[column])).max().unwrap_or(0)).collect();
    let needed = |widths: &[usize]| widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1);
    if needed(&widths) > room {
        widths.truncate(N - extra);
    }
    let least: Vec<usize> = widths.iter().map(|width| (*width).min(ENOUGH)).collect();
    if needed(&least) > room {
        return list(&head, &rows, room);
    }
    while needed(&widths) > room {
        if let Some(widest) = widths.iter_mut().max() {
            *widest -= 1;
        }
    }
    let mut text = String::new();
    for row in all() {
        let mut line = String::new();
        for (cell, column) in row.iter().zip(&widths) {
            let cell = middle(cell, *column);
            line.push_str(&cell);
            line.extend(std::iter::repeat_n(' ', column + GAP - width(&cell)));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A row below the other, each cell with its name.
fn list<const N: usize>(head: &[String; N], rows: &[[String; N]], room: usize) -> String {
    let label = head.iter().map(|name| width(name)).max().unwrap_or(0) + 2;
    let mut text = String::new();
    for row in rows {
        if !text.is_empty() {
            text.push('\n');
        }
        for (name, cell) in head.iter().zip(row) {
            if room < 2 * label {
                let _ = writeln!(text, "{name}\n  {}", middle(cell, room.saturating_sub(2)));
            } else {
                let _ = writeln!(text, "{name:<label$}{}", middle(cell, room - label));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: [&str; 3] = ["SESSION", "DEPLOYMENT", "AGENT"];

    fn rows() -> Vec<[String; 3]> {
        vec![
            ["k7f2abcdef", "shop/cart", "cart-devproxy-k7f2-5d8c7b9f4-x2x7l on node-3"].map(str::to_owned),
            ["m2p9abcdef", "shop/世界", "no pod"].map(str::to_owned),
        ]
    }

    #[test]
    fn columns_stand_below_each_other_and_the_widest_gives_way() {
        insta::assert_snapshot!(table(HEAD, &rows(), usize::MAX, 0), @"
        SESSION      DEPLOYMENT   AGENT
        k7f2abcdef   shop/cart    cart-devproxy-k7f2-5d8c7b9f4-x2x7l on node-3
        m2p9abcdef   shop/世界    no pod
        ");
        insta::assert_snapshot!(table(HEAD, &rows(), 60, 0), @"
        SESSION      DEPLOYMENT   AGENT
        k7f2abcdef   shop/cart    cart-devproxy-k7f…-x2x7l on node-3
        m2p9abcdef   shop/世界    no pod
        ");
    }

    #[test]
    fn a_column_that_may_be_left_out_is_before_anything_is_cut() {
        insta::assert_snapshot!(table(HEAD, &rows(), 60, 1), @"
        SESSION      DEPLOYMENT
        k7f2abcdef   shop/cart
        m2p9abcdef   shop/世界
        ");
        assert_eq!(table(HEAD, &rows(), 70, 1), table(HEAD, &rows(), usize::MAX, 0));
        assert_eq!(table(HEAD, &rows(), 20, 1), table(HEAD, &rows(), 20, 0));
    }

    #[test]
    fn a_narrow_terminal_gets_one_line_a_cell() {
        insta::assert_snapshot!(table(HEAD, &rows(), 40, 0), @"
        SESSION      DEPLOYMENT   AGENT
        k7f2abcdef   shop/cart    cart-de…node-3
        m2p9abcdef   shop/世界    no pod
        ");
        insta::assert_snapshot!(table(HEAD, &rows(), 20, 0), @"
        SESSION
          k7f2abcdef
        DEPLOYMENT
          shop/cart
        AGENT
          cart-devp…n node-3

        SESSION
          m2p9abcdef
        DEPLOYMENT
          shop/世界
        AGENT
          no pod
        ");
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        for room in 14..90 {
            let text = table(HEAD, &rows(), room, 0);
            assert!(text.lines().all(|line| width(line) <= room), "{room}:\n{text}");
        }
    }
}
