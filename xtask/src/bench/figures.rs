//! Everything that was seen: row, column, figure, one value a round.

use std::collections::BTreeMap;
use std::time::Duration;

use super::columns::Column;
use super::processes::{Memory, Role, Times};
use super::rows::Seen;
use super::statistics::Spread;

/// All values of a run.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    /// By row, figure and column, in the order in which they came.
    values: BTreeMap<(String, String, String), Vec<f64>>,
    /// Rows and their figures in the order in which they came.
    order: Vec<(String, String)>,
    failures: Vec<String>,
}

impl Figures {
    /// One measurement of a load.
    pub(crate) fn add(&mut self, row: &str, column: Column, seen: Seen) {
        for (figure, value) in seen {
            self.put(row, figure, column.name(), value);
        }
    }

    /// One value of a row that has other columns.
    pub(crate) fn put(&mut self, row: &str, figure: &str, column: &str, value: f64) {
        let place = (row.to_owned(), figure.to_owned());
        if !self.order.contains(&place) {
            self.order.push(place);
        }
        self.values.entry((row.to_owned(), figure.to_owned(), column.to_owned())).or_default().push(value);
    }

    /// A measurement that gave nothing.
    pub(crate) fn fail(&mut self, row: &str, column: Column, cause: &str) {
        eprintln!("{row}, {}: {cause}", column.name());
        self.failures.push(format!("{row}, {}: {cause}", column.name()));
    }

    /// How busy each process was during a measurement, in percent of one processor.
    pub(crate) fn times(&mut self, row: &str, column: Column, before: &Times, after: &Times, wall: Duration) {
        for (role, end) in after {
            let Some(begin) = before.get(role) else { continue };
            let busy = end.saturating_sub(*begin).as_secs_f64() / wall.as_secs_f64().max(1e-3) * 100.0;
            if busy >= 1.0 {
                self.put(row, &format!("CPU % {}", role.name()), column.name(), busy);
            }
        }
    }

    /// A session on which nothing has happened yet.
    pub(crate) fn session(&mut self, (memory, busy): &(BTreeMap<Role, Memory>, BTreeMap<Role, f64>)) {
        for (role, memory) in memory {
            self.put("memory", "idle RSS, MB", role.name(), memory.rss / 1e6);
            self.put("memory", "idle PSS, MB", role.name(), memory.pss / 1e6);
        }
        for (role, busy) in busy {
            self.put("memory", "idle CPU, %", role.name(), *busy);
        }
    }

    /// The same session after all rows.
    pub(crate) fn session_peak(&mut self, (memory, times): &(BTreeMap<Role, Memory>, Times)) {
        for (role, memory) in memory {
            self.put("memory", "peak RSS, MB", role.name(), memory.peak / 1e6);
            self.put("memory", "RSS afterwards, MB", role.name(), memory.rss / 1e6);
        }
        for (role, time) in times {
            self.put("memory", "CPU of all rows, s", role.name(), time.as_secs_f64());
        }
    }

    pub(crate) fn of(&self, row: &str, figure: &str, column: &str) -> &[f64] {
        let place = (row.to_owned(), figure.to_owned(), column.to_owned());
        self.values.get(&place).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn median(&self, row: &str, figure: &str, column: &str) -> Option<f64> {
        Spread::of(self.of(row, figure, column)).map(|spread| spread.median)
    }

    /// Rows with their figures, in the order in which they were first seen.
    pub(crate) fn order(&self) -> &[(String, String)] {
        &self.order
    }

    /// The columns of one figure.
    pub(crate) fn columns<'a>(
        &'a self,
        row: &'a str,
        figure: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a [f64])> + 'a {
        self.values
            .iter()
            .filter(move |((own_row, own_figure, _), _)| own_row == row && own_figure == figure)
            .map(|((_, _, column), values)| (column.as_str(), values.as_slice()))
    }

    pub(crate) fn failures(&self) -> &[String] {
        &self.failures
    }
}
